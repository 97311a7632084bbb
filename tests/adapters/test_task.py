"""The API an agent's code uses, without NATS: what it refuses, and what it lets wait."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from sidecast_adapters import Publisher, Task
from sidecast_adapters.payload import encode, mend
from sidecast_schemas.events import Message, Part, TaskStatus, TaskStatusUpdateEvent

NOWHERE = "nats://127.0.0.1:1"


@pytest.fixture
async def publisher() -> AsyncIterator[Publisher]:
    async with Publisher(NOWHERE, agent="agent", close_s_max=0) as running:
        yield running


@pytest.fixture
async def task(publisher: Publisher) -> AsyncIterator[Task]:
    async with publisher.task("task-1") as running:
        yield running


def test_importing_the_library_pulls_in_neither_nats_nor_aiohttp() -> None:
    heavy = ("nats", "aiohttp", "a2a", "google", "opentelemetry")
    code = f"import sidecast_adapters, sys; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        {"agent": ""},
        {"agent": "a" * 257},
        {"agent": "a", "tenant": "t" * 257},
        {"agent": "a", "url": "http://127.0.0.1"},
        {"agent": "a", "url": []},
        {"agent": "a", "url": "nats://"},
        {"agent": "a", "url": ["nats://127.0.0.1:4222", "nats://127.0.0.1:99999"]},
        {"agent": "a", "stream": "A.B"},
        {"agent": "a", "buffer_events_max": 0},
    ],
)
def test_a_publisher_refuses_what_cant_be_used(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Publisher(**arguments)


@pytest.mark.parametrize("url", ["nats://me:s3cret@host:99999", ["nats://host", "http://me:s3cr@et@host"]])
def test_an_address_that_is_refused_shows_no_password(url: str | list[str]) -> None:
    with pytest.raises(ValueError, match=r"//\*\*\*@host") as refused:
        Publisher(url, agent="a")
    assert "me:s3cr" not in str(refused.value)
    assert "et@" not in str(refused.value)


def test_credentials_need_nkeys(tmp_path: Any) -> None:
    async def start() -> None:
        async with Publisher(NOWHERE, agent="a", credentials_file=tmp_path / "x.creds"):
            pass

    try:
        import nkeys  # noqa: F401
    except ImportError:
        with pytest.raises(RuntimeError, match="nkeys"):
            asyncio.run(start())


@pytest.mark.parametrize(
    "arguments",
    [
        {"task_id": ""},
        {"task_id": "x" * 257},
        {"task_id": "\ud800"},
        {"task_id": "t", "owner": ""},
        {"task_id": "t", "error_text": "some"},
        {"task_id": "t", "traceparent": "00-x\r\nX: y"},
        {"task_id": "t", "tenant": "x" * 257},
    ],
)
def test_a_task_refuses_what_cant_be_published(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Publisher(NOWHERE, agent="agent").task(**arguments)


@pytest.mark.parametrize("state", ["", "worked", "TASK_STATE_DONE"])
async def test_an_unknown_state_is_refused(task: Task, state: str) -> None:
    with pytest.raises(ValueError, match="is not one of"):
        await task.status(state)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), float("inf")])
async def test_progress_outside_of_0_to_1_is_refused(task: Task, fraction: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        await task.progress(fraction)


async def test_steps_and_artifacts_and_texts_that_make_no_sense_are_refused(task: Task) -> None:
    for arguments in ({"step_id": ""}, {"step_id": "s", "state": "half"}, {"step_id": "s", "index": -1}):
        with pytest.raises(ValueError, match="step"):
            task.step(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="name"):
        task.artifact("")
    with pytest.raises(ValueError, match="str"):
        await task.thought(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "event",
    [
        {},
        b"{",
        b'{"statusUpdate":{}}',
        {"task": {}, "message": {}},
        {"statusUpdate": {"taskId": "another", "status": {"state": "TASK_STATE_WORKING"}}},
        {"statusUpdate": {"status": {"state": "done"}}},
        {"statusUpdate": {"status": {"state": "TASK_STATE_WORKING"}, "metadata": {"x": object()}}},
    ],
)
async def test_what_is_no_event_of_the_task_is_refused(publisher: Publisher, task: Task, event: Any) -> None:
    waiting = publisher.waiting_events
    with pytest.raises(ValueError, match=r"."):
        await task.publish(event)
    assert publisher.waiting_events == waiting


async def test_events_are_taken_as_mappings_structs_bytes_and_text(publisher: Publisher, task: Task) -> None:
    status = {"state": "TASK_STATE_WORKING"}
    before = publisher.waiting_events
    await task.publish({"statusUpdate": {"status": status}})
    await task.publish(TaskStatusUpdateEvent(taskId="task-1", status=TaskStatus(state="TASK_STATE_WORKING")))
    await task.publish(Message(messageId="m", role="ROLE_AGENT", parts=[Part(text="x")]))
    await task.publish(b'{"statusUpdate":{"taskId":"task-1","status":{"state":"TASK_STATE_WORKING"}}}')
    await task.publish('{"turn":{"id":"m","phase":"begin"}}')
    assert publisher.waiting_events == before + 5


async def test_without_nats_nothing_blocks_or_raises_and_the_bound_holds() -> None:
    publisher = Publisher(NOWHERE, agent="agent", buffer_events_max=100, close_s_max=0)
    async with publisher:
        async with asyncio.timeout(5), publisher.task("task-1") as task, task.artifact("a") as artifact:
            for _ in range(1_000):
                await artifact.write("x")
        assert publisher.waiting_events == 100
        assert publisher.counts.dropped_events == 1 + 1_000 + 1 + 1 - 100
        assert not await publisher.flush(0.01)


async def test_a_closed_publisher_takes_no_more_and_counts_it(publisher: Publisher) -> None:
    async with publisher.task("task-1") as task:
        await publisher.close()
        await task.status("working")
        assert publisher.counts.dropped_events == 2


async def test_closing_a_task_again_does_not_let_go_for_another(publisher: Publisher) -> None:
    one, two = publisher.task("task-1"), publisher.task("task-1")
    log = one.open()
    assert two.open() is log
    one.close()
    one.close()
    assert publisher.task("task-1").open() is log
    assert log.users == 2


async def test_a_block_that_is_entered_again_holds_the_log_again(publisher: Publisher) -> None:
    task = publisher.task("task-1")
    for _ in range(2):
        async with task:
            assert task.open().users == 1
        assert task.open().users == 1
        task.close()


def test_a_task_is_used_inside_its_block() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        Publisher(NOWHERE, agent="agent").task("task-1").put({"turn": {"id": "m", "phase": "end"}})


def test_lone_surrogates_become_replacement_characters_and_pairs_become_one() -> None:
    assert mend("a\ud83d\ude00b\ud800c") == "a😀b\ufffdc"
    assert msgspec.json.decode(encode({"x": ["\udc00"], "\ud800": 1})) == {"x": ["\ufffd"], "\ufffd": 1}
    assert encode({"b": 1, "a": [1.5, None]}) == b'{"a":[1.5,null],"b":1}'
