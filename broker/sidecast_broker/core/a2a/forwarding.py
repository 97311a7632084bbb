"""What of a request is passed on to the agent, and what of its answer to the client: target and headers.

Must not know connections, nor which requests are passed on.
Source: RFC 9110, section 7.6.1; RFC 3986, sections 3.3 and 5.2.4; contract section 4 (C72).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote

from sidecast_schemas.headers import PRINCIPAL, TENANT

_OWN_PREFIX = "sidecast-"
_CORS_PREFIX = "access-control-"
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_READ_HERE = frozenset({"a2a-version"})
"""By these the broker has understood the request: no `Connection` makes the agent read it otherwise."""
_OF_THIS_REQUEST = frozenset({"host", "expect", "http2-settings"})

_TARGET = re.compile(r"(/[^?#\\]*)(?:\?[^#]*)?")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_DECODINGS = 3
"""How often a path is decoded in search of dot segments: by a proxy, by a framework, and once too often."""


class UnsafeTarget(ValueError):  # noqa: N818 - named as the answer reads: the target is unsafe
    """A request target that two programs could understand differently."""


def check_target(target: str) -> None:
    """Check that a target means the same to everybody who reads it, so that it can be passed on raw.

    Args:
        target: path and query as the client sent them.

    Raises:
        UnsafeTarget: it is no path (absolute form), or its path has an empty segment, a segment of dots (also
            encoded, or with parameters), a backslash, an escape that is none, or what no URL may hold.
    """
    match = _TARGET.fullmatch(target)
    if match is None or not _VISIBLE.fullmatch(target):
        raise UnsafeTarget("the request target must be a plain path")
    path = match[1]
    if "//" in path:
        raise UnsafeTarget("the path has an empty segment")
    if _BAD_ESCAPE.search(path):
        raise UnsafeTarget("a percent sign in the path starts no escape")
    for _ in range(_DECODINGS):
        # Some servers take what follows a semicolon for parameters, and /..;/ for the segment above.
        if any(segment.partition(";")[0] in (".", "..") for segment in re.split(r"[/\\]", path)):
            raise UnsafeTarget("the path has a segment of dots")
        path = unquote(path, errors="replace")


def lies_under(target: str, paths: Iterable[str]) -> bool:
    """Tell whether a checked target is one of some paths, or lies below one.

    Args:
        target: path and query as the client sent them.
        paths: without slashes at their ends; the empty one is above every other.
    """
    path = target.partition("?")[0]
    return any(path == above or path.startswith(above + "/") for above in paths)


def request_headers(
    headers: Iterable[tuple[str, str]], principal: str | None, tenant: str | None = None
) -> list[tuple[str, str]]:
    """Give the headers the agent gets of those the client sent, in their order.

    Args:
        headers: names and values; a name may stand more than once.
        principal: whom the client is, as a header's value; None says nothing.
        tenant: the one the request is about, likewise.
    """
    kept = _end_to_end(headers, _OF_THIS_REQUEST)
    if principal is not None:
        kept.append((PRINCIPAL, principal))
    if tenant is not None:
        kept.append((TENANT, tenant))
    return kept


def response_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Give the headers the client gets of those the agent answered with, in their order.

    Which web pages may read an answer is said by the broker, for all of its answers.
    """
    kept = _end_to_end(headers, frozenset())
    return [(name, value) for name, value in kept if not name.lower().startswith(_CORS_PREFIX)]


def _end_to_end(headers: Iterable[tuple[str, str]], dropped: frozenset[str]) -> list[tuple[str, str]]:
    headers = list(headers)
    named = {
        option.strip().lower()
        for name, value in headers
        if name.lower() == "connection"
        for option in value.split(",")
    } - _READ_HERE
    return [
        (name, value)
        for name, value in headers
        if (lower := name.lower()) not in _HOP_BY_HOP
        and lower not in dropped
        and lower not in named
        # CGI and WSGI read an underscore as a hyphen.
        and not lower.replace("_", "-").startswith(_OWN_PREFIX)
    ]
