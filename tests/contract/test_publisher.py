"""The publisher against a real nats-server: what is stored and in which order, whatever happens to it."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats_server import NatsCluster, NatsServer, create_stream, read_records, request_api

from sidecast_adapters import Publisher, connection
from sidecast_schemas.codec import decode_event
from sidecast_schemas.events import ACTIVITY, LOSS
from sidecast_schemas.subjects import TaskKey, events_subject

AGENT = "planner"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats") as running:
        yield running


@pytest.fixture
async def publisher(server: NatsServer) -> AsyncIterator[Publisher]:
    await create_stream(server.url)
    async with Publisher(server.url, agent=AGENT) as running:
        yield running


class Entry(msgspec.Struct):
    headers: dict[str, str]
    payload: bytes

    @property
    def event(self) -> dict[str, Any]:
        return msgspec.json.decode(self.payload)

    @property
    def text(self) -> str:
        event = decode_event(self.payload)
        if event.kind == "artifactUpdate":
            return self.event["artifactUpdate"]["artifact"]["parts"][0]["text"]
        body = self.event[event.kind]
        message = body if event.kind == "message" else body["status"].get("message")
        return message["parts"][0]["text"] if message else ""

    @property
    def loss(self) -> dict[str, Any] | None:
        return (self.event.get("statusUpdate", {}).get("metadata") or {}).get(LOSS)


async def log_of(url: str, task_id: str) -> list[Entry]:
    """Read a task's records, oldest first."""
    records = await read_records(url, events_subject(TaskKey("", AGENT, task_id)))
    return [Entry(headers, payload) for headers, payload in records]


def states(entries: list[Entry]) -> list[str]:
    """Give the states the log goes through, without repetitions."""
    named = [decode_event(entry.payload).state for entry in entries]
    path = [state.removeprefix("TASK_STATE_") for state in named if state]
    return [state for index, state in enumerate(path) if index == 0 or path[index - 1] != state]


async def until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    """Let the event loop run until a condition holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_task_is_stored_with_its_headers_and_in_the_order_it_was_said(
    server: NatsServer, publisher: Publisher
) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with publisher.task("task-1", context_id="ctx-1", owner="alice@example", traceparent=trace) as task:
        await task.status("working", "Reading the trades")
        await task.progress(0.35, "chunk 3 of 8")
        async with task.step("read", "Read", index=0, total=2):
            await task.thought("hm")
        await task.error("odd row", code="ROW", recoverable=True, component="reader")
        await task.message("by the way")
        async with task.artifact("report.md", media_type="text/markdown") as report:
            await report.write("# Findings\n")
    assert await publisher.flush(5)

    entries = await log_of(server.url, "task-1")
    events = [decode_event(entry.payload) for entry in entries]
    assert [event.kind for event in events] == [
        *(
            "task",
            "statusUpdate",
            "statusUpdate",
            "statusUpdate",
            "statusUpdate",
            "statusUpdate",
            "statusUpdate",
        ),
        *("message", "artifactUpdate", "artifactUpdate", "statusUpdate"),
    ]
    activities = [entry.event.get("statusUpdate", {}).get("metadata", {}).get(ACTIVITY) for entry in entries]
    assert [activity["kind"] for activity in activities if activity] == [
        "progress",
        "step",
        "thought",
        "step",
        "error",
    ]
    assert activities[5]["step"]["state"] == "done"
    assert activities[5]["step"]["duration_ms"] >= 0
    assert states(entries) == ["SUBMITTED", "WORKING", "COMPLETED"]
    assert all(event.context_id == "ctx-1" and event.task_id == "task-1" for event in events)
    for entry in entries:
        assert entry.headers["Sidecast-Producer"] == publisher.producer
        assert entry.headers["Nats-Msg-Id"].startswith(publisher.producer)
        assert entry.headers["Sidecast-Owner"] == "=YWxpY2VAZXhhbXBsZQ"
        assert entry.headers["traceparent"] == trace
    assert len(publisher.producer) == 32
    assert [entry.headers["Sidecast-State"] for entry in (entries[0], entries[2], entries[-1])] == [
        *("TASK_STATE_SUBMITTED", "TASK_STATE_WORKING", "TASK_STATE_COMPLETED"),
    ]


@pytest.mark.parametrize(
    ("error_text", "text"), [("type", "PermissionError"), ("full", "PermissionError: key=s3cret")]
)
async def test_an_exception_fails_the_task_and_names_no_more_than_asked(
    server: NatsServer, publisher: Publisher, error_text: Any, text: str
) -> None:
    with pytest.raises(PermissionError):
        async with publisher.task("task-1", error_text=error_text):
            raise PermissionError("key=s3cret")
    await publisher.flush(5)
    entries = await log_of(server.url, "task-1")
    assert states(entries) == ["SUBMITTED", "FAILED"]
    assert entries[-1].text == text


async def test_cancelling_the_block_cancels_the_task(server: NatsServer, publisher: Publisher) -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with publisher.task("task-1"):
            inside.set()
            await asyncio.Event().wait()

    running = asyncio.create_task(work())
    await inside.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await publisher.flush(5)
    assert states(await log_of(server.url, "task-1")) == ["SUBMITTED", "CANCELED"]


async def test_a_task_that_asks_for_input_stays_so_and_a_second_publisher_continues_it(
    server: NatsServer, publisher: Publisher
) -> None:
    async with publisher.task("task-1") as task:
        await task.status("input-required", "Which year?")
    await publisher.flush(5)
    async with Publisher(server.url, agent=AGENT) as another, another.task("task-1") as task:
        await task.status("working")
    entries = await log_of(server.url, "task-1")
    assert [decode_event(entry.payload).kind for entry in entries].count("task") == 1
    assert states(entries) == ["SUBMITTED", "INPUT_REQUIRED", "WORKING", "COMPLETED"]
    assert entries[0].headers["Sidecast-Producer"] != entries[-1].headers["Sidecast-Producer"]


async def test_nothing_follows_the_end_of_a_task(
    server: NatsServer, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    async with publisher.task("task-1") as task:
        await task.status("rejected", "no")
        await task.status("working")
        assert task.ended
    await publisher.flush(5)
    assert publisher.counts.late_events == 1
    async with publisher.task("task-1") as again:
        await publisher.flush(5)
        assert again.ended
        await again.status("working")
    await publisher.flush(5)
    assert states(await log_of(server.url, "task-1")) == ["SUBMITTED", "REJECTED"]
    assert "a new run needs a new id" in caplog.text


async def test_a_later_task_object_becomes_the_updates_that_lead_there(
    server: NatsServer, publisher: Publisher
) -> None:
    async with publisher.task("task-1") as task:
        await task.publish(
            {"artifactUpdate": {"artifact": {"artifactId": "a", "parts": [{"text": "one "}]}}},
        )
        await task.publish(
            {"artifactUpdate": {"append": True, "artifact": {"artifactId": "a", "parts": [{"text": "two"}]}}},
        )
        await task.publish(
            {
                "task": {
                    "status": {"state": "TASK_STATE_COMPLETED"},
                    "artifacts": [
                        {"artifactId": "a", "parts": [{"text": "one two"}]},
                        {"artifactId": "b", "parts": [{"data": {"n": 1}}]},
                    ],
                }
            }
        )
    await publisher.flush(5)
    entries = await log_of(server.url, "task-1")
    kinds = [decode_event(entry.payload).kind for entry in entries]
    assert kinds == ["task", "artifactUpdate", "artifactUpdate", "artifactUpdate", "statusUpdate"]
    assert entries[3].event["artifactUpdate"]["artifact"]["artifactId"] == "b"
    assert states(entries) == ["SUBMITTED", "COMPLETED"]


async def numbered(publisher: Publisher, count: int, pace: Callable[[int], Awaitable[None]]) -> None:
    async with publisher.task("task-1") as task, task.artifact("numbers") as artifact:
        for number in range(count):
            await artifact.write(f"{number} ")
            await pace(number)


def numbers(entries: list[Entry]) -> list[int]:
    texts = [entry.text for entry in entries if decode_event(entry.payload).kind == "artifactUpdate"]
    return [int(text) for text in texts if text]


@pytest.mark.row("C64")
@pytest.mark.parametrize("atomic", [True, False])
async def test_order_holds_when_the_server_is_killed_and_restarted_while_publishing(
    server: NatsServer, atomic: bool
) -> None:
    await create_stream(server.url, allow_atomic=atomic)
    count = 3_000

    async def pace(number: int) -> None:
        if number % 10 == 0:
            await asyncio.sleep(0.001)
        if number in (500, 1500, 2500):
            server.kill9()
            await asyncio.to_thread(server.start)

    async with Publisher(server.url, agent=AGENT) as publisher:
        await numbered(publisher, count, pace)
        assert await publisher.flush(30)
        assert publisher.counts.dropped_events == 0
    assert numbers(await log_of(server.url, "task-1")) == list(range(count))


async def test_order_holds_when_the_leader_of_a_cluster_is_killed(tmp_path: Path) -> None:
    with NatsCluster(tmp_path) as cluster:
        await create_stream(cluster.urls, num_replicas=3)
        leader = await cluster.leader_of("SIDECAST")

        async def pace(number: int) -> None:
            if number % 10 == 0:
                await asyncio.sleep(0.001)
            if number == 500:
                cluster.kill9(leader)

        async with Publisher(cluster.urls, agent=AGENT) as publisher:
            await numbered(publisher, 1_000, pace)
            assert await publisher.flush(30)
            assert publisher.counts.dropped_events == 0
        entries = await log_of(
            next(url for index, url in enumerate(cluster.urls) if index != leader), "task-1"
        )
    assert numbers(entries) == list(range(1_000))


async def test_a_cut_longer_than_the_duplicate_window_stores_nothing_twice(server: NatsServer) -> None:
    await create_stream(server.url, duplicate_window=100_000_000)
    async with Publisher(server.url, agent=AGENT) as publisher:
        async with publisher.task("task-1") as task:
            await task.status("working", "0")
            await publisher.flush(5)
            # Frozen, the server takes what is sent and stores it when it wakes up, long after we gave up.
            server.freeze()
            await task.status("working", "1")
            frozen_at = time.monotonic()
            await until(lambda: time.monotonic() - frozen_at > 3.5)
            await task.status("working", "2")
            server.thaw()
        assert await publisher.flush(20)
    assert [entry.text for entry in await log_of(server.url, "task-1")] == ["", "0", "1", "2", ""]


@pytest.mark.row("C65")
async def test_an_acknowledgement_lost_in_a_cut_is_found_at_the_leader(server: NatsServer) -> None:
    await create_stream(server.url, duplicate_window=100_000_000)
    async with Relay(server.port) as relay, Publisher(relay.url, agent=AGENT) as publisher:
        async with publisher.task("task-1") as task:
            await task.status("working", "0")
            assert await publisher.flush(5)
            relay.deaf = True
            await task.status("working", "1")
            await until(lambda: relay.swallowed > 0)
            relay.deaf = False
            relay.cut()
            await task.status("working", "2")
        assert await publisher.flush(20)
    assert [entry.text for entry in await log_of(server.url, "task-1")] == ["", "0", "1", "2", ""]


class Relay:
    """A TCP relay to the server that can swallow what the server answers, and cut its connections."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.deaf = False
        self.swallowed = 0
        self.url = ""

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks)

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, far_writer]
        for source, target, answers in ((reader, far_writer, False), (far_reader, writer, True)):
            task = asyncio.create_task(self._pump(source, target, answers))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, answers: bool) -> None:
        try:
            while data := await source.read(65536):
                if answers and self.deaf:
                    self.swallowed += data.count(b"MSG ")
                    continue
                target.write(data)
        except OSError:
            pass
        target.transport.abort()


@pytest.mark.row("C65")
async def test_a_stale_publisher_is_fenced_and_says_so(
    server: NatsServer, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    async with Publisher(server.url, agent=AGENT) as other, publisher.task("task-1") as stale:
        await stale.status("working", "stale 1")
        await publisher.flush(5)
        async with other.task("task-1") as fresh:
            await fresh.status("working", "fresh 1")
            await other.flush(5)
            await stale.status("working", "stale 2")
            await publisher.flush(5)
            assert stale.fenced
            assert not fresh.fenced
            await stale.status("working", "stale 3")
    texts = [entry.text for entry in await log_of(server.url, "task-1")]
    assert texts == ["", "stale 1", "fresh 1", ""]
    assert publisher.counts.fenced_tasks == 1
    assert "stale and stops" in caplog.text


async def test_publishing_before_there_is_a_server_or_a_stream(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    async with Publisher(server.url, agent=AGENT) as publisher:
        began = time.monotonic()
        async with publisher.task("task-1") as task:
            await task.status("working")
        assert time.monotonic() - began < 1
        assert not publisher.connected
        assert not await publisher.flush(0.05)
        with server:
            await until(lambda: publisher.connected)
            assert not await publisher.flush(0.05)
            await create_stream(server.url)
            assert await publisher.flush(10)
            assert states(await log_of(server.url, "task-1")) == ["SUBMITTED", "WORKING", "COMPLETED"]


@pytest.mark.row("C64")
async def test_beyond_the_bound_text_and_progress_go_and_the_log_says_so(server: NatsServer) -> None:
    async with Publisher(server.url, agent=AGENT, buffer_events_max=50) as publisher:
        async with publisher.task("task-1") as task:
            await task.status("working", "begin")
            async with task.artifact("a") as artifact:
                for number in range(200):
                    await artifact.write(f"{number} ")
                    await task.progress(number / 200)
            await task.status("input-required", "and?")
            await task.status("working", "end")
        assert publisher.waiting_events == 50
        dropped = publisher.counts.dropped_events
        await create_stream(server.url)
        assert await publisher.flush(10)
    entries = await log_of(server.url, "task-1")
    assert states(entries) == ["SUBMITTED", "WORKING", "INPUT_REQUIRED", "WORKING", "COMPLETED"]
    losses = [entry.loss for entry in entries if entry.loss]
    assert sum(loss["dropped_events"] for loss in losses) == dropped == 200 + 200 + 1 + 5 - 50
    assert [loss["reason"] for loss in losses] == ["buffer"]
    left = numbers(entries)
    assert left[0] == 0, "the beginning of the artifact stays longer than its chunks"
    assert left[1:] == list(range(left[1], 200))


@pytest.mark.row("C64")
async def test_a_frozen_server_blocks_the_agent_for_a_moment_only(server: NatsServer) -> None:
    await create_stream(server.url)
    async with (
        Publisher(server.url, agent=AGENT, buffer_events_max=200) as publisher,
        publisher.task("task-1") as task,
    ):
        await publisher.flush(5)
        server.freeze()
        began = time.monotonic()
        for number in range(2_000):
            await task.progress(number / 2_000)
        assert time.monotonic() - began < 2
        assert publisher.waiting_events <= 200
        server.thaw()
        assert await publisher.flush(20)
        assert publisher.counts.dropped_events > 0
    assert states(await log_of(server.url, "task-1")) == ["SUBMITTED", "WORKING", "COMPLETED"]


async def test_events_too_large_for_the_server(tmp_path: Path) -> None:
    config = tmp_path / "nats.conf"
    config.write_text("max_payload: 8192\n")
    with NatsServer(tmp_path / "nats", "--config", str(config)) as server:
        await create_stream(server.url)
        async with Publisher(server.url, agent=AGENT) as publisher:
            await until(lambda: publisher.connected)
            text = "äöü€😀" * 3_000
            async with publisher.task("task-1") as task:
                async with task.artifact("a", media_type="text/plain") as artifact:
                    await artifact.write(text)
                await task.status("working", "x" * 20_000)
                with pytest.raises(
                    ValueError, match=r"message of 2\d{4} bytes is larger than the 7\d{3} bytes"
                ):
                    await task.message("x" * 20_000)
            assert await publisher.flush(5)
            assert publisher.counts.shortened_events == 1
        entries = await log_of(server.url, "task-1")
    chunks = [entry for entry in entries if "artifactUpdate" in entry.event]
    assert len(chunks) > 3
    assert "".join(chunk.text for chunk in chunks) == text
    assert [bool(chunk.event["artifactUpdate"].get("append")) for chunk in chunks] == [False] + [True] * (
        len(chunks) - 1
    )
    (shortened,) = [entry for entry in entries if entry.loss]
    assert shortened.loss is not None
    assert shortened.loss["reason"] == "message-too-large"
    assert shortened.loss["dropped_bytes"] > 20_000
    assert states(entries) == ["SUBMITTED", "WORKING", "COMPLETED"]


async def test_what_waited_for_a_server_with_a_smaller_limit_is_made_to_fit(tmp_path: Path) -> None:
    config = tmp_path / "nats.conf"
    config.write_text("max_payload: 8192\n")
    server = NatsServer(tmp_path / "nats", "--config", str(config))
    async with Publisher(server.url, agent=AGENT) as publisher:
        async with publisher.task("task-1") as task:
            async with task.artifact("a") as artifact:
                await artifact.write("x" * 20_000)
            await task.status("working", "y" * 20_000)
            await task.message("z" * 20_000)
        with server:
            await create_stream(server.url)
            assert await publisher.flush(10)
            entries = await log_of(server.url, "task-1")
    assert "".join(entry.text for entry in entries if "artifactUpdate" in entry.event) == "x" * 20_000
    assert [entry.loss["reason"] for entry in entries if entry.loss] == ["message-too-large"] * 2
    assert publisher.counts.refused_events == 1
    assert states(entries) == ["SUBMITTED", "WORKING", "COMPLETED"]


async def test_the_streams_own_message_limit_is_found_out(server: NatsServer) -> None:
    await create_stream(server.url, max_msg_size=4096)
    async with Publisher(server.url, agent=AGENT) as publisher:
        async with publisher.task("task-1") as task, task.artifact("a") as artifact:
            await artifact.write("x" * 10_000)
        assert await publisher.flush(10)
    entries = await log_of(server.url, "task-1")
    assert "".join(entry.text for entry in entries if "artifactUpdate" in entry.event) == "x" * 10_000


@pytest.mark.parametrize("how", ["purge", "recreate"])
async def test_a_log_that_is_gone_begins_again_and_says_so(
    server: NatsServer, publisher: Publisher, how: str
) -> None:
    async with publisher.task("task-1", context_id="c") as task:
        await task.status("working", "one")
        await publisher.flush(5)
        if how == "purge":
            await request_api(server.url, "STREAM.PURGE.SIDECAST", {})
        else:
            await request_api(server.url, "STREAM.DELETE.SIDECAST", {})
            await create_stream(server.url)
        await task.status("working", "two")
        assert await publisher.flush(10)
        assert not task.fenced
    await publisher.flush(5)
    entries = await log_of(server.url, "task-1")
    assert decode_event(entries[0].payload).kind == "task"
    assert [entry.loss["reason"] for entry in entries if entry.loss] == ["stream-reset"]
    assert [entry.text for entry in entries] == ["", "", "two", ""]
    assert states(entries) == ["WORKING", "COMPLETED"]


async def test_a_stream_without_atomic_batches_gets_the_events_one_by_one(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    await create_stream(server.url, allow_atomic=False)
    async with Publisher(server.url, agent=AGENT) as publisher:
        async with publisher.task("task-1") as task:
            for number in range(50):
                await task.status("working", str(number))
        assert await publisher.flush(10)
    entries = await log_of(server.url, "task-1")
    assert [entry.text for entry in entries[1:-1]] == [str(number) for number in range(50)]
    assert not any("Nats-Batch-Id" in entry.headers for entry in entries)
    assert "takes no atomic batches" in caplog.text


async def test_many_tasks_at_once_each_keep_their_order(server: NatsServer, publisher: Publisher) -> None:
    async def work(task_id: str) -> None:
        async with publisher.task(task_id) as task:
            for number in range(30):
                await task.status("working", str(number))

    await asyncio.gather(*(work(f"task-{number}") for number in range(60)))
    assert await publisher.flush(20)
    for number in range(0, 60, 20):
        entries = await log_of(server.url, f"task-{number}")
        assert [entry.text for entry in entries[1:-1]] == [str(number) for number in range(30)]


async def test_two_users_of_one_task_in_one_process_share_its_log(
    server: NatsServer, publisher: Publisher
) -> None:
    async with publisher.task("task-1") as one, publisher.task("task-1") as two:
        await one.status("working", "one")
        await two.status("working", "two")
        await one.status("working", "three")
    await publisher.flush(5)
    entries = await log_of(server.url, "task-1")
    assert [entry.text for entry in entries] == ["", "one", "two", "three", ""]


async def test_publishing_from_a_thread(server: NatsServer, publisher: Publisher) -> None:
    loop = asyncio.get_running_loop()
    async with publisher.task("task-1") as task:

        def work() -> None:
            for number in range(20):
                asyncio.run_coroutine_threadsafe(task.status("working", str(number)), loop).result(5)

        await asyncio.to_thread(work)
    await publisher.flush(5)
    assert [entry.text for entry in (await log_of(server.url, "task-1"))[1:-1]] == [str(n) for n in range(20)]


async def test_closing_without_nats_ends_in_time_and_says_what_is_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    began = time.monotonic()
    publisher = Publisher("nats://127.0.0.1:1", agent=AGENT, close_s_max=0.1)
    async with publisher, publisher.task("task-1") as task:
        await task.status("working")
    assert time.monotonic() - began < 3
    assert "closing with 3 events" in caplog.text
    assert publisher.counts.dropped_events == 3


async def said(publisher: Publisher, task_id: str) -> bool:
    """Run a task from beginning to end, in whatever process and event loop this is."""
    async with publisher, publisher.task(task_id) as task:
        await task.status("working", task_id)
    return publisher.waiting_events == 0


async def test_a_publisher_is_entered_again_in_any_event_loop(server: NatsServer) -> None:
    await create_stream(server.url)
    publisher = Publisher(server.url, agent=AGENT)
    assert await said(publisher, "here-1")
    assert await said(publisher, "here-2")
    for number in (1, 2):
        assert await asyncio.to_thread(asyncio.run, said(publisher, f"there-{number}"))
    for task_id in ("here-1", "here-2", "there-1", "there-2"):
        assert states(await log_of(server.url, task_id)) == ["SUBMITTED", "WORKING", "COMPLETED"]
    assert publisher.counts.stored_events == 12
    assert publisher.counts.dropped_events == 0


async def test_an_event_loop_that_ended_before_the_publisher_was_closed(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    await create_stream(server.url)
    publisher = Publisher("nats://127.0.0.1:1", agent=AGENT)

    async def left_open() -> None:
        async with publisher.task("task-1"):
            pass

    await asyncio.to_thread(asyncio.run, left_open())
    await asyncio.to_thread(asyncio.run, publisher.close())
    assert "the event loop ended before the publisher was closed; 2 events lost" in caplog.text
    assert publisher.counts.dropped_events == 2

    publisher = Publisher(server.url, agent=AGENT)
    await asyncio.to_thread(asyncio.run, left_open())
    assert await said(publisher, "task-2")
    assert states(await log_of(server.url, "task-2")) == ["SUBMITTED", "WORKING", "COMPLETED"]


async def test_what_is_said_behind_the_end_of_a_publisher_is_told_and_counted(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    await create_stream(server.url)
    async with Publisher(server.url, agent=AGENT) as publisher, publisher.task("task-1") as early:
        pass
    await early.status("working")
    async with publisher.task("task-2") as late:
        await late.status("working")
    told = [record.getMessage() for record in caplog.records]
    assert told == ["the publisher is closed; what a task says here is dropped"]
    assert publisher.counts.dropped_events == 4


FORKS = """
import asyncio, os, sys
from sidecast_adapters import Publisher

async def work(name):
    async with publisher, publisher.task(name) as task:
        await task.status("working", name)
    assert publisher.counts.dropped_events == 0, publisher.counts

async def main(name):
    async with publisher, publisher.task("open") as task:
        await publisher.flush(10)
        if os.fork() == 0:
            try:
                asyncio.events._set_running_loop(None)
                asyncio.new_event_loop().run_until_complete(stranger(task))
            finally:
                os._exit(0)
        os.wait()

async def stranger(task):
    await task.status("working", "stranger")
    await publisher.close()
    await work("fork")

publisher = Publisher(sys.argv[1], agent="planner")
for name in ("one", "two"):
    if os.fork() == 0:
        asyncio.run(work(name))
        asyncio.run(work("shared"))
        os._exit(0)
    os.wait()
asyncio.run(main("main"))
"""


async def test_each_process_that_forks_has_a_publisher_of_its_own(server: NatsServer) -> None:
    await create_stream(server.url)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", FORKS, server.url), stderr=asyncio.subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors.decode()
    assert b"belongs to the process that forked; what a task says here is dropped" in errors
    assert b"task shared ended in TASK_STATE_COMPLETED before" in errors
    writers = set()
    for task_id in ("one", "two", "shared", "fork", "open"):
        entries = await log_of(server.url, task_id)
        assert states(entries)[-1] == "COMPLETED", task_id
        assert "stranger" not in [entry.text for entry in entries]
        writers |= {(entry.headers["Sidecast-Producer"]) for entry in entries}
    assert len(writers) == 5


async def test_an_error_nobody_expects_is_told_once_and_nothing_is_lost(
    server: NatsServer,
    publisher: Publisher,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(*_: Any) -> Any:
        raise AttributeError("'NoneType' object has no attribute 'write'")

    with monkeypatch.context() as patch:
        patch.setattr(connection.Connection, "publish", broken)
        async with publisher.task("task-1"):
            pass
        await until(lambda: publisher.counts.failed_sends >= 2)
        assert not await publisher.flush(0.01)
    assert await publisher.flush(5)
    assert states(await log_of(server.url, "task-1")) == ["SUBMITTED", "COMPLETED"]
    assert [record.getMessage() for record in caplog.records].count(
        "task task-1: sending failed; trying on"
    ) == 1
    assert "object has no attribute 'write'" in caplog.text


@pytest.mark.parametrize("connected_before", [True, False])
async def test_a_broken_credentials_file_is_told_once_and_tried_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    connected_before: bool,
) -> None:
    monkeypatch.setattr(connection, "PAUSE_S_MAX", 0.01)
    attempts = 0
    connect = connection.Connection._connect

    async def counted(*arguments: Any) -> None:
        nonlocal attempts
        attempts += 1
        await connect(*arguments)

    monkeypatch.setattr(connection.Connection, "_connect", counted)
    config = tmp_path / "nkey.conf"
    config.write_text(
        "authorization { users: [{ nkey: UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4 }] }"
    )
    empty = tmp_path / "empty.creds"
    empty.write_bytes(b"")
    # Without users the server asks for no credentials, and the file isn't read.
    lenient = NatsServer(tmp_path / "nats")
    strict = NatsServer(tmp_path / "strict", "--config", str(config), port=lenient.port)
    with lenient:
        await create_stream(lenient.url)
        async with Publisher(lenient.url, agent=AGENT, credentials_file=empty) as publisher:
            if connected_before:
                await until(lambda: publisher.connected)
            lenient.stop()
            with strict:
                attempts = 0
                await until(lambda: attempts >= 3)
            lenient.start()
            async with publisher.task("task-1"):
                pass
            assert await publisher.flush(10)
    told = [record.getMessage() for record in caplog.records if "TypeError" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("no connection to NATS: TypeError: ")


async def test_a_client_that_never_came_to_connect_is_let_go(caplog: pytest.LogCaptureFixture) -> None:
    options = {"servers": ["nats://"]}  # nats-py refuses it before it has anything to close
    async with Publisher(agent=AGENT, connect_options=options, close_s_max=0.01) as publisher:
        keeper = publisher._shared.connection._keeper
        await until(lambda: "no connection to NATS" in caplog.text)
    assert keeper is not None
    assert keeper.cancelled()


async def test_one_task_is_published_fast_enough(server: NatsServer, publisher: Publisher) -> None:
    count = 5_000
    await publisher.flush(1)
    began = time.monotonic()
    async with publisher.task("task-1") as task, task.artifact("a") as artifact:
        for number in range(count):
            await artifact.write(f"token {number} " + "x" * 100)
    assert await publisher.flush(20)
    rate = count / (time.monotonic() - began)
    print(f"{rate:.0f} events/s")
    assert publisher.counts.dropped_events == 0
    assert rate > 1_000, "the floor holds on a busy machine too; an idle one does several times as much"
