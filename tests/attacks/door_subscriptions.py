"""Named subscriptions through the A2A door: another's task followed by name, another's name taken over.

Must not know where they are kept. In some of them bob has a grant for alice's open task: he may watch it, and
has subscriptions of his own to it, one of them by the name that hers has.
"""

from __future__ import annotations

from typing import Any

from access_rig import ACME, ALICES, HERS_ELSEWHERE, MISSING, OPEN, OWNERLESS, STREAMED, Ask, Path
from attacks.context_subscriptions import BEAT, FULL, NAME, NONES, OWN, confirms, deletes
from attacks.operations import refusal_of, sent
from attacks.scene import Scene, Shot
from attacks.table import (
    BAD,
    GONE,
    HIDDEN,
    NONE,
    UNKNOWN,
    VERSION,
    Group,
    Refusal,
    Row,
    Served,
    Shooter,
    alice,
    bob,
    foreign,
    left,
    sends,
)

NAMED = f"Sidecast-Subscription: {NAME}"
NAMELESS = f"Sidecast-Subscription: {NONES}"
SUBSCRIBES: dict[str, Path] = {name: make for name, make in STREAMED.items() if name.startswith("subscribe")}
SETTINGS = {
    "stream__a2a_heartbeat_s": 0.2,
    "stream__heartbeat_s": 0.2,
    "stream__subscriptions_per_principal_max": 3,
}
REST = f"/tasks/{OPEN}:subscribe"
TASK: dict[str, Any] = {"context": "", "task": OPEN}
"""What a confirmation says of a subscription to the open task."""
WORKING = "on it"


def _opens(ask: Ask, *lines: str) -> Shooter:
    return left(sent(ask, *lines), BEAT)


def door_subscriptions() -> Group:
    """Give such requests, about one of alice's whose stream is open."""
    hers, his, granted = alice(), bob(), bob(sidecast_grants=[f"_/agent/{OPEN}"])
    rows = [*_foreign(his), *_namesakes(granted), *_confirmed(his, granted), *_tickets(), *_odd(hers)]
    get = SUBSCRIBES["subscribe by GET"](OPEN)
    first = (*(_opens(get, line, granted) for line in (NAMED, NAMELESS, "Sidecast-Subscription: x")),)
    held = sends(
        "GET",
        f"{REST}?ack=client",
        VERSION,
        "Accept: text/event-stream",
        f"Sidecast-Subscription: {NAME}",
        hers,
    )
    return Group(rows, Served(_opens(get, NAMED, hers), text=WORKING), SETTINGS, first, held=(held,))


def _foreign(his: str) -> list[Row]:
    """Subscribe to another's task by the name of her subscription, on every wire: it is as if not there."""
    rows = []
    for name, make in SUBSCRIBES.items():
        ask, refused = make(OPEN), refusal_of(make(OPEN))
        rows += [
            foreign(f"{name}{way}", _opens(ask, *lines, his), refused, text=OPEN)
            for way, lines in {
                "": (NAMED,),
                ", a name of nobody's": (NAMELESS,),
                ", behind a cursor": (NAMED, "Last-Event-ID: epoch1-15"),
            }.items()
        ]
        rows += [
            foreign(
                f"{name}, named {what}",
                sent(ask, f"Sidecast-Subscription: {value}", his),
                refused,
                served=status,
            )
            for what, value, status in (("nothing", "", _bad(ask)), ("too much", "x" * 257, _bad(ask)))
        ]
        rows += [
            Row(f"{name} of {whose}", sent(make(task), NAMED, his), refused)
            for whose, task in (("nobody's", OWNERLESS), ("acme's", HERS_ELSEWHERE))
        ]
        rows.append(Row(f"{name} without a credential", sent(ask, NAMED), NONE))
    for name, make in STREAMED.items():
        if name.startswith("stream"):
            ask = make(ALICES)
            rows.append(
                foreign(
                    name, sent(ask, NAMED, his), refusal_of(ask), served=_bad(ask), text="The task has ended"
                )
            )
    unbound, bound = alice(tenant=""), alice(tenant=ACME)
    rows += [
        Row(f"by REST, {name}", sends("GET", f"{prefix}{REST}", VERSION, NAMED, who), GONE)
        for name, prefix, who in (
            ("her name in acme", "", bound),
            ("her name in acme, by its path", f"/{ACME}", bound),
            ("her name in another tenant", "", alice(tenant="other")),
            ("acme's path by who is not of it", f"/{ACME}", unbound),
            ("at another agent", "/agents/other", alice()),
        )
    ]
    return rows


def _bad(ask: Ask) -> int:
    return 200 if refusal_of(ask) is HIDDEN else 400


def _namesakes(granted: str) -> list[Row]:
    """Give what who may watch the task does by her name: it takes nothing over, and tells of no name."""
    rows = []
    for name, make in SUBSCRIBES.items():
        ask = make(OPEN)
        rows += [
            Row(
                f"{name}, one of its name{way}",
                _opens(ask, NAMED, *lines, granted),
                Refusal(200, WORKING),
                Served(_opens(ask, NAMED, alice()), text=WORKING),
                twin=_opens(ask, NAMELESS, *lines, granted),
            )
            for way, lines in (("", ()), (", behind a cursor", ("Last-Event-ID: epoch1-15",)))
        ]
        rows.append(
            Row(
                f"{name}, more than others",
                sent(ask, "Sidecast-Subscription: one-too-many", granted),
                FULL,
                Served(_opens(ask, "Sidecast-Subscription: one-too-many", alice()), text=WORKING),
                twin=sent(ask, "Sidecast-Subscription: 1-2-too-many", granted),
            )
        )
    for way, more in (("as her client", "&client=tab-1"), ("for the browser", "")):
        browser = f"/tasks/{OPEN}/events?ack=client{more}"

        def opens(line: str, target: str = browser) -> Shooter:
            return left(sends("GET", target, "Accept: text/event-stream", line, granted), BEAT)

        rows.append(
            Row(
                f"open one of its name {way}", opens(NAMED), Refusal(200, "stream.open"), twin=opens(NAMELESS)
            )
        )
    return rows


def _confirmed(his: str, granted: str) -> list[Row]:
    """Confirm, list and delete what was made through the door."""
    hers = alice()
    confirmed = Served(confirms(hers, id="epoch1-16", **TASK), text='"acknowledged": "epoch1-16"')
    deleted = Served(deletes(hers, query=f"?task={OPEN}"), 204)
    lists = Served(sends("GET", "/subscriptions", hers), text=OPEN)
    return [
        Row("confirm it", confirms(his, **TASK), UNKNOWN, confirmed),
        Row(
            "confirm it by an event alone",
            confirms(his, context="", id="epoch1-16"),
            UNKNOWN,
            confirmed,
            twin=confirms(his, context="", id="epoch1-16", name=NONES),
        ),
        Row("confirm it in another tenant", confirms(alice(tenant=ACME), **TASK), UNKNOWN, confirmed),
        Row("confirm it without a credential", confirms(**TASK), NONE, confirmed),
        Row("delete it", deletes(his, query=f"?task={OPEN}"), UNKNOWN, deleted),
        Row(
            "delete it by its name",
            deletes(his, query=""),
            UNKNOWN,
            deleted,
            twin=deletes(his, query="", name=NONES),
        ),
        Row(
            "delete it in another tenant",
            deletes(alice(tenant=ACME), query=f"?task={OPEN}"),
            UNKNOWN,
            deleted,
        ),
        Row(
            "list it",
            sends("GET", "/subscriptions", his),
            Refusal(200, '{"subscriptions": []}'),
            lists,
            absent=(OPEN,),
        ),
        # The grant is what these have: it opens the task, and nothing of hers.
        *(
            Row(
                f"confirm one's own of its name{way}",
                confirms(granted, id="epoch1-16", **body),
                OWN,
                twin=confirms(granted, id="epoch1-16", name=NONES, **body),
                echoes=NAME,
            )
            for way, body in (("", TASK), (" by an event alone", {"context": ""}))
        ),
        Row(
            "list one's own without the grant",
            sends("GET", "/subscriptions", his),
            Refusal(200, "[]"),
            absent=(NAME,),
        ),
        Row("delete one that is not one's own", deletes(granted, query=f"?task={ALICES}"), UNKNOWN),
    ]


def _tickets() -> list[Row]:
    """Follow another task than the ticket's, by name."""

    def get(task: str) -> Shooter:
        def give(it: Scene) -> Shot:
            return Shot("GET", f"/tasks/{task}:subscribe?ticket={it.ticket}", (VERSION, NAMED))

        return give

    def post(it: Scene) -> Shot:
        return Shot("POST", f"{REST}?ticket={it.ticket}", (VERSION, NAMED), b"{}")

    return [
        Row(
            "with a ticket for another task",
            get(OPEN),
            GONE,
            Served(get(ALICES), 400, "The task has ended"),
            twin=get(MISSING),
        ),
        Row("with a ticket, by POST", post, Refusal(403, "a ticket only opens streams")),
    ]


def _odd(hers: str) -> list[Row]:
    """Give what is no name, on a task of one's own."""
    get = SUBSCRIBES["subscribe by GET"](OPEN)
    return [
        *(
            Row(f"named {what}", sent(get, *lines, hers), BAD, twin=sent(get, *lines, hers))
            for what, lines in {
                "nothing": ("Sidecast-Subscription: ",),
                "too much": (f"Sidecast-Subscription: {'x' * 257}",),
                "a control character": ("Sidecast-Subscription: a\x0bb",),
                "by no UTF-8": ("Sidecast-Subscription: \udcff",),
                "twice": (NAMED, NAMELESS),
                "twice, and not at first": (NAMELESS, NAMED),
            }.items()
        ),
        *(
            Row(f"with {query} in the query", shot, BAD, twin=shot)
            for query in (f"subscription={NONES}", "subscription=%ff", "ack=all")
            for shot in [sends("GET", f"{REST}?{query}", VERSION, NAMED, hers)]
        ),
    ]
