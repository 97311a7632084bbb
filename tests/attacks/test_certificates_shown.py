"""Client certificates that are missing, of somebody else, or name nobody open nothing, and change nothing."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme
from access_rig import ALICES, MISSING, status_of
from attacks.scene import Backend, credentials, dateless, fill
from attacks.table import EVENTS, INVALID, JSON, NONE, TWO, UNKNOWN, Refusal, alice
from brokers import OwnBroker, broker
from certificate_files import Files, files_in
from nats_server import NatsServer
from sse import TIMEOUT_S
from tls_client import connected, refused


class Shown(NamedTuple):
    """What a client shows, and how it is refused.

    Attributes:
        certificate: as the broker's own authority signs it, or another; None: none.
        refusal: of the request; None: the handshake fails.
        lines: of the head.
        target: of the request.
    """

    certificate: Callable[[trustme.CA], trustme.LeafCert | None]
    refusal: Refusal | None
    lines: tuple[str, ...] = ()
    target: str = EVENTS


def named(name: str | None, *identities: str) -> Callable[[trustme.CA], trustme.LeafCert]:
    """Give a certificate of the broker's authority."""
    return lambda ours: ours.issue_cert(*(identities or ("client.example",)), common_name=name)


def _stranger(_ours: trustme.CA) -> trustme.LeafCert:
    return trustme.CA().issue_cert("client.example", common_name="alice")


def _below(ours: trustme.CA) -> trustme.LeafCert:
    """Give one that is signed by a certificate that may sign nothing, under the broker's authority."""
    leaf = ours.issue_cert("client.example", common_name="mallory")
    fake = trustme.CA()
    made = fake.issue_cert("client.example", common_name="alice")
    made.cert_chain_pems.append(leaf.cert_chain_pems[0])
    return made


def _expired(ours: trustme.CA) -> trustme.LeafCert:
    past = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=5)
    return ours.issue_cert("client.example", common_name="alice", not_after=past)


SAID = ("X-Client-Cert: alice", "X-SSL-Client-CN: alice", 'X-Forwarded-Client-Cert: Subject="CN=alice"')

ATTACKS = {
    "none": Shown(lambda _ours: None, NONE),
    "none, but said by headers": Shown(lambda _ours: None, NONE, SAID),
    "of another authority": Shown(_stranger, None),
    "of one's own making under another's": Shown(_below, None),
    "expired": Shown(_expired, None),
    "that names nobody": Shown(named(None), INVALID),
    "that names somebody else": Shown(named("bob"), UNKNOWN),
    "that names somebody else, and headers that say more": Shown(named("bob"), UNKNOWN, SAID),
    "that names her elsewhere only": Shown(named(None, "alice.example"), INVALID),
    "with a name in another case": Shown(named("Alice"), UNKNOWN),
    "with a name and a space": Shown(named("alice "), UNKNOWN),
    "beside a token": Shown(named("bob"), TWO, (alice(),)),
    "beside a ticket": Shown(named("bob"), TWO, (), EVENTS + "?ticket=x"),
}


@asynccontextmanager
async def mutual(server: NatsServer, folder: Path) -> AsyncIterator[tuple[OwnBroker, Files, Backend]]:
    """Run a broker that asks for certificates, beside the other credentials."""
    files = files_in(folder / "tls", trustme.CA())
    async with aclosing(Backend(server)) as backend:
        await fill(backend)
        settings = credentials(folder) | files.mutual | {"auth__refusal_floor_ms": 5}
        async with broker(backend, **settings) as running:
            yield running, files, backend


async def asked(running: OwnBroker, context: ssl.SSLContext, target: str, *lines: str) -> bytes:
    """Give every byte of an answer but the date."""
    head = "\r\n".join((f"GET {target} HTTP/1.1", "Host: localhost", JSON, "Connection: close", *lines))
    async with connected(running, context) as client:
        client.writer.write(f"{head}\r\n\r\n".encode())
        async with asyncio.timeout(TIMEOUT_S):
            return dateless(await client.reader.read())


@pytest.mark.parametrize("name", ATTACKS)
async def test_certificates_that_are_no_credential(
    name: str, nats_of_run: NatsServer, tmp_path: Path, unharmed: None
) -> None:
    shown = ATTACKS[name]
    async with mutual(nats_of_run, tmp_path) as (running, files, backend):
        before = await backend.stored(), await running.metric("sidecast_tasks")
        context = files.context(shown.certificate(files.authority))
        if shown.refusal is None:
            assert await refused(running, context)
        else:
            answer = await asked(running, context, shown.target, *shown.lines)
            assert status_of(answer) == shown.refusal.status, answer
            assert shown.refusal.text.encode() in answer
            twin = shown.target.replace(ALICES, MISSING)
            assert answer == await asked(running, context, twin, *shown.lines)
        assert (await backend.stored(), await running.metric("sidecast_tasks")) == before
        right = files.context(named("alice")(files.authority))
        assert status_of(await asked(running, right, EVENTS)) == 200
