"""One client's response: opens where the client left off, follows the hub, and ends with a reason.

Must not know how a request was routed or who is allowed what.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple, cast

from aiohttp import HttpVersion11, web

from sidecast_broker.answers import Away
from sidecast_broker.bell import Bell
from sidecast_broker.connection import Request
from sidecast_broker.core.auth.life import Life
from sidecast_broker.core.auth.principal import ANYBODY, Principal
from sidecast_broker.core.frame import HEARTBEAT
from sidecast_broker.core.pace import Pace, Slow
from sidecast_broker.core.slowness import Slowness
from sidecast_broker.core.views.shapes import StreamGapReason
from sidecast_broker.holds import Held
from sidecast_broker.hub import Hub
from sidecast_broker.hubs import Hubs
from sidecast_broker.metrics import Metrics
from sidecast_broker.peer import Peer, address_of
from sidecast_broker.replay import Replay
from sidecast_broker.response import Response
from sidecast_broker.settings import Stream as StreamSettings
from sidecast_broker.stream_view import StreamView
from sidecast_broker.subscriber import Subscriber, Wake
from sidecast_broker.tracing import Asked, Opening
from sidecast_schemas.subjects import TaskKey

CHECK_S = 1.0
LOOK_S = 0.1
LOOK_S_MAX = 1.0
"""How often who waits for a task that may not be followed yet looks for it: soon at first, for a page that
has just begun one."""
SKIP_BYTES_MAX = 64 * 1024
"""Write buffer of a client that wants the task as it stands when it is slow: it comes after all that."""


Look = Callable[[float], Awaitable[Hub | None]]
"""Gives the hub of a task that may be followed, within so many seconds; None: there is none yet."""


class Ending(NamedTuple):
    """Why a stream ends, and the last bytes it sends."""

    reason: str
    frame: bytes = b""


class Stream:
    """Serves one task to one client.

    Args:
        key: the task.
        hubs: where its hub comes from.
        view: the client's format.
        settings: bounds and periods.
        metrics: where to count.
        principal: who opened it.
        pace: the client's own; None: it is sent everything as it comes.
        slow: what becomes of the client when it doesn't keep up.
        late_s_max: how late it may be because of its own rate, in seconds.
        clock: seconds, monotonic.

    Attributes:
        life: how long it may live; None: nobody looks after that.
        held: its named subscription; None: it has none.
        unfed: whether it waits for a task that may not be seen yet.
        response: what the client gets; prepared by `start`.
        asked: the trace that its request is part of; None: of none.
        opening: the span of opening it, until it has begun; None: there is none.
        slowness: since when it has not been sent all there is.
        closed_because: the reason in log and metric, once it has ended.
        retires_at_s: when it is sent away for its age (monotonic).
    """

    __slots__ = (
        "_bell",
        "_clock",
        "_ending",
        "_epoch",
        "_hub",
        "_hubs",
        "_late_s_max",
        "_metrics",
        "_peer",
        "_replay",
        "_settings",
        "_subscriber",
        "asked",
        "closed_because",
        "held",
        "key",
        "life",
        "opened_at_s",
        "opening",
        "pace",
        "principal",
        "response",
        "retires_at_s",
        "slow",
        "slowness",
        "unfed",
        "view",
    )

    def __init__(
        self,
        key: TaskKey,
        hub: Hub,
        hubs: Hubs,
        view: StreamView,
        settings: StreamSettings,
        metrics: Metrics,
        *,
        principal: Principal = ANYBODY,
        pace: Pace | None = None,
        slow: Slow = "disconnect",
        late_s_max: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.response = Response()
        self.principal = principal
        self.life: Life | None = None
        self.asked: Asked | None = None
        self.opening: Opening | None = None
        self.unfed = False
        self.held: Held | None = None
        self.pace = pace
        self.slow = slow
        self.slowness = Slowness()
        self._late_s_max = late_s_max
        self.key = key
        self.view = view
        self.closed_because = "client-gone"
        self.opened_at_s = clock()
        self.retires_at_s = math.inf
        self._hub = hub
        self._hubs = hubs
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._epoch = hub.epoch
        self._peer: Peer | None = None
        self._replay: Replay | None = None
        self._subscriber: Subscriber | None = None
        self._bell = Bell()
        self._ending: Ending | None = None

    @property
    def subscriber(self) -> Subscriber:
        """The stream's place in its hub; there from `start` on."""
        assert self._subscriber is not None
        return self._subscriber

    @property
    def peer(self) -> Peer:
        """Its client; there from `start` on."""
        assert self._peer is not None
        return self._peer

    @property
    def replay(self) -> Replay:
        """Its way through older records: made when there are any to be sent, which is seldom."""
        if self._replay is None:
            self._replay = Replay(self.subscriber, self.view, self._metrics, self._clock)
        return self._replay

    @property
    def hub(self) -> Hub:
        """The hub it follows."""
        return self._hub

    @property
    def watched(self) -> dict[str, object]:
        """Say what it is a stream of, in logs and answers."""
        return {"task": self.key.task}

    # ------------------------------------------------------------------ life

    async def start(self, request: web.BaseRequest) -> None:
        """Send the response's head and prepare the connection for many small writes."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client left")
        writer = await self.response.prepare(request)
        connection = transport.get_extra_info("socket")
        fd = -1 if connection is None else connection.fileno()
        self.asked = cast(Request, request).asked
        buffer_bytes_max = self._settings.buffer_bytes_max
        if self.slow == "snapshot":
            buffer_bytes_max = min(buffer_bytes_max, SKIP_BYTES_MAX)
        self._subscriber = subscriber = Subscriber(
            self.view,
            transport,
            chunked=request.version >= HttpVersion11,
            buffer_bytes_max=buffer_bytes_max,
            wake=self._wake,
            insert=self.view.insert,
            pace=self.pace,
            fd=-1 if transport.get_extra_info("sslcontext") else fd,
        )
        address, deliveries = address_of(request), self._metrics.deliveries
        self._peer = Peer(subscriber, writer, fd, address, deliveries, self._clock)

    async def wait_for_task(self, wait_s: float, look: Look | None = None) -> bool:
        """Keep the stream open and beating until the task's first record; False: it never came, and ends.

        Args:
            wait_s: how long.
            look: where the stream may not follow the task's own hub yet: gives that one as soon as it may.
        """
        await self.peer.write(HEARTBEAT)
        until = self._clock() + wait_s
        pause_s = LOOK_S
        while self._hub.first is None and self._ending is None and not self._hub.failed:
            left = until - self._clock()
            if left <= 0:
                break
            if look is None:
                await self._bell.rung_by(self._hub, left)
                continue
            await self._bell.rung_by(self._hub, min(pause_s, left))
            pause_s = min(pause_s * 2, LOOK_S_MAX)
            if self._ending is None and (hub := await look(until - self._clock())) is not None:
                self._hub, self._epoch, self.unfed = hub, hub.epoch, False
        if self._hub.failed:
            self.cut("failed")
            raise ConnectionResetError("broken off")
        if self._hub.first is None:
            self._ending = self._ending or Ending("not-found", self.view.not_found())
            return False
        return True

    async def begin(self, head: bytes, after: int) -> None:
        """Send what the stream begins with; `follow` goes on from there.

        Args:
            head: the first frames.
            after: the sequence they lead up to.
        """
        self.subscriber.cursor = after
        if self._ending is None:
            await self.peer.write(head)
        self.has_opened()

    def has_opened(self) -> None:
        """End the span of opening it, where there is one under way."""
        if self.opening is not None:
            self.opening.end()
            self.opening = None

    async def follow(self) -> None:
        """Serve the task until one side ends it, then send the end.

        Raises:
            ConnectionResetError: the client left.
        """
        hub, subscriber = self._hub, self.subscriber
        try:
            while self._ending is None:
                if await self._catch_up():
                    self._forget_rest()
                    # Written to by the hub until it hands the stream back; nothing else is awaited here, so
                    # that an idle stream holds as little as possible.
                    waiter = self._bell.next_ring()
                    hub.join(subscriber)
                    await waiter
                    if not subscriber.joined and subscriber.gap is None and self._ending is None:
                        await self._tell_lag()
        finally:
            hub.leave(subscriber)
        await self._end(self._ending)

    async def _end(self, ending: Ending) -> None:
        """Send the last frame and end the response."""
        self.closed_because = ending.reason
        if ending.frame:
            await self.peer.write(ending.frame)
        await self.response.write_eof()

    def close(self, reason: str, frame: bytes = b"") -> None:
        """Have the stream end soon, after what is under way; a second call changes nothing."""
        if self._ending is None:
            self._ending = Ending(reason, frame)
            self._hub.leave(self.subscriber)
            self._bell.ring()

    def tell(self, frame: bytes) -> bool:
        """Write a frame beside the task's; False: nothing was sent yet that it could follow."""
        if self._peer is None or not self._peer.reached:
            return False
        if frame:
            self._hub.beat(self.subscriber, frame, 0, self._clock())
        return True

    def recheck(self, covers: Callable[[TaskKey], bool]) -> None:
        """Know that something was revoked: nothing to do where the task is the stream's only one."""

    def look_again(self) -> None:
        """Have it looked whether the stream has ended: something else than a record may say so."""
        if self._subscriber is not None:
            self._hub.leave(self._subscriber)
        self._bell.ring()

    def cut(self, reason: str) -> None:
        """Break the connection at once: the client takes nothing any more, and must not see a clean end."""
        self.closed_because = reason
        self.peer.break_off()

    # ------------------------------------------------------------------ following

    async def _catch_up(self) -> bool:
        """Send what the client has not been sent; False: it has been sent the end."""
        hub, subscriber, peer = self._hub, self.subscriber, self.peer
        while self._ending is None:
            if hub.failed:
                self.cut("failed")
                raise ConnectionResetError("broken off")
            if subscriber.gap is not None or hub.epoch != self._epoch or subscriber.cursor < hub.gap_below:
                self._forget_rest()
                await self._tell_gap()
            elif self.view.ended(hub, subscriber.cursor):
                self._ending = Ending("ended", self.view.end(hub))
            elif self._skips_now():
                subscriber.gap = "slow"
            elif subscriber.cursor < hub.log.floor:
                if (due_s := self.replay.due_s()) > self._clock():
                    await self._bell.sleep(hub, due_s)
                else:
                    await peer.write(self.replay.take_rest(hub) or await self._read_from_stream())
            elif subscriber.bucket is not None and subscriber.cursor < hub.end:
                # What memory holds is written by the hub, at this client's rate.
                await peer.drained()
                self.slowness.take(self._clock())
                return True
            elif hub.log.after(subscriber.cursor, 1):
                # Nothing here holds records or bytes while a slow client takes them.
                await peer.write(self.replay.take_kept(hub))
            else:
                subscriber.cursor = max(subscriber.cursor, hub.end)
                self.slowness.catch_up()
                return True
        return False

    def _skips_now(self) -> bool:
        """Tell whether the client is to be shown the task as it stands instead of what it has missed."""
        if self.slow != "snapshot" or self.subscriber.cursor >= self._hub.end:
            return False
        return self.slowness.lasts(self._clock(), self._settings.skip_s)

    def _wake(self, reason: Wake) -> None:
        if reason == "ended" and self._ending is None:
            self._ending = Ending("ended")
        self._bell.ring()

    def _forget_rest(self) -> None:
        """Drop what is left of a page that was read for it."""
        if self._replay is not None:
            self._replay.forget_rest()

    async def _read_from_stream(self) -> bytes:
        """Give the next page of what the log doesn't hold any more, to be sent."""
        tail = self._hubs.tail(self._hub)
        try:
            return await self.replay.read(self._hub, tail, lambda: self._ending is not None)
        except Away:
            self._ending = Ending("unavailable", self.view.unavailable())
            return b""

    async def _tell_gap(self) -> None:
        """Tell of the hole, then send the task as it stands, once that is known."""
        hub, subscriber = self._hub, self.subscriber
        while hub.reloading and not hub.failed:
            await self._bell.rung_by(hub)
            if self._ending is not None:
                return
        if hub.failed:
            return
        reason: StreamGapReason = "epoch" if hub.epoch != self._epoch else subscriber.gap or "expired"
        self.slowness.skip(slow=reason == "slow")
        requested = f"{self._epoch}-{subscriber.cursor}"
        self._epoch = hub.epoch
        subscriber.gap = None
        subscriber.cursor = hub.end
        data = self.view.gap(hub, reason, requested, hub.oldest_cursor)
        if data is None:
            self.cut("gap")
            raise ConnectionResetError("broken off")
        self.replay.anchored = True
        await self.peer.write(data)

    async def _tell_lag(self) -> None:
        """Wait until the client has taken what is buffered, then tell it how far it is behind."""
        if self.subscriber.transport.get_write_buffer_size() <= self.subscriber.buffer_bytes_max:
            return  # not the client is slow: its cursor lay between records, or more came than the log holds
        self.slowness.fall_behind(self._clock(), self._settings.skip_s)
        await self.peer.drained()
        if (behind := self.behind_events) and (data := self.view.lag(behind, self.slow)):
            await self.peer.write(data)

    @property
    def behind_events(self) -> int:
        """How many records the client has not been sent yet; those beyond the log count once."""
        log, cursor = self._hub.log, self.subscriber.cursor
        return len(log.after(max(cursor, log.floor))) + (cursor < log.floor)

    @property
    def served(self) -> Literal["waiting", "live", "paced", "behind", "ending"]:
        """How it is served at the moment, which is what is done about a client that is slow.

        `waiting`: its task has not begun; `live`: with all others; `paced`: at its own pace; `behind`: from
        its place in the log, as fast as it takes it; `ending`: its last frames are under way.
        """
        if self._ending is not None:
            return "ending"
        if self._hub.first is None:
            return "waiting"
        if not self.subscriber.joined:
            return "behind"
        return "live" if self.pace is None else "paced"

    # ------------------------------------------------------------------ the client

    def check(self, now: float) -> None:
        """Send a heartbeat if due, and break the connection of a client that takes nothing.

        Called every `CHECK_S` or sooner.
        """
        peer = self._peer
        if peer is None:
            return
        subscriber = peer.subscriber
        if subscriber.transport.is_closing():
            # The handler is told once, by being cancelled, which a wait that ends just then can swallow
            # (`asyncio.wait_for` before Python 3.12).
            self.close("client-gone")
            return
        if not peer.reached:
            return
        # Who skips may take its time with what is on its way, as long as it takes any of it.
        unsent, acknowledged, lag_s = peer.look(now, patient=self.slow == "snapshot")
        if self.held is not None:
            self.held.look(subscriber.cursor, subscriber.bytes_sent, acknowledged, now)
        if lag_s > self._settings.lag_s_max:
            self.cut("lag")
            return
        if subscriber.bucket is not None:
            self._look_how_late(now)
        if not unsent:
            self._hub.beat(subscriber, self.view.heartbeat(), self.view.heartbeat_s, now)

    def _look_how_late(self, now: float) -> None:
        """Act on a client whose own rate is too low: what came so long ago is still to be sent."""
        if self.slowness.late_s(self.subscriber.cursor, self._hub.end, now) > self._late_s_max:
            if self.slow == "disconnect":
                self.cut("lag")
                return
            self._hub.leave(self.subscriber)
            self.subscriber.gap = "slow"
            self._bell.ring()

    @property
    def lag_s(self) -> float:
        """Age of the oldest bytes the peer has not acknowledged, in seconds."""
        return self.peer.lag.age_s(self._clock())
