from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest

from bench.docs import PAGE, page_with
from bench.events import EVENT_BYTES, data, payload
from bench.numbers import NUMBERS, derived
from bench.picture import picture
from bench.results import Results, Taken, Target, medians, ratio, targets
from bench.scenarios import ALL, SCENARIOS, Scale
from bench.tables import durations_line, how_table, machine_line, numbers_table, targets_table
from sidecast_broker.core.fold import Fold
from sidecast_broker.core.log import Record
from sidecast_broker.core.views import events
from sidecast_schemas.codec import decode_event


def fanout(number: int, way: str, cpu: float, nats: float | None = None) -> Taken:
    values = {"cpu_us_per_delivery": cpu}
    return Taken(number, "fanout", way, values if nats is None else values | {"nats_us_per_delivery": nats})


def results(taken: list[Taken], **changes: object) -> Results:
    whole = Results(
        taken_at="2025-01-01T00:00Z",
        quick=False,
        machine={"cores": 2, "cpu": "A | B", "memory_gib": 8, "kernel": "6"},
        versions={"Python": "3.11"},
        scale=Scale(),
        missing={"nchan": "not installed"},
        taken=taken,
        medians=medians(taken),
        targets=targets(taken),
    )
    return msgspec.structs.replace(whole, **changes)


def judged(taken: list[Taken], name: str) -> Target:
    (found,) = (target for target in targets(taken) if name in target.name)
    return found


def test_medians_are_of_each_number_over_the_rounds() -> None:
    taken = [fanout(1, "floor", 9), fanout(2, "floor", 5), fanout(3, "floor", 7), fanout(1, "nchan", 3)]
    assert medians(taken) == {
        "fanout": {"floor": {"cpu_us_per_delivery": 7}, "nchan": {"cpu_us_per_delivery": 3}}
    }


def test_a_failed_round_counts_for_nothing() -> None:
    taken = [fanout(1, "floor", 9), Taken(2, "fanout", "floor", error="away")]
    assert medians(taken)["fanout"]["floor"] == {"cpu_us_per_delivery": 9}


def test_a_ratio_compares_within_a_round() -> None:
    # Every round is twice as slow as the one before, as on a machine that gets busy.
    taken = [
        taken
        for number, slow in ((1, 1), (2, 2), (3, 4))
        for taken in (fanout(number, "floor", 8 * slow), fanout(number, "sidecast", 10 * slow, 2 * slow))
    ]
    cpu = "cpu_us_per_delivery"
    assert ratio(taken, "fanout", ("sidecast", (cpu,)), ("floor", cpu)) == 1.25
    both = (cpu, "nats_us_per_delivery")
    assert ratio(taken, "fanout", ("sidecast", both), ("floor", cpu)) == 1.5


@pytest.mark.parametrize("missing", ["floor", "sidecast"])
def test_a_ratio_needs_both_ways_in_one_round(missing: str) -> None:
    taken = [fanout(1, "floor", 8), fanout(2, "sidecast", 9)]
    cpu = "cpu_us_per_delivery"
    assert ratio(taken, "fanout", ("sidecast", (cpu,)), ("floor", cpu)) is None
    assert (
        ratio([t for t in taken if t.way != missing], "fanout", ("sidecast", (cpu,)), ("floor", cpu)) is None
    )


@pytest.mark.parametrize(("cpu", "holds"), [(16.0, True), (16.1, False)])
def test_cpu_per_delivery_is_judged_by_the_floor(cpu: float, holds: bool) -> None:
    target = judged([fanout(1, "floor", 10), fanout(1, "sidecast", cpu, 5)], "one task")
    assert target.holds is holds
    assert f"{(cpu + 5) / 10:.2f} × with nats-server's own" in target.measured


@pytest.mark.parametrize(("ours", "holds"), [(120.0, True), (119.0, False)])
def test_throughput_is_judged_by_nchan(ours: float, holds: bool) -> None:
    taken = [
        Taken(1, "saturated", "nchan", {"deliveries_per_s": 100.0}),
        Taken(1, "saturated", "sidecast", {"deliveries_per_s": ours}),
    ]
    assert judged(taken, "nchan").holds is holds
    assert judged(taken[1:], "nchan").holds is None


@pytest.mark.parametrize(
    ("scenario", "number", "good", "bad"),
    [
        ("rpc", "cpu_ratio", 1.3, 1.31),
        ("idle", "rss_bytes_per_stream", 14_000, 14_001),
        ("idle", "cpu_us_per_accept", 400, 401),
        ("tasks", "lost", 0, 1),
        ("tasks", "p50_ms", 9.9, 10),
        ("history", "events_per_s", 20_000, 19_999),
        ("join", "warm_p50_ms", 2.9, 3),
        ("join", "cold_p50_ms", 9.9, 10),
        ("reconnect", "other_seconds", 10, 10.1),
        ("reconnect", "same_seconds", 10, 10.1),
        ("reconnect", "watcher_p99_ms", 499, 500),
        ("reconnect", "history_reads", 1, 2),
        ("reconnect", "lost", 0, 1),
    ],
)
def test_a_bound_holds_up_to_its_limit(scenario: str, number: str, good: float, bad: float) -> None:
    def holds(value: float) -> list[bool | None]:
        found = targets([Taken(1, scenario, "sidecast", {number: value})])
        return [target.holds for target in found if target.holds is not None]

    assert holds(good) == [True]
    assert holds(bad) == [False]


def test_what_is_lost_is_counted_together() -> None:
    assert derived("tasks", {"missing": 2.0, "holes": 1.0, "repeats": 4.0})["lost"] == 7
    views = {
        f"{name}_{key}": value
        for name, value in (("events", 1.0), ("rpc", 2.0))
        for key in ("missing", "holes", "repeats", "cpu_us_per_delivery")
    }
    found = derived("rpc", views)
    assert (found["lost"], found["cpu_ratio"]) == (9, 2)
    storm = {
        f"{name}_{key}": value
        for name, value in (("other", 1.0), ("same", 2.0))
        for key in (
            *("watcher_p99_ms", "history_reads_per_task_max", "cpu_us_per_reconnect"),
            *("holes", "repeats", "not_streaming"),
        )
    }
    found = derived("reconnect", storm)
    assert (found["lost"], found["watcher_p99_ms"], found["history_reads"]) == (9, 2, 1)


def test_every_number_belongs_to_a_scenario_and_says_how_it_is_taken() -> None:
    assert {number.scenario for number in NUMBERS} == set(SCENARIOS)
    assert all(number.how for number in NUMBERS)
    assert all(set(scenario.ways) <= set(ALL) for scenario in SCENARIOS.values())


def test_tables_show_what_was_measured_and_what_was_not() -> None:
    taken = [fanout(1, "floor", 10), fanout(1, "sidecast", 12.34, 1)]
    whole = results(taken)
    table = numbers_table(whole)
    assert "nchan (not installed)" in table.splitlines()[0]
    assert "| 1 task × 1,000 watchers, 50 events/s | CPU per delivery | 10.0 µs |  |  | 12.3 µs |" in table
    shown = targets_table(whole.targets)
    assert "| ≤ 1.6 × | 1.23 ×; 1.33 × with nats-server's own | yes |" in shown
    assert "not measured" in shown
    assert "2 cores of A | B" in machine_line(whole)


def test_the_time_of_a_scenario_is_that_of_all_its_rounds_also_of_those_that_failed() -> None:
    taken = [
        Taken(1, "fanout", "floor", seconds=10.2),
        Taken(1, "idle", "floor", seconds=4.0),
        Taken(2, "fanout", "floor", error="away", seconds=20.0),
    ]
    assert durations_line(taken) == "fanout 30 s, idle 4 s; 34 s altogether"


def test_the_picture_is_a_picture_of_every_way_measured() -> None:
    taken = [fanout(1, "floor", 10), fanout(1, "sidecast", 20)]
    root = ET.fromstring(picture(results(taken)))
    name = "{http://www.w3.org/2000/svg}rect"
    bars = [rect for rect in root.iter(name) if "bar" in rect.get("class", "")]
    assert [bar.get("class") for bar in bars] == ["bar", "bar ours"]
    assert float(bars[1].get("width", 0)) == pytest.approx(2 * float(bars[0].get("width", 0)))


def test_the_page_takes_the_results_of_a_run_and_tells_how_they_are_taken() -> None:
    text = PAGE.read_text()
    assert how_table(Scale()) in text, "stale: python -m bench.docs"
    page = page_with(text, results([fanout(1, "floor", 12.5)]))
    assert "12.5 µs" in page
    assert page_with(page, results([fanout(1, "floor", 12.5)])) == page


def test_results_survive_their_file(tmp_path: Path) -> None:
    whole = results([fanout(1, "floor", 10)])
    assert msgspec.json.decode(msgspec.json.encode(whole), type=Results) == whole


def test_all_servers_send_what_the_broker_makes_of_the_event() -> None:
    fold = Fold("bench-3")
    event = decode_event(payload(3, 1000))
    fold.apply(event, 1000)
    frame = events.encode(Record(1000, "2025-01-01T00:00:00.000Z", event), fold, "m0000000")
    assert frame is not None
    assert abs(len(frame.data) - EVENT_BYTES) < 20
    ours = msgspec.json.decode(frame.json)
    theirs = msgspec.json.decode(data(3, 1000))
    ours["metadata"].pop("ts")
    theirs["metadata"].pop("ts")
    assert ours == theirs
