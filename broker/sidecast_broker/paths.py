"""Ids out of request paths: found before anything is decoded, decoded once, strictly.

Must not know which ids there are.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from aiohttp import web

from sidecast_broker.refused import Refused
from sidecast_schemas.subjects import InvalidId, encode_token

AGENTS = "/agents/"
"""What a path begins with that names an agent."""

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def path_segment(request: web.BaseRequest, index: int) -> str:
    """Give one segment of the path as the client sent it, percent-decoded once.

    The router's own values are decoded leniently: `%25FF` and `%FF` become the same text there.

    Args:
        request: the request.
        index: which segment, from 0; what names the agent, `/agents/{agent}`, is not counted.

    Raises:
        Refused: the target is no plain path, a percent sign starts no escape, or the bytes are not UTF-8.
    """
    target = request.raw_path
    if not target.startswith("/"):
        raise Refused("bad-request", "the request target must be a path")
    segments = target.partition("?")[0].split("/")[1:]
    if agent_segment(target):
        segments = segments[2:]
    if index >= len(segments):
        raise Refused("bad-request", "the path is incomplete")
    return decode_segment(segments[index])


def agent_segment(target: str) -> str:
    """Give what names the agent on a path that begins with `/agents/{agent}`, as it was sent; else nothing.

    Args:
        target: the request target.
    """
    if not target.startswith(AGENTS):
        return ""
    return target.partition("?")[0][len(AGENTS) :].partition("/")[0]


def query_value(request: web.BaseRequest, name: str) -> str:
    """Give one query parameter as the client sent it, decoded once and strictly.

    Raises:
        Refused: it is missing, stands more than once, or can't be decoded.
    """
    query = request.raw_path.partition("?")[2]
    values = [
        value for key, _equals, value in (pair.partition("=") for pair in query.split("&")) if key == name
    ]
    if len(values) != 1:
        raise Refused("bad-request", f"the query needs {name} once")
    return decode_segment(values[0].replace("+", " "))


def query_values(request: web.BaseRequest, name: str) -> list[str]:
    """Give all values of a query parameter as the client sent them, each decoded once and strictly.

    Raises:
        Refused: one can't be decoded.
    """
    query = request.raw_path.partition("?")[2]
    pairs = (pair.partition("=") for pair in query.split("&"))
    return [decode_segment(value.replace("+", " ")) for key, _equals, value in pairs if key == name]


def check_id(what: str, value: str) -> str:
    """Give an id where it can be one: 1 to 256 bytes of UTF-8.

    Raises:
        Refused: it can't.
    """
    try:
        encode_token(value)
    except InvalidId as error:
        raise Refused("bad-request", f"{what}: {error}") from error
    return value


def decode_segment(segment: str) -> str:
    """Percent-decode one path segment.

    Raises:
        Refused: a percent sign starts no escape, or the bytes are not UTF-8.
    """
    if _BAD_ESCAPE.search(segment):
        raise Refused("bad-request", "a percent sign in the path starts no escape")
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeError as error:  # also of bytes that stand in the target unescaped
        raise Refused("bad-request", "the path is not valid UTF-8") from error
