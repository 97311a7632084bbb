from __future__ import annotations

from typing import Any

import pytest
from given_settings import problems

from sidecast_broker.configuration import ENV_OF_CLIENTS, InvalidSettings, load, mask_url
from sidecast_broker.settings import Settings


def test_flags_go_before_environment_before_file_before_default() -> None:
    file = b"[server]\nport = 1\ninternal_port = 2\nbacklog = 3\n"
    environ = {"SIDECAST_SERVER_PORT": "11", "SIDECAST_SERVER_INTERNAL_PORT": "12"}
    settings = load(file, environ, {"server.port": 21, "server.host": None})
    assert (settings.server.port, settings.server.internal_port, settings.server.backlog) == (21, 12, 3)
    assert settings.sources == {
        "server.port": "flag",
        "server.internal_port": "env SIDECAST_SERVER_INTERNAL_PORT",
        "server.backlog": "file",
    }


@pytest.mark.parametrize(
    ("file", "environ", "named", "nearest"),
    [
        (b"[server]\nprot = 1", {}, "server.prot", "server.port"),
        (b"[straem]\nretry_ms = 1", {}, "straem", "stream"),
        (b"[server]\nheartbeat_s = 1", {}, "server.heartbeat_s", "stream.heartbeat_s"),
        (b"port = 1", {}, "port", "nearest is"),
        (None, {"SIDECAST_SERVER_PROT": "1"}, "SIDECAST_SERVER_PROT", "SIDECAST_SERVER_PORT"),
        (
            None,
            {"SIDECAST_STREAM_HEARTBEAT": "1"},
            "SIDECAST_STREAM_HEARTBEAT",
            "SIDECAST_STREAM_HEARTBEAT_S",
        ),
        (None, {"SIDECAST_LOG_IDLE_S_FILE": "/x"}, "SIDECAST_LOG_IDLE_S_FILE", "SIDECAST_LOG_IDLE_S"),
    ],
)
def test_unknown_names_refuse_naming_the_nearest(
    file: bytes | None, environ: dict[str, str], named: str, nearest: str
) -> None:
    (problem,) = problems(file, environ)
    assert problem.startswith(named + ":")
    assert nearest in problem


def test_an_unknown_flag_refuses() -> None:
    assert problems(server__prot=1) == ["server.prot: there is no such setting; the nearest is server.port"]


@pytest.mark.parametrize(
    ("file", "environ", "named"),
    [
        (b"[server]\nport = 65536", {}, "server.port"),
        (b"[server]\nport = -1", {}, "server.port"),
        (b'[server]\nport = "8480"', {}, "server.port"),
        (b"[server]\nport = 1.5", {}, "server.port"),
        (b"[server]\nport = true", {}, "server.port"),
        (b"[server]\nport = 99999999999999999999999999", {}, "server.port"),
        (None, {"SIDECAST_SERVER_PORT": ""}, "server.port"),
        (None, {"SIDECAST_SERVER_PORT": "0x1F"}, "server.port"),
        (None, {"SIDECAST_SERVER_PORT": "tcp"}, "server.port"),
        (None, {"SIDECAST_STREAM_HEARTBEAT_S": "nan"}, "stream.heartbeat_s"),
        (None, {"SIDECAST_STREAM_HEARTBEAT_S": "inf"}, "stream.heartbeat_s"),
        (b"[stream]\nheartbeat_s = nan", {}, "stream.heartbeat_s"),
        (b"[stream]\nheartbeat_s = -inf", {}, "stream.heartbeat_s"),
        (b"[stream]\nheartbeat_s = 0", {}, "stream.heartbeat_s"),
        (b"[stream]\nwait_s_max = 61", {}, "stream.wait_s_max"),
        (b"[nats]\nreplicas = 2", {}, "nats.replicas"),
        (None, {"SIDECAST_NATS_REPLICAS": "2"}, "nats.replicas"),
        (b'[nats]\nstream = "a.b"', {}, "nats.stream"),
        (b'[nats]\nstream = "a\\n"', {}, "nats.stream"),
        (b'[nats]\nstream = ">"', {}, "nats.stream"),
        (b'[nats]\nurl = ""', {}, "nats.url"),
        (b'[nats]\nurl = "localhost:4222"', {}, "nats.url"),
        (b'[nats]\nurl = "http://h:4222"', {}, "nats.url"),
        (b'[nats]\nurl = "nats://"', {}, "nats.url"),
        (b'[nats]\nurl = "nats://h:99999"', {}, "nats.url"),
        (b'[nats]\nurl = "nats://a,,nats://b"', {}, "nats.url"),
        (b'[nats]\nmanage_stream = "yes"', {}, "nats.manage_stream"),
        (b'[agent]\nname = ""', {}, "agent.name"),
        (b'[agent]\nname = "' + b"x" * 257 + b'"', {}, "agent.name"),
        (b'[agent]\nname = "a\\u0000b"', {}, "agent.name"),
        (b'[server]\nhost = ""', {}, "server.host"),
        (b'[server]\nhost = "http://h"', {}, "server.host"),
        (b'[server]\nlog_level = "loud"', {}, "server.log_level"),
        (b'[auth]\nrequired = "maybe"', {}, "auth.required"),
        (b"server = 1", {}, "server"),
        (b"[[server]]\nport = 1", {}, "server"),
        (b"[server\n", {}, "settings file"),
        (b"\xff", {}, "settings file"),
        (b"[server]\nport = 1\nport = 2", {}, "settings file"),
        (b"x = " + b"[" * 5000 + b"]" * 5000, {}, "settings file"),
    ],
)
def test_hostile_values_refuse_naming_the_setting(
    file: bytes | None, environ: dict[str, str], named: str
) -> None:
    assert named in problems(file, environ)[0].split(":")[0]


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


def test_all_problems_are_told_at_once() -> None:
    found = problems(b"[server]\nport = -1\nprot = 1", {"SIDECAST_NOPE": "1"})
    assert len(found) == 3


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


def test_the_flag_insecure_is_also_that_no_credential_is_required() -> None:
    settings = load(None, {}, {"auth.insecure": True, "server.host": "0.0.0.0"})
    assert not settings.auth_on
    assert settings.sources["auth.required"] == "flag"
    assert load(b"[auth]\nrequired = true", {}, {"auth.insecure": True}).auth_on


@pytest.mark.parametrize("value", [b"true", b'"true"'])
def test_auth_required_can_be_a_toml_boolean(value: bytes) -> None:
    assert load(b"[auth]\nrequired = " + value, {}, {}).auth_on


def test_kubernetes_service_links_are_not_ours() -> None:
    environ = {
        "SIDECAST_SERVICE_HOST": "10.0.0.1",
        "SIDECAST_SERVICE_PORT": "8480",
        "SIDECAST_SERVICE_PORT_HTTP": "8480",
        "SIDECAST_PORT": "tcp://10.0.0.1:8480",
        "SIDECAST_PORT_8480_TCP": "tcp://10.0.0.1:8480",
        "SIDECAST_PORT_8480_TCP_ADDR": "10.0.0.1",
        "SIDECAST_SERVER_PORT": "tcp://10.0.0.1:8480",  # a service named sidecast-server
        "SIDECAST_NATS_SERVICE_HOST": "10.0.0.2",
    }
    assert load(None, environ, {}) == Settings()


def test_variables_of_the_command_line_and_of_others_are_no_settings() -> None:
    environ = dict.fromkeys(ENV_OF_CLIENTS, "x") | {"PATH": "/bin", "sidecast_server_port": "x"}
    assert load(None, environ, {}) == Settings()


def test_a_secret_can_come_from_a_file() -> None:
    files = {"/run/secrets/nats": b"nats://user:password@h:4222\n"}
    settings = load(None, {"SIDECAST_NATS_URL_FILE": "/run/secrets/nats"}, {}, read=files.__getitem__)
    assert settings.nats.url == "nats://user:password@h:4222"
    assert settings.sources == {"nats.url": "env SIDECAST_NATS_URL_FILE"}


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_an_unreadable_secret_refuses(content: bytes | None) -> None:
    def read(path: str) -> bytes:
        if content is None:
            raise FileNotFoundError(2, "No such file or directory", path)
        return content

    with pytest.raises(InvalidSettings, match=r"nats\.url: SIDECAST_NATS_URL_FILE names '/nope'"):
        load(None, {"SIDECAST_NATS_URL_FILE": "/nope"}, {}, read=read)


def test_a_secret_given_twice_refuses() -> None:
    environ = {"SIDECAST_NATS_URL": "nats://a", "SIDECAST_NATS_URL_FILE": "/f"}
    assert problems(None, environ) == ["nats.url: both SIDECAST_NATS_URL and SIDECAST_NATS_URL_FILE are set"]


def test_no_message_shows_a_password() -> None:
    (problem,) = problems(None, {"SIDECAST_NATS_URL": "nats://me:hunter2@h:99999,nats://ok"})
    assert "hunter2" not in problem


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("nats://h:1", "nats://h:1"),
        ("nats://token@h:1", "nats://********@h:1"),
        ("nats://u:p@h,tls://u:p@i", "nats://********@h,tls://********@i"),
        ("nats://u:p@q@h", "nats://********@h"),
    ],
)
def test_masked_urls(url: str, masked: str) -> None:
    assert mask_url(url) == masked


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
