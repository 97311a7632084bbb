"""Events of a2a-sdk, both generations, as A2A v1.0 JSON.

Must not know queues, executors or publishers. Sources: A2A v1.0 (`a2a.proto`), v0.3.0 (`a2a.json`). Nothing
of a2a-sdk is imported: its 1.x objects are protobuf messages, its 0.3.x objects pydantic models.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_KINDS = {
    "Task": "task",
    "Message": "message",
    "TaskStatusUpdateEvent": "statusUpdate",
    "TaskArtifactUpdateEvent": "artifactUpdate",
}
_EXACT_MAX = 2**53
"""Up to here every integer has its own double."""


def event_json(event: Any) -> dict[str, Any] | None:
    """Give an event of a2a-sdk as one StreamResponse, or None where it is no event.

    Raises:
        ValueError: it can't be written as JSON.
    """
    kind = _KINDS.get(type(event).__name__)
    body = object_json(event) if kind else None
    return {kind: body} if kind and body is not None else None


def object_json(value: Any) -> dict[str, Any] | None:
    """Give a Task, Message or update of a2a-sdk as v1.0 JSON, or None where it is none of these.

    Raises:
        ValueError: it can't be written as JSON.
    """
    if hasattr(value, "DESCRIPTOR"):
        return _from_protobuf(value)
    if hasattr(value, "model_dump"):
        name = type(value).__name__
        body: dict[str, Any] = value.model_dump(mode="json", by_alias=True, exclude_none=True)
        return _TRANSLATIONS[name](body) if name in _TRANSLATIONS else None
    return None


def _from_protobuf(value: Any) -> dict[str, Any]:
    from google.protobuf import json_format

    try:
        body = json_format.MessageToDict(value)
    except json_format.Error as error:
        raise ValueError(f"no JSON for {type(value).__name__}: {error}") from error
    naturals: dict[str, Any] = _with_integers(body)
    return naturals


def _with_integers(value: Any) -> Any:
    # `metadata` and `data` are protobuf Structs, which have doubles only: give integers back their form.
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT_MAX:
        return int(value)
    if isinstance(value, dict):
        return {name: _with_integers(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_integers(each) for each in value]
    return value


def _without_kind(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "kind"}


def part_json(part: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a part from v0.3 to v1.0; one that is v1.0 already stays."""
    kind = part.get("kind")
    rest = {name: value for name, value in part.items() if name not in ("kind", "file", "data")}
    if kind == "file":
        file = part["file"]
        content = {
            "raw": file.get("bytes", file.get("fileWithBytes")),
            "url": file.get("uri", file.get("fileWithUri")),
            "mediaType": file.get("mimeType"),
            "filename": file.get("name"),
        }
        return {name: value for name, value in content.items() if value is not None} | rest
    if kind == "data":
        data, metadata = part["data"], dict(rest.get("metadata") or {})
        # v0.3 has only objects as data; a2a-sdk marks other values it had to wrap.
        if metadata.pop("data_part_compat", False) and isinstance(data, dict) and set(data) == {"value"}:
            data = data["value"]
            rest = {name: value for name, value in rest.items() if name != "metadata"}
            rest |= {"metadata": metadata} if metadata else {}
        return {"data": data} | rest
    return rest | ({"data": part["data"]} if "data" in part else {})


def message_json(message: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a message from v0.3 to v1.0."""
    body = _without_kind(message)
    role = str(body.get("role", ""))
    body["role"] = role if role.startswith("ROLE_") else f"ROLE_{role.upper() or 'UNSPECIFIED'}"
    body["parts"] = [part_json(part) for part in body.get("parts") or ()]
    return body


def state_json(state: str) -> str:
    """Translate a task state from v0.3 to v1.0: `input-required` → `TASK_STATE_INPUT_REQUIRED`."""
    if state.startswith("TASK_STATE_"):
        return state
    return "TASK_STATE_UNSPECIFIED" if state == "unknown" else f"TASK_STATE_{state.upper().replace('-', '_')}"


def timestamp_json(timestamp: str) -> str | None:
    """Give a timestamp in UTC with `Z`; one without a zone is UTC; None where it is none (v1.0, 5.6.1)."""
    try:
        at = datetime.fromisoformat(timestamp)
    except ValueError:
        return None
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return at.isoformat().replace("+00:00", "Z")


def status_json(status: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a task status from v0.3 to v1.0."""
    body = dict(status)
    body["state"] = state_json(str(body["state"]))
    if "message" in body:
        body["message"] = message_json(body["message"])
    timestamp = timestamp_json(str(body.pop("timestamp", "")))
    return body | ({"timestamp": timestamp} if timestamp else {})


def artifact_json(artifact: Mapping[str, Any]) -> dict[str, Any]:
    """Translate an artifact from v0.3 to v1.0."""
    return {**artifact, "parts": [part_json(part) for part in artifact.get("parts") or ()]}


def task_json(task: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a Task from v0.3 to v1.0."""
    body = _without_kind(task)
    body["status"] = status_json(body["status"])
    for name, translate in (("artifacts", artifact_json), ("history", message_json)):
        if name in body:
            body[name] = [translate(each) for each in body[name]]
    return body


def status_update_json(update: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a status update from v0.3 to v1.0, which has no `final`."""
    body = {name: value for name, value in _without_kind(update).items() if name != "final"}
    return body | {"status": status_json(body["status"])}


def artifact_update_json(update: Mapping[str, Any]) -> dict[str, Any]:
    """Translate an artifact update from v0.3 to v1.0."""
    body = {name: value for name, value in _without_kind(update).items() if value is not False}
    return body | {"artifact": artifact_json(body["artifact"])}


_TRANSLATIONS = {
    "Task": task_json,
    "Message": message_json,
    "TaskStatusUpdateEvent": status_update_json,
    "TaskArtifactUpdateEvent": artifact_update_json,
}
