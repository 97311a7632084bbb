"""An artifact whose text is written piece by piece.

Must not know logs or NATS.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from sidecast_schemas.events import Artifact as ArtifactBody
from sidecast_schemas.events import Part, StreamResponse, TaskArtifactUpdateEvent

if TYPE_CHECKING:
    from sidecast_adapters.task import Task


class Artifact:
    """An artifact of a task; an async context manager. Leaving the block in good order marks it as complete.

    Made by `Task.artifact`.

    Attributes:
        id: unique within the task.
        name: its name.
    """

    def __init__(self, task: Task, *, artifact_id: str, name: str, media_type: str, description: str) -> None:
        self.id = artifact_id
        self.name = name
        self._task = task
        self._media_type = media_type
        self._description = description
        self._begun = False

    async def __aenter__(self) -> Self:
        return self

    async def write(self, text: str) -> None:
        """Add text. A long text is split into several chunks, between characters; an empty one does nothing.

        Raises:
            ValueError: it is no text.
        """
        if not isinstance(text, str):
            raise ValueError(f"a text is a str, not {type(text).__name__}")
        if text:
            await self._write(text, last=False)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self._write("", last=True)

    async def _write(self, text: str, *, last: bool) -> None:
        append, self._begun = self._begun, True
        parts = [Part(text=text, mediaType=self._media_type)]
        if append:
            body = ArtifactBody(artifactId=self.id, parts=parts)
        else:
            body = ArtifactBody(
                artifactId=self.id, parts=parts, name=self.name, description=self._description
            )
        update = TaskArtifactUpdateEvent(
            taskId=self._task.id,
            contextId=self._task.context_id,
            artifact=body,
            append=append,
            lastChunk=last,
        )
        self._task.append_chunk(StreamResponse(artifactUpdate=update), self.id, append=append, last=last)
        await self._task.room()
