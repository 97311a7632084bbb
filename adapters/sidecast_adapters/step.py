"""A step of an agent's plan, as one event or as a block that reports its own end.

Must not know tasks or logs: it is given how to report.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Literal, Self, get_args

from msgspec import UnsetType, structs

from sidecast_schemas.events import Step as StepBody

StepState = Literal["running", "done", "failed", "skipped"]
_STATES = get_args(StepState)


class Step:
    """A step; awaiting it publishes it once, as a block it is running, then done or failed with its duration.

    Attributes:
        body: what is published.

    Raises:
        ValueError: the id is empty, the state unknown, or a number negative.
    """

    def __init__(self, body: StepBody, report: Callable[[StepBody], Awaitable[None]]) -> None:
        if not body.id:
            raise ValueError("a step needs an id")
        if body.state not in _STATES:
            raise ValueError(f"a step is {', '.join(_STATES)}, not {body.state!r}")
        for number in (body.index, body.total, body.duration_ms):
            if not isinstance(number, UnsetType) and number < 0:
                raise ValueError("a step's numbers are not negative")
        self.body = body
        self._report = report
        self._began_s = 0.0

    def __await__(self) -> Generator[Any, None, None]:
        return self._report(self.body).__await__()

    async def __aenter__(self) -> Self:
        self._began_s = time.monotonic()
        self.body = structs.replace(self.body, state="running")
        await self._report(self.body)
        return self

    async def skip(self) -> None:
        """Publish the step as skipped; leaving the block publishes nothing more."""
        self.body = structs.replace(self.body, state="skipped")
        await self._report(self.body)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.body.state == "skipped" and error is None:
            return
        self.body = structs.replace(
            self.body,
            state="done" if error is None else "failed",
            duration_ms=round((time.monotonic() - self._began_s) * 1000, 3),
        )
        await self._report(self.body)
