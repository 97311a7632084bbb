"""Subjects and their tokens: tables both ways, and properties over hostile ids."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_schemas.subjects import (
    EVENTS_PREFIX,
    ID_BYTES_MAX,
    LIVE_PREFIX,
    InvalidId,
    TaskKey,
    captor_subject,
    decode_token,
    encode_token,
    events_subject,
    live_subject,
    parse_subject,
)

TOKEN = re.compile(r"[A-Za-z0-9_=-]{1,343}")
CONTROL_LINE_BYTES_MAX = 4096  # nats-server's max_control_line


def encoded(value: str) -> str:
    return "=" + base64.urlsafe_b64encode(value.encode()).decode().rstrip("=")


def matches(pattern: str, subject: str) -> bool:
    """Whether a subscription to `pattern` receives `subject`, as NATS defines it."""
    wanted, given_tokens = pattern.split("."), subject.split(".")
    for position, token in enumerate(wanted):
        if token == ">":
            return len(given_tokens) > position
        if position >= len(given_tokens) or token not in ("*", given_tokens[position]):
            return False
    return len(wanted) == len(given_tokens)


PIECES = [
    "*",
    ">",
    ".",
    "_",
    "=",
    "-",
    " ",
    "\r\n",
    "\n",
    "\0",
    "\t",
    "/",
    "+",
    "%2e",
    "a",
    "Zz9",
    "é",
    "日本",
    "😀",
    "\u2028",
]
hostile_ids = st.one_of(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80),
    st.from_regex(r"[A-Za-z0-9_-]{1,140}", fullmatch=True),
    st.from_regex(r"=[A-Za-z0-9_-]{0,20}", fullmatch=True),
    st.text(min_size=1, max_size=20, alphabet=st.characters(exclude_categories=["Cs"])).map(encoded),
).filter(lambda value: len(value.encode()) <= ID_BYTES_MAX)
keys = st.builds(TaskKey, st.just("") | hostile_ids, hostile_ids, hostile_ids)

TOKENS = {
    "task-1": "task-1",
    "A_b-9": "A_b-9",
    "__": "__",
    "-": "-",
    "a" * 128: "a" * 128,
    "a" * 129: encoded("a" * 129),
    "_": "=Xw",
    "=": "=PQ",
    "=Xw": "=PVh3",
    "*": "=Kg",
    ">": "=Pg",
    ".": "=Lg",
    "a.b": "=YS5i",
    "task/1": "=dGFzay8x",
    " ": "=IA",
    "a\r\nPUB x": encoded("a\r\nPUB x"),
    "\0": "=AA",
    "é": "=w6k",
    "e\u0301": encoded("e\u0301"),
    "😀": "=8J-YgA",
    "??>": "=Pz8-",
    "é" * 128: encoded("é" * 128),
    "." * 256: encoded("." * 256),
}


@pytest.mark.parametrize(("value", "token"), TOKENS.items())
def test_id_and_token_translate_both_ways(value: str, token: str) -> None:
    assert encode_token(value) == token
    assert decode_token(token) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a" * 257,
        "." * 257,
        "é" * 129,
        "x" * 10_240,
        "*" * 10_240,
        "\ud800",
        "a\udc00b",
        "\ud800" * 10_240,
    ],
)
def test_unfit_ids_are_refused(value: str) -> None:
    with pytest.raises(InvalidId):
        encode_token(value)
    with pytest.raises(InvalidId):
        events_subject(TaskKey("", "agent", value))
    with pytest.raises(InvalidId):
        live_subject(TaskKey("", value, "task"))


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("", "empty"),
        ("_", "the empty tenant, which is no id"),
        ("a" * 129, "too long to stand as it is"),
        ("a.b", "two tokens"),
        ("*", "a wildcard"),
        (">", "a wildcard"),
        ("é", "outside the token characters"),
        ("a\n", "a line end"),
        ("=", "nothing encoded"),
        ("=dGFzay0x", "`task-1` stands as it is"),
        ("=Kg=", "padded"),
        ("=Kg==", "padded"),
        ("==Kg", "padded in front"),
        ("=K", "cut"),
        ("=Kh", "bits left over"),
        ("=Pz8+", "the alphabet of plain base64"),
        ("=K g", "a space"),
        ("=Kg\n", "a line end"),
        ("=é", "outside ASCII"),
        ("=gA", "not UTF-8"),
        ("=7aCA", "a lone surrogate in UTF-8"),
        ("=wIA", "an overlong NUL"),
        (encoded("." * 257), "the id is too long"),
    ],
)
def test_no_other_token_is_accepted(token: str, why: str) -> None:
    with pytest.raises(InvalidId):
        pytest.fail(f"{why}: {decode_token(token)}")


@given(hostile_ids)
def test_every_id_is_one_safe_token_and_comes_back(value: str) -> None:
    token = encode_token(value)
    assert TOKEN.fullmatch(token)
    assert token != "_"
    assert decode_token(token) == value


@given(hostile_ids, hostile_ids)
def test_different_ids_have_different_tokens(one: str, other: str) -> None:
    assert (encode_token(one) == encode_token(other)) == (one == other)


@given(
    st.one_of(
        st.from_regex(r"=?[A-Za-z0-9_-]{0,12}", fullmatch=True),
        st.text(max_size=20),
        hostile_ids.map(encoded),
    )
)
def test_every_accepted_token_is_the_one_its_id_has(token: str) -> None:
    try:
        value = decode_token(token)
    except InvalidId:
        return
    assert encode_token(value) == token


@given(st.text(st.characters(categories=["Cs", "Ll"]), min_size=1, max_size=20))
def test_an_id_encodes_unless_it_holds_a_lone_surrogate(value: str) -> None:
    if any("\ud800" <= character <= "\udfff" for character in value):
        with pytest.raises(InvalidId):
            encode_token(value)
    else:
        assert decode_token(encode_token(value)) == value


@pytest.mark.parametrize(
    ("key", "tail"),
    [
        (TaskKey("", "planner", "task-1"), "_.planner.task-1"),
        (TaskKey("acme", "planner", "task-1"), "acme.planner.task-1"),
        (TaskKey("_", "_", "_"), "=Xw.=Xw.=Xw"),
        (TaskKey(">", "*", "a.b"), "=Pg.=Kg.=YS5i"),
    ],
)
def test_subjects_of_a_task(key: TaskKey, tail: str) -> None:
    assert events_subject(key) == f"sidecast.v1.events.{tail}"
    assert live_subject(key) == f"sidecast.v1.live.{tail}"
    assert captor_subject(key) == f"sidecast.v1.captors.{tail}"
    assert parse_subject(events_subject(key)) == parse_subject(live_subject(key)) == key


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "sidecast.v1.events",
        "sidecast.v1.events.",
        "sidecast.v1.events.a.b",
        "sidecast.v1.events.a.b.c.d",
        "sidecast.v1.events..b.c",
        "sidecast.v1.events.a._.c",
        "sidecast.v1.events.a.b._",
        "sidecast.v1.events.a.b.*",
        "sidecast.v1.events.a.b.>",
        "sidecast.v1.events.a.b.c\r\n",
        "sidecast.v1.eventsx.a.b.c",
        "sidecast.v2.events.a.b.c",
        "sidecast.v1.other.a.b.c",
        " sidecast.v1.events.a.b.c",
        "$JS.API.STREAM.NAMES",
    ],
)
def test_other_subjects_are_no_tasks(subject: str) -> None:
    with pytest.raises(InvalidId):
        parse_subject(subject)


@pytest.mark.parametrize("key", [TaskKey("", "", "task"), TaskKey("", "agent", ""), TaskKey("t", "", "")])
def test_only_the_tenant_may_be_empty(key: TaskKey) -> None:
    with pytest.raises(InvalidId):
        events_subject(key)


@given(keys)
def test_every_key_comes_back_from_its_subjects(key: TaskKey) -> None:
    for subject, prefix in ((events_subject(key), EVENTS_PREFIX), (live_subject(key), LIVE_PREFIX)):
        assert subject.startswith(prefix + ".")
        assert all(TOKEN.fullmatch(token) for token in subject.removeprefix(prefix + ".").split("."))
        assert parse_subject(subject) == key


@given(keys, keys)
def test_no_subject_reaches_another_tasks(one: TaskKey, other: TaskKey) -> None:
    assert matches(events_subject(one), events_subject(other)) == (one == other)
    assert not matches(events_subject(one), live_subject(other))


def test_the_longest_subject_fits_a_protocol_line() -> None:
    longest = TaskKey("." * ID_BYTES_MAX, "." * ID_BYTES_MAX, "." * ID_BYTES_MAX)
    assert len(f"HPUB {events_subject(longest)} {live_subject(longest)} 1 1\r\n") < CONTROL_LINE_BYTES_MAX
