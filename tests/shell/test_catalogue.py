from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sidecast_broker.configuration import ENV_OF_CLIENTS, load
from sidecast_broker.settings import SETTINGS, Setting, Settings


def value_of(settings: Settings, setting: Setting) -> Any:
    return getattr(getattr(settings, setting.section), setting.key)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_is_described_and_its_default_passes_its_own_bounds(setting: Setting) -> None:
    assert setting.description.endswith(".")
    assert msgspec.convert(setting.default, setting.type) == setting.default
    if isinstance(setting.default, int | float) and not isinstance(setting.default, bool):
        bounded = any(meta.ge is not None for meta in setting.metas)
        assert bounded or setting.name == "nats.replicas"
        assert setting.key.endswith(
            (
                "_s",
                "_ms",
                "_bytes",
                "_max",
                "port",
                "backlog",
                "workers",
                "rate",
                "burst",
                "replicas",
                "_events",
            )
        )


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_name_and_environment_variable_correspond(setting: Setting) -> None:
    assert setting.env == "SIDECAST_" + setting.name.replace(".", "_").upper()
    assert setting.env not in ENV_OF_CLIENTS
    default = str(setting.default).lower() if isinstance(setting.default, bool) else str(setting.default)
    settings = load(None, {setting.env: default}, {})
    assert value_of(settings, setting) == setting.default
    assert settings.sources == {setting.name: f"env {setting.env}"}


def test_environment_variables_are_unambiguous() -> None:
    assert len({setting.env for setting in SETTINGS}) == len(SETTINGS)
