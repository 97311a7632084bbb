"""Writes the table of the chart's README: its values, from the comments in values.yaml.

Must not know what a value does.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

START, END = "<!-- values:start -->", "<!-- values:end -->"


class Value(NamedTuple):
    """One value that has a comment.

    Attributes:
        path: its keys.
        text: what the comment says.
    """

    path: tuple[str, ...]
    text: str


def described(text: str) -> Iterator[Value]:
    """Give the values that a comment begun with `# --` stands above."""
    path: list[str] = []
    said: list[str] = []
    for line in text.splitlines():
        if comment := re.match(r" *# (-- )?(.+)", line):
            if comment[1] or said:
                said.append(comment[2])
        elif key := re.match(r"( *)([A-Za-z_]+):", line):
            path[len(key[1]) // 2 :] = [key[2]]
            if said:
                yield Value(tuple(path), " ".join(said))
            said = []


def table(text: str) -> str:
    """Give the table of these values."""
    values = yaml.safe_load(text)
    lines = ["| value | default | |", "|---|---|---|"]
    for found in described(text):
        default: Any = values
        for key in found.path:
            default = default[key]
        shown = "" if isinstance(default, dict) and default else f"`{json.dumps(default)}`"
        text = found.text.replace("|", r"\|")
        lines.append(f"| `{'.'.join(found.path)}` | {shown} | {text} |")
    return "\n".join(lines)


def written(chart: Path) -> str:
    """Give the text of the README with its table made anew."""
    readme = (chart / "README.md").read_text()
    before, _, rest = readme.partition(START)
    after = rest.partition(END)[2]
    return f"{before}{START}\n{table((chart / 'values.yaml').read_text())}\n{END}{after}"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    (target / "README.md").write_text(written(target))
