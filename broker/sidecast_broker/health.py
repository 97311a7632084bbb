"""The internal listener: health, metrics, who is connected, and publishing without an adapter.

Must not know how streams are served.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from aiohttp import web

from sidecast_broker.answers import Away, PublishAnswer, PublishRefused
from sidecast_broker.auth.access import Access
from sidecast_broker.core.auth.principal import Principal, Right
from sidecast_broker.hubs import Hubs
from sidecast_broker.jetstream import JetStream
from sidecast_broker.metrics import Metrics
from sidecast_broker.operators import Operators
from sidecast_broker.paths import path_segment, query_value
from sidecast_broker.positioner import Positioner
from sidecast_broker.refused import Refused, unknown
from sidecast_broker.router import Route, get, get_or_head, post
from sidecast_broker.settings import Settings
from sidecast_broker.streams import Streams
from sidecast_schemas import headers as names
from sidecast_schemas.codec import Event, InvalidEvent, decode_event
from sidecast_schemas.subjects import InvalidId, TaskKey, encode_token, events_subject

JSON = "application/json"
NDJSON = "application/x-ndjson"


class Internal:
    """Serves the internal listener.

    Args:
        settings: all settings.
        stream: where events are published to.
        positioner: knows the stream's state.
        hubs: the tasks in memory.
        streams: the open streams.
        access: who may do what.
        metrics: what is shown at `/metrics`.
    """

    def __init__(
        self,
        settings: Settings,
        stream: JetStream,
        positioner: Positioner,
        hubs: Hubs,
        streams: Streams,
        access: Access,
        metrics: Metrics,
    ) -> None:
        self._access = access
        self._settings = settings
        self._stream = stream
        self._positioner = positioner
        self._hubs = hubs
        self._streams = streams
        self._metrics = metrics
        self._operators = Operators(settings, access)
        self._orders: WeakValueDictionary[TaskKey, asyncio.Lock] = WeakValueDictionary()

    def probes(self) -> list[Route]:
        """Give the routes that are open to all who reach them."""
        return [
            *get_or_head("/livez", self._live),
            *get_or_head("/readyz", self._ready),
            *get_or_head("/metrics", self._show_metrics),
        ]

    def routes(self) -> list[Route]:
        """Give all routes."""
        return [
            *self.probes(),
            get("/streams", self._list_streams),
            post("/publish/*", self._publish),
        ]

    async def _live(self, _request: web.BaseRequest) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _ready(self, _request: web.BaseRequest) -> web.Response:
        draining = self._streams.draining
        info = self._positioner.info
        body = {
            "status": "draining" if draining else "ok",
            "nats": {
                "connected": self._stream.connected,
                "stream": self._settings.nats.stream,
                "epoch": info.epoch if info else None,
                "last_sequence": info.last if info else None,
            },
            "streams": len(self._streams),
        }
        return web.json_response(body, status=503 if draining else 200)

    async def _show_metrics(self, _request: web.BaseRequest) -> web.Response:
        self._metrics.nats_connected.set(self._stream.connected)
        self._streams.measure()
        self._hubs.measure()
        return web.Response(body=self._metrics.render(), headers={"Content-Type": self._metrics.content_type})

    async def _list_streams(self, request: web.BaseRequest) -> web.Response:
        principal = await self.authorise(request, "admin")
        streams = self._streams.describe()
        if principal.tenant is not None:
            streams = [stream for stream in streams if stream["tenant"] == principal.tenant]
        return web.json_response({"streams": streams})

    async def authorise(self, request: web.BaseRequest, *rights: Right) -> Principal:
        """Let in who may operate this broker, as `Operators` does it."""
        return await self._operators.authorise(request, *rights)

    # ------------------------------------------------------------------ publishing

    async def _publish(self, request: web.BaseRequest) -> web.Response:
        arrived_s = self._access.now()
        principal = await self.authorise(request, "publish", "admin")
        if request.content_type not in (JSON, NDJSON):
            raise Refused("unsupported-media-type", f"send one event as {JSON}, or many as {NDJSON}")
        tenant = self._access.tenant(principal, _given(request, "tenant"))
        if tenant is None:
            await self._access.hold(arrived_s)
            raise unknown()
        key, subject = self._subject(request, tenant)
        body = await request.read()
        lines = [body] if request.content_type == JSON else body.split(b"\n")
        numbered = [(number, line) for number, line in enumerate(lines) if line.strip()]
        if not numbered:
            raise Refused("invalid-event", "the body holds no event")
        pending = [self._decode(number, line, key) for number, line in numbered]
        message_ids = _MessageIds.of(request, subject)
        stored: list[dict[str, Any]] = []
        order = self._orders.setdefault(key, asyncio.Lock())
        async with order:
            owner = await self._owner(request, principal, key)
            for index, event in enumerate(pending):
                try:
                    answer = await self._store(subject, event, message_ids.at(index), owner)
                except Away as away:
                    raise Refused(
                        "unavailable", str(away), retry_after_s=1, extra={"stored": stored}
                    ) from away
                except PublishRefused as refused:
                    raise Refused("publish-refused", str(refused), extra={"stored": stored}) from refused
                line: dict[str, Any] = {"sequence": answer.seq, "id": self._event_id(answer.seq)}
                stored.append(line | {"duplicate": True} if answer.duplicate else line)
        return web.json_response({"stored": stored})

    async def _owner(self, request: web.BaseRequest, principal: Principal, key: TaskKey) -> str | None:
        """Give the owner to name in the records: the one that is asked for, the task's own, who publishes.

        A task that exists keeps its owner whatever later records say; they repeat it, so that it is still
        known when the first one has expired.

        Raises:
            Refused: the name can't be one, or the task's first record can't be looked up.
        """
        if owner := _given(request, "owner"):
            try:
                return encode_token(owner)
            except InvalidId as error:
                raise Refused("bad-request", f"owner: {error}") from error
        if principal.anybody:
            return None
        try:
            first = await self._hubs.first(key)
        except Away as away:
            raise Refused("unavailable", str(away), retry_after_s=1, extra={"stored": []}) from away
        return encode_token(principal.name) if first is None else first.headers.get(names.OWNER)

    def _subject(self, request: web.BaseRequest, tenant: str) -> tuple[TaskKey, str]:
        agent = _given(request, "agent") if "agent" in request.query else self._settings.agent.name
        key = TaskKey(tenant, agent, path_segment(request, 1))
        try:
            return key, events_subject(key)
        except InvalidId as error:
            raise Refused("bad-request", str(error)) from error

    def _decode(self, number: int, line: bytes, key: TaskKey) -> Event:
        try:
            event = decode_event(line)
        except InvalidEvent as error:
            raise Refused(
                "invalid-event",
                f"line {number + 1}: {error}",
                extra={"line": number + 1, "reason": error.reason, "stored": []},
            ) from error
        if event.task_id is not None and event.task_id != key.task:
            raise Refused(
                "invalid-event",
                f"line {number + 1}: the event names task {str(event.task_id)[:80]!r}, the path another one",
                extra={"line": number + 1, "reason": "task-id", "stored": []},
            )
        return event

    async def _store(self, subject: str, event: Event, message_id: str, owner: str | None) -> PublishAnswer:
        headers = {names.MSG_ID: message_id}
        if owner is not None:
            headers[names.OWNER] = owner
        if event.state is not None:
            headers[names.STATE] = event.state
        return await self._stream.publish(subject, event.payload, headers)

    def _event_id(self, sequence: int) -> str | None:
        info = self._positioner.info
        return f"{info.epoch}-{sequence}" if info else None


def _given(request: web.BaseRequest, name: str) -> str:
    """Give a query parameter, empty where there is none."""
    return query_value(request, name) if name in request.query else ""


class _MessageIds(NamedTuple):
    """Deduplication ids of one request, by its `Idempotency-Key` and `Idempotency-Offset`.

    A retry that begins at a later line says so by the offset, and so names its lines as the first try did.
    The server compares ids over the whole stream: one key used for two tasks must give different ones.
    """

    base: str
    offset: int

    @classmethod
    def of(cls, request: web.BaseRequest, subject: str) -> _MessageIds:
        key = request.headers.get("Idempotency-Key")
        offset = request.headers.get("Idempotency-Offset", "0")
        if not (offset.isascii() and offset.isdecimal() and len(offset) <= 18):
            raise Refused("bad-request", "Idempotency-Offset must be a number of lines")
        if key is None:
            return cls(secrets.token_hex(16), 0)
        if not (key.isascii() and key.isprintable() and len(key) <= 128):
            raise Refused("bad-request", "Idempotency-Key must be at most 128 printable ASCII characters")
        return cls(hashlib.sha256(f"{subject} {key}".encode()).hexdigest()[:32], int(offset))

    def at(self, index: int) -> str:
        return f"{self.base}-{self.offset + index}"
