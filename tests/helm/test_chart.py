"""The chart: what it renders, refuses, and shares with the broker's settings and metrics."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import chart_schema
import kubernetes_validate
import pytest
import yaml
from image_tree import ROOT

from sidecast_broker.configuration import ENV_OF_CLIENTS, load
from sidecast_broker.metrics import Metrics
from sidecast_broker.settings import SETTINGS

CHART = ROOT / "helm" / "sidecast"
HELM = str(Path(sys.executable).with_name("helm"))
SHAPES = sorted(path.stem for path in (CHART / "ci").glob("*.yaml"))
VERSIONS = ("1.29", "1.33", "1.36", "1.37")
CRDS = {"Certificate", "HTTPRoute", "Issuer", "PodMonitor", "PrometheusRule"}
APIS = [
    "--api-versions=cert-manager.io/v1/Certificate",
    "--api-versions=gateway.networking.k8s.io/v1/HTTPRoute",
    "--api-versions=monitoring.coreos.com/v1/PodMonitor",
    "--api-versions=monitoring.coreos.com/v1/PrometheusRule",
]


def helm(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HELM, *args], capture_output=True, text=True, check=False)


def render(shape: str, *args: str, release: str = "r") -> str:
    values = str(CHART / "ci" / f"{shape}.yaml")
    done = helm("template", release, str(CHART), "-f", values, *APIS, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(text: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(text) if document]


def container(shape: str, *args: str) -> dict[str, Any]:
    (deployment,) = (found for found in objects(render(shape, *args)) if found["kind"] == "Deployment")
    spec = deployment["spec"]["template"]["spec"]
    every = [*spec.get("initContainers", []), *spec["containers"]]
    (found,) = (one for one in every if one["name"] == "sidecast-broker")
    return dict(found)


def test_the_schema_is_that_of_values_and_settings() -> None:
    assert (CHART / "values.schema.json").read_text() == chart_schema.written(CHART)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_lints(shape: str) -> None:
    # Lint knows no cluster that serves the kinds of others.
    off = ["httpRoute", "monitoring.podMonitor", "monitoring.rules"]
    sets = [f"--set={name}.enabled=false" for name in off]
    done = helm("lint", "--strict", str(CHART), "-f", str(CHART / "ci" / f"{shape}.yaml"), *sets)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_object_has_the_shape_of_its_kind(shape: str, version: str) -> None:
    for found in objects(render(shape, "--kube-version", version)):
        if found["kind"] not in CRDS:
            kubernetes_validate.validate(found, version, strict=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_two_renders_are_identical(shape: str) -> None:
    assert render(shape) == render(shape)


def test_the_container_is_the_same_in_both_deployments() -> None:
    assert container("agent")["restartPolicy"] == "Always"
    gateway = container("agent", "--set", "agent.enabled=false,gateway.enabled=true")
    sidecar = container("agent")
    del sidecar["restartPolicy"]
    assert sidecar == gateway


@pytest.mark.parametrize("shape", SHAPES)
def test_variables_are_settings_the_broker_starts_with(shape: str) -> None:
    config, *_ = (
        found
        for found in objects(render(shape))
        if found["kind"] == "ConfigMap" and "SIDECAST_SERVER_PORT" in found["data"]
    )
    settings = load(None, config["data"], {})
    assert settings.server.internal_host == "0.0.0.0"


def test_variables_of_secrets_are_settings() -> None:
    known = {setting.env for setting in SETTINGS} | ENV_OF_CLIENTS
    assert {variable["name"] for variable in container("gateway")["env"]} <= known


def test_every_setting_can_be_given(tmp_path: Path) -> None:
    names = set(chart_schema.schema({})["properties"]["secretSettings"]["properties"])
    assert names == {setting.name for setting in SETTINGS}


def test_metrics_of_dashboard_and_rules_are_exported() -> None:
    exported = set(re.findall(r"^# TYPE (\w+)", Metrics().render().decode(), re.MULTILINE))
    text = "".join((CHART / "files" / name).read_text() for name in ("dashboard.json", "rules.yaml"))
    named = {name.removesuffix("_bucket") for name in re.findall(r"\bsidecast_[a-z_]+", text)}
    assert named
    assert named <= exported


@pytest.mark.parametrize("shape", SHAPES)
def test_ports_are_numbers_and_exist(shape: str) -> None:
    for found in objects(render(shape)):
        if found["kind"] == "Service":
            own = 8443 if found["metadata"]["name"].endswith("-injector") else 8480
            assert [port["targetPort"] for port in found["spec"]["ports"]] == [own]
    broker = container("agent")
    ports = {port["containerPort"] for port in broker["ports"]}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert broker[probe]["httpGet"]["port"] in ports


def test_names_fit_with_the_longest_release_name() -> None:
    for found in objects(render("gateway", release="r" * 53)):
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", found["metadata"]["name"])


@pytest.mark.parametrize(
    ("sets", "field"),
    [
        ("agent.enabled=true,gateway.enabled=true,agent.image=a:1", "gateway.enabled"),
        ("agent.enabled=true", "agent.image"),
        ("config.server.internal_host=127.0.0.1", "config.server.internal_host"),
        ("config.server.port=80", "config.server.port"),
        ("config.server.port=8481", "config.server.internal_port"),
        ("agent.enabled=true,agent.image=a:1,agent.port=8480", "agent.port"),
        ("config.nats.url=nats://u:p@nats", "config.nats.url"),
        ("config.auth.jwt_secret=x", "jwt_secret"),
        ("config.strea.drain_s=1", "strea"),
        ("gateway.hpa.enabled=true", "gateway.hpa.enabled"),
        ("pdb.enabled=true", "pdb.enabled"),
        ("httpRoute.enabled=true", "httpRoute.enabled"),
        ("monitoring.rules.enabled=true", "monitoring.rules.enabled"),
        ("image.tag=latest", "image.tag"),
        ("ingress.controller=other", "ingress.controller"),
        ("drain.tokenSecret.name=a,config.agent.capture=proxy", "drain.tokenSecret.name"),
        (
            "secretSettings.nats\\.stream.name=a,secretSettings.nats\\.stream.key=b,config.nats.stream=S",
            "secretSettings.nats.stream",
        ),
    ],
)
def test_a_refusal_names_the_field(sets: str, field: str) -> None:
    done = helm("template", "r", str(CHART), "--set", sets)
    assert done.returncode != 0
    assert field in done.stderr
