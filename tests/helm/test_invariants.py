"""What no schema of Kubernetes can see, over everything the chart renders."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import CHART, SHAPES, broker_of, containers, objects, pod_specs, render, rendered, values_of
from packaging.version import Version

LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
CLUSTER_SCOPED = {
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "MutatingWebhookConfiguration",
}
RESTRICTED = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""What the level `restricted` of Pod Security asks of a container."""

OURS = {"sidecast-broker", "injector", "connect"}

every_shape = pytest.mark.parametrize("shape", SHAPES)


def found_in(shape: str) -> list[dict[str, Any]]:
    return objects(render(shape))


def of_kind(shape: str, kind: str) -> list[dict[str, Any]]:
    return [one for one in found_in(shape) if one["kind"] == kind]


def parts(value: Any) -> Iterator[dict[str, Any]]:
    """Give all objects within a value."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from parts(inner)


@every_shape
def test_every_port_that_is_named_exists_by_number(shape: str) -> None:
    for _kind, _labels, spec in pod_specs(found_in(shape)):
        for container in containers(spec):
            ports = {port["containerPort"] for port in container.get("ports", ())}
            assert len(ports) == len(container.get("ports", ()))
            for name in ("startupProbe", "livenessProbe", "readinessProbe"):
                if name in container:
                    assert container[name]["httpGet"]["port"] in ports
    for one in found_in(shape):
        for part in parts(one.get("spec")):
            for name in ("targetPort", "portNumber"):
                assert isinstance(part.get(name, 0), int)
    for policy in of_kind(shape, "NetworkPolicy"):
        for rule in policy["spec"]["ingress"]:
            assert all(isinstance(port["port"], int) for port in rule["ports"])


def pods_of(shape: str) -> list[dict[str, str]]:
    """Give the labels of the pods there will be; those of others have what the chart asks of them."""
    labels = [labels for kind, labels, _spec in pod_specs(found_in(shape))]
    values = yaml.safe_load(Path(values_of(shape)).read_text())
    ours = values.get("agent", {}).get("enabled") or values.get("gateway", {}).get("enabled")
    return labels if ours else [*labels, {"sidecast.dev/inject": "true"}]


@every_shape
def test_selectors_find_pods(shape: str) -> None:
    pods = pods_of(shape)
    selectors = []
    for one in found_in(shape):
        spec = one.get("spec", {})
        if one["kind"] == "Service":
            selectors.append(spec["selector"])
        elif one["kind"] == "NetworkPolicy":
            selectors.append(spec["podSelector"]["matchLabels"])
        elif one["kind"] in ("Deployment", "PodDisruptionBudget", "PodMonitor"):
            selectors.append(spec["selector"]["matchLabels"])
        found = (part["labelSelector"] for part in parts(spec) if "labelSelector" in part)
        selectors.extend(selector["matchLabels"] for selector in found)
    assert selectors
    for selector in selectors:
        assert selector
        assert any(selector.items() <= pod.items() for pod in pods)


@every_shape
def test_a_deployment_selects_only_its_own_pods(shape: str) -> None:
    for one in of_kind(shape, "Deployment"):
        selector = one["spec"]["selector"]["matchLabels"]
        assert not any("version" in name or "chart" in name for name in selector)
        others = [labels for _kind, labels, _spec in pod_specs(found_in(shape))]
        others.remove(one["spec"]["template"]["metadata"]["labels"])
        assert not any(selector.items() <= labels.items() for labels in others)


@every_shape
def test_containers_and_volumes_have_names_of_their_own(shape: str) -> None:
    for _kind, _labels, spec in pod_specs(found_in(shape)):
        names = [container["name"] for container in containers(spec)]
        assert len(set(names)) == len(names)
        volumes = [volume["name"] for volume in spec.get("volumes", ())]
        assert len(set(volumes)) == len(volumes)
        assert all(re.fullmatch(LABEL, name) for name in (*names, *volumes))
        mounted = {mount["name"] for one in containers(spec) for mount in one.get("volumeMounts", ())}
        assert mounted == set(volumes)


@every_shape
def test_what_is_enumerated_is_one_of_the_words(shape: str) -> None:
    for kind, _labels, spec in pod_specs(found_in(shape)):
        for container in spec.get("initContainers", ()):
            assert container["restartPolicy"] == "Always"
        assert all("restartPolicy" not in container for container in spec["containers"])
        assert spec.get("restartPolicy") == ("Never" if kind == "Pod" else None)
        for container in containers(spec):
            assert container.get("imagePullPolicy", "IfNotPresent") in ("IfNotPresent", "Always", "Never")


@pytest.mark.parametrize(
    "release", ["r" * 53, "sidecast", "a-sidecast-" + "b" * 40, "r" * 41 + "-" + "r" * 11]
)
@every_shape
def test_names_are_names(shape: str, release: str) -> None:
    seen = set()
    for one in objects(render(shape, release=release)):
        metadata = one["metadata"]
        pattern = rf"{LABEL}(\.{LABEL})*" if one["kind"] in CLUSTER_SCOPED else LABEL
        assert re.fullmatch(pattern, metadata["name"])
        key = (one["kind"], metadata.get("namespace"), metadata["name"])
        assert key not in seen
        seen.add(key)
        for value in metadata["labels"].values():
            assert re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", value)


@every_shape
def test_what_a_pod_refers_to_is_there_or_yours(shape: str) -> None:
    found = found_in(shape)
    there = {(one["kind"], one["metadata"]["name"]) for one in found}
    values = yaml.safe_load(Path(values_of(shape)).read_text())
    yours = {secret["name"] for secret in values.get("secretSettings", {}).values()}
    yours |= {values.get("test", {}).get("tokenSecret", {}).get("name")}
    yours |= {values.get("inject", {}).get("webhook", {}).get("certificate", {}).get("secret")}
    for _kind, _labels, spec in pod_specs(found):
        for part in parts(spec):
            if "configMapRef" in part:
                assert ("ConfigMap", part["configMapRef"]["name"]) in there
            if "configMap" in part:
                assert ("ConfigMap", part["configMap"]["name"]) in there
            for name in ("secretKeyRef", "secret", "secretRef"):
                if name in part:
                    secret = part[name].get("name") or part[name]["secretName"]
                    assert secret in yours or ("Secret", secret) in there


@every_shape
def test_pods_are_restricted(shape: str) -> None:
    for kind, _labels, spec in pod_specs(found_in(shape)):
        for container in containers(spec):
            if kind == "PodTemplate" and container["name"] == "agent":
                continue  # copied nowhere
            context = container["securityContext"]
            assert RESTRICTED.items() <= context.items()
            if container["name"] in OURS:
                assert context["readOnlyRootFilesystem"] is True
                assert context["runAsUser"] == 65532
                assert "@" in container["image"] or not container["image"].endswith((":latest", ":"))
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        if kind != "PodTemplate":  # in the pods of others the account is the agent's
            assert spec["automountServiceAccountToken"] is False
        for volume in spec.get("volumes", ()):
            assert set(volume) <= {"name", "secret", "configMap"}


@every_shape
def test_memory_is_limited_and_processor_time_is_not(shape: str) -> None:
    for _kind, _labels, spec in pod_specs(found_in(shape)):
        for container in containers(spec):
            if container["name"] in ("sidecast-broker", "injector"):
                assert "memory" in container["resources"]["limits"]
                assert "cpu" not in container["resources"]["limits"]
                assert container["resources"]["requests"]


@pytest.mark.parametrize(
    ("sets", "grace_s"),
    [
        ("agent.enabled=true,agent.image=a:1", 50),
        ("agent.enabled=true,agent.image=a:1,agent.grace_s=600,config.stream.drain_s=7", 622),
        ("agent.enabled=true,agent.image=a:1,config.stream.drain_s=0", 45),
        ("gateway.enabled=true,config.stream.drain_s=60", 75),
        ("gateway.enabled=true,config.stream.drain_s=null", 20),
    ],
)
def test_the_grace_period_is_the_sum_its_comment_says(sets: str, grace_s: int) -> None:
    text = rendered("--set", sets)
    (spec,) = (spec for kind, _labels, spec in pod_specs(objects(text)) if kind == "Deployment")
    assert spec["terminationGracePeriodSeconds"] == grace_s
    (comment,) = re.findall(r"# (.+)\n +terminationGracePeriodSeconds", text)
    assert sum(map(int, re.findall(r"(?<!\S)\d+(?!\S)", comment))) == grace_s


def test_part_of_a_second_counts_as_one() -> None:
    # 12.5 s to drain.
    (spec,) = (spec for kind, _labels, spec in pod_specs(found_in("gateway")) if kind == "Deployment")
    assert spec["terminationGracePeriodSeconds"] == 13 + 15


@every_shape
def test_a_network_policy_lets_in_nobody_it_does_not_name(shape: str) -> None:
    for policy in of_kind(shape, "NetworkPolicy"):
        assert policy["spec"]["policyTypes"] == ["Ingress"]
        webhook = policy["metadata"]["name"].endswith("-injector")
        for rule in policy["spec"]["ingress"]:
            assert rule["ports"]
            assert rule.get("from") or webhook
            assert all(rule.get("from", [True]))


def test_administration_is_reached_from_inside_the_pod_only() -> None:
    for shape in SHAPES:
        text = render(shape)
        assert "8481" not in re.sub(r"SIDECAST_SERVER_INTERNAL_PORT: ?\"8481\"", "", text).replace(
            r"\"8481\"", ""
        )
        for config in of_kind(shape, "ConfigMap"):
            assert config["data"].get("SIDECAST_SERVER_INTERNAL_HOST", "127.0.0.1") == "127.0.0.1"


def test_what_is_off_is_not_rendered() -> None:
    kinds = {one["kind"] for one in objects(rendered())}
    assert kinds == {"ConfigMap", "Service", "Pod"}
    more = {
        "pdb.enabled": "PodDisruptionBudget",
        "networkPolicy.enabled": "NetworkPolicy",
        "ingress.enabled": "Ingress",
        "gateway.hpa.enabled": "HorizontalPodAutoscaler",
        "monitoring.podMonitor.enabled": "PodMonitor",
        "monitoring.rules.enabled": "PrometheusRule",
    }
    for value, kind in more.items():
        with_it = {one["kind"] for one in objects(rendered("--set", f"gateway.enabled=true,{value}=true"))}
        assert with_it == kinds | {"Deployment", kind}


def test_the_number_of_replicas_is_the_autoscaler_s() -> None:
    (deployment,) = of_kind("gateway", "Deployment")
    assert "replicas" not in deployment["spec"]
    (scaler,) = of_kind("gateway", "HorizontalPodAutoscaler")
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]


def test_proxies_are_told_to_leave_streams_alone() -> None:
    (ingress,) = of_kind("gateway", "Ingress")
    nginx = {name.rpartition("/")[2]: value for name, value in ingress["metadata"]["annotations"].items()}
    assert nginx["proxy-buffering"] == "off"
    assert nginx["proxy-http-version"] == "1.1"
    # Beyond the longest heartbeat that can be set, by far.
    assert int(nginx["proxy-read-timeout"]) >= 3600
    (alb,) = (
        one
        for one in objects(rendered("--set", "ingress.enabled=true,ingress.controller=alb"))
        if one["kind"] == "Ingress"
    )
    annotations = alb["metadata"]["annotations"]
    assert annotations["alb.ingress.kubernetes.io/target-type"] == "ip"
    attributes = annotations["alb.ingress.kubernetes.io/load-balancer-attributes"]
    # The longest the load balancer takes is 4000.
    assert 300 < int(attributes.rpartition("=")[2]) <= 4000
    (route,) = of_kind("gateway", "HTTPRoute")
    assert route["spec"]["rules"][0]["timeouts"] == {"request": "0s", "backendRequest": "0s"}
    (virtual,) = of_kind("gateway", "VirtualService")
    (http,) = virtual["spec"]["http"]
    assert (http["timeout"], http["retries"]) == ("0s", {"attempts": 0})


def test_an_annotation_of_one_s_own_goes_before_ours() -> None:
    name = "nginx.ingress.kubernetes.io/proxy-read-timeout"
    escaped = name.replace(".", "\\.")
    text = rendered("--set", "ingress.enabled=true", "--set-string", f"ingress.annotations.{escaped}=60")
    (ingress,) = (one for one in objects(text) if one["kind"] == "Ingress")
    assert ingress["metadata"]["annotations"][name] == "60"


def test_the_dashboard_is_one() -> None:
    found = of_kind("gateway", "ConfigMap")
    (dashboard,) = (one["data"]["sidecast.json"] for one in found if "sidecast.json" in one["data"])
    panels = json.loads(dashboard)["panels"]
    assert panels
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids)


def test_what_the_chart_says_of_itself() -> None:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert about["kubeVersion"] == ">=1.29.0-0"
    assert "dependencies" not in about
    assert Version(about["version"])
    assert len((CHART / "values.yaml").read_text().splitlines()) <= 200


def test_the_container_can_be_started_as_nobody_with_nothing_to_write_to() -> None:
    broker = broker_of(found_in("gateway"))
    assert all(mount["readOnly"] for mount in broker["volumeMounts"])
    assert broker["command"] == ["sidecast"]
    assert broker["args"] == ["serve"]
