"""Which A2A a client speaks: generation, binding, and the extensions it activates.

Must not know operations, nor where a header comes from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from sidecast_broker.core.a2a.errors import A2AError, ErrorKind

Version = Literal["1.0", "0.3"]
Binding = Literal["jsonrpc", "rest"]

VERSIONS: tuple[Version, ...] = ("1.0", "0.3")

VERSION_HEADER = "A2A-Version"
"""Name of the header, and of the query parameter (A2A 1.0, section 3.6.1)."""

EXTENSIONS_HEADERS = ("A2A-Extensions", "X-A2A-Extensions")
"""Of v1.0 and of v0.3."""

_VERSION = re.compile(r"[ \t]*(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})(?:\.[0-9]{1,6})?[ \t]*")
_QUOTED_CHARACTERS_MAX = 32
"""What an answer shows of a version it does not know."""


class Wire(NamedTuple):
    """How one client writes and reads."""

    version: Version
    binding: Binding

    @property
    def format(self) -> str:
        """The name of the format in metrics: `a2a-jsonrpc-1.0`."""
        return f"a2a-{self.binding}-{self.version}"


WIRES = tuple(Wire(version, binding) for version in VERSIONS for binding in ("jsonrpc", "rest"))


def negotiate(header: str | None, query: str | None) -> Version:
    """Give the version a request is served in.

    Missing or empty is 0.3. The patch number does not count, the minor number does.

    Args:
        header: the value of `A2A-Version`; None: there is no such header.
        query: the value of the query parameter of that name, which a browser's EventSource needs; it counts
            where the header says nothing.

    Raises:
        A2AError: VERSION_NOT_SUPPORTED.

    Source: A2A 1.0, sections 3.6.1 and 3.6.2; C40, C41, C42.
    """
    asked = (header or "").strip(" \t") or (query or "").strip(" \t")
    if not asked:
        return "0.3"
    match = _VERSION.fullmatch(asked)
    if match is not None:
        for version in VERSIONS:
            if f"{match[1]}.{match[2]}" == version:
                return version
    known = ", ".join(VERSIONS)
    raise A2AError(
        ErrorKind.VERSION_NOT_SUPPORTED,
        f"This A2A version is not supported; there are {known}",
        metadata={
            # Bytes of a header that are no UTF-8 arrive as half surrogates, which no JSON can hold.
            "requestedVersion": asked[:_QUOTED_CHARACTERS_MAX].encode(errors="replace").decode(),
            "supportedVersions": known,
        },
    )


def read_extensions(headers: Iterable[str]) -> frozenset[str]:
    """Give the URIs of the extensions a client activates.

    Args:
        headers: all values of all `EXTENSIONS_HEADERS`; each a list with commas. URIs are compared as they
            are written, so case counts.

    Source: A2A 1.0, section 3.2.6 and 9.2; digest 1.6.
    """
    uris = (uri.strip(" \t") for value in headers for uri in value.split(","))
    return frozenset(uri for uri in uris if uri)


def require_extensions(required: Iterable[str], activated: frozenset[str]) -> None:
    """Refuse a client that does not activate what the agent's card requires.

    Args:
        required: URIs of the card's extensions with `required: true`.
        activated: what `read_extensions` gave.

    Raises:
        A2AError: EXTENSION_SUPPORT_REQUIRED, naming those that are missing.

    Source: A2A 1.0, section 3.3.4; C55.
    """
    missing = [uri for uri in required if uri not in activated]
    if missing:
        raise A2AError(
            ErrorKind.EXTENSION_SUPPORT_REQUIRED,
            f"{EXTENSIONS_HEADERS[0]} must name {', '.join(missing)}",
            metadata={"missingExtensions": ", ".join(missing)},
        )
