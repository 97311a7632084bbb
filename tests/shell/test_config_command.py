from __future__ import annotations

import tomllib

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.commands.config import describe
from sidecast_broker.configuration import load

SECRET = "a secret that is long enough: 32 bytes"


def test_a_token_secret_is_masked_and_can_come_from_a_file() -> None:
    environ = {"SIDECAST_AUTH_JWT_ISSUER": "i", "SIDECAST_AUTH_JWT_AUDIENCE": "a"}
    settings = load(
        None, {**environ, "SIDECAST_AUTH_JWT_SECRET_FILE": "/f"}, {}, read=lambda _: SECRET.encode()
    )
    assert settings.auth.jwt_secret == SECRET
    text = "\n".join(describe(settings))
    assert SECRET not in text
    assert tomllib.loads(text)["auth"]["jwt_secret"] == "********"


def test_the_secrets_of_tickets_are_masked_and_make_no_scheme() -> None:
    previous = "another secret that is long enough: 32 bytes"
    settings = load(None, {}, {"auth.ticket_secret": SECRET, "auth.ticket_secret_previous": previous})
    assert settings.auth.schemes == ()
    assert not settings.auth_on
    text = "\n".join(describe(settings))
    assert SECRET not in text
    assert previous not in text
    assert tomllib.loads(text)["auth"]["ticket_secret_previous"] == "********"


def test_described_settings_load_again() -> None:
    file = b'[agent]\nname = "pl\\u00e4n \\"x\\" \\\\ \xf0\x9f\x9b\x9f"\n[stream]\nheartbeat_s = 0.25\n'
    settings = load(file, {"SIDECAST_NATS_REPLICAS": "3"}, {"server.port": 0})
    text = "\n".join(describe(settings))
    again = load(text.encode(), {}, {})
    assert msgspec.structs.replace(again, sources={}) == msgspec.structs.replace(settings, sources={})


def test_described_settings_say_where_they_come_from() -> None:
    settings = load(b"[log]\nidle_s = 5", {"SIDECAST_NATS_REPLICAS": "3"}, {"server.port": 0})
    lines = list(describe(settings))
    assert "idle_s = 5  # file" in lines
    assert "replicas = 3  # env SIDECAST_NATS_REPLICAS" in lines
    assert "port = 0  # flag" in lines
    assert 'host = "127.0.0.1"  # default' in lines


def test_described_settings_mask_secrets() -> None:
    settings = load(None, {"SIDECAST_NATS_URL": "nats://me:hunter2@h:1"}, {})
    text = "\n".join(describe(settings))
    assert "hunter2" not in text
    assert tomllib.loads(text)["nats"]["url"] == "nats://********@h:1"


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=40))
def test_any_name_is_described_exactly(name: str) -> None:
    settings = load(None, {"SIDECAST_AGENT_NAME": name}, {})
    assert tomllib.loads("\n".join(describe(settings)))["agent"]["name"] == name
