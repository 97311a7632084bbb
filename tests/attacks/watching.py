"""Ways to another's task in the browser format.

Must not know how tasks are found.
"""

from __future__ import annotations

from access_rig import ACME, ALIASES, ALICES, BOBS, BROWSER, HERS_ELSEWHERE, MISSING, OPEN, OWNERLESS
from attacks.table import (
    BAD,
    EVENTS,
    SHOWN,
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
    watch,
)

NEVER_COMES = Refusal(200, '"reason":"not-found"', hides=True)


def ids() -> Group:
    """Give another's task on every path, and ids that are made for who doesn't encode them."""
    his = bob()

    def on(name: str) -> Shooter:
        ask = BROWSER[name](ALICES)
        lines = tuple(f"{key}: {value}" for key, value in ask.headers.items())
        return sends(ask.method, ask.target, *lines, his)

    def strange(task: str) -> Shooter:
        return watch(his, target=f"/tasks/{task}/events")

    encoded = {
        "star": "*",
        "greater": "%3E",
        "dots of NATS": "a.b",
        "a tenant and an agent before it": f"_.agent.{ALICES}",
        "encoded as a subject": "=dGFzay1vZi1hbGljZQ",
        "a slash": f"x%2F..%2F{ALICES}",
        "NUL": f"{ALICES}%00",
        "another case": ALICES.upper(),
        "a space": f"{ALICES}%20",
        "a line end": f"{ALICES}%0d%0a",
        "encoded twice": ALICES.replace("-", "%252d"),
    }
    rows = [
        *(foreign(name, on(name), UNKNOWN, text=SHOWN) for name in BROWSER),
        *(Row(name, strange(task), UNKNOWN, twin=strange(MISSING)) for name, task in encoded.items()),
        foreign("percent-encoded", strange(ALICES.replace("-", "%2d")), UNKNOWN, twin=strange(MISSING)),
        Row("nobody's", strange(OWNERLESS), UNKNOWN),
        Row("missing", strange(MISSING), UNKNOWN, twin=strange("task-missing2")),
        Row("no UTF-8", strange("%ff"), BAD),
        Row("a half escape", strange("%f"), BAD),
        Row("dots", sends("GET", f"/tasks/x/../{ALICES}/events", his), BAD),
    ]
    return Group(rows, Served(strange(BOBS), text=SHOWN))


def tenants() -> Group:
    """Give tasks of other tenants."""
    hers = f"/tasks/{HERS_ELSEWHERE}/events"
    within, unbound = Served(watch(alice(tenant=ACME), target=hers)), Served(watch(alice()))
    rows = [
        Row("out of one's tenant", watch(alice(tenant=ACME)), UNKNOWN, unbound),
        Row("into a tenant", watch(alice(), target=hers), UNKNOWN, within),
        Row("into a tenant, bound to none", watch(alice(tenant=""), target=hers), UNKNOWN, within),
        Row("of a tenant of nobody", watch(alice(tenant="other"), target=hers), UNKNOWN, within),
        Row("by the query", watch(alice(), target=f"{hers}?tenant={ACME}"), UNKNOWN, within),
        Row("by a header", watch(alice(), f"Sidecast-Tenant: {ACME}", target=hers), UNKNOWN, within),
        Row("with a grant of another", watch(bob(sidecast_grants=["acme/agent/*"])), UNKNOWN, unbound),
        Row(
            "with a grant beyond one's tenant",
            watch(bob(tenant="other", sidecast_grants=["acme/agent/*"]), target=hers),
            UNKNOWN,
            Served(watch(bob(tenant=ACME, sidecast_grants=["acme/agent/*"]), target=hers)),
        ),
        Row("with a grant for another agent", watch(bob(sidecast_grants=["*/other/*"])), UNKNOWN, unbound),
        Row(
            "with a grant for what begins otherwise",
            watch(bob(sidecast_grants=["_/agent/task-of-bob*"])),
            UNKNOWN,
            Served(watch(bob(sidecast_grants=["_/agent/task-of-*"]))),
        ),
    ]
    return Group(rows, unbound)


def cursors() -> Group:
    """Give cursors, which are no credentials, and waiting, which must not tell what there is."""
    his = bob()
    given = ("epoch1-1", "epoch1-3", "epoch1-999999", "epoch0-1", "garbage")
    rows = [
        foreign(f"{cursor} in {where}", shot, UNKNOWN, served=served)
        for cursor in given
        for where, shot, served in (
            ("the header", watch(his, f"Last-Event-ID: {cursor}"), 200),
            ("the query", watch(his, target=f"{EVENTS}?last_event_id={cursor}"), 200),
        )
    ]
    rows += [
        foreign(f"from {start}", watch(his, target=f"{EVENTS}?from={start}"), UNKNOWN)
        for start in ("start", "now", "snapshot")
    ]

    def waits(task: str, path: str, *lines: str) -> Shooter:
        target = path.format(task)
        mark = "&" if "?" in target else "?"
        return sends("GET", f"{target}{mark}wait_s=0.05", "Accept: text/event-stream", his, *lines)

    rows += [
        foreign(f"waiting, by {name}", waits(ALICES, path), NEVER_COMES, text=SHOWN)
        for name, path in ALIASES.items()
    ]
    rows += [
        Row(f"waiting for {name}", waits(task, ALIASES["events"]), NEVER_COMES)
        for name, task in (("one that is open", OPEN), ("nobody's", OWNERLESS), ("acme's", HERS_ELSEWHERE))
    ]
    rows.append(
        foreign(
            "waiting with a cursor", waits(ALICES, ALIASES["events"], "Last-Event-ID: epoch1-1"), NEVER_COMES
        )
    )
    return Group(rows, Served(watch(alice())))
