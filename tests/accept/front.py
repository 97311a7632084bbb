"""A load balancer before brokers: each connection goes to one that says it is ready, in turn.

Must not know HTTP beyond asking for readiness.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from e2e.broker import Broker

PROBE_S = 0.2
"""How often brokers are asked."""
BACKLOG = 4096


class Front:
    """Where clients connect.

    Attributes:
        port: on the loopback address.
        arrivals: when each connection came (monotonic).
        refused: connections that no ready broker was there for.
    """

    def __init__(self, brokers: Sequence[Broker]) -> None:
        self.port = 0
        self.arrivals: list[float] = []
        self.refused = 0
        self._brokers = brokers
        self._ready: list[Broker] = list(brokers)
        self._turn = itertools.count()

    def peak_per_s(self, since_s: float) -> int:
        """Give the most connections of any second from a time on."""
        times = [at_s for at_s in self.arrivals if at_s >= since_s]
        begin, peak = 0, 0
        for end, at_s in enumerate(times):
            while at_s - times[begin] >= 1:
                begin += 1
            peak = max(peak, end - begin + 1)
        return peak

    async def probe(self) -> None:
        """Ask all of them again and again."""
        while True:
            self._ready = [broker for broker in self._brokers if await asyncio.to_thread(broker.ready)]
            await asyncio.sleep(PROBE_S)

    async def link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass a connection's bytes on, both ways."""
        self.arrivals.append(time.monotonic())
        ready = self._ready
        try:
            broker = ready[next(self._turn) % len(ready)]
            there_reader, there = await asyncio.open_connection(broker.host, broker.port)
        except (OSError, ZeroDivisionError):
            self.refused += 1
            writer.transport.abort()
            return
        both = (_pass_on(reader, there), _pass_on(there_reader, writer))
        tasks = [asyncio.get_running_loop().create_task(each) for each in both]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            there.transport.abort()
            # What the broker said last must still arrive.
            writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def front(brokers: Sequence[Broker]) -> AsyncIterator[Front]:
    """Balance for the length of the block."""
    balancer = Front(brokers)
    server = await asyncio.start_server(balancer.link, "127.0.0.1", 0, backlog=BACKLOG)
    balancer.port = server.sockets[0].getsockname()[1]
    probing = asyncio.get_running_loop().create_task(balancer.probe())
    try:
        yield balancer
    finally:
        probing.cancel()
        server.close()
