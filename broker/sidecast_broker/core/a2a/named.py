"""What a request names: its task, the tasks it refers to, its tenant; checked as ids.

Must not know who may see them.
"""

from __future__ import annotations

import msgspec

from sidecast_broker.core.a2a.envelope import Params
from sidecast_broker.core.a2a.errors import A2AError, ErrorKind, Violation
from sidecast_broker.core.a2a.operations import Operation
from sidecast_broker.core.a2a.wire import Version
from sidecast_schemas.codec import RawObject
from sidecast_schemas.subjects import InvalidId, encode_token

REFERENCES_MAX = 100
"""Most tasks a message may refer to: each costs a look-up of its owner."""

_decode_text = msgspec.json.Decoder(str | None).decode
_decode_texts = msgspec.json.Decoder(list[str] | None).decode


def task_of(operation: Operation, version: Version, params: Params, in_path: str = "") -> str | None:
    """Give the id of the task a request names; None: it names none.

    Args:
        operation: which.
        version: the client's.
        params: of the JSON-RPC request or of the REST body.
        in_path: the task's id on a REST path; what the body says must not differ.

    Raises:
        A2AError: INVALID_PARAMS: it is missing, no text, or can't be an id (C49).
    """
    place = operation.task if version == "1.0" else operation.task_v03
    if place is None:
        return None
    if operation.task_is_optional:
        if params.message is None:
            raise _invalid("message", "is required")
        return _text(params.message, "taskId", place)
    if not in_path:
        task = _text(params.fields, place, place)
        if task is None:
            raise _invalid(place, "is required")
        return task
    # REST bodies have the field names of the proto, in which `id` beside a `taskId` is the configuration's.
    own = operation.task or place
    if _text(params.fields, own, own) not in (None, in_path):
        raise _invalid(own, "is not the one of the path")
    return in_path


def references_of(params: Params) -> list[str]:
    """Give the ids of the other tasks a message refers to: the sender must be allowed to see them as well.

    Raises:
        A2AError: INVALID_PARAMS: they are no list of at most `REFERENCES_MAX` ids.
    """
    raw = (params.message or {}).get("referenceTaskIds")
    if raw is None:
        return []
    place = "message.referenceTaskIds"
    try:
        tasks = _decode_texts(raw) or []
    except msgspec.ValidationError as error:
        raise _invalid(place, "is no list of strings") from error
    if len(tasks) > REFERENCES_MAX:
        raise _invalid(place, f"names more than {REFERENCES_MAX} tasks")
    return [_id(task, place) for task in tasks]


def tenant_of(version: Version, params: Params, in_path: str = "") -> str:
    """Give the tenant a request names; empty: none.

    Args:
        version: the client's; v0.3 has no tenants.
        params: of the JSON-RPC request or of the REST body.
        in_path: the tenant on a REST path.

    Raises:
        A2AError: TASK_NOT_FOUND: path and body name different ones (C45). INVALID_PARAMS: it is no text, or
            can't be an id.
    """
    if version == "0.3":
        return ""
    named = _text(params.fields, "tenant", "tenant")
    if named is not None and in_path and named != in_path:
        raise A2AError(ErrorKind.TASK_NOT_FOUND)
    return in_path or named or ""


def _text(fields: RawObject, name: str, place: str) -> str | None:
    """Give an id; ProtoJSON may spell an unset one as an empty string or null."""
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        text = _decode_text(raw)
    except msgspec.ValidationError as error:
        raise _invalid(place, "is no string") from error
    return _id(text, place) if text else None


def _id(text: str, place: str) -> str:
    try:
        encode_token(text)
    except InvalidId as error:
        raise _invalid(place, f"is no id: {error}") from error
    return text


def _invalid(field: str, description: str) -> A2AError:
    return A2AError(
        ErrorKind.INVALID_PARAMS,
        f"{field} {description}",
        violations=[Violation(field, description)],
    )
