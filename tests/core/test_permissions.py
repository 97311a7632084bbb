from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sidecast_broker.core.permissions import needed

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
ALL: dict[str, Any] = {
    "stream": "SIDECAST",
    "tenant": "",
    "agent": "planner",
    "manages": True,
    "captures": True,
    "has_agent": True,
    "keeps_messages": True,
    "authenticates": True,
}


def subjects(**changes: Any) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {"publish": set(), "subscribe": set()}
    for permission in needed(**(ALL | changes)):
        found[permission.direction].add(permission.subject)
    return found


def test_they_are_those_of_the_documentation() -> None:
    section = OPERATIONS.read_text().partition("## NATS permissions")[2]
    _, _, broker = section.partition("# the broker of that agent\n")
    publish, _, subscribe = broker.partition("```")[0].partition("subscribe:")
    documented = {
        direction: set(re.findall(r'"([^"]+)"', re.sub("#.*", "", text)))
        for direction, text in (("publish", publish), ("subscribe", subscribe))
    }
    assert subjects() == documented


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"manages": False}, r"STREAM\.(CREATE|UPDATE)\."),
        ({"captures": False}, r"\.captors\."),
        ({"has_agent": False}, "_MESSAGES"),
        ({"keeps_messages": False}, "_MESSAGES"),
        ({"authenticates": False}, "_REVOKED"),
    ],
)
def test_what_is_not_used_is_not_needed(changes: dict[str, Any], gone: str) -> None:
    before, after = subjects(), subjects(**changes)
    for direction, all_of in before.items():
        assert after[direction] == {each for each in all_of if not re.search(gone, each)}


def test_names_are_encoded_as_subjects_are() -> None:
    found = subjects(tenant="acme corp", agent="a.*")["subscribe"]
    (live,) = (each for each in found if each.startswith("sidecast.v1.live."))
    assert live == "sidecast.v1.live.=YWNtZSBjb3Jw.=YS4q.*"
