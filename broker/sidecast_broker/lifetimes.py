"""Has streams end with what opened them: at the end of its life, or when it is revoked.

Must not know how revocations are made. Streams are looked at from time to time; nothing is done per event.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import structlog

from sidecast_broker.auth.revocations import Revocations
from sidecast_broker.core.auth.life import End, Life
from sidecast_broker.stream import Stream

logger = structlog.get_logger(__name__)


class Lifetimes:
    """Ends streams that may not go on.

    Args:
        revocations: what is revoked.
        expiring_s: how long before the end of its credential a client is told.
        clock: the time, seconds since 1970.
    """

    def __init__(
        self, revocations: Revocations, expiring_s: float, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._revocations = revocations
        self._expiring_s = expiring_s
        self._clock = clock

    def now(self) -> float:
        """Give the time to look at streams with, seconds since 1970."""
        return self._clock()

    def begin(self, stream: Stream) -> None:
        """Look after a stream that is about to send its first byte.

        Between the check of its credential and now the agent may have thought for minutes.
        """
        life = stream.life = Life(stream.principal.ends_at_s, self._expiring_s)
        now_s = self._clock()
        self._judge(stream, life, now_s)
        if life.step(now_s) == "expire":
            self._finish(stream, life, "expired", now_s)

    def look(self, stream: Stream, now_s: float) -> None:
        """Do for a stream what is due.

        Args:
            stream: one that `begin` was called with.
            now_s: the time, as `now` gave it.
        """
        life = stream.life
        assert life is not None
        if life.generation != self._revocations.generation:
            self._judge(stream, life, now_s)
        elif now_s < life.due_s:
            return
        step = life.step(now_s)
        if step is None:
            return
        if step == "cut":
            # It takes nothing, so that it hasn't come to its end: what it wasn't sent yet it must not get.
            assert life.end is not None
            stream.cut(life.end)
        elif step == "expire":
            self._finish(stream, life, "expired", now_s)
        elif stream.tell(stream.view.expiring(life.left_s(now_s))):
            life.tell()

    def _judge(self, stream: Stream, life: Life, now_s: float) -> None:
        """End a stream whose credential or task is revoked."""
        revoked = self._revocations.covers_credential(stream.principal)
        if not stream.unfed:
            revoked = revoked or self._revocations.covers_task(stream.principal, stream.key)
            life.generation = self._revocations.generation
            if not revoked:
                stream.recheck(partial(self._revocations.covers_task, stream.principal))
        # Who waits for a task they may not see must not learn that it was revoked, nor be forgotten here when
        # they come to see it.
        if revoked:
            self._finish(stream, life, "revoked", now_s)

    def _finish(self, stream: Stream, life: Life, end: End, now_s: float) -> None:
        life.finish(end, now_s)
        stream.close(end, stream.view.cut_short(stream.hub, end))
