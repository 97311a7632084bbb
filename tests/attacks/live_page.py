"""Ways to see on the live page which tasks others have, and who watches them.

Must not know how the page shows it, nor how rights are checked.
"""

from __future__ import annotations

from access_rig import ACME, ALICES, BOBS, HERS_ELSEWHERE, MISSING, OPEN, OWNERLESS
from attacks.scene import API_KEY, Scene, Shot, bearer, token
from attacks.table import (
    BAD,
    EVIL,
    NONE,
    NOWHERE,
    Group,
    Refusal,
    Row,
    Served,
    Shooter,
    alice,
    bob,
    operates,
    sends,
)

TASKS, STREAMS = "/ui/api/tasks", "/ui/api/streams"
WITHOUT = Refusal(403, "this needs the right", hides=True)
ELSEWHERE = Refusal(403, "pages of other origins", hides=True)
NOBODY = Refusal(200, '"watching": 0, "streams": []', hides=True)
NO_METHOD = Refusal(405)
SEEN = ('"peer"', '"watching": 1')
OTHERS = (ALICES, OPEN, OWNERLESS, HERS_ELSEWHERE)


def root(*rights: str, **claims: str) -> str:
    """Give the line with a token of who may operate the broker, unless other rights are named."""
    return bearer(token(sub="root", sidecast_rights=list(rights or ("admin",)), **claims))


def _streams(*lines: str, task: str = OPEN, more: str = "", method: str = "GET") -> Shooter:
    return sends(method, f"{STREAMS}?task={task}{more}", *lines)


def _tasks(*lines: str, more: str = "", method: str = "GET") -> Shooter:
    return sends(method, f"{TASKS}{more}", *lines)


def watchers() -> Group:
    """Ask who watches: even of one's own task that is for operators alone."""
    hers, his, bound = alice(), bob(), root(tenant=ACME)

    def with_ticket(lines: bool) -> Shooter:
        def give(it: Scene) -> Shot:
            if lines:
                return Shot("GET", f"{STREAMS}?task={ALICES}", (f"Cookie: sidecast_ticket={it.ticket}",))
            return Shot("GET", f"{STREAMS}?task={ALICES}&ticket={it.ticket}")

        return give

    without = {
        "the owner": (hers,),
        "somebody else": (his,),
        "an API key": (f"X-API-Key: {API_KEY}",),
        "the right to publish": (root("publish"),),
        "rights of other names": (root("Admin", "admin ", "*"),),
        "a grant for everything": (bob(sidecast_grants=["*/*/*"]),),
        "a right said by a header": (hers, "Sidecast-Principal: root", "Sidecast-Rights: admin"),
    }
    within = {"": "", "naming no tenant": "&tenant=", "naming the other": "&tenant=_"}
    strange = ("*", "%3E", "a.b", f"_.agent.{OPEN}", "=dGFzay1vcGVuLS0tLQ", OPEN.upper(), f"{OPEN}%00", "")
    rows = [
        Row("nobody", _streams(), NONE),
        Row("nobody, from a page", _streams(EVIL), ELSEWHERE),
        *(Row(name, _streams(*lines), WITHOUT, absent=SEEN) for name, lines in without.items()),
        *(
            Row(f"a ticket in {where}", with_ticket(where == "a cookie"), WITHOUT, absent=SEEN)
            for where in ("the query", "a cookie")
        ),
        *(
            Row(f"from {page}", _streams(root(), page), ELSEWHERE, absent=SEEN)
            for page in (EVIL, "Origin: null", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site")
        ),
        *(
            Row(f"of another tenant {way}", _streams(bound, more=more), NOBODY, echoes=OPEN, absent=SEEN)
            for way, more in within.items()
        ),
        Row(
            "of another tenant by a header",
            _streams(bound, "Sidecast-Tenant: _"),
            NOBODY,
            echoes=OPEN,
            absent=SEEN,
        ),
        *(
            Row(
                f"a task named {task!r}",
                shot := _streams(root(), task=task),
                NOBODY._replace(hides=False),
                twin=shot,
                absent=SEEN,
            )
            for task in strange
        ),
        *(
            Row(name, sends("GET", f"{STREAMS}{query}", root()), BAD, absent=SEEN)
            for name, query in {
                "no task": "",
                "two tasks": f"?task={MISSING}&task={OPEN}",
                "no UTF-8": "?task=%ff",
                "a half escape": f"?task={OPEN}%f",
                "a task of another name": f"?TASK={OPEN}",
            }.items()
        ),
        *(Row(method, _streams(root(), method=method), NO_METHOD) for method in ("POST", "PUT", "HEAD")),
        Row("below an agent", sends("GET", f"/agents/agent{STREAMS}?task={OPEN}", root()), NOWHERE),
        *(
            Row(f"{kind} {path}", kind_of("GET", f"{path}?tenant=&agent=agent&task={OPEN}", root()), NOWHERE)
            for kind, kind_of in (("by what workers ask, public,", sends), ("internal,", operates))
            for path in ("/watching/task", "/watching/agent")
        ),
    ]
    return Group(rows, Served(_streams(root()), text='"watching": 1, "streams": [{'))


def page_tasks() -> Group:
    """Ask for the list: it holds what one may watch, and of others not even how many there are."""
    his, stranger = bob(), alice(sub="mallory")

    def with_ticket(it: Scene) -> Shot:
        return Shot("GET", f"{TASKS}?ticket={it.ticket}")

    def shows(task: str) -> Refusal:
        return Refusal(200, f'"task": "{task}"')

    empty = Refusal(200, '"tasks": [], "truncated": false')
    all_hers = Served(_tasks(alice()), text=f'"task": "{OPEN}"')
    acmes = Served(_tasks(alice(tenant=ACME)), text=HERS_ELSEWHERE)
    not_told = ('"watchers": true', *OTHERS)
    rows = [
        Row("nobody", _tasks(), NONE),
        Row("those of others", _tasks(his), shows(BOBS), all_hers, absent=not_told),
        Row("those of all, by who has none", _tasks(stranger), empty, all_hers, absent=(BOBS, *not_told)),
        Row("by a name in a header", _tasks(his, "Sidecast-Principal: alice"), shows(BOBS), absent=not_told),
        *(
            Row(f"into a tenant by {way}", shot, shows(OPEN), acmes, absent=(HERS_ELSEWHERE,))
            for way, shot in {
                "the query": _tasks(alice(), more=f"?tenant={ACME}"),
                "a header": _tasks(alice(), f"Sidecast-Tenant: {ACME}"),
            }.items()
        ),
        Row("out of one's tenant", _tasks(alice(tenant=ACME)), shows(HERS_ELSEWHERE), absent=(ALICES, OPEN)),
        Row("of another agent", _tasks(his, more="?agent=other"), shows(BOBS), absent=not_told),
        Row(
            "with a grant for another agent",
            _tasks(bob(sidecast_grants=["*/other/*"])),
            shows(BOBS),
            absent=not_told,
        ),
        Row("more than a ticket is for", with_ticket, shows(ALICES), all_hers, absent=(OPEN, BOBS)),
        *(Row(method, _tasks(alice(), method=method), NO_METHOD) for method in ("POST", "PUT", "HEAD")),
    ]
    first = (_tasks(his), _tasks(alice()), _tasks(alice(tenant=ACME)))
    return Group(rows, Served(_tasks(his), text=BOBS), first=first)
