"""Draining by an operator: as by a signal, and by the command."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest
from a2a_rig.wire import WIRES, Wire
from brokers import RealBackend, child_broker, task_record
from lives import JSON
from shell.test_slow import stalled
from shell.test_stream import SMALL, long_texts
from sse import kinds


async def test_drain_does_what_sigterm_does(real: RealBackend, tmp_path: Path) -> None:
    await real.publish(task_record())
    async with child_broker(real, tmp_path / "log", stream__drain_s=1) as child:
        streams = [await child.watch() for _ in range(3)]
        for stream in streams:
            await stream.take(2)
        status, answer = await child.internal("/drain", "POST", b"{}", JSON)
        assert (status, answer) == (202, {"status": "draining", "streams": 3, "drain_s": 1})
        assert (await child.internal("/readyz"))[0] == 503
        # As Kubernetes does behind a preStop hook: not a second wish to hurry.
        child.signal(signal.SIGTERM)
        drained = await asyncio.gather(*(stream.rest() for stream in streams))
        assert [kinds(frames) for frames in drained] == [["stream.drain"]] * 3
        assert await child.ended() == 0
        assert {line["reason"] for line in child.logged("stream_closed")} == {"drain"}
        assert child.logged("stopped")


async def test_the_command_drains_and_waits(real: RealBackend, tmp_path: Path) -> None:
    async with child_broker(real, tmp_path / "log", stream__drain_s=0.3) as child:
        command = ("-m", "sidecast_broker", "drain", "--url", child.internal_url)
        for wanted in (0, 1):
            process = await asyncio.create_subprocess_exec(
                sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            out, err = await process.communicate()
            assert process.returncode == wanted, (out, err)
            if wanted == 0:
                assert out == b"the broker is gone\n"
                assert await child.ended() == 0


@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_no_a2a_client_that_takes_nothing_is_ended_cleanly_by_a_broker_that_goes_away(
    real: RealBackend, tmp_path: Path, wire: Wire
) -> None:
    """Over HTTP/1.0, which proxies speak to what is behind them, a connection that just closes is the end."""
    await real.publish(task_record())
    async with (
        child_broker(real, tmp_path / "log", **SMALL) as child,
        stalled(child, wire, "1.0") as slow,
    ):
        await slow.read_until(b"data: ")
        await real.publish(*long_texts(200))
        await child.until_metric("sidecast_lagging_subscribers")
        child.signal(signal.SIGTERM)
        assert await child.ended() == 0
        with pytest.raises(ConnectionResetError):
            await slow.read_until(b"nothing says this")
