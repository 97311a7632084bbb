"""Fault runs: events on many tasks, many watchers, and processes killed, cut off and frozen meanwhile.

Must not know what is right: `check` judges what the watchers were given, and what the stream holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import nats
import nats.errors
from e2e import load, watchers
from e2e.broker import Broker
from e2e.check import Item, Start, Watched, check, labels_in
from e2e.proxy import Proxy
from msgspec import Struct
from nats_server import NatsCluster, NatsServer, create_stream, request_api

AGENT = "load"
STREAM = "SIDECAST"
TESTS = Path(__file__).resolve().parent.parent
PATIENCE_S = 20.0
"""How long a run that failed to end in time is still watched, to tell late from never."""

Fault = Callable[["Run"], Awaitable[str]]


class Plan(Struct, frozen=True):
    """The size of a run, and what goes wrong in it.

    Attributes:
        tasks: how many.
        events: of each task.
        watchers: spread evenly over the tasks.
        rate: events per second over all tasks.
        faults: each with the number of published events at which it comes; one after the other.
        duplicate_window_s: of the stream; what is published again after it is stored twice by NATS.
        verify_s: setting of the broker.
        cut_s: mean life of a watcher's connection in seconds.
        cut_bytes: mean life of a watcher's connection in bytes.
        padding: characters of each event beside its label.
        processes: of watchers.
        seed: of all that is random.
    """

    tasks: int
    events: int
    watchers: int
    rate: float
    faults: tuple[tuple[int, Fault], ...]
    duplicate_window_s: float = 2.0
    verify_s: float = 5.0
    cut_s: float = 8.0
    cut_bytes: int = 60_000
    padding: int = 160
    processes: int = 2
    seed: int = 1

    @property
    def seconds_max(self) -> float:
        """How long a run may take at most before something hangs."""
        return 120 + 3 * self.tasks * self.events / self.rate


class Outcome(Struct):
    """What came of a run.

    Attributes:
        problems: what the watchers were not given, or wrongly; empty in a good run.
        log_problems: the same about what the stream holds, which is the publisher's part.
        dropped: events the publisher gave up.
        ended_after_s: from the storing of the last event of all until the last watcher's end.
        story: what happened, one line each.
        numbers: what the run was, for reports.
    """

    problems: list[str]
    log_problems: list[str]
    dropped: int
    ended_after_s: float
    story: list[str]
    numbers: dict[str, Any]

    def describe(self) -> str:
        """Give the run in words."""
        problems = [*self.problems[:20], *self.log_problems[:20]]
        return "\n".join([json.dumps(self.numbers), *self.story, *problems])


class Run:
    """A run under way, as faults see it.

    Attributes:
        nats: the server or the cluster.
        broker: the broker.
        proxies: what the publisher connects through, one for each server.
        plan: of the run.
        story: what has happened.
    """

    def __init__(self, folder: Path, plan: Plan, nats_system: NatsServer | NatsCluster) -> None:
        self.nats = nats_system
        self.plan = plan
        self.story: list[str] = []
        self.said = load.Said(0, 0)
        self._folder = folder
        self._began_s = time.monotonic()
        self._progress = asyncio.Event()
        self.urls = nats_system.urls if isinstance(nats_system, NatsCluster) else [nats_system.url]
        self.broker = Broker(
            folder,
            self.urls,
            {
                "agent.name": AGENT,
                "nats.verify_s": plan.verify_s,
                "stream.retry_ms": 50,
                "stream.heartbeat_s": 2,
            },
        )
        self.proxies = [Proxy(url) for url in self.urls]

    @property
    def cluster(self) -> NatsCluster:
        """The cluster of a run that has one."""
        assert isinstance(self.nats, NatsCluster)
        return self.nats

    def tell(self, what: str) -> None:
        """Write down what happened."""
        now_s = time.monotonic() - self._began_s
        self.story.append(
            f"{now_s:6.1f} s, {self.said.published} published, {self.said.stored} stored: {what}"
        )

    async def published(self, count: int) -> None:
        """Wait until so many events have been published, or all are."""
        while self.said.published < count and not self.said.over:
            await self._progress.wait()

    async def broker_node(self) -> int | None:
        """Give the index of the cluster's node that the broker is connected to."""
        for index, node in enumerate(self.cluster.nodes):
            answer = await asyncio.to_thread(_monitor, node, "/connz")
            if "sidecast-broker" in {client.get("name") for client in answer.get("connections", [])}:
                return index
        return None

    async def leader(self) -> int:
        """Give the index of the stream's leader, waiting for one to be elected."""
        while True:
            for index, node in enumerate(self.cluster.nodes):
                answer = await asyncio.to_thread(_monitor, node, "/jsz?accounts=1&streams=1")
                for account in answer.get("account_details", []):
                    for stream in account.get("stream_detail", []):
                        if stream["cluster"].get("leader") == self.cluster.NAMES[index]:
                            return index
            await asyncio.sleep(0.1)

    # ------------------------------------------------------------------ processes

    async def go(self) -> list[Watched]:
        """Publish, watch and break things; give what the watchers were given."""
        plan = self.plan
        await asyncio.to_thread(self.broker.start)
        async with AsyncExitStack() as stack:
            for proxy in self.proxies:
                await stack.enter_async_context(proxy)
            watching = [
                await stack.enter_async_context(process_of("e2e.watchers", plan_file))
                for plan_file in self._watcher_plans()
            ]
            await asyncio.gather(*(said(process, "opened") for process in watching))
            self.tell(f"{plan.watchers} watchers open")
            publishing = await stack.enter_async_context(process_of("e2e.load", self._load_plan()))
            listening = asyncio.create_task(self._listen(publishing))
            for count, fault in plan.faults:
                await self.published(count)
                self.tell(f"begin {getattr(fault, '__name__', fault)}")
                self.tell(await fault(self))
            await listening
            self.tell("all published and acknowledged")
            await self._end(watching)
        return [
            record
            for index in range(plan.processes)
            for record in msgspec.json.decode(self._result(index).read_bytes(), type=list[Watched])
        ]

    async def _listen(self, publishing: asyncio.subprocess.Process) -> None:
        assert publishing.stdout is not None
        while not self.said.over:
            line = await publishing.stdout.readline()
            if not line:
                raise RuntimeError("the publisher's process ended")
            self.said = msgspec.json.decode(line, type=load.Said)
            progress, self._progress = self._progress, asyncio.Event()
            progress.set()

    async def _end(self, watching: list[asyncio.subprocess.Process]) -> None:
        ended = [asyncio.create_task(said(process, "ended")) for process in watching]
        _done, pending = await asyncio.wait(ended, timeout=2 * self.plan.verify_s + PATIENCE_S)
        if pending:
            for process in watching:
                process.terminate()
            await asyncio.wait(ended)
        self.tell("watchers ended" if not pending else "watchers given up")
        for task in ended:
            task.result()

    @property
    def tasks(self) -> list[str]:
        """The tasks' names."""
        return [f"task-{index}" for index in range(self.plan.tasks)]

    def _watcher_plans(self) -> list[Path]:
        plan = self.plan
        starts: tuple[Start, ...] = ("start", "snapshot", "start", "now", "start")
        wanted = [
            watchers.Wanted(
                f"watcher-{index}",
                self.tasks[index % plan.tasks],
                starts[index // plan.tasks % len(starts)],
                "1.0" if index % 7 == 3 else "1.1",
            )
            for index in range(plan.watchers)
        ]
        return [
            self._write(
                f"watchers-{index}",
                watchers.Plan(
                    self.broker.host,
                    self.broker.port,
                    wanted[index :: plan.processes],
                    plan.cut_s,
                    plan.cut_bytes,
                    plan.seed,
                    str(self._result(index)),
                ),
            )
            for index in range(plan.processes)
        ]

    def _load_plan(self) -> Path:
        plan = self.plan
        return self._write(
            "load",
            load.Plan(
                [proxy.url for proxy in self.proxies],
                AGENT,
                self.tasks,
                plan.events,
                plan.rate,
                plan.padding,
                plan.seed,
            ),
        )

    def _result(self, index: int) -> Path:
        return self._folder / f"watched-{index}.json"

    def _write(self, name: str, plan: Struct) -> Path:
        path = self._folder / f"{name}.json"
        path.write_bytes(msgspec.json.encode(plan))
        return path


async def run_faults(folder: Path, plan: Plan, nats_system: NatsServer | NatsCluster) -> Outcome:
    """Do a run, and judge it.

    Args:
        folder: for what the processes write.
        plan: the run.
        nats_system: started, without a stream.
    """
    run = Run(folder, plan, nats_system)
    replicas = 3 if isinstance(nats_system, NatsCluster) else 1
    window_ns = int(plan.duplicate_window_s * 1e9)
    await create_stream(run.urls, STREAM, num_replicas=replicas, duplicate_window=window_ns)
    try:
        async with asyncio.timeout(plan.seconds_max):
            records = await run.go()
        counts = {
            "repairs": run.broker.counted("sidecast_tail_repairs_total"),
            "resumes": run.broker.counted("sidecast_resumes_total"),
            "turned_away": run.broker.counted("sidecast_rejected_total"),
            "log_lines": sum(line["level"] in ("warning", "error") for line in run.broker.log_lines()),
        }
        stored, last_at = await read_stream(run.urls, STREAM)
    except TimeoutError as error:
        run.tell("the run was given up")
        raise AssertionError("\n".join(run.story)) from error
    finally:
        run.broker.stop()
    published = dict.fromkeys(run.tasks, plan.events)
    missing = [
        f"the stream holds nothing of {task}" for task in published.keys() - {each.task for each in stored}
    ]
    given = sum(item.kind == "event" for record in records for item in record.items)
    ended_after_s = round(max(record.ended_at for record in records) - max(last_at.values()), 2)
    latest_s = max(record.ended_at - last_at.get(record.task, 0.0) for record in records)
    return Outcome(
        problems=check(published, records),
        log_problems=missing + check(published, stored),
        dropped=run.said.dropped,
        ended_after_s=ended_after_s,
        story=run.story,
        numbers={
            "events": plan.tasks * plan.events,
            "tasks": plan.tasks,
            "watchers": len(records),
            "given": given,
            "reconnects": sum(record.connections - 1 for record in records),
            "broker_kills": run.broker.kills,
            "ended_after_s": ended_after_s,
            "latest_of_a_task_s": round(latest_s, 2),
            **counts,
        },
    )


async def read_stream(urls: list[str], stream: str) -> tuple[list[Watched], dict[str, float]]:
    """Read what the stream holds with a plain NATS client.

    Returns:
        Each task's events as if a watcher had been given them, and when its last one was stored.
    """
    connection = await nats.connect(urls)
    try:
        jetstream = connection.jetstream()
        subscription = None
        while subscription is None:
            # A cluster that has just lost a node answers nothing until it has elected who decides.
            with contextlib.suppress(nats.errors.TimeoutError):
                last = (await jetstream.stream_info(stream)).state.last_seq
                subscription = await jetstream.subscribe(
                    "sidecast.v1.events.>", stream=stream, ordered_consumer=True
                )
        items: dict[str, list[Item]] = {}
        last_at: dict[str, float] = {}
        sequence = 0
        while sequence < last:
            message = await subscription.next_msg(timeout=10)
            metadata = message.metadata
            sequence = metadata.sequence.stream
            task = message.subject.rpartition(".")[2]
            last_at[task] = metadata.timestamp.timestamp()
            labels = labels_in(message.data.decode())
            if labels or not message.data.startswith(b'{"task":'):
                items.setdefault(task, []).append(Item("event", f"log-{sequence}", labels))
    finally:
        await connection.close()
    end = Item("end")
    return [Watched("the stream", task, "start", [*found, end]) for task, found in items.items()], last_at


@asynccontextmanager
async def process_of(module: str, plan_file: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a module as a process that is given a file, and that says what it does on standard output."""
    with plan_file.with_suffix(".log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, str(plan_file)),
            env=os.environ | {"PYTHONPATH": str(TESTS)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        assert process.stdout is not None
        await process.stdout.read()  # to its end, or the transport is closed with a warning
        await process.wait()


async def said(process: asyncio.subprocess.Process, wanted: str) -> None:
    """Wait until a process says a word.

    Raises:
        RuntimeError: it ended without.
    """
    assert process.stdout is not None
    while (line := await process.stdout.readline()).strip() != wanted.encode():
        if not line:
            raise RuntimeError(f"a process ended without saying {wanted!r}")


def _monitor(node: NatsServer, path: str) -> dict[str, Any]:
    """Ask a node's monitoring port; a dead or frozen one says nothing."""
    if node.process is None:
        return {}
    try:
        with urllib.request.urlopen(f"{node.monitor_url}{path}", timeout=1) as answer:
            decoded: dict[str, Any] = json.load(answer)
            return decoded
    except OSError:
        return {}


# ---------------------------------------------------------------------- what goes wrong


async def kill_broker(run: Run) -> str:
    """Kill the broker with -9 and start it again."""
    await asyncio.to_thread(run.broker.kill9)
    await asyncio.to_thread(run.broker.start)
    return "broker killed and started again"


async def kill_server(run: Run) -> str:
    """Kill the one nats-server with -9 and start it again, after events have piled up."""
    assert isinstance(run.nats, NatsServer)
    await asyncio.to_thread(run.nats.kill9)
    await run.published(run.said.published + round(run.plan.rate))
    await asyncio.to_thread(run.nats.start)
    return "nats-server killed and started again"


async def cut_publisher(run: Run) -> str:
    """Lose the acknowledgements of some publishes, then break the publisher's connection.

    It stays broken for longer than the duplicate window, so that JetStream has forgotten their message ids.
    """
    for proxy in run.proxies:
        proxy.lose_answers()
    await run.published(run.said.published + 20)
    for proxy in run.proxies:
        await proxy.cut()
    await asyncio.sleep(run.plan.duplicate_window_s * 1.5)
    for proxy in run.proxies:
        await proxy.open()
    return f"publisher was cut off for {run.plan.duplicate_window_s * 1.5:g} s"


async def kill_leader(run: Run) -> str:
    """Kill the node that leads the stream with -9; start it again when another leads."""
    leader, at_broker = await run.leader(), await run.broker_node()
    began_s = time.monotonic()
    await asyncio.to_thread(run.cluster.kill9, leader)
    after = await run.leader()
    took_s = time.monotonic() - began_s
    await asyncio.to_thread(run.cluster.restart, leader)
    where = "the broker's own" if leader == at_broker else "not the broker's"
    return f"leader n{leader} ({where}) killed, n{after} led after {took_s:.1f} s"


async def freeze_follower(run: Run) -> str:
    """Stop the follower that the broker is connected to, and let it run again."""
    frozen = await elsewhere_led(run)
    run.cluster.freeze(frozen)
    try:
        await asyncio.sleep(2 * run.plan.verify_s)
    finally:
        run.cluster.thaw(frozen)
    return f"the broker's own follower n{frozen} frozen for {2 * run.plan.verify_s:g} s"


async def freeze_follower_for_good(run: Run) -> str:
    """Stop the follower that the broker is connected to until the run is over."""
    frozen = await elsewhere_led(run)
    run.cluster.freeze(frozen)
    return f"the broker's own follower n{frozen} frozen"


async def elsewhere_led(run: Run) -> int:
    """Give the node the broker is connected to, having the stream led by another."""
    while (leader := await run.leader()) == await run.broker_node():
        # Any node may be elected, so it may take several.
        await request_api(run.urls, f"STREAM.LEADER.STEPDOWN.{STREAM}", {})
        await asyncio.sleep(0.5)
    at_broker = await run.broker_node()
    return at_broker if at_broker is not None else (leader + 1) % 3
