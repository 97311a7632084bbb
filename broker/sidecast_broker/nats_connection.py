"""The broker's connection to NATS: it comes back by itself, and so does what is subscribed to through it.

Must not know what is asked of the stream, nor tasks' logs or subscribers.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from sidecast_broker.answers import Away, Headers, stored_from
from sidecast_broker.client import Receive, ShortClient
from sidecast_broker.core.log import Stored
from sidecast_broker.inbox import Inbox
from sidecast_broker.nats_credentials import connect_options
from sidecast_broker.setting_urls import mask_url
from sidecast_broker.settings import Nats

logger = structlog.get_logger(__name__)

PING_S_MAX = 10
CLOSE_S_MAX = 1.0
ATTENDED_S = 1.0
"""Who is there answers in a round trip; who is not is known at once, but where its host was cut off."""


class NatsConnection:
    """One connection to NATS that comes back by itself.

    Args:
        settings: where NATS is.
        on_doubt: called when messages may have been lost: reconnected, slow consumer, leader elected.

    Attributes:
        on_burst_end: called when all records that came in one go have been handed on.
    """

    def __init__(self, settings: Nats, on_doubt: Callable[[str], None]) -> None:
        self.on_burst_end: Callable[[], None] = lambda: None
        self._settings = settings
        self._on_doubt = on_doubt
        self._client: ShortClient | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._inbox = Inbox(settings.request_s)
        self._resubscribe: dict[object, tuple[str, Callable[[Stored], None]]] = {}
        self._attended: dict[object, tuple[str, Callable[[Msg], Awaitable[None]]]] = {}
        self._subscriptions: dict[object, Subscription] = {}
        self._reported: object = None
        self._closed = False
        self._servers = [url.strip() for url in settings.url.split(",")]
        random.shuffle(self._servers)

    @property
    def connected(self) -> bool:
        """Whether the connection stands; says nothing of the stream."""
        return self._client is not None and self._client.is_connected

    def start(self) -> None:
        """Begin to connect, and keep at it until it works."""
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def close(self) -> None:
        """Close the connection."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
        if self._client is not None:
            await _close_quietly(self._client)
            self._client = None

    async def reconnect(self, reason: str) -> None:
        """Give the connection up and make a new one, perhaps to another server of the cluster."""
        logger.warning("nats_reconnect", reason=reason)
        old, self._client = self._client, None
        if old is not None:
            if (left := old.connected_url) is not None:
                self._servers.sort(key=lambda url: left.netloc in url)
            await _close_quietly(old)
        if not self._closed:
            self.start()

    async def _connect(self) -> None:
        pause_s = 0.1
        while True:
            client = ShortClient(lambda: self.on_burst_end())
            try:
                await client.connect(
                    servers=self._servers,
                    name="sidecast-broker",
                    **connect_options(self._settings),
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=1,
                    connect_timeout=2,
                    # A server that hangs is left before what it holds back is later than twice verify_s.
                    ping_interval=max(1, min(PING_S_MAX, int(self._settings.verify_s * 0.3))),
                    max_outstanding_pings=3,
                    # The server left last is tried last: nats-py keeps the order, and would shuffle it.
                    dont_randomize=True,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnected,
                    reconnected_cb=self._on_reconnected,
                    closed_cb=partial(self._on_closed, client),
                )
                await self._subscribe_all(client)
            except Exception as error:  # noqa: BLE001 - a bad credentials file raises one of many; try again
                self._report(error)
                await _close_quietly(client)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, 2.0)
                continue
            self._client = client
            self._reported = None
            server = client.connected_url
            logger.info("nats_connected", server=f"{server.hostname}:{server.port}" if server else "")
            self._on_doubt("connected")
            return

    async def _subscribe_all(self, client: ShortClient) -> None:
        await self._inbox.open(client)
        advisory = f"$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.{self._settings.stream}"
        await client.subscribe(advisory, cb=self._on_leader_elected)
        subscriptions = {}
        for token, (subject, handler) in list(self._resubscribe.items()):
            subscriptions[token] = await client.receive(subject, _live(handler))
        for token, (subject, attend) in list(self._attended.items()):
            subscriptions[token] = await client.subscribe(subject, cb=attend)
        while (
            dropped := subscriptions.keys() - self._resubscribe.keys() - self._attended.keys()
        ):  # while others were subscribed
            for token in dropped:
                await client.forget(subscriptions.pop(token))
        self._subscriptions = subscriptions

    async def _on_error(self, error: Exception) -> None:
        if isinstance(error, nats.errors.SlowConsumerError):
            self._on_doubt("slow-consumer")
        self._report(error)

    def _report(self, error: Exception) -> None:
        """Log what keeps NATS away, once as long as it stays the same."""
        text = str(error) or type(error).__name__
        if self._reported != text:
            self._reported = text
            logger.warning("nats_away", error=text, url=mask_url(self._settings.url))

    async def _on_closed(self, client: ShortClient) -> None:
        # nats-py gives up for good on some errors, for example a credential that was refused once.
        if client is self._client and not self._closed:
            self._client = None
            self.start()

    async def _on_disconnected(self) -> None:
        if not self._closed:
            logger.warning("nats_disconnected")

    async def _on_reconnected(self) -> None:
        self._reported = None
        logger.info("nats_reconnected")
        self._on_doubt("reconnected")

    async def _on_leader_elected(self, _message: Msg) -> None:
        self._on_doubt("leader-elected")

    # ------------------------------------------------------------------ subscriptions

    async def subscribe(self, token: object, subject: str, handler: Callable[[Stored], None]) -> None:
        """Hand on what is republished to a subject, also after a reconnect, until `unsubscribe(token)`.

        Returns once the server has processed the subscription: a round trip through an inbox of the same
        connection (`flush` was seen to return too early).

        Raises:
            Away: NATS can't be reached; nothing is subscribed.
        """
        client = self.client()
        try:
            self._subscriptions[token] = await client.receive(subject, _live(handler))
            self._resubscribe[token] = (subject, handler)
            await self._inbox.round_trip(client)
        except (TimeoutError, nats.errors.Error, OSError) as error:
            await self.unsubscribe(token)
            raise Away(f"can't subscribe: {error}") from error

    async def unsubscribe(self, token: object) -> None:
        """End a subscription; unknown tokens are fine."""
        self._resubscribe.pop(token, None)
        self._attended.pop(token, None)
        subscription = self._subscriptions.pop(token, None)
        if subscription is not None and self._client is not None:
            with contextlib.suppress(nats.errors.Error, OSError):
                await self._client.forget(subscription)

    async def attend(self, token: object, subject: str) -> None:
        """Be there for whoever asks `attended`, also after a reconnect, until `unsubscribe(token)`.

        Raises:
            Away: NATS can't be reached.
        """
        await self._attend(token, subject, _answer)

    async def listen(self, token: object, subject: str, heard: Callable[[], None]) -> None:
        """Call `heard` for each message on a subject, also after a reconnect, until `unsubscribe(token)`.

        Raises:
            Away: NATS can't be reached.
        """

        async def hear(_message: Msg) -> None:
            heard()

        await self._attend(token, subject, hear)

    async def _attend(self, token: object, subject: str, attend: Callable[[Msg], Awaitable[None]]) -> None:
        client = self.client()
        self._attended[token] = (subject, attend)
        try:
            self._subscriptions[token] = await client.subscribe(subject, cb=attend)
            await self._inbox.round_trip(client)
        except (TimeoutError, nats.errors.Error, OSError) as error:
            await self.unsubscribe(token)
            raise Away(f"can't subscribe: {error}") from error

    async def attended(self, subject: str) -> bool:
        """Ask whether anybody attends a subject: at once where the servers know of none.

        Raises:
            Away: NATS can't be reached.
        """
        client = self.client()
        try:
            await client.request(subject, b"", timeout=ATTENDED_S)
        except nats.errors.NoRespondersError:
            return False
        except TimeoutError as error:
            if not client.is_connected:
                raise Away("can't ask: disconnected") from error
            return False
        except (nats.errors.Error, OSError) as error:
            raise Away(f"can't ask: {error}") from error
        return True

    # ------------------------------------------------------------------ requests

    async def api(self, path: str, body: dict[str, Any] | None = None) -> bytes:
        """Ask the JetStream API; the answer may be an error of its own.

        Args:
            path: what follows `$JS.API.`.
            body: what is asked.

        Raises:
            Away: no answer.
        """
        client = self.client()
        try:
            answer = await client.request(
                f"$JS.API.{path}",
                msgspec.json.encode(body) if body else b"",
                timeout=self._settings.request_s,
            )
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise Away(f"{path}: {str(error) or type(error).__name__}") from error
        return answer.data

    def client(self) -> ShortClient:
        """Give the connection, for what its own module asks of NATS.

        Raises:
            Away: it doesn't stand.
        """
        if self._client is None or not self._client.is_connected:
            raise Away("not connected to NATS")
        return self._client


def _live(handler: Callable[[Stored], None]) -> Receive:
    """Give what turns republished messages into records; others are left out: only the server republishes."""

    def receive(_subject: bytes, block: bytes, payload: bytes) -> None:
        try:
            stored = stored_from(Headers(block), payload)
        except (KeyError, ValueError):
            return
        handler(stored)

    return receive


async def _answer(message: Msg) -> None:
    with contextlib.suppress(nats.errors.Error, OSError):
        await message.respond(b"")


async def _close_quietly(client: Client) -> None:
    with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
        # It waits until the server has read what was written, and one that hangs never does.
        async with asyncio.timeout(CLOSE_S_MAX):
            await client.close()
