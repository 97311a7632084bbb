"""The alerts and the dashboard: alerts have runbook entries, queries are PromQL over metrics there are."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import promql_parser
import pytest
import yaml
from chart import CHART, objects, render, rendered
from image_tree import ROOT

from sidecast_broker.metrics import Metrics
from sidecast_broker.settings import Settings

DOCS = [*sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "helm").rglob("*.md")), ROOT / "README.md"]
OF_CADVISOR = {"container_memory_working_set_bytes", "container_spec_memory_limit_bytes"}
NO_METRICS = {
    *("sidecast_adapters", "sidecast_broker", "sidecast_schemas"),
    *("sidecast_grants", "sidecast_rights", "sidecast_ticket"),
}
"""What else begins like one: packages, claims, a cookie."""
SERIES = {
    "counter": ("_total",),
    "gauge": ("",),
    "info": ("_info",),
    "histogram": ("_bucket", "_sum", "_count"),
}


@cache
def exported() -> dict[str, str]:
    """Give each metric's name with its type, as the documentation writes them."""
    return dict(re.findall(r"^# TYPE (\w+) (\w+)", Metrics().render().decode(), re.MULTILINE))


def series() -> set[str]:
    """Give the names that a query may select."""
    names = set()
    for name, kind in exported().items():
        names |= {name + suffix for suffix in SERIES["histogram"]} if kind == "histogram" else {name}
    return names


def rules(*args: str) -> list[dict[str, Any]]:
    """Give the alerts that the gateway's release makes."""
    (found,) = (one for one in objects(render("gateway", *args)) if one["kind"] == "PrometheusRule")
    (group,) = found["spec"]["groups"]
    return list(group["rules"])


def panels() -> list[dict[str, Any]]:
    return list(json.loads((CHART / "files" / "dashboard.json").read_text())["panels"])


def queries() -> list[str]:
    """Give all expressions, those of the dashboard with Grafana's variables as it fills them in."""
    drawn = [target["expr"] for panel in panels() for target in panel["targets"]]
    filled = [one.replace("$__rate_interval", "2m").replace("$namespace", "a|b") for one in drawn]
    return [*(rule["expr"] for rule in rules()), *filled]


def selected(query: str) -> list[Any]:
    """Give the selectors of a query.

    Raises:
        ValueError: it is none.
    """
    nodes: list[Any] = []
    promql_parser.walk(promql_parser.parse(query), nodes.append)
    return [node for node in nodes if isinstance(node, promql_parser.VectorSelector)]


def runbook() -> dict[str, str]:
    """Give the runbook's entries by the alert they are for."""
    parts = re.split(r"^## (.+)$", (ROOT / "docs" / "runbook.md").read_text(), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_each_alert_has_an_entry_and_each_entry_an_alert() -> None:
    assert [rule["alert"] for rule in rules()] == list(runbook())


@pytest.mark.parametrize("alert", runbook())
def test_an_entry_says_what_is_to_be_done(alert: str) -> None:
    said = re.findall(r"^\*\*(Means|Users see|Find the cause\.|Do)\*\* \S", runbook()[alert], re.MULTILINE)
    assert said == ["Means", "Users see", "Find the cause.", "Do"]


def test_what_it_looks_for_in_the_log_is_logged() -> None:
    source = "".join(path.read_text() for path in (ROOT / "broker" / "sidecast_broker").rglob("*.py"))
    events = set(
        re.findall(
            r"`([a-z]+_[a-z]+)` in (?:its|the)\b.{0,20} log|`(capture_[a-z]+)`", "".join(runbook().values())
        )
    )
    named = {event for pair in events for event in pair if event}
    assert {"event_skipped", "worker_died", "capture_lost"} <= named
    assert {event for event in named if f'"{event}"' not in source} == set()


def test_an_alert_has_all_it_needs() -> None:
    for rule in rules():
        assert re.fullmatch(r"[1-9]\d*m", rule["for"])
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["annotations"]["runbook_url"] == f"https://example.com/runbook#{rule['alert'].lower()}"


def test_without_a_runbook_s_address_an_alert_names_none() -> None:
    for rule in rules("--set", "monitoring.rules.runbook="):
        assert set(rule["annotations"]) == {"summary"}


@pytest.mark.parametrize("query", queries())
def test_a_query_is_promql_over_series_there_are(query: str) -> None:
    found = selected(query)
    assert found
    assert {one.name for one in found} <= series() | OF_CADVISOR


def test_a_query_that_is_none_is_seen() -> None:
    with pytest.raises(ValueError, match="invalid"):
        promql_parser.parse("sum by (le (rate(sidecast_tasks[5m])))")
    assert [one.name for one in selected("rate(sidecast_opened_total[5m]) > 1")] == ["sidecast_opened_total"]


def test_every_metric_is_drawn() -> None:
    drawn = {one.name for query in queries() for one in selected(query)}
    for name, kind in exported().items():
        assert {name, f"{name}_bucket"} & drawn, f"{name}, a {kind}, is on no panel"


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_metrics_of_the_documentation_are_exported(path: Any) -> None:
    named = set(re.findall(r"(?<![\w-])sidecast_[a-z_]+[a-z](?![\w.-]*\()", path.read_text()))
    assert named - NO_METRICS <= series() | set(exported())


def test_labels_of_queries_are_those_of_their_metrics() -> None:
    table = (ROOT / "docs" / "operations.md").read_text().partition("<!-- metrics:begin -->")[2]
    labels = {
        name: set(re.findall(r"`(\w+)`", cell))
        for name, cell in re.findall(r"^\| `(\w+)` \| \w+ \| (.*?) ?\|", table, re.MULTILINE)
    }
    for query in queries():
        for one in selected(query):
            if one.name not in OF_CADVISOR:
                given = {matcher.name for matcher in one.matchers.matchers} - {"namespace", "__name__"}
                assert given <= labels[one.name.removesuffix("_bucket")]


def test_thresholds_are_the_settings() -> None:
    def numbers(*args: str) -> dict[str, int]:
        return {
            rule["alert"]: int(rule["expr"].rpartition(" ")[2])
            for rule in rules(*args)
            if re.search(r"Streams|Subscriptions|Logs|WorkersMissing", rule["alert"])
        }

    settings = Settings()
    each = {
        "SidecastStreamsNearLimit": settings.stream.streams_max,
        "SidecastSubscriptionsNearLimit": settings.stream.subscriptions_max,
        "SidecastLogsNearLimit": settings.log.bytes_max,
    }
    assert numbers() == each | {"SidecastWorkersMissing": 1}
    # Each limit is one worker's, and a broker shows the sum of its workers.
    changed = numbers("--set", "config.server.workers=4,config.stream.streams_max=100")
    each["SidecastStreamsNearLimit"] = 100
    assert settings.stream.subscriptions_max > 0
    assert "SidecastSubscriptionsNearLimit" not in numbers("--set", "config.stream.subscriptions_max=0")
    assert changed == {name: 4 * limit for name, limit in each.items()} | {"SidecastWorkersMissing": 4}


def test_the_injector_is_watched_for_its_injections_only() -> None:
    monitors = [
        one
        for one in objects(rendered("-f", str(CHART / "ci" / "webhook.yaml")))
        if one["kind"] == "PodMonitor"
    ]
    assert len(monitors) == 2
    injector = next(one for one in monitors if one["metadata"]["name"].endswith("-injector"))
    (endpoint,) = injector["spec"]["podMetricsEndpoints"]
    (keep,) = endpoint["metricRelabelings"]
    assert (keep["action"], keep["regex"]) == ("keep", "sidecast_injections_total")


def test_the_dashboard_is_drawn_without_overlaps() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()]
    assert len(set(places)) == len(places)
    assert len({panel["title"] for panel in panels()}) == len(places)
    assert all(target["legendFormat"] for panel in panels() for target in panel["targets"])


def test_rules_are_yaml_that_prometheus_takes_as_a_file() -> None:
    assert set(yaml.safe_load(yaml.safe_dump({"groups": rules()}))) == {"groups"}
