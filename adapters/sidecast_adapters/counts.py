"""What a publisher counts.

Must not know who counts or reads it.
"""

from __future__ import annotations

from msgspec import Struct


class Counts(Struct):
    """Running totals of one publisher.

    Attributes:
        stored_events: records JetStream has acknowledged.
        dropped_events: events dropped because the buffer was full, or their task can't be published any more.
        dropped_bytes: bytes of their payloads.
        shortened_events: statuses and tasks that went without a part that was too large.
        refused_events: events that JetStream would not take.
        late_events: events after the task had ended; nobody would have received them.
        invalid_events: events of an agent framework that are not part of the task's log.
        fenced_tasks: tasks that another publisher has taken over.
        failed_sends: attempts to send that an error of ours or of nats-py broke off; they are repeated.
    """

    stored_events: int = 0
    dropped_events: int = 0
    dropped_bytes: int = 0
    shortened_events: int = 0
    refused_events: int = 0
    late_events: int = 0
    invalid_events: int = 0
    fenced_tasks: int = 0
    failed_sends: int = 0
