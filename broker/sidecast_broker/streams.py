"""All open streams of one broker: their limit, their beat, their drain, and who is connected.

Must not know what a stream sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from aiohttp import web
from prometheus_client import Counter, Gauge

from sidecast_broker.background import Background
from sidecast_broker.core.pace import Pace
from sidecast_broker.core.resume import Opening
from sidecast_broker.core.spread import Spread
from sidecast_broker.lifetimes import Lifetimes
from sidecast_broker.limits import Asker, Limits, Seat
from sidecast_broker.metrics import Metrics
from sidecast_broker.refused import Refused
from sidecast_broker.settings import Stream as StreamSettings
from sidecast_broker.stream import CHECK_S, Stream
from sidecast_broker.subscriber import Wake
from sidecast_broker.tracing import Tracing, in_log
from sidecast_schemas.subjects import TaskKey

logger = structlog.get_logger(__name__)

TICKS = 8
"""The streams are checked in so many shares, one after the other, within a period."""
CHECK_SLICE = 100
TOLD_SLICE = 20
"""Closed streams told of in one turn of the event loop: a millisecond."""

RETIRES_FROM = 0.75
"""The part of `stream.age_max_s` after which streams end one after the other: those that began together must
not come back together."""

LAST_FRAMES_S = 1.0
"""How long a drain waits for the last frames to leave."""


class Streams:
    """Holds the open streams.

    Args:
        settings: periods.
        metrics: where to count.
        limits: how many there may be.
        lifetimes: ends streams with their credentials; None: no credential is needed.
        tracing: makes the spans of opening them; None: nobody does.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        settings: StreamSettings,
        metrics: Metrics,
        limits: Limits,
        lifetimes: Lifetimes | None = None,
        *,
        tracing: Tracing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.draining = False
        self._lifetimes = lifetimes
        self._tracing = tracing
        self._settings = settings
        self._metrics = metrics
        self._limits = limits
        self._clock = clock
        self._shares: list[dict[Stream, None]] = [{} for _ in range(TICKS)]
        self._share_of: dict[Stream, int] = {}
        self._seats: dict[Stream, Seat] = {}
        self._counted: dict[str, tuple[Gauge, Counter]] = {}
        self._next = 0
        self._closed: deque[tuple[Stream, float]] = deque()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._beat = Background("beat", self._run)

    def __len__(self) -> int:
        return len(self._share_of)

    @property
    def turns_away(self) -> bool:
        """Whether a new stream can be opened elsewhere only."""
        return self.draining or self._limits.full

    def arrive(self, request: web.BaseRequest) -> None:
        """Let a request for a stream be looked at.

        Raises:
            Refused: too many have come from its address.
        """
        self._limits.arrive(request)

    def enter(self, asker: Asker) -> None:
        """Let who is known begin to open a stream; whether there is still room then, `admit` says.

        Raises:
            Refused: the broker is draining, or as many are open, or being opened, as may be.
        """
        self.admit(asker)
        self._limits.open()

    def admit(self, asker: Asker, key: TaskKey | None = None, *, waits: bool = False) -> None:
        """Let one more stream open.

        Args:
            asker: whose it is.
            key: its task, where this asker may learn how many watch it.
            waits: for its task to begin.

        Raises:
            Refused: the broker is draining, or one of the limits is reached.
        """
        if self.draining:
            raise Refused("draining", "this broker is going away", retry_after_s=1)
        self._limits.check(asker, key, waits=waits)

    def add(self, stream: Stream, opening: Opening | None, asker: Asker, key: TaskKey | None = None) -> None:
        """Count a stream as open; its line in the log comes when it closes.

        Args:
            stream: with its head prepared.
            opening: how it begins; None while it waits for its task.
            asker: whose it is, as it was admitted.
            key: its task, as it was admitted.
        """
        self._seats[stream] = self._limits.take(asker, key, waits=opening is None)
        if age_max_s := self._settings.age_max_s:
            stream.retires_at_s = stream.opened_at_s + age_max_s * random.uniform(RETIRES_FROM, 1)
        share = self._share_of[stream] = self._next = (self._next + 1) % TICKS
        self._shares[share][stream] = None
        self._emptied.clear()
        subscribers, opened = self._counted_as(stream.view.format)
        subscribers.inc()
        opened.inc()
        if self._lifetimes is not None:
            self._lifetimes.begin(stream)
        if self._tracing is not None and stream.asked is not None:
            stream.opening = self._tracing.open(stream.asked, _attributes(stream, opening))

    def _counted_as(self, form: str) -> tuple[Gauge, Counter]:
        counted = self._counted.get(form)
        if counted is None:
            metrics = self._metrics
            counted = metrics.subscribers.labels(form), metrics.streams_opened.labels(form)
            self._counted[form] = counted
        return counted

    def settle(self, stream: Stream) -> None:
        """Count a stream by its task, which has begun.

        Raises:
            Refused: the task has as many streams as it may.
        """
        self._limits.settle(self._seats[stream], stream.key)

    def judge(self, stream: Stream) -> None:
        """Look anew at whether what an open stream is of may be watched: it has come to be of more."""
        if self._lifetimes is not None and stream.life is not None:
            stream.life.generation = -1
            self._lifetimes.look(stream, self._lifetimes.now())

    def remove(self, stream: Stream) -> None:
        """Count a stream as closed; it is told of in a later turn of the event loop.

        When 10,000 leave at once, what they take in one turn is what nobody else gets an event in.
        """
        del self._shares[self._share_of.pop(stream)][stream]
        self._limits.leave(self._seats.pop(stream))
        if not self._share_of:
            self._emptied.set()
        stream.has_opened()
        if not self._closed:
            asyncio.get_running_loop().call_soon(self._tell_some)
        self._closed.append((stream, self._clock() - stream.opened_at_s))

    def _tell_some(self) -> None:
        for _ in range(min(TOLD_SLICE, len(self._closed))):
            self._tell(*self._closed.popleft())
        if self._closed:
            asyncio.get_running_loop().call_soon(self._tell_some)

    def _tell(self, stream: Stream, duration_s: float) -> None:
        """Count and log what a stream was: the one line about it."""
        self._metrics.subscribers.labels(stream.view.format).dec()
        self._metrics.streams_closed.labels(stream.closed_because).inc()
        self._metrics.stream_duration.observe(duration_s)
        logger.info(
            "stream_closed",
            **_who(stream),
            reason=stream.closed_because,
            events=stream.subscriber.events,
            bytes=stream.subscriber.bytes_sent,
            duration_s=round(duration_s, 3),
        )
        # It holds its subscriber: so held in turn, it would wait for the collector, which is seldom there.
        stream.subscriber.wake = _asleep

    def start(self) -> None:
        """Begin to beat."""
        self._beat.start()

    def cut(self) -> None:
        """Break off what is open: closed in good order, it would pass for its end where nothing frames it."""
        self.draining = True
        for stream in list(self._share_of):
            stream.cut("drain")

    async def close(self) -> None:
        """Stop beating, and tell of all that have closed."""
        await self._beat.close()
        while self._closed:
            self._tell(*self._closed.popleft())

    async def _run(self) -> None:
        silent_s = min(self._settings.heartbeat_s, self._settings.a2a_heartbeat_s)
        pause_s = min(CHECK_S, silent_s / 4, self._settings.lag_s_max / 4) / TICKS
        share = 0
        while True:
            await asyncio.sleep(pause_s)
            now, lifetimes = self._clock(), self._lifetimes
            now_s = lifetimes.now() if lifetimes is not None else 0.0
            for index, stream in enumerate(list(self._shares[share])):
                if index % CHECK_SLICE == CHECK_SLICE - 1:
                    await asyncio.sleep(0)  # 1,000 checks take 4 ms, in which no event would go out
                if stream in self._share_of:
                    if lifetimes is not None:
                        lifetimes.look(stream, now_s)
                    stream.check(now)
                    if now >= stream.retires_at_s:
                        self._send_away(stream, "age")
            share = (share + 1) % TICKS

    async def drain(self) -> None:
        """Refuse new streams, and send the open ones away, spread over `stream.drain_s`."""
        self.draining = True
        streams = list(self._share_of)
        random.shuffle(streams)
        spread = Spread(len(streams), self._settings.drain_s, self._clock())
        for stream in streams:
            if stream not in self._share_of:
                continue
            if (wait_s := spread.wait_s(self._clock())) > 0.005:
                await self._emptied_within(wait_s)
            if stream in self._share_of:
                self._send_away(stream, "drain")
        await self._emptied_within(LAST_FRAMES_S)

    async def _emptied_within(self, timeout_s: float) -> None:
        """Wait so long, or until all streams have closed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._emptied.wait()

    def _send_away(self, stream: Stream, reason: str) -> None:
        """End a stream in good order; its client comes back, here or elsewhere, after a while of its own."""
        # Kept, its connection would bring it back to this process, past every load balancer.
        stream.response.force_close()
        reconnect_in_ms = round(self._settings.retry_ms * random.uniform(0.5, 1.5))
        stream.close(reason, stream.view.drain(reconnect_in_ms))

    def measure(self) -> None:
        """Set the gauges of lag: computed when somebody asks, not per event."""
        lagging = [stream for stream in self._share_of if stream.lag_s > 0 or not stream.subscriber.joined]
        self._metrics.lagging_subscribers.set(len(lagging))
        self._metrics.lag_events.set(sum(stream.behind_events for stream in lagging))

    def watching(self, key: TaskKey, count_max: int) -> tuple[int, list[dict[str, Any]]]:
        """Tell how many streams there are of one task, and say the same of those furthest behind."""
        found = [stream for stream in self._share_of if stream.key == key]
        # By their places in the log: of each, how many records that is would take a look at all of them.
        furthest = heapq.nsmallest(count_max, found, key=lambda stream: stream.subscriber.cursor)
        return len(found), self.describe(furthest)

    def describe(self, streams: Iterable[Stream] | None = None) -> list[dict[str, Any]]:
        """Say of every stream, or of these, who it is and how far behind."""
        now = self._clock()
        return [
            {
                "tenant": stream.key.tenant,
                **_who(stream),
                "slow": stream.slow,
                "skips": stream.slowness.skips,
                "open_s": round(now - stream.opened_at_s, 3),
                "cursor": f"{stream.hub.epoch}-{stream.subscriber.cursor}",
                "events": stream.subscriber.events,
                "bytes": stream.subscriber.bytes_sent,
                "pace": _pace(stream.pace),
                "coalesce": stream.view.thins,
                "served": stream.served,
                "behind_events": stream.behind_events,
                "unsent_bytes": stream.subscriber.transport.get_write_buffer_size(),
                "lag_s": round(stream.lag_s, 3),
                "lags": stream.slowness.lags,
            }
            for stream in (self._share_of if streams is None else streams)
        ]


def _pace(pace: Pace | None) -> dict[str, Any] | None:
    """Say at which pace a client wants to be sent to, as it asked for it; None: as events come."""
    if pace is None:
        return None
    batch_ms = round(pace.batch_s * 1000)
    return {"batch_ms": batch_ms, "batch_max": pace.batch_max, "max_rate": pace.rate, "burst": pace.burst}


def _asleep(_reason: Wake) -> None:
    """Wake nobody: the stream has ended."""


def _who(stream: Stream) -> dict[str, Any]:
    """Say which stream it is, in logs and answers."""
    return {
        **stream.watched,
        "agent": stream.key.agent,
        "format": stream.view.format,
        "peer": stream.peer.address,
        **in_log(None if stream.asked is None else stream.asked.context),
    }


def _attributes(stream: Stream, opening: Opening | None) -> dict[str, Any]:
    """Say what is being opened, in its span."""
    what = {
        **stream.watched,
        "format": stream.view.format,
        "mode": "wait" if opening is None else opening.mode,
    }
    return {f"sidecast.{name}": value for name, value in what.items()}
