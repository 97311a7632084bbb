"""The client at the other end of one stream: what it is written beside the hub, and how much of all it takes.

Must not know what frames say, nor what becomes of a client that takes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from sidecast_broker.core.forwarded import parse_address
from sidecast_broker.core.frame import chunk
from sidecast_broker.core.lag import Lag
from sidecast_broker.metrics import Deliveries
from sidecast_broker.subscriber import Subscriber
from sidecast_broker.tcp import acknowledged, reset_at_close, unacknowledged


class Peer:
    """One stream's client, as its connection shows it.

    Args:
        subscriber: its place in its hub, with its transport.
        writer: of the response whose head is prepared; None: the client has left.
        fd: the connection's socket; -1: there is none.
        address: the client's, as `address_of` gives it.
        deliveries: where to count.
        clock: seconds, monotonic.

    Attributes:
        lag: of what it was sent.
        reached: whether it was sent anything; the first frames take the head along.
    """

    __slots__ = ("_clock", "_deliveries", "_fd", "_writer", "address", "lag", "reached", "subscriber")

    def __init__(
        self,
        subscriber: Subscriber,
        writer: AbstractStreamWriter | None,
        fd: int,
        address: str,
        deliveries: Deliveries,
        clock: Callable[[], float],
    ) -> None:
        self.subscriber = subscriber
        self.address = address
        self.reached = False
        self.lag = Lag()
        self._writer = writer
        self._fd = fd
        self._deliveries = deliveries
        self._clock = clock

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write frames, and wait while the client's buffers are full.

        Raises:
            ConnectionResetError: the client left.
        """
        subscriber, transport = self.subscriber, self.subscriber.transport
        if not data or self._writer is None:
            return
        if transport.is_closing():
            raise ConnectionResetError("the client left")
        if subscriber.insert is not None:
            data = bytes(data).replace(b"\0", subscriber.insert)
        subscriber.written_at_s = self._clock()
        if not self.reached:
            # Takes the response's head along, and frames the chunk itself.
            self.reached = True
            subscriber.bytes_sent += len(data)
            await self._writer.write(bytes(data))
        else:
            data = chunk(bytes(data)) if subscriber.chunked else bytes(data)
            subscriber.bytes_sent += len(data)
            self._deliveries.bytes_sent += len(data)
            transport.write(data)
        data = b""  # the transport holds what the client has not taken
        await self._writer.drain()

    async def drained(self) -> None:
        """Wait while the client's buffers are full."""
        assert self._writer is not None
        await self._writer.drain()

    def look(self, now: float, *, patient: bool) -> tuple[int, int, float]:
        """Look how much of what it was sent the client has taken.

        Lag is what the peer has not acknowledged; its age counts from when it was first seen.

        Args:
            now: seconds, monotonic.
            patient: as of `Lag.look`.

        Returns:
            Bytes that wait in the transport; bytes that the peer's TCP has acknowledged for sure; and the
            lag's age in seconds.
        """
        subscriber, sent = self.subscriber, self.subscriber.bytes_sent
        unsent = subscriber.transport.get_write_buffer_size()
        if not unsent and self.lag.settled_at(sent):
            return 0, sent, 0.0  # all had been acknowledged at the last look: the kernel isn't asked
        pending = unsent + unacknowledged(self._fd)
        taken = sent - pending
        if pending and subscriber.fd < 0 and (encrypted := acknowledged(self._fd)):
            # TLS may hold what waits for a full kernel, and doesn't say how much: then what was sent tells
            # nothing of what has been acknowledged.
            taken = encrypted
        # Of what TLS may hold, sure is only that nothing waits when nothing is in the kernel either.
        sure = taken if subscriber.fd >= 0 or not pending else 0
        return unsent, sure, self.lag.look(taken, pending, now, patient=patient)

    def break_off(self) -> None:
        """Break the connection at once: the client takes nothing any more, and must not see a clean end."""
        subscriber, transport = self.subscriber, self.subscriber.transport
        if not subscriber.chunked and self._fd >= 0 and not transport.is_closing():
            # Without chunks the end of the connection is that of the body: only a reset says otherwise.
            reset_at_close(self._fd)
        transport.abort()


def address_of(request: web.BaseRequest) -> str:
    """Say who is connected: address and port, or the client's address alone where a proxy is between."""
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    remote = request.remote or ""
    if not isinstance(peer, tuple) or str(parse_address(peer[0])) != remote:
        return remote
    return f"[{remote}]:{peer[1]}" if ":" in remote else f"{remote}:{peer[1]}"
