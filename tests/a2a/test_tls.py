"""The broker behind a proxy that ends TLS: row C73."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trustme
from a2a_rig.processes import CLIENTS, Client, Driver
from a2a_rig.stage import Stage
from a2a_rig.wire import numbers, outline, split, task_of
from e2e.ports import fixed_ports

StageOf = Callable[..., Stage]

MODERN = ["py-v1", "js-v1"]


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes, at once."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # a side that leaves ends both
    finally:
        writer.close()


@asynccontextmanager
async def tls_before(url: str, port: int, context: ssl.SSLContext) -> AsyncIterator[None]:
    """End TLS at a port, and pass on what is inside."""
    host, _, plain_port = url.removeprefix("http://").partition(":")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(host, int(plain_port))
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=context)
    try:
        yield
    finally:
        server.close()


@pytest.mark.row("C73")
@pytest.mark.parametrize("name", MODERN)
async def test_c73_clients_reach_it_over_tls_alone(
    name: str, own_stage: StageOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    for variable in ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"):
        monkeypatch.setenv(variable, str(trusted))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    (port,) = fixed_ports(1)
    url = f"https://localhost:{port}"
    stage = own_stage("v1", "adapter", server__public_url=url)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(tls_before(stage.url, port, context))
        driver = stack.enter_context(Driver(name, tmp_path / "log"))
        for client in (client for client in CLIENTS if client.driver == name):
            await be_served(client, driver, url, stage)


async def be_served(client: Client, driver: Driver, url: str, stage: Stage) -> None:
    """Start a task and watch it to its end, knowing only where the card is."""
    gate = stage.new_task()
    text = f"chunks 2; gate {gate}; chunks 2 3"
    sent = await driver.call("stream", url, client.binding, text=text, message_id=gate)
    first = await sent.next() or {}
    watching = await driver.call("subscribe", url, client.binding, task=task_of(first))
    begun = await watching.next() or {}
    assert split(begun)[0] == "task"
    await asyncio.to_thread(stage.agent.reached, gate)
    stage.agent.open(gate)
    for call, event in ((sent, first), (watching, begun)):
        events = [event, *await call.rest()]
        assert client.text_after(events) == numbers(1, 4)
        assert outline(events[-1]) == "status completed"


@pytest.mark.row("C73")
def test_c73_the_documentation_says_how() -> None:
    docs = Path(__file__).parents[2] / "docs"
    _, _, section = (docs / "operations.md").read_text().partition("\n## TLS\n")
    section, _, _ = section.partition("\n## ")
    assert "server.public_url" in section
    assert "(proxies.md)" in section
    assert "ssl_certificate" in (docs / "proxies.md").read_text()
