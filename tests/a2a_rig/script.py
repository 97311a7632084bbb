"""What the test agents do with a message: its text is a small script, so that a test reads as what happens.

    chunks 3; gate go; chunks 2 4; done

Must not know which a2a-sdk the agent is built on: it is run by all of them, and speaks through a `Voice`.

Steps, separated by `;` (a turn begins with the task and `working`, and ends with `done`, unless it says
otherwise):

| step | what the agent does |
|---|---|
| `message TEXT` | answers with a single message; no task comes to be |
| `bare` | (first) leaves out the task and `working` that a turn begins with |
| `chunks N [FIRST]` | N pieces `FIRST `, … of the artifact `out`; each but piece 1 is appended |
| `pad BYTES` | makes each further piece that much longer |
| `replace TEXT` | writes the artifact `out` anew |
| `parts` | the artifact `parts`: text, bytes, an address, data |
| `say TEXT` · `meta JSON` | a `working` status with a message · with metadata |
| `again` | the whole task object once more |
| `gate NAME` | waits until the test opens it |
| `pause MS` | takes its time |
| `ask TEXT` | `input-required`, and the turn ends |
| `auth NAME` | `auth-required`, and the turn goes on when the gate is opened (out of band) |
| `done` · `reject` · `open` | completes · rejects · ends the turn without an end of the task |
| `fail` | raises |
| `wait` | works until it is canceled |
| `quiet` | says nothing when it is canceled |
| `late` | says something after the end |
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Protocol

SECRET = "s3cret"
"""In the text of what `fail` raises: it must never reach a client."""

ENDS = frozenset({"done", "reject", "ask", "fail", "wait", "open", "late"})


class Voice(Protocol):
    """One turn of one agent, on one SDK."""

    async def task(self) -> None:
        """Say the task as it stands."""

    async def status(self, state: str, text: str = "", metadata: dict[str, Any] | None = None) -> None:
        """Say a state by its name in lower case with underscores."""

    async def artifact(self, text: str, *, append: bool, last: bool) -> None:
        """Say a piece of the artifact `out`."""

    async def parts(self) -> None:
        """Say an artifact with a part of each kind."""

    async def message(self, text: str) -> None:
        """Answer with a single message."""


class Gates(Protocol):
    """Where scripts wait for the test."""

    async def wait(self, name: str) -> None:
        """Say that it was reached, and wait until it is opened."""


class Script:
    """One script, performed once.

    Attributes:
        quiet: whether the agent says nothing when it is canceled.
    """

    def __init__(self, text: str, voice: Voice, gates: Gates) -> None:
        self._steps = [step.strip().partition(" ") for step in text.split(";")]
        self._voice = voice
        self._gates = gates
        self._pad = ""
        self.quiet = any(name == "quiet" for name, _, _ in self._steps)

    async def perform(self, *, new: bool) -> None:
        """Do all steps; `new` says whether the task begins with this message."""
        names = [name for name, _, _ in self._steps]
        if names[0] not in ("bare", "message"):
            if new:
                await self._voice.task()
            await self._voice.status("working")
        for name, _, rest in self._steps:
            await self._do(name, rest.strip())
        if names[0] != "message" and not ENDS & set(names):
            await self._voice.status("completed")

    async def _do(self, name: str, rest: str) -> None:
        voice = self._voice
        match name:
            case "message":
                await voice.message(rest)
            case "chunks":
                async for number, last in self._numbers(rest):
                    await voice.artifact(f"{number} {self._pad}", append=number > 1, last=last)
            case "pad":
                self._pad = "x" * (int(rest) - 1) + " "
            case "replace":
                await voice.artifact(rest, append=False, last=True)
            case "parts":
                await voice.parts()
            case "say":
                await voice.status("working", rest)
            case "meta":
                await voice.status("working", "", json.loads(rest))
            case "again":
                await voice.task()
            case "gate":
                await self._gates.wait(rest)
            case "pause":
                await asyncio.sleep(int(rest) / 1000)
            case "ask":
                await voice.status("input_required", rest)
            case "auth":
                await voice.status("auth_required")
                await self._gates.wait(rest)
                await voice.status("working")
            case "done":
                await voice.status("completed")
            case "reject":
                await voice.status("rejected")
            case "fail":
                raise RuntimeError(SECRET)
            case "wait":
                await asyncio.Event().wait()
            case "late":
                await voice.status("completed")
                await voice.status("working", "after the end")
            case "bare" | "quiet" | "open":
                pass
            case _:
                raise ValueError(f"no such step: {name!r}")

    async def _numbers(self, rest: str) -> AsyncIterator[tuple[int, bool]]:
        count, _, first = rest.partition(" ")
        begin = int(first or 1)
        end = begin + int(count)
        for number in range(begin, end):
            yield number, number == end - 1
            # Each piece is an event of its own on the way, not one of a burst the agent alone has seen.
            await asyncio.sleep(0)
