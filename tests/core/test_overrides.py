from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.configuration import load
from sidecast_broker.core.overrides import (
    AGENT_NAME,
    AGENT_PORT,
    AGENT_URL,
    STATUS,
    TENANT,
    InvalidOverride,
    read_overrides,
)

PORTS = (8480, 8481)


@pytest.mark.parametrize(
    ("annotations", "environment"),
    [
        ({}, {}),
        ({"example.com/agent-name": "x"}, {}),
        ({AGENT_NAME: "planner"}, {"SIDECAST_AGENT_NAME": "planner"}),
        ({AGENT_NAME: "Größe 1"}, {"SIDECAST_AGENT_NAME": "Größe 1"}),
        ({TENANT: "acme"}, {"SIDECAST_AGENT_TENANT": "acme"}),
        ({AGENT_PORT: "9000"}, {"SIDECAST_AGENT_URL": "http://127.0.0.1:9000"}),
        ({AGENT_PORT: "65535"}, {"SIDECAST_AGENT_URL": "http://127.0.0.1:65535"}),
        ({AGENT_URL: "http://[::1]:9000/a2a"}, {"SIDECAST_AGENT_URL": "http://[::1]:9000/a2a"}),
        ({AGENT_URL: "https://agent.example/"}, {"SIDECAST_AGENT_URL": "https://agent.example/"}),
        ({AGENT_URL: "http://other.example:8480"}, {"SIDECAST_AGENT_URL": "http://other.example:8480"}),
    ],
)
def test_what_annotations_set(annotations: dict[str, str], environment: dict[str, str]) -> None:
    assert read_overrides(annotations, PORTS).environment == environment


@pytest.mark.parametrize(
    ("annotations", "field"),
    [
        ({AGENT_NAME: ""}, AGENT_NAME),
        ({AGENT_NAME: "x" * 257}, AGENT_NAME),
        ({AGENT_NAME: "a\nb"}, AGENT_NAME),
        ({AGENT_NAME: "a\0"}, AGENT_NAME),
        ({AGENT_NAME: "\ud800"}, AGENT_NAME),
        ({AGENT_NAME: " a"}, AGENT_NAME),
        ({AGENT_NAME: "$(SIDECAST_TOKEN)"}, AGENT_NAME),
        ({TENANT: "$$"}, TENANT),
        ({TENANT: 1}, TENANT),
        ({TENANT: None}, TENANT),
        ({AGENT_PORT: "0"}, AGENT_PORT),
        ({AGENT_PORT: "65536"}, AGENT_PORT),
        ({AGENT_PORT: "08080"}, AGENT_PORT),
        ({AGENT_PORT: "٨٠٨٠"}, AGENT_PORT),
        ({AGENT_PORT: "8080\n"}, AGENT_PORT),
        ({AGENT_PORT: 8080}, AGENT_PORT),
        ({AGENT_PORT: "9" * 10_000}, AGENT_PORT),
        ({AGENT_PORT: "8480"}, AGENT_PORT),
        ({AGENT_PORT: "9000", AGENT_URL: "http://a"}, AGENT_PORT),
        ({AGENT_URL: ""}, AGENT_URL),
        ({AGENT_URL: "http://127.0.0.1:8481"}, AGENT_URL),
        ({AGENT_URL: "http://LOCALHOST:8480/x"}, AGENT_URL),
        ({AGENT_URL: "http://u:secret@agent"}, AGENT_URL),
        ({AGENT_URL: "http://agent?token=secret"}, AGENT_URL),
        ({AGENT_URL: "http://agent#secret"}, AGENT_URL),
        ({AGENT_URL: "http://agent/../secret"}, AGENT_URL),
        ({AGENT_URL: "http://agent/$(SECRET)"}, AGENT_URL),
        ({AGENT_URL: "http://agent:65536"}, AGENT_URL),
        ({AGENT_URL: "http://agent:0"}, AGENT_URL),
        ({AGENT_URL: "file:///secret"}, AGENT_URL),
        ({AGENT_URL: "http://agent/" + "a" * 100_000}, AGENT_URL),
        ({AGENT_URL: ["http://agent"]}, AGENT_URL),
    ],
)
def test_what_can_not_be_used_is_named_but_not_repeated(annotations: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidOverride, match=rf"^{field}: ") as raised:
        read_overrides(annotations, PORTS)
    assert "secret" not in str(raised.value).lower()
    assert len(str(raised.value)) < 200


def test_unknown_annotations_are_told() -> None:
    annotations = {"sidecast.dev/agent-nam": "x", "example.com/agent-nam": "x", STATUS: "x", AGENT_NAME: "a"}
    assert read_overrides(annotations, PORTS).unknown == ("sidecast.dev/agent-nam",)


TEXTS = st.text(max_size=30) | st.text("ab._-:/@[]019 $()?#%\\", max_size=40)
URLS = st.builds("{}{}".format, st.sampled_from(["http://", "https://", "http://a", "http://a:1/"]), TEXTS)


@given(
    st.fixed_dictionaries({}, optional={AGENT_NAME: TEXTS, TENANT: TEXTS, AGENT_URL: URLS}),
    st.none() | st.integers(-1, 70_000).map(str),
)
def test_the_broker_starts_with_whatever_passes(annotations: dict[str, str], port: str | None) -> None:
    if port is not None:
        annotations[AGENT_PORT] = port
    try:
        environment = read_overrides(annotations, PORTS).environment
    except InvalidOverride:
        return
    agent = load(None, environment, {}).agent
    if AGENT_NAME in annotations:
        assert agent.name == annotations[AGENT_NAME]
    assert agent.tenant == annotations.get(TENANT, "")
    if AGENT_URL in annotations:
        assert agent.url == annotations[AGENT_URL]
