from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from sidecast_broker.__main__ import main
from sidecast_broker.commands.processes import brokers, terminate

ENVIRON = {"SIDECAST_SERVER_PORT": "8480", "PATH": "/bin"}


def shown(
    proc: Path, pid: int, parent: int, *arguments: str, name: str = "sidecast", port: str = "8480"
) -> None:
    directory = proc / str(pid)
    directory.mkdir()
    (directory / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in arguments))
    variables = {"SIDECAST_SERVER_PORT": port, "HOME": "/", "SIDECAST_TOKEN": "other"}
    (directory / "environ").write_text("".join(f"{key}={value}\0" for key, value in variables.items()))
    (directory / "stat").write_text(f"{pid} ({name}) S {parent} 1 1 0 -1")


def test_a_broker_is_found_by_its_command_line(tmp_path: Path) -> None:
    shown(tmp_path, 1, 0, "/usr/local/bin/python3.11", "/app/bin/sidecast", "serve", name="a) R 1 (b")
    shown(tmp_path, 7, 0, "sidecast", "serve", "--workers", "2")
    shown(tmp_path, 8, 7, "sidecast", "serve", "--workers", "2")  # one of its workers
    shown(tmp_path, 9, 1, "sidecast", "drain", "--local")
    shown(tmp_path, 10, 1, "vi", "sidecast", "server")
    shown(tmp_path, 11, 1)
    shown(tmp_path, 13, 1, "sidecast", "serve", port="9480")  # another one of the same user
    (tmp_path / "12").mkdir()  # ends while it is looked at
    (tmp_path / "meminfo").touch()
    assert brokers(ENVIRON, tmp_path) == [1, 7]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_those_of_other_users_are_not_ours(tmp_path: Path) -> None:
    shown(tmp_path, 7, 0, "sidecast", "serve")
    os.chown(tmp_path / "7", 65532, 65532)
    assert brokers(ENVIRON, tmp_path) == []


PROGRAM = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
print("ready", flush=True)
signal.pause()
"""


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PROGRAM, "sidecast", "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        yield started
        started.kill()


def test_one_is_found_among_the_system_s_told_to_end_and_waited_for(process: subprocess.Popen[str]) -> None:
    assert process.pid in brokers(os.environ)
    terminate([process.pid])
    assert process.wait(timeout=0) == 3


def test_it_waits_for_one_that_takes_its_time(process: subprocess.Popen[str]) -> None:
    process.send_signal(19)  # stopped: it can't act on what it is told
    waiting = threading.Thread(target=terminate, args=([process.pid],))
    waiting.start()
    waiting.join(timeout=0.2)
    assert waiting.is_alive()
    process.send_signal(18)
    waiting.join(timeout=10)
    assert not waiting.is_alive()
    assert process.wait(timeout=0) == 3


def test_one_that_has_ended_is_no_failure(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    terminate([process.pid])


def test_the_command_drains_the_broker_beside_it(
    process: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecast_broker.commands.drain.brokers", lambda _environ: [process.pid])
    done = CliRunner().invoke(main, ["drain", "--local"])
    assert (done.exit_code, done.stderr.strip() or done.stdout.strip()) == (0, "the broker is gone")
    assert process.wait(timeout=0) == 3


def test_the_command_fails_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecast_broker.commands.drain.brokers", lambda _environ: [])
    done = CliRunner().invoke(main, ["drain", "--local"])
    assert done.exit_code == 1
    assert "no broker of this user and" in done.output
