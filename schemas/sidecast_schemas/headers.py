"""Header names: ours on NATS and HTTP, and those of the NATS server that we read or set.

Names are compared in exact case; where a name stands twice, the last one is the server's.
"""

from __future__ import annotations

# Set by publishers.
MSG_ID = "Nats-Msg-Id"
"""Deduplication id; starts with the 128 random bits of `PRODUCER`."""
PRODUCER = "Sidecast-Producer"
"""128 random bits in hex that name one publisher process."""
OWNER = "Sidecast-Owner"
"""The principal a task belongs to, encoded like a subject token."""
STATE = "Sidecast-State"
"""The task's A2A state after this event, for example `TASK_STATE_WORKING`."""
TRACEPARENT = "traceparent"
"""W3C trace context of the publish."""

# HTTP headers by which the broker tells the agent whom it passes a request on for; only it can set them.
PRINCIPAL = "Sidecast-Principal"
"""Who asks, encoded like `OWNER`: the owner of a task that their message begins."""
TENANT = "Sidecast-Tenant"
"""The tenant their request is about, encoded likewise; absent for the one without a name."""

# JetStream publish controls.
EXPECTED_LAST_SUBJECT_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"
BATCH_ID = "Nats-Batch-Id"
BATCH_SEQUENCE = "Nats-Batch-Sequence"
BATCH_COMMIT = "Nats-Batch-Commit"

# Set by the server on republished and directly read messages.
SUBJECT = "Nats-Subject"
SEQUENCE = "Nats-Sequence"
TIME_STAMP = "Nats-Time-Stamp"
LAST_SEQUENCE = "Nats-Last-Sequence"
NUM_PENDING = "Nats-Num-Pending"
UP_TO_SEQUENCE = "Nats-UpTo-Sequence"
STATUS = "Status"
