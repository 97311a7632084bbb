"""Results as a picture: bars of each way, drawn as SVG.

Must not know how anything was measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from xml.sax.saxutils import escape

from bench.results import BROKER, Results
from bench.scenarios import ALL
from bench.tables import titles

WIDTH = 720
_LABEL, _BAR, _ROW, _GAP = 160, 410, 24, 58

_STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 15px }
.note { fill: #57606a; font-size: 12px }
.bar { fill: #8c959f }
.ours { fill: #0969da }
.page { fill: #ffffff }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .note { fill: #8d96a0 } .bar { fill: #6e7681 } .ours { fill: #4493f8 }
  .page { fill: #0d1117 }
}"""

_NAMES = {
    "floor": "send() in C",
    "plain": "aiohttp-sse + queue",
    "nchan": "nginx + nchan",
    "sidecast": "Sidecast + NATS",
}


class Panel(NamedTuple):
    """One group of bars."""

    scenario: str
    number: str
    title: str
    better: str
    show: Callable[[float], str]


PANELS = (
    Panel("fanout", "cpu_us_per_delivery", "CPU per delivery", "less is better", lambda v: f"{v:.1f} µs"),
    Panel("saturated", "deliveries_per_s", "Deliveries per second", "more is better", lambda v: f"{v:,.0f}"),
    Panel(
        "idle", "rss_bytes_per_stream", "Memory per stream", "less is better", lambda v: f"{v / 1000:.1f} KB"
    ),
    Panel("idle", "cpu_us_per_accept", "CPU to accept a stream", "less is better", lambda v: f"{v:.0f} µs"),
)


def picture(results: Results) -> str:
    """Draw the medians of the numbers that all ways have."""
    title_of = titles(results.scale)
    parts: list[str] = []
    top = 20
    for panel in PANELS:
        values = {
            way: numbers[panel.number]
            for way in ALL
            if panel.number in (numbers := results.medians.get(panel.scenario, {}).get(way, {}))
        }
        if not values:
            continue
        note = f"{title_of[panel.scenario]}; {panel.better}"
        parts.append(f'<text class="title" x="16" y="{top + 8}">{escape(panel.title)}</text>')
        parts.append(f'<text class="note" x="16" y="{top + 26}">{escape(note)}</text>')
        parts += _bars(values, panel, top + 36)
        top += len(values) * _ROW + _GAP
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" '
        f'role="img" aria-label="Benchmark results">\n<style>\n{_STYLE}\n</style>\n'
        f'<rect class="page" width="{WIDTH}" height="{top}"/>\n{body}\n</svg>\n'
    )


def _bars(values: dict[str, float], panel: Panel, top: int) -> list[str]:
    largest = max(values.values()) or 1.0
    parts = []
    for row, (way, value) in enumerate(values.items()):
        y = top + row * _ROW
        width = max(1.0, value / largest * _BAR)
        style, height = "bar ours" if way == BROKER else "bar", _ROW - 8
        parts += [
            f'<text x="16" y="{y + 14}">{escape(_NAMES[way])}</text>',
            f'<rect class="{style}" x="{_LABEL}" y="{y + 2}" width="{width:.1f}" height="{height}" rx="2"/>',
            f'<text x="{_LABEL + width + 8:.1f}" y="{y + 14}">{escape(panel.show(value))}</text>',
        ]
    return parts
