"""ListTasks: the page token it is asked with, and its answer with some of the tasks only.

Must not know who may see which task. What stays in the list stays the bytes the agent wrote.
Source: A2A v1.0, sections 3.1.4 and 11.3.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from urllib.parse import quote, unquote_plus

import msgspec
from msgspec import Raw

from sidecast_broker.core.a2a.translate.raw import (
    Untranslatable,
    decode_line,
    encode,
    is_set,
    objects_of,
    text_of,
)
from sidecast_schemas.codec import RawObject

_NEXT = ("nextPageToken", "next_page_token")
_TOTAL = ("totalSize", "total_size")
"""ProtoJSON knows each under both names."""

Exchange = Callable[[str], str]


class UnreadableList(ValueError):  # noqa: N818 - named as the answer reads: the list is unreadable
    """An answer that is no list of tasks that have ids."""


def ids_of(result: bytes) -> list[str]:
    """Give the ids of the tasks in a list, in its order.

    Args:
        result: v1.0 ListTasksResponse.

    Raises:
        UnreadableList: it is none.
    """
    return [task for task, _fields in _tasks(_fields_of(result))]


def only(result: bytes, kept: Container[str], exchange: Exchange) -> bytes:
    """Give a list with those of its tasks only that are named.

    The total becomes the number of tasks that are left: the agent's says how many others there are.

    Args:
        result: v1.0 ListTasksResponse.
        kept: ids of the tasks to keep.
        exchange: gives another page token for the agent's.

    Raises:
        UnreadableList: it is none.
    """
    fields = _fields_of(result)
    tasks = [raw for task, raw in _tasks(fields) if task in kept]
    own: dict[str, object] = dict(fields)
    own["tasks"] = tasks
    for name in own.keys() & _TOTAL:
        own[name] = len(tasks)
    try:
        for name in own.keys() & _NEXT:
            if is_set(fields, name):
                own[name] = exchange(text_of(fields[name], name))
    except Untranslatable as error:
        raise UnreadableList(str(error)) from error
    return encode(own)


def exchange_in_body(body: bytes, exchange: Exchange) -> bytes:
    """Give a JSON-RPC request with another page token, the same bytes where it has none.

    Args:
        body: a request that `envelope.parse` has taken.
        exchange: gives the other token.

    Raises:
        Untranslatable: the token is no text.
    """
    request = decode_line(body, "request")
    params = bytes(request["params"]) if is_set(request, "params") else b"{}"
    changed = exchange_in_params(params, exchange)
    return body if changed is params else encode(request | {"params": Raw(changed)})


def exchange_in_params(params: bytes, exchange: Exchange) -> bytes:
    """Give JSON parameters with another page token, the same bytes where they have none.

    Args:
        params: ListTasksRequest.
        exchange: gives the other token.

    Raises:
        Untranslatable: the token is no text.
    """
    fields = decode_line(params, "params")
    found = {
        name: exchange(text_of(fields[name], name))
        for name in fields
        if _is_page_token(name) and is_set(fields, name)
    }
    return encode(fields | found) if found else params


def exchange_in_query(target: str, exchange: Exchange) -> str:
    """Give a request target with another page token, the same where it has none.

    Args:
        target: raw path and query.
        exchange: gives the other token.
    """
    path, mark, query = target.partition("?")
    pairs = []
    for pair in query.split("&"):
        name, equals, value = pair.partition("=")
        if _is_page_token(unquote_plus(name)):
            pair = f"{name}{equals}{quote(exchange(unquote_plus(value)), safe='')}"
        pairs.append(pair)
    return path + mark + "&".join(pairs)


def _is_page_token(name: str) -> bool:
    # ProtoJSON knows two spellings, and Go's JSON any case.
    return name.casefold().replace("_", "") == "pagetoken"


def _fields_of(result: bytes) -> RawObject:
    try:
        return decode_line(result, "result")
    except Untranslatable as error:
        raise UnreadableList(str(error)) from error


def _tasks(fields: RawObject) -> list[tuple[str, Raw]]:
    if not is_set(fields, "tasks"):
        return []
    try:
        raws = msgspec.json.decode(fields["tasks"], type=list[Raw])
        tasks = objects_of(fields["tasks"], "tasks")
        return [
            (text_of(task["id"], "tasks: id"), raw)
            for task, raw in zip(tasks, raws, strict=True)
            if is_set(task, "id")
        ]
    except (msgspec.DecodeError, RecursionError, Untranslatable) as error:
        raise UnreadableList(str(error)) from error
