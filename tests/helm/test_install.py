"""docs/install.md as it stands there: its files and commands rendered, its keys at a real NATS server."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import kubernetes_validate
import pytest
import sizing
import yaml
from brokers import ENVIRON, ask
from chart import HELM, broker_of, objects, pod_specs, rendered
from image_tree import ROOT
from nats_server import NatsServer

from sidecast_adapters import Publisher
from sidecast_broker.app import serving
from sidecast_broker.configuration import load
from sidecast_broker.settings import SETTINGS

PAGE = (ROOT / "docs" / "install.md").read_text()
BLOCKS = re.findall(r"^```(yaml|sh)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
FILES = {text.partition("\n")[0].removeprefix("# "): text for kind, text in BLOCKS if kind == "yaml"}
SHELL = "".join(text.replace("\\\n", " ") for kind, text in BLOCKS if kind == "sh")
HELM_RUNS = re.findall(r"^helm upgrade .*$", SHELL, re.MULTILINE)
IN_SHORT = re.findall(
    r"^helm upgrade .*$", (ROOT / "README.md").read_text().replace("\\\n", " "), re.MULTILINE
)
OURS = [line for line in HELM_RUNS if " helm/sidecast " in line]
CRDS = {"PodMonitor", "PrometheusRule"}
SINCE_1_36 = {"MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"}
BIN = Path(sys.executable).parent


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of the repository, as far as the page needs it, with the files of the page."""
    shutil.copytree(ROOT / "helm", tmp_path / "helm")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def run(script: str, clone: Path) -> str:
    """Run lines of the page in the clone; give what they print."""
    env = {
        "PATH": f"{clone / 'bin'}:{BIN}:{os.environ['PATH']}",
        "HOME": str(clone / "home"),
        "LANG": "C.UTF-8",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=clone, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def render_as(line: str, clone: Path) -> list[dict[str, Any]]:
    """Render what a `helm upgrade` of the page would install."""
    words = iter(shlex.split(line, comments=True)[2:])
    release, namespace, chart, args = "", "", Path(), list[str]()
    for word in words:
        if word == "--namespace":
            namespace = next(words)
        elif word == "--values":
            args += ["--values", str(clone / next(words))]
        elif word == "--set":
            args += [word, next(words)]
        elif not word.startswith("--"):
            release, chart = (release, clone / word) if release else (word, chart)
    return objects(rendered(*args, release=release, namespace=namespace, chart=chart))


def validate(found: list[dict[str, Any]], *versions: str) -> None:
    for one in found:
        for version in versions:
            if one["kind"] not in (CRDS if version >= "1.36" else CRDS | SINCE_1_36):
                kubernetes_validate.validate(one, version, strict=True)


def settings_of(found: list[dict[str, Any]]) -> dict[str, str]:
    """Give the variables of the broker's settings."""
    (data,) = (
        one["data"]
        for one in found
        if one["kind"] == "ConfigMap" and any(name.startswith("SIDECAST_AGENT_") for name in one["data"])
    )
    return dict(data)


def test_every_file_of_the_page_is_used() -> None:
    used = {word for line in HELM_RUNS for word in shlex.split(line, comments=True) if word.endswith(".yaml")}
    planner = {name for name in FILES if name.startswith("planner/")}
    kustomize = {name for name in FILES if name.startswith("kustomize/")}
    assert len(planner) == 3
    assert len(kustomize) == 2
    assert used - {"sidecast.yaml"} | planner | kustomize == set(FILES)
    assert len(FILES) == PAGE.count("```yaml\n")


@pytest.mark.parametrize("line", [*OURS, *IN_SHORT])
def test_values_render_and_are_what_kubernetes_takes(line: str, clone: Path) -> None:
    found = render_as(line, clone)
    validate(found, "1.29", "1.37")
    settings = load(None, settings_of(found) | {"SIDECAST_AUTH_JWT_JWKS_FILE": "jwks.json"}, {})
    assert (settings.agent.name, settings.nats.replicas) == ("planner", 3)


@pytest.mark.parametrize(
    "name", ["docs/install.md", "docs/runbook.md", "README.md", "helm/sidecast/README.md"]
)
def test_settings_that_are_named_exist(name: str) -> None:
    sections = "|".join({setting.section for setting in SETTINGS})
    named = re.findall(rf"`(?:config\.)?((?:{sections})\.[a-z_0-9]+)(?=`|:| =)", (ROOT / name).read_text())
    of_the_chart = {"agent.enabled", "agent.image", "agent.grace_s", "agent.port"}
    no_settings = {"nats.nats", "nats.yaml", *(f"stream.{frame}" for frame in ("open", "gap", "busy", "end"))}
    assert set(named) - of_the_chart - no_settings <= {setting.name for setting in SETTINGS}


def test_the_readme_has_three_ways_in_short() -> None:
    assert len(IN_SHORT) == 3


def test_the_ways_of_the_page_are_those_of_the_chart(clone: Path) -> None:
    methods = [
        yaml.safe_load(text).get("inject", {}).get("method")
        for name, text in FILES.items()
        if "/" not in name
    ]
    assert {"policy", "webhook"} <= set(methods)
    first = broker_of(render_as(OURS[0], clone))
    assert {"/etc/sidecast/nats.nkey_seed_file", "/etc/sidecast/auth.jwt_jwks_file"} == {
        mount["mountPath"] for mount in first["volumeMounts"]
    }


def test_a_chart_of_one_s_own_holds_the_same_container(clone: Path) -> None:
    (block,) = (text for kind, text in BLOCKS if kind == "sh" and "helm dependency" in text)
    lines = block.splitlines()
    (clone / "bin").mkdir()
    (clone / "bin" / "helm").symlink_to(HELM)
    run("\n".join(lines[:2]), clone)
    found = render_as(lines[2], clone)
    validate(found, "1.29", "1.37")
    own = broker_of(found)
    ours = broker_of(render_as(OURS[0], clone))
    for one in (own, ours):
        del one["envFrom"]
    assert own == ours
    ((_kind, labels, spec),) = (
        (kind, labels, spec) for kind, labels, spec in pod_specs(found) if kind == "Deployment"
    )
    (service,) = (one for one in found if one["kind"] == "Service")
    assert service["spec"]["selector"].items() <= labels.items()
    assert {"nats"} < {volume["name"] for volume in spec["volumes"]}


def test_kustomize_builds_it(clone: Path) -> None:
    done = subprocess.run(
        [str(BIN / "kubectl"), "kustomize", str(clone / "kustomize")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = objects(done.stdout)
    validate(found, "1.29", "1.37")
    assert {one["metadata"].get("namespace") for one in found} == {"agents"}
    broker = broker_of(found)
    assert broker["image"] == "registry.example.com/sidecast:0.1.0"
    assert broker["volumeMounts"] == [{"name": "sidecast", "mountPath": "/etc/sidecast", "readOnly": True}]
    assert [one["name"] for one in broker["env"]] == ["SIDECAST_AUTH_TICKET_SECRET"]
    (config,) = (one for one in found if one["kind"] == "ConfigMap")
    assert load(None, config["data"], {}).agent.name == "planner"


def test_names_of_services_are_those_that_are_made(clone: Path) -> None:
    made = {
        one["metadata"]["name"] for line in OURS for one in render_as(line, clone) if one["kind"] == "Service"
    }
    said = set(re.findall(r"service/([\w-]+)", SHELL)) | {"sidecast", "gateway-sidecast"}
    assert said <= made
    assert "planner-sidecast" in said


def test_the_sizing_is_computed_from_the_benchmarks() -> None:
    assert sizing.written() == PAGE, "make docs"


def test_more_than_a_core_follows_is_refused() -> None:
    costs = sizing.measured((ROOT / "docs" / "benchmarks.md").read_text())
    assert sizing.processes(costs, 1, 1, 1) == 1
    with pytest.raises(ValueError, match="divide"):
        sizing.processes(costs, 1, 10_000, 10)


NK = """#!{python}
# As nk of nats-box: a new seed, or the public half of one.
import os, sys, nkeys
if "-gen" in sys.argv:
    print(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER).decode())
else:
    print(nkeys.from_seed(bytearray(open(sys.argv[2], "rb").read().strip())).public_key.decode())
"""


def line_with(text: str) -> str:
    """Give the one line of the page's commands that has this in it."""
    (found,) = (line for line in SHELL.splitlines() if text in line)
    return found


def included() -> str:
    """Give the file that the configuration of NATS includes: the one that is put beside it."""
    name = str(yaml.safe_load(FILES["nats.yaml"])["config"]["merge"]["$include"])
    escaped = name.replace(".", "\\.")
    assert f"--set-file 'configMap.merge.data.{escaped}={name}'" in SHELL
    return name


async def test_from_keys_to_a_watched_task(clone: Path) -> None:
    (clone / "bin").mkdir()
    (clone / "bin" / "nk").write_text(NK.format(python=sys.executable))
    (clone / "bin" / "nk").chmod(0o755)
    (users,) = (text for kind, text in BLOCKS if kind == "sh" and "users.conf <<" in text)
    run(users, clone)
    run(f"{line_with('token key-pair')}\n{line_with('openssl')}", clone)
    exports = line_with("export SIDECAST_AUTH")
    token = run(f"{exports}\n{line_with('TOKEN=$(')}\necho $TOKEN", clone).strip()
    variables = settings_of(render_as(OURS[0], clone)) | ENVIRON
    files = {
        "SIDECAST_NATS_NKEY_SEED_FILE": str(clone / "broker.nk"),
        "SIDECAST_AUTH_JWT_JWKS_FILE": str(clone / "jwks.json"),
        "SIDECAST_AUTH_TICKET_SECRET": (clone / "ticket-secret").read_text(),
    }
    here = {
        "SIDECAST_SERVER_HOST": "127.0.0.1",
        "SIDECAST_SERVER_PROBE_PORT": "0",
        "SIDECAST_NATS_REPLICAS": "1",
    }
    # As the chart of NATS writes it, from `config.merge`.
    (clone / "nats.conf").write_text(f'{{\n  "server_name": "nats-0",\n  include {included()};\n}}\n')
    with NatsServer(clone / "store", "--config", str(clone / "nats.conf")) as server:
        url = {"SIDECAST_NATS_URL": server.url, "SIDECAST_AGENT_URL": ""}
        async with serving(load(None, variables | files | here | url, {})) as broker:
            path = re.search(r"http://127\.0\.0\.1:8480(/tasks/\S+)'", SHELL)
            assert path is not None
            headers = {"Authorization": f"Bearer {token}"}
            events = re.search(r"sidecast publish task-1 .*?<<'EOF'\n(.*?)^EOF", SHELL, re.M | re.S)
            assert events is not None
            async with asyncio.timeout(30):
                # Until it has read which credentials are revoked, it takes none.
                while (await ask("GET", f"{broker.url}/tasks/none/events", headers=headers))[0] == 503:
                    await asyncio.sleep(0.01)
            async with (
                asyncio.timeout(30),
                aiohttp.ClientSession() as session,
                session.get(broker.url + path[1], headers=headers) as stream,
            ):
                assert stream.status == 200
                await stream.content.readline()
                publish = await asyncio.create_subprocess_exec(
                    *(BIN / "sidecast", "publish", "task-1", "--token", token, "--url", broker.internal_url),
                    stdin=asyncio.subprocess.PIPE,
                )
                await publish.communicate(events[1].encode())
                assert publish.returncode == 0
                names = re.findall(r"^event: (\S+)", (await stream.read()).decode(), re.MULTILINE)
            said = re.search(r"curl shows (.*?)\. If not", PAGE)
            assert said is not None
            assert names == re.findall(r"`(.*?)`", said[1])
            options = {"nkeys_seed": str(clone / "agent.nk")}
            async with Publisher(server.url, agent="planner", connect_options=options) as publisher:
                async with publisher.task("task-2", owner="alice") as task:
                    await task.status("working")
                assert await publisher.flush()
