"""Between A2A v1.0 and v0.3, in JSON-RPC and in REST form: on raw JSON, so that nothing is lost.

Must not know HTTP, SSE, JSON-RPC's envelope, errors or agent cards.
"""

from sidecast_broker.core.a2a.translate.events import (
    message_from_v03,
    message_to_v03,
    response_from_v03,
    response_to_v03,
    task_from_v03,
    task_to_v03,
)
from sidecast_broker.core.a2a.translate.raw import HELD, Untranslatable
from sidecast_broker.core.a2a.translate.requests import params_from_v03, params_to_v03
from sidecast_broker.core.a2a.translate.results import result_from_v03, result_to_v03

__all__ = [
    "HELD",
    "Untranslatable",
    "message_from_v03",
    "message_to_v03",
    "params_from_v03",
    "params_to_v03",
    "response_from_v03",
    "response_to_v03",
    "result_from_v03",
    "result_to_v03",
    "task_from_v03",
    "task_to_v03",
]
