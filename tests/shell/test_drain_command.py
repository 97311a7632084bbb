from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import unused_port
from click.testing import CliRunner

from sidecast_broker.__main__ import main
from sidecast_broker.commands.drain import BEYOND_S, POLL_S, Drain, DrainFailed


class Broker:
    """A broker's internal listener, as far as draining goes.

    Attributes:
        answer: to `POST /drain`.
        states: what `/readyz` says, one after the other; the last one again and again. None: it is gone.
        asked: the requests.
    """

    def __init__(self) -> None:
        self.answer: web.Response | None = None
        self.states: list[str | None] = ["draining", "draining", None]
        self.asked: list[tuple[str, str | None, Any]] = []
        self.url = ""

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/drain":
            body = await request.json() if request.content_type == "application/json" else None
            self.asked.append((request.method, request.headers.get("Authorization"), body))
            body = {"status": "draining", "streams": 3, "drain_s": 5.0}
            return self.answer or web.json_response(body, status=202)
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if state is None:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"status": state}, status=200 if state == "ok" else 503)


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    made = Broker()
    runner = web.ServerRunner(web.Server(made.serve), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


class Pauses:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.now_s = 0.0

    async def __call__(self, delay_s: float) -> None:
        self.now_s += delay_s

    def clock(self) -> float:
        return self.now_s


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as made:
        yield made


async def test_it_asks_and_waits_until_the_broker_is_gone(
    broker: Broker, session: aiohttp.ClientSession
) -> None:
    pauses = Pauses()
    drain = Drain(session, broker.url, pause=pauses, clock=pauses.clock)
    assert await drain.begin() == (3, 5.0)
    assert broker.asked == [("POST", None, {})]
    await drain.wait(5.0)
    assert pauses.now_s == pytest.approx(2 * POLL_S)


async def test_another_in_its_place_is_not_waited_for(broker: Broker, session: aiohttp.ClientSession) -> None:
    broker.states = ["draining", "ok"]
    pauses = Pauses()
    await Drain(session, broker.url, pause=pauses, clock=pauses.clock).wait(5.0)
    assert pauses.now_s == pytest.approx(POLL_S)


async def test_one_that_does_not_go(broker: Broker, session: aiohttp.ClientSession) -> None:
    broker.states = ["draining"]
    pauses = Pauses()
    with pytest.raises(DrainFailed, match="still listens"):
        await Drain(session, broker.url, pause=pauses, clock=pauses.clock).wait(1.0)
    assert 1.0 + BEYOND_S <= pauses.now_s < 2.0 + BEYOND_S


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (web.json_response({"error": {"code": "forbidden", "message": "no"}}, status=403), "403 no"),
        (web.json_response({"error": "x"}, status=401), "401"),
        (web.Response(status=404, text="<html>"), "404"),
        (web.Response(status=200, text="{}"), "200"),
    ],
    ids=lambda each: str(getattr(each, "status", "")),
)
async def test_what_is_no_yes(
    broker: Broker, session: aiohttp.ClientSession, answer: web.Response, wanted: str
) -> None:
    broker.answer = answer
    with pytest.raises(DrainFailed) as caught:
        await Drain(session, broker.url).begin()
    assert str(caught.value) == wanted


async def test_numbers_that_are_none(broker: Broker, session: aiohttp.ClientSession) -> None:
    broker.answer = web.json_response({"streams": "many", "drain_s": None}, status=202)
    assert await Drain(session, broker.url).begin() == (0, 0)


# --- the command


async def invoke(*arguments: str) -> Any:
    return await asyncio.to_thread(CliRunner().invoke, main, ["drain", *arguments])


async def test_the_command(broker: Broker) -> None:
    result = await invoke("--url", broker.url, "--token", "secret")
    assert (result.exit_code, result.stdout) == (0, "the broker is gone\n")
    assert result.stderr == "draining 3 streams over 5 s\n"
    assert broker.asked == [("POST", "Bearer secret", {})]


async def test_a_refusal_is_a_failure(broker: Broker) -> None:
    broker.answer = web.json_response({"error": {"message": "a\x1b[2J"}}, status=403)
    result = await invoke("--url", broker.url)
    assert result.exit_code == 1
    assert "403" in result.stderr
    assert "\x1b" not in result.stderr


async def test_nobody_there() -> None:
    result = await invoke("--url", f"http://127.0.0.1:{unused_port()}")
    assert result.exit_code == 1
    assert "can't reach" in result.stderr


@pytest.mark.parametrize("arguments", [("--url", "nowhere"), ("now",), ("--wait",)])
async def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert (await invoke(*arguments)).exit_code == 2
