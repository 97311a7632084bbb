"""Somebody logs in on the live page: what they see then, and where their credential is not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from brokers import ChildBroker, RealBackend, child_broker, until
from browser.screen import Screen
from browser.story import Story
from playwright.async_api import Request, expect

from sidecast_broker.auth.api_keys import hash_key
from sidecast_schemas import headers
from sidecast_schemas.subjects import encode_token

pytestmark = pytest.mark.browser

TASK = "settlement-review-2026-q3"
KEY = "sidecast_k3yOfAliceThatNobodyMayFind"
TTL_S = 3
"""Short, so that a ticket is renewed within the test."""

HELD = """async (secret) => {
  const cookies = document.cookie + JSON.stringify(await cookieStore.getAll());
  const databases = await indexedDB.databases();
  const caches_ = await caches.keys();
  const fields = [...document.querySelectorAll("input")].map(({ value }) => value);
  const names = Object.getOwnPropertyNames(window).filter((name) => {
    try { return typeof window[name] === "string" && window[name].includes(secret); } catch { return false; }
  });
  return {
    storage: JSON.stringify([{ ...localStorage }, { ...sessionStorage }, databases, caches_]),
    cookies, fields, names, url: location.href, state: JSON.stringify(history.state),
    page: document.documentElement.outerHTML,
  };
}"""
"""Everything a script could find a credential in that isn't a module's own memory."""


@pytest.fixture
async def broker(real: RealBackend, tmp_path: Path) -> AsyncIterator[ChildBroker]:
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[[key]]\nid = "one"\nsha256 = "{hash_key(KEY)}"\nprincipal = "alice"\n')
    async with child_broker(
        real, tmp_path / "broker.log", auth__api_keys_file=keys, auth__ticket_ttl_s_max=TTL_S
    ) as child:
        yield child


async def test_login_opens_the_stream_and_keeps_it_open(
    real: RealBackend, broker: ChildBroker, screen: Screen
) -> None:
    story, owned = Story(TASK), {headers.OWNER: encode_token("alice")}
    await real.publish(*story.work(), task=TASK, headers=owned)
    asked: list[Request] = []
    screen.page.on("request", lambda request: asked.append(request))
    screen.allow_refusals()
    await screen.watch(broker.url, TASK)

    field = screen.page.get_by_label("Token or API key")
    await expect(field).to_be_focused()
    await screen.shot("login")
    await field.fill("somebody else's")
    await field.press("Enter")
    await screen.text("#login-note", "no spaces")
    await field.fill("sidecast_another")
    await field.press("Enter")
    await screen.text("#login-note", "does not take this credential")
    await screen.page.keyboard.press("Escape")
    await expect(field).to_be_hidden()
    await screen.page.get_by_role("button", name="Log in").click()
    await field.fill(KEY)
    await field.press("Enter")
    await screen.text("#state", "Working")
    await screen.text("#connection", "Live")
    await screen.count("#tasks-list li", 1)
    await expect(field).to_be_hidden()
    await expect(screen.at("#login-open")).to_be_hidden()

    def tickets() -> list[str]:
        queries = (urlsplit(request.url) for request in asked)
        return [query["ticket"][0] for url in queries if "ticket" in (query := parse_qs(url.query))]

    def made() -> int:
        return sum(request.url.endswith("/tickets") and request.method == "POST" for request in asked)

    (first,) = tickets()
    begun = made()
    await until(lambda: made() > begun, timeout_s=TTL_S * 3)
    assert tickets() == [first]  # the stream that is open goes on as it is
    await real.publish(story.status("after the first ticket ended"), task=TASK)
    await screen.text("#entries", "after the first ticket ended")
    broker.kill9()
    screen.allow_cuts()
    await screen.text("#connection", "Reconnecting")
    await broker.restart()
    await screen.text("#connection", "Live, resumed", timeout_s=30)
    await real.publish(*story.report(), *story.finish(), task=TASK)
    await screen.text("#state", "Completed")
    assert len(set(tickets())) > 1

    held = await screen.evaluate(HELD, KEY)
    assert KEY not in json.dumps(held)
    assert held["cookies"] == "[]"
    assert not any(ticket in held["storage"] + held["url"] + held["page"] for ticket in tickets())
    assert not any(KEY in request.url or KEY in (request.post_data or "") for request in asked)
    log = broker.log.read_text()
    assert KEY not in log
    assert not any(ticket in log for ticket in tickets())
    warned = broker.logged("ticket_secret_random")
    assert [line["level"] for line in warned] == ["warning", "warning"]  # one for each start

    await screen.page.reload()
    await expect(screen.page.get_by_label("Token or API key")).to_be_focused()
    assert KEY not in json.dumps(await screen.evaluate(HELD, KEY))


async def test_a_ticket_that_is_not_taken_any_more_is_replaced(
    real: RealBackend, tmp_path: Path, screen: Screen
) -> None:
    """A broker that is started again with a secret of its own takes none of its old tickets."""
    story, owned = Story(TASK), {headers.OWNER: encode_token("alice")}
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[[key]]\nid = "one"\nsha256 = "{hash_key(KEY)}"\nprincipal = "alice"\n')
    screen.allow_refusals()
    async with child_broker(real, tmp_path / "broker.log", auth__api_keys_file=keys) as broker:
        await screen.watch(broker.url, TASK)
        await screen.page.get_by_label("Token or API key").fill(KEY)
        await screen.page.get_by_label("Token or API key").press("Enter")
        # One's own task can't be told from one that is not there until it begins.
        await screen.text("#connection", "Waiting for the first event")
        await real.publish(*story.work(), task=TASK, headers=owned)
        await screen.text("#connection", "Live", timeout_s=30)
        screen.allow_cuts()
        broker.kill9()
        await screen.text("#connection", "Reconnecting")
        await broker.restart()
        await screen.text("#connection", "Live, resumed", timeout_s=30)
        await expect(screen.at("#login")).to_be_hidden()
