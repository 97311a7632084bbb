"""One A2A request as it was read: what it asks for, of which task, and what else stands in it.

Must not know how it is answered.
"""

from __future__ import annotations

from typing import NamedTuple, TypedDict

import msgspec
from aiohttp import web
from msgspec import Raw

from sidecast_broker.core.a2a.card import RESUME
from sidecast_broker.core.a2a.envelope import Params
from sidecast_broker.core.a2a.errors import A2AError, ErrorKind, Violation
from sidecast_broker.core.a2a.operations import (
    Operation,
)
from sidecast_broker.core.a2a.target import Call
from sidecast_broker.core.a2a.translate import requests
from sidecast_broker.core.a2a.translate.raw import Untranslatable
from sidecast_broker.core.a2a.wire import (
    Wire,
)
from sidecast_broker.core.auth.principal import Principal
from sidecast_schemas.subjects import TaskKey


class Told(TypedDict):
    """What the agent is told of who asks; None: nothing.

    Attributes:
        principal: their name.
        tenant: the one their request is about.
    """

    principal: str | None
    tenant: str | None


class Asked(NamedTuple):
    """One A2A request, read.

    Attributes:
        call: what its path says.
        operation: what is asked for.
        rpc_id: raw JSON; empty on REST.
        params: what it is called with.
        body: as it was received.
        key: the task it names; its task is empty where it names none.
        references: ids of other tasks its message refers to.
        principal: who asks.
        arrived_s: when the whole request was there.
        first: a sequence of the task's that the leader has named; None: it wasn't asked.
    """

    call: Call
    operation: Operation
    rpc_id: bytes
    params: Params
    body: bytes
    key: TaskKey
    references: list[str]
    principal: Principal
    arrived_s: float
    first: int | None = None

    @property
    def told(self) -> Told:
        """Whom the agent is told to work for, and in which tenant."""
        if self.principal.anybody:
            return {"principal": None, "tenant": None}
        return {"principal": self.principal.name, "tenant": self.key.tenant or None}

    @property
    def wire(self) -> Wire:
        """The client's."""
        return self.call.wire


_decode_text = msgspec.json.Decoder(str).decode
decode_object = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_metadata = msgspec.json.Decoder(dict[str, Raw]).decode


class _Resume(msgspec.Struct):
    lastEventId: str | None = None  # noqa: N815 - the wire's name


_decode_resume = msgspec.json.Decoder(_Resume).decode


def cursor_of(request: web.BaseRequest, params: Params) -> str | None:
    """Give the cursor a client sent: header, query, or `params.metadata` (C32)."""
    given = request.headers.get("Last-Event-ID") or request.query.get("last_event_id")
    if given:
        return given
    raw = params.fields.get("metadata")
    if raw is None:
        return None
    try:
        resume = _decode_metadata(raw).get(RESUME)
        return (_decode_resume(resume).lastEventId or None) if resume is not None else None
    except msgspec.DecodeError:
        return None


def message_id_of(params: Params) -> str:
    raw = (params.message or {}).get("messageId")
    try:
        text = _decode_text(raw) if raw is not None else ""
    except msgspec.DecodeError:
        text = ""
    if not text or len(text) > 256:
        place = "message.messageId"
        raise A2AError(
            ErrorKind.INVALID_PARAMS,
            f"{place} must be a text of at most 256 characters",
            violations=[Violation(place, "must be a text of at most 256 characters")],
        )
    return text


def fields_of(asked: Asked) -> dict[str, object]:
    """Give what the operation is called with, with the tenant that a path of v1.0 names."""
    fields: dict[str, object] = dict(asked.params.fields)
    if asked.params.message is not None:
        fields["message"] = asked.params.message
    if asked.call.tenant and asked.wire.version == "1.0":
        fields["tenant"] = asked.call.tenant
    return fields


def v1_message(asked: Asked) -> bytes:
    return bytes(decode_object(v1_params(asked))["message"])


def v1_params(asked: Asked) -> bytes:
    """Give the parameters of a send in v1.0."""
    raw = msgspec.json.encode(fields_of(asked))
    if asked.wire.version == "1.0":
        return raw
    try:
        return requests.params_from_v03(asked.operation.name, raw, rest=asked.wire.binding == "rest")
    except Untranslatable as error:
        raise A2AError(ErrorKind.INVALID_PARAMS, str(error)) from error
