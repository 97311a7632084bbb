from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.auth.life import GRACE_S, Life, Step

NOW_S = 1_800_000_000.0


def test_a_credential_without_an_end() -> None:
    life = Life(None, 30)
    assert life.due_s == life.left_s(NOW_S) == math.inf
    assert life.step(NOW_S * 10) is None


def test_one_that_ends() -> None:
    life = Life(NOW_S + 60, 30)
    assert life.step(NOW_S + 29.9) is None
    assert (life.step(NOW_S + 31), life.left_s(NOW_S + 31)) == ("tell", 29)
    assert life.step(NOW_S + 32) == "tell"
    life.tell()
    assert life.step(NOW_S + 59.9) is None
    assert (life.step(NOW_S + 60), life.left_s(NOW_S + 61)) == ("expire", 0)
    life.finish("expired", NOW_S + 61)
    assert life.step(NOW_S + 61 + GRACE_S - 0.1) is None
    assert life.step(NOW_S + 61 + GRACE_S) == "cut"


def test_one_that_is_revoked() -> None:
    life = Life(NOW_S + 60, 30)
    life.finish("revoked", NOW_S)
    assert life.step(NOW_S + GRACE_S) == "cut"
    life.finish("expired", NOW_S + 60)
    assert life.end == "revoked"


def test_one_that_had_ended_before() -> None:
    assert Life(0.0, 30).step(NOW_S) == "expire"


@given(
    ends_at_s=st.floats(0, 100),
    expiring_s=st.floats(0, 100),
    looks=st.lists(st.floats(0, 10), min_size=1, max_size=60),
)
def test_however_seldom_it_is_looked_at_it_ends_in_order(
    ends_at_s: float, expiring_s: float, looks: list[float]
) -> None:
    life, now_s, taken = Life(ends_at_s, expiring_s), 0.0, list[tuple[Step, float]]()
    for pause_s in looks:
        now_s += pause_s
        step = life.step(now_s)
        if step is None:
            assert now_s < ends_at_s or (life.end and now_s < taken[-1][1] + GRACE_S)
            continue
        taken.append((step, now_s))
        if step == "tell":
            life.tell()
        elif step == "expire":
            life.finish("expired", now_s)
        else:
            break
    order: list[Step] = ["tell", "expire", "cut"]
    steps = [step for step, _at_s in taken]
    assert steps == [step for step in order if step in steps]
    for step, at_s in taken:
        assert ends_at_s - expiring_s <= at_s < ends_at_s if step == "tell" else at_s >= ends_at_s


@pytest.mark.parametrize("expiring_s", [0, 3600])
def test_all_there_is_to_tell(expiring_s: float) -> None:
    life = Life(NOW_S, expiring_s)
    assert life.step(NOW_S - 1) == ("tell" if expiring_s else None)
    assert life.step(NOW_S) == "expire"
