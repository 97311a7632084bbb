from __future__ import annotations

import io
import itertools
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from brokers import FakeBackend, broker
from sse import exchange

from sidecast_broker import log
from sidecast_broker.log import mask_credentials

SECRET = "dGhlU2VjcmV0T2ZBbGljZQ"
HIDDEN = "********"


@pytest.fixture
def output() -> Iterator[io.BytesIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    output = io.BytesIO()
    log.configure("debug", "json", output)
    yield output
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(output: io.BytesIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"/tasks/t/events?ticket={SECRET}&from=start", f"/tasks/t/events?ticket={HIDDEN}&from=start"),
        (f"/a2a/stream?taskId=t&ticket={SECRET}", f"/a2a/stream?taskId=t&ticket={HIDDEN}"),
        (f"GET /?Ticket={SECRET} HTTP/1.1", f"GET /?Ticket={HIDDEN} HTTP/1.1"),
        (f"Cookie: a=b; sidecast_ticket={SECRET}; c=d", None),
        (f"sidecast_ticket={SECRET}; c=d", f"sidecast_ticket={HIDDEN}; c=d"),
        (f"Authorization: Bearer {SECRET}", f"Authorization: Bearer {HIDDEN}"),
        (f"b'authorization: bearer   {SECRET}'", f"b'authorization: bearer   {HIDDEN}'"),
        (
            f"{{'Authorization': 'Bearer {SECRET}', 'A': 'b'}}",
            f"{{'Authorization': 'Bearer {HIDDEN}', 'A': 'b'}}",
        ),
        (f"x-api-key:{SECRET}", f"x-api-key:{HIDDEN}"),
        (f"ticket={SECRET}' and ticket={SECRET}", f"ticket={HIDDEN}' and ticket={HIDDEN}"),
        ("GET /tickets HTTP/1.1", "GET /tickets HTTP/1.1"),
        ("the ticket has expired", "the ticket has expired"),
        ("", ""),
    ],
)
def test_credentials_are_masked_and_nothing_else(text: str, masked: str | None) -> None:
    found = mask_credentials(text)
    assert SECRET not in found
    assert masked is None or found == masked


def test_every_line_is_masked_whoever_logs_it(output: io.BytesIO) -> None:
    target = f"/x?ticket={SECRET}"
    structlog.get_logger().warning("answer_cut_off", target=target, count=1)
    logging.getLogger("aiohttp.server").error("Error handling %s", target)
    try:
        raise ValueError(target)
    except ValueError:
        structlog.get_logger().exception("failed")
    first, second, third = lines(output)
    assert (first["target"], first["count"]) == (f"/x?ticket={HIDDEN}", 1)
    assert second["event"] == f"Error handling /x?ticket={HIDDEN}"
    assert f"ValueError: /x?ticket={HIDDEN}" in third["exc_info" if "exc_info" in third else "exception"]
    assert SECRET not in output.getvalue().decode()


async def test_no_request_however_broken_brings_a_credential_into_the_log(
    fake: FakeBackend, output: io.BytesIO
) -> None:
    carried = (f"Authorization: Bearer {SECRET}", f"X-API-Key: {SECRET}", f"Cookie: sidecast_ticket={SECRET}")
    lines = ("A: b", *carried, *(f"{each}\0" for each in carried), f"bad {carried[0]}")
    paths = ("/tasks/t/events?", "/nothing?", "//x?", "/ x?", "http://[?", "/tasks/%zz/events?")
    async with broker(fake) as running:
        for path, version, line in itertools.product(paths, ("1.1", "1.0", "9.9", "x"), lines):
            first = f"GET {path}ticket={SECRET} HTTP/{version}"
            head = "\r\n".join((first, "Host: x", "Connection: close", line, "", ""))
            await exchange(running.url, head.encode())
    logged = output.getvalue().decode()
    assert "no_http" in logged
    assert SECRET not in logged


def test_every_event_that_is_documented_is_logged() -> None:
    root = Path(__file__).parents[2]
    section = (root / "docs" / "operations.md").read_text().partition("\n## Logs\n")[2].partition("\n## ")[0]
    table = section.partition("| `event` | level |")[2].partition("\n\n")[0]
    named = [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert "stream_closed" in named
    sources = "".join(path.read_text() for path in (root / "broker" / "sidecast_broker").rglob("*.py"))
    assert [name for name in named if not re.search(rf'\blog\w*(\.\w+)?\(\s*"{name}"', sources)] == []
