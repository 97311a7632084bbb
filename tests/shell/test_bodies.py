from __future__ import annotations

import json
from typing import Annotated

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta, Struct

from sidecast_broker.bodies import decode_json, read_json
from sidecast_broker.refused import Refused

BYTES_MAX = 100


class Wanted(Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(max_length=3)]
    count: int = 0


@settings(max_examples=300)
@given(
    st.binary(max_size=60)
    | st.dictionaries(
        st.sampled_from(["name", "count", "x"]),
        st.none() | st.text(max_size=5) | st.integers() | st.lists(st.text(), max_size=1),
    ).map(lambda body: json.dumps(body).encode())
)
def test_whatever_a_body_it_is_read_or_refused(body: bytes) -> None:
    wanted, code = None, ""
    try:
        wanted = decode_json(body, Wanted)
    except Refused as refused:
        code = refused.code
    if wanted is None:
        assert code == "bad-request"
    else:
        assert len(wanted.name) <= 3
        assert json.loads(body)["name"] == wanted.name


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "as it must be"),
        (b"{", "as it must be"),
        (b'{"name":"a","name":"b"}', "twice"),
        (b'{"name":"a","count":NaN}', "NaN is no JSON"),
        (b'{"name":"a","more":1}', "more"),
        (b'{"count":1}', "name"),
        (b'{"name":"\xff"}', "no JSON"),
        (b"[" * 100_000, "no JSON"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(body: bytes, says: str) -> None:
    with pytest.raises(Refused) as refused:
        decode_json(body, Wanted)
    assert says in str(refused.value)


async def test_a_request_is_read_within_its_bound_and_only_as_json() -> None:
    async def answer(request: web.Request) -> web.Response:
        try:
            return web.Response(text=(await read_json(request, Wanted, BYTES_MAX)).name)
        except Refused as refused:
            return web.Response(text=refused.code)

    app = web.Application()
    app.router.add_post("/", answer)

    async def chunks(size: int):  # type: ignore[no-untyped-def]
        yield b'{"name":"a"}' + b" " * size

    async with TestClient(TestServer(app)) as client:

        async def said(data: object, kind: str = "application/json") -> str:
            async with client.post("/", data=data, headers={"Content-Type": kind}) as answered:
                return await answered.text()

        assert await said(b'{"name":"a"}') == "a"
        assert await said(b'{"name":"a"}', "application/json; charset=utf-8") == "a"
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            assert await said(b'{"name":"a"}', kind) == "unsupported-media-type"
        assert await said(b'{"name":"a"}' + b" " * BYTES_MAX) == "body-too-large"
        assert await said(chunks(BYTES_MAX)) == "body-too-large"
        assert await said(chunks(1)) == "a"
