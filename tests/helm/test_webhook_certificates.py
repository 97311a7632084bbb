"""The webhook's certificates, and the injector run as the chart renders it."""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from injected_pods import SHAPES, patched_by, review, validate
from webhook_release import (
    GIVEN,
    HOST,
    INJECTOR,
    ISSUED,
    NAMESPACE,
    PEM,
    SELF_SIGNED,
    Objects,
    injection,
    mounted,
    render,
    secret_of,
    values,
    webhook,
)

from sidecast_broker.configuration import load

# --- certificates


def test_a_generated_certificate_is_for_the_service_and_of_its_authority() -> None:
    found = render(values())
    secret = {key: base64.b64decode(value) for key, value in secret_of(found).items()}
    authority = x509.load_pem_x509_certificate(secret["ca.crt"])
    leaf = x509.load_pem_x509_certificate(secret["tls.crt"])
    leaf.verify_directly_issued_by(authority)
    assert leaf.subject != authority.subject
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [HOST, f"{HOST}.cluster.local"]
    assert webhook(found)["clientConfig"]["caBundle"] == secret_of(found)["ca.crt"]


@contextmanager
def cluster(secret: dict[str, Any] | None) -> Iterator[str]:
    """Stand in for an API server that has this Secret, as far as Helm looks; give its URL."""
    known: dict[str, Any] = {
        "/api/v1": {
            "kind": "APIResourceList",
            "groupVersion": "v1",
            "resources": [{"name": "secrets", "namespaced": True, "kind": "Secret", "verbs": ["get"]}],
        },
        f"/api/v1/namespaces/{NAMESPACE}/secrets/{INJECTOR}-tls": secret,
    }

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            missing = {"kind": "Status", "apiVersion": "v1", "reason": "NotFound", "code": 404}
            found = known.get(self.path.partition("?")[0])
            body = json.dumps(found or missing).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def upgraded(secret: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch, home: Path) -> Objects:
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with cluster(secret) as url:
        return render(values(), "--dry-run=server", "--kube-apiserver", url)


def test_an_upgrade_keeps_the_certificate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed = upgraded(None, monkeypatch, tmp_path)
    there = installed["Secret", f"{INJECTOR}-tls"]
    later = upgraded(there, monkeypatch, tmp_path)
    assert secret_of(later) == there["data"]
    assert webhook(later) == webhook(installed)


@pytest.mark.parametrize("damage", [{"ca.crt": None}, {"tls.key": ""}, None])
def test_half_a_certificate_is_made_anew(
    damage: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there = upgraded(None, monkeypatch, tmp_path)["Secret", f"{INJECTOR}-tls"]
    whole = dict(there["data"])
    data = None if damage is None else {k: v for k, v in {**whole, **damage}.items() if v is not None}
    later = upgraded({**there, "data": data}, monkeypatch, tmp_path)
    assert not set(secret_of(later).values()) & set(whole.values())
    assert webhook(later)["clientConfig"]["caBundle"] == secret_of(later)["ca.crt"]


@pytest.mark.parametrize(
    ("certificate", "issuer"),
    [(SELF_SIGNED, {"kind": "Issuer", "name": INJECTOR}), (ISSUED, {"kind": "ClusterIssuer", "name": "own"})],
)
def test_cert_manager_makes_it(certificate: dict[str, Any], issuer: dict[str, str]) -> None:
    found = render(values(certificate))
    asked = found["Certificate", INJECTOR]["spec"]
    assert asked["issuerRef"] == {"group": "cert-manager.io", **issuer}
    assert HOST in asked["dnsNames"]
    assert (("Issuer", INJECTOR) in found) == (certificate is SELF_SIGNED)
    assert asked["secretName"] == mounted(found)
    configuration = found["MutatingWebhookConfiguration", f"{INJECTOR}.{NAMESPACE}"]
    inject_from = configuration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"]
    assert inject_from == f"{NAMESPACE}/{INJECTOR}"
    assert "caBundle" not in webhook(found)["clientConfig"]
    assert ("Secret", f"{INJECTOR}-tls") not in found


def test_a_given_secret_is_used() -> None:
    found = render(values(GIVEN))
    assert mounted(found) == "own-certificate"
    assert base64.b64decode(webhook(found)["clientConfig"]["caBundle"]).decode() == PEM
    assert not [kind for kind, _ in found if kind in ("Secret", "Certificate")]


def test_a_generated_certificate_is_mounted() -> None:
    assert mounted(render(values())) == f"{INJECTOR}-tls"


# --- the injector as it is rendered


@contextmanager
def running(found: Objects, folder: Path) -> Iterator[int]:
    """Run the injector's container as a process, with what it would find mounted; give its port."""
    (container,) = found["Deployment", INJECTOR]["spec"]["template"]["spec"]["containers"]
    (folder / "injection").mkdir()
    (folder / "tls").mkdir()
    for name, text in found["ConfigMap", INJECTOR]["data"].items():
        (folder / "injection" / name).write_text(text)
    for key, value in secret_of(found).items():
        (folder / "tls" / key).write_bytes(base64.b64decode(value))

    def here(text: str) -> str:
        return text.replace("/etc/sidecast/", f"{folder}/")

    environ = {entry["name"]: here(entry["value"]) for entry in container["env"]}
    assert load(None, {**environ, "SIDECAST_AUTH_INSECURE": "true", "SIDECAST_AUTH_REQUIRED": "false"}, {})
    free = {"SIDECAST_SERVER_PORT": "0", "SIDECAST_SERVER_INTERNAL_PORT": "0"}
    (program,) = container["command"]
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name(program)), *map(here, container["args"])],
        env={"PATH": os.environ["PATH"], **environ, **free},
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        said = json.loads(process.stderr.readline())
        assert said["event"] == "listening", said
        yield int(said["url"].rpartition(":")[2])
    finally:
        process.kill()
        process.communicate()


async def test_an_api_server_is_answered_as_rendered(tmp_path: Path) -> None:
    found = render(values())
    context = ssl.create_default_context(
        cadata=base64.b64decode(webhook(found)["clientConfig"]["caBundle"]).decode()
    )
    path = webhook(found)["clientConfig"]["service"]["path"]
    with running(found, tmp_path) as port:
        async with aiohttp.ClientSession() as session:
            for shape in SHAPES.values():
                body = json.dumps(review(shape.pod, namespace=shape.namespace)).encode()
                url = f"https://127.0.0.1:{port}{path}?timeout=5s"
                async with session.post(url, data=body, ssl=context, server_hostname=HOST) as answer:
                    after = patched_by(shape.pod, json.loads(await answer.read()))
                assert after == shape.wanted(injection(found)["template"])
                validate(after)
