"""Real nats-server processes for tests: one with a file store, or a cluster of three; to kill and to freeze.

Must not know what is published: it starts, stops and asks servers, and creates the stream of the contract.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import nats
from nats.js.api import AckPolicy, ConsumerConfig

READY_S_MAX = 30.0
_POLL_S = 0.01


def binary() -> str:
    """Give the path of nats-server: beside the running Python, else on the PATH."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise FileNotFoundError("nats-server is neither beside the running Python nor on the PATH")
    return found


def free_ports(count: int) -> list[int]:
    """Give loopback ports nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class NatsServer:
    """One nats-server with JetStream on a free loopback port; a context manager that starts and stops it.

    Attributes:
        url: where clients connect; stays the same over restarts.
        monitor_url: where it answers HTTP monitoring requests.
        store: the folder of its streams, kept over restarts.
        process: the running process, or None.
    """

    def __init__(self, store: Path, *arguments: str, port: int = 0, monitor_port: int = 0) -> None:
        free = free_ports(2)
        self.port = port or free[0]
        self.store = store
        self.url = f"nats://127.0.0.1:{self.port}"
        monitor = monitor_port or free[1]
        self.monitor_url = f"http://127.0.0.1:{monitor}"
        self.process: subprocess.Popen[bytes] | None = None
        self._command = [
            *(binary(), "--addr", "127.0.0.1", "--port", str(self.port), "--http_port", str(monitor)),
            *("--jetstream", "--store_dir", str(store), "--log", str(store / "nats-server.log")),
            *arguments,
        ]

    def start(self, *, wait: bool = True) -> Self:
        """Start the process, and unless told otherwise wait until it accepts clients."""
        self.store.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if wait:
            try:
                self.wait_ready()
            except (RuntimeError, TimeoutError):
                self.kill9()
                raise
        return self

    def wait_ready(self) -> None:
        """Wait until `/healthz` says that the server and its JetStream work."""
        deadline = time.monotonic() + READY_S_MAX
        while not self._healthy():
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError(f"nats-server ended; see {self.store / 'nats-server.log'}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"nats-server not ready; see {self.store / 'nats-server.log'}")
            time.sleep(_POLL_S)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.monitor_url}/healthz", timeout=1) as answer:
                return bool(json.load(answer).get("status") == "ok")
        except (urllib.error.URLError, OSError, ValueError):
            return False

    def kill9(self) -> None:
        """Kill it without warning; what it acknowledged is on disk."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop it in good order; nothing happens where it doesn't run."""
        if self.process is not None:
            self.thaw()
        self._end(signal.SIGTERM)

    def restart(self, *, wait: bool = True) -> Self:
        """Stop it where it still runs, and start it on the same port and store."""
        self.stop()
        return self.start(wait=wait)

    def freeze(self) -> None:
        """Stop its clock: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class NatsCluster:
    """Three nats-server nodes with JetStream; a context manager that starts and stops them.

    Attributes:
        nodes: the three servers, by index.
        urls: where clients connect, by index.
    """

    NAMES = ("n0", "n1", "n2")

    def __init__(self, store: Path) -> None:
        ports = free_ports(9)
        routes = ",".join(f"nats://127.0.0.1:{port}" for port in ports[:3])
        self.nodes = [
            NatsServer(
                store / name,
                *("--name", name, "--cluster_name", "sidecast-test"),
                *("--cluster", f"nats://127.0.0.1:{ports[index]}", "--routes", routes),
                port=ports[3 + index],
                monitor_port=ports[6 + index],
            )
            for index, name in enumerate(self.NAMES)
        ]

    @property
    def urls(self) -> list[str]:
        """Where clients connect, by index."""
        return [node.url for node in self.nodes]

    def start(self) -> Self:
        """Start all nodes and wait until they are one working JetStream."""
        for node in self.nodes:
            node.start(wait=False)
        for node in self.nodes:
            node.wait_ready()
        return self

    def stop(self) -> None:
        """Kill all nodes."""
        for node in self.nodes:
            node.kill9()

    def kill9(self, index: int) -> None:
        """Kill one node without warning."""
        self.nodes[index].kill9()

    def freeze(self, index: int) -> None:
        """Stop the clock of one node."""
        self.nodes[index].freeze()

    def thaw(self, index: int) -> None:
        """Undo `freeze`."""
        self.nodes[index].thaw()

    def restart(self, index: int, *, wait: bool = True) -> None:
        """Start one node again on its ports and store."""
        self.nodes[index].restart(wait=wait)

    async def leader_of(self, stream: str) -> int:
        """Give the index of the node that leads a stream, as a running node's STREAM.INFO says."""
        running = [node.url for node in self.nodes if node.process is not None]
        info = await request_api(running, f"STREAM.INFO.{stream}", {})
        return self.NAMES.index(info["cluster"]["leader"])

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


async def request_api(urls: str | list[str], operation: str, body: dict[str, Any]) -> dict[str, Any]:
    """Ask the JetStream API once over a connection of its own.

    Args:
        urls: the servers to connect to.
        operation: what follows `$JS.API.`, for example `STREAM.INFO.SIDECAST`.
        body: the request.

    Raises:
        RuntimeError: JetStream answered with an error.
    """
    connection = await nats.connect(urls, allow_reconnect=False, connect_timeout=5)
    try:
        answer = await connection.request(f"$JS.API.{operation}", json.dumps(body).encode(), timeout=10)
    finally:
        await connection.close()
    decoded: dict[str, Any] = json.loads(answer.data)
    if "error" in decoded:
        raise RuntimeError(f"{operation}: {decoded['error']}")
    return decoded


async def read_records(
    url: str, subject: str, stream: str = "SIDECAST"
) -> list[tuple[dict[str, str], bytes]]:
    """Read all records of a subject from a stream: headers and payload, oldest first."""
    connection = await nats.connect(url)
    try:
        config = ConsumerConfig(ack_policy=AckPolicy.NONE)
        subscription = await connection.jetstream().pull_subscribe(subject, stream=stream, config=config)
        left = (await subscription.consumer_info()).num_pending or 0
        records: list[tuple[dict[str, str], bytes]] = []
        while left > len(records):
            messages = await subscription.fetch(min(500, left - len(records)), timeout=5)
            records += [(dict(message.headers or {}), message.data) for message in messages]
        return records
    finally:
        await connection.close()


async def create_stream(urls: str | list[str], name: str = "SIDECAST", **changes: Any) -> dict[str, Any]:
    """Create the stream of the contract, with an epoch `epoch1`.

    Args:
        urls: the servers to connect to.
        name: the stream's name.
        changes: fields of JetStream's stream configuration that differ, for example `num_replicas=3` or
            `duplicate_window=100_000_000` (nanoseconds).

    Returns:
        What STREAM.CREATE answers.
    """
    day_ns = 86_400 * 1_000_000_000
    config = {
        "name": name,
        "subjects": ["sidecast.v1.events.>"],
        "republish": {"src": "sidecast.v1.events.>", "dest": "sidecast.v1.live.>"},
        "allow_direct": True,
        "allow_atomic": True,
        "max_consumers": 100_000,
        "discard": "old",
        "max_age": day_ns,
        "max_bytes": 1 << 30,
        "duplicate_window": 120 * 1_000_000_000,
        "num_replicas": 1,
        "storage": "file",
        "retention": "limits",
        "metadata": {"sidecast-epoch": "epoch1"},
    }
    return await request_api(urls, f"STREAM.CREATE.{name}", config | changes)
