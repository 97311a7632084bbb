from __future__ import annotations

import pytest
from given_settings import problems

from sidecast_broker.configuration import ENV_OF_CLIENTS, InvalidSettings, load
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


def test_all_problems_are_told_at_once() -> None:
    found = problems(b"[server]\nport = -1\nprot = 1", {"SIDECAST_NOPE": "1"})
    assert len(found) == 3


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
