from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecast_broker.commands.bench.command_line import table
from sidecast_broker.commands.bench.measuring import Measured

LISTEN_S_MAX = 20.0
RUN_S_MAX = 30.0


def test_the_table_names_what_failed() -> None:
    numbers = {name: 0 for name in Measured.__struct_fields__ if name not in ("failed", "watchers", "tasks")}
    shown = table(Measured(watchers=1200, tasks=1, failed={"HTTP/1.1 404 Not Found": 7}, **numbers))
    assert "streams      1,200, of 1 task\n" in shown
    assert shown.endswith("failed       7 streams: HTTP/1.1 404 Not Found")


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    folder = tmp_path_factory.mktemp("broker")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAST_")}
    settings = {
        "SIDECAST_SERVER_PORT": "0",
        "SIDECAST_SERVER_INTERNAL_PORT": "0",
        "SIDECAST_SERVER_LOG_FORMAT": "json",
        "SIDECAST_STREAM_DRAIN_S": "0",
    }
    serve = [sys.executable, "-m", "sidecast_broker", "serve", "--embedded-nats", "--store-dir", str(folder)]
    with subprocess.Popen(serve, env=environ | settings, stderr=subprocess.PIPE) as broker:
        try:
            yield _until_listening(broker)
        finally:
            broker.terminate()
            broker.communicate(timeout=LISTEN_S_MAX)


def _until_listening(broker: subprocess.Popen[bytes]) -> tuple[str, str]:
    assert broker.stderr is not None
    urls, created = ("", ""), False
    for line in broker.stderr:
        fields = json.loads(line)
        if fields["event"] == "listening":
            urls = (fields["url"], fields["internal_url"])
        created = created or fields["event"] == "stream_created"
        if urls[0] and created:
            return urls
    raise AssertionError("the broker ended")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sidecast_broker", "bench", *arguments],
        capture_output=True,
        text=True,
        timeout=RUN_S_MAX,
        check=False,
    )


def test_a_running_broker_is_measured_and_loses_nothing(addresses: tuple[str, str], tmp_path: Path) -> None:
    url, internal_url = addresses
    scale = ("--watchers", "12", "--tasks", "3", "--rate", "60", "--seconds", "1", "--processes", "2")
    result = run("--url", url, "--internal-url", internal_url, *scale, "--json")
    assert result.returncode == 0, result.stderr
    measured = json.loads(result.stdout)
    assert measured["published"] == 60
    assert measured["delivered"] == 60 // 3 * 12
    assert (measured["lost"], measured["duplicated"], measured["failed"]) == (0, 0, {})
    assert 0 < measured["p50_ms"] <= measured["p99_ms"] <= measured["p999_ms"] < 10_000
    assert 0 < measured["connect_p50_ms"] <= measured["connect_p99_ms"]


def test_streams_that_do_not_open_fail_the_run(addresses: tuple[str, str]) -> None:
    _url, internal_url = addresses
    scale = ("--watchers", "2", "--seconds", "0.2", "--processes", "1")
    # The internal listener has no streams.
    result = run("--url", internal_url, "--internal-url", internal_url, *scale)
    assert result.returncode == 1
    assert "2 streams: HTTP/1.1 404 Not Found" in result.stdout


def test_a_broker_that_takes_no_events_is_named(addresses: tuple[str, str]) -> None:
    url, _internal_url = addresses
    result = run("--url", url, "--internal-url", "http://127.0.0.1:1", "--seconds", "0.2")
    assert result.returncode == 1
    assert "can't publish at http://127.0.0.1:1" in result.stderr
    assert "Traceback" not in result.stderr
