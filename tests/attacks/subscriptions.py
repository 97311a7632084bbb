"""Named subscriptions of somebody else: confirmed, deleted, listed, taken over.

Must not know where they are kept.
"""

from __future__ import annotations

import json

from access_rig import ALICES, MISSING, OPEN
from attacks.scene import Scene, Shot
from attacks.table import (
    BAD,
    EVENTS,
    EVIL,
    JSON,
    NONE,
    UNKNOWN,
    Group,
    Refusal,
    Row,
    Served,
    Shooter,
    alice,
    bob,
    foreign,
    sends,
)
from attacks.tickets import ONLY_STREAMS, made_for

NAME = "inbox"
PATH = f"/subscriptions/{NAME}"
NO_JSON = Refusal(415)


def _confirms(*lines: str, target: str = f"{PATH}/ack", **body: str) -> Shooter:
    return sends("POST", target, *lines, body=json.dumps({"id": "epoch1-1"} | body).encode())


def _deletes(*lines: str, query: str = "") -> Shooter:
    return sends("DELETE", f"{PATH}{query}", *lines)


def _opens(*lines: str, query: str = "") -> Shooter:
    return sends("GET", f"{EVENTS}?subscription={NAME}{query}", "Accept: text/event-stream", *lines)


def subscriptions() -> Group:
    """Give such requests, about one of alice's for a task of hers."""
    hers, his = alice(), bob()
    opened = Served(_opens(hers), text="stream.open")
    confirmed = Served(_confirms(hers, task=ALICES))
    of_task = f"?task={ALICES}"

    def with_ticket(method: str, target: str, body: bytes | None = None) -> Shooter:
        def give(it: Scene) -> Shot:
            mark = "&" if "?" in target else "?"
            return Shot(method, f"{target}{mark}ticket={it.ticket}", (), body)

        return give

    def with_cookie(method: str, target: str, body: bytes | None = None) -> Shooter:
        return lambda it: Shot(method, target, (f"Cookie: sidecast_ticket={it.ticket}",), body)

    named = json.dumps({"id": "epoch1-1", "task": ALICES}).encode()
    rows = [
        foreign("open it", _opens(his), UNKNOWN, text="stream.open"),
        foreign("open it as another client", _opens(his, query="&client=x&ack=client"), UNKNOWN),
        foreign("open it behind a cursor", _opens(his, query="&last_event_id=epoch1-1"), UNKNOWN),
        foreign(
            "open it by the header",
            sends("GET", EVENTS, JSON, f"Sidecast-Subscription: {NAME}", his),
            UNKNOWN,
        ),
        Row("confirm it", _confirms(his, task=ALICES), UNKNOWN, confirmed),
        Row("confirm it by an event alone", _confirms(his), Refusal(404, UNKNOWN.text), confirmed),
        Row("confirm it in another tenant", _confirms(alice(tenant="acme"), task=ALICES), UNKNOWN, confirmed),
        Row(
            "confirm it in any tenant",
            _confirms(alice(tenant=""), task=ALICES),
            UNKNOWN,
            confirmed,
            twin=_confirms(alice(tenant=""), task=MISSING),
        ),
        Row("confirm it without a credential", _confirms(task=ALICES), NONE, confirmed),
        Row(
            "confirm it as a form",
            _confirms(hers, EVIL, "Content-Type: text/plain", task=ALICES),
            NO_JSON,
            confirmed,
        ),
        Row(
            "list it",
            sends("GET", "/subscriptions", his),
            Refusal(200, '{"subscriptions": []}'),
            Served(sends("GET", "/subscriptions", hers), text=NAME),
            absent=(NAME, ALICES),
        ),
        Row("list it without a credential", sends("GET", "/subscriptions"), NONE),
        Row(
            "list it with a ticket for another task",
            lambda _it: Shot("GET", f"/subscriptions?ticket={made_for(OPEN)}"),
            Refusal(200, '{"subscriptions": []}'),
            Served(lambda _it: Shot("GET", f"/subscriptions?ticket={made_for(ALICES)}"), text=NAME),
            absent=(NAME, ALICES),
        ),
        *(
            foreign(
                f"confirm it up to {position}",
                _confirms(his, id=position, task=ALICES),
                UNKNOWN,
                served=served,
            )
            for position, served in (("epoch1-999999", 400), ("epoch0-1", 400), ("epoch1-0", 200))
        ),
        *(
            Row(
                f"learn whose the event {sequence} is",
                _confirms(his, id=f"epoch1-{sequence}"),
                UNKNOWN,
                confirmed,
                twin=_confirms(his, id="epoch1-999999"),
            )
            for sequence in (1, 4, 7, 10, 13)
        ),
        *(
            Row(f"confirm it with {name}", _confirms(his, id=position, task=task), BAD, confirmed)
            for name, position, task in (
                ("no position", "epoch1", ALICES),
                ("a position with a sign", "epoch1-+1", ALICES),
                ("a long position", f"epoch1-{'1' * 200}", ALICES),
                ("no task", "epoch1-1", ""),
                ("a task too long", "epoch1-1", "x" * 257),
            )
        ),
        *(
            Row(
                f"confirm it with {name}",
                sends("POST", f"{PATH}/ack", his, body=body),
                BAD,
                confirmed,
            )
            for name, body in {
                "another owner": b'{"id":"epoch1-1","task":"%b","principal":"alice"}' % ALICES.encode(),
                "a list": b"[]",
                "no JSON": b"{",
                "a number": b'{"id":1}',
            }.items()
        ),
        *(
            Row(
                f"{method} one named {name}",
                sends(method, f"/subscriptions/{name}{end}", his, body=body),
                BAD,
            )
            for name in ("%00", "%ff", "%f", "x" * 257, "a%0ab")
            for method, end, body in (("POST", "/ack", named), ("DELETE", "", None))
        ),
        *(
            Row(f"one named {name}", sends("DELETE", f"/subscriptions/{name}{of_task}", his), UNKNOWN)
            for name in ("*", "%3E", "a.b", "..%2Finbox", f"{NAME}.{ALICES}", "INBOX")
        ),
        *(
            Row(f"{method} {target}", sends(method, target, hers), Refusal(405), confirmed)
            for target, methods in {
                "/subscriptions": ("POST", "DELETE", "PUT", "HEAD"),
                PATH: ("GET", "POST", "PUT", "PATCH"),
                f"{PATH}/ack": ("GET", "DELETE", "PUT"),
            }.items()
            for method in methods
        ),
        *(
            Row(f"{way} with a ticket in {where}", shot, ONLY_STREAMS, confirmed)
            for where, carried in (("the query", with_ticket), ("a cookie", with_cookie))
            for way, shot in (
                ("confirm it", carried("POST", f"{PATH}/ack", named)),
                ("delete it", carried("DELETE", PATH)),
                ("delete one there is not", carried("DELETE", f"{PATH}{of_task}")),
            )
        ),
        Row("delete it", _deletes(his), Refusal(404, UNKNOWN.text), opened),
        Row("delete it by its task", _deletes(his, query=of_task), UNKNOWN, opened),
        Row("delete it in another tenant", _deletes(alice(tenant="acme"), query=of_task), UNKNOWN, opened),
        Row(
            "delete it without a credential",
            _deletes(query=of_task),
            NONE,
            Served(_deletes(hers, query=of_task), 204),
        ),
    ]
    return Group(rows, opened, first=(_opens(hers), _opens(alice(tenant="acme"))))
