"""The answer that turns an EventSource away for a moment: it never comes back after a 429 or 503.

Must not know why there is no room, nor for what.
"""

from __future__ import annotations

import random

from aiohttp import hdrs, web

from sidecast_broker.core.views import events
from sidecast_broker.metrics import Metrics
from sidecast_broker.refused import Refused
from sidecast_broker.settings import Stream as StreamSettings
from sidecast_broker.wanted import accepts, flag


class Busy:
    """Turns clients away.

    Args:
        settings: say when they come back.
        metrics: where to count.
    """

    def __init__(self, settings: StreamSettings, metrics: Metrics) -> None:
        self._retry_ms = settings.retry_ms
        self._metrics = metrics

    def answer(
        self, request: web.BaseRequest, refused: Refused, *, named: bool = True
    ) -> web.Response | None:
        """Turn an EventSource away for a moment; None: whoever asks understands a status.

        Args:
            request: as it came.
            refused: why.
            named: whether frames of its path have names, where the request doesn't say.

        Raises:
            Refused: what it says of that means nothing.
        """
        if not _is_event_source(request):
            return None
        return web.Response(
            body=self.frame(refused, named=flag(request, "named", named)),
            headers={
                hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8",
                hdrs.CACHE_CONTROL: "no-store, no-transform",
                "X-Accel-Buffering": "no",
            },
        )

    def frame(self, refused: Refused, *, named: bool) -> bytes:
        """Give the frame that does so; each client is to come back at another time."""
        base_ms = max(self._retry_ms, round((refused.retry_after_s or 1) * 1000))
        reconnect_in_ms = round(base_ms * random.uniform(0.75, 1.75))
        self._metrics.rejected.labels(refused.reason).inc()
        return events.busy_frame(refused.reason, reconnect_in_ms, named=named).data


def _is_event_source(request: web.BaseRequest) -> bool:
    return accepts(request, "text/event-stream") and request.query.get("refusal") != "status"
