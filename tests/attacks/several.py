"""Streams of several tasks that another's is listed on, or belongs to.

Must not know how tasks are found.
"""

from __future__ import annotations

from access_rig import ACME, ALICES, BOBS, HERS_ELSEWHERE, MISSING, OPEN, OWNERLESS
from attacks.scene import Shot
from attacks.table import (
    BAD,
    JSON,
    NONE,
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

STREAM = "Accept: text/event-stream"
NOT_FOUND = Refusal(200, '"reason":"not-found"', hides=True)
NOTHING = Refusal(200, '{"tasks":[]', hides=True)
COUNTS = tuple(f'"left_out":{count}' for count in range(1, 10))
OTHERS = (ALICES, OPEN, OWNERLESS, HERS_ELSEWHERE, *COUNTS)
"""What bob may learn nothing of, not even how many there are."""
FEW = {"stream__tasks_per_stream_max": 2}
"""Fewer than there are, and as many as anybody has."""


def _shown(task: str) -> str:
    """Give what stands in a snapshot of a task, and nowhere else."""
    return f'"id":"{task}"'


def _listed(who: str, *tasks: str, more: str = "", lines: tuple[str, ...] = (STREAM,)) -> Shooter:
    query = "&".join(f"task={task}" for task in tasks)
    return sends("GET", f"/events?{query}{more}", *lines, who)


def listed() -> Group:
    """List another's task, alone and beside one's own: it is told of as one there is not."""
    his = bob()
    hers, acmes = f"/events?task={ALICES}", f"/events?task={HERS_ELSEWHERE}"
    foreigners = {"alice's": ALICES, "nobody's": OWNERLESS, "acme's": HERS_ELSEWHERE}
    beside = {
        "": "",
        "from the start": "&from=start",
        "behind a cursor": "&last_event_id=epoch1-1",
        "from a cursor beyond all": "&last_event_id=epoch1-999999",
        "waited for": "&wait_s=0.05",
        "as one frame": "&batch=array&batch_ms=1000",
        "paced": "&max_rate=1&slow=snapshot",
    }
    rows = [
        Row(
            f"{name} beside one's own {way}",
            _listed(his, BOBS, task, more=more),
            NOT_FOUND,
            Served(_listed(alice(), task, more=more), text=_shown(task))
            if task == ALICES and not way
            else None,
            twin=_listed(his, BOBS, MISSING, more=more),
            echoes=task,
            absent=(_shown(task),),
        )
        for name, task in foreigners.items()
        for way, more in beside.items()
    ]
    rows += [
        foreign(f"alone as {accept}", _listed(his, ALICES, lines=(accept,)), UNKNOWN, text=SHOWN)
        for accept in (JSON, STREAM, "Accept: */*")
    ]
    rows += [
        foreign(f"alone {more}", _listed(his, ALICES, more=more), UNKNOWN)
        for more in ("&from=start", "&last_event_id=epoch1-1")
    ]
    rows.append(
        Row(
            "alone, and waited for",
            _listed(his, ALICES, more="&wait_s=0.05"),
            NOT_FOUND,
            Served(_listed(alice(), ALICES, more="&wait_s=0.05"), text=SHOWN),
            echoes=ALICES,
            absent=(SHOWN,),
        )
    )
    rows.append(
        Row(
            "beside one's own, asked once",
            _listed(his, BOBS, ALICES, lines=(JSON,)),
            Refusal(200, _shown(BOBS), hides=True),
            Served(_listed(alice(), ALICES, OPEN, lines=(JSON,)), text=_shown(OPEN)),
            twin=_listed(his, BOBS, MISSING, lines=(JSON,)),
            absent=OTHERS,
        )
    )
    strange = {"star": "*", "greater": "%3E", "dots": "a.b", "encoded": "=dGFzay1vZi1hbGljZQ", "NUL": "%00"}
    rows += [
        Row(name, _listed(his, task, lines=(JSON,)), UNKNOWN, twin=_listed(his, MISSING, lines=(JSON,)))
        for name, task in strange.items()
    ]
    rows += [
        Row("a task and a context", sends("GET", f"/events?task={ALICES}&context=context-1", his), BAD),
        Row("a task and the agent", sends("GET", f"/events?task={ALICES}&agent=1", his), BAD),
        Row("another agent's", sends("GET", "/events?agent=other", his), BAD),
        Row("no UTF-8", sends("GET", "/events?task=%ff", his), BAD),
        Row("no task", sends("GET", "/events", his), BAD),
        Row("an empty task", sends("GET", "/events?task=", his), BAD),
        Row("with a subscription", _listed(his, ALICES, more="&subscription=inbox"), BAD),
        *(
            Row(method, sends(method, f"/events?task={ALICES}", alice()), Refusal(405))
            for method in ("POST", "PUT", "DELETE", "HEAD")
        ),
        *(
            Row(f"in another tenant by {way}", watch(*lines, target=f"{acmes}{more}"), UNKNOWN)
            for way, lines, more in (
                ("nothing", (alice(),), ""),
                ("the query", (alice(),), f"&tenant={ACME}"),
                ("a header", (alice(), f"Sidecast-Tenant: {ACME}"), ""),
                ("a grant beyond", (bob(tenant="other", sidecast_grants=["acme/agent/*"]),), ""),
            )
        ),
        foreign("out of one's tenant", watch(alice(tenant=ACME), target=hers), UNKNOWN, text=SHOWN),
        Row("without a credential", watch(target=hers), NONE),
        Row("more than a stream has", _listed(his, *(f"t{number}" for number in range(600))), BAD),
    ]
    return Group(rows, Served(_listed(his, BOBS), text=_shown(BOBS)), first=(_listed(his, BOBS),))


def together() -> Group:
    """Ask for a context and for the agent: they hold one's own tasks, of others not even a count."""
    his, stranger = bob(), alice(sub="mallory")

    def asks(query: str, *lines: str) -> Shooter:
        return watch(*lines, target=f"/events?{query}")

    def with_ticket(query: str) -> Shooter:
        return lambda it: Shot("GET", f"/events?{query}&ticket={it.ticket}", (JSON,))

    all_hers = Served(asks("agent=1", alice()), text=_shown(OPEN))
    rows = [
        Row("a context", asks("context=context-1", his), Refusal(200, _shown(BOBS)), absent=OTHERS),
        Row("the agent", asks("agent=1", his), Refusal(200, _shown(BOBS)), all_hers, absent=OTHERS),
        Row(
            "a context by who has nothing in it",
            asks("context=context-1", stranger),
            NOTHING,
            Served(asks("context=context-1", alice()), text=_shown(ALICES)),
            twin=asks("context=context-0", stranger),
        ),
        Row(
            "the agent by who has nothing there",
            asks("agent=1", stranger),
            NOTHING,
            twin=asks("agent=1", alice(sub="nobody")),
        ),
        Row(
            "into a tenant by the query",
            asks(f"agent=1&tenant={ACME}", alice()),
            Refusal(200, _shown(OPEN)),
            Served(asks("agent=1", alice(tenant=ACME)), text=_shown(HERS_ELSEWHERE)),
            absent=(HERS_ELSEWHERE, *COUNTS),
        ),
        Row(
            "out of one's tenant",
            asks("agent=1", alice(tenant=ACME)),
            Refusal(200, _shown(HERS_ELSEWHERE)),
            absent=(ALICES, OPEN, *COUNTS),
        ),
        Row(
            "the agent with a ticket for one task",
            with_ticket("agent=1"),
            Refusal(200, _shown(ALICES)),
            all_hers,
            absent=(OPEN, BOBS, *COUNTS),
        ),
        Row("another task with a ticket", with_ticket(f"task={OPEN}"), UNKNOWN),
        Row(
            "with a grant for another agent",
            asks("agent=1", bob(sidecast_grants=["*/other/*"])),
            Refusal(200, _shown(BOBS)),
            absent=OTHERS,
        ),
    ]
    first = (asks("agent=1", his), asks("agent=1", alice()), asks("agent=1", alice(tenant=ACME)))
    return Group(rows, Served(asks("agent=1", his), text=_shown(BOBS)), FEW, first)
