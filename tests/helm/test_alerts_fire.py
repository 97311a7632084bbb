"""Each alert fires for what it is about, and for nothing like it: the rules in Prometheus' own promtool."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import objects, render

PROMTOOL = shutil.which("promtool")
POD = 'namespace="agents",pod="planner-0"'
MINUTES = 60
BROKER = f'container_memory_working_set_bytes{{{POD},container="sidecast-broker"}}'
LIMIT = f'container_spec_memory_limit_bytes{{{POD},container="sidecast-broker"}}'


def steady(value: float) -> str:
    """Write a gauge that stays, sampled each minute."""
    return f"{value:g}+0x{MINUTES}"


def rising(per_s: float) -> str:
    """Write a counter that rises, sampled each minute."""
    return f"0+{per_s * 60:g}x{MINUTES}"


def lag(late_share: float) -> dict[str, str]:
    """Write a histogram of ten writes a second, a share of which takes one to two and a half seconds."""
    name = f"sidecast_delivery_lag_seconds_bucket{{{POD},le="
    soon = 10 * (1 - late_share)
    return {
        f'{name}"1.0"}}': rising(soon),
        f'{name}"2.5"}}': rising(10),
        f'{name}"+Inf"}}': rising(10),
    }


def one(name: str, values: str, **labels: str) -> dict[str, str]:
    """Write one series of the pod."""
    more = "".join(f',{label}="{value}"' for label, value in labels.items())
    return {f"{name}{{{POD}{more}}}": values}


def streams(count: int, opened_per_s: float = 0.0, lagging: int = 0) -> dict[str, str]:
    """Write a broker's streams in two formats: open, opened, lagging."""
    return (
        one("sidecast_subscribers", steady(count / 2), format="events")
        | one("sidecast_subscribers", steady(count / 2), format="jsonrpc")
        | one("sidecast_streams_opened_total", rising(opened_per_s), format="events")
        | one("sidecast_lagging_subscribers", steady(lagging))
    )


CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "SidecastNatsAway": (
        one("sidecast_nats_connected", steady(0)),
        one("sidecast_nats_connected", "1 0 1" + " 1" * MINUTES),
    ),
    "SidecastDeliverySlow": (lag(0.05), lag(0.005)),
    "SidecastRepairs": (
        one("sidecast_tail_repairs_total", rising(2), cause="hole"),
        one("sidecast_tail_repairs_total", rising(0.5), cause="hole")
        | one("sidecast_tail_repairs_total", rising(50), cause="open"),
    ),
    "SidecastGaps": (
        one("sidecast_resumes_total", rising(0.2), outcome="expired"),
        one("sidecast_resumes_total", rising(50), outcome="replay"),
    ),
    "SidecastClientsLag": (streams(200, lagging=30), streams(1000, lagging=30)),
    "SidecastReconnects": (streams(100, opened_per_s=7), streams(100, opened_per_s=5)),
    "SidecastRefusing": (
        one("sidecast_rejected_total", rising(6), reason="opens"),
        one("sidecast_rejected_total", rising(4), reason="opens")
        | one("sidecast_rejected_total", rising(4), reason="not-found"),
    ),
    "SidecastStreamsNearLimit": (streams(17_000), streams(15_000)),
    "SidecastSubscriptionsNearLimit": (
        one("sidecast_subscriptions", steady(180)),
        one("sidecast_subscriptions", steady(150)),
    ),
    "SidecastLogsNearLimit": (
        one("sidecast_log_bytes", steady(240e6)),
        one("sidecast_log_bytes", steady(200e6)),
    ),
    "SidecastMemoryNearLimit": (
        {BROKER: steady(600), LIMIT: steady(640)},
        {BROKER: steady(600), LIMIT: steady(0)},
    ),
    "SidecastInvalidEvents": (
        one("sidecast_invalid_events_total", rising(0.2), reason="json"),
        one("sidecast_invalid_events_total", rising(0.05), reason="json"),
    ),
    "SidecastCaptureLoses": (
        one("sidecast_captured_events_total", rising(0.2), outcome="dropped"),
        one("sidecast_captured_events_total", rising(50), outcome="stored"),
    ),
    "SidecastWorkersRestart": (
        one("sidecast_worker_restarts_total", rising(5 / 900)),
        one("sidecast_worker_restarts_total", rising(1 / 900)),
    ),
    "SidecastWorkersMissing": (one("sidecast_workers", steady(0)), one("sidecast_workers", steady(1))),
    "SidecastInjectionsDenied": (
        one("sidecast_injections_total", rising(0.01), outcome="denied"),
        one("sidecast_injections_total", rising(1), outcome="injected"),
    ),
}


def rules() -> dict[str, Any]:
    (found,) = (each for each in objects(render("gateway")) if each["kind"] == "PrometheusRule")
    return dict(found["spec"])


def judge(directory: Path, series: dict[str, str], wanted: dict[str, bool]) -> str:
    """Have promtool look at these series for an hour; give what it finds wrong.

    Args:
        directory: for its files.
        series: values of a sample each minute, by series.
        wanted: by the name of an alert whether it shall fire in the end.
    """
    (directory / "rules.yaml").write_text(yaml.safe_dump(rules()))
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing",{POD}}}) or vector(0)',
                    "eval_time": f"{MINUTES}m",
                    "exp_samples": [{"labels": "{}", "value": int(fires)}],
                }
                for name, fires in wanted.items()
            ],
        }
    ]
    path = directory / "tests.yaml"
    path.write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests})
    )
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "test", "rules", str(path)], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_every_alert_has_a_case() -> None:
    assert [rule["alert"] for group in rules()["groups"] for rule in group["rules"]] == list(CASES)


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize("alert", CASES)
def test_an_alert_fires_and_is_silent(alert: str, tmp_path: Path) -> None:
    bad, good = CASES[alert]
    # For what is wrong with one thing, no other alert fires.
    assert judge(tmp_path, bad, {name: name == alert for name in CASES}) == ""
    assert judge(tmp_path, good, dict.fromkeys(CASES, False)) == ""
