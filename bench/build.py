"""The compiled half of the benchmark: load clients, publisher and floor, built when their sources are newer.

Must not know what they do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

SOURCES = Path(__file__).parent
CACHE = SOURCES.parent / ".cache" / "bench"

_FLAGS = ("-O2", "-Wall", "-Wextra", "-Wno-unused-function")


class NoCompiler(RuntimeError):  # noqa: N818 - named as the message reads
    """There is no C compiler, or it refuses the sources."""


class Programs(NamedTuple):
    """Paths of the compiled programs."""

    load: Path
    floor: Path
    publish: Path
    hostile: Path


def build(folder: Path = CACHE) -> Programs:
    """Compile what is missing or older than its sources, and give where it is.

    Raises:
        NoCompiler: there is none, or it fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return Programs(*(_compile(name, folder) for name in Programs._fields))


def _compile(name: str, folder: Path) -> Path:
    program, source = folder / name, SOURCES / f"{name}.c"
    newest = max(path.stat().st_mtime for path in [source, *SOURCES.glob("*.h")])
    if program.exists() and program.stat().st_mtime > newest:
        return program
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise NoCompiler(
            "the benchmark's load comes from compiled code, and there is no C compiler: "
            "install one (Debian: apt-get install gcc libc6-dev), or name it in CC"
        )
    # Under another name first: two runs at once must not execute each other's half-written program.
    part = program.with_name(f"{name}.{os.getpid()}")
    result = subprocess.run(  # noqa: S603 - the user's own compiler on our sources
        [compiler, *_FLAGS, "-o", str(part), str(source)], capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise NoCompiler(f"{compiler} can't compile {source.name}:\n{result.stderr.strip()}")
    part.replace(program)
    return program
