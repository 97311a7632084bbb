from __future__ import annotations

import asyncio
import importlib.metadata
import io
import json
import logging
import socket
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp.test_utils import unused_port
from click.testing import CliRunner

from sidecast_broker import embedded, log
from sidecast_broker.__main__ import COMMANDS, main
from sidecast_broker.commands.serve import run_loop, state_dir
from sidecast_broker.configuration import load
from sidecast_broker.reference import MissingMarkers, rewrite, settings_table
from sidecast_broker.reference import main as reference
from sidecast_broker.settings import SETTINGS, Settings


@pytest.fixture
def logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


class ServedApp:
    """Stands in for `sidecast_broker.app`: keeps the settings it was run with."""

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.loop = ""

    async def run(self, settings: Settings) -> None:
        self.settings = settings
        self.loop = type(asyncio.get_running_loop()).__module__


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, logging_restored: None) -> ServedApp:
    served = ServedApp()
    module = types.ModuleType("sidecast_broker.app")
    module.run = served.run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sidecast_broker.app", module)
    return served


def invoke(*arguments: str, env: dict[str, str] | None = None) -> Any:
    return CliRunner().invoke(main, arguments, env=env)


# --- the group


def test_version() -> None:
    result = invoke("--version")
    assert (result.exit_code, result.output.split()[-1]) == (0, importlib.metadata.version("sidecast"))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    result = invoke(name, "--help")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: main {name}")


def test_help_lists_every_command() -> None:
    output = invoke("--help").output
    assert all(f"  {name} " in output for name in COMMANDS)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["serve", "--nonsense"],
        ["serve", "--port", "x"],
        ["serve", "--port", "70000"],
        ["serve", "--config", "/nonexistent"],
        ["serve", "--store-dir", "/tmp"],
        ["serve", "--host", "0.0.0.0"],
        *(["serve", "--workers", count] for count in ("0", "-1", "65", "two", "1.5", "")),
        ["tail"],
        ["tail", "t", "--json", "--visualize"],
        ["tail", "t", "--wait-s", "61"],
        ["tail", "t", "--from", "middle"],
        ["publish"],
        ["demo", "/nonexistent"],
        ["demo", "--tasks", "0"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "Error" in result.stderr


# --- config


def test_config_prints_what_is_in_effect(tmp_path: Path) -> None:
    file = tmp_path / "sidecast.toml"
    file.write_text('[nats]\nurl = "nats://u:secret@h:4222"\n')
    result = invoke("config", "--port", "0", env={"SIDECAST_CONFIG": str(file), "SIDECAST_LOG_IDLE_S": "5"})
    assert result.exit_code == 0
    assert 'url = "nats://********@h:4222"  # file' in result.output
    assert "idle_s = 5  # env SIDECAST_LOG_IDLE_S" in result.output
    assert "port = 0  # flag" in result.output
    reloaded = load(result.output.encode(), {}, {})
    assert (reloaded.server.port, reloaded.log.idle_s) == (0, 5.0)


def test_config_tells_every_problem_and_exits_with_2() -> None:
    result = invoke("config", env={"SIDECAST_SERVER_PROT": "1", "SIDECAST_SERVER_PORT": "x"})
    assert result.exit_code == 2
    assert (
        "SIDECAST_SERVER_PROT: there is no such setting; the nearest is SIDECAST_SERVER_PORT" in result.stderr
    )
    assert "server.port: " in result.stderr


# --- serve


def test_serve_runs_the_app_with_its_settings_on_uvloop(app: ServedApp) -> None:
    result = invoke("serve", "--port", "0", "--internal-port", "0", "--host", "0.0.0.0", "--insecure")
    assert result.exit_code == 0, result.output
    assert app.settings is not None
    assert (app.settings.server.host, app.settings.server.port) == ("0.0.0.0", 0)
    assert app.settings.server.internal_port == 0
    assert not app.settings.auth_on
    assert app.loop.startswith("uvloop")


@pytest.mark.parametrize("listener", ["port", "internal-port"])
def test_serve_on_a_port_in_use_names_it(listener: str, logging_restored: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"port": 0, "internal-port": 0, listener: port}
        result = invoke("serve", *(f"--{name}={number}" for name, number in ports.items()))
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("Error: can't listen on 127.0.0.1 port ")
    assert f"('127.0.0.1', {port}): address already in use" in result.stderr


def test_serve_with_workers_runs_the_supervisor(
    app: ServedApp, monkeypatch: pytest.MonkeyPatch, logging_restored: None
) -> None:
    supervised = ServedApp()
    monkeypatch.setattr("sidecast_broker.supervisor.run", supervised.run)
    assert invoke("serve", "--workers", "3").exit_code == 0
    assert supervised.settings is not None
    assert supervised.settings.server.workers == 3
    assert app.settings is None
    assert invoke("serve", "--workers", "1").exit_code == 0
    assert app.settings is not None


@pytest.mark.parametrize("listener", ["port", "internal-port"])
def test_serve_with_workers_on_a_port_in_use_names_it(listener: str, logging_restored: None) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        port = taken.getsockname()[1]
        ports = {"port": 0, "internal-port": 0, listener: port}
        numbers = (f"--{name}={number}" for name, number in ports.items())
        result = invoke("serve", "--workers=2", *numbers)
    assert result.exit_code == 1, result.output
    assert f"('127.0.0.1', {port}): address already in use" in result.stderr


def test_insecure_switches_credentials_off_unless_they_are_required(app: ServedApp) -> None:
    arguments = ["serve", "--host", "0.0.0.0", "--insecure"]
    assert invoke(*arguments).exit_code == 0
    assert app.settings is not None
    assert (app.settings.auth.required, app.settings.auth_on) == ("false", False)
    assert invoke(*arguments, env={"SIDECAST_AUTH_REQUIRED": "true"}).exit_code == 0
    assert app.settings.auth_on
    result = invoke(*arguments, env={"SIDECAST_AUTH_REQUIRED": "auto"})
    assert result.exit_code == 2
    assert "auth.required = false is needed" in result.stderr


def test_serve_with_embedded_nats_gives_the_app_its_address(
    app: ServedApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = unused_port()
    monkeypatch.setattr(embedded, "PORT", port)
    result = invoke("serve", "--embedded-nats", "--store-dir", str(tmp_path / "store"))
    assert result.exit_code == 0, result.output
    assert app.settings is not None
    assert app.settings.nats.url == f"nats://127.0.0.1:{port}"
    assert f'"event":"embedded_nats","url":"nats://127.0.0.1:{port}"' in result.stderr
    assert (tmp_path / "store" / "jetstream").is_dir()


def test_serve_with_embedded_nats_and_a_url_contradict(app: ServedApp) -> None:
    result = invoke("serve", "--embedded-nats", env={"SIDECAST_NATS_URL": "nats://h:1"})
    assert result.exit_code == 2
    assert "--embedded-nats contradicts nats.url (from env SIDECAST_NATS_URL)" in result.stderr
    assert app.settings is None


def test_serve_fails_when_the_store_is_no_directory(app: ServedApp, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = invoke("serve", "--embedded-nats", "--store-dir", str(tmp_path / "file" / "store"))
    assert result.exit_code == 1
    assert "can't use the store directory" in result.stderr


@pytest.mark.parametrize(
    ("xdg", "expected"),
    [("/var/state", "/var/state/sidecast"), ("relative", "/home/me/.local/state/sidecast"), ("", None)],
)
def test_state_directory(xdg: str, expected: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", xdg)
    monkeypatch.setenv("HOME", "/home/me")
    assert state_dir() == Path(expected or "/home/me/.local/state/sidecast")


def test_run_loop_gives_the_result() -> None:
    async def answer() -> int:
        return 42

    assert run_loop(answer()) == 42


# --- log lines


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


def lines(output: io.BytesIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_log_lines_are_json_with_the_fixed_keys_first(logging_restored: None) -> None:
    output = io.BytesIO()
    log.configure("info", "auto", output)
    structlog.get_logger().info("listening", url="http://127.0.0.1:8480")
    (line,) = lines(output)
    assert list(line) == ["timestamp", "level", "event", "url"]
    assert (line["level"], line["event"]) == ("info", "listening")
    assert line["timestamp"].endswith("Z")


def test_log_lines_of_the_standard_library_come_out_the_same_way(logging_restored: None) -> None:
    output = io.BytesIO()
    log.configure("info", "json", output)
    try:
        raise ValueError("x")
    except ValueError:
        logging.getLogger("nats.aio").exception("broken %d", 1)
    logging.getLogger("nats.aio").debug("not this")
    (line,) = lines(output)
    assert (line["event"], line["level"], line["logger"]) == ("broken 1", "error", "nats.aio")
    assert "ValueError: x" in line["exception"]


def test_log_level_is_a_threshold(logging_restored: None) -> None:
    output = io.BytesIO()
    log.configure("warning", "json", output)
    structlog.get_logger().info("no")
    structlog.get_logger().warning("yes")
    assert [line["event"] for line in lines(output)] == ["yes"]


@pytest.mark.parametrize("value", [object(), {1: 2}, "\ud800", b"\xff", {("a",): 1}, {1, 2}])
def test_no_value_stops_a_log_line(value: object, logging_restored: None) -> None:
    output = io.BytesIO()
    log.configure("info", "json", output)
    structlog.get_logger().info("odd", value=value)
    assert lines(output)[0]["event"] == "odd"


def test_log_lines_stay_one_line(logging_restored: None) -> None:
    output = io.BytesIO()
    log.configure("info", "json", output)
    structlog.get_logger().info("a\nb\r\u2028c", value="d\ne")
    assert output.getvalue().count(b"\n") == 1


def test_log_lines_on_a_terminal_are_readable(
    logging_restored: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    output = Terminal()
    log.configure("info", "auto", output)
    structlog.get_logger().info("listening", port=1)
    text = output.getvalue().decode()
    assert "listening" in text
    assert "\x1b" not in text
    assert not text.startswith("{")


def test_a_closed_standard_error_stops_nothing(logging_restored: None) -> None:
    class Closed(io.BytesIO):
        def write(self, _: Any) -> int:
            raise BrokenPipeError

    log.configure("info", "json", Closed())
    structlog.get_logger().info("into the void")


def test_log_lines_of_threads_do_not_mix(logging_restored: None) -> None:
    output = io.BytesIO()
    log.configure("info", "json", output)

    def write(number: int) -> None:
        for _ in range(50):
            structlog.get_logger().info("line", number=number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(output)) == 200


# --- tables in the documentation


def document(**contents: str) -> str:
    parts = [f"<!-- {name}:begin -->\n{text}<!-- {name}:end -->\n" for name, text in contents.items()]
    return "# Title\n\n" + "\nbetween\n".join(parts) + "\nafter\n"


def test_tables_are_rewritten_between_their_markers() -> None:
    text = rewrite(document(settings="STALE\n", metrics="STALE\n"))
    assert "STALE" not in text
    assert text.startswith("# Title\n\n<!-- settings:begin -->\n| Setting |")
    assert "\nbetween\n" in text
    assert text.endswith("after\n")
    assert rewrite(text) == text


def test_every_setting_has_a_row() -> None:
    table = settings_table()
    assert all(f"| `{setting.name}` | " in table for setting in SETTINGS)
    assert len(table.splitlines()) == len(SETTINGS) + 2
    assert len({line.count(" | ") for line in table.splitlines()}) == 1


def test_metrics_have_their_full_names_and_labels() -> None:
    text = rewrite(document(settings="", metrics=""))
    assert "| `sidecast_streams_closed_total` | counter | `reason` |" in text
    assert "| `sidecast_subscribers` | gauge | `format` |" in text
    assert "| `sidecast_build_info` |" in text


@pytest.mark.parametrize(
    "text",
    [
        "nothing",
        document(settings=""),
        document(settings="", metrics="") + document(settings=""),
        "<!-- settings:end -->\n<!-- settings:begin -->\n" + document(metrics=""),
    ],
)
def test_missing_or_doubled_markers_are_refused(text: str) -> None:
    with pytest.raises(MissingMarkers):
        rewrite(text)


def test_reference_check_tells_whether_a_file_is_stale(tmp_path: Path) -> None:
    file = tmp_path / "operations.md"
    file.write_text(document(settings="", metrics=""))
    stale = CliRunner().invoke(reference, [str(file), "--check"])
    assert stale.exit_code == 1
    assert file.read_text() == document(settings="", metrics="")
    assert CliRunner().invoke(reference, [str(file)]).exit_code == 0
    assert CliRunner().invoke(reference, [str(file), "--check"]).exit_code == 0


def test_reference_refuses_a_file_without_markers(tmp_path: Path) -> None:
    file = tmp_path / "operations.md"
    file.write_text("# Title\n")
    result = CliRunner().invoke(reference, [str(file)])
    assert result.exit_code == 1
    assert "settings:begin" in result.output
