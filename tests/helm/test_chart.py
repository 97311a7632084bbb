"""The chart: what it renders, refuses, and shares with the broker's settings and metrics."""

from __future__ import annotations

import re
from pathlib import Path

import chart_readme
import chart_schema
import kubernetes_validate
import pytest
from chart import CHART, SHAPES, container, helm, objects, render, rendered, values_of

from sidecast_broker.configuration import ENV_OF_CLIENTS, load
from sidecast_broker.settings import SETTINGS

VERSIONS = ("1.29", "1.33", "1.36", "1.37")
CRDS = {"Certificate", "HTTPRoute", "Issuer", "PodMonitor", "PrometheusRule", "VirtualService"}
SINCE_1_36 = {"MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"}


def test_the_schema_is_that_of_values_and_settings() -> None:
    assert (CHART / "values.schema.json").read_text() == chart_schema.written(CHART)


def test_the_table_of_the_readme_is_that_of_values() -> None:
    assert (CHART / "README.md").read_text() == chart_readme.written(CHART)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_lints(shape: str) -> None:
    # Lint knows no cluster that serves the kinds of others.
    off = ["httpRoute", "virtualService", "monitoring.podMonitor", "monitoring.rules"]
    sets = [f"--set={name}.enabled=false" for name in off]
    if shape == "policy":
        sets.append("--set=inject.method=none")
    done = helm("lint", "--strict", str(CHART), "-f", values_of(shape), *sets)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_object_has_the_shape_of_its_kind(shape: str, version: str) -> None:
    unknown = CRDS if version >= "1.36" else CRDS | SINCE_1_36
    for found in objects(render(shape, "--kube-version", version)):
        if found["kind"] not in unknown:
            kubernetes_validate.validate(found, version, strict=True)


@pytest.mark.parametrize(
    "change",
    [
        {"restartPolicyy": "Always"},
        {"ports": [{"containerPort": "8480"}]},
    ],
)
def test_a_shape_that_is_wrong_is_seen(change: dict[str, object]) -> None:
    for found in objects(render("agent")):
        if found["kind"] == "Deployment":
            found["spec"]["template"]["spec"]["initContainers"][0] |= change
            with pytest.raises(kubernetes_validate.ValidationError):
                kubernetes_validate.validate(found, "1.37", strict=True)
            return
    pytest.fail("no Deployment")


@pytest.mark.parametrize("shape", SHAPES)
def test_two_renders_are_identical(shape: str) -> None:
    assert rendered("-f", values_of(shape)) == render(shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_variables_are_settings_the_broker_starts_with(shape: str) -> None:
    config, *_ = (
        found
        for found in objects(render(shape))
        if found["kind"] == "ConfigMap" and "SIDECAST_SERVER_PORT" in found["data"]
    )
    settings = load(None, config["data"], {})
    assert (settings.server.host, settings.server.internal_host) == ("0.0.0.0", "127.0.0.1")


def test_the_agents_of_a_gateway_are_those_the_broker_serves() -> None:
    config, *_ = (found for found in objects(render("gateway")) if found["kind"] == "ConfigMap")
    agents = load(None, config["data"], {}).agents
    assert {name: agent.url for name, agent in agents.items()} == {
        "researcher": "http://researcher.agents:8080",
        "team/critic": "http://critic.agents:8080/a2a",
    }
    assert (agents["researcher"].timeout_s, agents["team/critic"].timeout_s) == (120, 30.5)
    assert all(
        key != "SIDECAST_AGENTS" for found in objects(render("agent")) for key in found.get("data", {})
    )


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ("config.agents.b.ulr=http://b", "config.agents.b: Additional property ulr"),
        ("config.agents.b.name=c", "config.agents.b: Additional property name"),
        ("config.agents.b.timeout_s=0", "config.agents.b.timeout_s: Must be greater"),
        ("config.agents.agent.url=http://b", "config.agents.agent: is config.agent.name"),
    ],
)
def test_agents_that_can_not_be_served_are_refused_by_name(values: str, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        rendered("--set", "gateway.enabled=true", "--set", values)


def test_variables_of_secrets_are_settings() -> None:
    known = {setting.env for setting in SETTINGS} | ENV_OF_CLIENTS
    assert {variable["name"] for variable in container("gateway")["env"]} <= known


def test_every_setting_can_be_given(tmp_path: Path) -> None:
    names = set(chart_schema.schema({})["properties"]["secretSettings"]["properties"])
    assert names == {setting.name for setting in SETTINGS}


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
        ("config.server.probe_host=127.0.0.1", "config.server.probe_host"),
        ("config.server.host=localhost", "config.server.host"),
        ("config.server.port=80", "config.server.port"),
        ("config.server.port=8481", "config.server.internal_port"),
        ("agent.enabled=true,agent.image=a:1,agent.port=8480", "agent.port"),
        ("config.nats.url=nats://u:p@nats", "config.nats.url"),
        ("config.auth.jwt_secret=x", "jwt_secret"),
        ("config.strea.drain_s=1", "strea"),
        ("gateway.hpa.enabled=true", "gateway.hpa.enabled"),
        ("pdb.enabled=true", "pdb.enabled"),
        ("httpRoute.enabled=true", "httpRoute.parentRefs"),
        ("monitoring.rules.enabled=true", "monitoring.rules.enabled"),
        ("image.tag=latest", "image.tag"),
        ("ingress.controller=other", "ingress.controller"),
        ("config.server.probe_port=8480", "config.server.probe_port"),
        ("config.log.bytes_max=1", "config.log.bytes_max"),
        ("config.agent.capture=none", "config.agent.capture"),
        ("inject.method=policy", "inject.method"),
        ("inject.method=other", "inject.method"),
        ("inject.method=policy,agent.enabled=true,agent.image=a:1", "agent.enabled"),
        ("inject.method=policy,gateway.enabled=true", "gateway.enabled"),
        ("virtualService.enabled=true", "virtualService.gateways"),
        (
            "virtualService.enabled=true,virtualService.gateways={g},virtualService.hosts={h}",
            "virtualService.enabled",
        ),
        ("httpRoute.enabled=true,httpRoute.parentRefs[0].name=g", "httpRoute.enabled"),
        ("ingress.enabled=true,service.enabled=false", "ingress.enabled"),
        (
            "gateway.enabled=true,gateway.hpa.enabled=true,gateway.hpa.min=5,gateway.hpa.max=2",
            "gateway.hpa.min",
        ),
        ("secretSettings.server\\.prot.name=a", "secretSettings"),
        ("secretSettings.nats\\.url.name=a", "secretSettings.nats.url"),
        ("monitoring.podMonitor.enabled=true", "monitoring.podMonitor.enabled"),
        ("image.digest=sha256:abc", "image.digest"),
        ("agent.port=0", "agent.port"),
        ("agnet.enabled=true", "agnet"),
        (
            "secretSettings.nats\\.stream.name=a,secretSettings.nats\\.stream.key=b,config.nats.stream=S",
            "secretSettings.nats.stream",
        ),
    ],
)
def test_a_refusal_names_the_field(sets: str, field: str) -> None:
    done = helm("template", "r", str(CHART), "--set", sets)
    assert done.returncode != 0
    # The schema writes a path with slashes in newer versions, and keys in quotes.
    assert field in done.stderr.replace("/", ".")


def test_open_to_all_must_be_said_twice() -> None:
    done = helm("template", "r", str(CHART), "--set-string", "config.auth.required=false")
    assert done.returncode != 0
    assert "config.auth.insecure" in done.stderr
