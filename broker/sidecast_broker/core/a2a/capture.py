"""What a log still lacks of what an agent says, and the events that say it.

Must not know connections, sequences or who else captures. Payloads come in as A2A v1.0 JSON and leave as
that; what is passed on stays raw. The rules of a log are: at most one `task` record, the first; what later
Task objects say follows as updates; nothing after the end (A2A v1.0, section 3.1.2; C11, C61, C67).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import Raw

from sidecast_broker.core.a2a.artifacts import artifact_update, artifact_update_before
from sidecast_broker.core.a2a.content import elements_of, ends_with, fields_of, says, values
from sidecast_broker.core.a2a.heard import AS_IT_IS, Heard, Reading, id_of_message
from sidecast_broker.core.fold import Fold
from sidecast_schemas.codec import ArtifactUpdateBody, Event, RawObject, StatusUpdateBody, decode_event
from sidecast_schemas.events import CAPTURE, SUBMITTED, TERMINAL_STATES, WORKING

LeftOut = Literal["message", "other-task", "after-terminal", "contained"]

_MARK = {CAPTURE: {"resynchronised": True}}
_USER = b'"ROLE_USER"'

_encode = msgspec.json.encode
_decode_payload = msgspec.json.Decoder(RawObject).decode


class Admitted(NamedTuple):
    """What is published for one event of an agent.

    Attributes:
        payloads: to publish, in this order; each one line of JSON.
        left_out: why the event itself isn't among them and says nothing new, or None.
    """

    payloads: list[bytes]
    left_out: LeftOut | None = None


def admit(
    fold: Fold,
    event: Event,
    *,
    fresh: bool = False,
    resynchronised: bool = False,
    reading: Reading = AS_IT_IS,
) -> Admitted:
    """Work out what to publish for one event of an agent's stream.

    Args:
        fold: what the log says so far.
        event: a StreamResponse of the agent.
        fresh: no event of this stream was admitted since its leading Task. A server that subscribes before
            it takes the Task (a2a-sdk 1.3 does) repeats what the Task contains; so such events are left out.
        resynchronised: as in `difference`, where the event is a Task.
        reading: likewise.

    Returns:
        The event as it is; before the first one of a log that is no Task, a Task (C11); for a further Task
        the updates that lead there. Nothing for a message, which is no part of a task's log (C67), for
        another task's event, after the end (C61), and for a turn, which only the broker writes.
    """
    if event.kind == "message" or event.kind == "turn":
        return Admitted([], "message")
    if event.task_id != fold.task_id:
        return Admitted([], "other-task")
    if fold.terminal:
        return Admitted([], "after-terminal")
    if event.kind == "task":
        payloads = _difference(fold, event, _MARK if resynchronised else {}, reading)
        return Admitted(payloads, None if payloads else "contained")
    if not fold.started:
        return Admitted([_first_task(event), event.payload])
    if fresh and contains(fold, event):
        return Admitted([], "contained")
    return Admitted([event.payload])


def difference(
    fold: Fold, task: bytes, *, resynchronised: bool = False, reading: Reading = AS_IT_IS
) -> list[bytes]:
    """Give the events that lead from what the log says to a Task: messages, artifacts, and the status last.

    Applied to the fold they make its status, its artifacts and its metadata say what the Task says, as far as
    events can: nothing takes an artifact or a key of metadata away. A second difference is empty, and so is
    that of a Task whose status differs in its timestamp only, or by a message that stands in the log's
    history because a turn has begun since. Of the history, messages the log lacks after the last one it has
    are said where the status changes too: one of the agent as a working status, one of the user as a turn.

    Args:
        fold: what the log says so far.
        task: v1.0 JSON of a Task that is not older than the log's newest record.
        resynchronised: the broker was away from the agent: updates carry `CAPTURE` in their metadata.
        reading: how the Task is to be read; where not as it is, the log may differ from it on purpose.

    Raises:
        InvalidEvent: it is no Task.
    """
    event = decode_event(b'{"task":%b}' % task)
    if event.task_id != fold.task_id or fold.terminal:
        return []
    return _difference(fold, event, _MARK if resynchronised else {}, reading)


def contains(fold: Fold, event: Event, reading: Reading = AS_IT_IS) -> bool:
    """Tell whether the log says what an event says: by a message's id, else by the whole content.

    A piece of an artifact is contained where the artifact ends with it; so two pieces that are the same can't
    be told apart.
    """
    body = event.body
    if fold.terminal or not fold.started:
        return fold.terminal
    if event.kind == "task":
        return not _difference(fold, event, {}, reading)
    if isinstance(body, StatusUpdateBody):
        update = fields_of(_decode_payload(event.payload)["statusUpdate"])
        if not _within(fields_of(update.get("metadata")), fold.metadata):
            return False
        status = fields_of(update["status"])
        message_id = id_of_message(status.get("message"))
        if message_id:
            return fold.knows_message(message_id)
        return says(status) == says(fold.status)
    assert isinstance(body, ArtifactUpdateBody)
    known = fold.artifact(body.artifact.artifactId)
    if known is None:
        return False
    artifact = fields_of(fields_of(_decode_payload(event.payload)["artifactUpdate"])["artifact"])
    if body.append:
        within = _within(fields_of(artifact.get("metadata")), known.metadata)
        return within and ends_with(elements_of(known.parts), elements_of(artifact.get("parts")))
    return artifact_update(known, artifact) is None


def bare_task(task: Event) -> bytes:
    """Give a Task's record without what may be long, for a server that refuses the whole one.

    What is left out follows as a difference; so the state is none after which nothing could.
    """
    fields = fields_of(_decode_payload(task.payload)["task"])
    state = task.state if task.state not in TERMINAL_STATES else WORKING
    bare: dict[str, Any] = {"id": task.task_id, "contextId": task.context_id, "status": {"state": state}}
    kept = {key: fields[key] for key in ("metadata",) if key in fields}
    return _encode({"task": {key: value for key, value in bare.items() if value} | kept})


def turn_begin(fold: Fold, message_id: str, message: bytes) -> bytes | None:
    """Give the record of a turn's begin, or None where the log has one.

    It carries the user's message; except right behind the Task that began the log, where that has a status
    message and not the user's, which would then seem to answer it.

    Args:
        fold: what the log says so far; its Task is the first record, so there is one.
        message_id: the turn's id.
        message: the user's message, one JSON object.
    """
    if fold.turn_phase(message_id) is not None:
        return None
    turn: dict[str, Any] = {"id": message_id, "phase": "begin"}
    as_opened = fold.opening_sequence == fold.sequence and "message" in fold.status
    if not as_opened or fold.knows_message(message_id):
        turn["message"] = Raw(message)
    return _encode({"turn": turn})


def turn_end(fold: Fold, message_id: str, reason: str) -> bytes | None:
    """Give the record of a turn's end, or None where the log has none that began or it has ended."""
    if fold.turn_phase(message_id) != "begin":
        return None
    return _encode({"turn": {"id": message_id, "phase": "end", "reason": reason}})


# --- an event


def _first_task(event: Event) -> bytes:
    task: dict[str, Any] = {"id": event.task_id}
    if event.context_id:
        task["contextId"] = event.context_id
    return _encode({"task": {**task, "status": {"state": SUBMITTED}}})


def _within(some: RawObject, more: Mapping[str, Raw]) -> bool:
    return values(some).items() <= values(more).items()


# --- a Task


def _difference(fold: Fold, event: Event, mark: dict[str, Any], reading: Reading) -> list[bytes]:
    heard = None if reading.heard is None else Heard(reading.heard)
    if not fold.started:
        return [event.payload if heard is None else _opening(event, heard)]
    task = fields_of(_decode_payload(event.payload)["task"])
    names: dict[str, Any] = {"taskId": fold.task_id}
    if context_id := event.context_id or fold.context_id:
        names["contextId"] = context_id
    events: list[dict[str, Any]] = []
    status = fields_of(task["status"])
    moved = not _says_status(fold, status)
    if moved:
        said = {id_of_message(status.get("message"))} | (heard.messages if heard is not None else set())
        events += _missed_messages(fold, elements_of(task.get("history")), said, names)
    events += _artifact_updates(
        fold, elements_of(task.get("artifacts")), event.terminal, names, reading, heard
    )
    known = values(fold.metadata)
    metadata = fields_of(task.get("metadata"))
    changed = {key: metadata[key] for key, value in values(metadata).items() if known.get(key) != value}
    if (moved or changed) and (heard is None or not (heard.status or event.terminal)):
        update = {**names, "status": task["status"]}
        events.append({"statusUpdate": update | ({"metadata": changed} if changed else {})})
    if events and "generation" in task:
        # Dev-1.1 of A2A counts mutations: the last one has led to this count, and the hole before it tells.
        for fields in events[-1].values():
            fields["generation"] = task["generation"]
    return [_encode(_marked(each, mark)) for each in events]


def _opening(event: Event, heard: Heard) -> bytes:
    """Give the record that begins a log, of a Task without anything that may be what is heard."""
    fields = fields_of(_decode_payload(event.payload)["task"])
    opening: dict[str, Any] = _decode_payload(_decode_payload(bare_task(event))["task"])
    said = heard.messages | {id_of_message(fields_of(fields["status"]).get("message"))} - {""}
    history = [each for each in elements_of(fields.get("history")) if id_of_message(each) not in said]
    return _encode({"task": opening | ({"history": history} if history else {})})


def _says_status(fold: Fold, status: RawObject) -> bool:
    """Whether the log says a status, or did before a further message of the user moved its message on."""
    known, new = says(fold.status, ("timestamp",)), says(status, ("timestamp",))
    message_id = id_of_message(status.get("message"))
    if "message" not in known and message_id and fold.knows_message(message_id):
        new.pop("message", None)
    return known == new


def _marked(event: dict[str, Any], mark: dict[str, Any]) -> dict[str, Any]:
    if mark and "turn" not in event:
        for fields in event.values():
            fields["metadata"] = {**fields.get("metadata", {}), **mark}
    return event


def _missed_messages(
    fold: Fold, history: list[Raw], said: set[str], names: dict[str, Any]
) -> list[dict[str, Any]]:
    """Say the messages after the last one known, but those that are said otherwise.

    Without a known one, what was before can't be told apart.
    """
    ids = [id_of_message(message) for message in history]
    known = [index for index, each in enumerate(ids) if each and fold.knows_message(each)]
    if not known:
        return []
    events: list[dict[str, Any]] = []
    seen = said | {""}
    for message, message_id in zip(history[known[-1] + 1 :], ids[known[-1] + 1 :], strict=True):
        if message_id in seen:
            continue
        seen.add(message_id)
        if fields_of(message).get("role") != Raw(_USER):
            events.append({"statusUpdate": {**names, "status": {"state": WORKING, "message": message}}})
        elif fold.open_turn is None:
            begun = {"id": message_id, "phase": "begin", "message": message}
            ended = {"id": message_id, "phase": "end", "reason": "resynchronised"}
            events += [{"turn": begun}, {"turn": ended}]
    return events


def _artifact_updates(
    fold: Fold,
    artifacts: list[Raw],
    complete: bool,
    names: dict[str, Any],
    reading: Reading,
    heard: Heard | None,
) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    seen: set[str] = set()
    for raw in artifacts:
        artifact = fields_of(raw)
        artifact_id = _text_of(artifact.get("artifactId"))
        if artifact_id is None or artifact_id in seen:
            continue
        seen.add(artifact_id)
        known = fold.artifact(artifact_id)
        if heard is not None:
            update = artifact_update_before(known, artifact, artifact_id, heard)
        elif known is None:
            update = {"artifact": raw}
        else:
            update = artifact_update(known, artifact, reading.doubles)
        if update is not None:
            last = {"lastChunk": True} if complete and heard is None else {}
            events.append({"artifactUpdate": {**names, **update, **last}})
    return events


def _text_of(raw: Raw | None) -> str | None:
    return None if raw is None or memoryview(raw)[0] != ord('"') else msgspec.json.decode(raw, type=str)
