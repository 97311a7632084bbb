"""Client certificates over a real listener: whom they name, and which make no connection."""

from __future__ import annotations

import asyncio
import datetime as dt

import trustme
from brokers import TASK, FakeBackend, broker, task_record
from certificate_files import Files
from sse import TIMEOUT_S
from tls_client import connected, on_each_loop, refused

from sidecast_schemas import headers as names
from sidecast_schemas.subjects import encode_token


async def owned(fake: FakeBackend, owner: str) -> None:
    await fake.publish(task_record(), headers={names.OWNER: encode_token(owner)})


@on_each_loop
async def test_a_client_certificate_names_the_principal(
    fake: FakeBackend, files: Files, unharmed: None
) -> None:
    await owned(fake, "alice")
    async with broker(fake, **files.mutual) as running:
        for name, wanted in (("alice", 200), ("bob", 404)):
            certificate = files.authority.issue_cert(f"{name}.example", common_name=name)
            async with connected(running, files.context(certificate)) as client:
                assert (await client.ask(f"/tasks/{TASK}/events"))[0] == wanted
        alice = files.authority.issue_cert("alice.example", common_name="alice")
        async with connected(running, files.context(alice)) as client:
            client.watch()
            await client.read_until(TASK)


@on_each_loop
async def test_without_a_certificate_another_credential_is_needed(
    fake: FakeBackend, files: Files, unharmed: None
) -> None:
    async with broker(fake, **files.mutual) as running, connected(running, files.context()) as client:
        status_code, body = await client.ask(f"/tasks/{TASK}/events")
        assert (status_code, body["error"]["code"]) == (401, "unauthenticated")


@on_each_loop
async def test_a_certificate_of_somebody_else_makes_no_connection(
    fake: FakeBackend, files: Files, unharmed: None
) -> None:
    stranger = trustme.CA().issue_cert("alice.example", common_name="alice")
    async with broker(fake, **files.mutual) as running:
        assert await refused(running, files.context(stranger))
        await running.until_metric("sidecast_rejected_total", reason="handshake")


@on_each_loop
async def test_an_expired_certificate_makes_no_connection(
    fake: FakeBackend, files: Files, unharmed: None
) -> None:
    past = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=5)
    expired = files.authority.issue_cert("alice.example", common_name="alice", not_after=past)
    async with broker(fake, **files.mutual) as running:
        assert await refused(running, files.context(expired))
        await running.until_metric("sidecast_rejected_total", reason="handshake")


@on_each_loop
async def test_who_may_sign_clients_changes_too(fake: FakeBackend, files: Files, unharmed: None) -> None:
    await owned(fake, "alice")
    other = trustme.CA()
    ours, theirs = (
        files.context(each.issue_cert("alice.example", common_name="alice"))
        for each in (files.authority, other)
    )
    async with broker(fake, **files.mutual) as running, connected(running, ours) as kept:
        assert (await kept.ask(f"/tasks/{TASK}/events"))[0] == 200
        assert await refused(running, theirs)
        files.trust(other)
        async with asyncio.timeout(TIMEOUT_S):
            while await refused(running, theirs):
                await asyncio.sleep(0.05)
        assert await refused(running, ours), "an authority that is gone signs nobody any more"
        assert (await kept.ask(f"/tasks/{TASK}/events"))[0] == 200
