"""Origins of web pages: how they are written, and which of them may use a listener.

Must not know HTTP.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from msgspec import Struct

_HOST = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\]")
_OWN_PORTS = {"http": "80", "https": "443"}


class Origins(Struct, frozen=True):
    """The origins whose pages may use a listener, besides its own.

    Attributes:
        listed: exactly as browsers send them.
        every: whether all others may, too; they are never given credentials of the browser.
        own: the origin under which clients reach the listener; empty: the host that they name.
    """

    listed: frozenset[str] = frozenset()
    every: bool = False
    own: str = ""

    def allows(self, origin: str) -> bool:
        """Tell whether pages of an origin may read answers."""
        return self.every or origin in self.listed

    def is_own(self, origin: str, host: str) -> bool:
        """Tell whether an origin is the listener's own.

        Args:
            origin: as the browser sends it.
            host: that the same request names; where TLS ends before the listener, it knows no scheme.
        """
        if self.own and origin == self.own:
            return True
        _scheme, colon, authority = origin.partition("://")
        return bool(colon and authority) and authority.lower() == host.lower()

    def is_foreign(self, origin: str, host: str) -> bool:
        """Tell whether an origin is one whose pages must not change anything here."""
        return not (self.allows(origin) or self.is_own(origin, host))


def origins_of(names: tuple[str, ...], public_url: str) -> Origins:
    """Give the origins that settings name.

    Args:
        names: each an origin, or `*`.
        public_url: under which clients reach the listener; empty: not known.
    """
    parts = urlsplit(public_url)
    own = f"{parts.scheme}://{parts.netloc}".lower() if parts.netloc else ""
    port = f":{_OWN_PORTS.get(parts.scheme, '')}"
    return Origins(frozenset(names) - {"*"}, "*" in names, own.removesuffix(port))


def is_origin(text: str) -> bool:
    """Tell whether a browser could send a text as an origin of a page on the web.

    Source: RFC 6454, section 6.2; WHATWG URL, section 4.7: the scheme's own port is left out.
    """
    scheme, mark, authority = text.partition("://")
    if not mark or scheme not in _OWN_PORTS:
        return False
    host, colon, port = authority, "", ""
    if not authority.endswith("]"):
        head, colon, port = authority.rpartition(":")
        host = head if colon else authority
    if _HOST.fullmatch(host) is None:
        return False
    if not colon:
        return True
    return (
        re.fullmatch(r"[1-9][0-9]{0,4}", port) is not None
        and port != _OWN_PORTS[scheme]
        and int(port) < 65536
    )
