"""Pods an injector is asked about, a template, and what a patch makes of a pod.

Must not know who decides.
"""

from __future__ import annotations

import base64
import copy
import functools
import json
from typing import Any

import jsonpatch
import kubernetes_validate
from kubernetes_validate import utils as kubernetes_schemas
from pod_shapes import PodShape, pod_shapes

from sidecast_broker.core.injection import Template, read_template

# Megabytes, which the library would parse anew for each object.
kubernetes_schemas.schema_contents = functools.cache(kubernetes_schemas.schema_contents)

VERSIONS = ("1.29", "1.33", "1.36", "1.37")
SHAPES: dict[str, PodShape] = {shape.name: shape for shape in pod_shapes()}
NAMESPACE = "agents"

TEMPLATE: dict[str, Any] = {
    "namespaces": [NAMESPACE],
    "template": {
        "metadata": {"labels": {"sidecast.dev/inject": "true"}},
        "spec": {
            "initContainers": [
                {
                    "name": "sidecast-broker",
                    "image": "sidecast:0.1.0",
                    "restartPolicy": "Always",
                    "envFrom": [{"configMapRef": {"name": "sidecast"}}],
                    "env": [{"name": "SIDECAST_AGENT_TENANT", "value": "of-all"}],
                    "ports": [
                        {"name": "sidecast", "containerPort": 8480, "protocol": "TCP"},
                        {"name": "sidecast-int", "containerPort": 8481, "protocol": "TCP"},
                    ],
                    "volumeMounts": [{"name": "sidecast-keys", "mountPath": "/etc/keys", "readOnly": True}],
                }
            ],
            "volumes": [{"name": "sidecast-keys", "secret": {"secretName": "keys"}}],
            "imagePullSecrets": [{"name": "registry"}],
            "terminationGracePeriodSeconds": 20,
        },
    },
}


def template(**changed: Any) -> Template:
    """Give the template, with these members of its spec."""
    document = copy.deepcopy(TEMPLATE)
    document["template"]["spec"].update(changed)
    return read_template(json.dumps(document).encode())


def pod(shape: str) -> dict[str, Any]:
    """Give a pod of `helm/pods`."""
    return copy.deepcopy(SHAPES[shape].pod)


def annotated(shape: str = "plain", **annotations: str) -> dict[str, Any]:
    """Give such a pod with annotations of ours; `_` stands for `-`."""
    found = pod(shape)
    ours = {f"sidecast.dev/{name.replace('_', '-')}": value for name, value in annotations.items()}
    found["metadata"].setdefault("annotations", {}).update(ours)
    return found


def review(made: Any, *, namespace: str = NAMESPACE, **changed: Any) -> dict[str, Any]:
    """Give the question about a pod as the API server asks it."""
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
        "requestResource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": namespace,
        "operation": "CREATE",
        "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
        "object": made,
        "oldObject": None,
        "dryRun": False,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        **changed,
    }
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}


def patched(made: dict[str, Any], operations: Any) -> dict[str, Any]:
    """Apply a patch to a copy of a pod."""
    found = jsonpatch.apply_patch(copy.deepcopy(made), copy.deepcopy(list(operations)))
    assert isinstance(found, dict)
    return found


def patched_by(made: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """Apply the patch of an answer, if there is one."""
    response = answer["response"]
    operations = json.loads(base64.b64decode(response.get("patch", "W10=")))
    return patched(made, operations)


def keeps(after: Any, before: Any) -> bool:
    """Tell whether everything somebody wrote is still there, lists in their order."""
    if isinstance(before, dict) and isinstance(after, dict):
        return all(key in after and keeps(after[key], value) for key, value in before.items())
    if isinstance(before, list) and isinstance(after, list):
        rest = iter(after)
        return all(any(keeps(entry, wanted) for entry in rest) for wanted in before)
    # An absent member, null and an empty one say the same.
    return before is None or (type(before) is type(after) and before == after)


def validate(document: dict[str, Any]) -> None:
    """Check that an object has the shape of its kind in each version of Kubernetes there is a chart for."""
    for version in VERSIONS:
        kubernetes_validate.validate(document, version, strict=True)
