"""Two brokers behind one port are restarted in turn under 2,000 watchers: nothing lost, no storm."""

from __future__ import annotations

import asyncio
import resource
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from accept import pulse
from accept.front import front
from accept.stage import Asked, records_of
from e2e import watchers
from e2e.broker import Broker
from e2e.check import check
from e2e.faults import process_of, said
from msgspec import json
from nats_server import NatsServer

pytestmark = pytest.mark.accept

WATCHERS = 2000
DRAIN_S = 15.0
RATE = 0.5
AGENT = "pulse"
SETTINGS = {"agent.name": AGENT, "stream.drain_s": DRAIN_S}
DESCRIPTORS = 3 * WATCHERS


async def restart(broker: Broker) -> None:
    """Have a broker drain and end, and start another in its place."""
    process, broker.process = broker.process, None
    assert process is not None
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, DRAIN_S + 10) == 0
    await asyncio.to_thread(broker.start)


async def test_a_rolling_restart(tmp_path: Path, report: Callable[[str], None]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < DESCRIPTORS:
        pytest.skip(f"this system allows a process {hard} open files, and {DESCRIPTORS} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        async with AsyncExitStack() as stack:
            server = stack.enter_context(NatsServer(tmp_path / "nats"))
            brokers = [Broker(tmp_path, [server.url], SETTINGS) for _ in range(2)]
            for broker in brokers:
                stack.callback(broker.stop)
                await asyncio.to_thread(broker.start)
            balancer = await stack.enter_async_context(front(brokers))
            plan_file = tmp_path / "pulse.json"
            plan_file.write_bytes(json.encode(pulse.Plan(server.url, AGENT, [pulse.Beat("one", RATE, 50)])))
            beating = Asked(await stack.enter_async_context(process_of("accept.pulse", plan_file)))
            result = tmp_path / "watched.json"
            wanted = [watchers.Wanted(f"watcher-{number}", "one", "start") for number in range(WATCHERS)]
            plan = watchers.Plan("127.0.0.1", balancer.port, wanted, 0, 0, 1, str(result))
            watch_file = tmp_path / "watchers.json"
            watch_file.write_bytes(json.encode(plan))
            watching = await stack.enter_async_context(process_of("e2e.watchers", watch_file))
            async with asyncio.timeout(120):
                await said(watching, "opened")
            began_s = time.monotonic()
            for broker in brokers:
                await restart(broker)
                await asyncio.sleep(3)  # the last of them come back after their `retry:`
            took_s = time.monotonic() - began_s
            published = await beating.ask("stop")
            records = await records_of(watching, result)
            reasons = [
                {line.get("reason") for line in broker.log_lines() if line["event"] == "stream_closed"}
                for broker in brokers
            ]
            await asyncio.sleep(0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    peak = balancer.peak_per_s(began_s)
    reconnects = sum(record.connections - 1 for record in records)
    seconds = [0] * (int(took_s) + 1)
    for at_s in balancer.arrivals:
        if began_s <= at_s < began_s + len(seconds):
            seconds[int(at_s - began_s)] += 1
    report(
        f"{WATCHERS} watchers, {reconnects} reconnects in {took_s:.0f} s, at most {peak} in a second "
        f"({WATCHERS / DRAIN_S:.0f} in the mean of a drain), {published['one']} events each; "
        f"closed {reasons}; by second {seconds}"
    )
    assert check(published, records) == []
    assert reconnects >= WATCHERS
    assert peak <= 2 * WATCHERS / DRAIN_S
    assert balancer.refused == 0
