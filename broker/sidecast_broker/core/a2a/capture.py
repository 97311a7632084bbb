"""What a log still lacks of what an agent says, and the events that say it.

Must not know connections, sequences or who else captures. Payloads come in as A2A v1.0 JSON and leave as
that; what is passed on stays raw. The rules of a log are: at most one `task` record, the first; what later
Task objects say follows as updates; nothing after the end (A2A v1.0, section 3.1.2; C11, C61, C67).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import Raw

from sidecast_broker.core.a2a.content import (
    canonical,
    elements_of,
    ends_with,
    fields_of,
    parts_after,
    says,
    values,
)
from sidecast_broker.core.a2a.copies import news_at, news_before
from sidecast_broker.core.fold import Fold, FoldedArtifact
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


class Reading(NamedTuple):
    """How a Task is to be read.

    Attributes:
        doubles: the agent's Tasks may hold an artifact's piece once for each stream that was open.
        heard: what the agent's stream has said before the Task came, oldest first, and the log doesn't have
            yet: only what came before that is wanted of the Task. None where there is no such stream.
    """

    doubles: bool = False
    heard: Sequence[Event] | None = None


_AS_IT_IS = Reading()


def admit(
    fold: Fold,
    event: Event,
    *,
    fresh: bool = False,
    resynchronised: bool = False,
    reading: Reading = _AS_IT_IS,
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
    fold: Fold, task: bytes, *, resynchronised: bool = False, reading: Reading = _AS_IT_IS
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


def contains(fold: Fold, event: Event, reading: Reading = _AS_IT_IS) -> bool:
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
        message_id = _message_id(status.get("message"))
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
    return _artifact_update(known, artifact) is None


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


def _message_id(message: Raw | None) -> str:
    raw = fields_of(message).get("messageId")
    if raw is None or memoryview(raw)[0] != ord('"'):
        return ""
    return msgspec.json.decode(raw, type=str)


# --- a Task


def _difference(fold: Fold, event: Event, mark: dict[str, Any], reading: Reading) -> list[bytes]:
    heard = None if reading.heard is None else _Heard(reading.heard)
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
        said = {_message_id(status.get("message"))} | (heard.messages if heard is not None else set())
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


class _Heard:
    """What events say that follow a Task which may contain them already.

    Attributes:
        status: whether there is a status among them.
        messages: the ids of the messages they say.
        replaced: the ids of artifacts they say anew.
        pieces: the parts they append, by artifact.
    """

    def __init__(self, events: Sequence[Event]) -> None:
        self.status = False
        self.messages: set[str] = set()
        self.replaced: set[str] = set()
        self.pieces: dict[str, list[bytes]] = {}
        for event in events:
            if isinstance(event.body, StatusUpdateBody):
                self.status = True
                update = fields_of(_decode_payload(event.payload)["statusUpdate"])
                self.messages.add(_message_id(fields_of(update["status"]).get("message")))
            elif isinstance(event.body, ArtifactUpdateBody):
                artifact = fields_of(_decode_payload(event.payload)["artifactUpdate"])["artifact"]
                artifact_id = event.body.artifact.artifactId
                if not event.body.append:
                    self.replaced.add(artifact_id)
                pieces = self.pieces.setdefault(artifact_id, [])
                pieces += map(canonical, elements_of(fields_of(artifact).get("parts")))


def _opening(event: Event, heard: _Heard) -> bytes:
    """Give the record that begins a log, of a Task without anything that may be what is heard."""
    fields = fields_of(_decode_payload(event.payload)["task"])
    opening: dict[str, Any] = _decode_payload(_decode_payload(bare_task(event))["task"])
    said = heard.messages | {_message_id(fields_of(fields["status"]).get("message"))} - {""}
    history = [each for each in elements_of(fields.get("history")) if _message_id(each) not in said]
    return _encode({"task": opening | ({"history": history} if history else {})})


def _says_status(fold: Fold, status: RawObject) -> bool:
    """Whether the log says a status, or did before a further message of the user moved its message on."""
    known, new = says(fold.status, ("timestamp",)), says(status, ("timestamp",))
    message_id = _message_id(status.get("message"))
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
    ids = [_message_id(message) for message in history]
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
    heard: _Heard | None,
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
            update = _update_before(known, artifact, artifact_id, heard)
        elif known is None:
            update = {"artifact": raw}
        else:
            update = _artifact_update(known, artifact, reading.doubles)
        if update is not None:
            last = {"lastChunk": True} if complete and heard is None else {}
            events.append({"artifactUpdate": {**names, **update, **last}})
    return events


def _text_of(raw: Raw | None) -> str | None:
    return None if raw is None or memoryview(raw)[0] != ord('"') else msgspec.json.decode(raw, type=str)


def _artifact_update(
    known: FoldedArtifact, artifact: RawObject, doubles: bool = False
) -> dict[str, Any] | None:
    """Give what makes a known artifact this one: a further piece, or all of it anew; None: it is this one."""
    old, new = elements_of(known.parts), elements_of(artifact.get("parts"))
    more = None
    if doubles and (start := news_at(_said(old), _said(new))) is not None:
        more = new[start:]
    if more is None:
        more = parts_after(old, new)
    if more is None or not _extends(known, artifact):
        return {"artifact": artifact}
    return _piece(known, artifact, more)


def _update_before(
    known: FoldedArtifact | None, artifact: RawObject, artifact_id: str, heard: _Heard
) -> dict[str, Any] | None:
    """Give what makes an artifact the one that it was before something of it was heard; None: it is that."""
    if artifact_id in heard.replaced:
        return None
    pieces, parts = heard.pieces.get(artifact_id, []), elements_of(artifact.get("parts"))
    if known is not None and _extends(known, artifact):
        before = news_before(_said(elements_of(known.parts)), pieces, _said(parts))
        if before is not None:
            return _piece(known, artifact, parts[before])
    before = news_before([], pieces, _said(parts))
    if before is None or not parts[before]:
        return None
    return {"artifact": {**artifact, "parts": parts[before]}}


def _said(parts: list[Raw]) -> list[bytes]:
    return list(map(canonical, parts))


def _extends(known: FoldedArtifact, artifact: RawObject) -> bool:
    """Whether a further piece can make a known artifact this one, as far as its other fields say."""
    inner = ("parts", "metadata")
    gone = values(known.metadata).keys() - values(fields_of(artifact.get("metadata"))).keys()
    return not gone and says(known.fields, inner) == says(artifact, inner)


def _piece(known: FoldedArtifact, artifact: RawObject, more: list[Raw]) -> dict[str, Any] | None:
    """Give a piece of an artifact, with what of its metadata has changed; None: it says nothing."""
    old = values(known.metadata)
    metadata = fields_of(artifact.get("metadata"))
    changed = {key: metadata[key] for key, value in values(metadata).items() if old.get(key) != value}
    if not more:
        return {"artifact": {**artifact, "parts": known.parts}} if changed else None
    piece: dict[str, Any] = {"artifactId": artifact["artifactId"], "parts": more}
    if changed:
        piece["metadata"] = changed
    return {"artifact": piece, "append": True}
