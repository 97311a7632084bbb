"""What is counted at every write comes out as Prometheus wants it."""

from __future__ import annotations

import pytest

from sidecast_broker.metrics import Deliveries

STORED_AT_S = 1_767_225_600.0
"""2026-01-01T00:00:00Z"""


def lags(deliveries: Deliveries) -> dict[str, float]:
    """Give the samples of the lag by suffix, and bound where there is one."""
    (lag,) = (each for each in deliveries.collect() if each.name == "sidecast_delivery_lag_seconds")
    return {one.name.rpartition("_")[2] + one.labels.get("le", ""): one.value for one in lag.samples}


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 1000])
def test_every_write_is_counted_whenever_somebody_asks(count: int) -> None:
    deliveries = Deliveries()
    for number in range(count):
        deliveries.observe_write(f"2026-01-01T00:00:{number % 60:02}.250Z", STORED_AT_S + number % 60 + 0.253)
        if number == 10:
            assert lags(deliveries)["count"] == 11
    found = lags(deliveries)
    assert found["count"] == found["bucket0.005"] == found["bucket+Inf"] == count
    assert found["bucket0.0025"] == 0
    assert found["sum"] == pytest.approx(0.003 * count, abs=1e-4)


def test_a_clock_behind_that_of_the_server_gives_no_negative_lag() -> None:
    deliveries = Deliveries()
    deliveries.observe_write("2026-01-01T00:01:00.000Z", STORED_AT_S)
    assert (lags(deliveries)["sum"], lags(deliveries)["bucket0.001"]) == (0.0, 1)
