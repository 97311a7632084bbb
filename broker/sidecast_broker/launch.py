"""A stream of several tasks up to its first frames; its head may leave before its tasks are read.

Must not know who may watch what, nor NATS.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from aiohttp import web

from sidecast_broker.answers import Away
from sidecast_broker.board import Board
from sidecast_broker.board_stream import BoardStream
from sidecast_broker.board_view import BoardView
from sidecast_broker.boards import Boards, Found
from sidecast_broker.busy import Busy
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.core.resume import Opening
from sidecast_broker.holds import Held
from sidecast_broker.hub import Hub
from sidecast_broker.hubs import Hubs
from sidecast_broker.limits import Asker
from sidecast_broker.metrics import Metrics
from sidecast_broker.opening import nothing
from sidecast_broker.outset import Outset, outset_of
from sidecast_broker.refused import Refused
from sidecast_broker.settings import Settings
from sidecast_broker.streams import Streams
from sidecast_broker.subscriptions import Subscriptions
from sidecast_broker.takeover import Takeover
from sidecast_broker.wanted import Wanted

HEAD_S = 1.0
"""A stream whose tasks take longer to read is open and beats from then on."""


class Asked(NamedTuple):
    """A request for a stream, with the board that is to serve it.

    Attributes:
        request: as it came.
        board: in use.
        missing: listed tasks that have not begun, or may not be seen.
        waits: whether the stream is to wait for those.
        wanted: what it asks for.
        asker: whose it is, as it was let in.
        principal: who watches.
        takeover: the way to its named subscription, where that was found; None: it asks for none.
    """

    request: web.BaseRequest
    board: Board
    missing: frozenset[str]
    waits: bool
    wanted: Wanted
    asker: Asker
    principal: Principal
    takeover: Takeover | None


class Begun(NamedTuple):
    """What a stream begins with.

    Attributes:
        found: the tasks there are.
        opening: where.
        held: its named subscription, to be released; None: it has none.
    """

    found: Found
    opening: Opening
    held: Held | None


class Launch:
    """Begins streams.

    Args:
        busy: turns clients away for a moment.
        settings: all settings.
        boards: the tasks, together.
        hubs: the tasks, each.
        streams: the open streams.
        subscriptions: the named ones.
        metrics: where to count.
    """

    def __init__(
        self,
        busy: Busy,
        settings: Settings,
        boards: Boards,
        hubs: Hubs,
        streams: Streams,
        subscriptions: Subscriptions,
        metrics: Metrics,
    ) -> None:
        self._busy = busy
        self._settings = settings
        self._boards = boards
        self._hubs = hubs
        self._streams = streams
        self._subscriptions = subscriptions
        self._metrics = metrics

    async def serve(self, asked: Asked) -> BoardStream | web.StreamResponse:
        """Begin the stream of a board in use, or give the answer where nothing will ever follow.

        Raises:
            Refused: there is no room, or what there is can't be told at the moment.
            ConnectionResetError: the client left.
        """
        board, wanted = asked.board, asked.wanted
        reading = asyncio.get_running_loop().create_task(
            outset_of(self._boards, board, asked.principal, wanted.cursor, wanted.start)
        )
        reading.add_done_callback(_heed)
        stream: BoardStream | None = None
        begun: Begun | None = None
        try:
            await asyncio.wait({reading}, timeout=HEAD_S)
            if not reading.done():
                stream = await self._start(asked, waits=asked.waits)
                if not await stream.wait_for(reading):
                    return stream
            begun = await self._read(reading, asked, stream)
            if begun is None:
                return stream if stream is not None else nothing()
            if stream is None:
                stream = await self._start(asked, waits=bool(board.missing))
            else:
                self._streams.judge(stream)  # its tasks have come since it was looked at
            if begun.held is not None:
                _hold(stream, begun.held)
            await self._begin(stream, begun.found, begun.opening, asked)
        except BaseException as error:
            if stream is not None and isinstance(error, ConnectionResetError):
                stream.close("client-gone")
                return stream
            if stream is not None:
                self._streams.remove(stream)
            if begun is not None and begun.held is not None:
                await self._subscriptions.release(begun.held)
            raise
        finally:
            reading.cancel()
        return stream

    async def _start(self, asked: Asked, *, waits: bool) -> BoardStream:
        """Prepare the head of a stream, and count it as open."""
        self._streams.admit(asked.asker, waits=waits)
        board, wanted = asked.board, asked.wanted
        stream = BoardStream(
            board,
            self._boards,
            self._hubs,
            BoardView(wanted.view),
            self._settings.stream,
            self._metrics,
            principal=asked.principal,
            pace=wanted.pace,
            slow=wanted.slow,
            late_s_max=self._settings.pace.late_s_max,
        )
        await stream.start(asked.request)
        self._streams.add(stream, None if waits else Opening("snapshot", board.position, None), asked.asker)
        return stream

    async def _read(
        self, reading: asyncio.Task[Outset], asked: Asked, stream: BoardStream | None
    ) -> Begun | None:
        """Give what a stream begins with; None: nothing, and one whose head was sent is told so.

        Raises:
            Refused: its head was not sent, and what there is can't be told at the moment.
        """
        held = None
        try:
            found, opening = await reading
            if asked.takeover is not None and opening is not None:
                if stream is None:
                    self._streams.admit(asked.asker)  # or another would lose it to one that is turned away
                held = await self._take(asked.takeover, asked, found, opening)
        except (Away, Refused) as error:
            refused = unavailable(error) if isinstance(error, Away) else error
            if stream is None:
                raise refused from error
            busy = self._busy.answer(asked.request, refused)
            # Who wants a status is sent no end, and comes again as after any broken connection.
            frame = busy.body if busy is not None and isinstance(busy.body, bytes) else b""
            stream.close("unavailable", frame)
            return None
        if opening is not None:
            return Begun(found, opening, held)
        if asked.wanted.cursor is not None:
            self._metrics.resumes.labels("ended").inc()
        if stream is not None:
            stream.close("ended", stream.view.end(asked.board))
        return None

    async def _take(self, takeover: Takeover, asked: Asked, found: Found, opening: Opening) -> Held:
        """Take over the named subscription of a stream that is to begin so.

        Raises:
            Refused: it can't be taken, or it is one too many.
        """
        if opening.mode == "snapshot":
            opening = _confirmable([member.hub for member in found.members], opening)
        return await takeover.take(opening, asked.board.epoch, asked.wanted.view.heartbeat_s)

    async def _begin(self, stream: BoardStream, found: Found, opening: Opening, asked: Asked) -> None:
        """Send what a stream begins with."""
        wanted = asked.wanted
        if wanted.cursor is not None:
            self._metrics.resumes.labels(opening.gap.reason if opening.gap else "replay").inc()
        head, after = stream.first_frames(opening, found, wanted.cursor or "")
        if asked.board.missing:
            stream.wait_for_missing(wanted.wait_s)
        else:
            head += b"".join(stream.board_view.gone(task, "not-found") for task in sorted(asked.missing))
        await stream.begin(head, after)


def unavailable(away: Away) -> Refused:
    """Say that NATS can't answer."""
    return Refused("unavailable", str(away), retry_after_s=1)


def _confirmable(hubs: list[Hub], opening: Opening) -> Opening:
    """Give from where on a subscription can be confirmed whose stream begins with these tasks as they stand.

    The id of the last snapshot confirms them all. It need not be that of a record, but one at or below it
    must be left to be confirmed; where there is no task, nothing was before.
    """
    if not hubs:
        return opening._replace(mode="live")
    newest = [hub.end if hub.end <= opening.after else hub.first or 0 for hub in hubs]
    return opening._replace(after=max((at for at in newest if at <= opening.after), default=opening.after))


def _hold(stream: BoardStream, held: Held) -> None:
    """Have a stream end when its named subscription is another's."""
    stream.held = held
    held.attach(lambda reason: stream.close(reason, stream.board_view.lost(reason)))


def _heed(reading: asyncio.Task[Outset]) -> None:
    """Take note of how it ended, also where nobody waits for it any more."""
    if not reading.cancelled():
        reading.exception()
