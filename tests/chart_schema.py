"""Writes the schema of the chart's values: from the settings, and from the shape of values.yaml.

Must not know how a value is rendered.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import yaml

from sidecast_broker.agent_tables import AGENTS_MAX
from sidecast_broker.settings import SETTINGS

RAW = {"resources", "affinity", "podSelector", "nodeSelector", "labels", "annotations"}
RAW |= {"podAnnotations", "podLabels"}
BOUNDS: dict[str, dict[str, Any]] = {
    "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "controller": {"enum": ["nginx", "alb", "none"]},
    "method": {"enum": ["none", "webhook", "policy"]},
    "failurePolicy": {"enum": ["Fail", "Ignore"]},
    "reinvocationPolicy": {"enum": ["IfNeeded", "Never"]},
    "source": {"enum": ["generated", "cert-manager", "secret"]},
    "kind": {"enum": ["Issuer", "ClusterIssuer"]},
    "timeout_s": {"minimum": 1, "maximum": 30},
    "type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    "digest": {"pattern": "^(sha256:[0-9a-f]{64})?$"},
    "tag": {"not": {"const": "latest"}},
}


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _shape(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        if name in RAW:
            return {"type": "object"}
        return _closed({key: _shape(key, inner) for key, inner in value.items()})
    if isinstance(value, list):
        return {"type": "array"}
    kinds = {bool: "boolean", int: "integer", str: "string"}
    found: dict[str, Any] = {"type": kinds[type(value)], **BOUNDS.get(name, {})}
    if name == "port":
        found |= {"minimum": 1, "maximum": 65535}
    elif isinstance(value, int) and not isinstance(value, bool):
        found.setdefault("minimum", 0)
    return found


def _settings() -> dict[str, Any]:
    tables: dict[str, dict[str, Any]] = {}
    for setting in SETTINGS:
        shape = msgspec.json.schema(setting.type)
        if setting.name in ("server.port", "server.internal_port", "server.probe_port"):
            shape["minimum"] = 1024  # an unprivileged user can't listen on less, and probes need a number
        table = tables.setdefault(setting.section, {})
        if setting.masked != "whole":
            table[setting.key] = shape
    of_agents = {key: shape for key, shape in tables["agent"].items() if key != "name"}
    shapes = {section: _closed(table) for section, table in tables.items()}
    shapes["agents"] = {
        "type": "object",
        "maxProperties": AGENTS_MAX,
        "additionalProperties": _closed(of_agents),
    }
    return _closed(shapes)


def schema(values: dict[str, Any]) -> dict[str, Any]:
    """Give the schema of these default values, closed but for what Kubernetes defines."""
    properties = {name: _shape(name, value) for name, value in values.items()}
    properties["config"] = _settings()
    key = {"type": "string", "minLength": 1}
    secret = _closed({"name": key, "key": key}) | {"required": ["name", "key"]}
    properties["secretSettings"] = _closed({setting.name: secret for setting in SETTINGS})
    properties["global"] = {"type": "object"}
    return {"$schema": "http://json-schema.org/draft-07/schema#", **_closed(properties)}


def written(chart: Path) -> str:
    """Give the text of the schema's file."""
    return json.dumps(schema(yaml.safe_load((chart / "values.yaml").read_text())), indent=1) + "\n"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    (target / "values.schema.json").write_text(written(target))
