"""A task's events, folded into the A2A v1.0 Task they add up to.

Must not know positions' epochs, clients or formats. Content stays raw JSON, so unknown fields and numbers
survive untouched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple
from zlib import crc32

import msgspec
from msgspec import UNSET, Raw, Struct

from sidecast_broker.core.activity import RawActivity, activity_in
from sidecast_broker.core.kept_artifact import FoldedArtifact, KeptArtifact
from sidecast_broker.core.raw_json import FIELD_BYTES, array_of, extend, merge, object_of, size_of
from sidecast_schemas.codec import ArtifactBody, ArtifactUpdateBody, Event, RawObject, TurnBody
from sidecast_schemas.events import INTERRUPTED_STATES, SUBMITTED, TERMINAL_STATES

STEPS_MAX = 200
"""Steps kept for a snapshot; the one that appeared first leaves first."""

WAITING_MAX = 16
WAITING_BYTES_MAX = 8 * 1024
"""So many updates, and bytes of them, wait to be folded: several in a row cost a third of as many one by one,
between which everything else of the path of an event runs. Bounds what a task holds beside its log."""

TurnPhase = Literal["begin", "end"]


class TurnSpan(NamedTuple):
    """Where the control records of a turn stand; `end` is None while it is open."""

    begin: int
    end: int | None


class _StatusUpdate(Struct):
    status: RawObject
    metadata: RawObject | None = None


class _ArtifactUpdate(Struct):
    artifact: RawObject
    append: bool | None = None


class _Payload(Struct):
    task: RawObject | None = None
    statusUpdate: _StatusUpdate | None = None  # noqa: N815 - the wire's name
    artifactUpdate: _ArtifactUpdate | None = None  # noqa: N815
    turn: RawObject | None = None


class _Identified(Struct):
    messageId: str = ""  # noqa: N815


_decode_payload = msgspec.json.Decoder(_Payload).decode
_decode_identified = msgspec.json.Decoder(_Identified).decode
_decode_object = msgspec.json.Decoder(RawObject).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_str = msgspec.json.Decoder(str).decode
_decode_artifact = msgspec.json.Decoder(ArtifactBody).decode
_encode = msgspec.json.Encoder().encode
_NULL = Raw(b"null")


class Fold:
    """Folds the records of one task, in their order, into the Task they add up to.

    It equals what a2a-sdk 1.3 makes of the same events (`a2a.server.tasks.task_manager.TaskManager`): the
    message of a status moves into the history at the next status; artifacts are replaced, or extended with
    `append`; metadata merges key by key. Where the SDK raises, the fold goes on:

    - `append` to an artifact that isn't there creates it (the log may have lost its first piece);
    - an update before the `task` record makes a task in state submitted, as the SDK does for an artifact;
    - the first context id named stays.

    A log has at most one `task` record, its first (control records aside); another one changes nothing. The
    message of a turn begin joins the history like the SDK's `update_with_message`: after the message of the
    status it answers, unless its id is there already.

    What an event says of the state is known at once; what else it says waits until somebody looks at it, or
    `WAITING_MAX` updates do.

    Args:
        task_id: the task's id, as in its subject.

    Attributes:
        task_id: the same.
        context_id: the first context id an event named, or "".
        sequence: of the last applied record, 0 before the first.
        state: the A2A state, or None before any event set one.
        terminal_sequence: of the record that ended the task, or None.
        open_turn: the id of the turn that began last and has not ended, or None.
        opening_sequence: of the `task` record, or None without one.
        opening: the Task as the `task` record left it, or None without such a record.
        after_terminal: records that followed the end of the task.
        surplus_tasks: `task` records that were not the log's first.
        malformed: fields, messages and artifacts of the `task` record that are none and were left out.
    """

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.context_id = ""
        self.sequence = 0
        self.state: str | None = None
        self.terminal_sequence: int | None = None
        self.open_turn: str | None = None
        self.opening_sequence: int | None = None
        self.opening: bytes | None = None
        self.after_terminal = 0
        self.surplus_tasks = 0
        self.malformed = 0
        self._started = False
        self._status: RawObject = {}
        self._history = bytearray()
        self._message_ids: set[str] = set()
        self._artifacts: list[KeptArtifact] = []
        self._artifact_of: dict[str, KeptArtifact] = {}
        self._artifact_began: dict[str, int] = {}
        self._metadata: RawObject = {}
        self._other: RawObject = {}
        self._steps: RawObject = {}
        self._turns: dict[str, TurnSpan] = {}
        self._task: bytes | None = None
        self._progress: float | None = None
        self._size = 0
        self._status_bytes = 0
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._waiting_max = self._waiting_max_at_first()

    @property
    def terminal(self) -> bool:
        """Whether the task is over."""
        return self.terminal_sequence is not None

    @property
    def interrupted(self) -> bool:
        """Whether the task waits for input or credentials."""
        return self.state in INTERRUPTED_STATES

    @property
    def started(self) -> bool:
        """Whether any record but control records was taken in."""
        return self._started

    @property
    def status(self) -> Mapping[str, Raw]:
        """The fields of the present status; empty before any record set one."""
        self._settle()
        return self._status

    @property
    def metadata(self) -> Mapping[str, Raw]:
        """The task's metadata, merged key by key."""
        self._settle()
        return self._metadata

    def artifact(self, artifact_id: str) -> FoldedArtifact | None:
        """Give the artifact that updates of this id go to, or None."""
        self._settle()
        artifact = self._artifact_of.get(artifact_id)
        if artifact is None:
            return None
        return FoldedArtifact(artifact.fields, artifact.metadata, array_of(artifact.parts))

    def begins_artifact(self, artifact_id: str, sequence: int) -> bool:
        """Tell whether an update, taken in, was the first of its artifact that the records here hold."""
        return self._artifact_began.get(artifact_id, sequence) >= sequence

    def knows_message(self, message_id: str) -> bool:
        """Tell whether a message is in the history, is the present status's, or began a turn."""
        self._settle()
        if message_id in self._message_ids or message_id in self._turns:
            return True
        message = self._status.get("message")
        return message is not None and bool(message_id) and _message_id(message) == message_id

    @property
    def steps(self) -> list[Raw]:
        """The newest state of each step as JSON, in the order in which the steps first appeared."""
        self._settle()
        return list(self._steps.values())

    @property
    def progress(self) -> float | None:
        """The last activity's progress, 0..1, or None."""
        self._settle()
        return self._progress

    @property
    def size_bytes(self) -> int:
        """Roughly the memory the folded records take, the encoded Task included."""
        self._settle()
        return self.held_bytes

    @property
    def held_bytes(self) -> int:
        """Roughly the memory held, including that of updates which wait to be folded."""
        size = self._size + self._waiting_bytes + len(self._history)
        if self.opening is not None:
            size += len(self.opening)
        if self._task is not None and self._task is not self.opening:
            size += len(self._task)
        return size

    def turn_phase(self, turn_id: str) -> TurnPhase | None:
        """Tell whether the turn of a message has begun or ended, or None where no record names it."""
        span = self._turns.get(turn_id)
        return None if span is None else "begin" if span.end is None else "end"

    def turn_span(self, turn_id: str) -> TurnSpan | None:
        """Tell where the turn of a message began and ended, or None where no record names it."""
        return self._turns.get(turn_id)

    def apply(self, event: Event, sequence: int) -> bool:
        """Take in the next record.

        Returns:
            Whether a client receives it: not a control record, not after the end of the task, not a `task`
            record beyond the log's first.
        """
        self.sequence = sequence
        kind = event.kind
        if kind == "turn":
            self._apply_turn(event)
            return False
        if self.terminal_sequence is not None:
            self.after_terminal += 1
            return False
        if kind == "task" and self._started:
            self.surplus_tasks += 1
            return False
        self._started = True
        self._task = None
        if not self.context_id:
            self.context_id = event.context_id or ""
        if kind == "statusUpdate":
            self.state = event.state
            self._defer(event.payload)
        elif kind == "artifactUpdate":
            self.state = self.state or SUBMITTED
            body = event.body
            assert isinstance(body, ArtifactUpdateBody)
            self._artifact_began.setdefault(body.artifact.artifactId, sequence)
            self._defer(event.payload)
        elif kind == "task":
            self._apply_task(event)
        if self.state in TERMINAL_STATES:
            self.terminal_sequence = sequence
        return True

    def _defer(self, payload: bytes) -> None:
        self._waiting.append(payload)
        self._waiting_bytes += len(payload)
        if len(self._waiting) >= self._waiting_max or self._waiting_bytes > WAITING_BYTES_MAX:
            self._settle()
            self._waiting_max = WAITING_MAX

    def _waiting_max_at_first(self) -> int:
        """Give how many wait after a look: not the same for all tasks, whose events may come in turn.

        A thousand tasks that were opened together and fold every sixteenth event do it all within a moment.
        """
        return 1 + crc32(self.task_id.encode(errors="surrogatepass")) % WAITING_MAX

    def _settle(self) -> None:
        """Fold the updates that wait: before anybody looks at what they change, or too many do."""
        if not self._waiting:
            return
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        self._waiting_max = self._waiting_max_at_first()
        for payload in waiting:
            update = _decode_payload(payload)
            if update.statusUpdate is not None:
                self._apply_status(update.statusUpdate, len(payload))
            elif update.artifactUpdate is not None:
                self._apply_artifact(update.artifactUpdate)

    def task(self) -> bytes:
        """Give the Task as one line of JSON; encoded once per change, in time linear in its size."""
        if self._task is None:
            self._settle()
            tree: dict[str, object] = {"id": self.task_id}
            if self.context_id:
                tree["contextId"] = self.context_id
            tree["status"] = self._status or {"state": SUBMITTED}
            if self._artifacts:
                tree["artifacts"] = [artifact.tree() for artifact in self._artifacts]
            if self._history:
                tree["history"] = array_of(self._history)
            if self._metadata:
                tree["metadata"] = self._metadata
            tree.update(self._other)
            self._task = _encode(tree)
        return self._task

    def _apply_turn(self, event: Event) -> None:
        turn = event.body
        assert isinstance(turn, TurnBody)
        known = self._turns.get(turn.id)
        if known is None:
            self._size += FIELD_BYTES + len(turn.id)
        begin = self.sequence if known is None else known.begin
        self._turns[turn.id] = TurnSpan(begin, self.sequence if turn.phase == "end" else None)
        if turn.phase == "end":
            if self.open_turn == turn.id:
                self.open_turn = None
            return
        self.open_turn = turn.id
        if turn.message is None or self.terminal:
            return
        self._settle()
        fields = _decode_payload(event.payload).turn
        assert fields is not None
        message = fields["message"]
        if turn.id in self._message_ids or _message_id(message) in self._message_ids:
            return
        self._task = None
        self._end_status_message()
        self._add_message(message)
        self._remember_message(turn.id)

    def _apply_status(self, update: _StatusUpdate, size_bytes: int) -> None:
        self._end_status_message()
        self._set_status(update.status, size_bytes)
        if update.metadata:
            self._size += merge(self._metadata, update.metadata)
            if (activity := activity_in(update.metadata)) is not None:
                self._apply_activity(activity)

    def _apply_activity(self, activity: RawActivity) -> None:
        known = activity.known
        if known.progress is not UNSET:
            self._progress = known.progress
        if known.step is not UNSET:
            # A known step keeps its place: the order is that of the plan, not of the latest news.
            self._size += merge(self._steps, {known.step.id: activity.fields["step"]})
            if len(self._steps) > STEPS_MAX:
                oldest = next(iter(self._steps))
                self._size -= size_of({oldest: self._steps.pop(oldest)})

    def _apply_artifact(self, update: _ArtifactUpdate) -> None:
        artifact_id = _decode_str(update.artifact["artifactId"])
        artifact = self._artifact_of.get(artifact_id)
        if artifact is None:
            self._add_artifact(artifact_id, KeptArtifact(update.artifact))
        elif update.append:
            self._size += artifact.append(update.artifact)
        else:
            self._size -= artifact.size_bytes
            artifact.replace(update.artifact)
            self._size += artifact.size_bytes

    def _apply_task(self, event: Event) -> None:
        fields = _decode_payload(event.payload).task
        assert fields is not None
        status = fields.pop("status")
        self._set_status(_decode_object(status), len(status))
        self._set_history(self._objects(fields.pop("history", None)))
        for raw in self._objects(fields.pop("artifacts", None)):
            try:
                artifact_id = _decode_artifact(raw).artifactId
            except msgspec.ValidationError:
                self.malformed += 1
            else:
                self._artifact_began.setdefault(artifact_id, self.sequence)
                self._add_artifact(artifact_id, KeptArtifact(_decode_object(raw)))
        metadata = fields.pop("metadata", _NULL)
        self.malformed += memoryview(metadata)[0] not in b"{n"
        self._size += merge(self._metadata, object_of(metadata))
        for key in ("id", "contextId"):
            fields.pop(key, None)
        self._size += merge(self._other, fields)
        self.state = event.state
        self.opening_sequence = self.sequence
        self.opening = self.task()

    def _set_status(self, status: RawObject, size_bytes: int) -> None:
        self._status = {key: raw.copy() for key, raw in status.items() if key != "message" or raw != _NULL}
        self._size += size_bytes - self._status_bytes
        self._status_bytes = size_bytes

    def _end_status_message(self) -> None:
        if (message := self._status.pop("message", None)) is not None:
            self._add_message(message)

    def _add_message(self, message: Raw) -> None:
        extend(self._history, message)
        self._remember_message(_message_id(message))

    def _remember_message(self, message_id: str) -> None:
        if message_id and message_id not in self._message_ids:
            self._message_ids.add(message_id)
            self._size += FIELD_BYTES + len(message_id)

    def _set_history(self, messages: list[Raw]) -> None:
        # Only turn begins can stand before the `task` record: what it doesn't know of them came before it.
        known = {_message_id(message) for message in messages} - {""}
        earlier = [raw for raw in _decode_list(array_of(self._history)) if _message_id(raw) not in known]
        self._history = bytearray()
        for message in [*earlier, *messages]:
            self._add_message(message)

    def _add_artifact(self, artifact_id: str, artifact: KeptArtifact) -> None:
        self._artifacts.append(artifact)
        # Of several with one id, which only a `task` record can bring, updates go to the first (as the SDK).
        self._artifact_of.setdefault(artifact_id, artifact)
        self._size += artifact.size_bytes + 2 * (FIELD_BYTES + len(artifact_id))

    def _objects(self, raw: Raw | None) -> list[Raw]:
        """Give the objects of an array; what is no array of objects is left out, and counted."""
        if raw is None or raw == _NULL:
            return []
        try:
            elements = _decode_list(raw)
        except msgspec.ValidationError:
            self.malformed += 1
            return []
        objects = [element for element in elements if memoryview(element)[0] == ord("{")]
        self.malformed += len(elements) - len(objects)
        return objects


def _message_id(message: Raw) -> str:
    try:
        return _decode_identified(message).messageId
    except msgspec.ValidationError:
        return ""
