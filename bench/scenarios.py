"""What is measured: each scenario takes one way of serving streams once, and gives numbers by name.

Must not know how often it runs, nor what the numbers must be.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.build import Programs
from bench.load import Connected, Load, Percentiles, Report, load
from bench.publisher import AGENT, Plan, Published
from bench.servers import RPC_PATH, Broker, BrokerServer, Server, Way, rpc_body
from bench.usage import cpu_s, kernel_bytes, resident_bytes
from sidecast_schemas.subjects import TaskKey, events_subject

SETTLE_S = 0.5
DRAIN_TIMES = 1.5
"""How long what is published may take to arrive, in times of the time it was published in."""
WARM_UP_CONNECTIONS = 50
IN_FLIGHT = 16
STORM_S_MAX = 30.0
STORM_TASKS = 100
STORM_REST_S = 1.5
"""Before and after a storm: every task has an event in that time."""
WATCHED_RATE = 50.0
HISTORY_EVENTS = 50

Values = dict[str, float]


class Scale(msgspec.Struct, frozen=True):
    """How large and how long a run is.

    Attributes:
        seconds: of publishing, in each scenario that publishes.
        view_seconds: the same where two views of the broker are compared.
        overload_seconds: the same to a server that can't carry `rate`: its queue grows, and has to be waited
            for.
        watchers: of one task.
        rate: events a second, to those watchers.
        idle: idle streams, and reconnecting ones.
        tasks: with one watcher each.
        tasks_rate: events a second, to all those tasks together.
        history: events of a task read cold.
        joins: streams opened one after the other.
    """

    seconds: float = 8.0
    view_seconds: float = 5.0
    overload_seconds: float = 2.0
    watchers: int = 1000
    rate: float = 50.0
    idle: int = 10_000
    tasks: int = 1000
    tasks_rate: float = 8000.0
    history: int = 20_000
    joins: int = 200


QUICK = Scale(seconds=1.0, view_seconds=1.0, overload_seconds=1.0, idle=1000, history=10_000, joins=30)


class Context(NamedTuple):
    """What a scenario runs with."""

    programs: Programs
    folder: Path
    scale: Scale


class Cpu:
    """The CPU a server and its NATS use from here on."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._server_s, self._nats_s = self._now()

    def _now(self) -> tuple[float, float]:
        nats_pid = self._server.nats_pid
        return cpu_s(self._server.pid), cpu_s(nats_pid) if nats_pid else 0.0

    def per(self, count: int, name: str) -> Values:
        """Give the microseconds of each for each of so many, as `cpu_us_per_NAME` and `nats_us_per_NAME`."""
        server_s, nats_s = self._now()
        values = {f"cpu_us_per_{name}": (server_s - self._server_s) / max(count, 1) * 1e6}
        if self._server.nats_pid:
            values[f"nats_us_per_{name}"] = (nats_s - self._nats_s) / max(count, 1) * 1e6
        return values


def _latency(latency: Percentiles | None) -> Values:
    if latency is None:
        return {}
    return {
        "p50_ms": latency.p50,
        "p99_ms": latency.p99,
        "p999_ms": latency.p999,
        "max_ms": latency.max,
    }


def _delivered(report: Report, published: Published, watchers_per_task: int) -> Values:
    expected = published.events * watchers_per_task
    return {
        "published": published.events,
        "published_per_s": published.events / published.seconds,
        "delivered": report.events,
        "deliveries_per_s": report.events / max(report.span_s, published.seconds),
        "missing": expected - report.events,
        "holes": report.holes,
        "repeats": report.repeats,
        "ended": report.ended,
    }


async def _opened(connected: Connected) -> None:
    if connected.ready < connected.connections:
        raise RuntimeError(f"only {connected.ready} of {connected.connections} streams opened")


async def _publish(server: Server, clients: Load, plan: Plan, watchers_per_task: int) -> Values:
    """Publish by a plan to open streams, and give what they got of it and what that cost."""
    await _opened(clients.connected)
    async with server.publishing(plan) as publish:
        await asyncio.sleep(SETTLE_S)
        await clients.mark()
        cpu = Cpu(server)
        published = await publish()
        report = await clients.wait(published.events * watchers_per_task, plan.seconds * DRAIN_TIMES)
        return (
            _delivered(report, published, watchers_per_task)
            | cpu.per(report.events, "delivery")
            | _latency(report.latency_ms)
        )


# ------------------------------------------------------------------ one task, many watchers


async def _one_task(way: Way, context: Context, plan: Plan, *, path: str = "", body: str = "") -> Values:
    watchers = context.scale.watchers
    async with way.serve(context.programs, context.folder) as server:
        await server.begin(1)
        async with load(
            context.programs.load,
            server.port,
            path or server.path,
            context.folder,
            connections=watchers,
            body=body,
        ) as clients:
            return await _publish(server, clients, plan, watchers)


async def fanout(way: Way, context: Context) -> Values:
    """One task, many watchers, a steady rate."""
    scale = context.scale
    seconds = scale.overload_seconds if way.name == "plain" else scale.seconds
    return await _one_task(way, context, Plan("", rate=scale.rate, seconds=seconds))


async def saturated(way: Way, context: Context) -> Values:
    """One task, many watchers, sixteen events in flight: as soon as one was seen, the next is published."""
    return await _one_task(way, context, Plan("", window=IN_FLIGHT, seconds=context.scale.seconds))


async def rpc(way: Way, context: Context) -> Values:
    """One task, many watchers, a steady rate: by the `events` view, then by JSON-RPC with an id each."""
    plan = Plan("", rate=context.scale.rate, seconds=context.scale.view_seconds)
    events = await _one_task(way, context, plan)
    rpc = await _one_task(way, context, plan, path=RPC_PATH, body=rpc_body(0))
    return {
        f"{name}_{key}": value
        for name, values in (("events", events), ("rpc", rpc))
        for key, value in values.items()
    }


# ------------------------------------------------------------------ many idle streams


async def idle(way: Way, context: Context) -> Values:
    """Many streams of one task on which nothing happens."""
    count = context.scale.idle
    program, folder = context.programs.load, context.folder
    async with way.serve(context.programs, folder) as server:
        await server.begin(1, 1)
        async with load(program, server.port, server.path, folder, connections=WARM_UP_CONNECTIONS):
            pass
        await asyncio.sleep(SETTLE_S)
        resident, kernel, cpu = resident_bytes(server.pid), kernel_bytes(), Cpu(server)
        async with load(program, server.port, server.path, folder, connections=count) as clients:
            await _opened(clients.connected)
            await asyncio.sleep(SETTLE_S)
            values = cpu.per(count, "accept")
            await asyncio.sleep(SETTLE_S)
            assert clients.connected.head_ms is not None
            return values | {
                "rss_bytes_per_stream": (resident_bytes(server.pid) - resident) / count,
                "kernel_bytes_per_connection": (kernel_bytes() - kernel) / count,
                "rss_bytes_before": resident,
                "accepted_per_s": count / clients.connected.seconds,
                "connect_p99_ms": clients.connected.head_ms.p99,
            }


# ------------------------------------------------------------------ many tasks


async def tasks(way: Way, context: Context) -> Values:
    """Many tasks with one watcher each, events for all of them in turn."""
    scale = context.scale
    async with way.serve(context.programs, context.folder) as server:
        await server.begin(scale.tasks)
        async with load(
            context.programs.load,
            server.port,
            server.path,
            context.folder,
            connections=scale.tasks,
            modulo=scale.tasks,
        ) as clients:
            plan = Plan("", tasks=scale.tasks, rate=scale.tasks_rate, seconds=scale.seconds)
            return await _publish(server, clients, plan, 1)


# ------------------------------------------------------------------ the past


async def join(way: Way, context: Context) -> Values:
    """Open streams one after the other, each of a task with some history, until the last event of it came."""
    assert isinstance(way, Broker)
    count = context.scale.joins
    async with way.serve(context.programs, context.folder) as server:
        await server.begin(count, HISTORY_EVENTS)
        values: Values = {"events": HISTORY_EVENTS}
        # In the second pass every task is in memory.
        for name in ("cold", "warm"):
            async with load(
                context.programs.load,
                server.port,
                f"{server.path}?from=start",
                context.folder,
                connections=count,
                modulo=count,
                ready=str(HISTORY_EVENTS),
                in_turn=True,
            ) as clients:
                await _opened(clients.connected)
                assert clients.connected.ready_ms is not None
                values[f"{name}_p50_ms"] = clients.connected.ready_ms.p50
                values[f"{name}_p99_ms"] = clients.connected.ready_ms.p99
        return values


async def history(way: Way, context: Context) -> Values:
    """Read a long task from its first event, at a broker that doesn't know it yet."""
    assert isinstance(way, Broker)
    events = context.scale.history
    async with way.serve(context.programs, context.folder) as server:
        await server.begin(1, events)
        cpu = Cpu(server)
        async with load(
            context.programs.load,
            server.port,
            f"{server.path}?from=start",
            context.folder,
            connections=1,
            ready=str(events),
        ) as clients:
            await _opened(clients.connected)
            ready_ms, report = clients.connected.ready_ms, await clients.report()
            assert ready_ms is not None
            return cpu.per(events, "event") | {
                "events": events,
                "events_per_s": events / ready_ms.max * 1e3,
                "missing": events - report.events,
                "holes": report.holes,
                "repeats": report.repeats,
            }


# ------------------------------------------------------------------ reconnects


async def reconnect(way: Way, context: Context) -> Values:
    """Close many streams at once and open them again with their cursors, while their tasks go on.

    First at another broker of the same stream, which knows none of the tasks; then at that same one.
    Meanwhile somebody there watches a task of their own.
    """
    assert isinstance(way, Broker)
    folder, program, count = context.folder, context.programs.load, context.scale.idle
    async with way.serve_many(context.programs, folder, 2) as (before, after):
        await before.begin(STORM_TASKS + 1, HISTORY_EVENTS)
        async with (
            load(
                program,
                before.port,
                before.path,
                folder,
                connections=count,
                modulo=STORM_TASKS,
                ready="frame",
                name="reconnecting",
            ) as clients,
            load(
                program,
                after.port,
                after.path.replace("%d", str(STORM_TASKS)),
                folder,
                connections=1,
                ready="frame",
                name="watcher",
            ) as watcher,
        ):
            await _opened(clients.connected)
            values: Values = {"streams": count, "tasks": STORM_TASKS}
            async with _published_meanwhile(after):
                for name in ("other", "same"):
                    values |= await _storm(name, after, clients, watcher)
            return values


@asynccontextmanager
async def _published_meanwhile(server: Server) -> AsyncIterator[None]:
    """Publish while the block runs: to each task of the storm once a second, to the watched one more."""
    seconds = 2 * STORM_S_MAX + 60
    # What comes while a client is away it must be sent later.
    going_on = Plan("", tasks=STORM_TASKS, rate=STORM_TASKS, seconds=seconds)
    watched = Plan("", first=STORM_TASKS, rate=WATCHED_RATE, seconds=seconds)
    async with server.publishing(going_on) as go_on, server.publishing(watched) as publish_watched:
        running = [asyncio.create_task(go()) for go in (go_on, publish_watched)]
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


async def _storm(name: str, broker: BrokerServer, clients: Load, watcher: Load) -> Values:
    await asyncio.sleep(STORM_REST_S)
    await clients.mark()
    await watcher.mark()
    async with broker.reads() as reads:
        cpu = Cpu(broker)
        stormed = await clients.storm(broker.port, STORM_S_MAX)
        values = cpu.per(stormed.connections, "reconnect")
        seen = await watcher.report()
        await asyncio.sleep(STORM_REST_S)
        after = await clients.report()
    assert stormed.ready_ms is not None
    assert seen.latency_ms is not None
    tasks = [events_subject(TaskKey("", AGENT, f"bench-{task}")) for task in range(STORM_TASKS)]
    per_task = [reads.get(f"read {subject}", 0) for subject in tasks]
    found = values | {
        "not_streaming": stormed.connections - stormed.ready,
        "seconds": stormed.seconds,
        "ready_p50_ms": stormed.ready_ms.p50,
        "ready_p99_ms": stormed.ready_ms.p99,
        "retries": stormed.retries,
        "refused": stormed.refused,
        "watcher_p50_ms": seen.latency_ms.p50,
        "watcher_p99_ms": seen.latency_ms.p99,
        "watcher_max_ms": seen.latency_ms.max,
        "holes": after.holes + seen.holes,
        "repeats": after.repeats + seen.repeats,
        "history_reads_per_task_max": max(per_task),
        "history_reads_per_task": sum(per_task) / len(per_task),
        "leader_questions": reads.get("first", 0),
    }
    return {f"{name}_{key}": value for key, value in found.items()}


class Scenario(NamedTuple):
    """A scenario and who takes part in it."""

    run: Callable[[Way, Context], Awaitable[Values]]
    ways: tuple[str, ...]


ALL = ("floor", "plain", "nchan", "sidecast")

SCENARIOS: dict[str, Scenario] = {
    "fanout": Scenario(fanout, ALL),
    "saturated": Scenario(saturated, ALL),
    "rpc": Scenario(rpc, ("sidecast",)),
    "idle": Scenario(idle, ALL),
    # The plain server can't take 8,000 posts a second, so it could not be told from its publisher.
    "tasks": Scenario(tasks, ("floor", "nchan", "sidecast")),
    "join": Scenario(join, ("sidecast",)),
    "history": Scenario(history, ("sidecast",)),
    "reconnect": Scenario(reconnect, ("sidecast",)),
}
