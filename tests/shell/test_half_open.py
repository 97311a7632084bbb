"""Peers that are gone without a word: their TCP drops what comes, and nobody tells the broker."""

from __future__ import annotations

import ctypes
import socket
import struct
import time

import pytest
import structlog
from a2a_rig.wire import WIRES
from brokers import FakeBackend, broker, status, task_record, until
from shell.test_slow import stalled
from shell.test_stream import PATH, SMALL
from sse import Stalled

LAG_S = 0.6
SO_ATTACH_FILTER = 26
"""Linux's; the module leaves it out."""


def go_dark(client: Stalled) -> None:
    """Have a client's kernel drop every packet that comes for it, so that none is acknowledged."""
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0), 8)  # BPF_RET | BPF_K, 0 bytes
    program = struct.pack("HL", 1, ctypes.addressof(drop_all))
    client._socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


@pytest.mark.parametrize("speaks", [True, False], ids=["events", "heartbeats alone"])
@pytest.mark.parametrize("query", ["", "?slow=snapshot", "?max_rate=50"])
async def test_a_peer_that_is_gone_is_found(fake: FakeBackend, query: str, speaks: bool) -> None:
    await fake.publish(task_record())
    with structlog.testing.capture_logs() as logs:
        async with (
            broker(fake, **SMALL, stream__lag_s_max=LAG_S, stream__heartbeat_s=0.2) as running,
            Stalled(running.url, PATH + query) as gone,
        ):
            await gone.read_until(b"task.snapshot")
            go_dark(gone)
            began_s = time.monotonic()
            if speaks:
                await fake.publish(status("into the dark"))
            await until(lambda: not len(running.listening.streams))
            assert LAG_S < time.monotonic() - began_s < LAG_S + 3
    assert [line["reason"] for line in logs if line["event"] == "stream_closed"] == ["lag"]


async def test_in_an_a2a_format_too(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with (
        broker(fake, **SMALL, stream__lag_s_max=LAG_S, stream__a2a_heartbeat_s=0.2) as running,
        stalled(running, WIRES[0]) as gone,
    ):
        await gone.read_until(b"data: ")
        go_dark(gone)
        await until(lambda: not len(running.listening.streams))
        assert await running.metric("sidecast_streams_closed_total", reason="lag") == 1
