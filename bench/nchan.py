"""nginx with the nchan module: found, configured for one worker, run.

Must not know what is measured. Debian: `apt-get install nginx libnginx-mod-nchan`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.child import Child, ChildFailed, child

START_S_MAX = 10.0
MODULE = "ngx_nchan_module.so"
_FOLDERS = (
    "/usr/lib/nginx/modules",
    "/usr/lib64/nginx/modules",
    "/usr/local/nginx/modules",
    "/etc/nginx/modules",
)

# One worker, as the broker is one process. The buffer is what a reconnecting client could get again; it holds
# as much as the broker's clients are sent in a run's smallest step, and costs nchan nothing when it is full.
_CONFIG = """\
load_module {module};
worker_processes 1;
worker_rlimit_nofile 20000;
daemon off;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 20000; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    nchan_shared_memory_size 256M;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location ~ ^/pub/(.+)$ {{
            nchan_publisher;
            nchan_channel_id $1;
            nchan_message_buffer_length 1000;
            nchan_message_timeout 5m;
        }}
        location ~ ^/sub/(.+)$ {{
            nchan_subscriber eventsource;
            nchan_channel_id $1;
            nchan_subscriber_first_message newest;
        }}
    }}
}}
"""


def _module() -> Path | None:
    return next((path for folder in _FOLDERS if (path := Path(folder) / MODULE).exists()), None)


def missing() -> str:
    """Say what of nginx and its module isn't installed; empty when both are."""
    if shutil.which("nginx", path=_path()) is None or _module() is None:
        return "not installed"
    return ""


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"


@asynccontextmanager
async def serving(log_folder: Path) -> AsyncIterator[tuple[int, int]]:
    """Run nginx for the length of the block.

    Yields:
        The port it serves on, and the process id of its worker.
    """
    nginx, module = shutil.which("nginx", path=_path()), _module()
    assert nginx is not None
    assert module is not None
    folder = Path(tempfile.mkdtemp(prefix="sidecast-nchan-"))
    port = _free_port()
    config = _configure(folder, module, port)
    try:
        async with child("nchan", [nginx, "-p", str(folder), "-c", str(config)], log_folder) as master:
            yield port, await _worker(master, port)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _configure(folder: Path, module: Path, port: int) -> Path:
    # The worker may run as another user, who has to get through to its folder.
    folder.chmod(0o755)
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(module=module, folder=folder, port=port))
    return config


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _worker(master: Child, port: int) -> int:
    try:
        async with asyncio.timeout(START_S_MAX):
            while True:
                pids = _children(master.pid)
                if pids and _accepts(port):
                    return pids[0]
                if master.process.returncode is not None:
                    raise ChildFailed(f"nginx ended; see {master.log}")
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise ChildFailed(f"nginx did not start; see {master.log}") from None


def _children(pid: int) -> list[int]:
    try:
        return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
