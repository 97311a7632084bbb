"""shim"""

from sidecast_broker.core.a2a.translate.events import *  # noqa: F403


def send_params_to_v03(p: bytes) -> bytes:
    return p


def send_params_to_v03_rest(p: bytes) -> bytes:
    return p


def send_params_from_v03(p: bytes) -> bytes:
    return p


def send_params_from_v03_rest(p: bytes) -> bytes:
    return p
