"""A release of the chart with the webhook: its values, and the objects they render.

Must not know what is tested.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from image_tree import ROOT

CHART = str(ROOT / "helm" / "sidecast")
HELM = str(Path(sys.executable).with_name("helm"))
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
    text = _rendered(yaml.safe_dump(given), args)
    found = {}
    for each in yaml.safe_load_all(text):
        if each:
            place = each["metadata"].get("namespace")
            name = each["metadata"]["name"]
            found[each["kind"], f"{place}/{name}" if place else name] = each
    return found


@functools.cache
def _rendered(given: str, args: tuple[str, ...]) -> str:
    done = template(yaml.safe_load(given), "--api-versions=cert-manager.io/v1/Certificate", *args)
    assert done.returncode == 0, done.stderr
    return done.stdout


def injection(found: Objects) -> Any:
    return json.loads(found["ConfigMap", INJECTOR]["data"]["injection.json"])


def webhook(found: Objects) -> Any:
    configuration = found["MutatingWebhookConfiguration", f"{INJECTOR}.{NAMESPACE}"]
    (only,) = configuration["webhooks"]
    return only


def secret_of(found: Objects) -> dict[str, str]:
    return dict(found["Secret", f"{INJECTOR}-tls"]["data"])


def mounted(found: Objects) -> str:
    volumes = found["Deployment", INJECTOR]["spec"]["template"]["spec"]["volumes"]
    (name,) = (volume["secret"]["secretName"] for volume in volumes if "secret" in volume)
    return str(name)
