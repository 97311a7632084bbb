from __future__ import annotations

import pytest
from brokers import TASK, FakeBackend, artifact, broker, done, numbered, numbers, task_record, texts
from sse import kinds

PATH = f"/tasks/{TASK}/events"


@pytest.mark.parametrize("query", [{"batch_ms": 50}, {"max_rate": 200}, {"batch_ms": 20, "max_rate": 300}])
async def test_a_paced_client_gets_every_event_in_order(fake: FakeBackend, query: dict[str, int]) -> None:
    await fake.publish(task_record())
    async with broker(fake) as running:
        stream = await running.watch(cursor="epoch1-1", **query)
        await stream.next()
        for first in range(0, 60, 20):
            await fake.publish(*numbered(20, first))
        await fake.publish(done())
        frames = await stream.rest()
        assert texts(frames) == numbers(60)
        assert kinds(frames)[-2:] == ["task.status", "stream.end"]


async def test_chunks_are_joined_where_that_is_asked_for(fake: FakeBackend) -> None:
    await fake.publish(task_record(), *(artifact(str(n), append=n > 0) for n in range(10)), done())
    async with broker(fake) as running:
        frames = await (await running.watch(cursor="epoch1-1", coalesce=1)).rest()
        assert kinds(frames) == ["stream.open", "task.artifact", "task.status", "stream.end"]
        assert (frames[1]["text"], frames[1].id) == ("0123456789", "epoch1-11")


async def test_a_batch_is_one_frame_where_that_is_asked_for(fake: FakeBackend) -> None:
    await fake.publish(task_record(), *numbered(5), done())
    async with broker(fake) as running:
        frames = await (await running.watch(cursor="epoch1-1", batch="array")).rest()
        assert kinds(frames) == ["stream.open", "task.batch", "stream.end"]
        assert frames[1].id == "epoch1-7"
        assert [each.get("text") for each in frames[1]["events"]] == [*numbers(5), None]


@pytest.mark.parametrize(
    "query", ["batch_ms=x", "batch_ms=5001", "batch_max=0", "max_rate=0", "max_rate=nan", "batch=one"]
)
async def test_a_bad_value_names_the_parameter(fake: FakeBackend, query: str) -> None:
    await fake.publish(task_record())
    async with broker(fake) as running:
        status, answer = await running.get(f"{PATH}?{query}")
        assert status == 400
        assert query.partition("=")[0] in answer["error"]["message"]
