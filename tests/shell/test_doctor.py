from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from issuer import AUDIENCE, ISSUER, NOW_S, auth_settings, jwks, token

from sidecast_broker.__main__ import main
from sidecast_broker.configuration import load
from sidecast_broker.doctor.agent import look_at_agent, look_at_agents
from sidecast_broker.doctor.bus import compare_clocks
from sidecast_broker.doctor.credentials import look_at_credentials
from sidecast_broker.doctor.finding import Finding
from sidecast_broker.doctor.machine import look_at_limits
from sidecast_broker.doctor.way import Timed, judge
from sidecast_broker.settings import Server, Settings, Stream

URL = "https://agents.example"
EVENTS = {"content-type": "text/event-stream; charset=utf-8"}


def timed(**changes: Any) -> Timed:
    return Timed(200, EVENTS, 0.01, 3.0, True, b"event: stream.open\n")._replace(**changes)


@pytest.mark.parametrize(
    ("changes", "level", "says"),
    [
        ({}, "ok", "after 10 ms"),
        ({"status": 401}, "skip", "answered 401"),
        ({"status": 502, "headers": {}}, "fail", "answered 502 with no content type"),
        ({"headers": {"content-type": "text/html"}}, "fail", "200 with text/html"),
        ({"first_s": None}, "warn", "opens no stream"),
        ({"body": b"event: stream.busy\n"}, "warn", "opens no stream"),
        ({"first_s": 2.9}, "fail", "took 2.9 s: something on the way holds it back"),
        ({"headers": EVENTS | {"content-encoding": "gzip"}}, "warn", "compresses the stream (gzip)"),
        ({"end_s": 1.2}, "fail", "cut after 1.2 s"),
        ({"whole": False}, "fail", "cut after 3.0 s"),
    ],
)
def test_the_times_of_a_stream_tell_what_is_on_the_way(changes: Any, level: str, says: str) -> None:
    (found,) = judge(URL, timed(**changes), 3)
    assert found.level == level
    assert says in found.text
    assert bool(found.remedy) == (level != "ok")


@pytest.mark.parametrize(
    ("theirs_s", "level", "says"),
    [
        (100.5, "ok", "agree"),
        (98.1, "ok", "agree"),
        (102.9, "ok", "agree"),
        (110.5, "warn", "10.0 s ahead of"),
        (90.5, "warn", "10.0 s behind"),
    ],
)
def test_clocks_are_compared_within_the_time_of_the_answer(theirs_s: float, level: str, says: str) -> None:
    found = compare_clocks("NATS", theirs_s, 100.0, 101.0)
    assert (found.level, says in found.text) == (level, True)


def limits(tmp_path: Path, memory: str, server: Server, log_bytes: int = 0) -> list[Finding]:
    (tmp_path / "somaxconn").write_text("128\n")
    (tmp_path / "memory").write_text(memory)
    files = {"somaxconn": tmp_path / "somaxconn", "cgroup_memory": tmp_path / "memory"}
    return list(look_at_limits(server, Stream(streams_max=10), log_bytes, **files))


def test_limits_of_the_system_that_fit_are_fine(tmp_path: Path) -> None:
    (found,) = limits(tmp_path, "max\n", Server(connections_max=10, backlog=128))
    assert found.level == "ok"


def test_each_limit_that_is_too_low_is_named_with_what_it_should_be(tmp_path: Path) -> None:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    found = limits(tmp_path, str(64 * 2**20), Server(connections_max=files, backlog=4096), 100 * 2**20)
    assert [each.level for each in found] == ["warn", "warn", "warn"]
    remedies = [each.remedy for each in found]
    assert f"{files + 100:,}" in remedies[0]
    assert "net.core.somaxconn=4096" in remedies[1]
    assert "64 MiB" in found[2].text


def with_auth(**changed: Any) -> Settings:
    given = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, **changed}
    return load(None, {}, {f"auth.{key}": value for key, value in given.items()})


async def test_credentials_are_looked_at_without_being_shown(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(jwks("rsa"))
    settings = with_auth(jwt_jwks_file=str(tmp_path / "keys.json"), ticket_secret="x" * 32)
    good, stranger = token("rsa", exp=4_000_000_000), token("rsa-other", exp=4_000_000_000)
    found = await look_at_credentials(settings, good)
    assert [each.level for each in found] == ["ok", "ok"]
    assert "'alice'" in found[1].text
    refused = await look_at_credentials(settings, stranger)
    assert [each.level for each in refused] == ["ok", "fail"]
    expired = await look_at_credentials(settings, token("rsa", exp=NOW_S - 10**9))
    assert "expired" in expired[1].text
    for each in (*found, *refused, *expired):
        assert good not in each.text
        assert stranger not in each.text


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"jwt_jwks_file": "/nowhere/keys.json"}, "/nowhere/keys.json"),
        ({"jwt_jwks_url": "http://127.0.0.1:9/keys"}, "can't be fetched"),
    ],
)
async def test_keys_that_are_away_fail(changes: dict[str, str], says: str) -> None:
    found = await look_at_credentials(with_auth(ticket_secret="x" * 32, **changes), None)
    assert [each.level for each in found] == ["fail"]
    assert says in found[0].text


async def test_api_keys_that_cannot_be_read_fail_and_a_key_is_no_token(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text("not [ toml")
    settings = load(None, {}, {"auth.api_keys_file": str(file), "auth.ticket_secret": "x" * 32})
    found = await look_at_credentials(settings, "an api key")
    assert [each.level for each in found] == ["fail", "fail"]


async def test_no_scheme_and_no_secret_are_said() -> None:
    required = load(None, {}, {"auth.required": "true"})
    assert [each.level for each in await look_at_credentials(required, None)] == ["fail"]
    (open_to_all,) = await look_at_credentials(load(None, {}, {}), None)
    assert open_to_all.level == "skip"
    assert not auth_settings(jwt_secret="s" * 64).ticket_secret
    found = await look_at_credentials(with_auth(jwt_secret="s" * 64), None)
    assert [each.level for each in found] == ["ok", "warn"]
    assert "good at the broker that made them" in found[1].text


async def test_an_agent_that_is_away_fails() -> None:
    (found,) = await look_at_agent(load(None, {}, {"agent.url": "http://127.0.0.1:9"}))
    assert found.level == "fail"
    assert "http://127.0.0.1:9" in found.text
    (none,) = await look_at_agent(load(None, {}, {}))
    assert none.level == "skip"


async def test_each_of_several_agents_is_asked_and_named() -> None:
    agents = '{"b": {"url": "http://127.0.0.1:9"}, "c": {}}'
    found = [each async for each in look_at_agents(load(None, {"SIDECAST_AGENTS": agents}, {}))]
    assert [(each.level, each.text.partition(":")[0]) for each in found] == [
        ("skip", "agent"),
        ("fail", "b"),
        ("skip", "c"),
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--url", "agents.example"], "not http:// or https://"),
        (["--wait", "0"], "0 is not in the range"),
        (["--wait", "61"], "61 is not in the range"),
        (["--config", "/nowhere.toml"], "does not exist"),
    ],
)
def test_bad_arguments_are_usage_errors(arguments: list[str], says: str) -> None:
    done = CliRunner().invoke(main, ["doctor", *arguments])
    assert done.exit_code == 2
    assert says in done.output
