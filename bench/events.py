"""The benchmark's event: the same JSON at every server, about 420 bytes as a frame of the broker.

Must not know how it travels. `n` is its number within its task, `ts` when it was published: what the load
client checks and times.
"""

from __future__ import annotations

import time

TASK = "bench-%d"
"""Name of a task by its number."""

EVENT_BYTES = 420
"""A frame on the wire: the size of a status with a sentence of text."""

_TEXT = "x" * 165

# Formats of the task's number, that of the event, and the time: also the compiled publisher fills them.
PAYLOAD = (
    '{"statusUpdate":{"taskId":"bench-%d","contextId":"bench","status":{"state":"TASK_STATE_WORKING",'
    '"message":{"messageId":"m","role":"ROLE_AGENT","parts":[{"text":"' + _TEXT + '"}]}},'
    '"metadata":{"n":%ld,"ts":%ld}}}'
)
_DATA = (
    '{"type":"task.status","taskId":"bench-%d","contextId":"bench","seq":%d,"at":"2025-01-01T00:00:00.000Z",'
    '"state":"working","text":"' + _TEXT + '","final":false,"metadata":{"n":%d,"ts":%d}}'
)


def opening(task: int) -> bytes:
    """Give the record that begins a task's log."""
    name = TASK % task
    status = '{"state":"TASK_STATE_SUBMITTED"}'
    return f'{{"task":{{"id":"{name}","contextId":"bench","status":{status}}}}}'.encode()


def payload(task: int, n: int) -> bytes:
    """Give an event as an agent publishes it, published now."""
    return (PAYLOAD % (task, n, time.time_ns())).encode()


def data(task: int, n: int) -> bytes:
    """Give the JSON the broker makes of it, for servers that pass on what they are given."""
    return (_DATA % (task, n, n, time.time_ns())).encode()
