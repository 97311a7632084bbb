"""Whose request it is: the client's address, by what the proxies that are trusted have written down.

Must not know requests, nor what an address is used for. Source: RFC 7239; X-Forwarded-For has no standard.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
Header: TypeAlias = Literal["any", "forwarded", "x-forwarded-for"]

HOPS_MAX = 32
"""Entries looked at, from the right: a longer chain of trusted proxies is none."""
NODE_BYTES_MAX = 128
"""Of one entry: an IPv6 address in brackets with zone and port."""
LINE_BYTES_MAX = 4096
"""Of one header line; nobody's chain is that long."""
KNOWN_MAX = 4096
"""Texts whose reading is remembered: it costs 15 µs, twice for each connection."""
PREFIX_BITS_IPV6 = 64
"""What one customer holds of IPv6 at least: single addresses there are without number."""

_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # noqa: S105 - RFC 9110's word
_PAIR = re.compile(rf'[ \t]*({_TOKEN})=(?:({_TOKEN})|"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t -~])*)")[ \t]*')
_ESCAPED = re.compile(r"\\(.)")
_PORT = r"(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?"
_BRACKETED = re.compile(rf"\[(?=[0-9A-Fa-f.]*:)([0-9A-Fa-f:.]{{2,45}})(?:%[A-Za-z0-9._~-]{{1,32}})?\]{_PORT}")
_BARE_V6 = re.compile(r"([0-9A-Fa-f:.]{2,45})(?:%[A-Za-z0-9._~-]{1,32})?")
_V4 = re.compile(rf"([0-9.]{{7,15}}){_PORT}")


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read networks or single addresses, separated by commas.

    Raises:
        ValueError: one of them is none; an address with bits beyond its prefix is none either.
    """
    return tuple(ipaddress.ip_network(each.strip()) for each in text.split(",") if each.strip())


@lru_cache(maxsize=KNOWN_MAX)
def parse_address(text: str) -> Address | None:
    """Read an address as a socket or a proxy names it; None where it is none.

    IPv6 may stand in brackets, either may have a port. A zone is left out: it means something on one machine
    only. An IPv4 address within IPv6 is that address.
    """
    found = _BRACKETED.fullmatch(text) or _V4.fullmatch(text) or _BARE_V6.fullmatch(text)
    if found is None:
        return None
    try:
        address = ipaddress.ip_address(found[1])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def is_within(address: Address, networks: Sequence[Network]) -> bool:
    """Tell whether an address is in one of the networks."""
    return any(address in network for network in networks)


@lru_cache(maxsize=KNOWN_MAX)
def limited_as(address: str) -> str:
    """Give what a client's address is limited as: itself, of IPv6 the network of `PREFIX_BITS_IPV6`.

    Args:
        address: as `client_of` gives it.
    """
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address, PREFIX_BITS_IPV6), strict=False))


def client_of(
    peer: str,
    trusted: Sequence[Network],
    forwarded: Sequence[str],
    x_forwarded_for: Sequence[str],
    header: Header = "any",
) -> str:
    """Give the address of the client a request comes from.

    Headers count only where a trusted proxy is the peer. What stands at the right was written by it; the
    first address from there that is no trusted proxy is the client's, and what stands left of it anybody may
    have made up. Where that entry is no address, or a line is malformed, it is the peer's.

    Args:
        peer: the other end of the connection.
        trusted: the networks of proxies.
        forwarded: the lines of `Forwarded`, as they came.
        x_forwarded_for: the lines of `X-Forwarded-For`.
        header: the one the proxies write. With `any`, where a request has both and they name different
            clients, one of them is what the client sent and the proxy passed on: then it is the peer's.
    """
    address = parse_address(peer)
    if address is None:
        return peer
    own = str(address)
    if not is_within(address, trusted):
        return own
    found = []
    if forwarded and header != "x-forwarded-for":
        found.append(_first_untrusted(_forwarded_from_right(forwarded), trusted))
    if x_forwarded_for and header != "forwarded":
        found.append(_first_untrusted(_listed_from_right(x_forwarded_for), trusted))
    if not found or any(each != found[0] for each in found):
        return own
    return found[0] or own


def _first_untrusted(entries: Iterator[str | None], trusted: Sequence[Network]) -> str | None:
    """Give the first address that is no proxy's; of proxies only, the farthest; None: it can't be told."""
    farthest: str | None = None
    for hop, entry in enumerate(entries):
        readable = entry is not None and len(entry) <= NODE_BYTES_MAX and hop < HOPS_MAX
        address = parse_address(entry) if readable else None
        if address is None:
            return None
        farthest = str(address)
        if not is_within(address, trusted):
            break
    return farthest


def _listed_from_right(lines: Sequence[str]) -> Iterator[str | None]:
    for line in reversed(lines):
        if len(line) > LINE_BYTES_MAX:
            yield None
            return
        yield from (entry.strip(" \t") for entry in reversed(line.split(",")))


def _forwarded_from_right(lines: Sequence[str]) -> Iterator[str | None]:
    """Give the `for` of each element; None for one without, and for a line that can't be read.

    Each line is read by itself: a quote left open in one that the client sent swallows nothing that a proxy
    has added as a line of its own.
    """
    for line in reversed(lines):
        elements = _elements(line)
        if elements is None:
            yield None
            return
        yield from reversed(elements)


def _elements(line: str) -> list[str | None] | None:
    """Read one line of `Forwarded` (RFC 7239, section 4): the `for` of each element; None: malformed."""
    if len(line) > LINE_BYTES_MAX:
        return None
    elements: list[str | None] = []
    given: dict[str, str] = {}
    position = 0
    while True:
        pair = _PAIR.match(line, position)
        if pair is None or pair[1].lower() in given:
            return None  # each parameter stands once in an element
        given[pair[1].lower()] = pair[2] if pair[2] is not None else _ESCAPED.sub(r"\1", pair[3])
        position = pair.end()
        if position < len(line) and line[position] == ";":
            position += 1
            continue
        elements.append(given.get("for"))
        given = {}
        if position == len(line):
            return elements
        if line[position] != ",":
            return None
        position += 1
