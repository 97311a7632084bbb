"""Brokers to test, and the stream behind them: the double or a real server under the same names.

Must not know what is tested.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import aiohttp
import nats
import nats.errors
from e2e.ports import fixed_ports
from fake_jetstream import FakeJetStream, FakeServer, Faults, FaultyJetStream
from nats.aio.client import Client
from nats_server import NatsServer, create_stream, request_api
from prometheus_client.parser import text_string_to_metric_families
from sse import TIMEOUT_S, Frame, Watch, target
from yarl import URL

from sidecast_broker.app import Listening, serving
from sidecast_broker.auth.access import Authenticator
from sidecast_broker.configuration import load
from sidecast_broker.jetstream import JetStream
from sidecast_broker.settings import Nats, Settings
from sidecast_schemas.subjects import TaskKey, events_subject

TASK = "task-1"
OTHER = "task-2"
AS_JSON = {"Accept": "application/json"}

ENVIRON = {
    "SIDECAST_SERVER_PORT": "0",
    "SIDECAST_SERVER_INTERNAL_PORT": "0",
    "SIDECAST_NATS_VERIFY_S": "0.2",
    "SIDECAST_NATS_REQUEST_S": "1",
    "SIDECAST_STREAM_HEARTBEAT_S": "5",
    "SIDECAST_STREAM_RETRY_MS": "10",
    "SIDECAST_STREAM_DRAIN_S": "0",
}
"""Small periods; everything else as it comes."""


async def until(condition: Callable[[], Any], timeout_s: float = TIMEOUT_S) -> None:
    """Wait until a condition holds: for what nothing announces."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


def subject_of(task: str) -> str:
    """Give the events subject of a task of the broker's own agent."""
    return events_subject(TaskKey("", "agent", task))


# --- events


def encode(event: dict[str, Any]) -> bytes:
    """Write an event as a publisher in any language would."""
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()


def task_record(task: str = TASK, state: str = "SUBMITTED", **fields: Any) -> bytes:
    """Give the record that begins a task's log."""
    status = {"state": f"TASK_STATE_{state}"}
    return encode({"task": {"id": task, "contextId": "context-1", "status": status, **fields}})


def status(text: str = "", task: str = TASK, state: str = "WORKING", **fields: Any) -> bytes:
    """Give a status update, with a message where there is a text."""
    body: dict[str, Any] = {"state": f"TASK_STATE_{state}"}
    if text:
        message = {"messageId": f"m-{text[:40]}", "role": "ROLE_AGENT", "parts": [{"text": text}]}
        body["message"] = message
    return encode({"statusUpdate": {"taskId": task, "contextId": "context-1", "status": body, **fields}})


def done(task: str = TASK, state: str = "COMPLETED") -> bytes:
    """Give the event that ends a task."""
    return status(task=task, state=state)


def activity(kind: str, task: str = TASK, **fields: Any) -> bytes:
    """Give a status update that reports an activity."""
    return status(task=task, metadata={"urn:sidecast:activity:v1": {"kind": kind, **fields}})


def artifact(text: str, task: str = TASK, artifact_id: str = "a", *, append: bool = False) -> bytes:
    """Give an artifact, or a piece of one."""
    body = {"artifactId": artifact_id, "parts": [{"text": text}]}
    return encode(
        {"artifactUpdate": {"taskId": task, "contextId": "context-1", "artifact": body, "append": append}}
    )


def turn(turn_id: str, phase: str) -> bytes:
    """Give a control record."""
    return encode({"turn": {"id": turn_id, "phase": phase}})


# --- the stream behind a broker


class Backend(ABC):
    """A JetStream stream that a test fills, and breaks.

    Attributes:
        faults: what goes wrong between it and a broker in this process.
    """

    def __init__(self) -> None:
        self.faults = Faults()

    @property
    @abstractmethod
    def environ(self) -> dict[str, str]:
        """Settings a broker reaches it with."""

    @abstractmethod
    def connect(self, nats: Nats, on_doubt: Callable[[str], None]) -> JetStream:
        """Make a broker's connection."""

    @abstractmethod
    async def publish_on(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> int:
        """Store a message; give its sequence."""

    @abstractmethod
    async def send_core(self, subject: str, payload: bytes, headers: dict[str, str]) -> None:
        """Send a message that nothing stores."""

    @abstractmethod
    async def create(self, epoch: str | None = "epoch1") -> None:
        """Make the stream, in the place of the one there may be."""

    @abstractmethod
    async def delete_stream(self) -> None:
        """Remove the stream."""

    @abstractmethod
    async def purge(self, subject: str | None = None, keep_from: int | None = None) -> None:
        """Remove the messages of a subject, or of all, below a sequence where one is given."""

    @abstractmethod
    async def delete(self, sequence: int) -> None:
        """Remove one message."""

    @abstractmethod
    async def go_away(self) -> None:
        """Kill the server."""

    @abstractmethod
    async def come_back(self) -> None:
        """Start it again, with what it has stored."""

    async def publish(self, *payloads: bytes, task: str = TASK, headers: dict[str, str] | None = None) -> int:
        """Store events of a task in order; give the last one's sequence."""
        sequence = 0
        for payload in payloads:
            sequence = await self.publish_on(subject_of(task), payload, headers)
        return sequence

    async def expire(self, sequence: int) -> None:
        """Discard the oldest messages of all tasks up to a sequence, as age and size limits do."""
        await self.purge(keep_from=sequence + 1)


class FakeBackend(Backend):
    """The double.

    Attributes:
        server: its own controls.
        connections: one of each broker.
    """

    def __init__(self) -> None:
        super().__init__()
        self.server = FakeServer()
        self.server.create()
        self.connections: list[FakeJetStream] = []

    @property
    def environ(self) -> dict[str, str]:
        return {}

    def connect(self, nats: Nats, on_doubt: Callable[[str], None]) -> JetStream:
        connection = FakeJetStream(self.server, nats, on_doubt, self.faults)
        self.connections.append(connection)
        return connection  # type: ignore[return-value]

    async def publish_on(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> int:
        return self.server.publish(subject, payload, headers or {})

    async def send_core(self, subject: str, payload: bytes, headers: dict[str, str]) -> None:
        self.server.deliver(subject, payload, headers)

    async def create(self, epoch: str | None = "epoch1") -> None:
        self.server.create(epoch)

    async def delete_stream(self) -> None:
        self.server.delete_stream()

    async def purge(self, subject: str | None = None, keep_from: int | None = None) -> None:
        self.server.purge(subject, keep_from)

    async def delete(self, sequence: int) -> None:
        self.server.delete(sequence)

    async def go_away(self) -> None:
        self.server.go_away()

    async def come_back(self) -> None:
        self.server.come_back()


class RealBackend(Backend):
    """A nats-server of this test run, whose stream is made anew for every test.

    Args:
        server: the running server.
    """

    def __init__(self, server: NatsServer) -> None:
        super().__init__()
        self.server = server
        self._client: Client | None = None

    @property
    def environ(self) -> dict[str, str]:
        return {"SIDECAST_NATS_URL": self.server.url}

    def connect(self, nats: Nats, on_doubt: Callable[[str], None]) -> JetStream:
        return FaultyJetStream(nats, on_doubt, self.faults)

    async def client(self) -> Client:
        """Give a connection to publish on."""
        if self._client is None:
            self._client = await nats.connect(self.server.url, allow_reconnect=False)
        return self._client

    async def close(self) -> None:
        """Close that connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def publish_on(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> int:
        client = await self.client()
        answer = json.loads((await client.request(subject, payload, timeout=5, headers=headers)).data)
        assert "error" not in answer, answer
        sequence = answer["seq"]
        assert isinstance(sequence, int)
        return sequence

    async def publish(self, *payloads: bytes, task: str = TASK, headers: dict[str, str] | None = None) -> int:
        # All but the last without waiting: one connection and one subject keep their order.
        client = await self.client()
        for payload in payloads[:-1]:
            await client.publish(subject_of(task), payload, headers=headers)
        return await self.publish_on(subject_of(task), payloads[-1], headers)

    async def send_core(self, subject: str, payload: bytes, headers: dict[str, str]) -> None:
        client = await self.client()
        await client.publish(subject, payload, headers=headers)
        await client.flush()

    async def create(self, epoch: str | None = "epoch1") -> None:
        metadata = {"sidecast-epoch": epoch} if epoch else {}
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                await self.delete_stream()
                try:
                    await create_stream(self.server.url, metadata=metadata)
                    return
                except RuntimeError as error:
                    if "already in use" not in str(error):
                        raise
                    # A broker that missed it was quicker.

    async def delete_stream(self) -> None:
        await self._delete("SIDECAST")

    async def delete_bucket(self, name: str) -> None:
        """Remove a key-value bucket, where there is one."""
        await self._delete(f"KV_{name}")

    async def _delete(self, stream: str) -> None:
        try:
            await self._api(f"STREAM.DELETE.{stream}")
        except RuntimeError as error:
            if "stream not found" not in str(error):
                raise
        # One that was written to a moment ago can leave its messages behind, and the next of its name begins
        # with them: 1 of 10 deleted within milliseconds (nats-server 2.15.1).
        shutil.rmtree(self.server.store / "jetstream" / "$G" / "streams" / stream, ignore_errors=True)

    async def purge(self, subject: str | None = None, keep_from: int | None = None) -> None:
        body = {"filter": subject, "seq": keep_from}
        await self._api("STREAM.PURGE.SIDECAST", {key: value for key, value in body.items() if value})

    async def delete(self, sequence: int) -> None:
        await self._api("STREAM.MSG.DELETE.SIDECAST", {"seq": sequence})

    async def _api(self, operation: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return await request_api(self.server.url, operation, body or {})

    async def go_away(self) -> None:
        await self.close()
        self.server.kill9()

    async def come_back(self) -> None:
        await asyncio.to_thread(self.server.start)

    async def go_backwards(self, change: Callable[[], Any]) -> None:
        """Restart the server with the disk as it was before a change: its sequences go backwards."""
        await self.go_away()
        copy = self.server.store.with_name("older")
        await asyncio.to_thread(shutil.copytree, self.server.store, copy)
        await self.come_back()
        await change()
        await self.go_away()
        await asyncio.to_thread(shutil.rmtree, self.server.store)
        copy.rename(self.server.store)
        await self.come_back()


# --- brokers


class Broker:
    """A running broker, and the clients a test opens at it.

    Attributes:
        url: of the public listener.
        internal_url: of the internal one.
    """

    def __init__(self, url: str, internal_url: str) -> None:
        self.url = url
        self.internal_url = internal_url
        self._open = AsyncExitStack()

    async def watch(
        self,
        task: str = TASK,
        cursor: str | None = None,
        *,
        path: str | None = None,
        headers: dict[str, str] | None = None,
        **query: object,
    ) -> Watch:
        """Open a stream; `cursor` goes into the header. It is closed with the broker."""
        given = {"Last-Event-ID": cursor} if cursor is not None else {}
        url = self.url + target(path or f"/tasks/{task}/events", **query)
        return await self._open.enter_async_context(Watch(url, given | (headers or {})))

    async def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """Ask the public listener; give the status, and the JSON or bytes of the answer."""
        return await ask("GET", self.url + path, headers=headers)

    async def internal(
        self, path: str, method: str = "GET", body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Ask the internal listener."""
        return await ask(method, self.internal_url + path, body, headers)

    async def metric(self, name: str, **labels: str) -> float:
        """Give a metric's value; 0 where it has none yet."""
        _status, text = await self.internal("/metrics")
        samples = (
            sample for family in text_string_to_metric_families(text.decode()) for sample in family.samples
        )
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    async def until_metric(self, name: str, at_least: float = 1, **labels: str) -> None:
        """Wait until a metric has reached a value."""
        async with asyncio.timeout(TIMEOUT_S):
            while await self.metric(name, **labels) < at_least:
                await asyncio.sleep(0.01)

    async def until_status(self, path: str, wanted: int) -> None:
        """Wait until a path is answered with a status."""
        async with asyncio.timeout(TIMEOUT_S):
            while (await self.get(path, AS_JSON))[0] != wanted:
                await asyncio.sleep(0.01)

    async def until_answer(self, task: str, wanted: Callable[[Any], bool]) -> Any:
        """Wait until the one answer about a task is as wanted; give it."""
        async with asyncio.timeout(TIMEOUT_S):
            while not wanted(answer := (await self.get(f"/tasks/{task}/events", AS_JSON))[1]):
                await asyncio.sleep(0.01)
        return answer

    async def ready(self) -> Self:
        """Wait until it has seen the stream."""
        async with asyncio.timeout(TIMEOUT_S):
            while (await self.internal("/readyz"))[1]["nats"]["epoch"] is None:
                await asyncio.sleep(0.01)
        return self

    async def leave(self) -> None:
        """Close all clients."""
        await self._open.aclose()


class OwnBroker(Broker):
    """A broker in this process.

    Attributes:
        listening: what it is made of.
    """

    def __init__(self, listening: Listening) -> None:
        super().__init__(listening.url, listening.internal_url)
        self.listening = listening


async def ask(
    method: str, url: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    """Send one request over a connection of its own."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True), timeout=timeout) as session,
        session.request(
            method,
            URL(url, encoded=True),
            data=io.BytesIO(body) if body else None,
            headers=headers,
            allow_redirects=False,
        ) as answer,
    ):
        data: Any = await answer.read()
        if answer.content_type == "application/json":
            data = json.loads(data)
        return answer.status, data


def settings_of(backend: Backend, **changes: object) -> Settings:
    """Give settings with small periods; a change is named `section__key`."""
    changed = {f"SIDECAST_{name.replace('__', '_').upper()}": str(value) for name, value in changes.items()}
    return load(None, ENVIRON | backend.environ | changed, {})


@asynccontextmanager
async def broker(
    backend: Backend, *, ready: bool = True, authenticator: Authenticator | None = None, **changes: object
) -> AsyncIterator[OwnBroker]:
    """Run a broker in this process for the length of the block."""
    async with serving(settings_of(backend, **changes), backend.connect, authenticator) as listening:
        running = OwnBroker(listening)
        try:
            if ready:
                await running.ready()
            yield running
        finally:
            await running.leave()
            await until(lambda: not len(listening.streams))


class ChildBroker(Broker):
    """A broker as a process of its own, on ports that stay the same over restarts.

    Args:
        backend: the real one.
        log: where its log lines go.
        changes: settings, each named `section__key`.

    Attributes:
        program: what Python runs, up to the command.
    """

    program: ClassVar[tuple[str, ...]] = ("-m", "sidecast_broker")

    def __init__(self, backend: RealBackend, log: Path, **changes: object) -> None:
        port, internal_port = fixed_ports(2)
        super().__init__(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{internal_port}")
        changed = {f"SIDECAST_{name.replace('__', '_').upper()}": str(v) for name, v in changes.items()}
        ports = {"SIDECAST_SERVER_PORT": str(port), "SIDECAST_SERVER_INTERNAL_PORT": str(internal_port)}
        self.log = log
        self._environ = {**os.environ, **ENVIRON, **backend.environ, **ports, **changed}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process."""
        with self.log.open("ab") as log:
            command = [sys.executable, *self.program, "serve"]
            self._process = subprocess.Popen(command, env=self._environ, stderr=log)

    async def listening(self) -> None:
        """Wait until both listeners accept and the stream has been seen."""
        deadline = time.monotonic() + 20
        while True:
            assert self._process is not None
            assert self._process.poll() is None, self.log.read_text()
            try:
                if (await self.internal("/readyz"))[1]["nats"]["epoch"] is not None:
                    return
            except (OSError, aiohttp.ClientError):
                pass
            assert time.monotonic() < deadline, self.log.read_text()
            await asyncio.sleep(0.02)

    async def restart(self) -> None:
        """Start it again on the same ports."""
        self.start()
        await self.listening()

    def kill9(self) -> None:
        """Kill it without warning."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def terminate(self) -> subprocess.Popen[bytes]:
        """Ask it to drain; give the process to wait for."""
        process, self._process = self._process, None
        assert process is not None
        process.terminate()
        return process

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait until it has ended by itself; give its exit code."""
        process, self._process = self._process, None
        assert process is not None
        return await asyncio.to_thread(process.wait, 20)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Give its log lines of an event."""
        lines = map(json.loads, self.log.read_text().splitlines())
        return [line for line in lines if line["event"] == event]

    def workers(self) -> dict[int, int]:
        """Give the process of each worker, by its number; those that are being started left out."""
        assert self._process is not None
        found: dict[int, int] = {}
        for line in self.logged("listening"):
            found = dict(enumerate(line["workers"], 1))
        return found | {line["worker"]: line["pid"] for line in self.logged("worker_restarted")}


@asynccontextmanager
async def child_broker(
    backend: RealBackend, log: Path, kind: type[ChildBroker] = ChildBroker, **changes: object
) -> AsyncIterator[ChildBroker]:
    """Run a broker as a process of its own for the length of the block."""
    child = kind(backend, log, **changes)
    child.start()
    try:
        await child.listening()
        yield child
    finally:
        await child.leave()
        child.kill9()


def texts(frames: list[Frame]) -> list[str]:
    """Give the texts of those frames that have one."""
    return [frame["text"] for frame in frames if "text" in frame.json]


def numbered(count: int, first: int = 0) -> list[bytes]:
    """Give so many statuses whose texts are numbers."""
    return [status(str(number)) for number in range(first, first + count)]


def numbers(count: int, first: int = 0) -> list[str]:
    """Give the texts of `numbered`."""
    return [str(number) for number in range(first, first + count)]
