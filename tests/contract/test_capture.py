"""What an agent that nobody may touch says is in its tasks' logs: once, in order, whoever captures it.

Every case holds for the double and for a real nats-server.
"""

from __future__ import annotations

import asyncio
import json

from brokers import Backend, artifact, done, status, task_record, until
from capturing import (
    Capturing,
    FakeAgent,
    folded,
    log_of,
    marked,
    outline,
    payloads_of,
    until_log,
    user_message,
)

from sidecast_schemas import headers as names


def said(state: str) -> bytes:
    return status(state, state="INPUT_REQUIRED")


# --- one broker


async def test_a_streamed_answer_is_the_log(backend: Backend) -> None:
    agent = FakeAgent()
    async with Capturing(backend, agent) as broker:
        broker.answer(message="u1", owner="alice@example.org")
        agent.say(task_record(), status("one"), *[artifact("a", append=True)] * 3, done(), status("late"))
        agent.hang_up("task-1")
        await broker.idle()
        records = await log_of(backend)
        assert await outline(backend) == [
            "task submitted",
            "begin u1",
            "working m-one",
            *["+a"] * 3,
            "completed",
            "end u1",
        ]
        assert await payloads_of(backend) == agent.said["task-1"][:-1]
        assert [each.headers.get(names.OWNER) for each in records] == ["=YWxpY2VAZXhhbXBsZS5vcmc"] * 8
        assert {each.headers[names.PRODUCER] for each in records} == {broker.capture.producer}
        ids = [each.headers[names.MSG_ID] for each in records]
        assert len(set(ids)) == 8
        assert all(each.startswith(broker.capture.producer) for each in ids)
        assert records[-1].headers[names.STATE] == "TASK_STATE_COMPLETED"
        assert json.loads(records[1].payload)["turn"]["message"] == json.loads(user_message("u1"))
        assert agent.subscriptions == agent.gets == 0
        assert broker.counted("after-terminal") == 1
        assert broker.counted("stored") == 8


async def test_a_follow_up_goes_on_behind_what_another_broker_captured(backend: Backend) -> None:
    agent = FakeAgent()
    async with Capturing(backend, agent) as one, Capturing(backend, agent) as other:
        one.answer(message="u1")
        agent.say(task_record(), said("q1"))
        agent.hang_up("task-1")
        await one.idle()
        other.answer(message="u2", task_id="task-1")
        agent.say(status("two"), done())
        agent.hang_up("task-1")
        await other.idle()
        assert await outline(backend) == [
            *("task submitted", "begin u1", "input_required m-q1", "end u1"),
            *("begin u2", "working m-two", "completed", "end u2"),
        ]
        assert not any(marked(await log_of(backend)))
        assert agent.subscriptions == 0


async def test_a_task_left_open_by_a_plain_answer_is_subscribed(backend: Backend) -> None:
    agent = FakeAgent()
    async with Capturing(backend, agent) as broker:
        answer = broker.capture.answer("", message=user_message("u1"), streams=False)
        agent.say(task_record(state="WORKING"))
        assert answer.take(b'{"task":%b}' % agent.task()) is not None
        answer.end()
        await until(agent.subscribed)
        agent.say(artifact("x"), done())
        await broker.idle()
        assert await outline(backend) == ["task working", "begin u1", "end u1", "=x", "completed"]
        assert not any(marked(await log_of(backend)))


async def test_an_answer_that_breaks_off_is_completed_by_a_subscription(backend: Backend) -> None:
    agent = FakeAgent()
    async with Capturing(backend, agent) as broker:
        broker.answer(message="u1")
        agent.say(task_record(), artifact("a", append=True))
        agent.hang_up("task-1", broken=True)
        agent.say(artifact("b", append=True), artifact("c", append=True), status("s"))
        await until(agent.subscribed)
        await until_log(backend, lambda log: "working m-s" in log)
        agent.say(artifact("d", append=True), done())
        await broker.idle()
        assert await outline(backend) == [
            *("task submitted", "begin u1", "+a", "+bc", "working m-s", "+d", "completed", "end u1")
        ]
        records = await log_of(backend)
        assert marked(records) == [False, False, False, True, True, False, False, False]
        assert json.loads(folded(records).task())["artifacts"] == json.loads(agent.task())["artifacts"]


async def test_a_subscription_that_breaks_is_made_again(backend: Backend) -> None:
    agent = FakeAgent()
    agent.say(task_record(state="WORKING"))
    await backend.publish(task_record(state="WORKING"))
    async with Capturing(backend, agent) as broker:
        await broker.watch()
        for number in range(4):
            await until(agent.subscribed)
            agent.say(artifact(f"{number}", append=True))
            agent.break_off()
            agent.away = True
            agent.say(artifact("x", append=True))
            await asyncio.sleep(0.03)
            agent.away = False
        agent.say(done())
        await until_log(backend, lambda log: log[-1] == "completed")
        text = "".join(word[1:] for word in await outline(backend) if word[0] == "+")
        assert text == "0x1x2x3x"


# --- two brokers


async def test_two_brokers_hear_the_same_and_each_event_is_stored_once(backend: Backend) -> None:
    agent = FakeAgent()
    async with Capturing(backend, agent) as one, Capturing(backend, agent) as other:
        one.answer(message="u1")
        agent.say(task_record(state="WORKING"))
        await one.written()
        other.answer(message="u2", task_id="task-1")
        await other.watch()
        for number in range(20):
            agent.say(*[artifact("same", append=True)] * 5, status(str(number)))
            await asyncio.sleep(0)
        agent.say(done())
        agent.hang_up("task-1")
        await one.idle()
        await other.idle()
        assert await payloads_of(backend) == agent.said["task-1"]
        turns = [word for word in await outline(backend) if word[:3] in ("beg", "end")]
        assert sorted(turns) == ["begin u1", "begin u2", "end u1", "end u2"]
        assert turns.index("begin u2") < turns.index("end u2")
        assert other.counted("followed") == 121
        assert agent.subscriptions == 0


async def test_two_subscribers_at_once_store_each_event_once(backend: Backend) -> None:
    agent = FakeAgent()
    agent.say(task_record(state="WORKING"))
    await backend.publish(task_record(state="WORKING"))
    async with Capturing(backend, agent) as one, Capturing(backend, agent) as other:
        await asyncio.gather(one.watch(), other.watch())
        await until(agent.subscribed)
        for number in range(30):
            agent.say(artifact("same", append=True), status(str(number)))
            await asyncio.sleep(0.002)
        agent.say(done())
        await until_log(backend, lambda log: log[-1] == "completed")
        text = "".join(word[1:] for word in await outline(backend) if word[0] in "+=")
        assert text == "same" * 30
        assert [word for word in await outline(backend) if word.startswith("working m-")] == [
            f"working m-{number}" for number in range(30)
        ]


async def test_who_watches_takes_over_from_a_broker_that_was_killed(backend: Backend) -> None:
    agent = FakeAgent()
    async with Capturing(backend, agent) as other:
        one = await Capturing(backend, agent).start()
        answer = one.answer(message="u1")
        agent.say(task_record(state="WORKING"), artifact("a", append=True))
        await one.written()
        await other.watch()
        await one.kill()
        agent._answers.clear()
        agent.say(artifact("b", append=True), artifact("b", append=True))
        await until(agent.subscribed)
        agent.say(artifact("c", append=True))
        agent.say(done())
        await until_log(backend, lambda log: log[-1] == "completed")
        text = "".join(word[1:] for word in await outline(backend) if word[0] in "+=")
        assert text == "abbc"
        assert answer.key is not None


async def test_after_a_restart_what_was_being_captured_is_captured_on(backend: Backend) -> None:
    agent = FakeAgent()
    one = await Capturing(backend, agent).start()
    one.answer(message="u1")
    agent.say(task_record(state="WORKING"), artifact("a", append=True))
    await one.written()
    await one.kill()
    agent._answers.clear()
    agent.say(artifact("b", append=True))
    async with Capturing(backend, agent) as other:
        await until(agent.subscribed)
        agent.say(artifact("c", append=True), done())
        await other.idle()
        assert await outline(backend) == ["task working", "begin u1", "+a", "+b", "+c", "completed"]
        assert marked(await log_of(backend)) == [False] * 3 + [True] + [False] * 2


async def test_after_a_restart_what_awaits_input_is_left_alone(backend: Backend) -> None:
    agent = FakeAgent()
    async with Capturing(backend, agent) as one:
        one.answer(message="u1")
        agent.say(task_record(), said("q"))
        agent.hang_up("task-1")
        await one.idle()
    async with Capturing(backend, agent) as other:
        await until(lambda: other.capture._looked_for_orphans)
        assert len(other.capture) == 0


# --- NATS


async def test_what_the_agent_says_while_nats_is_away_waits(backend: Backend) -> None:
    agent = FakeAgent()
    async with Capturing(backend, agent) as broker:
        broker.answer(message="u1")
        agent.say(task_record(), status("0"))
        await broker.written()
        await backend.go_away()
        agent.say(*[artifact("same", append=True)] * 50, *(status(str(number)) for number in range(1, 50)))
        agent.say(done())
        agent.hang_up("task-1")
        await asyncio.sleep(0.1)
        await backend.come_back()
        await broker.idle()
        assert await payloads_of(backend) == agent.said["task-1"]
        assert (await outline(backend))[-1] == "end u1"
        assert agent.subscriptions == 0


async def test_a_task_that_another_one_s_records_surround(backend: Backend) -> None:
    agent = FakeAgent()
    async with Capturing(backend, agent) as broker:
        broker.answer("task-1", message="u1")
        broker.answer("task-2", message="u2")
        agent.say(task_record("task-1"))
        agent.say(task_record("task-2"), task="task-2")
        for number in range(10):
            agent.say(status(str(number), task="task-1"))
            agent.say(status(str(number), task="task-2"), task="task-2")
        agent.say(done("task-1"))
        agent.say(done("task-2"), task="task-2")
        agent.hang_up("task-1")
        agent.hang_up("task-2")
        await broker.idle()
        for task in ("task-1", "task-2"):
            assert await payloads_of(backend, task) == agent.said[task]


async def test_ids_and_turns_of_a_message_sent_twice(backend: Backend) -> None:
    agent = FakeAgent()
    async with Capturing(backend, agent) as broker:
        for _time in range(2):
            broker.answer(message="u1")
        agent.say(task_record(), status(), done())
        agent.hang_up("task-1")
        await broker.idle()
        assert await outline(backend) == ["task submitted", "begin u1", "working", "completed", "end u1"]
