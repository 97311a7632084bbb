"""JetStream in memory: what a nats-server stores and republishes, with every fault at the turn of a knob.

Must not know tasks, logs or clients. The contract tests run the same cases against this and a real server.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, NoReturn

import msgspec

from sidecast_broker.answers import (
    NO_MESSAGE,
    STREAM_NOT_FOUND,
    Away,
    Headers,
    Page,
    PublishAnswer,
    PublishConflict,
    PublishRefused,
    StreamInfo,
    parse_time,
    stored_from,
)
from sidecast_broker.consumers import CONSUMER_NOT_FOUND, CONSUMERS_FULL
from sidecast_broker.core.cursor import epoch_of_creation
from sidecast_broker.core.log import Stored
from sidecast_broker.jetstream import JetStream
from sidecast_broker.settings import Nats
from sidecast_schemas import headers as names
from sidecast_schemas.subjects import EVENTS_PREFIX, LIVE_PREFIX

Handler = Callable[[Stored], None]

PAYLOAD_BYTES_MAX = 1024 * 1024


class Faults:
    """What goes wrong between a stream and the tails of one broker; shared by the double and the real one.

    Attributes:
        lost: live messages that were lost.
        reads: pages that were asked for.
    """

    def __init__(self) -> None:
        self.lost = 0
        self.reads = 0
        self._to_lose = 0
        self._held: list[tuple[Handler, Stored]] | None = None
        self._stale_reads = 0
        self._stale_end = 0
        self._stale_newest = 0
        self._short_reads = 0
        self._short_count = 0
        self._stalled: str | None = None
        self._gate = asyncio.Event()
        self._gate.set()

    def lose(self, count: int) -> None:
        """Lose the next so many live messages."""
        self._to_lose = count

    def hold(self) -> None:
        """Keep live messages back until `release`."""
        self._held = []

    @property
    def held(self) -> int:
        """How many live messages are kept back."""
        return len(self._held or ())

    async def release(self, *order: int) -> None:
        """Deliver the messages kept back, those named by index in this order; the others are lost."""
        held, self._held = self._held or [], None
        for index in order:
            handler, stored = held[index]
            handler(stored)

    def answer_stale(self, reads: int, end: int, newest: int = 0) -> None:
        """Have the next reads answered by a replica that knows nothing above a sequence.

        Args:
            reads: so many pages.
            end: the last sequence the replica has.
            newest: so many questions for the newest messages (only the double can do it).
        """
        self._stale_reads, self._stale_end, self._stale_newest = reads, end, newest

    def answer_short(self, reads: int, count: int) -> None:
        """Have the next reads answered by at most so many messages each."""
        self._short_reads, self._short_count = reads, count

    def stall(self, subject: str | None = None) -> None:
        """Leave reads, or only those of one subject, without an answer until `flow`."""
        self._stalled = subject
        self._gate.clear()

    def flow(self) -> None:
        """Answer reads again."""
        self._gate.set()

    def through(self, handler: Handler) -> Handler:
        """Give a handler of live messages that suffers from these faults."""

        def faulty(stored: Stored) -> None:
            if self._to_lose:
                self._to_lose -= 1
                self.lost += 1
            elif self._held is not None:
                self._held.append((handler, stored))
            else:
                handler(stored)

        return faulty

    async def spoil(self, page: Page, subject: str) -> Page:
        """Give a page as a faulty replica would have answered."""
        self.reads += 1
        if self._stalled in (None, subject):
            await self._gate.wait()
        if self._stale_reads:
            self._stale_reads -= 1
            page = Page([stored for stored in page.records if stored.sequence <= self._stale_end], 0)
        if self._short_reads:
            self._short_reads -= 1
            page = Page(page.records[: self._short_count], page.pending + len(page.records))
        return page

    def newest_is_stale(self) -> bool:
        """Tell whether the replica asked now is behind."""
        if self._stale_newest:
            self._stale_newest -= 1
            return True
        return False


class FaultyJetStream(JetStream):
    """The real connection, with faults between the server and the tails."""

    def __init__(self, settings: Nats, on_doubt: Callable[[str], None], faults: Faults) -> None:
        super().__init__(settings, on_doubt)
        self._faults = faults

    async def subscribe(self, token: object, subject: str, handler: Handler) -> None:
        await super().subscribe(token, subject, self._faults.through(handler))

    async def read(self, subject: str, start: int, count_max: int | None = None) -> Page:
        return await self._faults.spoil(await super().read(subject, start, count_max), subject)


class _Message(NamedTuple):
    sequence: int
    previous: int
    at: str
    subject: str
    headers: dict[str, str]
    payload: bytes


_now_ms = itertools.count(1_700_000_000_000)
"""The time: no two messages or streams are of the same millisecond."""


def _at(ms: float) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="microseconds")[:-6] + "000Z"


class FakeServer:
    """Stands in for nats-server and the one stream on it.

    Attributes:
        away: whether it can't be reached.
        leaderless: whether it is connected, but the stream's leader can't be seen.
        messages: what is stored, by sequence.
        last: the newest sequence ever given.
        created: when the stream was made, as the server writes it.
        epoch: of the stream's metadata; None: none is written there.
        exists: whether there is a stream.
        publishes_to_lose: so many publishes don't reach the server.
        acks_to_lose: so many acknowledgements don't reach the publisher.
        gate: while it is closed, publishes are on their way.
    """

    def __init__(self) -> None:
        self.away = False
        self.leaderless = False
        self.messages: dict[int, _Message] = {}
        self.last = 0
        self.created = ""
        self.epoch: str | None = None
        self.exists = False
        self.publishes_to_lose = 0
        self.acks_to_lose = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self._of: dict[str, dict[int, _Message]] = {}
        self._buckets: dict[str, dict[str, _Message]] = {}
        self._buckets_created: dict[str, str] = {}
        self._message_ids: dict[str, int] = {}
        self._connections: set[FakeJetStream] = set()

    def create(self, epoch: str | None = "epoch1") -> None:
        """Make the stream, in the place of the one there was."""
        self.exists = True
        self._forget(list(self.messages))
        self._message_ids.clear()
        self.last = 0
        self.created = _at(next(_now_ms))
        self.epoch = epoch

    def delete_stream(self) -> None:
        """Remove the stream."""
        self.exists = False
        self._forget(list(self.messages))
        self.last = 0

    def _forget(self, sequences: Collection[int]) -> None:
        for sequence in sequences:
            del self._of[self.messages.pop(sequence).subject][sequence]

    # ------------------------------------------------------------------ faults of the server

    def go_away(self) -> None:
        """Break all connections and refuse new ones."""
        self.away = True

    def come_back(self) -> None:
        """Let the connections come back."""
        self.away = False
        for connection in self._connections:
            connection.doubt("reconnected")

    def purge(self, subject: str | None = None, keep_from: int | None = None) -> None:
        """Remove the messages of a subject, or of all, below a sequence where one is given."""
        messages = self.messages if subject is None else self._of.get(subject, {})
        self._forget([sequence for sequence in messages if keep_from is None or sequence < keep_from])

    def delete(self, sequence: int) -> None:
        """Remove one message."""
        self._forget([sequence])

    def go_backwards(self, last: int) -> None:
        """Forget what came after a sequence, as a server does that is restored from an older disk."""
        self.last = last
        self._forget([sequence for sequence in self.messages if sequence > last])
        self._message_ids = {key: at for key, at in self._message_ids.items() if at <= last}

    # ------------------------------------------------------------------ what connections ask

    def attach(self, connection: FakeJetStream) -> None:
        """Accept a connection."""
        self._connections.add(connection)

    def detach(self, connection: FakeJetStream) -> None:
        """Know that a connection is closed."""
        self._connections.discard(connection)

    def info(self) -> StreamInfo:
        """Give the stream's state."""
        epoch = self.epoch or epoch_of_creation(int(parse_time(self.created) * 1000))
        if not self.messages:
            first = self.last + 1 if self.last else 0
            return StreamInfo(epoch, self.created, first, self.last, 0)
        first = min(self.messages)
        return StreamInfo(epoch, self.created, first, self.last, self.last - first + 1 - len(self.messages))

    def of(self, subject: str) -> list[_Message]:
        """Give a subject's messages, or those of all that a pattern matches, oldest first."""
        if "*" in subject:
            return sorted(message for messages in self.matching([subject]) for message in messages)
        return list(self._of.get(subject, {}).values())

    def matching(self, patterns: Iterable[str]) -> list[list[_Message]]:
        """Give the messages of each subject that a pattern, perhaps with wildcards, matches."""
        expressions = [re.escape(pattern).replace(r"\*", "[^.]+").replace(">", ".+") for pattern in patterns]
        found = [subject for subject in self._of if any(re.fullmatch(e, subject) for e in expressions)]
        return [messages for subject in found if (messages := self.of(subject))]

    def publish(self, subject: str, payload: bytes, headers: dict[str, str]) -> int:
        """Store a message and republish it; give its sequence."""
        if subject.startswith("$KV."):
            return self._put(subject, payload, headers)
        if not subject.startswith(EVENTS_PREFIX + "."):
            raise Away("publish: nats: no responders available for request")
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise PublishRefused(f"an event may have at most {PAYLOAD_BYTES_MAX} bytes")
        message_id = headers.get(names.MSG_ID)
        if message_id is not None and message_id in self._message_ids:
            return self._message_ids[message_id]
        of_subject = self._of.setdefault(subject, {})
        previous = next(reversed(of_subject), 0)
        if int(headers.get(names.EXPECTED_LAST_SUBJECT_SEQUENCE, previous)) != previous:
            raise PublishConflict(f"wrong last sequence: {previous}")
        self.last += 1
        at = _at(next(_now_ms))
        message = _Message(self.last, previous, at, subject, dict(headers), payload)
        self.messages[self.last] = of_subject[self.last] = message
        if message_id is not None:
            self._message_ids[message_id] = self.last
        live = subject.replace(EVENTS_PREFIX, LIVE_PREFIX, 1)
        self.deliver(live, payload, _with_server_headers(message, message.previous))
        return self.last

    def _put(self, subject: str, payload: bytes, headers: dict[str, str]) -> int:
        """Store the value of a key-value bucket; give its revision."""
        bucket = self._buckets.get(f"KV_{subject.split('.')[1]}")
        if bucket is None:
            raise Away("publish: nats: no responders available for request")
        previous = bucket[subject].sequence if subject in bucket else 0
        if int(headers.get(names.EXPECTED_LAST_SUBJECT_SEQUENCE, previous)) != previous:
            raise PublishConflict(f"wrong last sequence: {previous}")
        sequence = 1 + _last(bucket)
        bucket[subject] = _Message(sequence, previous, _at(next(_now_ms)), subject, dict(headers), payload)
        return sequence

    def api(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Answer what is asked of the API about key-value buckets, and as one that takes no consumer."""
        if path.startswith("CONSUMER."):
            if path.startswith("CONSUMER.NAMES."):
                return {"consumers": [], "total": 0}
            code = CONSUMERS_FULL if path.startswith("CONSUMER.CREATE.") else CONSUMER_NOT_FOUND
            return {"error": {"code": 404, "err_code": code, "description": "no consumer is kept here"}}
        operation, _, name = path.rpartition(".")
        if operation == "STREAM.CREATE" and name not in self._buckets:
            self._buckets[name] = {}
            self._buckets_created[name] = _at(next(_now_ms))
        bucket = self._buckets.get(name)
        if bucket is None:
            return {"error": {"code": 404, "err_code": STREAM_NOT_FOUND, "description": "stream not found"}}
        if operation != "STREAM.MSG.GET":
            state = {"last_seq": _last(bucket)}
            created = self._buckets_created[name]
            return {"config": body, "created": created, "ts": _at(next(_now_ms)), "state": state}
        if "next_by_subj" in body:
            later = (each for each in bucket.values() if each.sequence >= body["seq"])
            found = min(later, default=None)
        else:
            found = bucket.get(body["last_by_subj"])
        if found is None:
            return {"error": {"code": 404, "err_code": NO_MESSAGE, "description": "no message found"}}
        message = {"subject": found.subject, "seq": found.sequence, "time": found.at, "data": found.payload}
        return {"message": message | {"hdrs": _block(found.headers).block}}

    def delete_bucket(self, name: str) -> None:
        """Remove a key-value bucket."""
        del self._buckets[f"KV_{name}"]

    def is_attended(self, subject: str) -> bool:
        """Tell whether any connection attends a subject."""
        return any(subject in connection.attending.values() for connection in self._connections)

    def deliver(self, subject: str, payload: bytes, headers: dict[str, str] | None) -> None:
        """Hand a core message to all who have subscribed to its subject."""
        if not self.away:
            for connection in self._connections:
                connection.deliver(subject, payload, headers)


def _last(bucket: dict[str, _Message]) -> int:
    return max((each.sequence for each in bucket.values()), default=0)


def _with_server_headers(message: _Message, previous: int) -> dict[str, str]:
    return {
        **message.headers,
        "Nats-Stream": "SIDECAST",
        names.SUBJECT: message.subject,
        names.SEQUENCE: str(message.sequence),
        names.TIME_STAMP: message.at,
        names.LAST_SEQUENCE: str(previous),
    }


class _Subscription:
    """Hands records to a handler in order, each in a turn of its own."""

    def __init__(self, subject: str, handler: Handler) -> None:
        self.subject = subject
        self.queue: asyncio.Queue[Stored] = asyncio.Queue()
        self._handler = handler
        self._task = asyncio.get_running_loop().create_task(self._run())

    def receives(self, subject: str) -> bool:
        """Tell whether a message on a subject is for it."""
        if not self.subject.endswith(".*"):
            return subject == self.subject
        return subject.rpartition(".")[0] == self.subject[:-2]

    async def _run(self) -> None:
        while True:
            self._handler(await self.queue.get())

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


def _block(headers: dict[str, str]) -> Headers:
    """Write headers as they stand on the wire."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return Headers(f"NATS/1.0\r\n{lines}\r\n".encode())


class FakeJetStream:
    """Does for a broker what `sidecast_broker.jetstream.JetStream` does, out of a `FakeServer`.

    Args:
        server: what it is connected to.
        settings: page size, and whether the stream is made where it is missing.
        on_doubt: called when messages may have been lost.
        faults: what goes wrong on the way.
    """

    def __init__(
        self, server: FakeServer, settings: Nats, on_doubt: Callable[[str], None], faults: Faults
    ) -> None:
        self.doubt = on_doubt
        self.reconnects: list[str] = []
        self._server = server
        self._settings = settings
        self._faults = faults
        self._subscriptions: dict[object, _Subscription] = {}
        self._started = False
        self.attending: dict[object, str] = {}
        self._listening: dict[object, tuple[str, Callable[[], None]]] = {}

    @property
    def connected(self) -> bool:
        return self._started and not self._server.away

    def start(self) -> None:
        self._started = True
        self._server.attach(self)
        if not self._server.away:
            self.doubt("connected")

    async def close(self) -> None:
        self._started = False
        self._server.detach(self)
        for token in list(self._subscriptions):
            await self.unsubscribe(token)

    async def reconnect(self, reason: str) -> None:
        self.reconnects.append(reason)
        self.doubt("connected")

    def deliver(self, subject: str, payload: bytes, headers: dict[str, str] | None) -> None:
        """Take a core message from the server."""
        for subscription in self._subscriptions.values():
            if subscription.receives(subject):
                with contextlib.suppress(KeyError, ValueError):  # only the server republishes
                    subscription.queue.put_nowait(stored_from(_block(headers or {}), payload))
        for wanted, heard in list(self._listening.values()):
            if wanted == subject:
                heard()

    async def subscribe(self, token: object, subject: str, handler: Handler) -> None:
        await self._ask(leader=False)
        self._subscriptions[token] = _Subscription(subject, self._faults.through(handler))

    async def attend(self, token: object, subject: str) -> None:
        await self._ask(leader=False)
        self.attending[token] = subject

    async def attended(self, subject: str) -> bool:
        await self._ask(leader=False)
        return self._server.is_attended(subject)

    async def listen(self, token: object, subject: str, heard: Callable[[], None]) -> None:
        await self._ask(leader=False)
        self._listening[token] = (subject, heard)

    def client(self) -> NoReturn:
        """Refuse: there are no consumers here, and what uses them is tested at a real server."""
        raise Away("the double has no connection of its own")

    async def unsubscribe(self, token: object) -> None:
        self.attending.pop(token, None)
        self._listening.pop(token, None)
        subscription = self._subscriptions.pop(token, None)
        if subscription is not None:
            await subscription.close()

    async def info(self) -> StreamInfo:
        await self._ask()
        if not self._server.exists:
            if not self._settings.manage_stream:
                raise Away(f"stream {self._settings.stream} does not exist and nats.manage_stream is off")
            self._server.create(epoch_of_creation(next(_now_ms)))
        return self._server.info()

    async def renew_epoch(self, old: str) -> None:
        await self._ask()
        if (self._server.epoch or old) == old:
            self._server.epoch = epoch_of_creation(next(_now_ms))

    async def last(self, subject: str) -> Stored | None:
        await self._ask()
        messages = self._server.of(subject)
        return _stored(messages[-1], 0) if messages else None

    async def at(self, sequence: int) -> Stored | None:
        await self._ask()
        message = self._server.messages.get(sequence)
        return _stored(message, 0) if message else None

    async def next(self, subject: str, sequence: int) -> Stored | None:
        await self._ask()
        found = (message for message in self._server.of(subject) if message.sequence >= sequence)
        message = next(found, None)
        return _stored(message, 0) if message else None

    async def read(self, subject: str, start: int, count_max: int | None = None) -> Page:
        await self._ask(leader=False)
        found = [message for message in self._server.of(subject) if message.sequence >= start]
        taken = found[: count_max or self._settings.page_events]
        previous = (0, *(message.sequence for message in taken))
        page = Page([_stored(*pair) for pair in zip(taken, previous, strict=False)], len(found) - len(taken))
        page = await self._faults.spoil(page, subject)
        await self._ask(leader=False)
        return page

    async def newest(self, subjects: Iterable[str], above: int, last: int) -> dict[str, int]:
        await self._ask(leader=False)
        wanted = set(subjects)
        for _attempt in range(5):
            if not self._faults.newest_is_stale():
                break
            await asyncio.sleep(0.01)
        else:
            raise Away("every answering replica is behind the leader")
        messages = self._server.messages.values()
        return {m.subject: m.sequence for m in messages if m.subject in wanted and m.sequence > above}

    async def last_of(self, subjects: Sequence[str], above: int) -> list[Stored]:
        await self._ask(leader=False)
        found = [messages[-1] for messages in self._server.matching(subjects)]
        return [_stored(m, 0) for m in sorted(found) if m.sequence > above]

    async def subjects(self, pattern: str) -> list[str]:
        await self._ask()
        return [messages[0].subject for messages in self._server.matching([pattern])]

    async def publish(self, subject: str, payload: bytes, headers: dict[str, str]) -> PublishAnswer:
        await self._ask()
        before = len(self._server.messages)
        await self._server.gate.wait()
        if self._server.publishes_to_lose:
            self._server.publishes_to_lose -= 1
            raise Away("publish: nats: timeout")
        sequence = self._server.publish(subject, payload, headers)
        if self._server.acks_to_lose:
            self._server.acks_to_lose -= 1
            raise Away("publish: nats: timeout")
        return PublishAnswer(sequence, duplicate=len(self._server.messages) == before)

    async def api(self, path: str, body: dict[str, Any] | None = None) -> bytes:
        await self._ask()
        return msgspec.json.encode(self._server.api(path, body or {}))

    async def _ask(self, *, leader: bool = True) -> None:
        await asyncio.sleep(0)
        if not self.connected:
            raise Away("not connected to NATS")
        if leader and self._server.leaderless:
            raise Away("no leader")


def _stored(message: _Message, previous: int) -> Stored:
    headers = _with_server_headers(message, previous)
    return Stored(message.sequence, previous, message.at, headers, message.payload)
