"""A proxy as a process of its own, configured by a block of docs/proxies.md, on ports of this test.

Must not know what goes through it.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
import trustme
from e2e.ports import fixed_ports

DOCUMENT = Path(__file__).parents[2] / "docs" / "proxies.md"
READY_S_MAX = 10.0
STOP_S_MAX = 5.0

FRAMES = {
    "nginx": "daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/error.log info;\n"
    "events {{ worker_connections 512; }}\n"
    "http {{\naccess_log off;\nclient_body_temp_path {folder}/body;\nproxy_temp_path {folder}/proxy;\n"
    "fastcgi_temp_path {folder}/f;\nuwsgi_temp_path {folder}/u;\nscgi_temp_path {folder}/s;\n{block}\n}}\n",
    "haproxy": "global\n  maxconn 512\n\n{block}",
}
"""What the documented block stands in."""

COMMANDS = {"nginx": ("-c", "{file}", "-e", "{folder}/error.log"), "haproxy": ("-db", "-f", "{file}")}


def find(program: str) -> str:
    """Give the path of a program; it is installed where we may, and else the test fails and says how."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    found = shutil.which(program, path=path)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for arguments in (["update"], ["install", "--yes", "--no-install-recommends", program]):
            command = ["apt-get", "--quiet", *arguments]
            subprocess.run(command, env=environ, capture_output=True, check=False)
        found = shutil.which(program, path=path)
    if found is None:
        pytest.fail(f"these tests need {program}: apt-get install {program}")
    return found


def documented(language: str) -> str:
    """Give the block of the documentation that configures a proxy."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    return str(block)


class Proxy:
    """nginx or HAProxy in front of a broker; a context manager that starts and stops it.

    Args:
        program: `nginx` or `haproxy`.
        folder: where its files are.
        broker_port: where the broker listens.
        changes: text of the documented configuration, and what stands there in this test.

    Attributes:
        url: where it listens, with TLS.
        authority: what its certificate is signed by.
    """

    def __init__(
        self, program: str, folder: Path, broker_port: int, changes: Mapping[str, str] | None = None
    ) -> None:
        (self.port,) = fixed_ports(1)
        self.url = f"https://localhost:{self.port}"
        self.authority = folder / "authority.pem"
        self._log = folder / f"{program}.out"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.authority))
        certificate = authority.issue_cert("localhost")
        chain, key, both = folder / "tls.crt", folder / "tls.key", folder / "both.pem"
        certificate.cert_chain_pems[0].write_to_path(str(chain))
        certificate.private_key_pem.write_to_path(str(key))
        certificate.private_key_and_cert_chain_pem.write_to_path(str(both))
        block = documented(program)
        places = {
            "127.0.0.1:8480": f"127.0.0.1:{broker_port}",
            "listen 443": f"listen 127.0.0.1:{self.port}",
            "bind :443": f"bind 127.0.0.1:{self.port}",
            "/tls/tls.crt": str(chain),
            "/tls/tls.key": str(key),
            "/tls/both.pem": str(both),
        }
        for was, becomes in places.items():
            block = block.replace(was, becomes)
        for was, becomes in (changes or {}).items():
            assert was in block, f"the documentation doesn't say {was!r}"
            block = block.replace(was, becomes)
        file = folder / f"{program}.conf"
        file.write_text(FRAMES[program].format(folder=folder, block=block))
        self._command = [
            find(program),
            *(each.format(file=file, folder=folder) for each in COMMANDS[program]),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it, and wait until it listens."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + READY_S_MAX
        while True:
            assert self._process.poll() is None, self._log.read_text()
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return self
            except OSError:
                assert time.monotonic() < deadline, self._log.read_text()
                time.sleep(0.02)

    def kill(self) -> None:
        """Kill it without warning: every stream through it is cut."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(STOP_S_MAX)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
