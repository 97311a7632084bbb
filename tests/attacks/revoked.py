"""What was given and taken back: a credential, all of a principal's, a task; on every kind of path.

Must not know where revocations are kept.
"""

from __future__ import annotations

import json
import time

from access_rig import ALICES, OPEN
from attacks.live_page import STREAMS, TASKS, root
from attacks.scene import Shot, bearer, token
from attacks.table import (
    EVENTS,
    HIDDEN,
    JSON,
    SHOWN,
    UNKNOWN,
    VERSION,
    Group,
    Refusal,
    Row,
    Served,
    Shooter,
    alice,
    calls,
    elsewhere,
    instead,
    operates,
    sends,
    watch,
)
from attacks.tickets import made_for

from sidecast_broker.core.auth.principal import Principal

STREAM = "Accept: text/event-stream"
OVER = Refusal(401, "revoked", hides=True)
OVER_ANYWHERE = OVER._replace(hides=False)
LOST = "the-token-that-was-lost"
NAMED = json.dumps({"tasks": [ALICES]}).encode()
POSITION = json.dumps({"id": "epoch1-1", "task": ALICES}).encode()
EVENT = b'{"statusUpdate":{"taskId":"t","contextId":"c","status":{"state":"TASK_STATE_WORKING"}}}'


def _revoke(**what: str) -> Shooter:
    return operates("POST", "/revoke", root(), body=json.dumps(what).encode())


def _paths(line: str) -> dict[str, Shooter]:
    """Give one request of each kind that is served to alice, by whoever the line names."""
    return {
        "events": watch(line),
        "several tasks": watch(line, target=f"/events?task={ALICES}"),
        "a context": watch(line, target="/events?context=context-1"),
        "the agent": watch(line, target="/events?agent=1"),
        "the page's list": sends("GET", TASKS, line),
        "subscriptions": sends("GET", "/subscriptions", line),
        "confirm a subscription": sends("POST", "/subscriptions/inbox/ack", line, body=POSITION),
        "delete a subscription": sends("DELETE", f"/subscriptions/inbox?task={ALICES}", line),
        "a ticket": sends("POST", "/tickets", line, body=NAMED),
        "A2A by JSON-RPC": calls("GetTask", line, id=ALICES),
        "A2A stream": sends("GET", f"/tasks/{ALICES}:subscribe", VERSION, line),
        "A2A list": sends("GET", "/tasks", VERSION, line),
    }


def _operations(line: str) -> dict[str, Shooter]:
    """Give what only operators may."""
    return {
        "who watches": sends("GET", f"{STREAMS}?task={OPEN}", line),
        "streams": operates("GET", "/streams", line),
        "publish": operates("POST", "/publish/t", line, body=EVENT),
        "revoke": operates("POST", "/revoke", line, body=b'{"principal":"mallory"}'),
    }


def _ticket(principal: Principal) -> Shooter:
    return sends("GET", f"{EVENTS}?ticket={made_for(ALICES, of=principal)}", JSON)


def _who(name: str, **claims: object) -> str:
    return bearer(token(sub=name, sidecast_rights=["admin", "publish"], **claims))


def revoked_credentials() -> Group:
    """Use a token that is revoked, one of a principal who is, and tickets that were made with them."""
    ends_at_s = time.time() + 600
    before = {
        "a token that was lost": _who("alice", jti=LOST),
        "a principal who left": _who("leaver", sidecast_grants=["*/*/*"]),
    }
    kept = _who("alice", jti="another")
    rows = [
        Row(f"{name}: {path}", shot, OVER_ANYWHERE)
        for name, line in before.items()
        for path, shot in (_paths(line) | _operations(line)).items()
    ]
    made = {
        "with a token that was lost": Principal("alice", "jwt", ends_at_s=ends_at_s, credential_id=LOST),
        "by a principal who left": Principal("leaver", "jwt", ends_at_s=ends_at_s),
    }
    good = Served(
        _ticket(Principal("alice", "jwt", ends_at_s=ends_at_s, credential_id="another")), text=SHOWN
    )
    rows += [Row(f"a ticket made {name}", _ticket(principal), OVER, good) for name, principal in made.items()]
    first = (_revoke(token_id=LOST), _revoke(principal="leaver"))
    return Group(rows, Served(watch(kept), text=SHOWN), first=first)


def revoked_tasks() -> Group:
    """Ask for a task of one's own, or that a grant is for, which is revoked: it is as one there is not."""
    hers, stranger = alice(), alice(sub="mallory")

    def hidden(name: str, shot: Shooter, refused: Refusal = UNKNOWN) -> Row:
        # To who has a grant for everything, one there is not is one that may come.
        return Row(name, shot, refused, twin=lambda it: elsewhere(instead(shot, stranger)(it)))

    granted = alice(sub="carol", sidecast_grants=["*/*/*"])
    rows = []
    for name, line in {"the owner": hers, "a grant": granted}.items():
        asks = _paths(line)
        unknown = ("events", "several tasks", "a ticket", "confirm a subscription", "delete a subscription")
        waits = sends("GET", f"{EVENTS}?wait_s=0.05", STREAM, line)
        rows += [
            *(hidden(f"{name}: {path}", asks[path]) for path in unknown),
            hidden(f"{name}: A2A by JSON-RPC", asks["A2A by JSON-RPC"], HIDDEN),
            hidden(f"{name}: waiting", waits, Refusal(200, '"reason":"not-found"', hides=True)),
            *(
                Row(f"{name}: {path}", asks[path], Refusal(200, text), absent=(ALICES,))
                for path, text in (
                    ("the agent", f'"id":"{OPEN}"'),
                    ("a context", '"tasks":['),
                    ("the page's list", f'"task": "{OPEN}"'),
                )
            ),
        ]

    def with_ticket(target: str) -> Shooter:
        return lambda it: Shot("GET", f"{target}ticket={it.ticket}", (JSON,))

    rows += [
        Row("a ticket for it", with_ticket(f"{EVENTS}?"), UNKNOWN),
        Row("a ticket for it, on a list", with_ticket(f"/events?task={ALICES}&"), UNKNOWN),
    ]
    subscribed = sends("GET", f"{EVENTS}?subscription=inbox", STREAM, hers)
    listed = watch(hers, target="/events?agent=1")
    first = (subscribed, listed, instead(listed, granted), _revoke(task=ALICES))
    return Group(rows, Served(listed, text=OPEN), first=first)
