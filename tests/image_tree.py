"""Makes what the image of `broker/Dockerfile` holds in a directory, by the same steps, and runs from it.

Must not know what the broker answers. Needs the standard library only; to install the packages beforehand:

    python -m image_tree
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BROKER = ROOT / "broker"
UID = 65532
PYTHON: str = os.path.realpath(sys.executable)
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


def _locked(name: str, *more: str, given: Mapping[str, str] = {}) -> Path:
    """Give a directory with the packages of a lock file, installed once for all runs."""
    lock = BROKER / name
    digest = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:16]
    tree = ROOT / ".cache" / "image" / f"{lock.stem}-{digest}"
    tree.parent.mkdir(parents=True, exist_ok=True)
    with (tree.parent / f"{tree.name}.turn").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not tree.exists():
            half = tree.with_suffix(".half")
            shutil.rmtree(half, ignore_errors=True)
            options = ["--require-hashes", "--only-binary", ":all:", *more, "--requirement", str(lock)]
            # Nothing of the system's is touched, so being root is no danger.
            options.append("--root-user-action=ignore")
            command = [*PIP, "install", *options, "--target", str(half)]
            subprocess.run(command, check=True, env={**os.environ, **given})
            half.rename(tree)
    return tree


def packages() -> tuple[Path, dict[str, str]]:
    """Give the directory of what the broker needs, and the environment it is built in."""
    built_with = {"PYTHONPATH": str(_locked("build.lock"))}
    source_only = ("--no-binary", "nkeys", "--no-build-isolation")
    return _locked("requirements.lock", *source_only, given=built_with), built_with


def build(directory: Path) -> Path:
    """Build the tree; give its path. Nobody may write in it.

    Args:
        directory: where, readable for everybody.
    """
    tree, wheels, source = directory / "app", directory / "wheels", directory / "source"
    needed, built_with = packages()
    shutil.copytree(needed, tree)
    # The build leaves nothing in the sources, and sees what the image's build is given.
    source.mkdir()
    skipped = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("broker", "adapters", "schemas"):
        shutil.copytree(ROOT / name, source / name, ignore=skipped)
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels)]
    subprocess.run([*PIP, "wheel", *options, str(source)], check=True, env={**os.environ, **built_with})
    (wheel,) = wheels.glob("*.whl")
    options = ["--no-deps", "--no-index", "--target", str(tree), "--upgrade"]
    subprocess.run([*PIP, "install", *options, str(wheel)], check=True)
    for path in (tree, *tree.rglob("*")):
        path.chmod(
            0o555 if path.is_dir() or (os.access(path, os.X_OK) and path.parent == tree / "bin") else 0o444
        )
    return tree


def python_for_nobody(directory: Path) -> str:
    """Give an interpreter an unprivileged user can run: ours, or a copy where it is in a closed directory."""
    seen = subprocess.run(["/bin/sh", "-c", f"test -x {PYTHON}"], check=False, **as_nobody())
    if seen.returncode == 0:
        return PYTHON
    home = directory / "python"
    skipped = shutil.ignore_patterns("site-packages", "test", "__pycache__", "*.a", "idlelib", "config-*")
    (home / "bin").mkdir(parents=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copytree(Path(sys.base_prefix, "lib", version), home / "lib" / version, ignore=skipped)
    for library in Path(sys.base_prefix, "lib").glob("libpython*.so*"):
        shutil.copy(library, home / "lib")
    return str(shutil.copy(PYTHON, home / "bin" / version))


def as_nobody() -> dict[str, Any]:
    """Give the arguments that have a process run unprivileged, where there are privileges to give up."""
    return {"user": UID, "group": UID, "extra_groups": []} if os.geteuid() == 0 else {}


def environ(tree: Path, given: Mapping[str, str] = {}) -> dict[str, str]:
    """Give the environment of the image."""
    paths = {"PATH": f"{tree / 'bin'}:{os.path.dirname(PYTHON)}", "PYTHONPATH": str(tree)}
    # A copied interpreter must not find the system's library of another version.
    paths["LD_LIBRARY_PATH"] = str(tree.parent / "python" / "lib")
    return {**paths, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", **given}


@contextmanager
def serving(python: str, tree: Path, args: list[str], given: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Run the image's entry point with these arguments; give its line `listening`, and `process` with it.

    Raises:
        AssertionError: it ends without having listened.
    """
    process = subprocess.Popen(
        [python, str(tree / "bin" / "sidecast"), *args],
        env=environ(tree, given),
        cwd="/",
        stderr=subprocess.PIPE,
        **as_nobody(),
    )
    lines: list[bytes] = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            said = json.loads(line) if line.startswith(b"{") else {}
            if said.get("event") == "listening":
                break
        else:
            raise AssertionError(b"".join(lines).decode())
        yield {**said, "process": process}
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    packages()
