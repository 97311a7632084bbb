from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.commands.bench.durations import bucket, percentile_ms


@given(st.floats(1e-6, 1000))
def test_a_percentile_of_equal_durations_is_that_duration(seconds: float) -> None:
    assert percentile_ms({bucket(seconds): 3}, 0.99) == pytest.approx(seconds * 1000, rel=0.03)


def test_percentiles_are_of_the_share_below_them() -> None:
    buckets = {bucket(0.001): 98, bucket(1.0): 2}
    assert percentile_ms(buckets, 0.5) == pytest.approx(1, rel=0.03)
    assert percentile_ms(buckets, 0.97) == pytest.approx(1, rel=0.03)
    assert percentile_ms(buckets, 0.98) == pytest.approx(1000, rel=0.03)
    assert percentile_ms({}, 0.5) == 0
