"""The URLs and paths that settings hold: which can be used, and how one is shown.

Must not know which setting holds one.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

from sidecast_broker.settings import is_loopback

MASK = "********"
KEY_URL = "https:// with a host (or http:// on a loopback address), without credentials and fragment"

_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]+)*")
_DOTS = re.compile(r"/\.{1,2}(?:/|$)")


def _split_url(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    return parts if parts.hostname and port != 0 and " " not in url else None


def is_nats_url(url: str) -> bool:
    """Tell whether a URL names a NATS server."""
    parts = _split_url(url)
    return parts is not None and parts.scheme in ("nats", "tls", "ws", "wss")


def is_http_url(url: str) -> bool:
    """Tell whether a URL can be asked over HTTP."""
    parts = _split_url(url)
    return parts is not None and parts.scheme in ("http", "https") and url.isascii()


def is_base_url(url: str) -> bool:
    """Tell whether paths can be appended to a URL, and nothing in it is a secret."""
    parts = _split_url(url)
    if parts is None or parts.scheme not in ("http", "https") or "@" in parts.netloc:
        return False
    return (
        is_plain_path(parts.path.rstrip("/"))
        and "?" not in url
        and "#" not in url
        and url.isascii()
        and "\\" not in url
    )


def is_plain_path(path: str) -> bool:
    """Tell whether a path means the same to everybody: plain segments, none of them dots only."""
    return _PLAIN_PATH.fullmatch(path) is not None and not _DOTS.search(path)


def is_key_url(url: str) -> bool:
    """Tell whether keys that are trusted can be fetched from a URL: nobody on the way can change them."""
    parts = _split_url(url)
    if parts is None or "@" in parts.netloc or "#" in url or "\\" in url:
        return False
    plain = url.isascii() and url.isprintable()
    secure = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    return plain and secure


def mask_url(url: str) -> str:
    """Replace user, password or token of each URL of a comma separated list."""
    return re.sub(r"(?<=://)[^/,]*@", MASK + "@", url)
