"""A task's events as people read them: JSON lines, one line per event, or the work as it happens.

Must not know where events come from. Fields may hold anything: what isn't as expected is not shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from sidecast_broker.commands.event_source import ServerSentEvent
from sidecast_broker.commands.terminal import (
    BOLD,
    CYAN,
    DIM,
    GREEN,
    ITALIC,
    RED,
    YELLOW,
    Terminal,
    one_line,
    printable,
    printable_json,
)
from sidecast_broker.commands.watcher import decode_object, text_of

BAR_CELLS = 24

_STEP_SIGNS = {"running": "▸", "done": "✓", "failed": "✗", "skipped": "·"}
_STEP_COLORS = {"running": CYAN, "done": GREEN, "failed": RED, "skipped": DIM}
_STATE_COLORS = {"completed": GREEN, "failed": RED, "rejected": RED, "canceled": YELLOW}

GAPS = {
    "expired": "events before are no longer kept",
    "epoch": "the stream was made anew",
    "malformed": "the position asked for is not one",
    "ahead": "the position asked for does not exist yet",
    "slow": "this client was too slow",
}


class Display(Protocol):
    """Shows events one after the other."""

    def show(self, event: ServerSentEvent) -> None:
        """Show one event."""

    def note(self, text: str) -> None:
        """Show something that isn't part of the stream."""


class JsonLines:
    """The data of each event as it came, one per line, for programs; notes go elsewhere."""

    def __init__(self, terminal: Terminal, notes: Terminal) -> None:
        self._terminal = terminal
        self._notes = notes

    def show(self, event: ServerSentEvent) -> None:
        """Write the event's data."""
        self._terminal.line(printable_json(event.data.replace("\n", " ")))

    def note(self, text: str) -> None:
        """Write a note on standard error."""
        self._notes.line(one_line(f"sidecast: {text}"))


class Lines(JsonLines):
    """One readable line per event."""

    def show(self, event: ServerSentEvent) -> None:
        """Write the event's time, type, and what it says."""
        fields = decode_object(event.data.encode())
        time = text_of(fields, "at")[11:19] or "        "
        kind = event.type.removeprefix("task.")
        says = one_line(" ".join(filter(None, _say(event.type, fields))))
        style = self._terminal.style
        self._terminal.line(f"{style(one_line(time), DIM)}  {style(f'{one_line(kind):<13}', CYAN)} {says}")


def _say(kind: str, fields: Mapping[str, Any]) -> Iterator[str]:
    if kind == "task.progress":
        yield percent(fields.get("progress"))
    elif kind == "task.step":
        yield step_line(fields.get("step"))
    elif kind == "task.artifact":
        yield f"{text_of(fields, 'name') or text_of(fields, 'artifactId')}:"
    elif kind == "task.snapshot":
        yield text_of(fields, "state")
        yield percent(fields.get("progress"))
        yield "partial" if fields.get("partial") is True else ""
    elif kind == "stream.gap":
        yield gap(fields)
    elif kind == "task.error":
        yield text_of(fields, "code")
    else:
        for name in ("mode", "state", "reason", "policy"):
            yield text_of(fields, name)
    if kind != "task.step" and "text" in fields:
        yield text_of(fields, "text")
    elif isinstance(parts := fields.get("parts"), list):
        yield f"{len(parts)} parts"
    elif isinstance(message := fields.get("message"), dict):
        yield text_of_parts(message.get("parts"))


def gap(fields: Mapping[str, Any]) -> str:
    """Say what a `stream.gap` means."""
    reason = text_of(fields, "reason")
    return f"events are missing here ({GAPS.get(reason, reason)}); what follows starts from a snapshot"


def percent(progress: Any) -> str:
    """Give a progress of 0 to 1 as a percentage, empty when it isn't one."""
    return f"{progress:.0%}" if isinstance(progress, int | float) and 0 <= progress <= 1 else ""


def duration(milliseconds: Any) -> str:
    """Give a duration as people say it, empty when it isn't one."""
    if not isinstance(milliseconds, int | float) or not 0 <= milliseconds < 1e12:
        return ""
    seconds = milliseconds / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s"


def step_line(step: Any) -> str:
    """Give a step as one line: its place, title, state and duration."""
    if not isinstance(step, dict):
        return ""
    index, total = step.get("index"), step.get("total")
    place = f"{index + 1}/{total}" if isinstance(index, int) and isinstance(total, int) else ""
    state = text_of(step, "state") or "running"
    title = text_of(step, "title") or text_of(step, "id")
    return " ".join(
        filter(None, (_STEP_SIGNS.get(state, "?"), place, title, state, duration(step.get("duration_ms"))))
    )


def text_of_parts(parts: Any) -> str:
    """Join the text of A2A parts."""
    if not isinstance(parts, list):
        return ""
    return "".join(text_of(part, "text") for part in parts if isinstance(part, dict))


class Visual:
    """The task as if one watched the agent work: text types itself out, a bar shows how far it is."""

    def __init__(self, terminal: Terminal, notes: Terminal) -> None:
        self._terminal = terminal
        self._notes = notes if notes.interactive is False else terminal
        self._artifact = ""
        self._state = ""
        self._steps: dict[str, dict[str, Any]] = {}
        self._progress = ""
        self._says = ""
        self._bar = -1

    def note(self, text: str) -> None:
        """Write a note between what is shown."""
        self._notes.line(self._notes.style(one_line(f"sidecast: {text}"), YELLOW))

    def show(self, event: ServerSentEvent) -> None:
        """Show what the event adds to what has been shown."""
        fields = decode_object(event.data.encode())
        show = getattr(self, "_" + event.type.replace(".", "_"), None)
        if show is not None:
            show(fields)

    def _task_snapshot(self, fields: Mapping[str, Any]) -> None:
        self._set_state(text_of(fields, "state"), "")
        steps = fields.get("steps")
        for step in steps if isinstance(steps, list) else ():
            self._task_step({"step": step})
        task = fields.get("task")
        artifacts = task.get("artifacts") if isinstance(task, dict) else None
        self._artifact = ""
        for artifact in artifacts if isinstance(artifacts, list) else ():
            if isinstance(artifact, dict):
                self._type_artifact(artifact, text_of_parts(artifact.get("parts")), append=False)
        self._set_progress(fields.get("progress"), "")

    def _task_status(self, fields: Mapping[str, Any]) -> None:
        message = fields.get("message")
        text = text_of(fields, "text")
        if not text and isinstance(message, dict):
            text = text_of_parts(message.get("parts"))
        self._set_state(text_of(fields, "state"), text)

    def _task_progress(self, fields: Mapping[str, Any]) -> None:
        self._set_progress(fields.get("progress"), text_of(fields, "text"))

    def _task_step(self, fields: Mapping[str, Any]) -> None:
        step = fields.get("step")
        if not isinstance(step, dict):
            return
        line = one_line(step_line(step))
        known = self._steps.get(text_of(step, "id"))
        self._steps[text_of(step, "id")] = step
        if known is None or one_line(step_line(known)) != line:
            self._terminal.line(self._terminal.style(line, _STEP_COLORS.get(text_of(step, "state"), CYAN)))

    def _task_thought(self, fields: Mapping[str, Any]) -> None:
        self._terminal.line(self._terminal.style(printable(text_of(fields, "text")).strip(), DIM, ITALIC))

    def _task_debug(self, fields: Mapping[str, Any]) -> None:
        text = " ".join(filter(None, (text_of(fields, "component"), text_of(fields, "text"))))
        self._terminal.line(self._terminal.style(one_line(f"debug: {text}"), DIM))

    def _task_error(self, fields: Mapping[str, Any]) -> None:
        text = " ".join(filter(None, (text_of(fields, "code"), text_of(fields, "text"))))
        self._terminal.line(self._terminal.style(one_line(f"error: {text}"), RED))

    def _task_message(self, fields: Mapping[str, Any]) -> None:
        message = fields.get("message")
        if isinstance(message, dict):
            self._terminal.line(printable(text_of_parts(message.get("parts"))))

    def _task_artifact(self, fields: Mapping[str, Any]) -> None:
        text = text_of(fields, "text") or text_of_parts(fields.get("parts"))
        self._type_artifact(fields, text, append=fields.get("append") is True)

    def _stream_gap(self, fields: Mapping[str, Any]) -> None:
        self._terminal.line(self._terminal.style(one_line(f"~~ {gap(fields)} ~~"), YELLOW))

    def _stream_end(self, fields: Mapping[str, Any]) -> None:
        self._terminal.status("")
        state = text_of(fields, "state")
        if self._steps:
            total_ms = sum(
                step["duration_ms"]
                for step in self._steps.values()
                if isinstance(step.get("duration_ms"), int | float)
            )
            self._terminal.line()
            for step in self._steps.values():
                self._terminal.line("  " + one_line(step_line(step)))
            plural = "s" if len(self._steps) > 1 else ""
            self._terminal.line(f"  {len(self._steps)} step{plural}, {duration(total_ms)}")
        end = " ".join(filter(None, (state, text_of(fields, "reason"))))
        self._terminal.line(
            self._terminal.style(one_line(f"■ {end}"), BOLD, _STATE_COLORS.get(state, YELLOW))
        )

    def _type_artifact(self, fields: Mapping[str, Any], text: str, *, append: bool) -> None:
        artifact = text_of(fields, "artifactId")
        if artifact != self._artifact or not append:
            name = text_of(fields, "name") or artifact
            self._terminal.line(self._terminal.style(one_line(f"── {name} ──"), BOLD))
            self._artifact = artifact
        self._terminal.write(printable(text))

    def _set_state(self, state: str, text: str) -> None:
        if state != self._state or text:
            self._state = state
            line = one_line(" ".join(filter(None, ("●", state, text))))
            self._terminal.line(self._terminal.style(line, BOLD, _STATE_COLORS.get(state, CYAN)))

    def _set_progress(self, progress: Any, text: str) -> None:
        says = percent(progress)
        if not says or (says, text) == (self._progress, self._says):
            return
        self._progress, self._says = says, text
        full = round(progress * BAR_CELLS)
        bar = f"[{'█' * full}{'░' * (BAR_CELLS - full)}] {says}"
        if self._terminal.interactive:
            self._terminal.status(one_line(f"{bar} {text}"))
        elif not self._terminal.midline and full != self._bar:
            # Lines can't be taken back: only when the bar looks different, and never within a text.
            self._bar = full
            self._terminal.line(one_line(f"{bar} {text}"))
