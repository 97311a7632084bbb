"""Whether a pod gets the broker, and the JSON Patch (RFC 6902) that puts it there.

Must not know who asks, nor how the answer travels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeVar

from sidecast_broker.core.overrides import (
    KNOWN,
    STATUS,
    InvalidOverride,
    Overrides,
    read_overrides,
)
from sidecast_broker.core.strict_json import read_strictly

CONTAINER = "sidecast-broker"
"""Name of the container, whichever way it comes into a pod: who has one of that name gets no other."""
GRACE_S_DEFAULT = 30
"""What Kubernetes gives a pod that says nothing."""
SHOWN_MAX = 100
"""Characters of a pod's own text in a warning: nobody has validated it yet."""
WARNINGS_MAX = 8
"""The API server cuts all warnings together at 4 KiB."""

Outcome = Literal["injected", "present", "left", "ignored", "denied"]
Operation = dict[str, Any]
_Shape = TypeVar("_Shape", dict[str, Any], list[Any])


class InvalidTemplate(ValueError):  # noqa: N818 - named as the message reads
    """A template that makes no pod."""


class MalformedPod(ValueError):  # noqa: N818 - named as the answer reads: the pod is malformed
    """What should be a pod has another shape; the message names the field, and holds nothing of it."""


class Template(NamedTuple):
    """What is put into pods, and into which.

    Attributes:
        namespaces: where the broker's ConfigMap and Secrets are.
        labels: those a pod opts in with, all of them.
        container: the entry of `initContainers`.
        volumes: those its mounts name.
        pull_secrets: those its image needs.
        grace_s: seconds the broker needs after the agent has ended.
    """

    namespaces: frozenset[str]
    labels: dict[str, str]
    container: dict[str, Any]
    volumes: list[Any]
    pull_secrets: list[Any]
    grace_s: int

    @property
    def ports(self) -> list[int]:
        """The ports the broker listens on."""
        return [port["containerPort"] for port in self.container.get("ports", ())]


class Injection(NamedTuple):
    """What becomes of one pod.

    Attributes:
        outcome: in a word; `ignored` is a pod that never asked.
        patch: operations of a JSON Patch; empty: the pod stays as it is.
        warnings: for who makes the pod.
        denial: why there must be no such pod; empty: there may.
    """

    outcome: Outcome
    patch: tuple[Operation, ...] = ()
    warnings: tuple[str, ...] = ()
    denial: str = ""


def read_template(text: bytes) -> Template:
    """Read what the chart has rendered: `namespaces`, and `template`, a PodTemplateSpec.

    Raises:
        InvalidTemplate: it is anything else, or opts in every pod.
    """
    try:
        document = read_strictly(text)
        spec = document["template"]["spec"]
        (container,) = spec["initContainers"]
        found = Template(
            frozenset(document["namespaces"]),
            dict(document["template"]["metadata"]["labels"]),
            dict(container),
            list(spec.get("volumes", ())),
            list(spec.get("imagePullSecrets", ())),
            int(spec.get("terminationGracePeriodSeconds", 0)),
        )
        sound = (
            bool(found.labels)
            and found.container["name"] == CONTAINER
            and found.container["restartPolicy"] == "Always"
            and all(isinstance(port, int) for port in found.ports)
            and all(isinstance(volume["name"], str) for volume in found.volumes)
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidTemplate("is not the namespaces and the pod template of the chart") from error
    if not sound:
        raise InvalidTemplate(f"needs labels, and one native sidecar, named {CONTAINER}, with numbered ports")
    return found


def inject(pod: Mapping[str, Any], namespace: str, template: Template) -> Injection:
    """Decide about one pod. Done again with the patched pod, it changes nothing more.

    Args:
        pod: as its maker wrote it: nothing of it is validated yet.
        namespace: where it is made.
        template: what there is to put in.

    Raises:
        MalformedPod: it is no pod.
    """
    metadata, spec = _member(pod, "metadata", {}), _member(pod, "spec", {})
    labels = _member(metadata, "labels", {})
    annotations = _member(metadata, "annotations", {})
    if not template.labels.items() <= labels.items():
        return Injection("ignored")
    if not spec:
        raise MalformedPod("spec must say what the pod runs")
    if _is_there(spec):
        # Only who finds a container of unknown origin is told: the API server asks about each pod twice.
        known = STATUS in annotations
        warning = f"there is a container {CONTAINER} already; the pod is left as it is"
        return Injection("present", warnings=() if known else (warning,))
    reason = _reason_to_leave(namespace, spec, annotations, template)
    if reason:
        return Injection("left", warnings=(f"no broker is put into this pod: {reason}",))
    try:
        overrides = read_overrides(annotations, template.ports)
        patch = tuple(_patch(metadata, spec, overrides, template))
    except InvalidOverride as error:
        return Injection("denied", denial=str(error))
    warnings = _warnings(spec, overrides, template)
    return Injection("injected", patch, tuple(warnings)[:WARNINGS_MAX])


def shown(text: object) -> str:
    """Give text that somebody else wrote as it can stand in a line: bounded, and nothing that controls it."""
    letters = (
        letter if letter.isascii() and letter.isprintable() else "?" for letter in str(text)[:SHOWN_MAX]
    )
    return "".join(letters)


def _member(parent: Mapping[str, Any], name: str, empty: _Shape) -> _Shape:
    """Give a member of that shape; an empty one where there is none, or null, which means the same."""
    value = parent.get(name)
    if value is None:
        return empty
    if not isinstance(value, type(empty)):
        raise MalformedPod(f"{name} must be {'a list' if isinstance(empty, list) else 'an object'}")
    return value


def _objects(spec: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = _member(spec, name, [])
    if not all(isinstance(entry, dict) for entry in found):
        raise MalformedPod(f"{name} must hold objects")
    return found


def _is_there(spec: Mapping[str, Any]) -> bool:
    # All are looked at before the answer, so that what is malformed is so in every pod.
    names = [
        container.get("name")
        for kind in ("initContainers", "containers", "ephemeralContainers")
        for container in _objects(spec, kind)
    ]
    return CONTAINER in names


def _reason_to_leave(
    namespace: str, spec: Mapping[str, Any], annotations: Mapping[str, Any], template: Template
) -> str:
    system = _member(spec, "os", {}).get("name") or _member(spec, "nodeSelector", {}).get("kubernetes.io/os")
    if namespace not in template.namespaces:
        return "its namespace is not among inject.namespaces, so the broker's configuration is not there"
    if spec.get("hostNetwork") is True:
        return "with hostNetwork the broker would listen on the node's address"
    if system == "windows":
        return "the broker's image is for Linux, and the pod for Windows"
    if "kubernetes.io/config.mirror" in annotations:
        return "it shows what a kubelet runs from a file, and changes nothing there"
    return ""


def _patch(
    metadata: Mapping[str, Any], spec: Mapping[str, Any], overrides: Overrides, template: Template
) -> Iterator[Operation]:
    container = _with_environment(template.container, overrides.environment)
    if _objects(spec, "initContainers"):
        # First, so that init containers and the agent find it listening.
        yield _add("/spec/initContainers/0", container)
    else:
        yield _add("/spec/initContainers", [container])
    yield from _additions(spec, "volumes", template.volumes)
    yield from _additions(spec, "imagePullSecrets", template.pull_secrets)
    if not _member(metadata, "annotations", {}):
        yield _add("/metadata/annotations", {STATUS: "injected"})
    elif STATUS not in metadata["annotations"]:
        yield _add(f"/metadata/annotations/{STATUS.replace('/', '~1')}", "injected")


def _with_environment(container: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Give the container as it is, or with variables of its own, which go before those of its ConfigMap."""
    if not environment:
        return container
    kept = [variable for variable in container.get("env", ()) if variable["name"] not in environment]
    own = [{"name": name, "value": value} for name, value in environment.items()]
    return {**container, "env": [*kept, *own]}


def _additions(spec: Mapping[str, Any], name: str, wanted: list[Any]) -> Iterator[Operation]:
    there = _objects(spec, name)
    missing = []
    for entry in wanted:
        same = [other for other in there if other.get("name") == entry["name"]]
        if not same:
            missing.append(entry)
        elif entry not in same:
            raise InvalidOverride(f"spec.{name}: {entry['name']} is the name of one the broker needs")
    if missing and not there:
        yield _add(f"/spec/{name}", missing)
    elif missing:
        yield from (_add(f"/spec/{name}/-", entry) for entry in missing)


def _add(path: str, value: Any) -> Operation:
    return {"op": "add", "path": path, "value": value}


def _warnings(spec: Mapping[str, Any], overrides: Overrides, template: Template) -> Iterator[str]:
    for kind in ("initContainers", "containers"):
        for container in _objects(spec, kind):
            for port in _objects(container, "ports"):
                if port.get("containerPort") in template.ports and port.get("protocol", "TCP") == "TCP":
                    yield (
                        f"container {shown(container.get('name'))} has port {port['containerPort']}, "
                        "which the broker listens on at the same address"
                    )
    grace_s = spec.get("terminationGracePeriodSeconds")
    grace_s = GRACE_S_DEFAULT if grace_s is None else grace_s
    if isinstance(grace_s, int) and grace_s < template.grace_s:
        yield (
            f"terminationGracePeriodSeconds is {grace_s}: the broker alone needs {template.grace_s}, "
            "after the agent has ended"
        )
    for key in overrides.unknown:
        yield f"annotation {shown(key)} means nothing; there are {', '.join(KNOWN)}"
