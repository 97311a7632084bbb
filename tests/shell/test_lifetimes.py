from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from issuer import Clock

from sidecast_broker.auth.revocations import Revocations
from sidecast_broker.core.auth.life import GRACE_S, End, Life
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.core.auth.revocation import Revocation, Revoked
from sidecast_broker.lifetimes import Lifetimes
from sidecast_schemas.subjects import TaskKey

TASK = TaskKey("", "agent", "task-1")


class Known(Revocations):
    """Revocations that a test makes; no bucket holds them."""

    def __init__(self) -> None:
        self._revoked = Revoked(86400)

    def add(self, revocation: Revocation) -> None:
        self._revoked.add(revocation)


class View:
    """Says what it is asked for."""

    def expiring(self, expires_in_s: float) -> bytes:
        return f"expires in {expires_in_s:g}".encode()

    def cut_short(self, _hub: object, end: End) -> bytes:
        return end.encode()


class Stream:
    """What a stream is to those who end it; writes down what is done to it."""

    view = View()
    hub = None
    key = TASK

    def __init__(self, principal: Principal, *, unfed: bool = False) -> None:
        self.principal = principal
        self.unfed = unfed
        self.life: Life | None = None
        self.done: list[str] = []
        self.silent = False

    def tell(self, frame: bytes) -> bool:
        if not self.silent:
            self.done.append(f"told: {frame.decode()}")
        return not self.silent

    def recheck(self, covers: Callable[[TaskKey], bool]) -> None:
        assert not covers(self.key)

    def close(self, reason: str, frame: bytes) -> None:
        assert frame.decode() == reason
        self.done.append(f"closed: {reason}")

    def cut(self, reason: str) -> None:
        self.done.append(f"cut: {reason}")


class Watchdog:
    """Lifetimes by a clock that a test turns."""

    def __init__(self, expiring_s: float = 30) -> None:
        self.clock = Clock()
        self.revocations = Known()
        self.lifetimes = Lifetimes(self.revocations, expiring_s, clock=self.clock)

    def begin(self, ends_in_s: float | None = None, **fields: Any) -> Stream:
        ends_at_s = None if ends_in_s is None else self.clock() + ends_in_s
        principal = Principal("alice", "jwt", credential_id="t-1", ends_at_s=ends_at_s)
        stream = Stream(principal, **fields)
        self.lifetimes.begin(stream)  # type: ignore[arg-type]
        return stream

    def look(self, stream: Stream, after_s: float = 0) -> list[str]:
        self.clock.now_s += after_s
        stream.done.clear()
        self.lifetimes.look(stream, self.lifetimes.now())  # type: ignore[arg-type]
        return stream.done


@pytest.fixture
def watchdog() -> Watchdog:
    return Watchdog()


def test_a_stream_is_told_then_ended_then_cut(watchdog: Watchdog) -> None:
    stream = watchdog.begin(3600)
    assert stream.done == []
    assert watchdog.look(stream, 3569.5) == []
    assert watchdog.look(stream, 1) == ["told: expires in 29.5"]
    assert watchdog.look(stream, 1) == []
    assert watchdog.look(stream, 28) == []
    assert watchdog.look(stream, 1) == ["closed: expired"]
    assert watchdog.look(stream, GRACE_S / 2) == []
    assert watchdog.look(stream, GRACE_S / 2) == ["cut: expired"]


def test_one_that_was_sent_nothing_is_told_later(watchdog: Watchdog) -> None:
    stream = watchdog.begin(10)
    stream.silent = True
    assert watchdog.look(stream, 1) == []
    stream.silent = False
    assert watchdog.look(stream, 1) == ["told: expires in 8"]


def test_one_that_began_too_late_gets_nothing_but_its_end(watchdog: Watchdog) -> None:
    assert watchdog.begin(0).done == ["closed: expired"]


def test_a_credential_without_an_end(watchdog: Watchdog) -> None:
    stream = watchdog.begin()
    assert watchdog.look(stream, 1e9) == []


@pytest.mark.parametrize(
    "revocation",
    [
        Revocation("token_id", "t-1", 2e9),
        Revocation("principal", "alice", 2e9),
        Revocation("principal", "alice", 2e9, ""),
        Revocation("task", "task-1", 2e9, "", "agent"),
    ],
    ids=lambda revocation: revocation.kind,
)
def test_what_is_revoked_ends(watchdog: Watchdog, revocation: Revocation) -> None:
    stream = watchdog.begin(3600)
    watchdog.revocations.add(Revocation("token_id", "t-2", 2e9))
    assert watchdog.look(stream) == []
    watchdog.revocations.add(revocation)
    assert watchdog.look(stream) == ["closed: revoked"]
    assert watchdog.look(stream, GRACE_S) == ["cut: revoked"]
    # What was revoked between the check of the credential and the first byte: the same.
    assert watchdog.begin().done == ["closed: revoked"]


def test_who_waits_for_a_task_they_may_not_see_does_not_learn_of_its_revocation(watchdog: Watchdog) -> None:
    stream = watchdog.begin(unfed=True)
    watchdog.revocations.add(Revocation("task", "task-1", 2e9, "", "agent"))
    assert watchdog.look(stream) == []
    stream.unfed = False
    assert watchdog.look(stream) == ["closed: revoked"]
    waiting = watchdog.begin(unfed=True)
    watchdog.revocations.add(Revocation("principal", "alice", 2e9))
    assert watchdog.look(waiting) == ["closed: revoked"]


def test_nothing_is_judged_twice_by_the_same_revocations(
    watchdog: Watchdog, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[Principal] = []
    monkeypatch.setattr(Known, "covers_credential", lambda _self, principal: judged.append(principal))
    stream = watchdog.begin()
    for _ in range(5):
        watchdog.look(stream, 1)
    assert len(judged) == 1
    watchdog.revocations.add(Revocation("token_id", "t-2", 2e9))
    for _ in range(5):
        watchdog.look(stream, 1)
    assert len(judged) == 2
