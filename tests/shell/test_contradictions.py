from __future__ import annotations

from typing import Any

import pytest
from given_settings import problems

from sidecast_broker.configuration import load


@pytest.mark.parametrize(
    ("file", "named"),
    [
        (b"[server]\nport = 9000\ninternal_port = 9000", "server.internal_port"),
        (b'[server]\nport = 9000\ninternal_port = 9000\nhost = "localhost"', "server.internal_port"),
        (b'[server]\nprobe_host = "0.0.0.0"\nprobe_port = 8480', "server.probe_port"),
        (b'[server]\nprobe_host = "::1"\ninternal_host = "::1"\nprobe_port = 8481', "server.probe_port"),
        (b'[server]\nprobe_host = "10.0.0.0/8"', "server.probe_host"),
        (b'[nats]\ntls_certificate_file = "c.pem"', "nats.tls_key_file"),
        (b'[nats]\ntls_key_file = "k.pem"', "nats.tls_certificate_file"),
        (b'[nats]\ncredentials_file = "c"\nnkey_seed_file = "s"', "nats.nkey_seed_file"),
        (b"[nats]\nmax_age_s = 60", "nats.duplicate_window_s"),
        (b"[log]\nbytes_max = 1048576", "log.task_bytes_max"),
        (b'[auth]\nwebhook_url = "ftp://h/"', "auth.webhook_url"),
        (b'[auth]\nwebhook_url = "http://"', "auth.webhook_url"),
        (b'[auth]\nwebhook_url = "h/may"', "auth.webhook_url"),
        (b'[auth]\nwebhook_url = "http://h:99999/"', "auth.webhook_url"),
    ],
)
def test_contradictions_refuse(file: bytes, named: str) -> None:
    (problem,) = problems(file)
    assert problem.startswith(named)


def test_both_listeners_may_pick_a_free_port() -> None:
    assert load(b"[server]\nport = 0\ninternal_port = 0", {}, {}).server.internal_port == 0


SECRET = "a secret that is long enough: 32 bytes"
JWT = {"auth__jwt_issuer": "https://i", "auth__jwt_audience": "a"}


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"auth__jwt_issuer": "https://i"}, ["auth.jwt_audience"]),
        ({**JWT, "auth__jwt_audience": " , "}, ["auth.jwt_audience"]),
        ({"auth__jwt_audience": "a"}, ["auth.jwt_issuer"]),
        ({"auth__jwt_secret": SECRET}, ["auth.jwt_issuer", "auth.jwt_audience"]),
        ({"auth__jwt_jwks_file": "/f"}, ["auth.jwt_issuer", "auth.jwt_audience"]),
        (
            {**JWT, "auth__jwt_jwks_file": "/f", "auth__jwt_secret": SECRET},
            ["auth.jwt_jwks_file, auth.jwt_secret"],
        ),
        ({**JWT, "auth__jwt_secret": "hunter2"}, ["auth.jwt_secret"]),
        ({**JWT, "auth__jwt_issuer": "issuer"}, ["auth.jwt_issuer"]),
        ({**JWT, "auth__jwt_issuer": "http://i"}, ["auth.jwt_issuer"]),
        ({**JWT, "auth__jwt_issuer": "https://i?tenant=a"}, ["auth.jwt_issuer"]),
        *(
            ({**JWT, "auth__jwt_jwks_url": url}, ["auth.jwt_jwks_url"])
            for url in (
                "http://issuer.example/keys",
                "http://10.0.0.1/keys",
                "http://127.0.0.1.example/keys",
                "https://me:hunter2@h/keys",
                "https://h/keys#a",
                "https://",
                "https://h\\@g/",
                "https://h:99999/",
                "https://h/a b",
                "https://h/\u00fc",
                "file:///etc/keys",
                "keys.json",
            )
        ),
        ({"auth__jwt_algorithms": "RS256,none"}, ["auth.jwt_algorithms"]),
        ({"auth__jwt_algorithms": "rs256"}, ["auth.jwt_algorithms"]),
        ({**JWT, "auth__jwt_algorithms": ""}, ["auth.jwt_algorithms"]),
        ({**JWT, "auth__jwt_algorithms": "HS256"}, ["auth.jwt_algorithms"]),
        ({**JWT, "auth__jwt_secret": SECRET, "auth__jwt_algorithms": "RS256"}, ["auth.jwt_algorithms"]),
        ({"auth__jwks_s": 5}, ["auth.jwks_interval_s"]),
        ({"auth__jwt_leeway_s": 121}, ["auth.jwt_leeway_s"]),
        ({"auth__jwt_leeway_s": -1}, ["auth.jwt_leeway_s"]),
        ({"auth__jwt_principal_claim": ""}, ["auth.jwt_principal_claim"]),
    ],
    ids=repr,
)
def test_what_tokens_need(flags: dict[str, Any], named: list[str]) -> None:
    found = problems(**flags)
    assert [problem.split(":")[0] for problem in found] == named
    assert "hunter2" not in str(found)
    assert SECRET not in str(found)


@pytest.mark.parametrize(
    "flags",
    [
        {"auth.jwt_issuer": "https://i/path/"},
        {"auth.jwt_issuer": "http://localhost:8080/realms/a"},
        {"auth.jwt_issuer": "anything", "auth.jwt_jwks_url": "https://h:8443/keys?tenant=a"},
        {"auth.jwt_issuer": "anything", "auth.jwt_jwks_url": "http://[::1]/keys"},
        {"auth.jwt_issuer": "anything", "auth.jwt_jwks_file": "/f"},
        {"auth.jwt_issuer": "anything", "auth.jwt_secret": SECRET},
    ],
    ids=repr,
)
def test_ways_to_get_keys(flags: dict[str, Any]) -> None:
    assert load(None, {}, {**flags, "auth.jwt_audience": "a"}).auth.schemes == ("jwt",)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"auth__ticket_secret": "hunter2"}, ["auth.ticket_secret"]),
        ({"auth__ticket_secret": "é" * 15}, ["auth.ticket_secret"]),
        (
            {"auth__ticket_secret": SECRET, "auth__ticket_secret_previous": "hunter2"},
            ["auth.ticket_secret_previous"],
        ),
        ({"auth__ticket_secret_previous": SECRET}, ["auth.ticket_secret_previous"]),
        ({"auth__ticket_secret": SECRET, "auth__ticket_secret_previous": SECRET}, ["auth.ticket_secret"]),
        ({**JWT, "auth__jwt_secret": SECRET, "auth__ticket_secret": SECRET}, ["auth.ticket_secret"]),
        ({"auth__ticket_ttl_s_max": 0}, ["auth.ticket_ttl_s_max"]),
        ({"auth__ticket_ttl_s_max": 3601}, ["auth.ticket_ttl_s_max"]),
        ({"server__cors_origins": "*, https://a"}, ["server.cors_origins"]),
        ({"server__cors_origins": "https://a/, app.example.com"}, ["server.cors_origins"] * 2),
        ({"server__cors_origins": "null"}, ["server.cors_origins"]),
        ({"server__cors_origins": "https://me:hunter2@a"}, ["server.cors_origins"]),
    ],
    ids=repr,
)
def test_what_tickets_and_origins_need(flags: dict[str, Any], named: list[str]) -> None:
    found = problems(**flags)
    assert [problem.split(":")[0] for problem in found] == named
    assert "hunter2" not in str(found)
    assert SECRET not in str(found)


@pytest.mark.parametrize(
    ("file", "environ"),
    [(b"[auth]\ninsecure = true", {}), (None, {"SIDECAST_AUTH_INSECURE": "true"})],
)
def test_insecure_alone_switches_nothing_off(file: bytes | None, environ: dict[str, str]) -> None:
    (problem,) = problems(file, environ, server__host="0.0.0.0")
    assert problem.startswith("auth.required: ")
    assert "auth.required = false is needed" in problem


@pytest.mark.parametrize("name", ["server.public_url", "agent.url"])
@pytest.mark.parametrize(
    "url",
    [
        "localhost:9000",
        "ftp://h",
        "http://",
        "http://h:0",
        "http://h:99999",
        "http://user:secret@h",
        "http://@h",
        "http://h/?a=b",
        "http://h?",
        "http://h/#a",
        "http://h//a",
        "http://h/a/../b",
        "http://h/./a",
        "http://h/..",
        "http://h/%2e%2e",
        "http://h/a b",
        "http://h/ä",
        "http://h\\@g/",
    ],
)
def test_base_urls_that_no_path_can_be_appended_to(name: str, url: str) -> None:
    (problem,) = problems(**{name.replace(".", "__"): url})
    assert problem.startswith(f"{name}: ")
    assert "secret" not in problem


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9000", "https://h/", "http://[::1]:9000/a/b-c.d/", "http://h:80"]
)
def test_base_urls(url: str) -> None:
    settings = load(None, {"SIDECAST_AGENT_URL": url, "SIDECAST_SERVER_PUBLIC_URL": url}, {})
    assert settings.agent.url == settings.server.public_url == url


def test_what_needs_an_agent() -> None:
    assert problems(agent__capture="proxy") == ["agent.capture: proxy needs agent.url"]
    assert problems(agent__passthrough="/docs") == ["agent.passthrough: needs agent.url"]


@pytest.mark.parametrize("path", ["docs", "/docs/../x", "/a//b", "/docs,x y", "/%2e%2e", "/a?b"])
def test_paths_that_can_not_be_passed_on(path: str) -> None:
    file = f'[agent]\nurl = "http://h"\npassthrough = "{path}"\n'.encode()
    assert problems(file)[0].startswith("agent.passthrough: ")


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"server.tls_certificate": "/c"}, "server.tls_key: is needed too"),
        ({"server.tls_key": "/k"}, "server.tls_certificate: is needed too"),
        ({"server.tls_client_ca": "/ca"}, "server.tls_client_ca: needs server.tls_certificate"),
        ({"auth.mtls_principal": "cn"}, "server.tls_client_ca: is needed by auth.mtls_principal"),
        (
            {"auth.mtls_principal": "cn", "server.tls_certificate": "/c", "server.tls_key": "/k"},
            "server.tls_client_ca: is needed by auth.mtls_principal",
        ),
        ({"server.trusted_proxies": "10.0.0.1/8"}, "server.trusted_proxies: 10.0.0.1/8 has host bits set"),
        ({"server.trusted_proxies": "::1,proxy.example"}, "server.trusted_proxies: 'proxy.example' does not"),
        ({"server.connections_max": 100}, "server.connections_max: must not be below stream.streams_max"),
        (
            {"server.head_bytes_max": 4096, "server.head_line_bytes_max": 8190},
            "server.head_line_bytes_max: must not exceed server.head_bytes_max",
        ),
    ],
)
def test_what_the_listener_needs(given: dict[str, Any], problem: str) -> None:
    (found,) = problems(None, None, **{name.replace(".", "__"): value for name, value in given.items()})
    assert found.startswith(problem)


def test_no_limit_contradicts_nothing() -> None:
    keys = ("streams_per_principal_max", "streams_per_address_max", "streams_per_task_max", "waiters_max")
    none = {f"stream.{key}": 0 for key in keys} | {"server.connections_max": 0}
    assert load(None, {}, none).stream.waiters_max == 0
    assert load(None, {}, {"stream.streams_max": 5}).server.connections_max > 5
