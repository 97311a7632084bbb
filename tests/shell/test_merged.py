from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from sidecast_broker.merged import MergedMetrics
from sidecast_broker.metrics import Metrics


def values(text: bytes) -> dict[str, float]:
    """Give every sample, by its name and its labels' values."""
    families = text_string_to_metric_families(text.decode())
    return {
        "/".join((sample.name, *sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def shown(streams: int = 0, *, connected: bool = True, lag_s: float = 0.0) -> str:
    """Give what a worker with so many streams shows."""
    metrics = Metrics()
    metrics.subscribers.labels("events").set(streams)
    metrics.streams_opened.labels("events").inc(streams)
    metrics.nats_connected.set(connected)
    metrics.deliveries.events["events"] += streams
    for _ in range(streams):
        metrics.deliveries.observe_write("2026-11-27T12:00:00.000Z", 1795780800.0 + lag_s)
        metrics.stream_duration.observe(2.0)
    return metrics.render().decode()


def test_workers_add_up() -> None:
    merged = MergedMetrics()
    merged.put(1, shown(3, lag_s=0.002))
    merged.put(2, shown(4, lag_s=0.02))
    seen = values(merged.render(shown()))
    assert seen["sidecast_subscribers/events"] == 7
    assert seen["sidecast_streams_opened_total/events"] == 7
    assert seen["sidecast_events_delivered_total/events"] == 7
    assert seen["sidecast_delivery_lag_seconds_bucket/0.0025"] == 3
    assert seen["sidecast_delivery_lag_seconds_bucket/0.025"] == 7
    assert seen["sidecast_delivery_lag_seconds_count"] == 7
    assert seen["sidecast_delivery_lag_seconds_sum"] == pytest.approx(3 * 0.002 + 4 * 0.02, abs=1e-4)
    assert seen["sidecast_stream_duration_seconds_sum"] == 14
    assert seen["sidecast_workers"] == 2


def test_what_is_good_only_where_all_are_is_the_least() -> None:
    merged = MergedMetrics()
    merged.put(1, shown())
    assert values(merged.render(shown(connected=False)))["sidecast_nats_connected"] == 1
    merged.put(2, shown(connected=False))
    assert values(merged.render(shown()))["sidecast_nats_connected"] == 0


def test_what_is_running_is_told_once() -> None:
    merged = MergedMetrics()
    for number in range(3):
        merged.put(number, shown())
    seen = values(merged.render(shown()))
    assert [value for name, value in seen.items() if name.startswith("sidecast_build_info")] == [1]


def test_a_dead_worker_leaves_what_it_counted_and_takes_what_it_held() -> None:
    merged = MergedMetrics()
    merged.put(1, shown(3))
    merged.put(2, shown(4))
    merged.bury(1)
    seen = values(merged.render(shown()))
    assert (seen["sidecast_subscribers/events"], seen["sidecast_streams_opened_total/events"]) == (4, 7)
    assert (seen["sidecast_stream_duration_seconds_count"], seen["sidecast_workers"]) == (7, 1)
    merged.put(1, shown(2))
    assert values(merged.render(shown()))["sidecast_streams_opened_total/events"] == 9
    merged.bury(1)
    merged.bury(1)
    assert values(merged.render(shown()))["sidecast_streams_opened_total/events"] == 9


def test_what_this_process_counts_counts_too() -> None:
    own = Metrics()
    own.rejected.labels("head-too-large").inc(2)
    own.worker_restarts.inc()
    merged = MergedMetrics()
    assert values(merged.render(own.render().decode()))["sidecast_nats_connected"] == 0
    merged.put(1, shown())
    seen = values(merged.render(own.render().decode()))
    assert seen["sidecast_rejected_total/head-too-large"] == 2
    assert seen["sidecast_worker_restarts_total"] == 1


def test_nothing_is_left_out() -> None:
    merged = MergedMetrics()
    merged.put(1, shown(1))
    assert values(merged.render(Metrics().render().decode())).keys() == values(shown(1).encode()).keys()


@pytest.mark.parametrize("text", ["a b c d", "# TYPE a nonsense\na 1\n"])
def test_what_is_no_metrics_changes_nothing(text: str) -> None:
    merged = MergedMetrics()
    merged.put(1, shown(3))
    with pytest.raises(ValueError, match=r"."):
        merged.put(1, text)
    assert values(merged.render(shown()))["sidecast_subscribers/events"] == 3


@given(
    steps=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.booleans()), min_size=1, max_size=20)
)
def test_no_counter_ever_falls(steps: list[tuple[int, int, bool]]) -> None:
    merged, counted, before = MergedMetrics(), dict.fromkeys(range(4), 0), 0.0
    for number, opened, dies in steps:
        counted[number] += opened
        text = f"# TYPE opened_total counter\nopened_total {counted[number]}\n"
        merged.put(number, text)
        if dies:
            merged.bury(number)
            counted[number] = 0
        seen = values(merged.render(""))["opened_total"]
        assert seen >= before
        before = seen
    assert before == sum(opened for _number, opened, _dies in steps)
