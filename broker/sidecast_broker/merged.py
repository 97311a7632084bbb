"""The metrics of several processes as those of one, in Prometheus' text format.

Must not know how they are asked for. What a process counted stays when it is gone: a counter that falls is
taken for one that begins anew, and all the others have counted would be counted twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector, CollectorRegistry

Sample = tuple[str, tuple[tuple[str, str], ...]]
"""A name with its labels."""

_CUMULATIVE = ("counter", "histogram", "summary")
_LEAST = frozenset({"sidecast_nats_connected"})
"""What is good only where it is good everywhere."""
_SAME = frozenset({"sidecast_build_info"})


class _Family:
    """One metric of all processes."""

    def __init__(self, metric: Metric) -> None:
        self.name = metric.name
        self.documentation = metric.documentation
        self.type = metric.type
        self.samples: dict[Sample, float] = {}

    @property
    def cumulative(self) -> bool:
        return self.type in _CUMULATIVE

    def add(self, metric: Metric) -> None:
        for sample in metric.samples:
            key = (sample.name, tuple(sample.labels.items()))
            known = self.samples.get(key)
            if known is None:
                self.samples[key] = sample.value
            elif sample.name in _LEAST:
                self.samples[key] = min(known, sample.value)
            elif sample.name in _SAME:
                self.samples[key] = max(known, sample.value)
            else:
                self.samples[key] = known + sample.value

    def metric(self) -> Metric:
        metric = Metric(self.name, self.documentation, self.type)
        for (name, labels), value in self.samples.items():
            metric.add_sample(name, dict(labels), value)
        return metric


class _Given(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return iter(self._metrics)


class MergedMetrics:
    """Adds up what processes count: each named by a number, and followed by another under the same one."""

    def __init__(self) -> None:
        self._newest: dict[int, list[Metric]] = {}
        self._gone: list[Metric] = []

    def put(self, number: int, text: str) -> None:
        """Take what a process shows.

        Raises:
            ValueError: it is not in Prometheus' text format.
        """
        self._newest[number] = list(text_string_to_metric_families(text))

    def bury(self, number: int) -> None:
        """Keep what a process has counted that is gone, and forget what it only held."""
        left = [metric for metric in self._newest.pop(number, []) if metric.type in _CUMULATIVE]
        self._gone = _merge([self._gone, left])

    def render(self, own: str) -> bytes:
        """Give the sum.

        Args:
            own: what this process shows itself: its counters count; the rest only where nobody else shows it.
        """
        processes = [self._gone, *(self._newest[number] for number in sorted(self._newest))]
        seen = {metric.name for metrics in self._newest.values() for metric in metrics}
        mine = [
            metric
            for metric in text_string_to_metric_families(own)
            if metric.type in _CUMULATIVE or metric.name not in seen
        ]
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Given(_merge([*processes, mine])))
        return generate_latest(registry)


def _merge(processes: Iterable[Iterable[Metric]]) -> list[Metric]:
    families: dict[str, _Family] = {}
    for metrics in processes:
        for metric in metrics:
            family = families.get(metric.name)
            if family is None:
                family = families[metric.name] = _Family(metric)
            family.add(metric)
    return [family.metric() for family in families.values()]
