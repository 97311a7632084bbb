"""The AsyncAPI 3.0.0 document of the wire: the NATS subjects, their headers, and the browser stream.

It speaks for a program beside the broker: an agent sends, a subscriber receives. Must not know files.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from sidecast_schemas import headers
from sidecast_schemas.events import TASK_STATE_PATTERN, WORKING, StreamResponse, TurnRecord
from sidecast_schemas.examples import RESPONSES, TURNS
from sidecast_schemas.subjects import EVENTS_PREFIX, LIVE_PREFIX

Document: TypeAlias = dict[str, Any]

REFERENCE = "#/components/schemas/{name}"
"""Where the document keeps the schema of a struct."""

WIRE_VERSION = "1.0.0"
"""The `v1` of the subjects: it moves when the wire does, not when the package does."""

_TOKEN = "(?:[A-Za-z0-9_-]{1,128}|=[A-Za-z0-9_-]{2,342})"  # noqa: S105 - a subject token

_PUBLISHED_HEADERS = {
    headers.MSG_ID: {
        "type": "string",
        "minLength": 1,
        "description": "Deduplication id, unique per event; starts with the producer's 128 random bits.",
    },
    headers.PRODUCER: {
        "type": "string",
        "pattern": "^[0-9a-f]{32}$",
        "description": "128 random bits in hex that name one publisher process.",
    },
    headers.OWNER: {
        "type": "string",
        "pattern": f"^{_TOKEN}$",
        "description": "The principal a task belongs to, encoded like a subject token; "
        "that of the task's first retained event counts.",
    },
    headers.STATE: {
        "type": "string",
        "pattern": f"^{TASK_STATE_PATTERN}$",
        "description": "The task's state after this event.",
    },
    headers.TRACEPARENT: {
        "type": "string",
        "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
        "description": "W3C trace context of the publish.",
    },
}

_SERVER_HEADERS = {
    headers.SUBJECT: {"type": "string", "description": "The events subject it was stored on."},
    headers.SEQUENCE: {
        "type": "string",
        "pattern": "^[0-9]+$",
        "description": "Its sequence in the stream: the second half of the event id `<epoch>-<sequence>`.",
    },
    headers.TIME_STAMP: {"type": "string", "format": "date-time", "description": "When it was stored."},
    headers.LAST_SEQUENCE: {
        "type": "string",
        "pattern": "^[0-9]+$",
        "description": "The sequence stored before it on the same subject, 0 for the first.",
    },
}

_QUERY = {
    "from": {"enum": ["snapshot", "start", "now"], "default": "snapshot"},
    "last_event_id": {
        "type": "string",
        "description": "A cursor, where the header Last-Event-ID can't be set.",
    },
    "wait_s": {
        "type": "number",
        "minimum": 0,
        "maximum": 60,
        "description": "Wait for a task still unknown.",
    },
    "types": {
        "type": "string",
        "description": "Only these, comma-separated; states that matter always come.",
    },
    "named": {"enum": ["0", "1"], "description": "0 leaves `event:` out, so that onmessage gets everything."},
    "debug": {"enum": ["0", "1"], "default": "0"},
    "batch_ms": {"type": "integer", "minimum": 0, "description": "Events gather so long, in ms."},
    "batch_max": {"type": "integer", "minimum": 1, "description": "As many events end a batch early."},
    "batch": {"enum": ["array"], "description": "What goes out together is one task.batch."},
    "max_rate": {"type": "number", "minimum": 0.1, "description": "Frames per second, after a burst."},
    "coalesce": {"enum": ["0", "1"], "description": "1 leaves out what later frames say anew."},
    "slow": {"enum": ["disconnect", "snapshot"], "description": "What becomes of a client that is behind."},
    "heartbeat": {"enum": ["event"], "description": "Heartbeats as stream.heartbeat, not as comments."},
    "refusal": {"enum": ["status"], "description": "Temporary refusals as 429 and 503, not as stream.busy."},
}

_RECORD_FRAMES = {
    "task.snapshot": "The A2A Task as it stands at this position, its state, progress and steps.",
    "task.status": "The task's state in kebab case, the agent's text, and whether the task is over.",
    "task.progress": "How far a working task is, from 0 to 1.",
    "task.step": "A step of a working task's plan began or ended.",
    "task.thought": "What a working agent thinks.",
    "task.debug": "A detail for developers, only with ?debug=1.",
    "task.error": "Something failed and the task goes on.",
    "task.artifact": "An artifact, or with append a further piece of it.",
    "task.message": "A message outside any status.",
}
_BATCH_FRAME = "Several frames in `events`, only with ?batch=array; the id is that of the last."
_STREAM_FRAMES = {
    "stream.open": "The first frame: whether a snapshot, a replay or live events follow, and the cursor.",
    "stream.gap": "Events can't be delivered: why, the cursor requested and the oldest there is.",
    "stream.lag": "The reader is slow: how many events it is behind, and what is done about it.",
    "stream.expiring": "The credential, and with it the stream, ends in so many seconds.",
    "stream.drain": "This stream ends here: reconnect after so many milliseconds.",
    "stream.busy": "Refused for the moment: reconnect after so many milliseconds. The response ends.",
    "stream.heartbeat": "Nothing happened, only with ?heartbeat=event.",
    "stream.end": "Nothing more follows for this task; after the last one the response ends.",
}

_FRAME_FIELDS: Document = {
    "type": {"type": "string", "description": "The name of the event, whether or not `event:` repeats it."},
    "taskId": {"type": "string", "description": "On a stream of several tasks it tells them apart."},
}
_RECORD_FIELDS = _FRAME_FIELDS | {
    "contextId": {"type": "string"},
    "seq": {"type": "integer", "minimum": 0, "description": "The sequence of the stored event."},
    "at": {"type": "string", "format": "date-time", "description": "When it was stored, UTC."},
}

_WORKING_HEADERS = {
    headers.MSG_ID: "5f0c1f9e8a7b4c3d9e2f1a0b6c5d4e3f-2",
    headers.PRODUCER: "5f0c1f9e8a7b4c3d9e2f1a0b6c5d4e3f",
    headers.OWNER: "alice",
    headers.STATE: WORKING,
    headers.TRACEPARENT: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}

_STORED_HEADERS = {
    headers.SUBJECT: f"{EVENTS_PREFIX}._.planner.task-1",
    headers.SEQUENCE: "7",
    headers.TIME_STAMP: "2025-11-21T07:06:00.123456789Z",
    headers.LAST_SEQUENCE: "6",
}


def asyncapi_document(definitions: Document) -> Document:
    """Build the AsyncAPI document.

    Args:
        definitions: the JSON Schemas of the structs by name, referring to each other by `REFERENCE`.
    """
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Sidecast",
            "version": WIRE_VERSION,
            "description": "Events of A2A tasks: published to NATS JetStream by agents, streamed to browsers "
            "by the broker. Fields not named here are passed through.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "nats": {
                "host": "127.0.0.1:4222",
                "protocol": "nats",
                "description": "nats-server 2.12 or newer with JetStream.",
            },
            "broker": {"host": "127.0.0.1:8480", "protocol": "http", "description": "The public listener."},
        },
        "channels": {
            "events": {
                "address": f"{EVENTS_PREFIX}.{{tenant}}.{{agent}}.{{task}}",
                "title": "Events of one task",
                "description": "What agents publish; the stream stores it. All records of one subject are "
                "one task's log, in order.",
                "servers": [{"$ref": "#/servers/nats"}],
                "parameters": _parameters("tenant", "agent", "task"),
                "messages": _messages("event", "turn"),
            },
            "live": {
                "address": f"{LIVE_PREFIX}.{{tenant}}.{{agent}}.{{task}}",
                "title": "Events of one task, once stored",
                "description": "What nats-server republishes after the commit: nobody else may publish here.",
                "servers": [{"$ref": "#/servers/nats"}],
                "parameters": _parameters("tenant", "agent", "task"),
                "messages": _messages("storedEvent", "storedTurn"),
            },
            "stream": {
                "address": "/tasks/{taskId}/events",
                "title": "The browser format",
                "description": "Server-Sent Events: `event:` is the message's name, `data:` its payload on "
                "one line, `id:` a cursor `<epoch>-<sequence>` on frames that are a resume point.",
                "servers": [{"$ref": "#/servers/broker"}],
                "parameters": {
                    "taskId": {"description": "The task's id, percent-encoded.", "examples": ["task-1"]}
                },
                "messages": _messages(*_RECORD_FRAMES, "task.batch", *_STREAM_FRAMES),
            },
        },
        "operations": {
            "publish": {
                "action": "send",
                "channel": {"$ref": "#/channels/events"},
                "summary": "Publish what a task's agent says.",
                "description": "A JetStream publish: it is done when the stream has acknowledged it.",
                "messages": _references("events", "event", "turn"),
            },
            "receive": {
                "action": "receive",
                "channel": {"$ref": "#/channels/live"},
                "summary": "Receive events the moment they are stored.",
                "messages": _references("live", "storedEvent", "storedTurn"),
            },
            "watch": {
                "action": "receive",
                "channel": {"$ref": "#/channels/stream"},
                "summary": "Watch a task over HTTP, resuming by Last-Event-ID.",
                "bindings": {
                    "http": {
                        "method": "GET",
                        "query": {"type": "object", "properties": _QUERY},
                        "bindingVersion": "0.3.0",
                    }
                },
                "messages": _references("stream", *_RECORD_FRAMES, "task.batch", *_STREAM_FRAMES),
            },
        },
        "components": {
            "parameters": {
                "tenant": {
                    "description": "The tenant's token; `_` for none.",
                    "default": "_",
                    "examples": ["_", "acme"],
                },
                "agent": {
                    "description": "The agent's token, encoded as the task's.",
                    "examples": ["planner"],
                },
                "task": {
                    "description": "The task's token: an id matching [A-Za-z0-9_-]{1,128} other than `_` as "
                    "it is, any other as `=` and the unpadded base64url of its UTF-8 (at most 256 bytes).",
                    "examples": ["task-1", "=dGFzay8x"],
                },
            },
            "messages": {
                "event": _event("event", _WORKING_HEADERS, "EventHeaders"),
                "turn": _turn("turn", "EventHeaders"),
                "storedEvent": _event("storedEvent", _WORKING_HEADERS | _STORED_HEADERS, "StoredHeaders"),
                "storedTurn": _turn("storedTurn", "StoredHeaders"),
                **{name: _frame(name, summary, "RecordFrame") for name, summary in _RECORD_FRAMES.items()},
                "task.batch": _frame("task.batch", _BATCH_FRAME, "BatchFrame"),
                **{name: _frame(name, summary, "StreamFrame") for name, summary in _STREAM_FRAMES.items()},
            },
            "schemas": {
                "EventHeaders": {
                    "type": "object",
                    "description": "What a publisher sets; a plain NATS client may leave all of them out.",
                    "properties": _PUBLISHED_HEADERS,
                },
                "StoredHeaders": {
                    "type": "object",
                    "description": "The publisher's headers and what nats-server adds: where a name stands "
                    "twice, the last one is the server's.",
                    "properties": _PUBLISHED_HEADERS | _SERVER_HEADERS,
                    "required": sorted(_SERVER_HEADERS),
                },
                "RecordFrame": {
                    "type": "object",
                    "description": "One stored event, or the task as of it; further fields by `type`.",
                    "properties": _RECORD_FIELDS,
                    "required": sorted(_RECORD_FIELDS),
                },
                "BatchFrame": {
                    "type": "object",
                    "description": "Frames that went out together, oldest first, as each would say it alone.",
                    "properties": _FRAME_FIELDS
                    | {"events": {"type": "array", "items": {"$ref": "#/components/schemas/RecordFrame"}}},
                    "required": ["events", "taskId", "type"],
                },
                "StreamFrame": {
                    "type": "object",
                    "description": "Something about the stream itself; further fields by `type`.",
                    "properties": _FRAME_FIELDS,
                    "required": ["type"],
                },
                **definitions,
            },
        },
    }


def _parameters(*names: str) -> Document:
    return {name: {"$ref": f"#/components/parameters/{name}"} for name in names}


def _messages(*names: str) -> Document:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _references(channel: str, *names: str) -> list[Document]:
    # An operation may only name messages of its own channel (AsyncAPI 3.0.0, Operation Object).
    return [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names]


def _event(name: str, example_headers: dict[str, str], header_schema: str) -> Document:
    examples = [
        {"name": example, "payload": msgspec.to_builtins(response)} for example, response in RESPONSES.items()
    ]
    for example in examples:
        if example["name"] == "progress":
            example["headers"] = example_headers
    return {
        "name": name,
        "title": "StreamResponse",
        "summary": "One event of a task: exactly one of task, message, statusUpdate, artifactUpdate.",
        "contentType": "application/json",
        "headers": {"$ref": REFERENCE.format(name=header_schema)},
        "payload": {"$ref": REFERENCE.format(name=StreamResponse.__name__)},
        "examples": examples,
    }


def _turn(name: str, header_schema: str) -> Document:
    return {
        "name": name,
        "title": "Turn",
        "summary": "A control record that no client receives: the agent began or ended working on a message.",
        "contentType": "application/json",
        "headers": {"$ref": REFERENCE.format(name=header_schema)},
        "payload": {"$ref": REFERENCE.format(name=TurnRecord.__name__)},
        "examples": [{"name": phase, "payload": msgspec.to_builtins(turn)} for phase, turn in TURNS.items()],
    }


def _frame(name: str, summary: str, schema: str) -> Document:
    return {
        "name": name,
        "summary": summary,
        "contentType": "application/json",
        "payload": {"$ref": REFERENCE.format(name=schema)},
    }
