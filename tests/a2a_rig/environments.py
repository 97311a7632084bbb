"""Where the other SDK generations live: Python environments and npm folders, made once and kept in `.cache`.

Must not know what is run in them. Needs the standard library only; to make them beforehand:

    python -m a2a_rig.environments
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "a2a"
INSTALL_S_MAX = 600
NODE_MAJOR_MIN = 20
NODE_HOW = "install Node.js 20 or newer with npm (https://nodejs.org), and have `node` and `npm` on the PATH"

_PUBLISHING = ("uvicorn", "nats-py>=2.11", "msgspec>=0.19")
PYTHON_PACKAGES = {
    "0.3.8": ("a2a-sdk[http-server]==0.3.8", *_PUBLISHING),
    "0.3.26": ("a2a-sdk[http-server]==0.3.26", *_PUBLISHING),
    "1.0.0": ("a2a-sdk[http-server,grpc]==1.0.0", *_PUBLISHING),
}
"""What an environment of that a2a-sdk needs to serve, to publish and to be a client."""

PYTHON_SDKS = {"v1": "1.3.0", "v03": "0.3.26"}
NODE_SDKS = {"v1": "1.3.0", "v03": "0.3.10"}
"""Of each generation the one most tests use; earlier ones are made where `make accept` needs them."""


class Unusable(Exception):  # noqa: N818 - the tests' failures begin with it
    """An environment can't be made, or what is needed to make it is missing."""


def python_of(sdk: str) -> Path:
    """Give a Python with that a2a-sdk: the running one for the newest; made for others, in half a minute."""
    if sdk not in PYTHON_PACKAGES:
        return Path(sys.executable)

    def make(folder: Path) -> None:
        # By our own pip: one of its own would take longer to make than the rest.
        _run([sys.executable, "-m", "venv", "--clear", "--without-pip", folder])
        pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python")
        _run([*pip, "install", "--quiet", "--disable-pip-version-check", *PYTHON_PACKAGES[sdk]])

    folder = _made(f"python-{sdk}", PYTHON_PACKAGES[sdk], make)
    return folder / "bin" / "python"


def node_modules_of(sdk: str) -> Path:
    """Give the folder that holds `node_modules` with that @a2a-js/sdk."""
    node()
    packages = (f"@a2a-js/sdk@{sdk}",)

    def make(folder: Path) -> None:
        (folder / "package.json").write_text('{"private": true, "type": "module"}\n')
        # Scripts of packages run with our rights and none is needed: nothing here is compiled.
        _run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", *packages], folder)

    return _made(f"npm-{sdk}", packages, make)


def node() -> str:
    """Give the path of Node.js; where it is missing or too old, say how to get it.

    Raises:
        Unusable: naming what is wrong.
    """
    found = shutil.which("node")
    if found is None or shutil.which("npm") is None:
        raise Unusable(f"the tests with JavaScript clients need Node.js: {NODE_HOW}")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.lstrip("v").partition(".")[0]) < NODE_MAJOR_MIN:
        raise Unusable(f"Node.js here is {version}: {NODE_HOW}")
    return found


def _made(name: str, packages: tuple[str, ...], make: Callable[[Path], None]) -> Path:
    # The name says which packages: another list is another folder, and no old one is ever taken for it.
    tag = hashlib.sha256(repr(packages).encode()).hexdigest()[:8]
    folder = CACHE / f"{name}-{tag}"
    ready = folder / "ready"
    with _alone(folder):
        if not ready.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            make(folder)
            ready.touch()
    return folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder: test processes beside each other make it once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: list[str | Path], folder: Path | None = None) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=INSTALL_S_MAX,
        check=False,
    )
    if done.returncode:
        raise Unusable(f"`{' '.join(map(str, command))}` failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def main() -> None:
    """Make those that most tests use, all at once: each waits for its registry most of the time."""
    with ThreadPoolExecutor() as threads:
        made = [threads.submit(node_modules_of, sdk) for sdk in NODE_SDKS.values()]
        made += [threads.submit(python_of, sdk) for sdk in PYTHON_SDKS.values()]
    for each in made:
        each.result()


if __name__ == "__main__":
    main()
