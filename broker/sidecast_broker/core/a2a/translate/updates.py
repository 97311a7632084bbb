"""Tasks, status updates and artifact updates, and what they consist of: statuses and artifacts.

Must not know which of them an event is, nor who reads it.
"""

from __future__ import annotations

from msgspec import Raw

from sidecast_broker.core.a2a.translate.messages import (
    history_from_v03,
    history_to_v03,
    nested_message_from_v03,
    nested_message_to_v03,
)
from sidecast_broker.core.a2a.translate.names import (
    UNSPECIFIED,
    is_later_state,
    state_from_v03,
    state_to_v03,
)
from sidecast_broker.core.a2a.translate.parts import parts_from_v03, parts_to_v03
from sidecast_broker.core.a2a.translate.raw import (
    EMPTY,
    HELD,
    NULL,
    Tree,
    Untranslatable,
    drop_unset,
    hold,
    is_object,
    is_set,
    object_of,
    objects_of,
    pop_named,
    pop_other,
    release,
    restore,
)
from sidecast_broker.core.a2a.translate.spellings import respell, spelled_object, spelled_objects
from sidecast_broker.core.a2a.translate.timestamps import to_utc
from sidecast_schemas.codec import RawObject

_TASK = frozenset({"id", "contextId", "status", "artifacts", "history", "metadata"})
_STATUS_UPDATE = frozenset({"taskId", "contextId", "status", "metadata"})
_ARTIFACT_UPDATE = frozenset({"taskId", "contextId", "artifact", "append", "lastChunk", "metadata"})
_STATUS = frozenset({"state", "message", "timestamp"})
_ARTIFACT = frozenset({"artifactId", "name", "description", "parts", "metadata", "extensions"})
_PROTO_STATUS = {"update": "message"}
_KIND = ("kind",)
_KIND_FINAL = ("kind", "final")
_KIND_TASK = Raw(b'"task"')
_KIND_STATUS_UPDATE = Raw(b'"status-update"')
_KIND_ARTIFACT_UPDATE = Raw(b'"artifact-update"')
_BOOLEANS = {False: Raw(b"false"), True: Raw(b"true")}


def status_update_to_v03(fields: RawObject, held: Tree, *, rest: bool, final: bool | None) -> Tree:
    """Give v0.3's form of a status update.

    Args:
        fields: the update; taken over.
        held: what the caller has to hold in its metadata.
        rest: whether in ProtoJSON.
        final: whether the stream ends with it; None: where its state is terminal.

    Raises:
        Untranslatable: a field that is looked at has the wrong type, or there is no state.
    """
    status, terminal = _status_to_v03(fields.pop("status", NULL), held, rest=rest)
    lost = pop_other(fields, _STATUS_UPDATE) if rest else pop_named(fields, _KIND_FINAL)
    if lost:
        held["fields"] = lost
    tree: Tree = fields if rest else {"kind": _KIND_STATUS_UPDATE, **fields}
    tree["status"] = status
    tree["final"] = _BOOLEANS[terminal if final is None else final]
    _finish(tree, held, rest=rest)
    return tree


def artifact_update_to_v03(fields: RawObject, held: Tree, *, rest: bool) -> Tree:
    """Give v0.3's form of an artifact update; `append` and `lastChunk` stand there where they stood before.

    Args:
        fields: the update; taken over.
        held: what the caller has to hold in its metadata.
        rest: whether in ProtoJSON.

    Raises:
        Untranslatable: a field that is looked at has the wrong type, or there is no artifact.
    """
    artifact = _artifact_to_v03(object_of(fields.pop("artifact", NULL), "artifact"), rest=rest)
    lost = pop_other(fields, _ARTIFACT_UPDATE) if rest else pop_named(fields, _KIND)
    if lost:
        held["fields"] = lost
    tree: Tree = fields if rest else {"kind": _KIND_ARTIFACT_UPDATE, **fields}
    tree["artifact"] = artifact
    _finish(tree, held, rest=rest)
    return tree


def task_tree_to_v03(fields: RawObject, held: Tree, *, rest: bool) -> Tree:
    """Give v0.3's form of a task.

    Args:
        fields: the task; taken over.
        held: what the caller has to hold in its metadata.
        rest: whether in ProtoJSON.

    Raises:
        Untranslatable: a field that is looked at has the wrong type, or there is no state.
    """
    status, _ = _status_to_v03(fields.pop("status", NULL), held, rest=rest)
    lost = pop_other(fields, _TASK) if rest else pop_named(fields, _KIND)
    if lost:
        held["fields"] = lost
    tree: Tree = fields if rest else {"kind": _KIND_TASK, **fields}
    tree["status"] = status
    artifacts = fields.get("artifacts")
    if artifacts is not None and artifacts != NULL:
        tree["artifacts"] = [_artifact_to_v03(each, rest=rest) for each in objects_of(artifacts, "artifacts")]
    if "history" in fields:
        tree["history"] = history_to_v03(fields["history"], rest=rest)
    _finish(tree, held, rest=rest)
    return tree


def _finish(tree: Tree, held: Tree, *, rest: bool) -> None:
    # v0.3's schema requires it, and v1.0 leaves it out where it is empty.
    if not rest and tree.get("contextId", NULL) == NULL:
        tree["contextId"] = EMPTY
    if held or "metadata" in tree:
        hold(tree, held)


def _status_to_v03(raw: Raw, held: Tree, *, rest: bool) -> tuple[Tree, bool]:
    fields = object_of(raw, "status")
    if "state" not in fields:
        raise Untranslatable("status: state is missing")
    state = fields["state"]
    name = state_to_v03(state, rest=rest)
    lost = pop_other(fields, _STATUS) if rest else {}
    if not name.known:
        lost["state"] = state
    if lost:
        held["status"] = lost
    tree: Tree = fields
    tree["state"] = name.raw
    if "message" in fields:
        tree["message"] = nested_message_to_v03(fields["message"], rest=rest)
    return tree, name.terminal


def _artifact_to_v03(fields: RawObject, *, rest: bool) -> Tree:
    tree: Tree = fields
    tree["parts"] = parts_to_v03(fields.get("parts"), rest=rest)
    lost = pop_other(tree, _ARTIFACT) if rest else None
    if lost:
        hold(tree, {"fields": lost})
    elif "metadata" in tree:
        hold(tree, {})
    return tree


def status_update_from_v03(fields: RawObject, *, rest: bool) -> tuple[Tree, RawObject]:
    """Give v1.0's form of a status update without its `kind`, and what its metadata held for the caller.

    Args:
        fields: the update; taken over. `final` is left out: v1.0 says by the state that a task is over.
        rest: whether it is ProtoJSON.

    Raises:
        Untranslatable: a field that is looked at has the wrong type or is missing.
    """
    if rest:
        respell(fields)
    fields.pop("final", None)
    tree: Tree = fields
    status = _status_from_v03(fields.get("status", NULL), rest=rest)
    return _restored(tree, status, _STATUS_UPDATE)


def artifact_update_from_v03(fields: RawObject, *, rest: bool) -> tuple[Tree, RawObject]:
    """Give v1.0's form of an artifact update without its `kind`, and what its metadata held for the caller.

    Args:
        fields: the update; taken over.
        rest: whether it is ProtoJSON.

    Raises:
        Untranslatable: a field that is looked at has the wrong type or is missing.
    """
    if rest:
        respell(fields)
    tree: Tree = fields
    raw = fields.get("artifact", NULL)
    tree["artifact"] = _artifact_from_v03(spelled_object(raw, "artifact", rest=rest), rest=rest)
    return _restored(tree, None, _ARTIFACT_UPDATE)


def task_tree_from_v03(fields: RawObject, *, rest: bool) -> tuple[Tree, RawObject]:
    """Give v1.0's form of a task without its `kind`, and what its metadata held for the caller.

    Args:
        fields: the task; taken over.
        rest: whether it is ProtoJSON.

    Raises:
        Untranslatable: a field that is looked at has the wrong type or is missing.
    """
    if rest:
        respell(fields)
    tree: Tree = fields
    status = _status_from_v03(fields.get("status", NULL), rest=rest)
    if is_set(fields, "artifacts"):
        artifacts = spelled_objects(fields["artifacts"], "artifacts", rest=rest)
        tree["artifacts"] = [_artifact_from_v03(each, rest=rest) for each in artifacts]
    if "history" in fields:
        tree["history"] = history_from_v03(fields["history"], rest=rest)
    return _restored(tree, status, _TASK)


def _restored(tree: Tree, status: Tree | None, blocked: frozenset[str]) -> tuple[Tree, RawObject]:
    drop_unset(tree, "contextId")
    held: RawObject = {}
    if "metadata" in tree:
        held, _ = release(tree)
        restore(tree, held, blocked)
    if status is not None:
        if "status" in held:
            _restore_status(status, held)
        tree["status"] = status
    return tree, held


def _restore_status(status: Tree, held: RawObject) -> None:
    restore(status, held, _STATUS, "status")
    raw = held["status"]
    if status["state"] == UNSPECIFIED and is_object(raw):
        state = object_of(raw, HELD).get("state", NULL)
        if is_later_state(state):
            status["state"] = state


def _status_from_v03(raw: Raw, *, rest: bool) -> Tree:
    fields = spelled_object(raw, "status", rest=rest, own=_PROTO_STATUS)
    tree: Tree = fields
    state = fields.get("state")
    # ProtoJSON leaves out what is at its default.
    if rest and (state is None or state == NULL):
        tree["state"] = UNSPECIFIED
    else:
        tree["state"] = state_from_v03(NULL if state is None else state, rest=rest)
    timestamp = fields.get("timestamp")
    if timestamp is not None and timestamp != NULL:
        tree["timestamp"] = to_utc(timestamp)
    if "message" in fields:
        tree["message"] = nested_message_from_v03(fields["message"], rest=rest)
    return tree


def _artifact_from_v03(fields: RawObject, *, rest: bool) -> Tree:
    tree: Tree = fields
    parts = fields.get("parts", NULL)
    if parts != NULL:
        tree["parts"] = parts_from_v03(parts, rest=rest)
    elif rest:
        tree["parts"] = []
    else:
        raise Untranslatable("artifact: parts are missing")
    if "metadata" in tree:
        held, _ = release(tree)
        restore(tree, held, _ARTIFACT)
    return tree
