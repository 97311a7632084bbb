from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.a2a.errors import (
    A2AError,
    ErrorKind,
    Violation,
    error_body,
    error_code,
    error_frame,
    escape_line_ends,
    http_status,
    refusal,
)
from sidecast_broker.core.a2a.wire import WIRES, Wire

RPC_1, REST_1 = Wire("1.0", "jsonrpc"), Wire("1.0", "rest")
RPC_03, REST_03 = Wire("0.3", "jsonrpc"), Wire("0.3", "rest")

# A2A 1.0, section 5.4, and the JSON-RPC codes: (code, code in v0.3, HTTP status, gRPC status)
TABLE = {
    "TASK_NOT_FOUND": (-32001, -32001, 404, "NOT_FOUND"),
    "TASK_NOT_CANCELABLE": (-32002, -32002, 400, "FAILED_PRECONDITION"),
    "PUSH_NOTIFICATION_NOT_SUPPORTED": (-32003, -32003, 400, "FAILED_PRECONDITION"),
    "UNSUPPORTED_OPERATION": (-32004, -32004, 400, "FAILED_PRECONDITION"),
    "CONTENT_TYPE_NOT_SUPPORTED": (-32005, -32005, 400, "INVALID_ARGUMENT"),
    "INVALID_AGENT_RESPONSE": (-32006, -32006, 500, "INTERNAL"),
    "EXTENDED_AGENT_CARD_NOT_CONFIGURED": (-32007, -32007, 400, "FAILED_PRECONDITION"),
    "EXTENSION_SUPPORT_REQUIRED": (-32008, -32603, 400, "FAILED_PRECONDITION"),
    "VERSION_NOT_SUPPORTED": (-32009, -32603, 400, "FAILED_PRECONDITION"),
    "PARSE_ERROR": (-32700, -32700, 400, "INVALID_ARGUMENT"),
    "INVALID_REQUEST": (-32600, -32600, 400, "INVALID_ARGUMENT"),
    "METHOD_NOT_FOUND": (-32601, -32601, 404, "NOT_FOUND"),
    "INVALID_PARAMS": (-32602, -32602, 400, "INVALID_ARGUMENT"),
    "INTERNAL_ERROR": (-32603, -32603, 500, "INTERNAL"),
}
OF_TRANSPORT = {
    "UNAUTHENTICATED": (401, "UNAUTHENTICATED"),
    "PERMISSION_DENIED": (403, "PERMISSION_DENIED"),
    "REQUEST_TIMEOUT": (408, "DEADLINE_EXCEEDED"),
    "UNSUPPORTED_ENCODING": (415, "INVALID_ARGUMENT"),
    "BODY_TOO_LARGE": (413, "INVALID_ARGUMENT"),
    "RESOURCE_EXHAUSTED": (429, "RESOURCE_EXHAUSTED"),
    "UNAVAILABLE": (503, "UNAVAILABLE"),
}


def test_each_kind_is_its_own():
    # members of an Enum with equal values are one
    assert set(ErrorKind.__members__) == {kind.name for kind in ErrorKind} == set(TABLE) | set(OF_TRANSPORT)


@pytest.mark.row("C48")
@pytest.mark.parametrize("name", TABLE)
def test_codes_and_statuses(name):
    code, code_v03, status, grpc = TABLE[name]
    error = A2AError(ErrorKind[name])
    assert [error_code(error, wire) for wire in (RPC_1, REST_1, RPC_03, REST_03)] == [
        code,
        code,
        code_v03,
        code_v03,
    ]
    assert [http_status(error, wire) for wire in (RPC_1, REST_1, RPC_03, REST_03)] == [
        200,
        status,
        200,
        status,
    ]
    assert json.loads(error_body(error, REST_1))["error"]["status"] == grpc


@pytest.mark.parametrize("name", OF_TRANSPORT)
@pytest.mark.parametrize("wire", WIRES)
def test_what_is_of_http_has_its_status_on_all_wires(name, wire):
    status, grpc = OF_TRANSPORT[name]
    error = A2AError(ErrorKind[name])
    assert http_status(error, wire) == status
    assert error_code(error, wire) == -32000
    answer = refusal(error, wire, b"1", streams=True)
    assert (answer.status, answer.content_type) == (status, "application/json")
    body = json.loads(answer.body)
    if wire == REST_1:
        assert body["error"]["status"] == grpc
        assert body["error"]["details"] == []
    else:
        assert "data" not in json.dumps(body)


NOT_FOUND = A2AError(ErrorKind.TASK_NOT_FOUND)
NOT_FOUND_INFO = {
    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
    "reason": "TASK_NOT_FOUND",
    "domain": "a2a-protocol.org",
    "metadata": {},
}


@pytest.mark.parametrize(
    ("wire", "body"),
    [
        (
            RPC_1,
            {
                "jsonrpc": "2.0",
                "id": 7,
                "error": {"code": -32001, "message": "Task not found", "data": [NOT_FOUND_INFO]},
            },
        ),
        (
            REST_1,
            {
                "error": {
                    "code": 404,
                    "status": "NOT_FOUND",
                    "message": "Task not found",
                    "details": [NOT_FOUND_INFO],
                }
            },
        ),
        (RPC_03, {"jsonrpc": "2.0", "id": 7, "error": {"code": -32001, "message": "Task not found"}}),
        (REST_03, {"code": -32001, "message": "Task not found"}),
    ],
    ids=lambda value: getattr(value, "format", ""),
)
def test_bodies(wire, body):
    assert json.loads(error_body(NOT_FOUND, wire, b"7")) == body


def test_violations_and_metadata():
    error = A2AError(
        ErrorKind.INVALID_PARAMS,
        "id is required",
        metadata={"k": "v"},
        violations=[Violation("id", "is required")],
    )
    details = [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "INVALID_PARAMS",
            "domain": "a2a-protocol.org",
            "metadata": {"k": "v"},
        },
        {
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{"field": "id", "description": "is required"}],
        },
    ]
    assert json.loads(error_body(error, RPC_1))["error"]["data"] == details
    assert json.loads(error_body(error, REST_1))["error"]["details"] == details
    assert json.loads(error_body(error, REST_03)) == {"code": -32602, "message": "id is required"}


def test_v03_has_its_own_name_for_the_extended_card():
    error = A2AError(ErrorKind.EXTENDED_AGENT_CARD_NOT_CONFIGURED)
    assert b"Authenticated" in error_body(error, RPC_03)
    assert b"uthenticated" not in error_body(error, RPC_1)


@pytest.mark.parametrize(
    ("given_id", "known", "echoed"),
    [
        (None, None, b"null"),
        (None, b"3", b"3"),
        (b"4", b"3", b"4"),
        (b"0", b"3", b"0"),
        (b'""', None, b'""'),
        (b"1e5", None, b"1e5"),
        (b"1" * 200, None, b"1" * 200),
        (b'"a\\u0000\\n\\u0061"', None, b'"a\\u0000\\n\\u0061"'),
    ],
)
@pytest.mark.parametrize("wire", [RPC_1, RPC_03])
def test_ids_are_echoed_byte_for_byte(wire, given_id, known, echoed):
    body = error_body(A2AError(ErrorKind.INVALID_REQUEST, rpc_id=known), wire, given_id)
    assert body.startswith(b'{"jsonrpc":"2.0","id":' + echoed + b',"error":')


@pytest.mark.parametrize(
    ("wire", "streams", "content_type"),
    [
        (RPC_1, True, "application/json"),
        (RPC_1, False, "application/json"),
        (RPC_03, True, "text/event-stream"),
        (RPC_03, False, "application/json"),
        (REST_1, True, "application/json"),
        (REST_1, False, "application/json"),
        (REST_03, True, "application/json"),
        (REST_03, False, "application/json"),
    ],
)
def test_refusal_before_a_stream(wire, streams, content_type):
    answer = refusal(NOT_FOUND, wire, b"7", streams=streams)
    body = error_body(NOT_FOUND, wire, b"7")
    assert answer.status == (200 if wire.binding == "jsonrpc" else 404)
    assert answer.content_type == content_type
    assert answer.body == (b"data: " + body + b"\n\n" if content_type == "text/event-stream" else body)


@pytest.mark.parametrize("wire", WIRES)
def test_frame_in_the_middle_of_a_stream(wire):
    name = b"event: error\n" if wire.version == "1.0" else b""
    body = error_body(NOT_FOUND, wire, b"7")
    assert error_frame(NOT_FOUND, wire, b"7") == name + b"data: " + body + b"\n\n"


@given(st.sampled_from(ErrorKind), st.text(min_size=1), st.text(), st.sampled_from(WIRES))
def test_no_text_breaks_a_line(kind, message, value, wire):
    error = A2AError(kind, message, metadata={"said": value}, violations=[Violation(value, message)])
    body = error_body(error, wire, b'"x"')
    assert len(body.decode().splitlines()) == 1
    said = json.loads(body)
    assert said.get("error", said)["message"] == message
    assert error_frame(error, wire, b'"x"').count(b"\n") == (3 if wire.version == "1.0" else 2)


@given(st.text())
def test_escaped_line_ends_mean_the_same(text):
    raw = json.dumps(text, ensure_ascii=False).encode()
    escaped = escape_line_ends(raw)
    assert json.loads(escaped) == text
    assert len(escaped.decode().splitlines()) == 1
