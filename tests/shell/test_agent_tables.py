"""Settings of the agents beside the one of `agent.name`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.agent_tables import AGENTS_MAX
from sidecast_broker.commands.config import describe
from sidecast_broker.configuration import InvalidSettings, load
from sidecast_broker.settings import Agent, Settings

FILE = b"""
[agent]
name = "first"
tenant = "acme"
url = "http://first:1"
capture = "proxy"
timeout_s = 7
passthrough = "/docs"

[agents.second]
url = "http://second:2/base"

[agents.third]
tenant = "other"
timeout_s = 9.5
"""


def of_environment(agents: Any, **others: str) -> Settings:
    return load(None, {"SIDECAST_AGENTS": json.dumps(agents), **others}, {})


def problem(file: bytes | None = None, agents: str | None = None) -> str:
    environ = {} if agents is None else {"SIDECAST_AGENTS": agents}
    with pytest.raises(InvalidSettings) as caught:
        load(file, environ, {})
    (said,) = caught.value.problems
    return said


def test_what_an_agent_leaves_out_is_as_the_first_ones_but_never_its_url() -> None:
    agents = load(FILE, {}, {}).agents
    second = Agent("second", "acme", "http://second:2/base", "proxy", "/docs", 7, 60)
    # Without a URL there is nothing to capture, and nothing to pass to.
    third = Agent("third", "other", "", "adapter", "", 9.5, 60)
    assert agents == {"second": second, "third": third}


def test_each_is_served_by_settings_of_its_own_the_default_first() -> None:
    several = load(FILE, {}, {}).of_agents
    assert [each.agent.name for each in several] == ["first", "second", "third"]
    assert all(each.agents == {} for each in several)
    assert load(None, {}, {}).of_agents == (Settings(),)


def test_the_environment_goes_before_the_file_as_a_whole() -> None:
    settings = load(FILE, {"SIDECAST_AGENTS": '{"team/b": {"url": "http://b", "card_s": 5}}'}, {})
    assert settings.agents == {"team/b": Agent("team/b", "acme", "http://b", "proxy", "/docs", 7, 5)}
    assert settings.sources["agents.team/b.card_s"] == "env SIDECAST_AGENTS"
    assert load(FILE, {"SIDECAST_AGENTS": "{}"}, {}).agents == {}


def test_what_is_shown_is_a_settings_file_again_and_says_where_from() -> None:
    settings = load(FILE, {"SIDECAST_AGENTS": '{"tea.m \\"b\\"": {"url": "http://b"}, "c": {}}'}, {})
    lines = list(describe(settings))
    again = load("\n".join(lines).encode(), {}, {})
    assert again.agents == settings.agents
    assert "[agents.c]" in lines
    assert 'url = "http://b"  # env SIDECAST_AGENTS' in lines
    assert "timeout_s = 7  # agent" in lines


@pytest.mark.parametrize(
    ("agents", "says"),
    [
        ('{"b": {"ulr": "http://b"}}', "agents.b.ulr: there is no such setting; the nearest is agents.b.url"),
        ('{"b": {"name": "c"}}', "agents.b.name: there is no such setting; the nearest is agents.b."),
        ('{"b": {"timeout_s": "5"}}', "agents.b.timeout_s: Expected `float`"),
        ('{"b": {"timeout_s": 0}}', "agents.b.timeout_s: Expected `float` >= 0.1"),
        ('{"b": {"url": "ftp://b"}}', "agents.b.url: 'ftp://b' is not http"),
        ('{"b": {"url": "http://me:pw@b"}}', "agents.b.url: 'http://********@b' is not"),
        ('{"b": {"capture": "proxy"}}', "agents.b.capture: proxy needs agents.b.url"),
        ('{"b": {"passthrough": "/x"}}', "agents.b.passthrough: needs agents.b.url"),
        ('{"b": {"url": "http://b", "passthrough": "/../x"}}', "agents.b.passthrough: '/../x' is not a path"),
        ('{"b": {"tenant": "\\ud800"}}', "agents.b.tenant: "),
        ('{"b": 1}', "agents.b: is a table, written [agents.NAME]"),
        ('{"agent": {}}', "agents.agent: is agent.name, which [agent] describes"),
        ('{"": {}}', "agents.: "),
        ('{"..": {}}', "agents...: can't be a segment of a path"),
        ('{"a\\nb": {}}', "must not hold control characters"),
        (json.dumps({"x" * 257: {}}), "256"),
        ('{"b": {}, "b": {}}', "agents: SIDECAST_AGENTS is no JSON: a member stands twice"),
        ("[]", "agents: holds tables, written [agents.NAME]"),
        ("{", "agents: SIDECAST_AGENTS is no JSON"),
        ("[" * 100_000, "agents: SIDECAST_AGENTS is no JSON"),
        (json.dumps({f"a{n}": {} for n in range(AGENTS_MAX + 1)}), f"at most {AGENTS_MAX}"),
    ],
)
def test_what_can_not_be_started_with_names_the_setting(agents: str, says: str) -> None:
    assert says in problem(agents=agents)


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (b"agents = 3", "agents: holds tables, written [agents.NAME]"),
        (b"[agents]\nb = 3", "agents.b: is a table, written [agents.NAME]"),
        (b"[agents.b]\nurl = 3", "agents.b.url: Expected `str`"),
        (b"[agetns.b]\nurl = 'http://b'", "agetns: there is no such section; the nearest is agents"),
    ],
)
def test_a_file_is_read_as_strictly(file: bytes, says: str) -> None:
    assert says in problem(file)


def test_a_misspelt_variable_has_this_one_among_the_nearest() -> None:
    with pytest.raises(InvalidSettings, match=r"SIDECAST_AGENST: .* nearest is SIDECAST_AGENTS"):
        load(None, {"SIDECAST_AGENST": "{}"}, {})


def test_as_many_as_may_be_are_served() -> None:
    assert len(of_environment({f"a{n}": {} for n in range(AGENTS_MAX)}).agents) == AGENTS_MAX


@given(st.text(min_size=1, max_size=60))
def test_any_printable_name_is_one_and_stays_what_it_is(name: str) -> None:
    if name in (".", "..", "agent") or not name.isprintable():
        assert name in problem(agents=json.dumps({name: {}}))
    else:
        assert list(of_environment({name: {}}).agents) == [name]
