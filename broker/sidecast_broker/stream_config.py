"""The stream's configuration: what the broker creates, what it can work with, and what differs.

Must not know connections.
"""

from __future__ import annotations

from typing import Any

from sidecast_broker.settings import Nats
from sidecast_schemas.subjects import EVENTS_PREFIX, LIVE_PREFIX

MAX_CONSUMERS = 100_000
"""Since 2.15 a stream that doesn't say how many consumers it allows has 1,000."""


def desired_config(settings: Nats) -> dict[str, Any]:
    """Give the configuration the broker creates its stream with, as the JetStream API spells it."""
    return {
        "name": settings.stream,
        "subjects": [f"{EVENTS_PREFIX}.>"],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_age": int(settings.max_age_s * 1e9),
        "max_bytes": settings.max_bytes,
        "max_consumers": MAX_CONSUMERS,
        "duplicate_window": int(settings.duplicate_window_s * 1e9),
        "num_replicas": settings.replicas,
        "allow_direct": True,
        "allow_atomic": True,
        "republish": {"src": f"{EVENTS_PREFIX}.>", "dest": f"{LIVE_PREFIX}.>"},
    }


def unusable_because(config: dict[str, Any]) -> list[str]:
    """Say what keeps the broker from working with a stream of this configuration; empty when nothing does."""
    reasons = []
    if f"{EVENTS_PREFIX}.>" not in config.get("subjects", ()):
        reasons.append(f"subjects must hold {EVENTS_PREFIX}.>")
    if (config.get("republish") or {}).get("dest") != f"{LIVE_PREFIX}.>":
        reasons.append(f"republish must go from {EVENTS_PREFIX}.> to {LIVE_PREFIX}.>")
    elif config["republish"].get("headers_only"):
        reasons.append("republish must carry whole messages, not headers only")
    if not config.get("allow_direct"):
        reasons.append("allow_direct must be on")
    if config.get("retention", "limits") != "limits":
        reasons.append("retention must be limits")
    return reasons


def differences(config: dict[str, Any], desired: dict[str, Any]) -> dict[str, str]:
    """Say where a stream differs from what the broker would create: setting → `is …, would be …`."""
    return {
        key: f"is {config.get(key)!r}, would be {value!r}"
        for key, value in desired.items()
        if config.get(key) != value
    }
