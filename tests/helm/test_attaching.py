"""The ways to put the broker beside an agent: one container in all of them."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from chart import CHART, KUSTOMIZE, broker_of, container, containers, objects, pod_specs, render, rendered
from image_tree import ROOT

VALUES = """
config:
  nats: {url: "nats://nats:4222"}
  agent: {name: planner, url: "http://127.0.0.1:8080"}
  auth: {jwt_issuer: "https://issuer.example.com", jwt_audience: sidecast}
secretSettings:
  nats.credentials_file: {name: nats-broker, key: broker.creds}
  auth.ticket_secret: {name: sidecast, key: ticket-secret}
"""
PARENT = ROOT / "tests" / "helm" / "parent"
KUBECTL = str(Path(sys.executable).with_name("kubectl"))


@pytest.fixture
def values(tmp_path: Path) -> str:
    path = tmp_path / "values.yaml"
    path.write_text(VALUES)
    return str(path)


def parent(tmp_path: Path, *args: str, release: str = "r") -> list[dict[str, Any]]:
    """Render the chart of an agent that has ours in it."""
    shutil.copytree(PARENT, tmp_path / "planner")
    shutil.copytree(CHART, tmp_path / "planner" / "charts" / "sidecast")
    return objects(rendered(*args, chart=tmp_path / "planner", release=release))


def injected_container(found: list[dict[str, Any]]) -> dict[str, Any]:
    (text,) = (one["data"]["injection.json"] for one in found if "injection.json" in one.get("data", {}))
    (one,) = json.loads(text)["template"]["spec"]["initContainers"]
    return dict(one)


def test_the_container_is_the_same_in_all_ways(tmp_path: Path, values: str) -> None:
    agent = broker_of(objects(rendered("-f", values, "--set", "agent.enabled=true,agent.image=planner:1")))
    policy = broker_of(objects(rendered("-f", values, "--set", "inject.method=policy")))
    webhook = injected_container(
        objects(rendered("-f", values, "--set", "inject.method=webhook,inject.namespaces={agents}"))
    )
    gateway = broker_of(objects(rendered("-f", values, "--set", "gateway.enabled=true")))
    (tmp_path / "parent.yaml").write_text(yaml.safe_dump({"sidecast": yaml.safe_load(VALUES)}))
    included = broker_of(parent(tmp_path, "-f", str(tmp_path / "parent.yaml")))
    assert agent["restartPolicy"] == "Always"
    assert agent["name"] == "sidecast-broker"
    assert {"command", "args", "env", "envFrom", "ports", "volumeMounts", "lifecycle"} <= set(agent)
    assert policy == webhook == included == agent
    assert gateway | {"restartPolicy": "Always"} == agent


def test_a_chart_of_the_agent_s_own_includes_it(tmp_path: Path) -> None:
    found = parent(tmp_path)
    ((_kind, labels, spec),) = (
        (kind, labels, spec) for kind, labels, spec in pod_specs(found) if kind != "Pod"
    )
    assert [one["name"] for one in containers(spec)] == ["sidecast-broker", "migrate", "planner"]
    assert spec["terminationGracePeriodSeconds"] == 50
    config = spec["initContainers"][0]["envFrom"][0]["configMapRef"]["name"]
    by_kind = {one["kind"]: one for one in found}
    assert by_kind["ConfigMap"]["metadata"]["name"] == config
    assert by_kind["Service"]["spec"]["selector"].items() <= labels.items()
    mounted = {mount["name"] for mount in spec["initContainers"][0]["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["volumes"]}
    for one in found:
        kubernetes_validate.validate(one, "1.29", strict=True)


def test_two_agents_in_one_namespace_do_not_share_names(tmp_path: Path) -> None:
    names = [
        {one["metadata"]["name"] for one in parent(tmp_path / release, release=release)}
        for release in ("a", "b")
    ]
    assert not names[0] & names[1]


def agent(kind: str, **spec: Any) -> dict[str, Any]:
    template = {
        "metadata": {"labels": {"app": "planner"}},
        "spec": {"containers": [{"name": "agent", "image": "planner:1"}], **spec},
    }
    more = {"serviceName": "planner"} if kind == "StatefulSet" else {}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": f"planner-{kind.lower()}", "labels": {"sidecast.dev/inject": "true"}},
        "spec": {"selector": {"matchLabels": {"app": "planner"}}, "template": template, **more},
    }


OTHER = {"name": "migrate", "image": "planner:1", "args": ["migrate"]}


def kustomized(directory: Path, agents: list[dict[str, Any]], **settings: str) -> list[dict[str, Any]]:
    """Build the agents with our component and these settings, by kubectl."""
    shutil.copytree(KUSTOMIZE, directory / "sidecast")
    use = directory / "agent"
    use.mkdir()
    (use / "agents.yaml").write_text(yaml.safe_dump_all(agents))
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "sidecast"},
        "data": settings,
    }
    kustomization = {
        "resources": ["agents.yaml"],
        "components": ["../sidecast"],
        "patches": [{"patch": yaml.safe_dump(config)}],
    }
    (use / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    done = subprocess.run(
        [KUBECTL, "kustomize", str(use)],
        capture_output=True,
        text=True,
        check=False,
        env={"HOME": str(directory)},
    )
    assert done.returncode == 0, done.stderr
    return objects(done.stdout)


def test_the_component_puts_it_before_the_agent_s_init_containers(tmp_path: Path) -> None:
    bystander = agent("Deployment")
    bystander["metadata"] = {"name": "bystander"}
    agents = [agent("Deployment", initContainers=[OTHER]), agent("StatefulSet"), bystander]
    before = copy.deepcopy(bystander)
    found = kustomized(tmp_path, agents, SIDECAST_AGENT_NAME="planner")
    by_name = {(one["kind"], one["metadata"]["name"]): one for one in found}
    assert by_name["Deployment", "bystander"] == before
    (config,) = (one for one in found if one["kind"] == "ConfigMap")
    assert config["data"]["SIDECAST_AGENT_NAME"] == "planner"
    assert config["data"]["SIDECAST_SERVER_PORT"] == "8480"
    chart_container = broker_of(
        objects(rendered("--set", "inject.method=policy", "--set", "fullnameOverride=sidecast"))
    )
    # kustomize names the ConfigMap by its content.
    chart_container["envFrom"][0]["configMapRef"]["name"] = config["metadata"]["name"]
    for kind, names in (("Deployment", ["sidecast-broker", "migrate"]), ("StatefulSet", ["sidecast-broker"])):
        template = by_name[kind, f"planner-{kind.lower()}"]["spec"]["template"]
        assert [one["name"] for one in template["spec"]["initContainers"]] == names
        assert template["spec"]["initContainers"][0] == chart_container
        service = by_name["Service", "sidecast"]
        assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    for one in found:
        for version in ("1.29", "1.37"):
            kubernetes_validate.validate(one, version, strict=True)


def test_a_setting_that_changes_makes_new_pods(tmp_path: Path) -> None:
    templates = []
    for name in ("planner", "writer"):
        directory = tmp_path / name
        directory.mkdir()
        found = kustomized(directory, [agent("Deployment")], SIDECAST_AGENT_NAME=name)
        templates += [one["spec"]["template"] for one in found if one["kind"] == "Deployment"]
    assert templates[0] != templates[1]


def test_a_hook_drains_it_but_where_it_publishes_for_the_agent() -> None:
    assert container("agent")["lifecycle"]["preStop"]["exec"]["command"] == ["sidecast", "drain", "--local"]
    assert "lifecycle" not in container("agent", "--set", "drain.preStop=false")
    assert "lifecycle" not in container("agent", "--set", "config.agent.capture=proxy")
    assert "lifecycle" in container("gateway", "--set", "config.agent.capture=proxy")


def test_variables_that_are_no_settings_are_its_too() -> None:
    given = '[{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4318"}]'
    variables = container("agent", "--set-json", f"env={given}")["env"]
    assert variables == [*container("agent").get("env", []), *json.loads(given)]
    assert container("gateway", "--set-json", f"env={given}")["env"][-1] == json.loads(given)[0]


def test_a_setting_that_changes_makes_new_pods_of_the_chart() -> None:
    def checksum(*args: str) -> str:
        (found,) = (one for one in objects(render("agent", *args)) if one["kind"] == "Deployment")
        return str(found["spec"]["template"]["metadata"]["annotations"]["checksum/config"])

    assert checksum() != checksum("--set", "config.stream.retry_ms=2000")
    assert checksum() == checksum("--set", "agent.replicas=3")
