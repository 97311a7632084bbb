"""Shapes of pods that ask for the broker, or don't, and the pod that each must become.

Must not know which way the broker gets into a pod.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, NamedTuple

import yaml

PODS = Path(__file__).with_name("helm") / "pods"
RELEASE_NAMESPACE = "agents"
STATUS = "sidecast.dev/status"


class PodShape(NamedTuple):
    """One pod as its maker sends it.

    Attributes:
        name: of the file it is in.
        outcome: `injected`, `present`, `left` or `ignored`.
        namespace: where it is made.
        pod: the object.
    """

    name: str
    outcome: str
    namespace: str
    pod: dict[str, Any]

    def wanted(self, template: dict[str, Any]) -> dict[str, Any]:
        """Give the pod it must become.

        Args:
            template: the pod template the chart renders: `metadata` and `spec`.
        """
        pod = copy.deepcopy(self.pod)
        if self.outcome != "injected":
            return pod
        spec, ours = pod["spec"], template["spec"]
        spec["initContainers"] = [*ours["initContainers"], *spec.get("initContainers", [])]
        for name in ("volumes", "imagePullSecrets"):
            there = spec.get(name, [])
            missing = [entry for entry in ours.get(name, []) if entry not in there]
            if missing:
                spec[name] = [*there, *missing]
        pod["metadata"].setdefault("annotations", {})[STATUS] = "injected"
        return pod


def pod_shapes() -> list[PodShape]:
    """Give all shapes, by name."""
    return [PodShape(path.stem, **yaml.safe_load(path.read_text())) for path in sorted(PODS.glob("*.yaml"))]
