"""The frames of the A2A wires, to the byte."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.a2a.wire import WIRES, Wire
from sidecast_broker.core.views.a2a import LOG, event_frame, marked, task_frame

STATUS = b'{"statusUpdate":{"taskId":"t","contextId":"c","status":{"state":"TASK_STATE_WORKING"},"x":1.50}}'
TASK = b'{"id":"t","contextId":"c","status":{"state":"TASK_STATE_WORKING"},"generation":12345678901234567890}'


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        (Wire("1.0", "rest"), b"id: e-7\ndata: " + STATUS + b"\n\n"),
        (Wire("1.0", "jsonrpc"), b'id: e-7\ndata: {"jsonrpc":"2.0","id":\0,"result":' + STATUS + b"}\n\n"),
    ],
)
def test_a_frame_of_v1_is_the_stored_event(wire: Wire, expected: bytes) -> None:
    assert event_frame(wire, STATUS, "e-7") == expected


def test_a_frame_without_a_position_has_no_id() -> None:
    assert event_frame(Wire("1.0", "rest"), STATUS, None) == b"data: " + STATUS + b"\n\n"


@pytest.mark.parametrize(("final", "said"), [(None, False), (False, False), (True, True)])
def test_v03_says_whether_a_stream_ends(final: bool | None, said: bool) -> None:
    frame = event_frame(Wire("0.3", "jsonrpc"), STATUS, "e-7", final=final)
    result = msgspec.json.decode(frame.partition(b"data: ")[2].replace(b"\0", b"1"))["result"]
    assert (result["kind"], result["final"], result["status"]["state"]) == ("status-update", said, "working")


@pytest.mark.row("C23")
@pytest.mark.parametrize("wire", WIRES)
def test_a_frame_is_one_line_of_compact_json_whatever_was_published(wire: Wire) -> None:
    text = 'one\u2028two\u0085three: "four" , five'
    update = {
        "taskId": "t",
        "contextId": "c",
        "status": {"state": "TASK_STATE_WORKING"},
        "metadata": {"text": text},
    }
    spread = msgspec.json.format(msgspec.json.encode({"statusUpdate": update}), indent=2).replace(
        b"\n", b"\r\n"
    )
    frame = event_frame(wire, spread, "e-7")
    head, _data, line = frame.partition(b"data: ")
    assert head == b"id: e-7\n"
    assert line.endswith(b"\n\n")
    assert len(line.decode().splitlines()) == 2
    assert b'": ' not in line.replace(b'three: \\"four\\" , five', b"")
    found = msgspec.json.decode(line.replace(b"\0", b"1"))
    inner = found.get("result", found)
    assert inner.get("statusUpdate", inner)["metadata"]["text"] == text


@given(st.integers(min_value=-(10**40), max_value=10**40))
def test_numbers_pass_as_they_are_spelled(number: int) -> None:
    task = b'{"id":"t","status":{"state":"TASK_STATE_WORKING"},"metadata":{"n":%d}}' % number
    for wire in WIRES:
        assert b'"n":%d' % number in task_frame(wire, task, "e-1")


@pytest.mark.parametrize("metadata", [b"", b',"metadata":null', b',"metadata":{"own":1}', b',"metadata":7'])
def test_what_the_broker_says_of_a_task_stands_in_its_metadata(metadata: bytes) -> None:
    task = msgspec.json.decode(marked(TASK[:-1] + metadata + b"}", cursor="e-9"))
    assert task["metadata"][LOG] == {"cursor": "e-9"}
    assert task["metadata"].get("own") == (1 if b"own" in metadata else None)
    assert task["generation"] == 12345678901234567890
