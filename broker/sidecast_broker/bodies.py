"""Small JSON bodies of requests: read whole within a bound, and as strictly as everybody must read them.

Must not know what they ask for.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
from aiohttp import web

from sidecast_broker.core.strict_json import read_strictly
from sidecast_broker.cors import has_json
from sidecast_broker.refused import Refused

T = TypeVar("T")


async def read_json(request: web.BaseRequest, kind: type[T], bytes_max: int) -> T:
    """Give what a request's body says.

    Args:
        request: its body has not been read.
        kind: what it must be.
        bytes_max: how large it may be.

    Raises:
        Refused: `unsupported-media-type`; `body-too-large`; `bad-request`: it is none of that kind, or two
            programs could read it differently.
    """
    if not has_json(request):
        raise Refused("unsupported-media-type", "the content type must be application/json")
    # Before it is read, where its length is told; else what there is of it.
    if (request.content_length or 0) > bytes_max or len(body := await request.read()) > bytes_max:
        raise Refused("body-too-large", f"the body is larger than {bytes_max} bytes")
    return decode_json(body, kind)


def decode_json(body: bytes, kind: type[T]) -> T:
    """Give what a body says.

    Raises:
        Refused: `bad-request`, as above.
    """
    try:
        return msgspec.convert(read_strictly(body), kind)
    except (UnicodeDecodeError, RecursionError) as error:
        raise Refused("bad-request", "the body is no JSON") from error
    except (ValueError, msgspec.ValidationError) as error:
        raise Refused("bad-request", f"the body is not as it must be: {str(error)[:200]}") from error
