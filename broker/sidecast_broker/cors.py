"""What every answer of a listener says of itself, and which web pages may read it or change anything.

Must not know what is asked for.
"""

from __future__ import annotations

from aiohttp import hdrs, web
from aiohttp.http import SERVER_SOFTWARE

from sidecast_broker.core.a2a.wire import EXTENSIONS_HEADERS, VERSION_HEADER
from sidecast_broker.core.origins import Origins, origins_of
from sidecast_broker.refused import Refused
from sidecast_broker.settings import Server

SERVER = "sidecast"
"""Names no versions: they would say which faults to try."""
PREFLIGHT_S = 600

_A2A_HEADERS = (VERSION_HEADER, *EXTENSIONS_HEADERS)
_SENT = ("Accept", "Authorization", "Cache-Control", "Content-Type", "Last-Event-ID", "X-API-Key")
_OURS = ("Sidecast-Subscription",)
_REQUEST_HEADERS = ", ".join((*_SENT, *_OURS, *_A2A_HEADERS))
_EXPOSED_HEADERS = ", ".join(("ETag", "Retry-After", "WWW-Authenticate", *_A2A_HEADERS))
_OTHER_SITES = ("cross-site", "same-site")


def tell_safe(response: web.StreamResponse) -> None:
    """Set what every answer says: no type is guessed, and no URL, which may hold a ticket, goes elsewhere."""
    headers = response.headers
    # An agent's own name passes with its answer.
    if headers.get(hdrs.SERVER, SERVER_SOFTWARE) == SERVER_SOFTWARE:
        headers[hdrs.SERVER] = SERVER
    headers["X-Content-Type-Options"] = "nosniff"
    headers.setdefault("Referrer-Policy", "no-referrer")


class Cors:
    """Lets pages of the origins that the settings list use the public listener, and keeps out others.

    Args:
        settings: name the origins.
    """

    def __init__(self, settings: Server) -> None:
        self._origins = origins_of(settings.cors_origin_names, settings.public_url)
        self._on = bool(settings.cors_origin_names)
        self._allowed = {"Access-Control-Expose-Headers": _EXPOSED_HEADERS}
        if self._origins.every:
            self._allowed["Access-Control-Allow-Origin"] = "*"
        else:
            # Lets the browser send its cookies along; with `*` it mustn't.
            self._allowed["Access-Control-Allow-Credentials"] = "true"

    @property
    def origins(self) -> Origins:
        """The origins."""
        return self._origins

    def dress(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Say in an answer, whatever it is, whether the page that asked may read it."""
        tell_safe(response)
        if not self._on:
            return
        headers, every = response.headers, self._origins.every
        if not every:
            # What a cache keeps of one origin's answer says nothing of another one's.
            headers[hdrs.VARY] = ", ".join((*headers.getall(hdrs.VARY, ()), hdrs.ORIGIN))
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and self._origins.allows(origin):
            headers.update(self._allowed)
            if not every:
                headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin

    def preflight(self, request: web.BaseRequest, methods: tuple[str, ...]) -> web.Response | None:
        """Answer a browser that asks whether it may send a page's request; None: it asks nothing of the kind.

        Args:
            request: of the method OPTIONS.
            methods: those the path is there for.

        Source: Fetch, section 3.3.2.
        """
        origin = request.headers.get(hdrs.ORIGIN)
        asks = hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        if not asks or origin is None or not self._origins.allows(origin):
            return None
        return web.Response(
            status=204,
            headers={
                hdrs.ACCESS_CONTROL_ALLOW_METHODS: ", ".join(methods),
                hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _REQUEST_HEADERS,
                hdrs.ACCESS_CONTROL_MAX_AGE: str(PREFLIGHT_S),
            },
        )


def refuse_forged(request: web.BaseRequest, origins: Origins) -> None:
    """Refuse what a page of another origin can send without being asked whether it may.

    Browsers send forms and bodies of a few plain types anywhere, unasked. JSON is none of those types, so
    where it is demanded, the browser asks first. Clients that are no browsers send no `Origin`.

    Raises:
        Refused: `unsupported-media-type`.
    """
    if is_foreign(request, origins) and not has_json(request):
        raise Refused(
            "unsupported-media-type", "from another origin, the content type must be application/json"
        )


def is_foreign(request: web.BaseRequest, origins: Origins) -> bool:
    """Tell whether a browser says that a page of another origin has it send a request.

    A page that only has something fetched and can't read it sends no `Origin` with a GET, but browsers tell
    its relation by `Sec-Fetch-Site` (Fetch Metadata, section 2.3).
    """
    headers = request.headers
    host = headers.get(hdrs.HOST, "")
    given = headers.getall(hdrs.ORIGIN, ())
    if given:
        return any(origins.is_foreign(origin, host) for origin in given)
    return headers.get("Sec-Fetch-Site", "").lower() in _OTHER_SITES


def has_json(request: web.BaseRequest) -> bool:
    """Tell whether a request says that its body is JSON, with any parameters."""
    types = [each.partition(";")[0].strip().lower() for each in request.headers.getall(hdrs.CONTENT_TYPE, ())]
    return len(types) == 1 and (
        types[0] == "application/json" or (types[0].startswith("application/") and types[0].endswith("+json"))
    )
