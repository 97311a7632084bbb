"""Hypothesis strategies of A2A documents in v1.0, in v0.3's JSON-RPC form and in its REST form."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from hypothesis import strategies as st

from sidecast_broker.core.a2a.translate import HELD

KNOWN = set(
    """
    task message statusUpdate artifactUpdate id contextId taskId status artifacts history metadata
    artifact append lastChunk state timestamp role parts extensions referenceTaskIds messageId
    artifactId name description text raw url data mediaType filename kind final file content
    bytes uri mimeType fileWithUri fileWithBytes msg update value turn data_part_compat
    status_update artifact_update context_id task_id last_chunk message_id artifact_id
    mime_type file_with_uri file_with_bytes urn:sidecast:v1
    """.split()  # noqa: SIM905 - a list would fill a page
)

STATES = {
    "TASK_STATE_UNSPECIFIED": "unknown",
    "TASK_STATE_SUBMITTED": "submitted",
    "TASK_STATE_WORKING": "working",
    "TASK_STATE_COMPLETED": "completed",
    "TASK_STATE_FAILED": "failed",
    "TASK_STATE_CANCELED": "canceled",
    "TASK_STATE_INPUT_REQUIRED": "input-required",
    "TASK_STATE_REJECTED": "rejected",
    "TASK_STATE_AUTH_REQUIRED": "auth-required",
}
TERMINAL = {"completed", "failed", "canceled", "rejected"}

texts: st.SearchStrategy[str] = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ids = st.text("abc-/ü", min_size=1, max_size=4)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
objects = st.dictionaries(texts, values, max_size=3)
unknown_names = (texts | st.sampled_from(["generation", "Kind", "x-y"])).filter(
    lambda name: name not in KNOWN
)
unknown = st.just({}) | st.dictionaries(unknown_names, values, max_size=2)
timestamps = st.sampled_from(
    ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678Z", "1999-12-31T23:59:59.123456789Z"]
)
base64s = st.binary(max_size=9).map(lambda data: b64encode(data).decode())


def spelled(document: bytes) -> Any:
    """Read JSON with each number as it is spelled."""
    return json.loads(
        document, parse_int=lambda text: ("int", text), parse_float=lambda text: ("float", text)
    )


def exactly(document: Any) -> Any:
    """Give a document as `spelled` reads it."""
    return spelled(encoded(document))


def encoded(document: Any) -> bytes:
    return json.dumps(document).encode()


def metadata(*, reserved: bool) -> st.SearchStrategy[dict[str, Any]]:
    """Metadata; with keys that mean something to the translation, if `reserved`."""
    if not reserved:
        return objects
    marks = st.fixed_dictionaries({}, optional={HELD: values, "data_part_compat": values})
    held = st.sampled_from(["fields", "metadata", "part", "status", "role", "response"])
    forged = st.dictionaries(held, values, min_size=1, max_size=2).map(lambda fields: {HELD: fields})
    return st.builds(lambda *each: {**each[0], **each[1]}, objects, marks | forged) | objects | st.none()


def merged(*strategies: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(*strategies).map(
        lambda each: {key: value for fields in each for key, value in fields.items()}
    )


class Current:
    """v1.0. Names that v0.3 gives a meaning are among the unknown fields here."""

    _metadata = st.fixed_dictionaries({}, optional={"metadata": metadata(reserved=True)})
    _strange = st.just({}) | st.fixed_dictionaries(
        {},
        optional={"kind": values, "final": values, "file": values, "content": values, "generation": values},
    )
    _extra = merged(unknown, _strange, _metadata)

    parts = merged(
        _extra,
        st.fixed_dictionaries({}, optional={"mediaType": texts, "filename": texts}),
        st.fixed_dictionaries({"text": texts})
        | st.fixed_dictionaries({"raw": base64s})
        | st.fixed_dictionaries({"url": texts})
        | st.fixed_dictionaries({"data": values | objects})
        | st.just({}),
    )
    messages = merged(
        _extra,
        st.fixed_dictionaries(
            {
                "messageId": ids,
                "role": st.sampled_from(["ROLE_USER", "ROLE_AGENT", "ROLE_UNSPECIFIED", "ROLE_OTHER"]),
                "parts": st.lists(parts, max_size=2),
            },
            optional={
                "contextId": ids | st.none(),
                "taskId": ids,
                "extensions": st.lists(texts, max_size=2),
                "referenceTaskIds": st.lists(ids, max_size=2),
            },
        ),
    )
    statuses = merged(
        unknown,
        st.fixed_dictionaries(
            {"state": st.sampled_from([*STATES, "TASK_STATE_PAUSED"])},
            optional={"message": messages | st.none(), "timestamp": timestamps},
        ),
    )
    artifacts = merged(
        _extra,
        st.fixed_dictionaries(
            {"artifactId": ids, "parts": st.lists(parts, max_size=2)},
            optional={"name": texts, "description": texts, "extensions": st.lists(texts, max_size=2)},
        ),
    )
    tasks = merged(
        _extra,
        st.fixed_dictionaries(
            {"id": ids, "status": statuses},
            optional={
                "contextId": ids,
                "artifacts": st.lists(artifacts, max_size=2) | st.none(),
                "history": st.lists(messages, max_size=2) | st.none(),
            },
        ),
    )
    status_updates = merged(
        _extra, st.fixed_dictionaries({"taskId": ids, "status": statuses}, optional={"contextId": ids})
    )
    artifact_updates = merged(
        _extra,
        st.fixed_dictionaries(
            {"taskId": ids, "artifact": artifacts},
            optional={"contextId": ids, "append": st.booleans(), "lastChunk": st.booleans()},
        ),
    )
    responses = merged(
        unknown,
        st.fixed_dictionaries({"task": tasks})
        | st.fixed_dictionaries({"message": messages})
        | st.fixed_dictionaries({"statusUpdate": status_updates})
        | st.fixed_dictionaries({"artifactUpdate": artifact_updates}),
    )


class Former:
    """v0.3; in REST form without unknown fields, which Python's readers of it refuse."""

    def __init__(self, *, rest: bool) -> None:
        extra = st.fixed_dictionaries({}, optional={"metadata": metadata(reserved=False)})
        if not rest:
            extra = merged(unknown, extra)

        def kind(name: str) -> st.SearchStrategy[dict[str, Any]]:
            return st.just({} if rest else {"kind": name})

        names = st.fixed_dictionaries({}, optional={"mimeType": texts, "name": texts})
        twice = base64s.map(lambda text: b64encode(text.encode()).decode())
        uri = st.fixed_dictionaries({"fileWithUri" if rest else "uri": texts})
        data = st.fixed_dictionaries({"fileWithBytes": twice} if rest else {"bytes": base64s})
        file = merged(st.just({}) if rest else unknown, names, uri | data)
        content = objects.map(lambda fields: {"data": fields}) if rest else objects
        self.parts = (
            merged(extra, kind("text"), st.fixed_dictionaries({"text": texts}))
            | merged(extra, kind("file"), st.fixed_dictionaries({"file": file}))
            | merged(extra, kind("data"), st.fixed_dictionaries({"data": content}))
        )
        roles = ["ROLE_USER", "ROLE_AGENT", "ROLE_UNSPECIFIED"] if rest else ["user", "agent"]
        references = {} if rest else {"referenceTaskIds": st.lists(ids, max_size=2)}
        self.messages = merged(
            extra,
            kind("message"),
            st.fixed_dictionaries(
                {
                    "messageId": ids,
                    "role": st.sampled_from(roles),
                    "content" if rest else "parts": st.lists(self.parts, max_size=2),
                },
                optional={
                    "contextId": ids,
                    "taskId": ids,
                    "extensions": st.lists(texts, max_size=2),
                    **references,
                },
            ),
        )
        self.states = {
            state.replace("CANCELED", "CANCELLED") if rest else name: name in TERMINAL
            for state, name in STATES.items()
        }
        self.statuses = merged(
            st.just({}) if rest else unknown,
            st.fixed_dictionaries(
                {"state": st.sampled_from(list(self.states))},
                optional={"message": self.messages, "timestamp": timestamps},
            ),
        )
        self.artifacts = merged(
            extra,
            st.fixed_dictionaries(
                {"artifactId": ids, "parts": st.lists(self.parts, max_size=2)},
                optional={"name": texts, "description": texts, "extensions": st.lists(texts, max_size=2)},
            ),
        )
        self.tasks = merged(
            extra,
            kind("task"),
            st.fixed_dictionaries(
                {"id": ids, "contextId": ids, "status": self.statuses},
                optional={
                    "artifacts": st.lists(self.artifacts, max_size=2),
                    "history": st.lists(self.messages, max_size=2),
                },
            ),
        )
        self.status_updates = merged(
            extra,
            kind("status-update"),
            st.fixed_dictionaries({"taskId": ids, "contextId": ids, "status": self.statuses}),
        ).map(lambda fields: {**fields, "final": self.states[fields["status"]["state"]]})
        self.artifact_updates = merged(
            extra,
            kind("artifact-update"),
            st.fixed_dictionaries(
                {"taskId": ids, "contextId": ids, "artifact": self.artifacts},
                optional={"append": st.booleans(), "lastChunk": st.booleans()},
            ),
        )
        members = {
            "task": self.tasks,
            "message": self.messages,
            "statusUpdate": self.status_updates,
            "artifactUpdate": self.artifact_updates,
        }
        if rest:
            self.responses = st.one_of(
                *(st.fixed_dictionaries({member: document}) for member, document in members.items())
            )
        else:
            self.responses = st.one_of(*members.values())


def places(document: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Give the path of every value in a document."""
    found = [path]
    if isinstance(document, dict):
        for key, value in document.items():
            found += places(value, (*path, key))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            found += places(value, (*path, index))
    return found


@st.composite
def spoiled(draw: st.DrawFn, documents: st.SearchStrategy[Any]) -> Any:
    """Give a document in which one value is another one, or one field is gone."""
    document = json.loads(json.dumps(draw(documents)))
    path = draw(st.sampled_from(places(document)))
    if not path:
        return draw(values)
    parent = document
    for step in path[:-1]:
        parent = parent[step]
    if draw(st.booleans()):
        parent[path[-1]] = draw(values)
    else:
        del parent[path[-1]]
    return document
