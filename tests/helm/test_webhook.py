"""The chart's webhook: certificates, which pods are asked about, and the injector run as it is rendered."""

from __future__ import annotations

import base64
import json
import os
import re
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
import kubernetes_validate
import pytest
import yaml
from cryptography import x509
from image_tree import ROOT
from injected_pods import SHAPES, patched_by, review

from sidecast_broker.configuration import load
from sidecast_broker.core.injection import read_template

CHART = str(ROOT / "helm" / "sidecast")
HELM = str(Path(sys.executable).with_name("helm"))
VERSIONS = ("1.29", "1.33", "1.36", "1.37")
NAMESPACE = "sidecast-system"
INJECTOR = "r-sidecast-injector"
HOST = f"{INJECTOR}.{NAMESPACE}.svc"
PEM = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n"

GENERATED: dict[str, Any] = {"source": "generated"}
SELF_SIGNED: dict[str, Any] = {"source": "cert-manager"}
ISSUED: dict[str, Any] = {"source": "cert-manager", "issuer": {"name": "own", "kind": "ClusterIssuer"}}
GIVEN: dict[str, Any] = {"source": "secret", "secret": "own-certificate", "caBundle": PEM}
CERTIFICATES = pytest.mark.parametrize(
    "certificate",
    [GENERATED, SELF_SIGNED, ISSUED, GIVEN],
    ids=["generated", "cert-manager", "issuer", "secret"],
)

Objects = dict[tuple[str, str], dict[str, Any]]


def values(certificate: dict[str, Any] = GENERATED, **more: Any) -> dict[str, Any]:
    """Give values of a webhook; `imagePullSecrets` and a file's volume are there to be put into pods."""
    webhook = {"certificate": certificate, **more.pop("webhook", {})}
    inject = {"method": "webhook", "namespaces": ["agents"], "webhook": webhook, **more.pop("inject", {})}
    return {
        "inject": inject,
        "config": {"auth": {"jwt_issuer": "https://issuer.example.com", "jwt_audience": "sidecast"}},
        "imagePullSecrets": [{"name": "broker-registry"}],
        "secretSettings": {"nats.credentials_file": {"name": "nats-broker", "key": "broker.creds"}},
        **more,
    }


def template(given: dict[str, Any], *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [HELM, "template", "r", CHART, "--namespace", NAMESPACE, "-f", "-", *args],
        input=yaml.safe_dump(given),
        capture_output=True,
        text=True,
        check=False,
    )


def render(given: dict[str, Any], *args: str) -> Objects:
    """Render; give the objects by kind and name, those of other namespaces with it."""
    done = template(given, "--api-versions=cert-manager.io/v1/Certificate", *args)
    assert done.returncode == 0, done.stderr
    found = {}
    for each in yaml.safe_load_all(done.stdout):
        if each:
            place = each["metadata"].get("namespace")
            name = each["metadata"]["name"]
            found[each["kind"], f"{place}/{name}" if place else name] = each
    return found


def injection(found: Objects) -> Any:
    return json.loads(found["ConfigMap", INJECTOR]["data"]["injection.json"])


def webhook(found: Objects) -> Any:
    configuration = found["MutatingWebhookConfiguration", f"{INJECTOR}.{NAMESPACE}"]
    (only,) = configuration["webhooks"]
    return only


# --- what is rendered


@CERTIFICATES
def test_every_object_has_the_shape_of_its_kind(certificate: dict[str, Any]) -> None:
    found = render(values(certificate, networkPolicy={"enabled": True}))
    for (kind, _), each in found.items():
        if kind not in ("Certificate", "Issuer"):
            for version in VERSIONS:
                kubernetes_validate.validate(each, version, strict=True)


@CERTIFICATES
def test_only_generated_certificates_differ_between_two_renders(certificate: dict[str, Any]) -> None:
    def without_certificates(text: str) -> str:
        return re.sub(r"(ca\.crt|tls\.crt|tls\.key|caBundle): \S+", r"\1: -", text)

    api = "--api-versions=cert-manager.io/v1/Certificate"
    first, second = (template(values(certificate), api).stdout for _ in range(2))
    assert without_certificates(first) == without_certificates(second)
    assert (first == second) == (certificate is not GENERATED)


def test_nothing_is_rendered_for_other_methods() -> None:
    kinds = {kind for kind, _ in render({"config": {"agent": {"name": "a"}}})}
    assert kinds == {"ConfigMap", "Service", "Pod"}


def test_the_api_server_asks_about_few_pods() -> None:
    only = webhook(render(values(inject={"failurePolicy": "Ignore"}, webhook={"timeout_s": 3})))
    assert only["rules"] == [
        {
            "operations": ["CREATE"],
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "resources": ["pods"],
            "scope": "Namespaced",
        }
    ]
    inside, outside = only["namespaceSelector"]["matchExpressions"]
    assert (inside["operator"], inside["values"]) == ("In", ["agents"])
    assert (outside["operator"], outside["values"]) == ("NotIn", ["kube-system", NAMESPACE])
    assert {inside["key"], outside["key"]} == {"kubernetes.io/metadata.name"}
    assert only["objectSelector"] == {"matchLabels": {"sidecast.dev/inject": "true"}}
    assert (only["failurePolicy"], only["timeoutSeconds"]) == ("Ignore", 3)
    assert (only["sideEffects"], only["reinvocationPolicy"]) == ("None", "IfNeeded")
    assert webhook(render(values()))["failurePolicy"] == "Fail"


def test_the_way_to_the_injector_is_whole() -> None:
    found = render(values(webhook={"port": 9443}))
    service = found["Service", INJECTOR]
    reference = webhook(found)["clientConfig"]["service"]
    (port,) = service["spec"]["ports"]
    assert reference == {"name": INJECTOR, "namespace": NAMESPACE, "path": "/mutate", "port": port["port"]}
    pod = found["Deployment", INJECTOR]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    listening = {entry["containerPort"] for entry in container["ports"]}
    probed = {container[probe]["httpGet"]["port"] for probe in ("livenessProbe", "readinessProbe")}
    assert port["targetPort"] == 9443
    assert {port["targetPort"]} | probed <= listening
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert not webhook(found)["objectSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()


def test_replicas_and_their_budget() -> None:
    found = render(values())
    assert found["Deployment", INJECTOR]["spec"]["replicas"] == 2
    budget = found["PodDisruptionBudget", INJECTOR]["spec"]
    assert (budget["maxUnavailable"], budget["selector"]) == (
        1,
        found["Deployment", INJECTOR]["spec"]["selector"],
    )
    assert ("PodDisruptionBudget", INJECTOR) not in render(values(webhook={"replicas": 1}))


def test_the_injector_has_no_account_and_few_rights() -> None:
    found = render(values())
    assert not {kind for kind, _ in found} & {"ServiceAccount", "Role", "ClusterRole", "ClusterRoleBinding"}
    spec = found["Deployment", INJECTOR]["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    (container,) = spec["containers"]
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"] is context["runAsNonRoot"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["allowPrivilegeEscalation"] is False


def test_what_the_container_refers_to_is_in_every_namespace() -> None:
    given = values(inject={"namespaces": ["a", "b"]}, networkPolicy={"enabled": True})
    found = render(given)
    container = injection(found)["template"]["spec"]["initContainers"][0]
    name = container["envFrom"][0]["configMapRef"]["name"]
    for kind in ("ConfigMap", "Service", "NetworkPolicy"):
        places = {where for found_kind, where in found if found_kind == kind and where.endswith(f"/{name}")}
        assert places == {f"a/{name}", f"b/{name}"}
    assert found["ConfigMap", f"a/{name}"]["data"] == found["ConfigMap", f"b/{name}"]["data"]


def test_the_container_is_that_of_a_deployment() -> None:
    given = values()
    found = injection(render(given))["template"]["spec"]
    deployed = {**given, "inject": {}, "agent": {"enabled": True, "image": "a:1"}}
    deployed["config"] = {**given["config"], "agent": {"url": "http://127.0.0.1:8080"}}
    spec = render(deployed)["Deployment", "r-sidecast"]["spec"]["template"]["spec"]
    assert found["initContainers"] == spec["initContainers"]
    assert found["volumes"] == spec["volumes"]
    assert found["imagePullSecrets"] == spec["imagePullSecrets"]


def test_names_fit_with_the_longest_release_name() -> None:
    done = subprocess.run(
        [HELM, "template", "r" * 53, CHART, "--namespace", "n" * 63, "-f", "-"],
        input=yaml.safe_dump(values()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for each in filter(None, yaml.safe_load_all(done.stdout)):
        name, longest = each["metadata"]["name"], 63
        if each["kind"] == "MutatingWebhookConfiguration":
            longest = 253
        assert len(name) <= longest
        if each["kind"] == "Secret":
            leaf = x509.load_pem_x509_certificate(base64.b64decode(each["data"]["tls.crt"]))
            assert leaf.subject != leaf.issuer


# --- certificates


def secret_of(found: Objects) -> dict[str, str]:
    return dict(found["Secret", f"{INJECTOR}-tls"]["data"])


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


def mounted(found: Objects) -> str:
    volumes = found["Deployment", INJECTOR]["spec"]["template"]["spec"]["volumes"]
    (name,) = (volume["secret"]["secretName"] for volume in volumes if "secret" in volume)
    return str(name)


def test_a_given_secret_is_used() -> None:
    found = render(values(GIVEN))
    assert mounted(found) == "own-certificate"
    assert base64.b64decode(webhook(found)["clientConfig"]["caBundle"]).decode() == PEM
    assert not [kind for kind, _ in found if kind in ("Secret", "Certificate")]


def test_a_generated_certificate_is_mounted() -> None:
    assert mounted(render(values())) == f"{INJECTOR}-tls"


# --- refusals


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (values(inject={"namespaces": []}), "inject.namespaces"),
        (values(inject={"namespaces": ["kube-system"]}), "inject.namespaces"),
        (values(inject={"namespaces": ["agents", NAMESPACE]}), "inject.namespaces"),
        (values(inject={"namespaces": ["agents", "agents"]}), "inject.namespaces"),
        (values(inject={"namespaces": [1]}), "inject.namespaces"),
        ({"inject": {"namespaces": ["agents"]}}, "inject.namespaces"),
        (values(inject={"method": "hook"}), "inject.method"),
        (values(inject={"failurePolicy": "Maybe"}), "inject.failurePolicy"),
        (values(webhook={"timeout_s": 31}), "inject.webhook.timeout_s"),
        (values(webhook={"timeout_s": 0}), "inject.webhook.timeout_s"),
        (values(webhook={"port": 443}), "inject.webhook.port"),
        (values(webhook={"port": 8481}), "inject.webhook.port"),
        (values(webhook={"prot": 8443}), "prot"),
        (values({"source": "none"}), "inject.webhook.certificate.source"),
        (values(SELF_SIGNED), "inject.webhook.certificate.source"),
        (values({**GENERATED, "secret": "x"}), "inject.webhook.certificate.source"),
        (values({**GIVEN, "secret": ""}), "inject.webhook.certificate.secret"),
        (values({**GIVEN, "caBundle": "MII"}), "inject.webhook.certificate.caBundle"),
        (values(agent={"enabled": True, "image": "a:1"}), "agent.enabled"),
        (values(gateway={"enabled": True}), "gateway.enabled"),
        (values(ingress={"enabled": True}), "ingress.enabled"),
        (values(httpRoute={"enabled": True}), "httpRoute.enabled"),
    ],
)
def test_a_refusal_names_the_field(given: dict[str, Any], field: str) -> None:
    done = template(given)
    assert done.returncode != 0
    assert field in done.stderr


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
                for version in VERSIONS:
                    kubernetes_validate.validate(after, version, strict=True)


def test_the_rendered_template_is_read() -> None:
    given = values(config={**values()["config"], "stream": {"drain_s": 12.5}})
    read = read_template(render(given)["ConfigMap", INJECTOR]["data"]["injection.json"].encode())
    assert (read.namespaces, read.labels) == (frozenset({"agents"}), {"sidecast.dev/inject": "true"})
    assert (read.ports, read.grace_s) == ([8480, 8481], 13 + 15)
