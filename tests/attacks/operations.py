"""A2A operations that name another's task, on every wire.

Must not know how they pass to the agent.
"""

from __future__ import annotations

import json
from typing import Any

from access_rig import ACME, ALICES, BOBS, HERS_ELSEWHERE, MISSING, PASSED, STREAMED, Ask
from attacks.scene import bearer, token
from attacks.table import (
    BAD,
    GONE,
    HIDDEN,
    NONE,
    VERSION,
    Group,
    Refusal,
    Row,
    Served,
    Shooter,
    alice,
    bob,
    calls,
    foreign,
    sends,
)

GONE_0_3 = Refusal(404, '"code":-32001', hides=True)
NO_PARAMS = Refusal(200, '"code":-32602')


def sent(ask: Ask, *lines: str) -> Shooter:
    """Give an operation as a request to the public listener."""
    head = (f"{name}: {value}" for name, value in ask.headers.items())
    return sends(ask.method, ask.target, *head, *lines, body=ask.body)


def refusal_of(ask: Ask) -> Refusal:
    """Give the form of a refusal, by the wire it is asked on."""
    if ask.target in ("/", "/a2a", "/agents/agent/a2a"):
        return HIDDEN
    return GONE_0_3 if ask.target.startswith("/v1/") else GONE


def unary() -> Group:
    """Give every operation that passes to the agent: get, cancel, send and push, of A2A v1.0 and v0.3."""
    asks = {name: make(ALICES) for name, make in PASSED.items()}
    rows = []
    for name, ask in asks.items():
        refused = refusal_of(ask)
        text = '"result"' if refused is HIDDEN else "context-1"
        rows.append(foreign(name, sent(ask, bob()), refused, text=text))
    return Group(rows, Served(calls("GetTask", bob(), id=BOBS), text='"result"'))


def streams() -> Group:
    """Give every operation that is answered by a stream, also from a cursor."""
    asks = {name: make(ALICES) for name, make in STREAMED.items()}
    # The task has ended: that is what its owner is told, in the form of the wire (C05).
    ended = "The task has ended"

    def row(name: str, ask: Ask, *lines: str, text: str = ended) -> Row:
        refused = refusal_of(ask)
        return foreign(name, sent(ask, bob(), *lines), refused, served=_ended(ask), text=text)

    rows = [row(name, ask) for name, ask in asks.items()]
    for name, ask in asks.items():
        if name.startswith("subscribe"):
            for cursor in ("epoch1-1", "epoch1-999999", "epoch0-1", "garbage"):
                foreign_row = row(f"{name}, from {cursor}", ask, f"Last-Event-ID: {cursor}", text="")
                rows.append(foreign_row._replace(served=_resumed(ask, cursor)))
    return Group(rows, Served(calls("GetTask", bob(), id=BOBS), text='"result"'))


def _ended(ask: Ask) -> int:
    return 200 if refusal_of(ask) is HIDDEN else 400


def _resumed(ask: Ask, cursor: str) -> Served | None:
    if cursor != "epoch1-1":
        return None
    return Served(sent(ask, alice(), f"Last-Event-ID: {cursor}"), text=ALICES)


def parameters() -> Group:
    """Give other tasks and tenants in parameters, and lists that hold what is somebody else's."""
    his = bob()
    message: dict[str, Any] = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x"}]}

    def in_query(task: str) -> Shooter:
        return sends("GET", f"/tasks/{BOBS}?id={task}", VERSION, his)

    def in_body(task: str) -> Shooter:
        body = json.dumps({"id": task}).encode()
        return sends("POST", f"/tasks/{BOBS}:cancel", VERSION, his, body=body)

    unbound = bearer(token(sub="bob", tenant=""))
    theirs = Served(calls("GetTask", alice(tenant=ACME), id=HERS_ELSEWHERE, tenant=ACME), text='"result"')
    rows = [
        foreign(
            "reference", calls("SendMessage", his, message=message | {"referenceTaskIds": [ALICES]}), HIDDEN
        ),
        Row("tenant", calls("GetTask", unbound, id=HERS_ELSEWHERE, tenant=ACME), HIDDEN, theirs),
        Row(
            "tenant of a list",
            calls("ListTasks", unbound, tenant=ACME),
            Refusal(200, '"code":-32001'),
        ),
        Row("REST tenant", sends("GET", f"/acme/tasks/{HERS_ELSEWHERE}", VERSION, unbound), GONE),
        Row(
            "REST tenant in the query",
            sends("GET", f"/tasks/{HERS_ELSEWHERE}?tenant=acme", VERSION, his),
            GONE,
        ),
        *(
            Row(f"REST hidden in the {where}", beside(ALICES), BAD, twin=beside(MISSING))
            for where, beside in (("query", in_query), ("body", in_body))
        ),
        Row("an id twice", _twice(his), Refusal(200, '"code":-32600')),
        Row("a page token of nobody", calls("ListTasks", his, pageToken="x"), NO_PARAMS),
        Row("nobody", calls("GetTask", id=BOBS), NONE),
        Row("star", calls("GetTask", his, id="*"), HIDDEN, twin=calls("GetTask", his, id=MISSING)),
        *(
            foreign(
                f"list, {name}",
                shot,
                Refusal(200, BOBS),
                text=ALICES,
                passes=1,
                absent=(ALICES, "task-ownerles"),
            )
            for name, shot in {
                "JSON-RPC": calls("ListTasks", his),
                "REST": sends("GET", "/tasks", VERSION, his),
                "v0.3": sends("GET", "/v1/tasks", his),
                "of a context": calls("ListTasks", his, contextId="context-1"),
                "of a state": sends("GET", "/tasks?status=TASK_STATE_WORKING", VERSION, his),
            }.items()
        ),
    ]
    return Group(rows, Served(calls("GetTask", his, id=BOBS), text='"result"'))


def _twice(line: str) -> Shooter:
    body = f'{{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{{"id":"{BOBS}","id":"{ALICES}"}}}}'
    return sends("POST", "/", VERSION, line, body=body.encode())
