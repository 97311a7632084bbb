"""What fits into one message."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_adapters.classify import record_of
from sidecast_adapters.limit import TooLarge, cut, fit
from sidecast_adapters.payload import encode
from sidecast_adapters.record import Rank, Record
from sidecast_schemas.codec import decode_event
from sidecast_schemas.events import ACTIVITY, LOSS

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def record(event: dict[str, Any]) -> Record:
    return record_of(event, encode(event), "", "")


def chunk(text: str, **fields: Any) -> dict[str, Any]:
    artifact = {"artifactId": "a", "name": "notes", "parts": [{"text": text, "mediaType": "text/plain"}]}
    return {"artifactUpdate": {"taskId": "t", "contextId": "c", "artifact": artifact, **fields}}


def status(**fields: Any) -> dict[str, Any]:
    return {"statusUpdate": {"taskId": "t", "status": {"state": "TASK_STATE_WORKING"}, **fields}}


@given(TEXTS, st.integers(6, 60))
def test_cut_pieces_join_to_the_text_and_fit(text: str, budget: int) -> None:
    pieces = list(cut(text, budget))
    assert "".join(pieces) == text
    assert all(piece and len(msgspec.json.encode(piece)) - 2 <= budget for piece in pieces)


@given(TEXTS, st.integers(260, 400), st.booleans(), st.booleans())
def test_a_text_is_split_into_chunks_that_read_the_same(
    text: str, limit: int, append: bool, last: bool
) -> None:
    flags = {name: True for name, given in (("append", append), ("lastChunk", last)) if given}
    pieces = fit(record(chunk(text * 20, **flags)), limit)
    updates = [msgspec.json.decode(piece.payload)["artifactUpdate"] for piece in pieces]
    assert all(len(piece.payload) <= limit and decode_event(piece.payload) for piece in pieces)
    assert "".join(update["artifact"]["parts"][0]["text"] for update in updates) == text * 20
    assert [update.get("append", False) for update in updates] == [append] + [True] * (len(updates) - 1)
    assert [update.get("lastChunk", False) for update in updates] == [False] * (len(updates) - 1) + [last]
    assert [piece.append for piece in pieces] == [update.get("append", False) for update in updates]
    assert all(update["artifact"]["parts"][0]["mediaType"] == "text/plain" for update in updates)
    assert updates[0]["artifact"]["name"] == "notes"
    assert all(piece.rank == Rank.LOOSE for piece in pieces[1:])


def test_a_status_goes_without_its_message_marked() -> None:
    message = {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "x" * 1000}]}
    event = status(metadata={ACTIVITY: {"kind": "thought"}, "mine": 1})
    event["statusUpdate"]["status"]["message"] = message
    (piece,) = fit(record(event), 400)
    update = msgspec.json.decode(piece.payload)["statusUpdate"]
    assert "message" not in update["status"]
    assert update["metadata"]["mine"] == 1
    assert update["metadata"][LOSS]["reason"] == "message-too-large"
    assert 1000 < update["metadata"][LOSS]["dropped_bytes"] < 1100


def test_a_status_goes_without_its_metadata_where_that_is_too_large() -> None:
    (piece,) = fit(record(status(metadata={ACTIVITY: {"kind": "thought"}, "mine": "x" * 1000})), 400)
    assert set(msgspec.json.decode(piece.payload)["statusUpdate"]["metadata"]) == {ACTIVITY, LOSS}


def test_a_task_goes_without_its_history_and_a_turn_without_its_message() -> None:
    message = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x" * 1000}]}
    task = {"task": {"id": "t", "status": {"state": "TASK_STATE_SUBMITTED"}, "history": [message]}}
    (piece,) = fit(record(task), 400)
    body = msgspec.json.decode(piece.payload)["task"]
    assert "history" not in body
    assert body["metadata"][LOSS]["dropped_bytes"] > 1000
    (piece,) = fit(record({"turn": {"id": "m", "phase": "begin", "message": message}}), 400)
    assert msgspec.json.decode(piece.payload) == {"turn": {"id": "m", "phase": "begin"}}


@pytest.mark.parametrize(
    "event",
    [
        {"message": {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "x" * 1000}]}},
        {"artifactUpdate": {"taskId": "t", "artifact": {"artifactId": "a", "parts": [{"raw": "x" * 1000}]}}},
        {"artifactUpdate": {"taskId": "t", "artifact": {"artifactId": "a" * 999, "parts": [{"text": "x"}]}}},
        status(metadata={ACTIVITY: {"kind": "error", "code": "x" * 1000}}),
    ],
)
def test_anything_else_is_refused_with_its_size_and_the_limit(event: dict[str, Any]) -> None:
    with pytest.raises(TooLarge, match=r"of 1\d{3} bytes is larger than the 400 bytes") as caught:
        fit(record(event), 400)
    assert caught.value.limit == 400
    assert isinstance(caught.value, ValueError)


def test_what_fits_stays_as_it_is() -> None:
    small = record(status())
    assert fit(small, 1000) == [small]
