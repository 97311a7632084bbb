"""A turn: what one run of an agent's executor adds to its task's log, and what has to be added for it.

Must not know a2a-sdk: events come in as v1.0 JSON. The rules for what a task's log may hold are A2A v1.0,
section 3.1.2, and a2a-sdk's own checks, so that the log agrees with what the agent stores.
"""

from __future__ import annotations

import logging
from typing import Any, Literal

from sidecast_adapters.counts import Counts
from sidecast_adapters.flight import timestamp
from sidecast_adapters.task import ErrorText, Task, described
from sidecast_schemas.events import ACTIVITY, CANCELED, FAILED, SUBMITTED, TERMINAL_STATES

logger = logging.getLogger("sidecast_adapters")

Event = dict[str, Any]
Reason = Literal["returned", "error", "cancelled"]


class Turn:
    """One run of an executor on one task.

    Nothing is published before the agent has said something about the task: an answer that is a single
    message makes no task. The first record of a new log is the `task`, then `turn` begin, then the rest.

    Args:
        task: to publish to, not opened yet.
        counts: where what is left out is counted.
        message: the user's message that began the turn, or None (a cancellation).
        known: the Task as the agent has it stored, or None where it is new.
        strict: a2a-sdk 1.x, which refuses a status before the Task, and fails a task for an invalid event.
        error_text: how much of an exception the log says.
    """

    def __init__(
        self,
        task: Task,
        counts: Counts,
        *,
        message: dict[str, Any] | None,
        known: dict[str, Any] | None,
        strict: bool,
        error_text: ErrorText,
    ) -> None:
        self._task = task
        self._counts = counts
        self._message = message
        self._known = known
        self._strict = strict
        self._error_text = error_text
        self._mode: Literal["undecided", "message", "task"] = "undecided"
        self._complained = False

    @property
    def task(self) -> Task:
        """The task it publishes to."""
        return self._task

    def begin(self) -> None:
        """Begin: a turn on a task that exists is in its log from the first moment."""
        if self._known is not None:
            self._enter(self._known)

    def _enter(self, task: dict[str, Any] | None) -> None:
        log = self._task.open()
        self._mode = "task"
        if not log.outline.has_task:
            # Where the log has its records from an earlier turn already, this one is left out of it.
            self._task.put({"task": task or self._first_task()})
        self._turn("begin")

    def _first_task(self) -> dict[str, Any]:
        history = {"history": [self._message]} if self._message else {}
        status = {"state": SUBMITTED, "timestamp": timestamp()}
        return {"id": self._task.id, "contextId": self._task.context_id, "status": status, **history}

    def _turn(self, phase: Literal["begin", "end"], reason: Reason | None = None) -> None:
        if self._message is None or not self._message.get("messageId"):
            return
        turn: dict[str, Any] = {"id": self._message["messageId"], "phase": phase}
        if phase == "begin":
            turn["message"] = self._message
        if reason is not None:
            turn["reason"] = reason
        self._task.put({"turn": turn})

    def take(self, event: Event) -> None:
        """Publish what the agent says, where it belongs into the log.

        Raises:
            ValueError: it is no event, or too large to be published.
        """
        ((kind, body),) = event.items()
        if self._mode == "message":
            self._leave_out(f"a {kind} after a message as the answer")
            return
        if kind == "message":
            if self._mode == "task":
                self._leave_out("a message within a task")
            else:
                self._mode = "message"
            return
        task_id = body.get("id" if kind == "task" else "taskId")
        if task_id and task_id != self._task.id:
            self._leave_out(f"a {kind} of another task, {task_id!r}")
        elif self._mode == "undecided":
            self._take_first(kind, body, event)
        elif kind == "artifactUpdate" and not self._continues(body):
            self._leave_out(
                f"a chunk of artifact {body['artifact'].get('artifactId')!r}, which doesn't exist"
            )
        else:
            self._task.put(event)

    def _take_first(self, kind: str, body: dict[str, Any], event: Event) -> None:
        if kind == "statusUpdate" and self._strict:
            self._leave_out("a status before the task")
            return
        if kind == "task":
            is_new = not self._task.open().outline.has_task
            self._enter(body)
            if is_new:
                return
        else:
            self._enter(None)
        if kind == "artifactUpdate" and not self._continues(body):
            self._leave_out(
                f"a chunk of artifact {body['artifact'].get('artifactId')!r}, which doesn't exist"
            )
        else:
            self._task.put(event)

    def _continues(self, update: dict[str, Any]) -> bool:
        return not update.get("append") or self._task.open().outline.knows(
            update["artifact"].get("artifactId", "")
        )

    def _leave_out(self, what: str) -> None:
        self._counts.invalid_events += 1
        if not self._complained:
            self._complained = True
            logger.warning("task %s: %s is left out of its log", self._task.id, what)
        if self._strict and self._mode == "task":
            # a2a-sdk 1.x fails the task for it.
            self._end_as(FAILED, "InvalidAgentResponseError")

    def _end_as(self, state: str, text: str | None = None) -> None:
        if self._task.ended:
            return
        status: dict[str, Any] = {"state": state, "timestamp": timestamp()}
        update: dict[str, Any] = {"status": status}
        if text is not None:
            status["message"] = {
                "messageId": f"{self._task.id}-error",
                "role": "ROLE_AGENT",
                "parts": [{"text": text}],
                "taskId": self._task.id,
                "contextId": self._task.context_id,
            }
            code = text.partition(":")[0]
            update["metadata"] = {ACTIVITY: {"kind": "error", "code": code, "recoverable": False}}
        self._task.put({"statusUpdate": update})

    def returned(self) -> None:
        """End: the executor has returned."""
        self._end("returned")

    def failed(self, error: BaseException) -> None:
        """End: the executor has raised, so the task has failed."""
        if self._mode == "undecided" and self._strict:
            # a2a-sdk 1.x stores a failed task then, 0.3.x stores nothing.
            self._enter(None)
        if self._mode == "task":
            self._end_as(FAILED, described(error, self._error_text))
        self._end("error")

    def cancelled(self) -> None:
        """End: the executor was cancelled, and with it the task."""
        if self._mode == "task":
            self._end_as(CANCELED)
        self._end("cancelled")

    def cancel_returned(self) -> None:
        """The agent has taken a cancellation: the task is canceled, where nothing was said of its end."""
        if self._mode == "task":
            self._end_as(CANCELED)

    def cancel_failed(self, error: Exception) -> None:
        """The agent's cancellation has raised, for which a2a-sdk 1.x fails the task."""
        if self._mode == "task":
            self._end_as(FAILED, described(error, self._error_text))

    def _end(self, reason: Reason) -> None:
        if self._mode == "task":
            self._turn("end", reason)
        self.close()

    def close(self) -> None:
        """Let go of the task without a word."""
        self._task.close()


def still_open(task: dict[str, Any] | None) -> bool:
    """Tell whether there is a Task that can still change."""
    return task is not None and task["status"].get("state") not in TERMINAL_STATES
