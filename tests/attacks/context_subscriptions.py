"""Named subscriptions of somebody else to a context: read, confirmed, taken over, listed, deleted, guessed.

Must not know where they are kept. All tasks of the scene are in one context, and bob has subscriptions to it,
one of them by the name that alice's has: a name is one principal's alone, so nothing he does may touch hers.
"""

from __future__ import annotations

import json

from access_rig import ACME, ALICES, BOBS, HERS_ELSEWHERE, MISSING, OPEN, OWNERLESS
from attacks.agents import TABLES
from attacks.scene import Shot
from attacks.table import (
    BAD,
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
    left,
    sends,
)
from attacks.tickets import ONLY_STREAMS

NAME = "inbox-of-hers"
"""As long as the name of none, so that no answer could differ by it."""
NONES = MISSING
CONTEXT, EMPTY = "context-1", "context-0"
LAST = "epoch1-16"
"""An event of alice's open task, the last before the attacks."""
BEAT = b"\r\n:\n"
"""A beat in a chunk of its own: what a stream begins with has come by then."""
SETTINGS = {
    "agents": TABLES,
    "stream__heartbeat_s": 0.2,
    "stream__subscriptions_per_principal_max": 3,
}
OTHERS = (ALICES, OPEN, OWNERLESS, HERS_ELSEWHERE)
NOT_HERE = Refusal(404, UNKNOWN.text)
OWN = Refusal(200, '"acknowledged": ')
NO_NAME = Refusal(400, "subscription: ")
AMBIGUOUS = Refusal(400, "several tasks or contexts have a subscription of this name")
FULL = Refusal(429, "as many named subscriptions as they may")


def opens(*lines: str, name: str = NAME, context: str = CONTEXT, agent: str = "", more: str = "") -> Shooter:
    """Ask for the stream of a subscription, and leave it once it beats."""
    target = f"{agent}/events?context={context}&subscription={name}&ack=client{more}"
    return left(sends("GET", target, "Accept: text/event-stream", *lines), BEAT)


def confirms(*lines: str, name: str = NAME, agent: str = "", **body: str) -> Shooter:
    """Confirm in a subscription to the context, unless the body says what else."""
    body = {"id": LAST, "context": CONTEXT} | body
    said = json.dumps({key: value for key, value in body.items() if value}).encode()
    return sends("POST", f"{agent}/subscriptions/{name}/ack", *lines, body=said)


def deletes(*lines: str, name: str = NAME, agent: str = "", query: str = f"?context={CONTEXT}") -> Shooter:
    """Delete a subscription to the context, unless the query says what else."""
    return sends("DELETE", f"{agent}/subscriptions/{name}{query}", *lines)


def _lists(*lines: str, agent: str = "") -> Shooter:
    return sends("GET", f"{agent}/subscriptions", *lines)


def context_subscriptions() -> Group:
    """Give such requests, about one of alice's whose stream is open."""
    hers, his, in_acme = alice(), bob(), alice(tenant=ACME)
    confirmed = Served(confirms(hers), text=f'"acknowledged": "{LAST}"')
    rows = [
        *_strangers(confirmed),
        *_namesakes(his),
        *_elsewhere(hers),
        *_odd(hers, his, confirmed),
        *_tickets(confirmed),
        *_deleted(),
    ]
    first = (
        *(opens(his, name=name, context=CONTEXT) for name in (NAME, NONES)),
        opens(his, context="context-2"),
        *(opens(alice(sub="mallory"), name=name) for name in (NAME, NONES)),
        opens(in_acme),
        sends("GET", f"/agents/other/events?context={CONTEXT}", JSON, his),
    )
    held = sends("GET", f"/events?context={CONTEXT}&subscription={NAME}&ack=client&client=tab-1", hers)
    return Group(rows, Served(opens(hers), text=OPEN), SETTINGS, first, held=(held,))


def _others() -> dict[str, str]:
    """Give the lines of who has no subscription at all, some of whom have alice's name."""
    return {
        "who has none": alice(sub="nobody"),
        "her name in another tenant": alice(tenant="other"),
        "her name in any tenant": alice(tenant=""),
        "her name in another case": alice(sub="Alice"),
        "her name with a tenant before it": alice(sub="/alice"),
    }


def _strangers(confirmed: Served) -> list[Row]:
    """Give requests of who has no subscription at all."""
    who = _others()
    return [
        *(
            Row(f"confirm it, {name}", confirms(whose), UNKNOWN, confirmed, twin=confirms(whose, name=NONES))
            for name, whose in who.items()
        ),
        *(
            Row(
                f"confirm it by an event alone, {name}",
                confirms(whose, context=""),
                UNKNOWN,
                confirmed,
                twin=confirms(whose, context="", name=NONES),
            )
            for name, whose in who.items()
        ),
        *(
            Row(
                f"confirm it up to {position}",
                confirms(who["who has none"], id=position),
                UNKNOWN,
                confirmed,
                twin=confirms(who["who has none"], id=position, name=NONES),
            )
            for position in ("epoch1-999999", "epoch0-1", "epoch1-0", "epoch1-16")
        ),
        *(
            Row(
                f"list it, {name}",
                _lists(whose),
                Refusal(200, '{"subscriptions": []}'),
                Served(_lists(alice()), text=CONTEXT),
                absent=(NAME, CONTEXT),
            )
            for name, whose in who.items()
        ),
        Row("confirm it without a credential", confirms(), NONE, confirmed),
        Row("open it without a credential", opens(), NONE),
        Row(
            "confirm it as a form",
            confirms(alice(), EVIL, "Content-Type: text/plain"),
            Refusal(415),
            confirmed,
        ),
    ]


def _namesakes(his: str) -> list[Row]:
    """Give what bob does to his of her name: it tells what one tells by a name that she has not."""
    shown = Served(opens(alice()), text=OPEN)
    stranger = alice(sub="mallory")
    # What only an automatic reconnect sends, and the name of the client that holds hers.
    ways = {"": "", ", as her client": "&client=tab-1", ", from the start": "&from=start"}
    return [
        *(
            Row(
                f"open one of its name{way}",
                opens(his, more=more),
                Refusal(200, BOBS),
                shown,
                twin=opens(his, more=more, name=NONES),
                absent=OTHERS,
            )
            for way, more in ways.items()
        ),
        Row(
            "open one of its name by the header",
            left(
                sends("GET", f"/events?context={CONTEXT}&ack=client", f"Sidecast-Subscription: {NAME}", his),
                BEAT,
            ),
            Refusal(200, BOBS),
            shown,
            absent=OTHERS,
        ),
        *(
            Row(
                f"open one of its name, with nothing to see{way}",
                opens(stranger, more=more),
                Refusal(200, "stream.open"),
                shown,
                twin=opens(stranger, more=more, name=NONES),
                absent=(BOBS, *OTHERS),
            )
            for way, more in ways.items()
        ),
        *(
            Row(
                f"open one of its name behind {cursor}",
                opens(his, f"Last-Event-ID: {cursor}"),
                Refusal(200, "stream.open"),
                shown,
                twin=opens(his, f"Last-Event-ID: {cursor}", name=NONES),
                absent=OTHERS,
            )
            for cursor in ("epoch1-5", "epoch1-999999", "epoch0-1")
        ),
        *(
            Row(
                f"confirm one's own of its name up to {sequence}",
                confirms(his, id=f"epoch1-{sequence}"),
                OWN,
                twin=confirms(his, id=f"epoch1-{sequence}", name=NONES),
                echoes=NAME,
            )
            for sequence in (5, 6, 16)
        ),
        *(
            Row(
                f"learn whose the event {sequence} is, or its context",
                confirms(his, id=f"epoch1-{sequence}", context=""),
                AMBIGUOUS,
                Served(confirms(his, context="", id="epoch1-4")),
                twin=confirms(his, id="epoch1-999999", context=""),
            )
            for sequence in (1, 7, 10, 13, 15)
        ),
        Row("list one's own", _lists(his), Refusal(200, NAME), absent=("tab-1", *OTHERS)),
        Row(
            "delete one's own of a context where she has one",
            deletes(his, query=f"?context={ALICES}"),
            NOT_HERE,
            Served(deletes(his), 204),
        ),
        *(
            Row(
                f"have more than the others {way}",
                opens(his, name="one-too-many-", more="&refusal=status", **where),
                FULL,
                Served(opens(alice(), name="one-too-many-"), text=OPEN),
            )
            for way, where in (
                ("here", {}),
                ("in another context", {"context": EMPTY}),
                ("at another agent", _OTHER),
            )
        ),
    ]


_OTHER = {"agent": "/agents/other"}


def _elsewhere(hers: str) -> list[Row]:
    """Give alice's own name for a subscription to what is hers elsewhere."""
    return [
        Row(
            "confirm it at another agent",
            confirms(hers, **_OTHER),
            UNKNOWN,
            twin=confirms(hers, name=NONES, **_OTHER),
        ),
        Row(
            "confirm it at another agent by an event alone",
            confirms(hers, context="", **_OTHER),
            UNKNOWN,
            Served(confirms(hers, context="", agent="/agents/agent")),
            twin=confirms(hers, context="", name=NONES, **_OTHER),
        ),
        Row(
            "list it at another agent",
            _lists(hers, **_OTHER),
            Refusal(200, '{"subscriptions": []}'),
            Served(_lists(hers, agent="/agents/agent"), text=CONTEXT),
            absent=(NAME, CONTEXT),
        ),
        *(
            Row(
                f"delete it at another agent{way}",
                deletes(hers, query=query, **_OTHER),
                UNKNOWN,
                Served(confirms(hers, agent="/agents/agent")),
                twin=deletes(hers, query=query, name=NONES, **_OTHER),
            )
            for way, query in (("", f"?context={CONTEXT}"), (" by its name", ""))
        ),
        Row("confirm it as one to a task", confirms(hers, context="", task=CONTEXT), NOT_HERE),
        Row("confirm it as one to a task of hers", confirms(hers, context="", task=ALICES), NOT_HERE),
        Row("confirm one to a task as a context", confirms(hers, context=ALICES), UNKNOWN),
        Row("delete it as one to a task", deletes(hers, query=f"?task={OPEN}"), UNKNOWN),
        Row(
            "list it with her name in acme",
            _lists(alice(tenant=ACME)),
            Refusal(200, CONTEXT),
            absent=("tab-1",),
        ),
        Row("open it as of a list", opens(hers, context="", more=f"&task={OPEN}"), BAD),
        Row("open it as of the agent", sends("GET", f"/events?agent=1&subscription={NAME}", hers), BAD),
    ]


def _odd(hers: str, his: str, confirmed: Served) -> list[Row]:
    """Give what is no name, no context, or one of another that looks like it."""
    nobody = alice(sub="nobody")
    names = ("%00", "%ff", "%f", "x" * 257, "a%0ab", "a%0d%0ab")
    alike = (
        "*",
        "%3E",
        "a.b",
        f"{NAME}%20",
        NAME.upper(),
        f"{NAME}.{CONTEXT}",
        "..%2Finbox",
        "sidecast-",
        "=aW5ib3g",
    )
    contexts = (
        "*",
        ">",
        "a.b",
        CONTEXT.upper(),
        f"{CONTEXT} ",
        "\u0441ontext-1",
        "=Y29udGV4dC0x",
        f"_.agent.{CONTEXT}",
    )
    return [
        *(Row(f"open one named {name}", opens(his, name=name), BAD) for name in ("", *names)),
        *(
            Row(f"{way} one named {name}", shot(hers, name=name), BAD, confirmed)
            for name in names
            for way, shot in (("confirm", confirms), ("delete", deletes))
        ),
        *(
            Row(f"open one of two names {way}", opens(his, *lines, more=more), BAD)
            for way, lines, more in (
                ("in the query", (), "&subscription=another"),
                ("in a header, too", ("Sidecast-Subscription: another",), ""),
                ("in two headers", (f"Sidecast-Subscription: {NAME}", "Sidecast-Subscription: another"), ""),
            )
        ),
        Row(
            "open one named in a header by no UTF-8",
            sends("GET", f"/events?context={CONTEXT}", "Sidecast-Subscription: \udcff", his),
            NO_NAME,
        ),
        *(
            Row(
                f"{way} one named {name}",
                shot(hers, name=name),
                UNKNOWN,
                confirmed,
                twin=shot(hers, name=NONES),
            )
            for name in alike
            for way, shot in (("confirm", confirms), ("delete", deletes))
        ),
        *(
            Row(
                f"confirm it in the context {context}",
                confirms(hers, context=context),
                UNKNOWN,
                confirmed,
                twin=confirms(hers, context=EMPTY),
            )
            for context in contexts
        ),
        *(
            Row(
                f"confirm it with {what}",
                sends("POST", f"/subscriptions/{NAME}/ack", nobody, body=body),
                BAD,
                confirmed,
            )
            for what, body in {
                "no context": b'{"id":"epoch1-1","context":""}',
                "a context that is no text": b'{"id":"epoch1-1","context":["context-1"]}',
                "a context too long": json.dumps({"id": "epoch1-1", "context": "x" * 257}).encode(),
                "two contexts": b'{"id":"epoch1-1","context":"context-0","context":"context-1"}',
                "a task, too": json.dumps({"id": "epoch1-1", "context": CONTEXT, "task": OPEN}).encode(),
                "whose it is": b'{"id":"epoch1-1","context":"context-1","principal":"alice"}',
                "a tenant": b'{"id":"epoch1-1","context":"context-1","tenant":"acme"}',
            }.items()
        ),
        *(
            Row(f"delete it with {what}", deletes(nobody, query=query), BAD, confirmed)
            for what, query in {
                "a task, too": f"?context={CONTEXT}&task={OPEN}",
                "no context": "?context=",
                "two contexts": f"?context={EMPTY}&context={CONTEXT}",
                "no UTF-8": "?context=%ff",
            }.items()
        ),
        *(
            Row(f"open it in no context: {context}", opens(his, context=context), BAD)
            for context in ("", "%ff", "x" * 257)
        ),
    ]


def _tickets(confirmed: Served) -> list[Row]:
    """Give what alice's ticket for one task is not for: it opens streams."""
    body = json.dumps({"id": "epoch1-1", "context": CONTEXT}).encode()
    path = f"/subscriptions/{NAME}"
    asks = (
        ("confirm it", "POST", f"{path}/ack", body),
        ("delete it", "DELETE", f"{path}?context={CONTEXT}", None),
    )

    def in_query(method: str, target: str, data: bytes | None) -> Shooter:
        mark = "&" if "?" in target else "?"
        return lambda it: Shot(method, f"{target}{mark}ticket={it.ticket}", (), data)

    def in_cookie(method: str, target: str, data: bytes | None) -> Shooter:
        return lambda it: Shot(method, target, (f"Cookie: sidecast_ticket={it.ticket}",), data)

    return [
        Row(f"{way} with a ticket in {where}", carried(method, target, data), ONLY_STREAMS, confirmed)
        for way, method, target, data in asks
        for where, carried in (("the query", in_query), ("a cookie", in_cookie))
    ]


def _deleted() -> list[Row]:
    """Delete it. What these lack would end it, so they come last."""
    deleted = Served(deletes(alice()), 204)
    return [
        *(
            Row(
                f"delete it{way}, {name}",
                deletes(whose, query=query),
                UNKNOWN,
                deleted,
                twin=deletes(whose, query=query, name=NONES),
            )
            for name, whose in _others().items()
            for way, query in (("", f"?context={CONTEXT}"), (" by its name", ""))
        ),
        Row("delete it without a credential", deletes(), NONE, deleted),
    ]
