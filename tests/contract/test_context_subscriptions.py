"""Named subscriptions to the tasks of a context at a real nats-server: one position over all of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

import pytest
from askers import Askers, bearer
from brokers import OwnBroker, RealBackend, ask, broker, done, status, task_record, texts, until
from nats_server import request_api
from sse import Frame, Watch, data_frames, kinds

from sidecast_broker.boards import Boards
from sidecast_broker.core.auth.principal import Principal
from sidecast_schemas import headers as names

JSON = {"Content-Type": "application/json"}
A, B, ELSEWHERE = "task-a", "task-b", "task-x"
CONTEXT = "context-1"
OF_ANOTHER_AGENT = "sidecast.v1.events._.other.task-y"


async def watch(running: OwnBroker, name: str = "s", context: str = CONTEXT, **query: object) -> Watch:
    """Open a subscription to a context, which only its client confirms unless the query says else."""
    asked = {"subscription": name, "ack": "client", "from": "snapshot"} | query
    headers = asked.pop("headers", None)
    cursor = asked.pop("cursor", None)
    more = "".join(f"&{key}={quote(str(value), safe='')}" for key, value in asked.items())
    path = f"/events?context={quote(context, safe='')}{more}"
    return await running.watch(path=path, cursor=cursor, headers=headers)  # type: ignore[arg-type]


async def reopened(running: OwnBroker, count: int, **query: object) -> list[Frame]:
    """Open it without a cursor, and take what comes first."""
    stream = await watch(running, **query)  # type: ignore[arg-type]
    frames = await stream.take(count)
    await stream.close()
    return frames


async def ack(running: OwnBroker, event_id: str | None, name: str = "s", **more: Any) -> tuple[int, Any]:
    """Confirm an event."""
    headers = more.pop("headers", {})
    body = json.dumps({"id": event_id, **more}).encode()
    return await ask("POST", f"{running.url}/subscriptions/{quote(name, safe='')}/ack", body, JSON | headers)


async def listed(running: OwnBroker, headers: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """Give the subscriptions."""
    code, answer = await running.get("/subscriptions", headers)
    assert code == 200
    return list(answer["subscriptions"])


async def info(real: RealBackend) -> dict[str, Any]:
    """Give what the server says of the only consumer."""
    [name] = (await request_api(real.server.url, "CONSUMER.NAMES.SIDECAST", {"offset": 0}))["consumers"]
    return await request_api(real.server.url, f"CONSUMER.INFO.SIDECAST.{name}", {})


async def story(real: RealBackend) -> None:
    """Two tasks of the context in turn, one of another between: sequences 1 to 9."""
    for task, context in ((A, CONTEXT), (ELSEWHERE, "context-x"), (B, CONTEXT)):
        await real.publish(task_record(task, contextId=context), task=task)
    for number in range(2):
        for task, context in ((A, CONTEXT), (ELSEWHERE, "context-x"), (B, CONTEXT)):
            await real.publish(status(f"{task} {number}", task, contextId=context), task=task)


# --- the position


async def test_a_client_without_a_cursor_goes_on_with_all_tasks_of_the_context(real: RealBackend) -> None:
    await story(real)
    async with broker(real) as running:
        frames = await reopened(running, 5, **{"from": "start"})
        assert [frame.id for frame in frames[1:]] == ["epoch1-1", "epoch1-3", "epoch1-4", "epoch1-6"]
        answer = {"name": "s", "context": CONTEXT, "acknowledged": "epoch1-4"}
        assert await ack(running, "epoch1-4") == (200, answer)
        opened, *events = await reopened(running, 4)
        assert (opened["mode"], opened["cursor"]) == ("replay", "epoch1-4")
        assert texts(events) == ["task-b 0", "task-a 1", "task-b 1"]
        # Tasks that begin while nobody is there come, too.
        await real.publish(task_record("task-c"), status("new", "task-c"), task="task-c")
        assert (await ack(running, events[-1].id))[1]["acknowledged"] == "epoch1-9"
        opened, *events = await reopened(running, 3)
        assert [(frame["taskId"], frame.id) for frame in events] == [
            ("task-c", "epoch1-10"),
            ("task-c", "epoch1-11"),
        ]


async def test_it_is_a_consumer_of_the_agents_records_whose_floor_is_the_position(real: RealBackend) -> None:
    await story(real)
    await real.publish_on(OF_ANOTHER_AGENT, task_record("task-y"))
    async with broker(real) as running:
        stream = await watch(running, **{"from": "start"})
        await stream.take(7)
        for sequence in (1, 2, 6, 9):
            # The id of a task elsewhere confirms what lies before it, as any event's does.
            assert (await ack(running, f"epoch1-{sequence}"))[1]["acknowledged"] == f"epoch1-{sequence}"
            found = await info(real)
            assert found["ack_floor"]["stream_seq"] == sequence
        assert found["config"]["filter_subject"] == "sidecast.v1.events._.agent.*"
        assert (await ack(running, "epoch1-10"))[1]["acknowledged"] == "epoch1-9"
        assert (await ack(running, "epoch1-3"))[1]["acknowledged"] == "epoch1-9"  # never backwards
        [shown] = await listed(running)
        assert shown == {
            "name": "s",
            "context": CONTEXT,
            "acknowledged": "epoch1-9",
            "pending_events": None,
            "client": None,
            "active_here": True,
        }


async def test_the_snapshots_are_confirmed_by_their_id_whose_record_it_may_be(real: RealBackend) -> None:
    await story(real)
    await real.publish_on(OF_ANOTHER_AGENT, task_record("task-y"))
    async with broker(real) as running:
        for _unconfirmed in range(2):
            frames = await reopened(running, 3)
            assert kinds(frames) == ["stream.open", "task.snapshot", "task.snapshot"]
        assert frames[-1].id == "epoch1-10"  # no record of this agent's
        assert (await ack(running, frames[-1].id))[0] == 200
        await real.publish(status("new", B), task=B)
        opened, event = await reopened(running, 2)
        assert (opened["mode"], event["text"]) == ("replay", "new")


async def test_a_context_without_tasks_is_remembered_from_its_beginning(real: RealBackend) -> None:
    async with broker(real) as running:
        [opened] = await reopened(running, 1)
        assert opened["mode"] == "live"
        await story(real)
        opened, *events = await reopened(running, 7)
        assert opened["mode"] == "replay"
        assert [frame["seq"] for frame in events] == [1, 3, 4, 6, 7, 9]


async def test_from_now_remembers_where_now_was(real: RealBackend) -> None:
    await story(real)
    async with broker(real) as running:
        await reopened(running, 1, **{"from": "now"})
        await real.publish(status("missed", B), task=B)
        opened, event = await reopened(running, 2)
        assert (opened["mode"], event["text"]) == ("replay", "missed")


async def test_a_cursor_confirms_and_wins(real: RealBackend) -> None:
    await story(real)
    async with broker(real) as running:
        await reopened(running, 1, **{"from": "start"})
        opened, *_events = await reopened(running, 2, cursor="epoch1-6")
        assert opened["cursor"] == "epoch1-6"
        opened, *events = await reopened(running, 3)
        assert (opened["cursor"], texts(events)) == ("epoch1-6", ["task-a 1", "task-b 1"])


async def test_a_stream_that_waits_for_nothing_goes_on_though_all_tasks_have_ended(real: RealBackend) -> None:
    await story(real)
    await real.publish(done(A), task=A)
    await real.publish(done(B), task=B)
    async with broker(real) as running:
        stream = await watch(running, **{"from": "start"})
        frames = await stream.until(lambda frame: frame.json.get("seq") == 11)
        assert (await ack(running, frames[-1].id))[0] == 200
        await stream.close()
        again = await watch(running)
        await again.take(1)
        await real.publish(task_record("task-c"), task="task-c")
        [event] = data_frames(await again.take(1))
        assert event["taskId"] == "task-c"


async def test_the_position_survives_brokers_and_server(real: RealBackend) -> None:
    await story(real)
    async with broker(real) as running:
        await reopened(running, 1, **{"from": "start"})
        assert (await ack(running, "epoch1-6"))[0] == 200
    await real.close()
    await asyncio.to_thread(real.server.restart)
    async with broker(real) as running:
        opened, *events = await reopened(running, 3)
        assert (opened["cursor"], texts(events)) == ("epoch1-6", ["task-a 1", "task-b 1"])


async def test_expiry_does_not_make_a_hole(real: RealBackend) -> None:
    await story(real)
    async with broker(real) as running:
        await reopened(running, 1, **{"from": "start"})
        await ack(running, "epoch1-3")
        await real.expire(6)
    async with broker(real) as running:
        opened, gap, *snapshots = await reopened(running, 4)
        assert (opened["mode"], gap.kind, gap["reason"]) == ("snapshot", "stream.gap", "expired")
        assert kinds(snapshots) == ["task.snapshot"] * 2
        await ack(running, snapshots[-1].id)
        await real.publish(status("new", A), task=A)
        opened, event = await reopened(running, 2)
        assert (opened["mode"], event["text"]) == ("replay", "new")


async def test_by_default_what_two_heartbeats_have_outlived_is_confirmed(real: RealBackend) -> None:
    await story(real)
    async with broker(real, stream__heartbeat_s=0.1) as running:
        stream = await watch(running, ack="auto")
        await stream.take(3)

        async def position(wanted: str) -> None:
            async with asyncio.timeout(10):
                while (await listed(running))[0]["acknowledged"] != wanted:
                    await asyncio.sleep(0.05)

        await position("epoch1-9")
        await real.publish(status("more", A), status("and more", A), task=A)
        await position("epoch1-11")


async def test_a_task_that_begins_while_the_others_are_looked_up_is_shown(
    real: RealBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    await story(real)
    find = Boards.find

    async def find_and_wait(self: Boards, *args: Any) -> Any:
        found = await find(self, *args)
        [board] = self._users
        if "task-c" not in board.members:
            await real.publish(task_record("task-c"), status("new", "task-c"), task="task-c")
            await until(lambda: "task-c" in board.members and board.members["task-c"].hub.end == 11)
        return found

    monkeypatch.setattr(Boards, "find", find_and_wait)
    async with broker(real) as running:
        stream = await watch(running)
        await real.publish(status("last", "task-c"), task="task-c")
        frames = await stream.until(lambda frame: frame.json.get("text") == "last")
        shown = {frame["taskId"] for frame in frames if frame.kind == "task.snapshot"}
        told = {frame["seq"] for frame in frames if frame.kind == "task.status"}
        assert shown == {A, B, "task-c"}
        assert told == {12}


# --- one stream at a time


async def test_the_newest_takes_over_on_any_broker(real: RealBackend) -> None:
    await story(real)
    async with broker(real) as one, broker(real) as other:
        first = await watch(one)
        await first.take(3)
        second = await watch(other)
        [end] = await first.rest()
        assert (end.kind, end["reason"], end.json.get("taskId")) == ("stream.end", "displaced", None)
        await real.publish(status("only here", B), task=B)
        assert (await second.until("task.status"))[-1]["text"] == "only here"
        assert await one.metric("sidecast_subscriptions") == 0
        assert await other.metric("sidecast_subscriptions") == 1


async def test_two_tabs_do_not_fight(real: RealBackend) -> None:
    await story(real)
    async with broker(real) as running:
        first = await watch(running, client="a")
        await first.take(3)
        await watch(running, client="b")
        await first.rest()
        assert (await watch(running, client="a", cursor="epoch1-9")).status == 204
        assert (await watch(running, client="a")).status == 204
        assert (await watch(running, client="c")).status == 200


async def test_it_can_be_deleted_and_its_stream_ends(real: RealBackend) -> None:
    await story(real)
    async with broker(real) as running:
        stream = await watch(running)
        await stream.take(3)
        url = f"{running.url}/subscriptions/s"
        assert (await ask("DELETE", f"{url}?context=context-x"))[0] == 404
        assert (await ask("DELETE", f"{url}?context={CONTEXT}&task={A}"))[0] == 400
        assert (await ask("DELETE", f"{url}?context={CONTEXT}"))[0] == 204
        assert (await stream.rest())[-1]["reason"] == "deleted"
        assert await listed(running) == []
        await reopened(running, 3)
        assert (await ask("DELETE", url))[0] == 204  # where it is the only one of its name


async def test_one_name_for_a_task_and_its_context_is_two_subscriptions(real: RealBackend) -> None:
    await story(real)
    async with broker(real) as running:
        await (await watch(running)).take(3)
        of_task = await running.watch(A, subscription="s", ack="client")
        await of_task.take(2)
        assert [(each.get("context"), each.get("task")) for each in await listed(running)] == [
            (None, A),
            (CONTEXT, None),
        ]
        code, answer = await ack(running, "epoch1-7")
        assert (code, "say which" in answer["error"]["message"]) == (400, True)
        assert (await ack(running, "epoch1-9"))[1]["context"] == CONTEXT  # task b's: of no other is it one
        assert (await ack(running, "epoch1-7", task=A))[1] == {
            "name": "s",
            "task": A,
            "acknowledged": "epoch1-7",
        }
        assert (await ack(running, "epoch1-7", context=CONTEXT))[1]["acknowledged"] == "epoch1-9"


# --- who may, and what is none


async def test_each_principal_has_their_own_and_sees_their_own_tasks(real: RealBackend) -> None:
    await real.delete_bucket("SIDECAST_REVOKED")
    for task, owner in ((A, "alice"), (B, "bob")):
        owned = {names.OWNER: owner}
        await real.publish(task_record(task), status(f"{owner}s", task), task=task, headers=owned)
    askers = Askers(Principal("alice", "jwt"), Principal("bob", "jwt"), Principal("eve", "jwt"))
    changes: dict[str, Any] = {"auth__required": "true", "authenticator": askers}
    async with broker(real, **changes) as running:
        for who, task in (("alice", A), ("bob", B)):
            stream = await watch(running, headers=bearer(who), **{"from": "start"})
            frames = await stream.take(3)
            assert {frame["taskId"] for frame in frames[1:]} == {task}
        # An event of bob's confirms what lies before it in alice's subscription, and tells her nothing of it.
        code, answer = await ack(running, "epoch1-3", headers=bearer("alice"))
        assert (code, answer["acknowledged"], answer["context"]) == (200, "epoch1-3", CONTEXT)
        assert [each["acknowledged"] for each in await listed(running, bearer("bob"))] == [None]
        strangers = [
            await ack(running, "epoch1-3", headers=bearer("eve")),
            await ack(running, "epoch1-3", headers=bearer("eve"), context=CONTEXT),
            await ack(running, "epoch1-3", headers=bearer("eve"), context="missing"),
            await ask("DELETE", f"{running.url}/subscriptions/s?context={CONTEXT}", b"", bearer("eve")),
        ]
        assert [code for code, _answer in strangers] == [404] * 4
        assert len({json.dumps(answer) for _code, answer in strangers}) == 1
        assert await listed(running, bearer("eve")) == []


@pytest.mark.parametrize(
    "query",
    [
        f"task={A}&subscription=s",
        f"task={A}&task={B}&subscription=s",
        "agent=1&subscription=s",
        f"context={CONTEXT}&subscription=",
        f"context={CONTEXT}&subscription=a&subscription=b",
        f"context={CONTEXT}&subscription=s&ack=none",
        f"context={CONTEXT}&subscription=s&client=%00",
        "context=&subscription=s",
        f"context={'c' * 257}&subscription=s",
        f"context={CONTEXT}&context=context-2&subscription=s",
    ],
)
async def test_what_none_can_be_to_is_refused(query: str, real: RealBackend) -> None:
    await story(real)
    async with broker(real) as running:
        assert (await running.get(f"/events?{query}"))[0] == 400
        assert await listed(running) == []


@pytest.mark.parametrize("context", ["*", ">", "a.b", "ü" * 128, "🦊 &=", "../..", "=Kg", "_"])
async def test_no_context_is_more_than_a_context(context: str, real: RealBackend) -> None:
    await story(real)
    await real.publish(task_record("odd", contextId=context), task="odd")
    async with broker(real) as running:
        frames = await reopened(running, 2, context=context)
        assert [frame.json.get("taskId") for frame in frames] == [None, "odd"]
        assert (await ack(running, frames[-1].id, context=context))[1]["context"] == context
        assert (await reopened(running, 1, context=context))[0]["cursor"] == "epoch1-10"
        url = f"{running.url}/subscriptions/s?context={quote(context, safe='')}"
        assert (await ask("DELETE", url))[0] == 204


@pytest.mark.parametrize(
    "body",
    [
        {"id": "epoch1-4", "context": ""},
        {"id": "epoch1-4", "context": "c" * 257},
        {"id": "epoch1-4", "context": 1},
        {"id": "epoch1-4", "context": CONTEXT, "task": A},
        {"id": "epoch0-4", "context": CONTEXT},
        {"id": "epoch1-99", "context": CONTEXT},
        {"id": "nonsense", "context": CONTEXT},
    ],
)
async def test_what_confirms_nothing_is_refused(body: dict[str, object], real: RealBackend) -> None:
    await story(real)
    async with broker(real) as running:
        await reopened(running, 1, **{"from": "start"})
        url = f"{running.url}/subscriptions/s/ack"
        assert (await ask("POST", url, json.dumps(body).encode(), JSON))[0] == 400
        assert (await listed(running))[0]["acknowledged"] is None


async def test_without_nats_it_is_a_temporary_refusal(real: RealBackend) -> None:
    await story(real)
    async with broker(real, nats__request_s=0.5) as running:
        stream = await watch(running)
        await stream.take(3)
        await real.go_away()
        busy = await (await watch(running)).rest()
        assert kinds(busy) == ["stream.busy"]
        assert (await ack(running, "epoch1-9"))[0] == 503
        await real.come_back()
