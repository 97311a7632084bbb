"""A v1.0 result as the whole answer to a client: on its wire, in its generation.

Must not know where results come from.
"""

from __future__ import annotations

from aiohttp import hdrs, web

from sidecast_broker.asked import Asked
from sidecast_broker.core.a2a.translate import results


def answer_with(asked: Asked, result: bytes) -> web.Response:
    """Answer a request with a v1.0 result.

    Raises:
        Untranslatable: a looked-at field of it is not what v1.0 says.
    """
    rpc = asked.wire.binding == "jsonrpc"
    if asked.wire.version == "0.3":
        result = results.result_to_v03(asked.operation.name, result, rest=not rpc)
    if rpc:
        result = b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (asked.rpc_id, result)
    return web.Response(
        body=result, content_type="application/json", headers={hdrs.CACHE_CONTROL: "no-store"}
    )
