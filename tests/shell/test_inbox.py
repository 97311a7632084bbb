"""The inbox through which answers of several messages come, with a connection that a test answers for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from brokers import until

from sidecast_broker.answers import Away
from sidecast_broker.inbox import READ_ATTEMPTS, Inbox
from sidecast_schemas import headers as names

END = {names.STATUS: "204", names.NUM_PENDING: "0"}


class Scripted:
    """A connection that notes what is published, and hands on what a test says was answered."""

    def __init__(self) -> None:
        self.replies: list[str] = []
        self.receive_with: Callable[[bytes, bytes, bytes], None] | None = None
        self.error: Exception | None = None

    def new_inbox(self) -> str:
        return "_INBOX.mine"

    async def receive(self, subject: str, receive: Callable[[bytes, bytes, bytes], None]) -> None:
        assert subject == "_INBOX.mine.*"
        self.receive_with = receive

    async def publish(self, subject: str, payload: bytes, reply: str = "", headers: Any = None) -> None:
        if self.error is not None:
            raise self.error
        self.replies.append(reply or subject)

    def answer(self, reply: str, headers: dict[str, str], payload: bytes = b"") -> None:
        assert self.receive_with is not None
        status = headers.get(names.STATUS, "")
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if name != names.STATUS)
        block = f"NATS/1.0{' ' if status else ''}{status}\r\n{lines}\r\n"
        self.receive_with(reply.encode(), block.encode(), payload)

    def record(self, reply: str, sequence: int) -> None:
        named = {names.SUBJECT: "s", names.SEQUENCE: str(sequence), names.TIME_STAMP: "2026-01-01T00:00:00Z"}
        self.answer(reply, named | {names.LAST_SEQUENCE: "0"}, b"{}")


async def opened(request_s: float = 5.0) -> tuple[Inbox, Any]:
    client: Any = Scripted()
    inbox = Inbox(request_s)
    await inbox.open(client)
    return inbox, client


async def test_the_records_of_an_answer_come_with_the_headers_that_end_it() -> None:
    inbox, client = await opened()
    asking = asyncio.ensure_future(inbox.direct_get("get", b"{}", lambda: client))
    await until(lambda: client.replies)
    for sequence in (3, 5):
        client.record(client.replies[0], sequence)
    client.answer(client.replies[0], END)
    records, end = await asking
    assert [each.sequence for each in records] == [3, 5]
    assert end[names.STATUS] == "204"


async def test_two_questions_do_not_get_each_others_answers() -> None:
    inbox, client = await opened()
    asking = [asyncio.ensure_future(inbox.direct_get("get", b"{}", lambda: client)) for _ in range(2)]
    await until(lambda: len(client.replies) == 2)
    for reply, sequence in zip(reversed(client.replies), (8, 7), strict=True):
        client.record(reply, sequence)
        client.answer(reply, END)
    assert [[each.sequence for each in (await one)[0]] for one in asking] == [[7], [8]]


async def test_where_one_replica_says_nothing_another_is_asked_and_the_first_whole_answer_counts() -> None:
    inbox, client = await opened(request_s=1.0)
    asking = asyncio.ensure_future(inbox.direct_get("get", b"{}", lambda: client))
    await until(lambda: len(client.replies) == 2)
    client.record(client.replies[1], 4)
    client.answer(client.replies[1], END)
    assert [each.sequence for each in (await asking)[0]] == [4]
    client.record(client.replies[0], 4)  # what comes too late is nobody's
    client.answer(client.replies[0], END)


async def test_an_answer_that_has_begun_is_not_asked_for_again() -> None:
    inbox, client = await opened(request_s=0.1)
    asking = asyncio.ensure_future(inbox.direct_get("get", b"{}", lambda: client))
    await until(lambda: client.replies)
    client.record(client.replies[0], 4)
    with pytest.raises(Away):
        await asking
    assert len(client.replies) == 1


async def test_no_answer_is_away_after_all_attempts() -> None:
    inbox, client = await opened(request_s=0.2)
    with pytest.raises(Away, match="direct get: "):
        await inbox.direct_get("get", b"{}", lambda: client)
    assert 1 < len(client.replies) <= READ_ATTEMPTS + 1


async def test_a_question_that_can_not_be_sent_is_away() -> None:
    inbox, client = await opened()
    client.error = OSError("broken pipe")
    with pytest.raises(Away, match="broken pipe"):
        await inbox.direct_get("get", b"{}", lambda: client)


async def test_a_round_trip_ends_with_its_own_message() -> None:
    inbox, client = await opened()
    trip = asyncio.ensure_future(inbox.round_trip(client))
    await until(lambda: client.replies)
    client.answer("_INBOX.mine.999", {})
    client.answer(client.replies[0], {})
    await trip


async def test_a_round_trip_takes_no_longer_than_a_request() -> None:
    inbox, client = await opened(request_s=0.01)
    with pytest.raises(TimeoutError):
        await inbox.round_trip(client)
