from __future__ import annotations

from typing import Any

import pytest
from given_settings import problems

from sidecast_broker.configuration import InvalidSettings, load
from sidecast_broker.settings import Settings, is_loopback


def test_defaults_are_valid_and_match_the_contract() -> None:
    settings = load(None, {}, {})
    assert settings == Settings()
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8480)
    assert (settings.server.internal_host, settings.server.internal_port) == ("127.0.0.1", 8481)
    assert settings.server.body_bytes_max == 4 * 1024 * 1024
    assert (settings.nats.stream, settings.nats.max_age_s, settings.nats.max_bytes) == (
        "SIDECAST",
        86400,
        2**30,
    )
    assert not settings.auth_on
    assert settings.sources == {}


@pytest.mark.parametrize(
    ("required", "host", "insecure", "on"),
    [
        ("auto", "127.0.0.1", False, False),
        ("auto", "::1", False, False),
        ("auto", "localhost", False, False),
        ("auto", "127.8.9.1", False, False),
        ("auto", "0.0.0.0", False, None),
        ("auto", "::", False, None),
        ("auto", "10.0.0.1", False, None),
        ("auto", "sidecast.example", False, None),
        ("auto", "0.0.0.0", True, None),
        ("auto", "127.0.0.1", True, False),
        ("true", "0.0.0.0", False, True),
        ("true", "127.0.0.1", False, True),
        ("true", "127.0.0.1", True, True),
        ("false", "127.0.0.1", False, False),
        ("false", "0.0.0.0", False, None),
        ("false", "0.0.0.0", True, False),
    ],
)
@pytest.mark.parametrize("key", ["host", "internal_host"])
def test_who_needs_a_credential(key: str, required: str, host: str, insecure: bool, on: bool | None) -> None:
    flags = {f"server.{key}": host, "auth.required": required, "auth.insecure": insecure}
    if on is None:
        with pytest.raises(InvalidSettings, match=r"^auth\.required: .*auth\.insecure"):
            load(None, {}, flags)
    else:
        assert load(None, {}, flags).auth_on is on


SCHEMES: tuple[dict[str, Any], ...] = (
    {"auth.jwt_issuer": "https://i", "auth.jwt_audience": "a"},
    {"auth.api_keys_file": "/keys.toml"},
    {
        "auth.mtls_principal": "cn",
        "server.tls_certificate": "/c.pem",
        "server.tls_key": "/k.pem",
        "server.tls_client_ca": "/ca.pem",
    },
)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: next(iter(scheme)))
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_scheme_that_is_configured_turns_authentication_on(scheme: dict[str, Any], host: str) -> None:
    flags = {"server.host": host, **scheme}
    assert load(None, {}, flags).auth_on
    assert load(None, {}, {**flags, "auth.required": "true"}).auth_on
    assert not load(None, {}, {**flags, "auth.required": "false", "auth.insecure": True}).auth_on
    if host == "0.0.0.0":
        assert problems(None, None, server__host=host, auth__required="false")


def test_no_setting_of_a_scheme_configures_one_by_its_default() -> None:
    assert load(None, {}, {"auth.jwt_leeway_s": 0, "auth.jwt_tenant_claim": "org"}).auth.schemes == ()


def test_origins_are_listed() -> None:
    settings = load(None, {}, {"server.cors_origins": " https://a ,http://localhost:3000,"})
    assert settings.server.cors_origin_names == ("https://a", "http://localhost:3000")
    assert load(None, {}, {"server.cors_origins": "*"}).server.cors_origin_names == ("*",)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("LOCALHOST", True),
        ("::ffff:10.0.0.1", False),
        ("0.0.0.0", False),
        ("", False),
        ("127.0.0.1.example", False),
        ("2130706433", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_paths_to_pass_on() -> None:
    file = b'[agent]\nurl = "http://h"\npassthrough = "/docs/, /files/a ,, /"\n'
    assert load(file, {}, {}).agent.passthrough_paths == ("/docs", "/files/a", "")
