"""The connection of a publisher to NATS: made and kept in the background, and the requests sent over it.

Must not know tasks, buffers or events. Trouble of the network comes out as `Unreachable`, an error JetStream
answers with as a `Refusal`. nats-py is imported when the connection is first made.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import Struct

from sidecast_adapters.position import Stored
from sidecast_schemas import headers

if TYPE_CHECKING:
    from nats.aio.client import Client

logger = logging.getLogger("sidecast_adapters")

REQUEST_S_MAX = 3.0
"""How long an answer may take; a change of the stream's leader takes 6 to 9 s, so several are tried."""
PROBE_S_MAX = 2
CLOSE_S_MAX = 1.0
PAUSE_S_MIN, PAUSE_S_MAX = 0.05, 1.0
PAYLOAD_BYTES_MAX = 1 << 20
"""The server's default, assumed until it says otherwise."""
MESSAGE_NOT_FOUND = 10037


class Unreachable(Exception):  # noqa: N818 - a state of the world, not an error of ours
    """NATS, or the stream's leader, can't be asked at the moment; what was sent may have arrived."""


class Refusal(Struct, frozen=True):
    """An error JetStream answered with."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class Ack(Struct, frozen=True):
    """JetStream's answer to a publish or a batch."""

    seq: int = 0
    duplicate: bool = False
    error: Refusal | None = None


class Outgoing(NamedTuple):
    """One message to publish: payload and headers."""

    payload: bytes
    headers: dict[str, str]


class _Found(Struct, frozen=True):
    seq: int
    hdrs: str = ""


class _Answer(Struct, frozen=True):
    message: _Found | None = None
    error: Refusal | None = None


_decode_ack = msgspec.json.Decoder(Ack).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode


class Connection:
    """A connection that is being made from `open` on, for ever.

    Args:
        servers: the addresses to try.
        stream: the JetStream stream asked for last records.
        options: further options of `nats.connect`.
    """

    def __init__(self, servers: Sequence[str], stream: str, options: Mapping[str, Any]) -> None:
        self._servers = list(servers)
        self._stream = stream
        self._options = dict(options)
        self._client: Client | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._lost = asyncio.Event()
        self._timeouts = 0
        self._probing = False
        self._told: set[str] = set()
        self.reconnects = 0

    @property
    def up(self) -> bool:
        """Whether the connection stands, as far as is known."""
        return self._client is not None and self._client.is_connected

    @property
    def payload_bytes_max(self) -> int:
        """The largest message the server takes, headers included."""
        return self._client.max_payload if self.up and self._client is not None else PAYLOAD_BYTES_MAX

    def open(self) -> None:
        """Begin to connect, without waiting."""
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="sidecast-nats")

    async def close(self) -> None:
        """End the connection; what was sent and not acknowledged stays unknown."""
        if self._keeper is not None:
            await cancelled(self._keeper, patience_s=2 * CLOSE_S_MAX)
            self._keeper = None

    async def _keep(self) -> None:
        from nats.aio.client import Client

        while True:
            client = Client()
            self._lost.clear()
            try:
                await self._connect(client)
                self._client = client
                self._timeouts = 0
                self._connected()
                logger.info("connected to NATS")
                await self._lost.wait()
            except Exception as error:  # noqa: BLE001 - a broken credentials file raises anything; trying on mends it
                self._tell(error)
                await asyncio.sleep(PAUSE_S_MAX)
            finally:
                # The client is none of ours from here on: its end is no news.
                self._client = None
                self._learn(client)
                await _end(client)

    def _tell(self, error: BaseException) -> None:
        text = f"{type(error).__name__}: {error}"
        if text not in self._told:
            self._told.add(text)
            logger.warning("no connection to NATS: %s; trying on", text)

    def _learn(self, client: Client) -> None:
        # The next client has to know the servers of the cluster that this one was told of.
        told = [uri.geturl() for uri in client.discovered_servers]
        self._servers = list(dict.fromkeys([*self._servers, *told]))

    async def _connect(self, client: Client) -> None:
        told = False

        async def trouble(error: Exception) -> None:
            nonlocal told
            (logger.debug if told else logger.warning)("NATS: %s", str(error) or type(error).__name__)
            told = True

        async def disconnected() -> None:
            if self._client is client:
                logger.warning("disconnected from NATS; events wait until it is back")
                # nats-py calls this in its task that reconnects, and nobody else learns that it broke.
                task = asyncio.current_task()
                assert task is not None
                task.add_done_callback(reconnecting_ended)

        def reconnecting_ended(task: asyncio.Task[Any]) -> None:
            error = None if task.cancelled() else task.exception()
            if error is not None and self._client is client:
                self._tell(error)
                self._client = None
                self._lost.set()

        async def reconnected() -> None:
            nonlocal told
            told = False
            logger.info("reconnected to NATS")
            self._connected()

        async def closed() -> None:
            if self._client is client:
                self._lost.set()

        await client.connect(
            **{
                "servers": self._servers,
                "name": "sidecast-publisher",
                "connect_timeout": 2,
                "reconnect_time_wait": 0.25,
                "ping_interval": 10,
                "max_outstanding_pings": 2,
                **self._options,
                # Order and retries are ours: nats-py must not send what it held back over a reconnect.
                "pending_size": 0,
                "allow_reconnect": True,
                "max_reconnect_attempts": -1,
                "error_cb": trouble,
                "disconnected_cb": disconnected,
                "reconnected_cb": reconnected,
                "closed_cb": closed,
            }
        )

    def _connected(self) -> None:
        self.reconnects += 1
        self._told.clear()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def pause(self, failures: int) -> None:
        """Wait before trying again: longer with each failure, and until there is a connection to try on."""
        pause_s = min(PAUSE_S_MAX, PAUSE_S_MIN * 2 ** min(failures, 10))
        changed = self._changed
        if not self.up:
            await changed.wait()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await changed.wait()

    async def publish(self, subject: str, messages: Sequence[Outgoing]) -> Ack:
        """Publish messages, the last with a request for the acknowledgement, and wait for it.

        Raises:
            Unreachable: no answer; some, all or none may be stored.
        """
        *first, last = messages
        data = await self._request(subject, last, first)
        try:
            return _decode_ack(data)
        except msgspec.MsgspecError as error:
            raise Unreachable(f"not an acknowledgement: {data[:80]!r}") from error

    async def last_record(self, subject: str) -> Stored:
        """Ask the stream's leader for a subject's last record.

        Direct get is no alternative: a replica that answers it may be behind (measured: 1 % right after an
        acknowledgement).

        Raises:
            Unreachable: no answer, or there is no such stream.
        """
        request = msgspec.json.encode({"last_by_subj": subject})
        data = await self._request(f"$JS.API.STREAM.MSG.GET.{self._stream}", Outgoing(request, {}))
        try:
            answer = _decode_answer(data)
            if answer.message is not None:
                return _stored(answer.message)
        except (msgspec.MsgspecError, binascii.Error) as error:
            raise Unreachable(f"not an answer about a record: {data[:80]!r}") from error
        if answer.error is not None and answer.error.err_code == MESSAGE_NOT_FOUND:
            return Stored()
        raise Unreachable(answer.error.description if answer.error else "an empty answer")

    async def _request(self, subject: str, message: Outgoing, before: Sequence[Outgoing] = ()) -> bytes:
        from nats.errors import Error

        client = self._client
        if client is None or not client.is_connected:
            raise Unreachable("not connected")
        try:
            for each in before:
                await client.publish(subject, each.payload, headers=each.headers)
            answer = await client.request(
                subject, message.payload, timeout=REQUEST_S_MAX, headers=message.headers or None
            )
        except TimeoutError as error:
            self._timeouts += 1
            if self._timeouts >= 2:
                await self._probe(client)
            raise Unreachable("no answer in time") from error
        except (Error, OSError) as error:
            raise Unreachable(str(error)) from error
        self._timeouts = 0
        data: bytes = answer.data
        return data

    async def _probe(self, client: Client) -> None:
        # A frozen server, or a read loop of nats-py that died, leaves a connection that only looks alive.
        from nats.errors import Error

        if self._probing:
            return
        self._probing = True
        try:
            # `flush` answers at once when the read loop is dead; `rtt`, where nats-py has it, does not.
            await getattr(client, "rtt", client.flush)(PROBE_S_MAX)
        except (Error, OSError):
            if client is self._client:
                logger.warning("the connection to NATS is dead; making another")
                self._client = None
                self._lost.set()
        finally:
            self._probing = False


async def cancelled(task: asyncio.Task[None], patience_s: float = 0.1) -> None:
    """Cancel a task that uses nats-py, and wait for its end.

    Args:
        task: the task.
        patience_s: how long its clean-up may take before it is cancelled again, because nats-py swallows a
            cancellation here and there.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=patience_s)


async def _end(client: Client) -> None:
    from nats.errors import Error

    # nats-py asserts that the client came as far as to try an address.
    with contextlib.suppress(OSError, Error, TimeoutError, AssertionError):
        async with asyncio.timeout(CLOSE_S_MAX):
            await client.close()
    # Closing waits for the peer to read what was written, and a frozen peer never does.
    writer = getattr(getattr(client, "_transport", None), "_io_writer", None)
    if writer is not None:
        writer.transport.abort()


def _stored(found: _Found) -> Stored:
    fields: dict[str, str] = {}
    for line in base64.b64decode(found.hdrs).decode("utf-8", "replace").split("\r\n")[1:]:
        name, separator, value = line.partition(":")
        if separator:
            fields[name] = value.strip()
    return Stored(
        found.seq,
        fields.get(headers.PRODUCER, ""),
        fields.get(headers.MSG_ID, ""),
        fields.get(headers.STATE, ""),
    )
