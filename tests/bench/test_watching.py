from __future__ import annotations

from sidecast_broker.commands.bench.watching import Watched


def test_what_processes_saw_adds_up() -> None:
    whole = Watched(connect={1: 2}, latency={5: 1}, events=1, failed={"away": 1}, last_s=7)
    whole.add(Watched(connect={1: 1, 2: 1}, events=2, lost=3, duplicated=4, failed={"away": 2}, last_s=6))
    assert whole == Watched(
        connect={1: 3, 2: 1}, latency={5: 1}, events=3, lost=3, duplicated=4, failed={"away": 3}, last_s=7
    )
