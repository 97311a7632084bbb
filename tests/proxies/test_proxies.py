"""Streams through real proxies, configured as docs/proxies.md says."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from brokers import TASK, ChildBroker, RealBackend, child_broker, done, numbered, numbers, status, task_record
from proxies.program import Proxy, find
from sse import TIMEOUT_S, Comment, Frame, Parser

PROGRAMS = ("nginx", "haproxy")
IDLE = {
    "nginx": {"proxy_read_timeout 1h": "proxy_read_timeout 2s"},
    "haproxy": {"timeout server 1h": "timeout server 2s", "timeout client 1h": "timeout client 2s"},
}
"""Time-outs so short that a stream lives by its heartbeats alone."""


class Curl:
    """A stream read by curl, as a client that speaks HTTP/1.1 or HTTP/2 reads it.

    Args:
        proxy: what it is read through.
        path: of the stream.
        arguments: further ones.
    """

    def __init__(self, proxy: Proxy, path: str, *arguments: str) -> None:
        given = ("--silent", "--no-buffer", "--cacert", str(proxy.authority), *arguments, proxy.url + path)
        self._arguments = given
        self._parser = Parser()
        self._items: list[Frame | Comment] = []

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            find("curl"), *self._arguments, stdout=asyncio.subprocess.PIPE
        )
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()

    async def item(self) -> Frame | Comment | None:
        """Give the next frame or comment; None at the end."""
        assert self._process.stdout is not None
        async with asyncio.timeout(TIMEOUT_S):
            while not self._items:
                data = await self._process.stdout.read(65536)
                if not data:
                    return None
                self._items += self._parser.feed(data)
        return self._items.pop(0)

    async def frame(self) -> Frame:
        """Give the next frame."""
        while not isinstance(item := await self.item(), Frame):
            assert item is not None, "the stream has ended"
        return item

    async def until(self, kind: str) -> list[Frame]:
        """Give the frames up to the first of a kind."""
        found = [await self.frame()]
        while found[-1].kind != kind:
            found.append(await self.frame())
        return found

    async def cut(self) -> int:
        """Wait until the stream has ended; give curl's exit code."""
        while await self.item() is not None:
            pass
        return await self._process.wait()


@asynccontextmanager
async def broker_of(real: RealBackend, tmp_path: Path, **changes: object) -> AsyncIterator[ChildBroker]:
    settings = {"agent__name": "agent", **changes}
    async with child_broker(real, tmp_path / "broker.log", **settings) as broker:
        yield broker


def port_of(broker: ChildBroker) -> int:
    return int(broker.url.rpartition(":")[2])


def text_of_a2a(frame: Frame) -> str:
    """Give the text of a status update of A2A's REST format."""
    parts = frame.json["statusUpdate"]["status"]["message"]["parts"]
    return str(parts[0]["text"])


def text_of_events(frame: Frame) -> str:
    return str(frame["text"])


FORMATS: dict[str, tuple[str, tuple[str, ...], int, Callable[[Frame], str]]] = {
    "events": (f"/tasks/{TASK}/events", (), 2, text_of_events),
    "a2a": (f"/tasks/{TASK}:subscribe", ("--header", "A2A-Version: 1.0"), 1, text_of_a2a),
}
"""Path, arguments, frames before the first live one, and the text of a status."""


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
@pytest.mark.parametrize("wire", FORMATS)
@pytest.mark.parametrize("program", PROGRAMS)
async def test_each_event_arrives_before_the_next_is_published(
    real: RealBackend, tmp_path: Path, program: str, wire: str, version: str
) -> None:
    path, arguments, leading, text_of = FORMATS[wire]
    await real.publish(task_record())
    async with broker_of(real, tmp_path) as broker:
        with Proxy(program, tmp_path, port_of(broker)) as proxy:
            async with Curl(proxy, path, version, *arguments) as stream:
                for _ in range(leading):
                    await stream.frame()
                for number in range(20):
                    await real.publish(status(str(number)))
                    assert text_of(await stream.frame()) == str(number)


async def test_http_1_0_up_to_the_broker_streams_too(real: RealBackend, tmp_path: Path) -> None:
    await real.publish(task_record())
    changes = {"proxy_http_version 1.1;": "proxy_http_version 1.0;"}
    async with broker_of(real, tmp_path) as broker:
        with Proxy("nginx", tmp_path, port_of(broker), changes) as proxy:
            async with Curl(proxy, f"/tasks/{TASK}/events") as stream:
                await stream.until("task.snapshot")
                for number in range(5):
                    await real.publish(status(str(number)))
                    assert (await stream.frame())["text"] == str(number)
                await real.publish(done())
                assert [frame.kind for frame in await stream.until("stream.end")][-1] == "stream.end"
                assert await stream.cut() == 0


@pytest.mark.parametrize("program", PROGRAMS)
async def test_heartbeats_keep_a_silent_stream_alive(real: RealBackend, tmp_path: Path, program: str) -> None:
    await real.publish(task_record())
    async with broker_of(real, tmp_path, stream__heartbeat_s=0.5) as broker:
        with Proxy(program, tmp_path, port_of(broker), IDLE[program]) as proxy:
            async with Curl(proxy, f"/tasks/{TASK}/events") as stream:
                await stream.until("task.snapshot")
                for _ in range(8):  # four seconds: twice as long as the proxy waits
                    assert isinstance(await stream.item(), Comment)
                await real.publish(status("still here"))
                assert (await stream.frame())["text"] == "still here"


@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_stream_without_heartbeats_is_cut(real: RealBackend, tmp_path: Path, program: str) -> None:
    # What the test before shows comes from the heartbeats.
    await real.publish(task_record())
    async with broker_of(real, tmp_path, stream__heartbeat_s=60) as broker:
        with Proxy(program, tmp_path, port_of(broker), IDLE[program]) as proxy:
            async with Curl(proxy, f"/tasks/{TASK}/events") as stream:
                await stream.until("task.snapshot")
                await stream.cut()


async def doctors_findings(proxy: Proxy) -> list[dict[str, Any]]:
    """Give what `sidecast doctor` says of the way through a proxy."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecast_broker", "doctor", "--json", "--url", proxy.url, "--wait", "3"),
        env=os.environ | {"SSL_CERT_FILE": str(proxy.authority)},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    findings = map(json.loads, out.decode().splitlines())
    return [each for each in findings if each["check"] == "stream through"]


@pytest.mark.parametrize("program", PROGRAMS)
async def test_the_doctor_finds_nothing_amiss(real: RealBackend, tmp_path: Path, program: str) -> None:
    async with broker_of(real, tmp_path) as broker:
        with Proxy(program, tmp_path, port_of(broker)) as proxy:
            assert [each["level"] for each in await doctors_findings(proxy)] == ["ok"]


BAD_WAYS = {
    "holds it back": {
        "proxy_buffering off;": "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;",
        "gzip off;": "gzip on; gzip_types text/event-stream; gzip_min_length 0; gzip_proxied any;",
    },
    "was cut after": {"proxy_read_timeout 1h": "proxy_read_timeout 1s"},
}


@pytest.mark.parametrize("says", BAD_WAYS)
async def test_the_doctor_says_what_a_proxy_does_wrong(real: RealBackend, tmp_path: Path, says: str) -> None:
    async with broker_of(real, tmp_path, stream__heartbeat_s=60) as broker:
        with Proxy("nginx", tmp_path, port_of(broker), BAD_WAYS[says]) as proxy:
            (found,) = await doctors_findings(proxy)
    assert found["level"] == "fail"
    assert says in found["text"]
    assert "docs/proxies.md" in found["remedy"]


@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_stream_resumes_whole_after_the_proxy_has_restarted(
    real: RealBackend, tmp_path: Path, program: str
) -> None:
    path = f"/tasks/{TASK}/events"
    await real.publish(task_record())
    async with broker_of(real, tmp_path) as broker:
        with Proxy(program, tmp_path, port_of(broker)) as proxy:
            async with Curl(proxy, path) as stream:
                await stream.until("task.snapshot")
                await real.publish(*numbered(10))
                seen = [await stream.frame() for _ in range(10)]
                proxy.kill()
                await stream.cut()
            await real.publish(*numbered(10, 10), done())
            proxy.start()
            cursor = seen[-1].last_id
            async with Curl(proxy, path, "--header", f"Last-Event-ID: {cursor}") as stream:
                opened, *resumed, last, end = await stream.until("stream.end")
    assert opened["mode"] == "replay"
    assert [frame["text"] for frame in [*seen, *resumed]] == numbers(20)
    assert (last["state"], end.kind) == ("completed", "stream.end")


@pytest.mark.parametrize("program", PROGRAMS)
async def test_the_broker_knows_the_address_that_the_proxy_names(
    real: RealBackend, tmp_path: Path, program: str
) -> None:
    await real.publish(task_record())
    async with broker_of(real, tmp_path, server__trusted_proxies="127.0.0.1") as broker:
        with Proxy(program, tmp_path, port_of(broker)) as proxy:
            spoofed = ("--header", "X-Forwarded-For: 203.0.113.9")
            async with Curl(proxy, f"/tasks/{TASK}/events", *spoofed) as stream:
                await stream.until("task.snapshot")
                addresses = await connected(broker)
    # The proxy's own peer is loopback, which is trusted: what it was told is the client's own word.
    assert addresses == ["203.0.113.9"]


async def connected(broker: ChildBroker) -> list[Any]:
    _status, answer = await broker.internal("/streams")
    answer = answer if isinstance(answer, dict) else json.loads(answer)
    return [each["peer"] for each in answer["streams"]]
