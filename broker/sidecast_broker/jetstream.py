"""The broker's connection to NATS JetStream: the stream, what the leader says, and reads of stored records.

Must not know tasks' logs or subscribers. The only module beside the tail that speaks to NATS.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from sidecast_broker.answers import (
    NO_MESSAGE,
    STREAM_NOT_FOUND,
    Away,
    Headers,
    InfoAnswer,
    Page,
    PublishAnswer,
    PublishConflict,
    PublishRefused,
    StreamInfo,
    TooManyResults,
    Unusable,
    decode_ack,
    decode_info,
    decode_message,
    decode_subjects,
    parse_time,
    stored_from,
)
from sidecast_broker.client import Receive, ShortClient
from sidecast_broker.configuration import mask_url
from sidecast_broker.core.cursor import epoch_of_creation, is_epoch
from sidecast_broker.core.log import Stored
from sidecast_broker.nats_credentials import connect_options
from sidecast_broker.settings import Nats
from sidecast_broker.stream_config import desired_config, differences, unusable_because
from sidecast_schemas import headers as names

logger = structlog.get_logger(__name__)

_encode = msgspec.json.encode

SUBJECTS_PER_REQUEST = 256
PAGE_BYTES_MAX = 4 * 1024 * 1024
READ_ATTEMPTS = 4
"""A read that no replica has begun to answer is asked for so often within `nats.request_s`."""
REPLICA_S = 0.05
"""A replica that is behind gets, or another is picked after, so long."""
PING_S_MAX = 10
CLOSE_S_MAX = 1.0
ATTENDED_S = 1.0
"""Who is there answers in a round trip; who is not is known at once, but where its host was cut off."""

_WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
"""The second where the publish that was first is still on its way to the replicas."""


class JetStream:
    """One connection to NATS that comes back by itself, and the stream behind it.

    Args:
        settings: where NATS is, and how the stream is made where the broker makes it.
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
        self._reads: dict[str, _Read] = {}
        self._read_count = 0
        self._read_inbox = ""
        self._history_slots = asyncio.Semaphore(settings.history_reads_max)
        self._resubscribe: dict[object, tuple[str, Callable[[Stored], None]]] = {}
        self._attended: dict[object, tuple[str, Callable[[Msg], Awaitable[None]]]] = {}
        self._subscriptions: dict[object, Subscription] = {}
        self._reported: object = None
        self._examined: object = None
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
        self._read_inbox = client.new_inbox()
        await client.receive(f"{self._read_inbox}.*", self._on_read)
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
        client = self._ready_client()
        try:
            self._subscriptions[token] = await client.receive(subject, _live(handler))
            self._resubscribe[token] = (subject, handler)
            await self._round_trip(client)
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
        client = self._ready_client()
        self._attended[token] = (subject, attend)
        try:
            self._subscriptions[token] = await client.subscribe(subject, cb=attend)
            await self._round_trip(client)
        except (TimeoutError, nats.errors.Error, OSError) as error:
            await self.unsubscribe(token)
            raise Away(f"can't subscribe: {error}") from error

    async def attended(self, subject: str) -> bool:
        """Ask whether anybody attends a subject: at once where the servers know of none.

        Raises:
            Away: NATS can't be reached.
        """
        client = self._ready_client()
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

    async def _round_trip(self, client: Client) -> None:
        self._read_count += 1
        read = _Read()
        key = str(self._read_count)
        self._reads[key] = read
        try:
            await client.publish(f"{self._read_inbox}.{key}", b"", headers=None)
            await asyncio.wait_for(read.done, self._settings.request_s)
        finally:
            del self._reads[key]

    # ------------------------------------------------------------------ the leader's word

    async def info(self) -> StreamInfo:
        """Ask the stream's leader for the stream's state; creates the stream where that is our part.

        Raises:
            Away: no answer; Unusable: the stream can't be worked with.
        """
        answer = await self._info_answer()
        if answer.error is not None and answer.error.err_code == STREAM_NOT_FOUND:
            if not self._settings.manage_stream:
                raise Away(f"stream {self._settings.stream} does not exist and nats.manage_stream is off")
            await self._create()
            answer = await self._info_answer()
        if answer.error is not None:
            raise Away(answer.error.description)
        self._examine(answer)
        state = answer.state
        epoch = (answer.config.get("metadata") or {}).get("sidecast-epoch", "")
        if not is_epoch(epoch):
            epoch = epoch_of_creation(int(parse_time(answer.created) * 1000))
        return StreamInfo(epoch, answer.created, state.first_seq, state.last_seq, state.num_deleted)

    async def _info_answer(self) -> InfoAnswer:
        return decode_info(await self.api(f"STREAM.INFO.{self._settings.stream}"))

    async def _create(self) -> None:
        config = desired_config(self._settings)
        config["metadata"] = {"sidecast-epoch": epoch_of_creation(int(time.time() * 1000))}
        answer = decode_info(await self.api(f"STREAM.CREATE.{self._settings.stream}", config))
        if answer.error is not None:
            raise Away(f"can't create stream {self._settings.stream}: {answer.error.description}")
        logger.info("stream_created", stream=self._settings.stream, replicas=self._settings.replicas)

    def _examine(self, answer: InfoAnswer) -> None:
        reasons = unusable_because(answer.config)
        different = differences(answer.config, desired_config(self._settings))
        report = (tuple(reasons), tuple(different.items()))
        if report != self._examined and (reasons or different):
            log = logger.error if reasons else logger.warning
            log("stream_differs", stream=self._settings.stream, unusable=reasons, differences=different)
        self._examined = report
        if reasons:
            raise Unusable(f"stream {self._settings.stream} can't be used: {'; '.join(reasons)}")

    async def renew_epoch(self, old: str) -> None:
        """Write a new epoch into the stream's metadata: its sequences went backwards under the old one.

        Another broker may have done so already: then nothing is written.

        Raises:
            Away: no answer, or the update was refused.
        """
        answer = await self._info_answer()
        if answer.error is not None:
            raise Away(answer.error.description)
        epoch = epoch_of_creation(int(time.time() * 1000))
        config = answer.config
        metadata = config.get("metadata") or {}
        if is_epoch(written := metadata.get("sidecast-epoch", "")) and written != old:
            return
        config["metadata"] = {**metadata, "sidecast-epoch": epoch}
        updated = decode_info(await self.api(f"STREAM.UPDATE.{self._settings.stream}", config))
        if updated.error is not None:
            raise Away(f"can't write a new epoch: {updated.error.description}")
        logger.warning("epoch_renewed", epoch=epoch)

    async def last(self, subject: str) -> Stored | None:
        """Ask the leader for the newest message on a subject; None: there is none.

        Raises:
            Away: no answer.
        """
        return await self._message({"last_by_subj": subject})

    async def next(self, subject: str, sequence: int) -> Stored | None:
        """Ask the leader for the first message on a subject at or above a sequence; None: there is none.

        Raises:
            Away: no answer.
        """
        return await self._message({"seq": max(sequence, 1), "next_by_subj": subject})

    async def at(self, sequence: int) -> Stored | None:
        """Ask the leader for the message at a sequence, on whichever subject; None: there is none.

        Raises:
            Away: no answer.
        """
        return await self._message({"seq": sequence}) if sequence > 0 else None

    async def _message(self, request: dict[str, Any]) -> Stored | None:
        answer = decode_message(await self.api(f"STREAM.MSG.GET.{self._settings.stream}", request))
        if answer.message is None:
            if answer.error is not None and answer.error.err_code == NO_MESSAGE:
                return None
            raise Away(answer.error.description if answer.error else "empty answer")
        message = answer.message
        return Stored(
            message.seq,
            0,
            message.time,
            {**Headers(message.hdrs), names.SUBJECT: message.subject},
            message.data,
        )

    async def api(self, path: str, body: dict[str, Any] | None = None) -> bytes:
        """Ask the JetStream API; the answer may be an error of its own.

        Args:
            path: what follows `$JS.API.`.
            body: what is asked.

        Raises:
            Away: no answer.
        """
        client = self._ready_client()
        try:
            answer = await client.request(
                f"$JS.API.{path}", _encode(body) if body else b"", timeout=self._settings.request_s
            )
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise Away(f"{path}: {str(error) or type(error).__name__}") from error
        return answer.data

    def client(self) -> ShortClient:
        """Give the connection, for what its own module asks of NATS.

        Raises:
            Away: it doesn't stand.
        """
        return self._ready_client()

    def _ready_client(self) -> ShortClient:
        if self._client is None or not self._client.is_connected:
            raise Away("not connected to NATS")
        return self._client

    # ------------------------------------------------------------------ reads from any replica

    async def read(self, subject: str, start: int, count_max: int | None = None) -> Page:
        """Read stored messages of a subject in a row from any replica, which may be behind the leader.

        Args:
            subject: the events subject of one task.
            start: messages at or above this sequence.
            count_max: at most so many; default `nats.page_events`.

        Raises:
            Away: no complete answer.
        """
        async with self._history_slots:
            records, end = await self._direct(
                {
                    "seq": max(start, 1),
                    "next_by_subj": subject,
                    "batch": count_max or self._settings.page_events,
                    "max_bytes": PAGE_BYTES_MAX,
                }
            )
        previous = 0
        for stored in records:
            if stored.previous != previous:
                raise Away("a read lost messages on the way")
            previous = stored.sequence
        if records and int(end.get(names.LAST_SEQUENCE, 0)) != previous:
            raise Away("a read lost its last messages on the way")
        return Page(records, int(end.get(names.NUM_PENDING, 0)))

    async def newest(self, subjects: Iterable[str], above: int, last: int) -> dict[str, int]:
        """Give the newest sequence of each subject that has one above `above`.

        Args:
            subjects: events subjects.
            above: what was known before.
            last: the leader's last sequence; an answer of a replica that is behind it doesn't count.

        Raises:
            Away: no complete answer, or only stale ones.
        """
        wanted = list(subjects)
        found: dict[str, int] = {}
        for start in range(0, len(wanted), SUBJECTS_PER_REQUEST):
            batch = wanted[start : start + SUBJECTS_PER_REQUEST]
            request = {"multi_last": batch, "seq": above + 1, "batch": len(batch)}
            for _attempt in range(5):
                records, end = await self._direct(request)
                if end.get(names.STATUS) == "404":
                    # It knows none of the subjects, and doesn't say how far it is: the leader is asked.
                    records = [each for subject in batch if (each := await self.last(subject)) is not None]
                    break
                if int(end.get(names.UP_TO_SEQUENCE, 0)) >= last:
                    break
                await asyncio.sleep(REPLICA_S)
            else:
                raise Away("every answering replica is behind the leader")
            found.update((stored.headers[names.SUBJECT], stored.sequence) for stored in records)
        return found

    async def last_of(self, subjects: Sequence[str], above: int) -> list[Stored]:
        """Give the newest message of each subject that has one above `above`, from any replica, oldest first.

        Args:
            subjects: events subjects, with wildcards or without.
            above: what was known before.

        Raises:
            Away: no complete answer.
            TooManyResults: more subjects match than one answer holds, whatever `above` is.
        """
        found: list[Stored] = []
        while True:
            # Without `batch` the server would answer with one message only.
            request = {"multi_last": list(subjects), "batch": 1024, "max_bytes": PAGE_BYTES_MAX}
            records, end = await self._direct(request | {"seq": above + 1})
            found += records
            if not records or int(end.get(names.NUM_PENDING, 0)) == 0:
                return found
            above = records[-1].sequence

    async def subjects(self, pattern: str) -> list[str]:
        """Ask the leader which subjects hold messages, at most the 100,000 of one answer.

        Raises:
            Away: no answer.
        """
        answer = decode_subjects(
            await self.api(f"STREAM.INFO.{self._settings.stream}", {"subjects_filter": pattern})
        )
        if answer.error is not None:
            raise Away(answer.error.description)
        return list(answer.state.subjects)

    async def _direct(self, request: dict[str, Any]) -> tuple[list[Stored], dict[str, str]]:
        """Ask whichever replica the server picks, and perhaps another where that one says nothing.

        A frozen replica is still picked, for minutes, until the others take its connection for dead.
        """
        asked: dict[str, _Read] = {}
        try:
            async with asyncio.timeout(self._settings.request_s):
                while not (answered := [read for read in asked.values() if read.done.done()]):
                    if not any(read.records for read in asked.values()):
                        key, read = await self._ask(_encode(request))
                        asked[key] = read
                    await asyncio.wait(
                        [read.done for read in asked.values()],
                        timeout=self._settings.request_s / READ_ATTEMPTS,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise Away(f"direct get: {str(error) or type(error).__name__}") from error
        finally:
            for key in asked:
                del self._reads[key]
        end = answered[0].done.result()
        if end.get(names.STATUS) == "413":
            raise TooManyResults("direct get: too many results")
        if end.get(names.STATUS) not in ("204", "404"):
            raise Away(f"direct get: {end.get(names.STATUS)} {end.get('Description', '')}")
        return answered[0].records, end

    async def _ask(self, request: bytes) -> tuple[str, _Read]:
        client = self._ready_client()
        self._read_count += 1
        key = str(self._read_count)
        read = self._reads[key] = _Read()
        try:
            subject = f"$JS.API.DIRECT.GET.{self._settings.stream}"
            await client.publish(subject, request, reply=f"{self._read_inbox}.{key}")
        except BaseException:
            del self._reads[key]
            raise
        return key, read

    def _on_read(self, subject: bytes, block: bytes, payload: bytes) -> None:
        read = self._reads.get(subject[len(self._read_inbox) + 1 :].decode())
        if read is None:
            return
        headers = Headers(block)
        if headers.status is None and names.SEQUENCE in headers:
            read.records.append(stored_from(headers, payload))
        elif not read.done.done():
            read.done.set_result({**headers, names.STATUS: headers.status or ""})

    # ------------------------------------------------------------------ publishing

    async def publish(self, subject: str, payload: bytes, headers: dict[str, str]) -> PublishAnswer:
        """Publish one message and wait until it is stored; give where, and whether it was there before.

        Raises:
            Away: no acknowledgement; it may be stored or not.
            PublishConflict: the last sequence is another than `Nats-Expected-Last-Subject-Sequence` says.
            PublishRefused: the server says why it won't store it.
        """
        client = self._ready_client()
        try:
            answer = await client.request(
                subject, payload, timeout=self._settings.request_s, headers=headers or None
            )
        except nats.errors.MaxPayloadError as error:
            raise PublishRefused(f"an event may have at most {client.max_payload} bytes") from error
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise Away(f"publish: {str(error) or type(error).__name__}") from error
        ack = decode_ack(answer.data)
        if ack.error is not None:
            if ack.error.code >= 500:
                raise Away(ack.error.description)
            if ack.error.err_code in _WRONG_LAST_SEQUENCE:
                raise PublishConflict(ack.error.description)
            raise PublishRefused(ack.error.description)
        return ack


class _Read:
    """The replies of one direct get as they come in."""

    __slots__ = ("done", "records")

    def __init__(self) -> None:
        self.records: list[Stored] = []
        self.done: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()


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
