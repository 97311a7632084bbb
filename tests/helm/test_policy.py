"""The admission policy: its expressions give the pods that the webhook gives.

The expressions are evaluated by cel-python, and the patches by jsonpatch, as an API server does both.
Not proved here: that an API server takes a PodTemplate as parameter.
"""

from __future__ import annotations

import copy
import functools
import json
import re
from typing import Any

import celpy
import jsonpatch
import kubernetes_validate
import pytest
from celpy import celtypes
from chart import CHART, container, helm, objects, render, rendered, values_of
from pod_shapes import RELEASE_NAMESPACE, PodShape, pod_shapes

from sidecast_broker.core.injection import inject, read_template

SHAPES = pod_shapes()
IN_NAMESPACE = ("--namespace", RELEASE_NAMESPACE)


@functools.cache
def policy() -> dict[str, dict[str, Any]]:
    """Give the three objects by kind, the parameter among them."""
    return {one["kind"]: one for one in objects(render("policy", *IN_NAMESPACE))}


@functools.cache
def compiled(expression: str) -> celpy.Runner:
    environment = celpy.Environment(annotations={"JSONPatch": celtypes.MapType})
    return environment.program(environment.compile(expression))


def evaluate(expression: str, pod: dict[str, Any], template: dict[str, Any]) -> Any:
    """Evaluate one expression, as JSON."""
    found = compiled(expression).evaluate(
        {"object": celpy.json_to_cel(pod), "params": celpy.json_to_cel(template)}
    )
    return json.loads(json.dumps(found, cls=celpy.CELJSONEncoder))


def admitted(shape: PodShape) -> dict[str, Any]:
    """Give what becomes of a pod."""
    found = policy()
    spec = found["MutatingAdmissionPolicy"]["spec"]
    pod = copy.deepcopy(shape.pod)
    constraints = spec["matchConstraints"]
    namespace_labels = {"kubernetes.io/metadata.name": shape.namespace}
    if not constraints["namespaceSelector"]["matchLabels"].items() <= namespace_labels.items():
        return pod
    if not constraints["objectSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items():
        return pod
    template = found["PodTemplate"]
    if not all(evaluate(one["expression"], pod, template) for one in spec["matchConditions"]):
        return pod
    for mutation in spec["mutations"]:
        assert mutation["patchType"] == "JSONPatch"
        # Each sees what the one before has made of the pod.
        pod = jsonpatch.apply_patch(pod, evaluate(mutation["jsonPatch"]["expression"], pod, template))
    return pod


@pytest.mark.parametrize("shape", SHAPES, ids=[shape.name for shape in SHAPES])
def test_each_pod_becomes_what_it_must(shape: PodShape) -> None:
    after = admitted(shape)
    assert after == shape.wanted(policy()["PodTemplate"]["template"])
    assert (after == shape.pod) is (shape.outcome != "injected")
    for version in ("1.36", "1.37"):
        kubernetes_validate.validate(after, version, strict=True)


@pytest.mark.parametrize("shape", SHAPES, ids=[shape.name for shape in SHAPES])
def test_the_webhook_gives_the_same_pod(shape: PodShape) -> None:
    document = {"namespaces": [RELEASE_NAMESPACE], "template": policy()["PodTemplate"]["template"]}
    injection = inject(shape.pod, shape.namespace, read_template(json.dumps(document).encode()))
    patch = copy.deepcopy(list(injection.patch))
    assert jsonpatch.apply_patch(copy.deepcopy(shape.pod), patch) == admitted(shape)


@pytest.mark.parametrize("shape", SHAPES, ids=[shape.name for shape in SHAPES])
def test_done_again_it_changes_nothing_more(shape: PodShape) -> None:
    after = admitted(shape)
    assert admitted(shape._replace(pod=after)) == after


def test_every_outcome_is_among_the_shapes() -> None:
    assert {shape.outcome for shape in SHAPES} == {"injected", "present", "left", "ignored"}


def test_the_parameter_holds_the_container_of_the_chart() -> None:
    found = policy()
    template = found["PodTemplate"]["template"]
    (ours,) = template["spec"]["initContainers"]
    assert ours == container("policy")
    assert template["spec"]["volumes"]
    assert template["spec"]["imagePullSecrets"]
    reference = found["MutatingAdmissionPolicyBinding"]["spec"]["paramRef"]
    assert reference == {
        "name": found["PodTemplate"]["metadata"]["name"],
        "namespace": RELEASE_NAMESPACE,
        "parameterNotFoundAction": "Deny",
    }
    spec = found["MutatingAdmissionPolicy"]["spec"]
    assert spec["paramKind"] == {"apiVersion": "v1", "kind": found["PodTemplate"]["kind"]}
    name = found["MutatingAdmissionPolicy"]["metadata"]["name"]
    assert found["MutatingAdmissionPolicyBinding"]["spec"]["policyName"] == name


def test_no_expression_writes_a_map_down() -> None:
    # In Kubernetes all values of such a literal have one type; cel-python takes what it refuses.
    spec = policy()["MutatingAdmissionPolicy"]["spec"]
    expressions = [one["expression"] for one in spec["matchConditions"]]
    expressions += [one["jsonPatch"]["expression"] for one in spec["mutations"]]
    for expression in expressions:
        assert not re.search(r"(?<!JSONPatch)\{", expression)


def test_without_secrets_nothing_is_said_of_volumes() -> None:
    found = objects(rendered("--set", "inject.method=policy"))
    (spec,) = (one["spec"] for one in found if one["kind"] == "MutatingAdmissionPolicy")
    assert len(spec["mutations"]) == 2
    assert "volumes" not in json.dumps(spec)


def test_an_older_cluster_is_told_what_else_there_is() -> None:
    done = helm(
        "template", "r", str(CHART), "-f", values_of("policy"), "--set", "monitoring.podMonitor.enabled=false"
    )
    assert done.returncode != 0
    assert "inject.method: policy needs" in done.stderr
    assert "webhook" in done.stderr


def test_only_the_policy_and_the_webhook_reach_beyond_the_namespace() -> None:
    cluster_scoped = {
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
        "MutatingWebhookConfiguration",
        "ClusterRole",
        "ClusterRoleBinding",
        "Namespace",
        "CustomResourceDefinition",
    }
    wanted = {
        "agent": set(),
        "attach": set(),
        "gateway": set(),
        "policy": {"MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"},
        "webhook": {"MutatingWebhookConfiguration"},
    }
    for shape, kinds in wanted.items():
        assert {one["kind"] for one in objects(render(shape))} & cluster_scoped == kinds
