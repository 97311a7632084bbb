"""The image: what its Dockerfile promises, and its content run from a tree nobody may write in."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import tempfile
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from image_tree import BROKER, ROOT, UID, as_nobody, build, environ, python_for_nobody, serving
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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
    for text in [*project["dependencies"], *project["optional-dependencies"]["broker"]]:
        wanted = Requirement(text)
        assert locked[canonicalize_name(wanted.name)] in wanted.specifier


def test_every_locked_package_has_hashes() -> None:
    for name in ("requirements.lock", "build.lock"):
        text = (BROKER / name).read_text()
        for entry in re.split(r"\n(?=[a-z])", text):
            assert "--hash=sha256:" in entry


def test_it_serves_from_a_tree_nobody_may_write_in(tree: Path) -> None:
    python = python_for_nobody(tree.parent)
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
