"""Receiving records the short way gives what nats-py's own parser gives, however the bytes are cut."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.client import ShortClient

SHORT, LONG = 7, 8
"""Ids of two subscriptions: one received the short way, one the usual one."""

Got = tuple[int, bytes, bytes, bytes]


def message(sid: int, reply: bytes, block: bytes | None, payload: bytes) -> bytes:
    """Write a message as the server does."""
    subject = b"live.%d " % sid
    reply = reply + b" " if reply else b""
    if block is None:
        return b"MSG %b%d %b%d\r\n%b\r\n" % (subject, sid, reply, len(payload), payload)
    sizes = b"%d %d" % (len(block), len(block) + len(payload))
    return b"HMSG %b%d %b%b\r\n%b%b\r\n" % (subject, sid, reply, sizes, block, payload)


class Client(ShortClient):
    """Notes what it is given instead of a connection's."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[Got] = []
        self.pings = 0
        self.receivers[SHORT] = lambda subject, block, payload: self.got.append(
            (SHORT, subject, block, payload)
        )

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        if sid == LONG:
            self.got.append((LONG, subject, headers or b"", data))
        else:
            await super()._process_msg(sid, subject, reply, data, headers)

    async def _process_ping(self) -> None:
        self.pings += 1


BLOCKS = st.one_of(
    st.none(),
    st.binary(max_size=40).map(lambda value: b"NATS/1.0\r\nA: %b\r\n\r\n" % value.replace(b"\r\n", b"")),
)
MESSAGES = st.tuples(
    st.sampled_from([SHORT, LONG]),
    st.sampled_from([b"", b"_INBOX.x"]),
    BLOCKS,
    st.one_of(st.binary(max_size=60), st.sampled_from([b"", b"\r\n", b"HMSG a 7 1 2\r\n", b"PING\r\n"])),
)


@given(st.lists(st.one_of(MESSAGES, st.just(None)), max_size=12), st.data())
def test_any_cut_gives_the_same_messages(
    sent: list[tuple[int, bytes, bytes | None, bytes] | None], data: st.DataObject
) -> None:
    wire = b"".join(b"PING\r\n" if each is None else message(*each) for each in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    parts = [wire[start:end] for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True)]

    async def parse() -> Client:
        client = Client()
        for part in parts:
            await client._ps.parse(part)
        return client

    client = asyncio.run(parse())
    assert client.got == [
        (sid, b"live.%d" % sid, block or b"", payload) for sid, _reply, block, payload in filter(None, sent)
    ]
    assert client.pings == sent.count(None)


async def test_one_that_raises_takes_no_other_message_along(event_loop_errors: list[str]) -> None:
    ends: list[int] = []
    client = ShortClient(lambda: ends.append(len(got)))
    got: list[bytes] = []

    def receive(_subject: bytes, _block: bytes, payload: bytes) -> None:
        if payload == b"2":
            raise ValueError("not this one")
        got.append(payload)

    client.receivers[SHORT] = receive
    await client._ps.parse(b"".join(message(SHORT, b"", b"NATS/1.0\r\n\r\n", b"%d" % n) for n in range(5)))
    assert got == [b"0", b"1", b"3", b"4"]
    assert event_loop_errors == ["not this one"]
    assert ends == [4]


@pytest.fixture
async def event_loop_errors() -> list[str]:
    """What the event loop was told of errors nobody caught."""
    errors: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: errors.append(str(context.get("exception")))
    )
    return errors
