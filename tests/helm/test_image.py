"""The image: what its Dockerfile promises, and its content run from a tree nobody may write in."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
import signal
import subprocess
import tempfile
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chart import broker_of, objects, pod_specs, rendered
from documented_permissions import configuration
from image_tree import BROKER, ROOT, UID, as_nobody, build, environ, python_for_nobody, serving
from nats_server import NatsServer, free_ports
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sidecast_adapters import Publisher

DOCKERFILE = (BROKER / "Dockerfile").read_text()
FINAL = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]


@pytest.fixture(scope="module")
def tree() -> Iterator[Path]:
    # Not pytest's own directory, which only its owner may enter.
    directory = Path(tempfile.mkdtemp(prefix="sidecast-image-"))
    directory.chmod(0o755)
    try:
        yield build(directory)
    finally:
        for path in directory.rglob("*"):
            if path.is_dir():
                path.chmod(0o755)
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def python(tree: Path) -> str:
    return python_for_nobody(tree.parent)


def test_the_container_is_nobody_by_number() -> None:
    assert re.findall(r"^USER (.+)$", FINAL, re.MULTILINE) == [f"{UID}:{UID}"]


@pytest.mark.parametrize("word", ["RUN", "CMD", "ENTRYPOINT"])
def test_nothing_needs_a_shell(word: str) -> None:
    commands = re.findall(rf"^(?:HEALTHCHECK .*)?{word} (.+)$", DOCKERFILE, re.MULTILINE)
    assert commands
    assert all(json.loads(command) for command in commands)


def test_only_the_built_tree_reaches_the_image() -> None:
    assert re.findall(r"^COPY (.+)$", FINAL, re.MULTILINE) == ["--from=build /app /app"]


def test_the_build_sees_only_what_the_wheel_needs() -> None:
    lines = (ROOT / ".dockerignore").read_text().split()
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert allowed == {"pyproject.toml", "README.md", "LICENSE", "broker", "adapters", "schemas"}


def _locked(name: str) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9._-]+)==(\S+) \\$", (BROKER / name).read_text(), re.MULTILINE)
    return {canonicalize_name(package): version for package, version in found}


def test_the_lock_holds_what_the_broker_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = _locked("requirements.lock")
    extras = project["optional-dependencies"]
    for text in [*project["dependencies"], *extras["broker"], *extras["otel"]]:
        wanted = Requirement(text)
        assert locked[canonicalize_name(wanted.name)] in wanted.specifier


def test_every_locked_package_has_hashes() -> None:
    for name in ("requirements.lock", "build.lock"):
        text = (BROKER / name).read_text()
        for entry in re.split(r"\n(?=[a-z])", text):
            assert "--hash=sha256:" in entry


def test_it_serves_from_a_tree_nobody_may_write_in(tree: Path, python: str) -> None:
    before = sorted(tree.rglob("*"))
    settings = {"SIDECAST_SERVER_PORT": "0", "SIDECAST_SERVER_INTERNAL_PORT": "0"}
    with serving(
        python, tree, json.loads(re.findall(r"^CMD (.+)$", FINAL, re.MULTILINE)[0]), settings
    ) as said:
        url = str(said["internal_url"])
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
            assert json.load(answer)["status"] == "ok"
        _, check = FINAL.split("CMD ", 1)
        health = json.loads(check.splitlines()[0])
        port = {"SIDECAST_SERVER_INTERNAL_PORT": url.rpartition(":")[2]}
        subprocess.run([python, *health[1:]], env=environ(tree, port), check=True, **as_nobody())
        said["process"].send_signal(signal.SIGTERM)
        said["process"].communicate(timeout=20)
        assert said["process"].returncode == 0
    assert sorted(tree.rglob("*")) == before


VALUES = """
agent: {{enabled: true, image: "planner:1"}}
config:
  agent: {{name: planner}}
  server: {{port: {port}, internal_port: {internal_port}, probe_port: {probe_port}}}
secretSettings:
  nats.url: {{name: nats-broker, key: url}}
  auth.api_keys_file: {{name: sidecast, key: api-keys}}
"""
KEY = "sk-of-the-chart-s-own-test-0123456789"
KEYS = f"""
[[key]]
id = "alice"
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
principal = "alice"
"""


def given_to(
    container: dict[str, Any], configs: dict[str, Any], secrets: dict[str, str], mounts: Path
) -> Any:
    """Give the environment a kubelet makes, with files mounted below another directory."""
    environment: dict[str, str] = {}
    for source in container["envFrom"]:
        environment |= configs[source["configMapRef"]["name"]]
    for variable in container["env"]:
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        value = secrets[f"{reference['name']}/{reference['key']}"] if reference else variable["value"]
        environment[variable["name"]] = value.replace("/etc/sidecast", str(mounts))
    return environment


async def test_the_container_of_the_chart_serves_a_task(tree: Path, python: str, tmp_path: Path) -> None:
    port, internal_port, probe_port = free_ports(3)
    values = tmp_path / "values.yaml"
    values.write_text(VALUES.format(port=port, internal_port=internal_port, probe_port=probe_port))
    found = objects(rendered("-f", str(values)))
    container = broker_of(found)
    assert container["command"] == json.loads(re.findall(r"^ENTRYPOINT (.+)$", FINAL, re.MULTILINE)[0])
    assert (container["securityContext"]["runAsUser"], container["securityContext"]["runAsGroup"]) == (
        UID,
        UID,
    )
    mounts = tree.parent / "mounts"
    (pod,) = (spec for _kind, _labels, spec in pod_specs(found) if "initContainers" in spec)
    (volume,) = pod["volumes"]
    (item,) = volume["secret"]["items"]
    (mount,) = container["volumeMounts"]
    assert (item["key"], mount["name"]) == ("api-keys", volume["name"])
    file = mounts / Path(mount["mountPath"]).relative_to("/etc/sidecast") / item["path"]
    file.parent.mkdir(parents=True)
    file.write_text(KEYS)
    config = tmp_path / "nats.conf"
    config.write_text(configuration())
    with NatsServer(tmp_path / "nats", "--config", str(config)) as server:
        agent, broker = (server.url.replace("//", f"//{user}:pw@") for user in ("agent", "broker"))
        configs = {one["metadata"]["name"]: one["data"] for one in found if one["kind"] == "ConfigMap"}
        given = given_to(container, configs, {"nats-broker/url": broker}, mounts)
        with serving(python, tree, container["args"], given) as said:
            process = said["process"]
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                get = container[probe]["httpGet"]
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{get['port']}{get['path']}", timeout=5
                ) as answer:
                    assert answer.status == 200
            ports = {declared["containerPort"] for declared in container["ports"]}
            assert ports == {int(str(said[name]).rpartition(":")[2]) for name in ("url", "probe_url")}
            async with Publisher(agent, agent="planner") as publisher:
                async with publisher.task("t1", owner="alice") as task:
                    await task.status("working", "Reading the trades")
                await publisher.flush()
            await asyncio.to_thread(_watched, f"http://127.0.0.1:{port}/tasks/t1/events")
            hook = container["lifecycle"]["preStop"]["exec"]["command"]
            subprocess.run(
                [python, str(tree / "bin" / hook[0]), *hook[1:]],
                env=environ(tree, given),
                check=True,
                timeout=30,
                **as_nobody(),
            )
            assert process.wait(timeout=1) == 0


def _watched(url: str) -> None:
    """Read the stream of a finished task: only with a credential."""
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{url}?refusal=status", timeout=5)
    request = urllib.request.Request(url, headers={"X-API-Key": KEY, "Accept": "text/event-stream"})
    with urllib.request.urlopen(request, timeout=10) as stream:
        text = stream.read().decode()
    assert "event: task.snapshot" in text
    assert '"state":"completed"' in text
    assert "event: stream.end" in text
