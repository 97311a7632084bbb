"""Named subscriptions at a real nats-server: an exact position that survives, and one holder."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
import trustme
from askers import Askers, bearer
from brokers import (
    OTHER,
    TASK,
    Broker,
    RealBackend,
    ask,
    broker,
    done,
    numbered,
    numbers,
    status,
    subject_of,
    task_record,
    texts,
    until,
)
from certificate_files import files_in
from nats_server import request_api
from sse import Frame, Watch, exchange, kinds
from yarl import URL

from sidecast_broker import subscription_desk
from sidecast_broker.core import subscriptions
from sidecast_broker.core.auth.principal import Grant, Principal
from sidecast_broker.stream import Stream
from sidecast_schemas import headers as names
from sidecast_schemas.subjects import TaskKey

JSON = {"Content-Type": "application/json"}


async def ack(running: Broker, name: str, event_id: str | None, **more: str) -> tuple[int, Any]:
    """Confirm an event."""
    body = json.dumps({"id": event_id, **more}).encode()
    return await ask("POST", f"{running.url}/subscriptions/{quote(name, safe='')}/ack", body, JSON)


async def listed(running: Broker) -> list[dict[str, Any]]:
    """Give the subscriptions."""
    code, answer = await running.get("/subscriptions")
    assert code == 200
    found = answer["subscriptions"]
    assert isinstance(found, list)
    return found


async def consumers(real: RealBackend) -> list[str]:
    """Give the names of the stream's consumers, by the server's word."""
    answer = await request_api(real.server.url, "CONSUMER.NAMES.SIDECAST", {"offset": 0})
    return list(answer["consumers"] or ())


async def info(real: RealBackend) -> dict[str, Any]:
    """Give what the server says of the only consumer."""
    [name] = await consumers(real)
    return await request_api(real.server.url, f"CONSUMER.INFO.SIDECAST.{name}", {})


async def reopened(running: Broker, count: int, **query: object) -> list[Frame]:
    """Open the subscription `s` without a cursor, and take what comes first."""
    stream = await running.watch(subscription="s", ack="client", **query)
    frames = await stream.take(count)
    await stream.close()
    return frames


# --- the position


async def test_a_client_without_a_cursor_goes_on_after_what_it_has_confirmed(real: RealBackend) -> None:
    await real.publish(task_record(), *numbered(5))
    async with broker(real) as running:
        first = await running.watch(subscription="s", ack="client", **{"from": "start"})
        opened, *events = await first.take(5)
        assert opened["mode"] == "replay"
        assert await ack(running, "s", events[2].id) == (
            200,
            {"name": "s", "task": TASK, "acknowledged": events[2].id},
        )
        await first.close()
        opened, *events = await reopened(running, 4)
        assert (opened["mode"], opened["cursor"]) == ("replay", "epoch1-3")
        assert texts(events) == ["2", "3", "4"]


async def test_it_is_a_durable_pull_consumer_whose_floor_is_the_position(real: RealBackend) -> None:
    await real.publish(task_record(), *numbered(3))
    await real.publish(task_record(OTHER), task=OTHER)
    await real.publish(*numbered(3, 3))
    async with broker(real) as running:
        await running.watch(subscription="s", ack="client", **{"from": "start"})
        await until_consumers(real, 1)
        for sequence in (2, 4, 6, 8):
            assert (await ack(running, "s", f"epoch1-{sequence}"))[0] == 200
            found = await info(real)
            assert found["ack_floor"]["stream_seq"] == sequence
            assert found["config"]["durable_name"] == found["name"]
            assert found["config"]["ack_policy"] == "all"
            assert found["config"]["filter_subject"] == subject_of(TASK)
            assert found["config"]["inactive_threshold"] == 86_400 * 10**9
        assert (await ack(running, "s", "epoch1-4"))[1]["acknowledged"] == "epoch1-8"  # never backwards


async def test_another_task_s_event_id_confirms_what_lies_before_it(real: RealBackend) -> None:
    await real.publish(task_record(), *numbered(2))
    await real.publish(task_record(OTHER), task=OTHER)
    await real.publish(*numbered(2, 2))
    async with broker(real) as running:
        await reopened(running, 1, **{"from": "start"})
        assert (await ack(running, "s", "epoch1-4", task=TASK))[1]["acknowledged"] == "epoch1-3"
        opened, *events = await reopened(running, 3)
        assert (opened["cursor"], texts(events)) == ("epoch1-3", ["2", "3"])


async def test_what_is_not_confirmed_begins_again_with_a_snapshot(real: RealBackend) -> None:
    await real.publish(task_record(), *numbered(3))
    async with broker(real) as running:
        for _ in range(2):
            assert kinds(await reopened(running, 2)) == ["stream.open", "task.snapshot"]
            await real.publish(status("more"))
        _opened, snapshot = await reopened(running, 2)
        await ack(running, "s", snapshot.id)
        await real.publish(status("new"))
        opened, event = await reopened(running, 2)
        assert (opened["mode"], event["text"]) == ("replay", "new")


async def test_a_snapshot_is_confirmed_by_its_id(real: RealBackend) -> None:
    await real.publish(task_record(), *numbered(3))
    async with broker(real) as running:
        _opened, snapshot = await reopened(running, 2)
        assert (await ack(running, "s", snapshot.id))[1]["acknowledged"] == snapshot.id == "epoch1-4"
        assert (await reopened(running, 1))[0]["cursor"] == "epoch1-4"


async def test_from_now_remembers_where_now_was(real: RealBackend) -> None:
    await real.publish(task_record(), *numbered(3))
    async with broker(real) as running:
        assert (await reopened(running, 1, **{"from": "now"}))[0]["mode"] == "live"
        await real.publish(status("missed"))
        opened, event = await reopened(running, 2, **{"from": "now"})
        assert (opened["mode"], event["text"]) == ("replay", "missed")


async def test_a_cursor_confirms_and_wins(real: RealBackend) -> None:
    await real.publish(task_record(), *numbered(6))
    async with broker(real) as running:
        await reopened(running, 1, **{"from": "start"})
        stream = await running.watch(cursor="epoch1-5", subscription="s", ack="client")
        assert texts(await stream.take(3)) == ["4", "5"]
        await stream.close()
        assert texts(await reopened(running, 3)) == ["4", "5"]
        stream = await running.watch(cursor="epoch1-2", subscription="s", ack="client")
        assert texts(await stream.take(6)) == numbers(5, 1)
        await stream.close()
        assert (await listed(running))[0]["acknowledged"] == "epoch1-5"


async def test_a_finished_task_confirmed_to_its_end_is_204(real: RealBackend) -> None:
    await real.publish(task_record(), *numbered(2), done())
    async with broker(real) as running:
        stream = await running.watch(subscription="s", ack="client")
        await stream.rest()
        assert (await running.get(f"/tasks/{TASK}/events?subscription=s", {"Last-Event-ID": "epoch1-4"}))[
            0
        ] == 204
        assert (await running.get(f"/tasks/{TASK}/events?subscription=s"))[0] == 204


async def test_the_position_survives_brokers_and_server(real: RealBackend) -> None:
    await real.publish(task_record(), *numbered(5))
    async with broker(real) as running:
        await reopened(running, 1, **{"from": "start"})
        assert (await ack(running, "s", "epoch1-4"))[0] == 200
    # In good order: killed within a tenth of a second, a single server forgets the last acknowledgement.
    await real.close()
    await asyncio.to_thread(real.server.restart)
    async with broker(real) as running:
        opened, *events = await reopened(running, 3)
        assert (opened["cursor"], texts(events)) == ("epoch1-4", ["3", "4"])


# --- what moves a consumer's floor, but not what a client got


async def test_expiry_does_not_make_a_hole(real: RealBackend) -> None:
    await real.publish(task_record(), *numbered(6))
    async with broker(real) as running:
        await reopened(running, 1, **{"from": "start"})
        await ack(running, "s", "epoch1-2")
        await real.expire(5)
        assert (await info(real))["ack_floor"]["stream_seq"] == 5  # the server's word, not the client's
    async with broker(real) as running:
        opened, gap, snapshot = await reopened(running, 3)
        assert (opened["mode"], gap.kind, gap["reason"]) == ("snapshot", "stream.gap", "expired")
        assert snapshot.kind == "task.snapshot"
        await ack(running, "s", snapshot.id)
        await real.publish(status("new"))
        assert texts(await reopened(running, 2)) == ["new"]


async def test_a_new_epoch_begins_anew(real: RealBackend) -> None:
    await real.publish(task_record(), *numbered(3))
    async with broker(real) as running:
        await reopened(running, 1, **{"from": "start"})
        await ack(running, "s", "epoch1-3")
        found = await request_api(real.server.url, "STREAM.INFO.SIDECAST", {})
        config = found["config"]
        config["metadata"] = {**config["metadata"], "sidecast-epoch": "epoch2"}
        await request_api(real.server.url, "STREAM.UPDATE.SIDECAST", config)
    async with broker(real) as running:
        _opened, gap, snapshot = await reopened(running, 3)
        assert (gap["reason"], gap["requested"]) == ("epoch", "epoch1-3")
        assert (await ack(running, "s", snapshot.id))[1]["acknowledged"] == "epoch2-4"


# --- one stream at a time


async def test_the_newest_takes_over_on_any_broker(real: RealBackend) -> None:
    await real.publish(task_record(), *numbered(3))
    async with broker(real) as one, broker(real) as other:
        first = await one.watch(subscription="s")
        await first.take(2)
        second = await other.watch(subscription="s")
        [end] = await first.rest()
        assert (end.kind, end["reason"], end["state"]) == ("stream.end", "displaced", "working")
        third = await other.watch(subscription="s")
        assert kinds(await second.rest())[-1] == "stream.end"
        await real.publish(status("only here"))
        assert (await third.until("task.status"))[-1]["text"] == "only here"
        assert await one.metric("sidecast_subscriptions") == 0
        assert await other.metric("sidecast_subscriptions") == 1
        await one.until_metric("sidecast_streams_closed_total", reason="displaced")


async def test_two_tabs_do_not_fight(real: RealBackend) -> None:
    await real.publish(task_record(), *numbered(3))
    async with broker(real) as one, broker(real) as other:
        first = await one.watch(subscription="s", client="a")
        await first.take(2)
        second = await other.watch(subscription="s", client="b")
        await first.rest()
        path = f"/tasks/{TASK}/events?subscription=s&client=a"
        for running in (one, other):
            assert (await running.get(path, {"Last-Event-ID": first.last_id}))[0] == 204
            assert (await running.get(path))[0] == 204
        again = await one.watch(cursor="epoch1-4", subscription="s", client="b")  # who holds it comes again
        assert (await second.rest())[-1]["reason"] == "displaced"
        await real.publish(status("on"))
        assert (await again.until("task.status"))[-1]["text"] == "on"


async def test_a_word_that_was_lost_is_found_out(real: RealBackend) -> None:
    await real.publish(task_record(), *numbered(3))
    async with broker(real, stream__heartbeat_s=0.2) as running:
        stream = await running.watch(subscription="s")
        await stream.take(2)
        [name] = await consumers(real)
        config = (await info(real))["config"]
        config["metadata"] = {**config["metadata"], "sidecast-holder": "another"}
        path = f"CONSUMER.CREATE.SIDECAST.{name}.{subject_of(TASK)}"
        body = {"stream_name": "SIDECAST", "config": config, "action": "update"}
        await request_api(real.server.url, path, body)
        assert (await stream.rest())[-1]["reason"] == "displaced"


# --- what TCP has acknowledged


async def test_by_default_what_two_heartbeats_have_outlived_is_confirmed(real: RealBackend) -> None:
    await real.publish(task_record(), *numbered(3))
    async with broker(real, stream__heartbeat_s=0.1) as running:
        stream = await running.watch(subscription="s")
        await stream.take(2)
        await until_position(running, "epoch1-4")
        await real.publish(*numbered(3, 3))
        await until_position(running, "epoch1-7")
        await running.until_metric(
            "sidecast_subscription_acks_total", 2, by="tcp"
        )  # counted once it is stored


async def test_a_client_that_takes_nothing_confirms_only_what_its_kernel_holds(real: RealBackend) -> None:
    await real.publish(task_record())
    async with broker(real, stream__heartbeat_s=0.1, stream__send_buffer_bytes=4096) as running:
        with socket.socket() as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.connect((running.url.split("//")[1].split(":")[0], int(running.url.rpartition(":")[2])))
            stalled.sendall(f"GET /tasks/{TASK}/events?subscription=s HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await until_position(running, "epoch1-1")
            # Of 200 KB the broker's buffers take all, so that all is written; the client's kernel some 4 KB.
            await real.publish(*(status("x" * 1000) for _ in range(200)))
            watching = await running.watch()
            await _heartbeats(watching, 10)
            [stream] = [
                each for each in (await running.internal("/streams"))[1]["streams"] if each["unsent_bytes"]
            ]
            assert stream["cursor"] == "epoch1-201"
            [found] = await listed(running)
            assert int(found["acknowledged"].rpartition("-")[2]) < 40


async def test_over_tls_what_waits_in_the_broker_is_not_taken_for_confirmed(
    real: RealBackend, tmp_path: Path
) -> None:
    files = files_in(tmp_path, trustme.CA())
    await real.publish(task_record())
    small = {"stream__heartbeat_s": 0.1, "stream__send_buffer_bytes": 4096}
    async with broker(real, **small, **files.settings) as running:
        stalled = await asyncio.to_thread(_stall_over_tls, running.url)
        try:
            await _until_acknowledged(running, 1)
            for _ in range(25):
                await real.publish(*(status("x" * 1000) for _ in range(8)))
                await asyncio.sleep(0.05)  # so that there are positions in between
            # Those that it is to have outlived are long past.
            until_s = (await _only_stream(running))["open_s"] + 1
            while (await _only_stream(running))["open_s"] < until_s:
                await asyncio.sleep(0.05)
            assert (await _only_stream(running))["cursor"] == "epoch1-201"
            assert await _acknowledged_over_tls(running) < 20
        finally:
            stalled.close()


def _stall_over_tls(url: str) -> ssl.SSLSocket:
    """Open a stream of the subscription `s`, and take nothing of it."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.connect((str(URL(url).host), int(URL(url).port or 0)))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    encrypted = context.wrap_socket(plain)
    encrypted.sendall(f"GET /tasks/{TASK}/events?subscription=s HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return encrypted


async def _only_stream(running: Broker) -> dict[str, Any]:
    [found] = (await running.internal("/streams"))[1]["streams"]
    assert isinstance(found, dict)
    return found


async def _acknowledged_over_tls(running: Broker) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{running.url}/subscriptions", ssl=False) as answer,
    ):
        found = (await answer.json())["subscriptions"]
    return int(found[0]["acknowledged"].rpartition("-")[2]) if found and found[0]["acknowledged"] else 0


async def _until_acknowledged(running: Broker, sequence: int) -> None:
    async with asyncio.timeout(10):
        while await _acknowledged_over_tls(running) < sequence:
            await asyncio.sleep(0.02)


async def _heartbeats(stream: Watch, count: int) -> None:
    while len(stream.comments) < count:
        await stream.item()


async def until_position(running: Broker, wanted: str) -> None:
    async with asyncio.timeout(10):
        while [found["acknowledged"] for found in await listed(running)] != [wanted]:
            await asyncio.sleep(0.02)


async def until_consumers(real: RealBackend, count: int) -> None:
    async with asyncio.timeout(10):
        while len(await consumers(real)) != count:
            await asyncio.sleep(0.02)


# --- how long it lasts


async def test_inactivity_removes_it_and_a_quiet_stream_is_not_inactive(real: RealBackend) -> None:
    await real.publish(task_record(), *numbered(3))
    async with broker(real, stream__subscription_inactive_s=1, stream__heartbeat_s=0.25) as running:
        stream = await running.watch(subscription="s", ack="client")
        await stream.take(2)
        await reopened(running, 2)
        left = await running.watch(subscription="left", ack="client")
        await left.take(2)
        await left.close()
        stream = await running.watch(subscription="s", ack="client")
        await stream.take(2)
        await until_consumers(real, 1)  # the one that is left
        await _heartbeats(stream, 8)
        assert [found["name"] for found in await listed(running)] == ["s"]
        await stream.close()
        await until_consumers(real, 0)


async def test_it_can_be_deleted_and_its_stream_ends(real: RealBackend) -> None:
    await real.publish(task_record(), *numbered(3))
    async with broker(real) as one, broker(real) as other:
        stream = await one.watch(subscription="s/ü")
        await stream.take(2)
        [found] = await listed(other)
        assert (found["name"], found["task"], found["active_here"]) == ("s/ü", TASK, False)
        assert (await ask("DELETE", f"{other.url}/subscriptions/{quote('s/ü', safe='')}"))[0] == 204
        assert (await stream.rest())[-1]["reason"] == "deleted"
        assert await listed(one) == []
        assert await consumers(real) == []
        assert (await ask("DELETE", f"{other.url}/subscriptions/s"))[0] == 404


async def test_one_name_with_two_tasks_is_two_subscriptions(real: RealBackend) -> None:
    await real.publish(task_record(), *numbered(2))
    await real.publish(task_record(OTHER), task=OTHER)
    async with broker(real) as running:
        for task in (TASK, OTHER):
            await (await running.watch(task, subscription="s", ack="client")).take(2)
        assert [found["task"] for found in await listed(running)] == [TASK, OTHER]
        assert (await ack(running, "s", "epoch1-4"))[1]["task"] == OTHER  # the id says which
        assert (await ask("DELETE", f"{running.url}/subscriptions/s"))[0] == 400
        assert (await ask("DELETE", f"{running.url}/subscriptions/s?task={OTHER}"))[0] == 204
        assert [found["task"] for found in await listed(running)] == [TASK]


# --- limits


async def test_a_principal_has_so_many_at_all_brokers(real: RealBackend) -> None:
    await real.publish(task_record())
    async with (
        broker(real, stream__subscriptions_per_principal_max=2) as one,
        broker(real, stream__subscriptions_per_principal_max=2) as other,
    ):
        for running, name in ((one, "a"), (other, "b")):
            await (await running.watch(subscription=name)).take(2)
        busy = await (await one.watch(subscription="c")).rest()
        assert kinds(busy) == ["stream.busy"]
        assert busy[0]["reason"] == "principal-subscriptions"
        code, answer = await one.get(f"/tasks/{TASK}/events?subscription=c&refusal=status")
        assert (code, answer["error"]["reason"]) == (429, "principal-subscriptions")
        await (await one.watch(subscription="b")).take(2)  # one there is can be opened
        assert (await ask("DELETE", f"{one.url}/subscriptions/a"))[0] == 204
        await (await one.watch(subscription="c")).take(2)


async def test_a_broker_holds_so_many(real: RealBackend) -> None:
    await real.publish(task_record())
    async with broker(real, stream__subscriptions_max=1) as running:
        stream = await running.watch(subscription="a")
        await stream.take(2)
        code, answer = await running.get(f"/tasks/{TASK}/events?subscription=b&refusal=status")
        assert (code, answer["error"]["reason"]) == (429, "subscriptions")
        await stream.close()
        await until(lambda: not len(running.listening.streams))
        await (await running.watch(subscription="b")).take(2)


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ("stream__subscriptions_per_principal_max", "principal-subscriptions"),
        ("stream__subscriptions_max", "subscriptions"),
        ("stream__streams_per_task_max", "task-streams"),
        ("stream__streams_max", "limit"),
    ],
)
async def test_those_who_come_at_once_are_counted_together(
    limit: str, reason: str, real: RealBackend
) -> None:
    await real.publish(task_record())
    async with broker(real, **{limit: 2}) as running:
        streams = await asyncio.gather(*(running.watch(subscription=str(n)) for n in range(12)))
        first = [await stream.next() for stream in streams]
        assert sorted(kinds(first)) == ["stream.busy"] * 10 + ["stream.open"] * 2
        assert {frame["reason"] for frame in first if frame.kind == "stream.busy"} == {reason}
        await until(lambda: len(running.listening.streams) == 2)
        assert await running.metric("sidecast_subscriptions") == 2
        if reason == "principal-subscriptions":
            assert len(await consumers(real)) == 2


async def test_a_stream_that_fails_at_once_holds_nothing(
    real: RealBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_begun: object) -> None:
        raise AssertionError("a fault of ours")

    await real.publish(task_record())
    async with broker(real, stream__subscriptions_max=1) as running:
        with monkeypatch.context() as patched:
            patched.setattr(Stream, "begin", fail)
            head = f"GET /tasks/{TASK}/events?subscription=a HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n"
            await exchange(running.url, head.encode())
        await (await running.watch(subscription="a")).take(2)


# --- a task that is still to come


async def test_a_task_that_is_waited_for_is_remembered_from_its_beginning(real: RealBackend) -> None:
    async with broker(real) as running:
        stream = await running.watch(subscription="s", ack="client", wait_s=10)
        await stream.item()
        assert await consumers(real) == []
        await real.publish(task_record(), *numbered(2))
        frames = await stream.until(lambda frame: frame.json.get("seq") is not None)
        await ack(running, "s", frames[-1].id)
        position = (await listed(running))[0]["acknowledged"]
        assert position == frames[-1].id


# --- faults


async def test_without_nats_it_is_a_temporary_refusal(real: RealBackend) -> None:
    await real.publish(task_record(), *numbered(3))
    async with broker(real) as running:
        plain = await running.watch()
        await plain.take(2)
        await real.go_away()
        try:
            busy = await (await running.watch(subscription="s")).rest()
            assert (busy[0].kind, busy[0]["reason"]) == ("stream.busy", "unavailable")
            assert (await ack(running, "s", "epoch1-2"))[0] == 503
            assert (await running.get("/subscriptions"))[0] == 503
        finally:
            await real.come_back()


async def test_brokers_that_confirm_at_once_leave_the_highest(real: RealBackend) -> None:
    await real.publish(task_record(), *numbered(400))
    async with broker(real) as one, broker(real) as other:
        await reopened(one, 1, **{"from": "start"})
        sequences = [*range(3, 400, 7), 397]
        answers = await asyncio.gather(
            *(
                ack((one, other)[index % 2], "s", f"epoch1-{sequence}")
                for index, sequence in enumerate(sequences)
            )
        )
        for sequence, (code, answer) in zip(sequences, answers, strict=True):
            assert code == 200
            assert int(answer["acknowledged"].rpartition("-")[2]) >= sequence
        assert (await listed(one))[0]["acknowledged"] == "epoch1-397"
        assert texts(await reopened(other, 5)) == numbers(4, 396)


async def test_what_a_killed_broker_had_pulled_can_be_confirmed_elsewhere(real: RealBackend) -> None:
    await real.publish(task_record(), *numbered(20))
    async with broker(real) as running:
        await reopened(running, 1, **{"from": "start"})
        [name] = await consumers(real)
        client = await real.client()
        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox)
        pull = json.dumps({"batch": 10, "no_wait": True}).encode()
        await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.SIDECAST.{name}", pull, reply=inbox)
        for _ in range(10):
            await subscription.next_msg(timeout=5)
        code, answer = await ack(running, "s", "epoch1-5")
        if code == 503:
            code, answer = await ack(running, "s", "epoch1-5")
        assert (code, answer["acknowledged"]) == (200, "epoch1-5")
        assert (await ack(running, "s", "epoch1-15"))[1]["acknowledged"] == "epoch1-15"


# --- hostile input


@pytest.mark.parametrize(
    "name",
    ["*", ">", "a.b", "..", "a b", "$JS", "ü" * 128, "a/b", "sidecast-0-0", '"],["', "%2F", "🦊", "a" * 256],
)
async def test_no_name_is_more_than_a_name(name: str, real: RealBackend) -> None:
    await real.publish(task_record(), *numbered(2))
    async with broker(real) as running:
        stream = await running.watch(subscription=name, ack="client", **{"from": "start"})
        await stream.take(2)
        assert (await ack(running, name, "epoch1-2"))[1]["name"] == name
        assert [found["name"] for found in await listed(running)] == [name]
        [consumer] = await consumers(real)
        assert consumer.startswith("sidecast-")
        assert consumer.replace("-", "").isalnum()
        path = f"{running.url}/subscriptions/{quote(name, safe='')}"
        assert (await ask("DELETE", path))[0] == 204


@pytest.mark.parametrize(
    "query",
    [
        "subscription=",
        "subscription=a&subscription=b",
        "subscription=" + "a" * 257,
        "subscription=%FF",
        "subscription=%00",
        "subscription=a%0Ab",
        "subscription=a&ack=never",
        "subscription=a&client=%0A",
        "subscription=a&client=" + "c" * 129,
        "subscription=a&client=%C3%BC",
    ],
)
async def test_what_is_no_name_is_refused(query: str, real: RealBackend) -> None:
    await real.publish(task_record())
    async with broker(real) as running:
        code, answer = await running.get(f"/tasks/{TASK}/events?{query}")
        assert (code, answer["error"]["code"]) == (400, "bad-request")
        assert await consumers(real) == []


async def test_a_header_names_it_too(real: RealBackend) -> None:
    await real.publish(task_record())
    async with broker(real) as running:
        headers = {"Sidecast-Subscription": "s"}
        stream = await running.watch(headers=headers)
        await stream.take(2)
        assert [found["name"] for found in await listed(running)] == ["s"]
        path = f"/tasks/{TASK}/events"
        assert (await running.get(f"{path}?subscription=t", headers))[0] == 400
        assert (await running.get(path, {"Sidecast-Subscription": "a" * 300}))[0] == 400


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", 400),
        (b"{}", 400),
        (b"[]", 400),
        (b'{"id":7}', 400),
        (b'{"id":"epoch1-2","id":"epoch1-3"}', 400),
        (b'{"id":"epoch1-2","more":1}', 400),
        (b'{"id":"nonsense"}', 400),
        (b'{"id":"epoch0-2","task":"task-1"}', 400),
        (b'{"id":"epoch1-9","task":"task-1"}', 400),
        (b'{"id":"epoch1-2","task":""}', 400),
        (b'{"id":"epoch1-2","task":"nobody"}', 404),
        (b'{"id":"epoch1-' + b"9" * 200 + b'"}', 400),
        (b" " * 20_000, 413),
    ],
)
async def test_what_confirms_nothing_is_refused(body: bytes, code: int, real: RealBackend) -> None:
    await real.publish(task_record(), *numbered(2))
    async with broker(real) as running:
        await reopened(running, 1, **{"from": "start"})
        assert (await ask("POST", f"{running.url}/subscriptions/s/ack", body, JSON))[0] == code
        assert (await listed(running))[0]["acknowledged"] is None
        assert (await ask("POST", f"{running.url}/subscriptions/t/ack", b'{"id":"epoch1-2"}', JSON))[0] == 404
        plain = {"Content-Type": "text/plain"}
        assert (await ask("POST", f"{running.url}/subscriptions/s/ack", b"{}", plain))[0] == 415


async def test_a_foreign_consumer_is_no_subscription(real: RealBackend) -> None:
    await real.publish(task_record())
    async with broker(real) as running:
        await reopened(running, 1)
        found = await info(real)
        config = {**found["config"], "metadata": {"sidecast-identity": "nonsense"}}
        path = f"CONSUMER.CREATE.SIDECAST.{found['name']}.{subject_of(TASK)}"
        body = {"stream_name": "SIDECAST", "config": config, "action": "update"}
        await request_api(real.server.url, path, body)
        assert await listed(running) == []
        code, _answer = await running.get(f"/tasks/{TASK}/events?subscription=s&refusal=status")
        assert code == 503


# --- who may


async def test_a_ticket_confirms_and_deletes_nothing(real: RealBackend) -> None:
    await real.delete_bucket("SIDECAST_REVOKED")
    await real.publish(task_record(), *numbered(3), headers={names.OWNER: "alice"})
    key = TaskKey("", "agent", TASK)
    askers = Askers(Principal("alice", "jwt"))
    askers.know("ticket", Principal("alice", "ticket", tasks=frozenset({key})))
    async with broker(real, auth__required="true", authenticator=askers) as running:
        await (await running.watch(headers=bearer("ticket"), subscription="s", ack="client")).take(2)
        before = await running.get("/subscriptions", bearer("alice"))
        body = json.dumps({"id": "epoch1-4", "task": TASK}).encode()
        path = f"{running.url}/subscriptions/s"
        assert (await ask("POST", f"{path}/ack", body, JSON | bearer("ticket")))[0] == 403
        assert (await ask("DELETE", path, b"", bearer("ticket")))[0] == 403
        assert await running.get("/subscriptions", bearer("alice")) == before
        assert (await ask("POST", f"{path}/ack", body, JSON | bearer("alice")))[0] == 200
        assert (await ask("DELETE", path, b"", bearer("alice")))[0] == 204


async def test_who_has_a_name_like_anothers_to_the_server_sees_none_of_theirs(
    real: RealBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of consumers hold a short hash of whose they are: somebody may have searched for the same."""
    monkeypatch.setattr(subscriptions, "owned_prefix", lambda *_who: "sidecast-")
    monkeypatch.setattr(subscription_desk, "owned_prefix", lambda *_who: "sidecast-")
    await real.delete_bucket("SIDECAST_REVOKED")
    await real.publish(task_record(), *numbered(3), headers={names.OWNER: "alice"})
    bob = Principal("bob", "jwt", grants=(Grant(None, None, TASK),))
    askers = Askers(Principal("alice", "jwt"), bob)
    async with broker(real, auth__required="true", authenticator=askers) as running:
        await (await running.watch(headers=bearer("alice"), subscription="s")).take(2)
        found = [(await running.get("/subscriptions", bearer(who)))[1] for who in ("alice", "bob")]
        assert [len(each["subscriptions"]) for each in found] == [1, 0]
        assert (await ask("DELETE", f"{running.url}/subscriptions/s", b"", bearer("bob")))[0] == 404


async def test_each_principal_has_their_own_and_strangers_learn_nothing(real: RealBackend) -> None:
    await real.delete_bucket("SIDECAST_REVOKED")
    await real.publish(task_record(), *numbered(3), headers={names.OWNER: "alice"})
    both = Principal("bob", "jwt", grants=(Grant(None, None, TASK),))
    askers = Askers(Principal("alice", "jwt"), both, Principal("eve", "jwt"))
    changes: dict[str, Any] = {"auth__required": "true", "authenticator": askers}
    async with broker(real, **changes) as running:
        for who in ("alice", "bob"):
            stream = await running.watch(headers=bearer(who), subscription="s", ack="client")
            await stream.take(2)
        assert len(await consumers(real)) == 2  # one name, two subscriptions, and nobody is displaced

        async def confirm(who: str, name: str, **more: str) -> tuple[int, Any]:
            body = json.dumps({"id": "epoch1-4", **more}).encode()
            return await ask("POST", f"{running.url}/subscriptions/{name}/ack", body, JSON | bearer(who))

        assert (await confirm("bob", "s"))[0] == 200
        positions = [
            [
                found["acknowledged"]
                for found in (await running.get("/subscriptions", bearer(who)))[1]["subscriptions"]
            ]
            for who in ("alice", "bob", "eve")
        ]
        assert positions == [[None], ["epoch1-4"], []]
        answers = [
            await confirm("eve", "s"),
            await confirm("eve", "s", task=TASK),
            await confirm("eve", "s", task="missing"),
            await confirm("bob", "missing"),
            await ask("DELETE", f"{running.url}/subscriptions/s", b"", bearer("eve")),
            await ask("DELETE", f"{running.url}/subscriptions/s?task={TASK}", b"", bearer("eve")),
            await ask("DELETE", f"{running.url}/subscriptions/s?task=missing", b"", bearer("eve")),
            await running.get(f"/tasks/{TASK}/events?subscription=s", bearer("eve")),
        ]
        assert [code for code, _answer in answers] == [404] * 8
        assert len({json.dumps(answer) for _code, answer in answers}) == 1
        assert len(await consumers(real)) == 2
        for method, path in (("GET", ""), ("POST", "/s/ack"), ("DELETE", "/s")):
            assert (await ask(method, f"{running.url}/subscriptions{path}"))[0] == 401
