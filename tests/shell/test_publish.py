from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest
from brokers import (
    OTHER,
    TASK,
    FakeBackend,
    OwnBroker,
    broker,
    done,
    encode,
    numbered,
    numbers,
    status,
    subject_of,
    task_record,
    texts,
    turn,
)
from sse import kinds

from sidecast_schemas.subjects import TaskKey, events_subject

JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}


async def publish(
    running: OwnBroker, body: bytes, task: str = TASK, headers: dict[str, str] = JSON, query: str = ""
) -> tuple[int, Any]:
    return await running.internal(f"/publish/{task}{query}", "POST", body, headers)


async def test_one_event_is_stored_and_streamed(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        assert await publish(running, task_record()) == (
            200,
            {"stored": [{"sequence": 1, "id": "epoch1-1"}]},
        )
        stream = await running.watch()
        await stream.take(2)
        assert (await publish(running, status("one")))[0] == 200
        (frame,) = await stream.take(1)
        assert (frame["text"], frame.id) == ("one", "epoch1-2")


async def test_many_events_are_stored_in_order(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        body = b"\n".join([task_record(), b"", *numbered(20), b"  ", done()]) + b"\r\n"
        _status, answer = await publish(running, body, headers=NDJSON)
        assert [stored["sequence"] for stored in answer["stored"]] == list(range(1, 23))
        frames = await (await running.watch(**{"from": "start"})).rest()
        assert texts(frames) == numbers(20)


async def test_publishers_of_one_task_take_turns(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        bodies = [b"\n".join(numbered(10, first=100 * index)) for index in range(8)]
        await asyncio.gather(*(publish(running, body, headers=NDJSON) for body in bodies))
        shown = [int(text) for text in texts(await (await running.watch(**{"from": "start"})).take(81))]
        blocks = [shown[index : index + 10] for index in range(0, 80, 10)]
        assert sorted(blocks) == [list(range(100 * index, 100 * index + 10)) for index in range(8)]


async def test_an_event_may_stand_on_many_lines(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        pretty = json.dumps(json.loads(status("one\ntwo")), indent=2).replace("\n", "\r\n").encode()
        assert (await publish(running, pretty))[0] == 200
        stream = await running.watch(**{"from": "start"})
        assert texts(await stream.take(2)) == ["one\ntwo"]
        assert (await publish(running, pretty, headers=NDJSON))[0] == 422


async def test_the_state_goes_into_a_header(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        await publish(running, task_record())
        await publish(running, turn("m", "begin"))
        first, second = fake.server.of(subject_of(TASK))
        assert first.headers["Sidecast-State"] == "TASK_STATE_SUBMITTED"
        assert "Sidecast-State" not in second.headers
        assert first.headers["Nats-Msg-Id"] != second.headers["Nats-Msg-Id"]


async def test_tenant_and_agent_may_be_named(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        assert (await publish(running, task_record(), query="?tenant=a%20b&agent=planner"))[0] == 200
        assert fake.server.of(events_subject(TaskKey("a b", "planner", TASK)))


# --- retries


async def test_a_retry_with_its_key_is_stored_once(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        headers = {**NDJSON, "Idempotency-Key": "550e8400-e29b-41d4-a716-446655440000"}
        body = b"\n".join([task_record(), *numbered(3)])
        first = await publish(running, body, headers=headers)
        status_code, again = await publish(running, body, headers=headers)
        assert status_code == 200
        assert again["stored"] == [line | {"duplicate": True} for line in first[1]["stored"]]
        assert len(fake.server.messages) == 4
        assert (await publish(running, body, headers=NDJSON))[0] == 200
        assert len(fake.server.messages) == 8


async def test_a_retry_may_begin_where_the_last_attempt_broke_off(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        lines = [task_record(), *numbered(5)]
        await publish(running, b"\n".join(lines), headers={**NDJSON, "Idempotency-Key": "run-7"})
        again = await publish(
            running,
            b"\n".join(lines[4:]),
            headers={**NDJSON, "Idempotency-Key": "run-7", "Idempotency-Offset": "4"},
        )
        assert [stored["sequence"] for stored in again[1]["stored"]] == [5, 6]
        assert len(fake.server.messages) == 6


async def test_keys_that_count_up_are_different_keys(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        for number in (1, 2):
            body = b"\n".join(numbered(3))
            await publish(running, body, headers={**NDJSON, "Idempotency-Key": f"order-{number}"})
        assert len(fake.server.messages) == 6


@pytest.mark.parametrize("offset", ["-1", "1e3", "", "\u0661", "9" * 19])
async def test_an_offset_is_a_number(fake: FakeBackend, offset: str) -> None:
    async with broker(fake) as running:
        headers = {**JSON, "Idempotency-Key": "k", "Idempotency-Offset": offset}
        assert (await publish(running, task_record(), headers=headers))[0] == 400


async def test_a_key_counts_for_one_task_only(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        headers = {**JSON, "Idempotency-Key": "key"}
        assert (await publish(running, task_record(), headers=headers))[1]["stored"][0]["sequence"] == 1
        assert (await publish(running, task_record(OTHER), OTHER, headers))[1]["stored"][0]["sequence"] == 2
        assert (await publish(running, task_record(), TASK, headers, "?tenant=acme"))[1]["stored"][0][
            "sequence"
        ] == 3


@pytest.mark.parametrize("key", ["", "k", "k" * 128, "a b", "-", "--", "-1", "k-" + "9" * 19])
async def test_any_printable_key_is_taken(fake: FakeBackend, key: str) -> None:
    async with broker(fake) as running:
        headers = {**JSON, "Idempotency-Key": key}
        assert [(await publish(running, task_record(), headers=headers))[0] for _ in range(2)] == [200, 200]
        assert len(fake.server.messages) == 1


@pytest.mark.parametrize("key", ["k" * 129, "\u00e9", "\u0661-\u0662"])
async def test_other_keys_are_refused(fake: FakeBackend, key: str) -> None:
    async with broker(fake) as running:
        status_code, body = await publish(running, task_record(), headers={**JSON, "Idempotency-Key": key})
        assert (status_code, body["error"]["code"]) == (400, "bad-request")


async def test_without_nats_the_answer_says_what_was_stored(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        await fake.go_away()
        status_code, body = await publish(running, task_record())
        assert (status_code, body["error"]["code"], body["stored"]) == (503, "unavailable", [])
        assert not fake.server.messages


# --- what is no event


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"not json", "json"),
        (b"[]", "shape"),
        (b"null", "shape"),
        (b"1", "shape"),
        (b"{}", "kind"),
        (b'{"task":null}', "kind"),
        (b'{"unknown":{}}', "kind"),
        (b'{"task":{"id":"task-1"}}', "shape"),
        (encode({"statusUpdate": {"taskId": TASK, "status": {"state": "working"}}}), "state"),
        (b'{"statusUpdate":{"taskId":"task-1","status":{"state":"TASK_STATE_WORKING"}},"turn":{}}', "shape"),
        (
            b'{"statusUpdate":{"taskId":"task-1","status":{"state":"TASK_STATE_WORKING"}},"message":{}}',
            "kind",
        ),
        (b'{"statusUpdate":{"taskId":"task-1\xff"}}', "encoding"),
        (task_record(OTHER), "task-id"),
        (status("else", OTHER), "task-id"),
        (b'{"message":{"taskId":"task-2"}}', "task-id"),
        (task_record(metadata={"deep": json.loads("[" * 300 + "]" * 300)}), "depth"),
        (b"[" * 100_000, "shape"),
        (turn("m", "middle"), "shape"),
    ],
)
async def test_what_is_no_event_of_the_task_is_refused_whole(
    fake: FakeBackend, body: bytes, reason: str
) -> None:
    async with broker(fake) as running:
        status_code, answer = await publish(running, body)
        assert (status_code, answer["error"]["code"]) == (422, "invalid-event")
        assert (answer["line"], answer["reason"], answer["stored"]) == (1, reason, [])
        status_code, answer = await publish(running, status("fine") + b"\n" + body, headers=NDJSON)
        assert (status_code, answer["line"], answer["stored"]) == (422, 2, [])
        assert not fake.server.messages


@pytest.mark.parametrize("body", [b"", b"\n", b" \n\t\n"])
async def test_a_body_without_an_event_is_refused(fake: FakeBackend, body: bytes) -> None:
    async with broker(fake) as running:
        for headers in (JSON, NDJSON):
            assert (await publish(running, body, headers=headers))[0] == 422


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/json",
        "*/*",
        "",
    ],
)
async def test_a_form_of_another_site_can_not_publish(fake: FakeBackend, content_type: str) -> None:
    async with broker(fake) as running:
        status_code, body = await publish(running, task_record(), headers={"Content-Type": content_type})
        assert (status_code, body["error"]["code"]) == (415, "unsupported-media-type")
        assert not fake.server.messages


async def test_a_body_too_large_is_refused(fake: FakeBackend) -> None:
    async with broker(fake, server__body_bytes_max=1024) as running:
        status_code, body = await publish(running, status("x" * 2000))
        assert (status_code, body["error"]["code"]) == (413, "body-too-large")
        packed = gzip.compress(status("x" * 10_000_000))
        headers = {**JSON, "Content-Encoding": "gzip"}
        status_code, body = await publish(running, packed, headers=headers)
        assert (status_code, body["error"]["code"]) == (413, "body-too-large")
        assert not fake.server.messages


async def test_an_event_the_server_finds_too_large_is_refused(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        body = b"\n".join([status("fits"), status("x" * 2_000_000)])
        status_code, answer = await publish(running, body, headers=NDJSON)
        assert (status_code, answer["error"]["code"]) == (409, "publish-refused")
        assert [stored["sequence"] for stored in answer["stored"]] == [1]


@pytest.mark.parametrize("target", ["%FF", "%", "%2", "x" * 257, "%ED%A0%80"])
async def test_an_id_that_is_none_is_refused(fake: FakeBackend, target: str) -> None:
    async with broker(fake) as running:
        status_code, body = await publish(running, task_record(), target)
        assert (status_code, body["error"]["code"]) == (400, "bad-request")


@pytest.mark.parametrize(
    "query", ["?tenant=%FF", "?agent=", "?agent=%FF", "?agent=a&agent=b", "?tenant=" + "x" * 257]
)
async def test_a_tenant_or_agent_that_is_none_is_refused(fake: FakeBackend, query: str) -> None:
    async with broker(fake) as running:
        status_code, body = await publish(running, task_record(), query=query)
        assert (status_code, body["error"]["code"]) == (400, "bad-request")
        assert not fake.server.messages


async def test_only_post_publishes(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        for method in ("GET", "PUT", "DELETE"):
            assert (await running.internal(f"/publish/{TASK}", method, task_record(), JSON))[0] == 405


async def test_what_is_published_after_the_end_is_delivered_to_nobody(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        await publish(running, b"\n".join([task_record(), done()]), headers=NDJSON)
        assert (await publish(running, status("too late")))[0] == 200
        frames = await (await running.watch(**{"from": "start"})).rest()
        assert kinds(frames) == ["stream.open", "task.snapshot", "task.status", "stream.end"]
