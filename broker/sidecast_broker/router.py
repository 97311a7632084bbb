"""Which handler answers a request: a table of paths, matched as the client sent them.

Must not know what a handler does. aiohttp's own router costs 40 µs and 1 KB for each stream, and decodes a
path before it is split.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from aiohttp import web

from sidecast_broker.refused import Refused

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

ANY = "*"
"""Stands for one segment of a path, whatever it is."""


class Route(NamedTuple):
    """One way to ask for something.

    Attributes:
        method: the HTTP method.
        path: segments between slashes; `*` is any one segment that is not empty.
        handler: answers.
    """

    method: str
    path: str
    handler: Handler


def behind_agent(routes: Iterable[Route]) -> list[Route]:
    """Give the same routes behind `/agents/{agent}`."""
    return [route._replace(path=f"/agents/{ANY}{route.path}") for route in routes]


def get(path: str, handler: Handler) -> Route:
    """Give the route of a GET."""
    return Route("GET", path, handler)


def get_or_head(path: str, handler: Handler) -> tuple[Route, Route]:
    """Give the routes of a GET and of a HEAD, which is answered by the head alone."""
    return Route("GET", path, handler), Route("HEAD", path, handler)


def post(path: str, handler: Handler) -> Route:
    """Give the route of a POST."""
    return Route("POST", path, handler)


def delete(path: str, handler: Handler) -> Route:
    """Give the route of a DELETE."""
    return Route("DELETE", path, handler)


class Router:
    """Finds the handler of a request.

    Args:
        routes: the table; of several that match, the first counts.
        otherwise: answers at every path the table doesn't have; None: nothing is there.
    """

    def __init__(self, routes: Iterable[Route], otherwise: Handler | None = None) -> None:
        self._otherwise = otherwise
        self._exact: dict[str, dict[str, Handler]] = {}
        self._patterns: dict[int, list[tuple[tuple[str, ...], dict[str, Handler]]]] = {}
        for method, path, handler in routes:
            if ANY in path:
                self._handlers_of(tuple(path.split("/"))).setdefault(method, handler)
            else:
                self._exact.setdefault(path, {}).setdefault(method, handler)

    def _handlers_of(self, pattern: tuple[str, ...]) -> dict[str, Handler]:
        known = self._patterns.setdefault(len(pattern), [])
        for other, handlers in known:
            if other == pattern:
                return handlers
        known.append((pattern, {}))
        return known[-1][1]

    def find(self, method: str, target: str) -> Handler:
        """Give the handler of a request.

        Args:
            method: the HTTP method.
            target: the request target as it was sent, with its query.

        Raises:
            Refused: no such path, or not with that method; then `allow` names those there are.
        """
        path = target.partition("?")[0]
        handlers = self._exact.get(path) or self._match(path.split("/"))
        if handlers is None:
            if self._otherwise is not None:
                return self._otherwise
            raise Refused("not-found", "there is nothing at this path")
        handler = handlers.get(method)
        if handler is None:
            raise Refused("method-not-allowed", f"{method[:20]} is not for this path", allow=tuple(handlers))
        return handler

    def _match(self, segments: list[str]) -> dict[str, Handler] | None:
        for pattern, handlers in self._patterns.get(len(segments), ()):
            for expected, segment in zip(pattern, segments, strict=True):
                if segment != expected and (expected != ANY or not segment):
                    break
            else:
                return handlers
        return None
