"""The chart as Helm renders it, once per way and test run.

Must not know what is wanted of it.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from image_tree import ROOT
from kubernetes_validate import utils as kubernetes_schemas

# Megabytes, which the library would parse anew for each object.
kubernetes_schemas.schema_contents = functools.cache(kubernetes_schemas.schema_contents)

CHART = ROOT / "helm" / "sidecast"
KUSTOMIZE = ROOT / "helm" / "kustomize"
HELM = str(Path(sys.executable).with_name("helm"))
SHAPES = sorted(path.stem for path in (CHART / "ci").glob("*.yaml"))
RELEASE, NAMESPACE = "r", "sidecast"
CONTAINER = "sidecast-broker"
APIS = [
    "--api-versions=cert-manager.io/v1/Certificate",
    "--api-versions=gateway.networking.k8s.io/v1/HTTPRoute",
    "--api-versions=monitoring.coreos.com/v1/PodMonitor",
    "--api-versions=monitoring.coreos.com/v1/PrometheusRule",
    "--api-versions=networking.istio.io/v1/VirtualService",
]
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
POLICY_API = "--api-versions=admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"


def helm(*args: str) -> subprocess.CompletedProcess[str]:
    """Run helm."""
    return subprocess.run([HELM, *args], capture_output=True, text=True, check=False)


def values_of(shape: str) -> str:
    """Give the path of a shape's values."""
    return str(CHART / "ci" / f"{shape}.yaml")


def rendered(*args: str, release: str = RELEASE, namespace: str = NAMESPACE, chart: Path = CHART) -> str:
    """Render the chart anew."""
    done = helm("template", release, str(chart), "--namespace", namespace, *APIS, POLICY_API, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def render(shape: str, *args: str, release: str = RELEASE) -> str:
    """Render a shape."""
    return rendered("-f", values_of(shape), *args, release=release)


def objects(text: str) -> list[dict[str, Any]]:
    """Give the objects of rendered text."""
    return [document for document in yaml.load_all(text, _LOADER) if document]


def pod_specs(found: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, str], dict[str, Any]]]:
    """Give all pods of these objects: kind of the object, labels and spec."""
    for one in found:
        if one["kind"] == "Pod":
            yield "Pod", one["metadata"].get("labels", {}), one["spec"]
        elif one["kind"] == "PodTemplate":
            yield "PodTemplate", one["template"]["metadata"]["labels"], one["template"]["spec"]
        elif one["kind"] == "Deployment":
            template = one["spec"]["template"]
            yield "Deployment", template["metadata"]["labels"], template["spec"]


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Give all containers of a pod."""
    return [*spec.get("initContainers", []), *spec["containers"]]


def broker_of(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Give the broker's container among these objects."""
    (one,) = (
        container
        for _kind, _labels, spec in pod_specs(found)
        for container in containers(spec)
        if container["name"] == CONTAINER
    )
    return dict(one)


def container(shape: str, *args: str) -> dict[str, Any]:
    """Give the broker's container of a shape."""
    return broker_of(objects(render(shape, *args)))
