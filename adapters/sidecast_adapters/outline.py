"""The outline of a task's log: enough of what was said to tell what a whole Task object adds to it.

Must not know records or NATS. Contents of artifacts are kept as digests, so an outline stays small.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

_encode = msgspec.json.Encoder(order="sorted").encode
_FIELDS = ("name", "description", "metadata", "extensions")

Event = dict[str, Any]


class _Content:
    """An artifact so far. Text in several parts counts like the same text in one."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._kind = b""
        self.fields: dict[str, Any] = {}

    def add(self, artifact: dict[str, Any]) -> None:
        for name in _FIELDS:
            value = artifact.get(name)
            if value:
                merge = name == "metadata" and name in self.fields
                self.fields[name] = {**self.fields[name], **value} if merge else value
        for part in artifact.get("parts") or ():
            kind = _encode({name: value for name, value in part.items() if name != "text"})
            text = part.get("text")
            if text is None or kind != self._kind:
                self._digest.update(b"\0" + kind + b"\0")
            self._kind = kind if text is not None else b""
            self._digest.update(str(text or "").encode("utf-8", "surrogatepass"))

    def says(self, other: _Content) -> bool:
        return self._digest.digest() == other._digest.digest() and self.fields == other.fields


class Outline:
    """What a task's log says so far, by the events observed.

    Args:
        task_id: the task.
        context_id: its context.

    Attributes:
        has_task: whether a Task object was observed.
    """

    def __init__(self, task_id: str, context_id: str) -> None:
        self._names = {"taskId": task_id, "contextId": context_id}
        self._status: dict[str, Any] = {}
        self._metadata: dict[str, Any] = {}
        self._artifacts: dict[str, _Content] = {}
        self.has_task = False

    def knows(self, artifact_id: str) -> bool:
        """Tell whether an artifact of this id was observed."""
        return artifact_id in self._artifacts

    def learn(self, artifact_ids: Iterable[str]) -> None:
        """Take artifacts for known whose contents are not."""
        for artifact_id in artifact_ids:
            self._artifacts.setdefault(artifact_id, _Content())

    def observe(self, event: Event) -> None:
        """Take in an event that the log gets.

        Args:
            event: A2A v1.0 JSON of one StreamResponse.
        """
        if status := event.get("statusUpdate"):
            self._status = _bare(status["status"])
            self._metadata |= status.get("metadata") or {}
        elif update := event.get("artifactUpdate"):
            artifact = update["artifact"]
            if not update.get("append") or artifact["artifactId"] not in self._artifacts:
                self._artifacts[artifact["artifactId"]] = _Content()
            self._artifacts[artifact["artifactId"]].add(artifact)
        elif task := event.get("task"):
            self.has_task = True
            self._status = _bare(task["status"])
            self._metadata |= task.get("metadata") or {}
            for artifact in task.get("artifacts") or ():
                self._artifacts[artifact["artifactId"]] = _content(artifact)

    def updates(self, task: dict[str, Any]) -> list[Event]:
        """Give the updates that lead from the log so far to a Task object: artifacts first, then its status.

        Args:
            task: A2A v1.0 JSON of a Task.
        """
        events: list[Event] = []
        for artifact in task.get("artifacts") or ():
            known = self._artifacts.get(artifact["artifactId"])
            if known is None or not known.says(_content(artifact)):
                events.append({"artifactUpdate": {**self._names, "artifact": artifact, "lastChunk": True}})
        metadata = {
            name: value
            for name, value in (task.get("metadata") or {}).items()
            if name not in self._metadata or self._metadata[name] != value
        }
        if metadata or _bare(task["status"]) != self._status:
            update = {**self._names, "status": task["status"]}
            events.append({"statusUpdate": update | ({"metadata": metadata} if metadata else {})})
        return events


def _content(artifact: dict[str, Any]) -> _Content:
    content = _Content()
    content.add(artifact)
    return content


def _bare(status: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in status.items() if name != "timestamp"}
