"""Whether this broker captures a task, or another one does: whoever does attends a subject (ADR 5).

Must not know what is captured, nor what follows from who captures.
"""

from __future__ import annotations

from sidecast_broker.jetstream import JetStream


class Lead:
    """Finds out who captures one task, and tells others that this broker does.

    Args:
        stream: where other brokers are asked.
        subject: whoever captures the task attends it.

    Attributes:
        held: whether this broker captures the task; None: it isn't known who does.
    """

    def __init__(self, stream: JetStream, subject: str) -> None:
        self.held: bool | None = None
        self._stream = stream
        self._subject = subject
        self._attends = False

    async def take(self) -> bool:
        """Capture the task, unless another broker does; tell whether this one does.

        Raises:
            Away: that can't be found out.
        """
        if self.held is not True:
            await self.leave()
            if await self._stream.attended(self._subject):
                self.held = False
                return False
            await self._stream.attend(self, self._subject)
            self._attends = True
            self.held = True
        return True

    async def leave(self) -> None:
        """Tell nobody any more that this broker captures the task."""
        if self._attends:
            await self._stream.unsubscribe(self)
        self._attends = False

    async def close(self) -> None:
        """Let go, also of what is only half begun."""
        await self._stream.unsubscribe(self)
