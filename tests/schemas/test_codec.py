"""The codec: tables of payloads and why they are refused; properties over layouts, mutations and noise."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecast_schemas import codec
from sidecast_schemas.codec import (
    DEPTH_MAX,
    Event,
    InvalidEvent,
    MessageBody,
    StatusUpdateBody,
    TurnBody,
    decode_event,
    one_line,
    replace_lone_surrogates,
)

KINDS = ("task", "message", "statusUpdate", "artifactUpdate", "turn")
STATUS = '{"statusUpdate":{"taskId":"t","status":{"state":"TASK_STATE_WORKING"}%s}}'
LONE = re.compile("[\ud800-\udfff]")

VALID: dict[str, tuple[str, str, str | None]] = {
    "task": ("task", '{"task":{"id":"t","status":{"state":"TASK_STATE_SUBMITTED"}}}', "t"),
    "task with artifacts": (
        "task",
        '{"task":{"id":"t","contextId":"c","status":{"state":"TASK_STATE_WORKING"},"artifacts":[{"artifactId":"a"}]}}',
        "t",
    ),
    "status": ("statusUpdate", STATUS % "", "t"),
    "unknown fields": ("statusUpdate", STATUS % ',"later":{"x":[1,null]}', "t"),
    "state of a later version": (
        "statusUpdate",
        '{"statusUpdate":{"taskId":"t","status":{"state":"TASK_STATE_PAUSED"}}}',
        "t",
    ),
    "artifact": (
        "artifactUpdate",
        '{"artifactUpdate":{"taskId":"t","artifact":{"artifactId":"a","parts":[{"text":"x"}]},"append":true}}',
        "t",
    ),
    "message": ("message", '{"message":{"messageId":"m","role":"ROLE_AGENT","parts":[{"text":"x"}]}}', None),
    "message of a task": ("message", '{"message":{"messageId":"m","taskId":"t"}}', "t"),
    "message with ids spelled empty": (
        "message",
        '{"message":{"messageId":"m","taskId":"","contextId":""}}',
        None,
    ),
    "turn": ("turn", '{"turn":{"id":"m","phase":"begin"}}', None),
    "turn with the message": ("turn", '{"turn":{"id":"m","phase":"end","message":{"messageId":"m"}}}', None),
    "other members null": (
        "statusUpdate",
        STATUS[:-1] % "" + ',"task":null,"message":null,"turn":null}',
        "t",
    ),
    "optional fields null": ("statusUpdate", STATUS % ',"contextId":null,"metadata":null', "t"),
    "unknown top-level members": ("statusUpdate", STATUS[:-1] % "" + ',"extra":[{}],"":0}', "t"),
    "same key twice, the last counts": ("statusUpdate", STATUS % ',"taskId":"u"', "u"),
    "same member twice, the last counts": (
        "task",
        '{"task":null,"task":{"id":"t","status":{"state":"TASK_STATE_WORKING"}}}',
        "t",
    ),
    "keys escaped": ("statusUpdate", (STATUS % "").replace("taskId", "task\\u0049d"), "t"),
    "huge integer": ("statusUpdate", STATUS % f',"metadata":{{"n":{"9" * 5000}}}', "t"),
    "number out of range": ("statusUpdate", STATUS % ',"metadata":{"n":1e999,"m":-1E-999}', "t"),
    "brackets in strings": ("statusUpdate", STATUS % f',"metadata":{{"s":"\\\\\\"{"[{" * 100_000}"}}', "t"),
    "empty id": ("statusUpdate", (STATUS % "").replace('"t"', '""'), ""),
    "spaces around": ("statusUpdate", " \t " + STATUS % "" + " \t ", "t"),
    "delete character and line separator": (
        "statusUpdate",
        STATUS % ',"metadata":{"s":"\x7f\u2028\u2029"}',
        "t",
    ),
}


@pytest.mark.parametrize("name", VALID)
def test_valid_payload_is_kept_to_the_byte(name: str) -> None:
    kind, text, task_id = VALID[name]
    event = decode_event(text.encode())
    assert (event.kind, event.task_id, event.payload, event.repaired) == (kind, task_id, text.encode(), 0)


def nested(opening: str, closing: str, depth: int) -> str:
    return STATUS % f',"metadata":{{"d":{opening * depth}1{closing * depth}}}'


INVALID: dict[str, tuple[str, str | bytes]] = {
    "empty": ("json", ""),
    "spaces only": ("json", "  \n"),
    "not UTF-8": ("encoding", (STATUS % ',"x":"é"').encode("latin-1")),
    "not UTF-8 in an unknown field": ("encoding", b'{"x":"\xff",' + (STATUS % "").encode()[1:]),
    "overlong UTF-8": ("encoding", b'{"x":"\xc0\x80"}'),
    "surrogate in UTF-8": ("encoding", b'{"x":"\xed\xa0\x80"}'),
    "UTF-16": ("encoding", (STATUS % "").encode("utf-16")),
    "byte order mark": ("json", b"\xef\xbb\xbf" + (STATUS % "").encode()),
    "not JSON": ("json", "hello"),
    "cut": ("json", (STATUS % "")[:-1]),
    "trailing garbage": ("json", STATUS % "" + "x"),
    "two documents": ("json", STATUS % "" + "\n" + STATUS % ""),
    "trailing comma": ("json", STATUS % ","),
    "comment": ("json", STATUS % "/* */"),
    "single quotes": ("json", (STATUS % "").replace('"', "'")),
    "NaN": ("json", STATUS % ',"x":NaN'),
    "Infinity": ("json", STATUS % ',"x":-Infinity'),
    "leading zero": ("json", STATUS % ',"x":01'),
    "newline in a string": ("json", STATUS % ',"x":"a\nb"'),
    "carriage return in a looked-at string": ("json", (STATUS % "").replace('"t"', '"t\r"')),
    "NUL in a string": ("json", STATUS % ',"x":"\0"'),
    "NUL after the end": ("json", STATUS % "" + "\0"),
    "unknown escape": ("json", STATUS % ',"x":"\\x41"'),
    "cut escape": ("json", STATUS % ',"x":"\\ud8"'),
    "null": ("shape", "null"),
    "number": ("shape", "1"),
    "string": ("shape", '"statusUpdate"'),
    "array": ("shape", f"[{STATUS % ''}]"),
    "member is an array": ("shape", '{"task":[]}'),
    "member is a string": ("shape", '{"statusUpdate":"TASK_STATE_WORKING"}'),
    "id is a number": ("shape", (STATUS % "").replace('"t"', "7")),
    "id is null": ("shape", (STATUS % "").replace('"t"', "null")),
    "id is missing": ("shape", '{"task":{"status":{"state":"TASK_STATE_WORKING"}}}'),
    "status is missing": ("shape", '{"statusUpdate":{"taskId":"t"}}'),
    "status is a string": ("shape", '{"task":{"id":"t","status":"TASK_STATE_WORKING"}}'),
    "state is a number": ("shape", '{"task":{"id":"t","status":{"state":2}}}'),
    "metadata is an array": ("shape", STATUS % ',"metadata":[]'),
    "status message is a string": (
        "shape",
        '{"task":{"id":"t","status":{"state":"TASK_STATE_WORKING","message":"x"}}}',
    ),
    "artifact is missing": ("shape", '{"artifactUpdate":{"taskId":"t"}}'),
    "artifact without id": ("shape", '{"artifactUpdate":{"taskId":"t","artifact":{"parts":[]}}}'),
    "parts is an object": (
        "shape",
        '{"artifactUpdate":{"taskId":"t","artifact":{"artifactId":"a","parts":{}}}}',
    ),
    "part is a string": ("shape", '{"message":{"messageId":"m","parts":["x"]}}'),
    "append is a string": (
        "shape",
        '{"artifactUpdate":{"taskId":"t","artifact":{"artifactId":"a"},"append":"true"}}',
    ),
    "turn without phase": ("shape", '{"turn":{"id":"m"}}'),
    "turn of unknown phase": ("shape", '{"turn":{"id":"m","phase":"middle"}}'),
    "no member": ("kind", "{}"),
    "no known member": ("kind", '{"Task":{},"status_update":{},"kind":"task"}'),
    "only null members": ("kind", '{"task":null,"statusUpdate":null}'),
    "two members": ("kind", STATUS[:-1] % "" + ',"message":{"messageId":"m"}}'),
    "an event and a turn": ("kind", STATUS[:-1] % "" + ',"turn":{"id":"m","phase":"end"}}'),
    "state of v0.3": ("state", '{"task":{"id":"t","status":{"state":"working"}}}'),
    "empty state": ("state", '{"task":{"id":"t","status":{"state":""}}}'),
    "state with a line end": ("state", '{"task":{"id":"t","status":{"state":"TASK_STATE_WORKING\\n"}}}'),
    "state too long": ("state", f'{{"task":{{"id":"t","status":{{"state":"TASK_STATE_{"A" * 65}"}}}}}}'),
    "arrays nested 100,000 deep": ("depth", nested("[", "]", 100_000)),
    "objects nested 100,000 deep": ("depth", nested('{"a":', "}", 100_000)),
    "an unknown member nested 100,000 deep": ("depth", '{"x":' * 100_000),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_payload_is_refused_with_the_reason(name: str) -> None:
    reason, payload = INVALID[name]
    with pytest.raises(InvalidEvent) as refused:
        decode_event(payload.encode() if isinstance(payload, str) else payload)
    assert refused.value.reason == reason
    assert 0 < len(str(refused.value)) <= 200


@pytest.mark.parametrize(
    "payload",
    [
        '{"turn":{"id":"m","phase":"%s"}}' % ("x" * 100_000),
        '{"task":{"id":"t","status":{"state":"%s"}}}' % ("x" * 100_000),
    ],
)
def test_an_error_quotes_little_of_a_payload(payload: str) -> None:
    with pytest.raises(InvalidEvent) as refused:
        decode_event(payload.encode())
    assert len(str(refused.value)) <= 200


@pytest.mark.parametrize(
    ("payload", "state", "terminal"),
    [
        (STATUS % "", "TASK_STATE_WORKING", False),
        ('{"task":{"id":"t","status":{"state":"TASK_STATE_FAILED"}}}', "TASK_STATE_FAILED", True),
        (
            '{"task":{"id":"t","status":{"state":"TASK_STATE_INPUT_REQUIRED"}}}',
            "TASK_STATE_INPUT_REQUIRED",
            False,
        ),
        ('{"message":{"messageId":"m"}}', None, False),
        ('{"artifactUpdate":{"taskId":"t","artifact":{"artifactId":"a"},"lastChunk":true}}', None, False),
        ('{"turn":{"id":"m","phase":"end"}}', None, False),
    ],
)
def test_state_of_an_event(payload: str, state: str | None, terminal: bool) -> None:
    event = decode_event(payload.encode())
    assert (event.state, event.terminal) == (state, terminal)


@pytest.mark.parametrize(
    ("payload", "context_id"),
    [
        (STATUS % ',"contextId":"c"', "c"),
        (STATUS % "", None),
        (STATUS % ',"contextId":""', None),
        ('{"message":{"messageId":"m","contextId":"c"}}', "c"),
        ('{"turn":{"id":"m","phase":"end","contextId":"c"}}', None),
    ],
)
def test_context_of_an_event(payload: str, context_id: str | None) -> None:
    assert decode_event(payload.encode()).context_id == context_id


def test_bodies_keep_what_is_inside_them_raw() -> None:
    status = decode_event((STATUS % ',"metadata":{"n":1.0e+2,"o":{"b":1,"a":2}}').encode()).body
    assert isinstance(status, StatusUpdateBody)
    assert status.metadata is not None
    assert bytes(status.metadata["n"]) == b"1.0e+2"
    assert bytes(status.metadata["o"]) == b'{"b":1,"a":2}'
    message = decode_event(b'{"message":{"messageId":"m","parts":[{"text":"a\\u0062"}]}}').body
    assert isinstance(message, MessageBody)
    assert message.parts is not None
    assert bytes(message.parts[0]["text"]) == b'"a\\u0062"'
    turn = decode_event(b'{"turn":{"id":"m","phase":"end","reason":"done"}}').body
    assert turn == TurnBody("m", "end", "done")


@pytest.mark.parametrize(
    ("payload", "line"),
    [
        (b'{\n  "a": 1\n}\n', b'{  "a": 1}'),
        (b'{\r\n"a":\r1}', b'{"a":1}'),
        (b'{"a":"\\n\\r"}', b'{"a":"\\n\\r"}'),
        (b'{"a":\t1}', b'{"a":\t1}'),
    ],
)
def test_newlines_between_tokens_are_squeezed_out(payload: bytes, line: bytes) -> None:
    assert one_line(payload) == line
    laid_out = (STATUS % ',"x":').encode()
    assert decode_event(laid_out.replace(b'"x":', b'"x":' + payload)).payload == laid_out.replace(
        b'"x":', b'"x":' + line
    )


@pytest.mark.parametrize(
    ("opening", "closing", "levels"), [("[", "]", 1), ('{"a":', "}", 1), ('[{"\\\\\\"]":', "}]", 2)]
)
@pytest.mark.parametrize(
    ("depth", "expected"), [(DEPTH_MAX, "ok"), (DEPTH_MAX + 2, "depth"), (900, "depth"), (100_000, "depth")]
)
def test_depth_has_one_limit_at_any_depth_of_calls(
    opening: str, closing: str, levels: int, depth: int, expected: str
) -> None:
    outer = 2  # of the envelope and the update
    count = (depth - outer) // levels
    payload = (STATUS % f',"d":{opening * count}1{closing * count}').encode()
    assert verdict(payload) == verdict_deep_in_calls(payload, 500) == expected


def test_the_depth_limit_is_exact() -> None:
    assert verdict((STATUS % f',"d":{"[" * (DEPTH_MAX - 2)}{"]" * (DEPTH_MAX - 2)}').encode()) == "ok"
    assert verdict((STATUS % f',"d":{"[" * (DEPTH_MAX - 1)}{"]" * (DEPTH_MAX - 1)}').encode()) == "depth"


def verdict(payload: bytes) -> str:
    try:
        decode_event(payload)
    except InvalidEvent as error:
        return error.reason
    return "ok"


def verdict_deep_in_calls(payload: bytes, calls: int) -> str:
    return verdict_deep_in_calls(payload, calls - 1) if calls else verdict(payload)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(["\n", "\r\n", '"', "\\", "[{", "\\ud800", "\0", "\u2028", "😀", "data: x\n\n"]),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), inner, max_size=3)
    ),
    max_leaves=12,
)


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


@given(st.lists(values, min_size=1, max_size=3), st.integers(0, 6), st.booleans())
@example(["\\", [[]], "\\"], 2, True)
@example(['"', [[]], '"'], 2, True)
@example(["[[", "]]", ""], 1, True)
def test_depth_is_counted_as_a_parser_counts_it(
    document: list[Any], depth_max: int, ascii_only: bool
) -> None:
    payload = json.dumps(document, ensure_ascii=ascii_only).encode()
    assert codec.nests_deeper(payload, depth_max) == (depth_of(document) > depth_max)


def lay_out(value: Any, space: Callable[[], str], ascii_only: bool) -> str:
    """Write JSON with any white space between its tokens."""

    def token(text: str) -> str:
        return space() + text + space()

    if isinstance(value, dict):
        members = (
            token(json.dumps(key, ensure_ascii=ascii_only)) + ":" + lay_out(member, space, ascii_only)
            for key, member in value.items()
        )
        return token("{" + ",".join(members) + space() + "}")
    if isinstance(value, list):
        return token("[" + ",".join(lay_out(item, space, ascii_only) for item in value) + space() + "]")
    return token(json.dumps(value, ensure_ascii=ascii_only))


@given(values, values, st.integers(0, 2**32), st.booleans())
def test_any_document_in_any_layout_keeps_its_meaning(
    metadata: Any, extra: Any, seed: int, ascii_only: bool
) -> None:
    spaces = random.Random(seed)
    document = {
        "statusUpdate": {
            "taskId": "t",
            "status": {"state": "TASK_STATE_WORKING"},
            "metadata": {"m": metadata},
            "later": extra,
        },
        "extra": [extra],
    }
    text = lay_out(
        document, lambda: "".join(spaces.choices(" \t\r\n", k=spaces.choice((0, 0, 1, 3)))), ascii_only
    )
    event = decode_event(text.encode())
    assert repr(json.loads(event.payload)) == repr(document)
    assert event.repaired == 0
    assert not re.search(rb"[\r\n]", event.payload)
    assert event.payload.replace(b" ", b"") == re.sub(rb"[\r\n ]", b"", text.encode())


@pytest.mark.parametrize(
    ("text", "mended", "count"),
    [
        (r'"\ud800"', r'"\ufffd"', 1),
        (r'"\uDBFF"', r'"\ufffd"', 1),
        (r'"\udc00"', r'"\ufffd"', 1),
        (r'"\udc00\ud800"', r'"\ufffd\ufffd"', 2),
        (r'"\ud800\ud800\udc00"', r'"\ufffd\ud800\udc00"', 1),
        (r'"\ud83d\ude00"', r'"\ud83d\ude00"', 0),
        (r'"\uD83D\uDE00\uDE00"', r'"\uD83D\uDE00\ufffd"', 1),
        (r'"\ud800x\udc00"', r'"\ufffdx\ufffd"', 2),
        (r'"\ud800\u0041"', r'"\ufffd\u0041"', 1),
        (r'"\ud800\\udc00"', r'"\ufffd\\udc00"', 1),
        (r'"\\ud800"', r'"\\ud800"', 0),
        (r'"\\\ud800"', r'"\\\ufffd"', 1),
        (r'"\\\\ud800"', r'"\\\\ud800"', 0),
        (r'"\"\ud800"', r'"\"\ufffd"', 1),
        (r'"\ud7ff\ue000\ufffd"', r'"\ud7ff\ue000\ufffd"', 0),
        (r'{"\ud800":"\udfff"}', r'{"\ufffd":"\ufffd"}', 2),
    ],
)
def test_lone_surrogates_are_replaced_and_counted(text: str, mended: str, count: int) -> None:
    assert replace_lone_surrogates(text.encode()) == (mended.encode(), count)
    event = decode_event((STATUS % f',"metadata":{{"s":{text}}}').encode())
    assert event.payload == (STATUS % f',"metadata":{{"s":{mended}}}').encode()
    assert event.repaired == count


def test_a_lone_surrogate_in_an_id_is_replaced_before_it_is_looked_at() -> None:
    event = decode_event((STATUS % "").replace('"t"', r'"t\ud800"').encode())
    assert (event.task_id, event.repaired) == ("t\ufffd", 1)


ESCAPES = (
    r"\ud800 \uDBff \udc00 \uDFFF \ud83d\ude00 \\ \" \n \u005c \u0041 \ufffd \ud7ff \ue000 u ud800 d é 😀"
)
escapes = st.lists(st.sampled_from([" ", *ESCAPES.split()]), max_size=12).map("".join)


@given(escapes, escapes)
@example(r"\\", "ud800")
@example(r"\ud800", r"\udc00")
def test_replacing_agrees_with_a_parser(key: str, text: str) -> None:
    payload = f'{{"k{key}":["{text}"]}}'
    ((parsed_key, (parsed_text,)),) = json.loads(payload).items()
    mended, count = replace_lone_surrogates(payload.encode())
    assert json.loads(mended) == {LONE.sub("\ufffd", parsed_key): [LONE.sub("\ufffd", parsed_text)]}
    assert count == len(LONE.findall(parsed_key + parsed_text))
    assert len(mended) == len(payload.encode())


def parsed(payload: bytes) -> Any:
    """What a strict reader makes of a payload, its lone surrogates replaced."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    def mended(value: Any) -> Any:
        if isinstance(value, str):
            return LONE.sub("\ufffd", value)
        if isinstance(value, list):
            return [mended(item) for item in value]
        if isinstance(value, dict):
            return {mended(key): mended(member) for key, member in value.items()}
        return value

    return mended(json.loads(payload.decode(), parse_constant=refuse))


def is_json(payload: bytes) -> bool:
    try:
        parsed(payload)
    except ValueError:
        return False
    return True


def check_verdict(payload: bytes) -> None:
    try:
        event = decode_event(payload)
    except InvalidEvent as error:
        if error.reason in ("encoding", "json"):
            assert not is_json(payload)
        return
    assert isinstance(event, Event)
    document = parsed(payload)
    assert parsed(event.payload) == document
    assert [kind for kind in KINDS if document.get(kind) is not None] == [event.kind]
    assert not re.search(rb"[\r\n]", event.payload)
    assert replace_lone_surrogates(event.payload) == (event.payload, 0)
    assert decode_event(event.payload).payload == event.payload


@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:\\u0d8ntaskmeg \n', max_size=60).map(str.encode))
def test_noise_is_an_event_or_invalid_and_nothing_else(payload: bytes) -> None:
    check_verdict(payload)


SEEDS = [text.encode() for _, text, _ in VALID.values() if len(text) < 300] + [
    (STATUS % r',"metadata":{"s":"\\\ud83d\ude00\ud800é","n":[-1.5e3,0,true,null,{}]}').encode(),
    b'{\n "turn": {"id": "m",\r\n "phase": "begin"}\n}',
]
FRAGMENTS = [
    *rb'\ " \u \ud800 \udc00 { } [ ] , : null 1e5 0 - . task'.split(),
    *(b"", b" ", b"\n", b"\r", b"\0", b"\x1f", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf"),
]
edits = st.lists(
    st.tuples(st.integers(0, 300), st.integers(0, 8), st.sampled_from(FRAGMENTS)), min_size=1, max_size=4
)


@given(st.sampled_from(SEEDS), edits)
def test_mutated_payload_is_an_event_or_invalid_and_nothing_else(
    seed: bytes, changes: list[tuple[int, int, bytes]]
) -> None:
    payload = bytearray(seed)
    for position, length, fragment in changes:
        start = position % (len(payload) + 1)
        payload[start : start + length] = fragment
    check_verdict(bytes(payload))
