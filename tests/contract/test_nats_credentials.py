from __future__ import annotations

import asyncio
import gc
import ssl
from pathlib import Path

import nats
import nkeys
import pytest
import trustme
from nats.errors import Error, NoServersError
from nats_server import NatsServer

from sidecast_broker.nats_credentials import connect_options
from sidecast_broker.settings import Nats


async def reach(server: NatsServer, settings: Nats) -> None:
    """Connect once, as the broker would."""
    async with asyncio.timeout(10):
        client = await nats.connect(
            server.url, **connect_options(settings), allow_reconnect=False, connect_timeout=5, error_cb=ignore
        )
        await client.close()


async def ignore(_error: Exception) -> None:
    """What is refused is raised, too."""


def written(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


async def test_an_nkey_lets_in_and_another_does_not(tmp_path: Path) -> None:
    pairs = [
        nkeys.from_seed(bytearray(nkeys.encode_seed(bytes([n]) * 32, nkeys.PREFIX_BYTE_USER))) for n in (1, 2)
    ]
    ours, other = (written(tmp_path / f"{n}.seed", bytes(pair.seed) + b"\n") for n, pair in enumerate(pairs))
    config = tmp_path / "nats.conf"
    config.write_text(f"authorization {{ users: [{{ nkey: {pairs[0].public_key.decode()} }}] }}")
    with NatsServer(tmp_path / "store", "--config", str(config)) as server:
        await reach(server, Nats(nkey_seed_file=ours))
        for refused in (Nats(nkey_seed_file=other), Nats()):
            with pytest.raises(Error):
                await reach(server, refused)


# nats-py leaves the socket of a failed handshake to the collector.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_both_sides_show_certificates(tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    server_side, client_side = authority.issue_cert("127.0.0.1"), authority.issue_cert("broker.example")
    ca = written(tmp_path / "ca.pem", authority.cert_pem.bytes())
    wrong = written(tmp_path / "wrong.pem", other.cert_pem.bytes())
    files = {}
    for name, made in (("server", server_side), ("client", client_side)):
        chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
        files[name] = (
            written(tmp_path / f"{name}.pem", chain),
            written(tmp_path / f"{name}.key", made.private_key_pem.bytes()),
        )
    options = ("--tls", "--tlscert", files["server"][0], "--tlskey", files["server"][1])
    with NatsServer(tmp_path / "store", *options, "--tlsverify", "--tlscacert", ca) as server:
        certificate, key = files["client"]
        await reach(server, Nats(tls_ca_file=ca, tls_certificate_file=certificate, tls_key_file=key))
        for refused in (
            Nats(tls_ca_file=ca),
            Nats(tls_ca_file=wrong, tls_certificate_file=certificate, tls_key_file=key),
        ):
            with pytest.raises((Error, NoServersError, OSError)):
                await reach(server, refused)
    gc.collect()


@pytest.mark.parametrize("content", [b"", b"-----BEGIN CERTIFICATE-----\nnone\n"])
def test_a_file_that_holds_no_certificate_is_told(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ssl.SSLError):
        connect_options(Nats(tls_ca_file=written(tmp_path / "ca.pem", content)))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        connect_options(Nats(tls_ca_file=str(tmp_path / "none.pem")))


def test_without_settings_nothing_is_asked_for() -> None:
    assert connect_options(Nats()) == {"user_credentials": None, "nkeys_seed": None}
