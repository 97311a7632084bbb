from __future__ import annotations

import tempfile

import msgspec
import pytest

from sidecast_broker.configuration import load
from sidecast_broker.settings import Settings
from sidecast_broker.supervisor import folder_for_sockets, shared_settings
from sidecast_broker.workers import Orders

KEYS = {"auth.jwt_issuer": "https://issuer", "auth.jwt_audience": "a", "auth.jwt_secret": "k" * 32}


def settings(**changes: object) -> Settings:
    environ = {f"SIDECAST_{name.replace('__', '_').upper()}": str(value) for name, value in changes.items()}
    return load(None, environ, KEYS)


def test_workers_share_what_each_would_choose_for_itself() -> None:
    given = settings(server__workers=4, server__port=0)
    shared = shared_settings(given, 4711)
    assert (shared.server.port, shared.server.workers) == (4711, 1)
    assert len(shared.auth.ticket_secret) >= 32
    assert shared.auth.ticket_secret != shared_settings(given, 4711).auth.ticket_secret


def test_a_secret_that_is_set_stays() -> None:
    assert shared_settings(settings(auth__ticket_secret="t" * 32), 1).auth.ticket_secret == "t" * 32


def test_without_credentials_there_is_no_secret() -> None:
    assert shared_settings(Settings(), 1).auth.ticket_secret == ""


def test_orders_arrive_as_they_were_given() -> None:
    orders = Orders(
        3, "/x/3.1", "/x/overview", settings(nats__url="nats://u:p@h:4222,nats://h2:4222", pace__rate=2.5)
    )
    assert msgspec.json.decode(msgspec.json.encode(orders), type=Orders) == orders


def test_where_no_file_can_be_written_sockets_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    assert folder_for_sockets() == tempfile.gettempdir()
    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    assert folder_for_sockets() == "/dev/shm"
