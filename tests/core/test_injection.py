from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from injected_pods import NAMESPACE, SHAPES, TEMPLATE, annotated, keeps, patched, pod, template

from sidecast_broker.core.injection import (
    Injection,
    InvalidTemplate,
    MalformedPod,
    inject,
    read_template,
    shown,
)
from sidecast_broker.core.overrides import STATUS

TEMPLATE_READ = template()


def decide(made: dict[str, Any]) -> Injection:
    return inject(made, NAMESPACE, TEMPLATE_READ)


def names(containers: list[dict[str, Any]]) -> list[str]:
    return [container["name"] for container in containers]


# --- shapes of pods


@pytest.mark.parametrize("name", SHAPES)
def test_each_shape_becomes_what_it_must(name: str) -> None:
    shape = SHAPES[name]
    found = inject(shape.pod, shape.namespace, TEMPLATE_READ)
    assert (found.outcome, found.denial) == (shape.outcome, "")
    assert patched(shape.pod, found.patch) == shape.wanted(TEMPLATE["template"])


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("beside", "already"),
        ("other-namespace", "inject.namespaces"),
        ("host-network", "hostNetwork"),
        ("windows", "Windows"),
        ("windows-by-node", "Windows"),
        ("mirror", "kubelet"),
    ],
)
def test_who_is_left_alone_is_told_why(name: str, word: str) -> None:
    shape = SHAPES[name]
    (warning,) = inject(shape.pod, shape.namespace, TEMPLATE_READ).warnings
    assert word in warning


@pytest.mark.parametrize("name", ["plain", "existing", "injected", "not-asked", "refused"])
def test_nobody_else_is_warned(name: str) -> None:
    assert decide(pod(name)).warnings == ()


@pytest.mark.parametrize("kind", ["containers", "ephemeralContainers"])
def test_a_container_of_that_name_anywhere_counts(kind: str) -> None:
    made = pod("plain")
    made["spec"].setdefault(kind, []).append({"name": "sidecast-broker", "image": "own"})
    assert decide(made).outcome == "present"


@pytest.mark.parametrize(
    "labels", [None, {}, {"sidecast.dev/inject": "false"}, {"sidecast.dev/inject": ["true"]}]
)
def test_who_did_not_ask_hears_nothing(labels: Any) -> None:
    made = pod("plain")
    made["metadata"]["labels"] = labels
    assert decide(made) == Injection("ignored")


# --- overrides


def test_annotations_change_this_pod_only() -> None:
    made = annotated(agent_name="planner", tenant="acme", agent_port="9000")
    (container,) = patched(made, decide(made).patch)["spec"]["initContainers"]
    assert {variable["name"]: variable["value"] for variable in container["env"]} == {
        "SIDECAST_AGENT_NAME": "planner",
        "SIDECAST_AGENT_TENANT": "acme",
        "SIDECAST_AGENT_URL": "http://127.0.0.1:9000",
    }
    rest = {key: value for key, value in container.items() if key != "env"}
    assert rest == {key: value for key, value in TEMPLATE_READ.container.items() if key != "env"}
    assert template().container == TEMPLATE_READ.container, "the template is as it was"


def test_an_annotation_that_can_not_be_used_denies_the_pod() -> None:
    found = decide(annotated(agent_port="8480"))
    assert (found.outcome, found.patch) == ("denied", ())
    assert found.denial.startswith("sidecast.dev/agent-port: ")


def test_an_annotation_nobody_knows_is_a_warning() -> None:
    found = decide(annotated(agent_nme="planner"))
    assert found.outcome == "injected"
    assert "sidecast.dev/agent-nme means nothing" in found.warnings[0]


# --- what does not fit together


def test_a_volume_of_that_name_must_be_the_same() -> None:
    made = pod("plain")
    made["spec"].setdefault("volumes", []).append({"name": "sidecast-keys", "emptyDir": {}})
    found = decide(made)
    assert found.outcome == "denied"
    assert "sidecast-keys" in found.denial
    made["spec"]["volumes"][-1] = TEMPLATE_READ.volumes[0]
    after = patched(made, decide(made).patch)
    assert names(after["spec"]["volumes"]).count("sidecast-keys") == 1


def test_a_port_of_the_brokers_is_a_warning() -> None:
    made = pod("plain")
    made["spec"]["containers"][0]["ports"] += [
        {"containerPort": 8480},
        {"containerPort": 8481, "protocol": "UDP"},
    ]
    (warning,) = decide(made).warnings
    assert "container agent has port 8480" in warning


@pytest.mark.parametrize(("grace_s", "warns"), [(10, True), (20, False), (None, False)])
def test_too_short_a_grace_period_is_a_warning(grace_s: int | None, warns: bool) -> None:
    made = pod("plain")
    made["spec"]["terminationGracePeriodSeconds"] = grace_s
    assert bool(decide(made).warnings) is warns


def test_warnings_are_few_and_short_and_control_nothing() -> None:
    made = annotated(**{f"\n\x1b[2J{number}{'x' * 10_000}": "x" for number in range(100)})
    found = decide(made)
    assert len(found.warnings) <= 8
    assert all(warning.isprintable() and len(warning) < 300 for warning in found.warnings)
    assert shown("a\nü\ud800") == "a???"


# --- properties

TEXT = st.text(max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
NAMED = st.fixed_dictionaries(
    {"name": st.sampled_from(["a", "b", "sidecast-other"])},
    optional={"image": TEXT, "x": JSON, "ports": st.just([{"containerPort": 8480}]) | st.none()},
)
NAMED_LISTS = st.none() | st.lists(NAMED, max_size=3)
VOLUMES = st.none() | st.lists(NAMED | st.just(TEMPLATE["template"]["spec"]["volumes"][0]), max_size=3)
ANNOTATIONS = st.none() | st.dictionaries(TEXT, TEXT, max_size=3) | st.just({STATUS: "whatever"})
ANNOTATED = ANNOTATIONS | st.just({"sidecast.dev/agent-name": "a", "sidecast.dev/agent-port": "9000"})
SPECS = st.fixed_dictionaries(
    {"containers": st.lists(NAMED, min_size=1, max_size=3)},
    optional={
        "initContainers": NAMED_LISTS,
        "volumes": VOLUMES,
        "imagePullSecrets": NAMED_LISTS,
        "nodeSelector": st.none() | st.dictionaries(TEXT, TEXT, max_size=2),
        "hostNetwork": st.booleans(),
        "terminationGracePeriodSeconds": st.none() | st.integers(0, 60),
        "unheard": JSON,
    },
)
LABELS = st.dictionaries(TEXT, TEXT, max_size=2).map(lambda labels: {**labels, "sidecast.dev/inject": "true"})
METADATA = st.fixed_dictionaries({"labels": LABELS}, optional={"annotations": ANNOTATED, "name": TEXT})
PODS = st.fixed_dictionaries({"metadata": METADATA, "spec": SPECS})


@given(PODS)
def test_twice_is_once(made: dict[str, Any]) -> None:
    first = decide(made)
    after = patched(made, first.patch)
    second = decide(after)
    assert second.patch == ()
    if first.outcome == "injected":
        assert second == Injection("present")


@given(PODS)
def test_everything_that_was_written_is_kept(made: dict[str, Any]) -> None:
    before = json.dumps(made)
    after = patched(made, decide(made).patch)
    assert keeps(after, made)
    assert json.dumps(made) == before, "the pod itself is not touched"


@given(PODS)
def test_what_is_added_is_the_brokers_alone(made: dict[str, Any]) -> None:
    found = decide(made)
    if found.outcome != "injected":
        return
    paths = {operation["path"] for operation in found.patch}
    allowed = {"/spec/initContainers", "/spec/initContainers/0", "/spec/volumes", "/spec/volumes/-"}
    allowed |= {"/spec/imagePullSecrets", "/spec/imagePullSecrets/-"}
    allowed |= {"/metadata/annotations", "/metadata/annotations/sidecast.dev~1status"}
    assert paths <= allowed
    first = patched(made, found.patch)["spec"]["initContainers"][0]
    assert first["name"] == "sidecast-broker"


MEMBERS = [
    *("metadata", "spec", "labels", "annotations", "initContainers", "containers", "volumes", "ports", "os"),
    *("nodeSelector", "imagePullSecrets", "name", "terminationGracePeriodSeconds"),
]
HOSTILE = st.recursive(
    JSON | st.just({"sidecast.dev/inject": "true"}) | st.just([{"name": "sidecast-keys"}]),
    lambda inner: st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=5),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["metadata", "spec"]), HOSTILE), st.booleans())
def test_anything_else_is_malformed_or_decided(made: dict[str, Any], asks: bool) -> None:
    if asks and isinstance(made.get("metadata"), dict):
        made["metadata"]["labels"] = {"sidecast.dev/inject": "true"}
    try:
        found = inject(made, NAMESPACE, TEMPLATE_READ)
    except MalformedPod:
        return
    patched(made, found.patch)


@pytest.mark.parametrize(
    ("made", "field"),
    [
        ({"metadata": []}, "metadata"),
        ({"metadata": {"labels": "x"}}, "labels"),
        ({"metadata": {"annotations": ["x"]}}, "annotations"),
        ({"spec": "x"}, "spec"),
        ({"spec": None}, "spec"),
        ({"spec": {"initContainers": {}}}, "initContainers"),
        ({"spec": {"containers": ["x"]}}, "containers"),
        ({"spec": {"volumes": 1}}, "volumes"),
        ({"spec": {"os": "windows"}}, "os"),
        ({"spec": {"nodeSelector": []}}, "nodeSelector"),
    ],
)
def test_a_malformed_pod_is_told_by_the_field(made: dict[str, Any], field: str) -> None:
    whole = pod("plain")
    for part in made:
        whole[part] = whole[part] | made[part] if isinstance(made[part], dict) else made[part]
    with pytest.raises(MalformedPod, match=rf"^{field} must "):
        inject(whole, NAMESPACE, TEMPLATE_READ)


# --- the template


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"namespaces": [], "template": {}}',
        b'{"namespaces": 1, "template": 2}',
    ],
)
def test_what_is_no_template(text: bytes) -> None:
    with pytest.raises(InvalidTemplate):
        read_template(text)


@pytest.mark.parametrize(
    "changed",
    [
        {"initContainers": []},
        {"initContainers": [{"name": "other", "restartPolicy": "Always"}]},
        {"initContainers": [{"name": "sidecast-broker"}]},
        {
            "initContainers": [
                {"name": "sidecast-broker", "restartPolicy": "Always", "ports": [{"name": "x"}]}
            ]
        },
        {"volumes": ["x"]},
    ],
)
def test_a_template_of_another_pod_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(InvalidTemplate):
        template(**changed)


def test_a_template_without_labels_would_be_for_every_pod() -> None:
    document = {**TEMPLATE, "template": {**TEMPLATE["template"], "metadata": {"labels": {}}}}
    with pytest.raises(InvalidTemplate, match="labels"):
        read_template(json.dumps(document).encode())
