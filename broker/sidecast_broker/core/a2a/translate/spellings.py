"""Field names as ProtoJSON may also write them: those of the proto itself, in snake case.

Must not know what the fields hold. Source: a2a-sdk 1.3 sends them as a v0.3 REST client, and every reader of
ProtoJSON takes them.
"""

from __future__ import annotations

from msgspec import Raw

from sidecast_broker.core.a2a.translate.raw import NULL, object_of, objects_of
from sidecast_schemas.codec import RawObject

_CAMEL = {
    "accepted_output_modes": "acceptedOutputModes",
    "artifact_id": "artifactId",
    "artifact_update": "artifactUpdate",
    "config_id": "configId",
    "context_id": "contextId",
    "file_with_bytes": "fileWithBytes",
    "file_with_uri": "fileWithUri",
    "history_length": "historyLength",
    "include_artifacts": "includeArtifacts",
    "last_chunk": "lastChunk",
    "message_id": "messageId",
    "mime_type": "mimeType",
    "next_page_token": "nextPageToken",
    "page_size": "pageSize",
    "page_token": "pageToken",
    "push_notification": "pushNotification",
    "push_notification_config": "pushNotificationConfig",
    "status_update": "statusUpdate",
    "task_id": "taskId",
}
_NAMES = frozenset(_CAMEL)


def respell(fields: RawObject, own: dict[str, str] | None = None) -> RawObject:
    """Rename fields in place to the names ProtoJSON prefers, where those are not there too.

    Args:
        fields: one object.
        own: further names that only this object has.
    """
    if not _NAMES.isdisjoint(fields):
        for name in _NAMES.intersection(fields):
            _rename(fields, name, _CAMEL[name])
    if own is not None:
        for name in own.keys() & fields.keys():
            _rename(fields, name, own[name])
    return fields


def _rename(fields: RawObject, name: str, preferred: str) -> None:
    if fields.get(preferred, NULL) == NULL:
        fields[preferred] = fields.pop(name)


def spelled_object(raw: Raw, what: str, *, rest: bool, own: dict[str, str] | None = None) -> RawObject:
    """Take apart an object of v0.3; in its REST form with the names ProtoJSON prefers.

    Raises:
        Untranslatable: it is none.
    """
    fields = object_of(raw, what)
    return respell(fields, own) if rest else fields


def spelled_objects(raw: Raw, what: str, *, rest: bool) -> list[RawObject]:
    """Take apart an array of objects of v0.3, as `spelled_object` does with one.

    Raises:
        Untranslatable: it is none.
    """
    objects = objects_of(raw, what)
    return [respell(fields) for fields in objects] if rest else objects
