"""What the broker counts, as Prometheus metrics; none has a label per task or client.

The names are fixed: dashboards and alerts are written against them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from importlib.metadata import version
from itertools import accumulate
from platform import python_version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_DURATION_BUCKETS = (0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)


_WRITES_MAX = 256
"""Writes counted in a row, a third of the price of one by one."""


@lru_cache(maxsize=8)
def _minute_s(minute: str) -> float:
    return datetime.fromisoformat(f"{minute}00Z").timestamp()


def _seconds(at: str) -> float:
    """Give the seconds since 1970 of an RFC 3339 time in `Z`; its minute is mostly that of the last one."""
    return _minute_s(at[:17]) + float(at[17:-1])


class Deliveries(Collector):
    """What is counted at every write: plain numbers, because a Prometheus counter costs as much as the write.

    Attributes:
        events: events written to clients, by format.
        bytes_sent: bytes of frames written to clients.
    """

    def __init__(self) -> None:
        self.events: defaultdict[str, int] = defaultdict(int)
        self.bytes_sent = 0
        self._lag_counts = [0] * (len(_LAG_BUCKETS) + 1)
        self._lag_sum = 0.0
        self._writes: list[tuple[str, float]] = []

    def observe_write(self, oldest_at: str, written_at_s: float) -> None:
        """Take note of a write, to be counted with others: how old its oldest event was by then.

        Args:
            oldest_at: when that was stored, RFC 3339 in `Z`.
            written_at_s: when it had been written to all, seconds since 1970.
        """
        self._writes.append((oldest_at, written_at_s))
        if len(self._writes) >= _WRITES_MAX:
            self._count_writes()

    def _count_writes(self) -> None:
        for oldest_at, written_at_s in self._writes:
            lag_s = max(0.0, written_at_s - _seconds(oldest_at))
            self._lag_counts[bisect_left(_LAG_BUCKETS, lag_s)] += 1
            self._lag_sum += lag_s
        self._writes.clear()

    def collect(self) -> Iterator[Metric]:
        """Give the metrics of now."""
        self._count_writes()
        events = CounterMetricFamily(
            "sidecast_events_delivered", "Events written to clients, by format.", labels=["format"]
        )
        for name, count in self.events.items():
            events.add_metric([name], count)
        yield events
        yield CounterMetricFamily(
            "sidecast_bytes_sent", "Bytes of frames written to clients.", value=self.bytes_sent
        )
        bounds = [*map(floatToGoString, _LAG_BUCKETS), "+Inf"]
        yield HistogramMetricFamily(
            "sidecast_delivery_lag_seconds",
            "From stored to written to the sockets of all who had caught up; one observation a write.",
            buckets=list(zip(bounds, accumulate(self._lag_counts), strict=True)),
            sum_value=self._lag_sum,
        )


class Metrics:
    """All metrics of one broker, in a registry of their own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self.registry = CollectorRegistry()
        self.subscribers = Gauge(
            "sidecast_subscribers", "Streams open, by format.", ["format"], registry=registry
        )
        self.streams_opened = Counter(
            "sidecast_streams_opened", "Streams opened, by format.", ["format"], registry=registry
        )
        self.streams_closed = Counter(
            "sidecast_streams_closed", "Streams closed, by reason.", ["reason"], registry=registry
        )
        self.stream_duration = Histogram(
            "sidecast_stream_duration_seconds",
            "How long a stream was open.",
            buckets=_DURATION_BUCKETS,
            registry=registry,
        )
        self.deliveries = Deliveries()
        registry.register(self.deliveries)
        self.resumes = Counter(
            "sidecast_resumes",
            "Streams opened with a cursor, by outcome: replay, ended, or the reason of the gap.",
            ["outcome"],
            registry=registry,
        )
        self.replayed_events = Counter(
            "sidecast_replayed_events",
            "Events delivered from the past, by source: memory or stream.",
            ["source"],
            registry=registry,
        )
        self.lagging_subscribers = Gauge(
            "sidecast_lagging_subscribers", "Streams whose client takes less than is sent.", registry=registry
        )
        self.lag_events = Gauge(
            "sidecast_lag_events", "Events the lagging clients are behind, all together.", registry=registry
        )
        self.rejected = Counter(
            "sidecast_rejected", "Requests and connections refused, by reason.", ["reason"], registry=registry
        )
        self.tail_repairs = Counter(
            "sidecast_tail_repairs",
            "Reads of records that did not arrive live, by cause.",
            ["cause"],
            registry=registry,
        )
        self.invalid_events = Counter(
            "sidecast_invalid_events",
            "Stored records that are not delivered, or were mended, by reason.",
            ["reason"],
            registry=registry,
        )
        self.captured_events = Counter(
            "sidecast_captured_events",
            "Events heard from the agent in capture mode proxy, by outcome: stored, or why they were not.",
            ["outcome"],
            registry=registry,
        )
        self.injections = Counter(
            "sidecast_injections",
            "Questions `sidecast injector` was asked, by outcome: injected, present, left, ignored, denied.",
            ["outcome"],
            registry=registry,
        )
        self.subscriptions = Gauge(
            "sidecast_subscriptions", "Named subscriptions that a stream here holds.", registry=registry
        )
        self.subscription_acks = Counter(
            "sidecast_subscription_acks",
            "Positions of named subscriptions stored, by what confirmed them: client, cursor or tcp.",
            ["by"],
            registry=registry,
        )
        self.tasks = Gauge("sidecast_tasks", "Tasks in memory.", registry=registry)
        self.log_bytes = Gauge(
            "sidecast_log_bytes", "Memory of the logs and folds of all tasks.", registry=registry
        )
        self.nats_connected = Gauge(
            "sidecast_nats_connected", "1 while the connection to NATS stands.", registry=registry
        )
        self.workers = Gauge(
            "sidecast_workers",
            "Processes that serve streams; those that don't answer left out.",
            registry=registry,
        )
        self.workers.set(1)
        self.worker_restarts = Counter(
            "sidecast_worker_restarts", "Workers that died and were started again.", registry=registry
        )
        Info("sidecast_build", "What is running.", registry=registry).info(
            {"version": version("sidecast"), "python": python_version()}
        )

    def render(self) -> bytes:
        """Give all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
