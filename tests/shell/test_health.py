from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from brokers import OTHER, TASK, FakeBackend, broker, done, numbered, status, task_record, until
from sse import TIMEOUT_S, EndOfStream, Stalled, exchange, kinds

JSON = {"Content-Type": "application/json"}


async def test_it_is_alive_and_ready(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake) as running:
        assert await running.internal("/livez") == (200, {"status": "ok"})
        assert await running.internal("/readyz") == (
            200,
            {
                "status": "ok",
                "nats": {"connected": True, "stream": "SIDECAST", "epoch": "epoch1", "last_sequence": 1},
                "streams": 0,
            },
        )


async def test_nats_away_is_a_field_and_no_failure(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        await fake.go_away()
        assert (await running.internal("/livez"))[0] == 200
        status_code, body = await running.internal("/readyz")
        assert (status_code, body["nats"]["connected"], body["nats"]["epoch"]) == (200, False, "epoch1")
        assert await running.metric("sidecast_nats_connected") == 0
        await fake.come_back()
        assert await running.metric("sidecast_nats_connected") == 1


async def test_draining_is_not_ready_and_still_alive(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        await running.listening.streams.drain()
        status_code, body = await running.internal("/readyz")
        assert (status_code, body["status"]) == (503, "draining")
        assert (await running.internal("/livez"))[0] == 200


async def test_who_is_connected_can_be_seen(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake) as running:
        stream = await running.watch()
        await stream.take(2)
        await fake.publish(*numbered(3))
        await stream.take(3)
        _status, body = await running.internal("/streams")
        (seen,) = body["streams"]
        assert {key: seen[key] for key in ("tenant", "agent", "task", "format", "cursor", "events")} == {
            "tenant": "",
            "agent": "agent",
            "task": TASK,
            "format": "events",
            "cursor": "epoch1-4",
            "events": 3,
        }
        assert (seen["behind_events"], seen["unsent_bytes"]) == (0, 0)
        assert (seen["pace"], seen["served"], seen["lags"]) == (None, "live", 0)
        assert seen["peer"].startswith("127.0.0.1:")
        assert (await running.internal("/readyz"))[1]["streams"] == 1


async def test_the_pace_of_a_stream_is_seen(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, pace__burst=7) as running:
        stream = await running.watch(batch_ms=50, batch_max=5, max_rate=2.5)
        await stream.take(2)
        _status, body = await running.internal("/streams")
        (seen,) = body["streams"]
        assert seen["pace"] == {"batch_ms": 50, "batch_max": 5, "max_rate": 2.5, "burst": 7}
        assert seen["served"] == "paced"


async def test_what_is_done_about_a_slow_client_is_seen(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    small = {"stream__buffer_bytes_max": 4096, "stream__send_buffer_bytes": 4096}
    async with (
        broker(fake, **small) as running,
        Stalled(running.url, f"/tasks/{TASK}/events") as client,
    ):
        await client.read_until(b"task.snapshot")
        seen: dict[str, Any] = {}
        async with asyncio.timeout(TIMEOUT_S):
            while seen.get("served") != "behind" or not seen["behind_events"]:
                await fake.publish(*(status("x" * 50_000) for _ in range(10)))
                [seen] = (await running.internal("/streams"))[1]["streams"]
        assert seen["unsent_bytes"] > 0


async def test_one_who_waits_for_a_task_is_seen_too(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        await running.watch(wait_s=30)
        await until(lambda: len(running.listening.streams))
        _status, body = await running.internal("/streams")
        assert [(seen["task"], seen["served"]) for seen in body["streams"]] == [(TASK, "waiting")]
        assert await running.metric("sidecast_lag_events") == 0


async def test_metrics_count_what_happened(fake: FakeBackend) -> None:
    await fake.publish(task_record(), status("one"))
    await fake.publish(task_record(OTHER), task=OTHER)
    async with broker(fake) as running:
        stream = await running.watch()
        await stream.take(2)
        assert await running.metric("sidecast_subscribers", format="events") == 1
        assert await running.metric("sidecast_tasks") == 1
        assert await running.metric("sidecast_log_bytes") > 0
        await fake.publish(*numbered(3), done())
        await stream.rest()
        await until(lambda: not len(running.listening.streams))
        assert await running.metric("sidecast_subscribers", format="events") == 0
        assert await running.metric("sidecast_streams_opened_total", format="events") == 1
        assert await running.metric("sidecast_streams_closed_total", reason="ended") == 1
        assert await running.metric("sidecast_stream_duration_seconds_count") == 1
        assert await running.metric("sidecast_events_delivered_total", format="events") == 4
        assert await running.metric("sidecast_delivery_lag_seconds_count") >= 1
        assert await running.metric("sidecast_bytes_sent_total") > 0
        await (await running.watch(cursor="epoch1-1")).rest()
        assert await running.metric("sidecast_replayed_events_total", source="memory") == 5
        assert await running.metric("sidecast_build_info") == 1


async def test_metrics_name_no_task(fake: FakeBackend) -> None:
    await fake.publish(task_record("secret-task"), b"[]", task="secret-task")
    async with broker(fake) as running:
        await (await running.watch("secret-task")).take(2)
        _status, text = await running.internal("/metrics")
        assert b"secret-task" not in text
        assert b'sidecast_invalid_events_total{reason="shape"} 1' in text


async def test_a_client_that_leaves_is_counted(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake) as running:
        stream = await running.watch()
        await stream.take(2)
        await stream.close()
        await until(lambda: not len(running.listening.streams))
        assert await running.metric("sidecast_streams_closed_total", reason="client-gone") == 1


# --- who may ask


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8481",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.9.9.9",
        "[::1]:8481",
        "[::1]",
        "LOCALHOST:1",
    ],
)
async def test_loopback_names_are_welcome(fake: FakeBackend, host: str) -> None:
    async with broker(fake) as running:
        assert (await running.internal("/streams", headers={"Host": host}))[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8481",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example:localhost",
        "10.0.0.1",
        "[2001:db8::1]:8481",
        "0.0.0.0",
        "localhost@evil.example",
        "",
    ],
)
async def test_a_browser_led_here_by_another_name_is_turned_away(fake: FakeBackend, host: str) -> None:
    async with broker(fake) as running:
        for path, method in (("/streams", "GET"), (f"/publish/{TASK}", "POST")):
            status_code, body = await running.internal(path, method, b"{}", {"Host": host})
            assert (status_code, body["error"]["code"]) == (421, "bad-host")
        assert (await running.internal("/livez", headers={"Host": host}))[0] == 200


LISTED = "https://operators.example"


@pytest.mark.parametrize("change", [{}, {"server__cors_origins": "*"}, {"server__cors_origins": LISTED}])
@pytest.mark.parametrize(
    "said",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:8480"},
        {"Origin": "http://127.0.0.1.evil.example"},
        {"Origin": f"{LISTED}.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "Same-Site"},
    ],
    ids=str,
)
async def test_a_page_of_another_origin_is_turned_away(
    fake: FakeBackend, said: dict[str, str], change: dict[str, str]
) -> None:
    async with broker(fake, **change) as running:
        for path, method in (("/streams", "GET"), (f"/publish/{TASK}", "POST"), ("/drain", "POST")):
            status_code, body = await running.internal(path, method, task_record(), JSON | said)
            assert (status_code, body["error"]["code"]) == (403, "forbidden")
            assert "pages of other origins" in body["error"]["message"]
        assert not fake.server.messages
        assert not running.listening.streams.draining


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Origin": LISTED, "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://localhost:8481", "Host": "localhost:8481"},
    ],
    ids=str,
)
async def test_pages_of_its_own_and_of_listed_origins_may_ask(
    fake: FakeBackend, said: dict[str, str]
) -> None:
    async with broker(fake, server__cors_origins=LISTED) as running:
        assert (await running.internal("/streams", headers=said))[0] == 200


async def test_a_request_without_a_host_is_turned_away(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        answer = await exchange(running.internal_url, b"GET /streams HTTP/1.0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.0 421 ")


async def test_what_needs_a_right_is_closed_where_it_is_not_open(fake: FakeBackend) -> None:
    for change in ({"internal__open": "false"}, {"auth__required": "true"}):
        async with broker(fake, **change) as running:
            for path, method in (("/streams", "GET"), (f"/publish/{TASK}", "POST")):
                status_code, body = await running.internal(path, method, b"{}")
                assert (status_code, body["error"]["code"]) == (401, "unauthenticated")
            for path in ("/livez", "/readyz", "/metrics"):
                assert (await running.internal(path))[0] == 200


async def test_what_needs_a_right_is_closed_on_an_address_others_can_reach(fake: FakeBackend) -> None:
    reachable = {"server__internal_host": "0.0.0.0", "auth__insecure": "true", "auth__required": "false"}
    async with broker(fake, **reachable) as running:
        for path, method in (("/streams", "GET"), (f"/publish/{TASK}", "POST")):
            status_code, body = await running.internal(path, method, task_record(), JSON)
            assert (status_code, body["error"]["code"]) == (401, "unauthenticated")
        assert not fake.server.messages
        assert (await running.internal("/readyz"))[0] == 200


async def test_the_listeners_do_not_serve_each_other(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        for path in ("/livez", "/readyz", "/metrics", "/streams", f"/publish/{TASK}"):
            assert (await running.get(path))[0] == 404
        assert (await running.internal(f"/tasks/{TASK}/events"))[0] == 404


async def test_probes_alone_are_served_on_a_listener_of_their_own(fake: FakeBackend) -> None:
    async with (
        broker(fake, server__probe_host="127.0.0.1", server__probe_port=0) as running,
        aiohttp.ClientSession(running.listening.probe_url) as session,
    ):
        for path, status_code in (
            *(("/livez", 200), ("/readyz", 200), ("/metrics", 200)),
            *(("/streams", 404), ("/drain", 404), ("/revoke", 404), (f"/publish/{TASK}", 404)),
            (f"/tasks/{TASK}/events", 404),
        ):
            async with session.get(path) as answer:
                assert (path, answer.status) == (path, status_code)
        for path in ("/drain", f"/publish/{TASK}"):
            async with session.post(path, json={}) as answer:
                assert answer.status == 404
        assert not running.listening.streams.draining
        running.listening.streams.draining = True
        async with session.get("/readyz") as answer:
            assert answer.status == 503


async def test_there_is_no_such_listener_by_default(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        assert running.listening.probe_url == ""


# --- drain


async def test_a_drain_sends_every_stream_away_to_come_back(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, stream__drain_s=0.2) as running:
        streams = [await running.watch(named=index % 2) for index in range(6)]
        for stream in streams:
            await stream.take(2)
        await fake.publish(status("last"))
        last, *_others = [await stream.next() for stream in streams]
        await running.listening.streams.drain()
        for stream in streams:
            (drain,) = await stream.rest()
            assert drain.kind == "stream.drain"
            assert drain.retry == drain["reconnect_in_ms"]
            assert (drain.id, drain.last_id, stream.broken) == (None, last.id, False)
        assert len({stream.frames[-1].retry for stream in streams}) > 1
        assert await running.metric("sidecast_streams_closed_total", reason="drain") == 6
    async with broker(fake) as another:
        await fake.publish(status("after"))
        again = await another.watch(cursor=streams[0].last_id)
        assert json.loads((await again.take(2))[1].data)["text"] == "after"


async def test_closing_without_a_drain_ends_connections(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake) as running:
        stream = await running.watch()
        assert kinds(await stream.take(2)) == ["stream.open", "task.snapshot"]
        stream_closed = running.listening.streams
        await running.leave()
        await until(lambda: not len(stream_closed))
    with pytest.raises((EndOfStream, OSError)):
        await stream.next()
