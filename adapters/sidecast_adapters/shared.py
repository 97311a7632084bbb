"""What all logs of one publisher share.

Must not know tasks or events.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from msgspec import Struct, field

from sidecast_adapters.buffer import Buffer
from sidecast_adapters.connection import Connection
from sidecast_adapters.counts import Counts

logger = logging.getLogger("sidecast_adapters")

BATCH_EVENTS_MAX = 200
"""The server takes 1,000 unless it is told otherwise; writing 200 holds the agent's event loop some 10 ms."""


class Shared(Struct):
    """What all logs of one publisher share.

    Attributes:
        producer: 128 random bits in hex that name the publisher.
        connection: to NATS.
        buffer: the records of all logs that wait.
        sending: bounds how many requests are on their way at once, over all tasks.
        progressed: called whenever records were stored or given up.
        counts: what happened to the events.
        batch_events_limit: records per atomic batch.
        closed: nothing is taken any more.
        process: the id of the one it belongs to.
    """

    producer: str
    connection: Connection
    buffer: Buffer
    sending: asyncio.Semaphore
    progressed: Callable[[], None]
    counts: Counts
    batch_events_limit: int = BATCH_EVENTS_MAX
    closed: bool = False
    process: int = field(default_factory=os.getpid)
    _told_over: bool = False
    _batches_off_at: int = -1
    _ordinal: int = 0

    def next_ordinal(self) -> int:
        """Give the publisher's next ordinal."""
        self._ordinal += 1
        return self._ordinal

    @property
    def forked(self) -> bool:
        """Whether this is a fork of the process it belongs to, which has its connection and its tasks."""
        return self.process != os.getpid()

    @property
    def over(self) -> bool:
        """Whether nothing is taken any more."""
        return self.closed or self.forked

    def refused(self, size: int) -> None:
        """Count an event that came when all was over, and say so at the first."""
        self.count_dropped(1, size)
        if not self._told_over:
            self._told_over = True
            why = (
                "the publisher is closed"
                if self.closed
                else "its publisher belongs to the process that forked"
            )
            logger.error("%s; what a task says here is dropped", why)

    @property
    def batch_events_max(self) -> int:
        """Records per publish at the moment: 1 since the stream refused a batch, until the next reconnect."""
        return 1 if self._batches_off_at == self.connection.reconnects else self.batch_events_limit

    def batches_off(self) -> None:
        """Publish one by one until the next reconnect; the server or the stream may be another then."""
        self._batches_off_at = self.connection.reconnects

    def count_dropped(self, events: int, size: int) -> None:
        """Count what was dropped."""
        self.counts.dropped_events += events
        self.counts.dropped_bytes += size

    def dropped(self, events: int, size: int) -> None:
        """Count what the buffer had to drop, and say so at the first and every thousandth."""
        if not events:
            return
        before = self.counts.dropped_events
        self.count_dropped(events, size)
        if before == 0 or before // 1000 != self.counts.dropped_events // 1000:
            logger.warning(
                "the buffer is full (NATS away or slow): %d events dropped so far, text and progress first",
                self.counts.dropped_events,
            )
