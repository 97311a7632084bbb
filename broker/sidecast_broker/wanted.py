"""What a request asks of its stream: where it begins, what it shows and how, at which pace.

Must not know tasks, nor who may watch them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import get_args

from aiohttp import web

from sidecast_broker.browser import BrowserView
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.core.pace import BadPace, Slow, parse_pace
from sidecast_broker.core.resume import STARTS, Start
from sidecast_broker.core.views import events
from sidecast_broker.refused import Refused
from sidecast_broker.settings import Settings
from sidecast_broker.takeover import wish_of

_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?")


class Wanted:
    """What a request asks of its stream.

    Raises:
        Refused: a parameter has no meaning here.
    """

    def __init__(
        self, request: web.BaseRequest, *, named: bool, settings: Settings, principal: Principal
    ) -> None:
        start = request.query.get("from", "snapshot")
        if start not in STARTS:
            raise Refused("bad-request", f"from must be one of {', '.join(STARTS)}")
        self.start: Start = start  # type: ignore[assignment]
        self.cursor = request.headers.get("Last-Event-ID") or request.query.get("last_event_id") or None
        self.wish = wish_of(request)
        self.wait_s = _seconds(request, "wait_s", settings.stream.wait_s_max)
        self.json = accepts(request, "application/json") and not accepts(request, "text/event-stream")
        try:
            wanted_filter = events.parse_filter(
                request.query.get("types"), "1" if flag(request, "debug", False) else None
            )
        except events.UnknownType as error:
            raise Refused("bad-request", f"types: {error}") from error
        self.view = _view(
            flag(request, "named", named),
            wanted_filter,
            _one_of(request, "heartbeat", ("comment", "event")) == "event",
            settings.stream.heartbeat_s,
            settings.stream.retry_ms,
            flag(request, "coalesce", False),
            _one_of(request, "batch", ("frames", "array")) == "array",
        )
        try:
            self.pace = parse_pace(request.query, settings.pace.bounds(principal))
        except BadPace as error:
            raise Refused("bad-request", str(error)) from error
        self.slow: Slow = _one_of(request, "slow", get_args(Slow))  # type: ignore[assignment]
        _one_of(request, "refusal", ("stream", "status"))

    @property
    def late_start(self) -> Start:
        """Where the stream of a task begins that began after the client came: all of it is new."""
        return "start" if self.start == "now" else self.start


@lru_cache(maxsize=256)
def _view(
    named: bool,
    wanted: events.Filter,
    heartbeat_event: bool,
    heartbeat_s: float,
    retry_ms: int,
    coalesced: bool,
    array: bool,
) -> BrowserView:
    """Give the view of these options; streams with the same ones share it."""
    return BrowserView(named, wanted, heartbeat_event, heartbeat_s, retry_ms, coalesced, array)


def flag(request: web.BaseRequest, name: str, default: bool) -> bool:
    """Read a parameter that says yes or no.

    Raises:
        Refused: it says something else.
    """
    value = request.query.get(name)
    if value is None:
        return default
    if value not in ("0", "1", "false", "true"):
        raise Refused("bad-request", f"{name} must be 0 or 1")
    return value in ("1", "true")


def _one_of(request: web.BaseRequest, name: str, values: tuple[str, ...]) -> str:
    value = request.query.get(name, values[0])
    if value not in values:
        raise Refused("bad-request", f"{name} must be one of {', '.join(values)}")
    return value


def _seconds(request: web.BaseRequest, name: str, maximum: float) -> float:
    text = request.query.get(name, "0")
    value = float(text) if _NUMBER.fullmatch(text) else -1.0
    if not 0 <= value <= maximum:
        raise Refused("bad-request", f"{name} must be a number of seconds from 0 to {maximum:g}")
    return value


def accepts(request: web.BaseRequest, media_type: str) -> bool:
    """Tell whether a request names a media type, given in lower case, among those it accepts."""
    return media_type in ",".join(request.headers.getall("Accept", ())).lower()
