"""Terminal statuses under way when the stream's leader is killed: each watcher is told of the end in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats
import pytest
from accept.stage import records_of
from e2e.check import check, label
from e2e.faults import AGENT, STREAM, Plan, Run, elsewhere_led, process_of, read_stream, said
from e2e.watchers import Plan as WatchersPlan
from e2e.watchers import Wanted
from msgspec import json
from nats.js.client import JetStreamContext
from nats_server import NatsCluster, create_stream

from sidecast_schemas.subjects import TaskKey, events_subject

pytestmark = pytest.mark.accept

TASKS = 400
FLOOD = 20
"""Events nobody watches before each end, so that the leader always has something to do when it is killed."""
VERIFY_S = 5.0


async def end_tasks(run: Run) -> str:
    """Say of all tasks that they are over, all at once, and kill the leader in the midst of that."""
    connection = await nats.connect(run.urls, max_reconnect_attempts=-1, error_cb=ignored)
    try:
        jetstream = connection.jetstream(publish_async_max_pending=2 * TASKS)
        for name in run.tasks:
            await jetstream.publish(subject(name), status(name, 1, "WORKING"))
        leader = await run.leader()
        waiting = {}
        for name in run.tasks:
            for number in range(FLOOD):
                await connection.publish(subject("unwatched"), status("unwatched", number, "WORKING"))
            waiting[name] = await end(jetstream, name)
        while sum(future.done() for future in waiting.values()) < TASKS // 4:
            await asyncio.sleep(0)
        run.cluster.nodes[leader].kill9()
        acknowledged = sum(future.done() for future in waiting.values())
        retries = 0
        while waiting:
            await asyncio.wait(waiting.values(), timeout=1)
            await asyncio.sleep(0.1)
            # What is stored already under the same message id is not stored again.
            refused = [name for name, future in waiting.items() if not future.done() or future.exception()]
            waiting = {name: await end(jetstream, name) for name in refused}
            retries += len(waiting)
    finally:
        await connection.close()
    return f"leader n{leader} killed with {acknowledged} of {TASKS} ends acknowledged, {retries} retries"


async def end(jetstream: JetStreamContext, name: str) -> asyncio.Future[Any]:
    """Publish the end of a task, without waiting for the acknowledgement."""
    headers = {"Nats-Msg-Id": f"end of {name}"}
    return await jetstream.publish_async(subject(name), status(name, 2, "COMPLETED"), headers=headers)


def subject(task: str) -> str:
    """Give a task's events subject."""
    return events_subject(TaskKey("", AGENT, task))


def status(task: str, number: int, state: str) -> bytes:
    """Write an event as a publisher without the adapter does."""
    parts = [{"text": label(task, number)}]
    message = {"messageId": f"m{number}", "role": "ROLE_AGENT", "parts": parts}
    body = {"state": f"TASK_STATE_{state}", "message": message}
    return json.encode({"statusUpdate": {"taskId": task, "contextId": "c", "status": body}})


async def ignored(_error: Exception) -> None:
    """Take an error of the connection, which is expected."""


async def test_the_leader_is_killed_while_tasks_end(tmp_path: Path, report: Callable[[str], None]) -> None:
    with NatsCluster(tmp_path / "nats") as cluster:
        run = Run(tmp_path, Plan(TASKS, 2, TASKS, 1.0, (), verify_s=VERIFY_S), cluster)
        await create_stream(run.urls, STREAM, num_replicas=3)
        await asyncio.to_thread(run.broker.start)
        try:
            await elsewhere_led(run)
            result = tmp_path / "watched.json"
            wanted = [Wanted(f"watcher of {name}", name, "start") for name in run.tasks]
            plan = WatchersPlan(run.broker.host, run.broker.port, wanted, 0, 0, 1, str(result))
            path = tmp_path / "watchers.json"
            path.write_bytes(json.encode(plan))
            async with process_of("e2e.watchers", path) as watching:
                await said(watching, "opened")
                story = await end_tasks(run)
                records = await records_of(watching, result)
            repairs = await asyncio.to_thread(run.broker.counted, "sidecast_tail_repairs_total")
        finally:
            await asyncio.to_thread(run.broker.stop)
        await run.leader()
        stored, last_at = await read_stream([node.url for node in cluster.nodes if node.process], STREAM)
    late = sorted(record.ended_at - last_at[record.task] for record in records)
    report(f"{story}; {repairs:g} repairs; ended {late[TASKS // 2]:.2f} s (p50), {late[-1]:.2f} s (at most)")
    published = dict.fromkeys(run.tasks, 2)
    assert check(published, [each for each in stored if each.task in published]) == []
    assert check(published, records) == []
    assert late[-1] < 2 * VERIFY_S
