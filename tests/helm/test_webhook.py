"""The chart's webhook: which pods are asked about, what is in their namespaces, and what is refused."""

from __future__ import annotations

import base64
import re
import subprocess
from typing import Any, get_args

import pytest
import yaml
from cryptography import x509
from image_tree import ROOT
from injected_pods import validate
from webhook_release import (
    CERTIFICATES,
    CHART,
    GENERATED,
    GIVEN,
    HELM,
    INJECTOR,
    NAMESPACE,
    SELF_SIGNED,
    injection,
    render,
    template,
    values,
    webhook,
)

from sidecast_broker.core.injection import Outcome, read_template
from sidecast_broker.core.overrides import KNOWN
from sidecast_broker.injector import REVIEWS_MAX

# --- what is rendered


@CERTIFICATES
def test_every_object_has_the_shape_of_its_kind(certificate: dict[str, Any]) -> None:
    found = render(values(certificate, networkPolicy={"enabled": True}))
    for (kind, _), each in found.items():
        if kind not in ("Certificate", "Issuer"):
            validate(each)


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


def test_the_webhook_has_a_port_of_its_own() -> None:
    (container,) = render(values())["Deployment", INJECTOR]["spec"]["template"]["spec"]["containers"]
    done = template(values(webhook={"port": container["livenessProbe"]["httpGet"]["port"]}))
    assert done.returncode != 0
    assert "inject.webhook.port" in done.stderr


def test_the_rendered_template_is_read() -> None:
    given = values(config={**values()["config"], "stream": {"drain_s": 12.5}})
    read = read_template(render(given)["ConfigMap", INJECTOR]["data"]["injection.json"].encode())
    assert (read.namespaces, read.labels) == (frozenset({"agents"}), {"sidecast.dev/inject": "true"})
    assert (read.ports[0], read.grace_s) == (8480, 13 + 15)


# --- the documentation

DOCUMENT = (ROOT / "docs" / "injector.md").read_text()


def test_the_documented_values_render() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert webhook(render(yaml.safe_load(text)))["failurePolicy"] == "Fail"


def test_what_it_names_exists() -> None:
    named = set(re.findall(r"`(sidecast\.dev/[a-z-]+)`", DOCUMENT))
    assert named == set(KNOWN)
    outcomes = re.search(r"sidecast_injections_total\{outcome\}`: (.*?) \|", DOCUMENT)
    assert outcomes
    assert set(re.findall(r"`(\w+)`", outcomes[1])) == set(get_args(Outcome))
    assert f" {REVIEWS_MAX} are read at once" in DOCUMENT
