from __future__ import annotations

import contextlib
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.a2a.envelope import ID_BYTES_MAX, MEMBERS_MAX, parse, parse_params, parse_query
from sidecast_broker.core.a2a.errors import A2AError, ErrorKind, error_body, error_code
from sidecast_broker.core.a2a.wire import Wire

RPC = Wire("1.0", "jsonrpc")


def envelope(rpc_id=b"1", params=b"{}"):
    return b'{"jsonrpc":"2.0","id":%b,"method":"GetTask","params":%b}' % (rpc_id, params)


def refused(body, **how):
    with pytest.raises(A2AError) as raised:
        parse_params(body, **how) if how else parse(body)
    return raised.value


def read(fields):
    return {name: bytes(raw) for name, raw in fields.items()}


def test_parse():
    params = b'{"tenant":"t", "message":{"taskId":"a","big":123456789012345678901234567890,"x":1.50}}'
    request = parse(b' {"jsonrpc":"2.0", "id" : "r-1" ,"method":"SendMessage","params": %b}\r\n' % params)
    assert request.id == b'"r-1"'
    assert request.method == "SendMessage"
    assert read(request.params.fields) == {
        "tenant": b'"t"',
        "message": b'{"taskId":"a","big":123456789012345678901234567890,"x":1.50}',
    }
    assert read(request.params.message) == {
        "taskId": b'"a"',
        "big": b"123456789012345678901234567890",
        "x": b"1.50",
    }


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"method":"x"}',
        b'{"jsonrpc":"2.0","id":1,"method":"x","params":null}',
        b'{"jsonrpc":"2.0","id":1,"method":"x","params": null }',
        b'{"jsonrpc":"2.0","id":1,"method":"x","params":{ }}',
        b'\n{"method":"x","unknown":[1],"id":1,"jsonrpc":"2.\\u0030"}\n',
    ],
)
def test_parameters_may_be_absent(body):
    request = parse(body)
    assert request.method == "x"
    assert request.params == ({}, None)


@pytest.mark.parametrize("message", [b"null", b"1", b'"m"', b"[]", b"true"])
def test_a_message_that_is_no_object_stays_raw(message):
    params = parse(envelope(params=b'{"message":%b}' % message)).params
    assert params.message is None
    assert read(params.fields) == {"message": message}


@pytest.mark.parametrize(
    "rpc_id",
    [
        b"0",
        b"-1",
        b"-0",
        b"1.0",
        b"1e5",
        b"1E+5",
        b"9007199254740993",
        b"1" * ID_BYTES_MAX,
        b"null",
        b'""',
        b'"a b"',
        b'"a\\u0000b"',
        b'"a\\nb\\r"',
        b'"\\u000a\\u000d\\n\\n"',
        b'"\\u0061\\/\\ud83d\\ude00"',
        '"é😀"'.encode(),
        b'"data: x"',
        b'"' + b"x" * (ID_BYTES_MAX - 2) + b'"',
    ],
)
def test_ids_keep_their_spelling(rpc_id):
    request = parse(envelope(rpc_id))
    assert request.id == rpc_id
    body = error_body(A2AError(ErrorKind.TASK_NOT_FOUND), RPC, request.id)
    assert b'"id":' + rpc_id + b"," in body
    assert len(body.decode().splitlines()) == 1


def test_an_absent_id_is_null():
    assert parse(b'{"jsonrpc":"2.0","method":"x"}').id == b"null"


@given(st.text(max_size=40) | st.integers() | st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_any_id_comes_back_on_one_line_without_nul(value, ascii_only):
    raw = json.dumps(value, ensure_ascii=ascii_only).encode()
    if len(raw) > ID_BYTES_MAX - 20:
        return
    rpc_id = parse(envelope(raw)).id
    assert json.loads(rpc_id) == value
    assert len(rpc_id.decode().splitlines()) == 1
    assert b"\0" not in rpc_id


@pytest.mark.parametrize(
    "rpc_id",
    [
        b"true",
        b"false",
        b"{}",
        b'{"a":1}',
        b"[]",
        b"[1]",
        b"1" * (ID_BYTES_MAX + 1),
        b'"' + b"x" * ID_BYTES_MAX + b'"',
        ('"' + "\u2028" * 80 + '"').encode(),
    ],
)
def test_other_ids_are_refused(rpc_id):
    error = refused(envelope(rpc_id))
    assert error.kind is ErrorKind.INVALID_REQUEST
    assert error.rpc_id is None


@pytest.mark.row("C49")
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"}",
        b'{"jsonrpc":"2.0"',
        b"[",
        b"[{},",
        b'[{"jsonrpc":"2.0","method":"x"',
        envelope() + b"x",
        envelope() + b"{}",
        envelope() + b"\0",
        b"\0" + envelope(),
        b"\xef\xbb\xbf" + envelope(),
        envelope().decode().encode("utf-16"),
        envelope(b"01"),
        envelope(b"1."),
        envelope(b"+1"),
        envelope(b"NaN"),
        envelope(b"-Infinity"),
        envelope(b"'a'"),
        envelope(b'"a\nb"'),
        envelope(b'"a\0b"'),
        envelope(b'"\\x41"'),
        envelope(b'"\\u12"'),
        envelope(b'"\xff"'),
        envelope(b'"\xed\xa0\x80"'),
        envelope(b'"\xc0\x80"'),
        envelope(b'"\\ud800"'),
        envelope(b'"\\udc00\\ud800"'),
        envelope(params=b'{"a":{"b":"\\ud800"}}'),
        envelope(params=b'{"a":{"b":"\xff"}}'),
        envelope(params=b'{"a":1,}'),
        envelope(params=b'{"a":1}// x'),
        b"jsonrpc=2.0&method=x",
    ],
    ids=lambda body: ascii(body[:40]),
)
def test_what_is_not_json(body):
    error = refused(body)
    assert error.kind is ErrorKind.PARSE_ERROR
    assert json.loads(error_body(error, RPC))["id"] is None


@pytest.mark.row("C49")
@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"[%b]" % envelope(),
        b" [%b,%b]" % (envelope(), envelope()),
        b"null",
        b"1",
        b'"x"',
        b"true",
        b"{}",
        b'{"id":1,"method":"x"}',
        b'{"jsonrpc":"1.0","id":1,"method":"x"}',
        b'{"jsonrpc":"2.00","id":1,"method":"x"}',
        b'{"jsonrpc":2.0,"id":1,"method":"x"}',
        b'{"jsonrpc":null,"id":1,"method":"x"}',
        b'{"jsonrpc":"2.0","id":1}',
        b'{"jsonrpc":"2.0","id":1,"method":null}',
        b'{"jsonrpc":"2.0","id":1,"method":1}',
        b'{"jsonrpc":"2.0","id":1,"method":["x"]}',
    ],
)
def test_what_is_no_envelope(body):
    error = refused(body)
    assert error.kind is ErrorKind.INVALID_REQUEST
    if body.lstrip().startswith(b"["):
        assert "atch" in error.message


@pytest.mark.parametrize("params", [b"[]", b'["a"]', b"1", b'"a"', b"true"])
def test_parameters_must_be_an_object(params):
    error = refused(envelope(b"5", params))
    assert error.kind is ErrorKind.INVALID_PARAMS
    assert error_code(error, RPC) == -32602
    assert error.rpc_id == b"5"


DOUBLES = [
    (b'"id":"a"', b'"id":"b"'),
    (b'"id":"a"', b'"id":"a"'),
    (b'"id":"a"', b'"ID":"b"'),
    (b'"id":"a"', b'"Id":"b"'),
    (b'"id":"a"', b'"\\u0069d":"b"'),
    (b'"id":"a"', b'"\\u0049d":"b"'),
    (b'"taskId":"a"', b'"taskid":"b"'),
    (b'"taskId":"a"', b'"task_id":"b"'),
    (b'"taskId":"a"', b'"TASK_ID":"b"'),
    (b'"taskId":"a"', '"ta\u017fkId":"b"'.encode()),  # Go folds this letter to s
    (b'"taskId":"a"', '"tas\u212aId":"b"'.encode()),  # and the Kelvin sign to k
    (b'"task_id":"a"', b'"taskId":"b"'),
    (b'"other":1', b'"other":1'),
    (b'"other":1', b'"Other":2'),
    ('"é":1'.encode(), '"É":2'.encode()),
    (b'"":1', b'"":2'),
]


@pytest.mark.parametrize(("one", "two"), DOUBLES)
@pytest.mark.parametrize("between", [b",", b', "x":{"id":"c"} ,\n'])
def test_members_that_stand_twice(one, two, between):
    both = one + between + two
    error = refused(envelope(b"5", b"{%b}" % both))
    assert error.kind is ErrorKind.INVALID_REQUEST
    assert error.rpc_id == b"5"
    inside = refused(envelope(b"5", b'{"message":{%b}}' % both))
    assert inside.kind is ErrorKind.INVALID_REQUEST
    assert inside.rpc_id == b"5"
    assert refused(b"{%b}" % both, v03=False).kind is ErrorKind.INVALID_REQUEST
    assert refused(b"{%b}" % both, v03=True).kind is ErrorKind.INVALID_REQUEST


@pytest.mark.parametrize(
    "double",
    [
        b'"id":2',
        b'"ID":1',
        b'"method":"GetTask"',
        b'"Method":"CancelTask"',
        b'"me\\u0074hod":"CancelTask"',
        b'"params":{}',
        b'"PARAMS":{"id":"b"}',
        b'"par\\u0061ms":{"id":"b"}',
        b'"jsonrpc":"2.0"',
        b'"_id":1',
    ],
)
def test_members_of_the_envelope_that_stand_twice(double):
    body = envelope()
    assert refused(body[:-1] + b"," + double + b"}").kind is ErrorKind.INVALID_REQUEST
    assert refused(b"{" + double + b"," + body[1:]).kind is ErrorKind.INVALID_REQUEST


@pytest.mark.parametrize(
    "params",
    [
        b'{"ID":"b"}',
        b'{"i_d":"b"}',
        b'{"taskid":"b"}',
        b'{"TaskId":"b"}',
        b'{"Task_Id":"b"}',
        b'{"Tenant":"b"}',
        b'{"Message":{}}',
        b'{"message":{"TaskID":"b"}}',
        b'{"message":{"taskid":"b"}}',
        b'{"message":{"Reference_task_ids":["b"]}}',
    ],
)
def test_a_name_that_some_agent_would_take_must_be_spelled_right(params):
    assert refused(envelope(params=params)).kind is ErrorKind.INVALID_REQUEST


def test_the_names_of_protobuf_are_read_as_those_of_json():
    params = parse(
        envelope(params=b'{"task_id":"a","message":{"task_id":"b","reference_task_ids":[],"x_y":1}}')
    ).params
    assert read(params.fields)["taskId"] == b'"a"'
    assert read(params.message) == {"taskId": b'"b"', "referenceTaskIds": b"[]", "x_y": b"1"}


def test_the_v03_proto_has_two_names_for_the_message():
    body = b'{"request":{"taskId":"b"}}'
    assert read(parse_params(body, v03=True).message) == {"taskId": b'"b"'}
    assert parse_params(body, v03=False).message is None
    both = b'{"message":{"taskId":"a"},"request":{"taskId":"b"}}'
    assert refused(both, v03=True).kind is ErrorKind.INVALID_REQUEST
    assert refused(b'{"Request":{}}', v03=True).kind is ErrorKind.INVALID_REQUEST


def test_names_below_are_not_looked_at():
    params = b'{"metadata":{"a":1,"A":2,"a":3},"message":{"parts":[{"id":1,"id":2}]}}'
    assert read(parse(envelope(params=params)).params.fields)["metadata"] == b'{"a":1,"A":2,"a":3}'


@pytest.mark.parametrize("v03", [False, True])
def test_parse_params(v03):
    assert parse_params(b"", v03=v03) == ({}, None)
    assert parse_params(b" \n", v03=v03) == ({}, None)
    assert parse_params(b"null", v03=v03) == ({}, None)
    params = parse_params(b' {"message": {"taskId":"a"} } ', v03=v03)
    assert read(params.fields) == {"message": b'{"taskId":"a"}'}
    assert read(params.message) == {"taskId": b'"a"'}
    assert refused(b"[]", v03=v03).kind is ErrorKind.INVALID_PARAMS
    assert refused(b"{}x", v03=v03).kind is ErrorKind.PARSE_ERROR
    assert refused(b'{"a":"\xff"}', v03=v03).kind is ErrorKind.PARSE_ERROR


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":[', b"]}]")])
@pytest.mark.parametrize("count", [300, 5_000, 100_000])
def test_deep_nesting(opening, closing, count):
    nested = opening * count + b"1" + closing * count
    for body in (envelope(params=b'{"a":%b}' % nested), nested):
        assert refused(body).kind is ErrorKind.INVALID_REQUEST
    assert refused(envelope(params=b'{"a":' + opening * count)).kind in (
        ErrorKind.PARSE_ERROR,
        ErrorKind.INVALID_REQUEST,
    )


def test_nesting_that_any_reader_survives():
    nested = b"[" * 250 + b"]" * 250
    assert read(parse(envelope(params=b'{"a":%b}' % nested)).params.fields)["a"] == nested


@pytest.mark.parametrize("count", [MEMBERS_MAX + 1, 2_000, 400_000])
def test_many_members(count):
    many = b"{%b}" % b",".join(b'"%d":1' % number for number in range(count))
    assert refused(many).kind is ErrorKind.INVALID_REQUEST
    assert refused(envelope(b"5", many)).rpc_id == b"5"
    assert "members" in refused(envelope(params=b'{"message":%b}' % many)).message


def test_many_members_are_not_even_decoded():
    many = b"{%b}" % b",".join(b'"%d":1' % number for number in range(100_000))
    tracemalloc.start()
    try:
        refused(many)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1_000_000


def test_a_large_body_is_read_as_a_small_one():
    text = b'"' + b"x" * 4_194_304 + b'"'
    message = b'{"taskId":"a","parts":[{"text":%b}]}' % text
    request = parse(envelope(params=b'{"message":%b}' % message))
    assert read(request.params.message)["taskId"] == b'"a"'
    assert refused(envelope(params=b'{"x":%b,"id":"a","ID":"b"}' % text)).kind is ErrorKind.INVALID_REQUEST
    assert refused(envelope(params=b'{"x":%b,"TASKID":"b"}' % text)).kind is ErrorKind.INVALID_REQUEST


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_a_request_or_an_error(body):
    answered = None
    try:
        request = parse(body)
    except A2AError as error:
        answered = json.loads(error_body(error, RPC))["error"]["code"]
    if answered is None:
        assert json.loads(body)["method"] == request.method
    else:
        assert answered in (-32700, -32600, -32602)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["id", "ID", "taskId", "task_id", "message", "metadata", "a", "A"])


@given(st.lists(st.tuples(NAMES, JSON), max_size=5))
def test_what_is_read_is_what_every_reader_reads(pairs):
    """Parameters are taken only if no two readers can differ about them; then all are there, unchanged."""
    inside = ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in pairs)
    folded = [name.replace("_", "").lower() for name, _ in pairs]
    try:
        params = parse(envelope(params=b"{%b}" % inside.encode())).params
    except A2AError:
        spelled_right = {"id", "taskId", "task_id", "message", "metadata", "a", "A"}
        inside_message = any(isinstance(value, dict) for name, value in pairs if name == "message")
        assert len(set(folded)) < len(folded) or {name for name, _ in pairs} - spelled_right or inside_message
        return
    assert len(set(folded)) == len(folded)
    assert {name: json.loads(raw) for name, raw in read(params.fields).items()} == {
        "taskId" if name == "task_id" else name: value for name, value in pairs
    }


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("", {}),
        ("x=1&historyLength=2&ids=3", {}),
        ("x=%ff&%ff=1&x=;", {}),
        ("tenant=t", {"tenant": b'"t"'}),
        ("tenant=", {"tenant": b'""'}),
        ("tenant", {"tenant": b'""'}),
        ("id=a%20b+c%2B&task_id=%E2%82%AC", {"id": b'"a b c+"', "taskId": '"\u20ac"'.encode()}),
        ("t%65nant=t", {"tenant": b'"t"'}),
    ],
)
def test_a_query_names_a_task_and_a_tenant(query, fields):
    assert read(parse_query(query).fields) == fields


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("tenant=t&tenant=t", ErrorKind.INVALID_REQUEST),
        ("taskId=a&task_id=a", ErrorKind.INVALID_REQUEST),
        ("tenant=t&%54enant=u", ErrorKind.INVALID_REQUEST),
        ("TENANT=t", ErrorKind.INVALID_REQUEST),
        ("tas%E2%84%AAId=a", ErrorKind.INVALID_REQUEST),
        ("x=1;tenant=t", ErrorKind.INVALID_REQUEST),
        ("tenant=t;x=1", ErrorKind.INVALID_REQUEST),
        ("tenant=%ff", ErrorKind.INVALID_PARAMS),
        ("id=%ED%A0%80", ErrorKind.INVALID_PARAMS),
    ],
)
def test_a_query_that_readers_might_confuse_is_refused(query, kind):
    with pytest.raises(A2AError) as raised:
        parse_query(query)
    assert raised.value.kind is kind


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#")))
def test_any_query_is_read_or_refused(query):
    with contextlib.suppress(A2AError):
        assert parse_query(query).fields.keys() <= {"id", "taskId", "tenant"}
