"""Examples of payloads, one of each sort: what the AsyncAPI document shows and a publisher may start from.

Must not know headers or subjects.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType

from sidecast_schemas.events import (
    ACTIVITY,
    COMPLETED,
    LOSS,
    SUBMITTED,
    WORKING,
    Activity,
    Artifact,
    Loss,
    Message,
    Part,
    Step,
    StreamResponse,
    Task,
    TaskArtifactUpdateEvent,
    TaskStatus,
    TaskStatusUpdateEvent,
    Turn,
    TurnRecord,
)

_AT = "2025-11-21T07:06:00.125Z"


def _update(status: TaskStatus, metadata: dict[str, Any] | UnsetType = UNSET) -> StreamResponse:
    return StreamResponse(
        statusUpdate=TaskStatusUpdateEvent(
            taskId="task-1", contextId="ctx-1", status=status, metadata=metadata
        )
    )


RESPONSES: dict[str, StreamResponse] = {
    "submitted": StreamResponse(
        task=Task(id="task-1", contextId="ctx-1", status=TaskStatus(state=SUBMITTED, timestamp=_AT))
    ),
    "working": _update(
        TaskStatus(
            state=WORKING,
            message=Message(
                messageId="message-2",
                role="ROLE_AGENT",
                parts=[Part(text="Reading the trades")],
                contextId="ctx-1",
                taskId="task-1",
            ),
            timestamp=_AT,
        )
    ),
    "progress": _update(
        TaskStatus(state=WORKING, timestamp=_AT), {ACTIVITY: Activity(kind="progress", progress=0.35)}
    ),
    "step": _update(
        TaskStatus(state=WORKING, timestamp=_AT),
        {ACTIVITY: Activity(kind="step", step=Step(id="read", title="Read the trades", index=0, total=3))},
    ),
    "loss": _update(
        TaskStatus(state=WORKING, timestamp=_AT), {LOSS: Loss(dropped_events=12, dropped_bytes=48_000)}
    ),
    "artifact": StreamResponse(
        artifactUpdate=TaskArtifactUpdateEvent(
            taskId="task-1",
            contextId="ctx-1",
            artifact=Artifact(
                artifactId="report.md",
                name="report.md",
                parts=[Part(text="# Findings\n", mediaType="text/markdown")],
            ),
            append=True,
        )
    ),
    "message": StreamResponse(
        message=Message(messageId="message-3", role="ROLE_AGENT", parts=[Part(data={"trades": 8})])
    ),
    "completed": _update(TaskStatus(state=COMPLETED, timestamp=_AT)),
}

TURNS: dict[str, TurnRecord] = {
    "begin": TurnRecord(Turn(id="message-1", phase="begin")),
    "end": TurnRecord(Turn(id="message-1", phase="end", reason="completed")),
}
