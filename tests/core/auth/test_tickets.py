from __future__ import annotations

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.auth import tickets
from sidecast_broker.core.auth.claims import InvalidCredential
from sidecast_broker.core.auth.principal import Grant, Principal
from sidecast_broker.core.auth.tickets import CHARACTERS_MAX, TicketTooLong, make_ticket, read_ticket
from sidecast_schemas.subjects import TaskKey

KEY, OTHER = b"k" * 32, b"o" * 32
NOW_S = 1_800_000_000.0
TASK = TaskKey("", "agent", "task-1")
ALICE = Principal("alice", "jwt", "acme", ends_at_s=NOW_S + 3600, credential_id="id-1", issued_at_s=NOW_S - 9)
TEXT = make_ticket(ALICE, [TASK], NOW_S + 300, KEY)

names = st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable() and text.isascii())
keys = st.builds(TaskKey, names | st.just(""), names, names)


def refused(text: str, now_s: float = NOW_S, keys: tuple[bytes, ...] = (KEY,)) -> InvalidCredential:
    with pytest.raises(InvalidCredential) as caught:
        read_ticket(text, keys, now_s)
    return caught.value


def sealed(body: bytes, version: bytes = b"\x01") -> str:
    """Write a ticket of any content under the right key."""
    signed = version + body
    return base64.urlsafe_b64encode(signed + tickets._mac(signed, KEY)).rstrip(b"=").decode()


@given(
    name=names,
    tenant=st.none() | st.just("") | names,
    tasks=st.lists(keys, max_size=20),
    ends_at_s=st.none() | st.floats(NOW_S + 1, NOW_S + 1e6),
    credential_id=names | st.just(""),
)
def test_a_ticket_says_who_and_which_tasks(
    name: str, tenant: str | None, tasks: list[TaskKey], ends_at_s: float | None, credential_id: str
) -> None:
    made_by = Principal(name, "jwt", tenant, ends_at_s=ends_at_s, credential_id=credential_id)
    text = make_ticket(made_by, tasks, NOW_S + 1, KEY)
    assert read_ticket(text, (OTHER, KEY), NOW_S) == Principal(
        name, "ticket", tenant, tasks=frozenset(tasks), ends_at_s=ends_at_s, credential_id=credential_id
    )
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_grants_and_rights_stay_behind() -> None:
    root = Principal("root", "jwt", grants=(Grant(None, None, None),), rights=frozenset({"admin", "publish"}))
    read = read_ticket(make_ticket(root, [TASK], NOW_S + 1, KEY), (KEY,), NOW_S)
    assert (read.grants, read.rights, read.tasks) == ((), frozenset(), {TASK})


@pytest.mark.parametrize(("after_s", "expired"), [(299.9, False), (300, True), (3600, True), (1e9, True)])
def test_it_opens_until_it_expires(after_s: float, expired: bool) -> None:
    if not expired:
        assert read_ticket(TEXT, (KEY,), NOW_S + after_s).ends_at_s == NOW_S + 3600
    else:
        assert refused(TEXT, NOW_S + after_s).expired


def test_it_does_not_open_after_the_end_of_the_credential() -> None:
    text = make_ticket(msgspec.structs.replace(ALICE, ends_at_s=NOW_S + 10), [TASK], NOW_S + 300, KEY)
    assert read_ticket(text, (KEY,), NOW_S + 9).name == "alice"
    assert refused(text, NOW_S + 10).expired


def test_who_needed_no_credential_gets_a_ticket_that_opens_nothing() -> None:
    assert not refused(make_ticket(Principal("", "none"), [TASK], NOW_S + 300, KEY)).expired


@given(
    st.integers(0, len(TEXT) - 1), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_09")
)
def test_a_ticket_with_any_character_changed_is_refused(place: int, character: str) -> None:
    if TEXT[place] != character:
        assert not refused(TEXT[:place] + character + TEXT[place + 1 :]).expired


@given(st.integers(0, len(TEXT) - 1))
def test_a_ticket_cut_short_is_refused(length: int) -> None:
    refused(TEXT[:length])


def test_a_ticket_of_another_key_is_refused() -> None:
    refused(TEXT, keys=(OTHER,))
    refused(TEXT, keys=())


HOSTILE = ["", "=", TEXT + "=", TEXT + "A", " " + TEXT, TEXT + "\n", TEXT + TEXT, "é" * 40, "\ud800", "\0",
           "A" * CHARACTERS_MAX, "A" * (CHARACTERS_MAX + 1), "A" * 1_000_000, "a.b.c", "+/" * 30]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:20]))
def test_what_is_no_ticket_is_refused(text: str) -> None:
    refused(text)


@given(
    st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: base64.urlsafe_b64encode(raw).decode())
)
def test_no_text_is_more_than_refused(text: str) -> None:
    refused(text)


BODY = ["alice", None, [["", "agent", ["task-1"]]], NOW_S + 300, None, "", None]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode(BODY)[:-1],
        msgspec.msgpack.encode(BODY) + b"\0",
        msgspec.msgpack.encode(BODY[:-1]),
        msgspec.msgpack.encode([*BODY, "more"]),
        msgspec.msgpack.encode([None, *BODY[1:]]),
        msgspec.msgpack.encode(BODY).replace(b"alice", b"al\xffce"),
        msgspec.msgpack.encode([*BODY[:2], None, *BODY[3:]]),
        msgspec.msgpack.encode([*BODY[:3], "300", *BODY[4:]]),
        b"\x91" * 4000,
    ],
)
def test_a_body_of_another_form_is_refused_under_the_right_key(body: bytes) -> None:
    refused(sealed(body))


def test_a_ticket_of_another_version_is_refused() -> None:
    body = msgspec.msgpack.encode(BODY)
    assert read_ticket(sealed(body), (KEY,), NOW_S).name == "alice"
    for version in (b"\0", b"\x02", b"\xff"):
        refused(sealed(body, version))


@given(st.sampled_from([float("nan"), float("inf"), -1.0]))
def test_strange_times_never_open_longer(end_s: float) -> None:
    body = msgspec.msgpack.encode([*BODY[:3], NOW_S + 300, end_s, "", None])
    if end_s < 0:
        refused(sealed(body))


def test_a_ticket_fits_into_a_request() -> None:
    many = [TaskKey("", "agent", f"{number:036}") for number in range(100)]
    assert len(make_ticket(ALICE, many, NOW_S, KEY)) < CHARACTERS_MAX
    with pytest.raises(TicketTooLong, match="6144 are the most"):
        make_ticket(ALICE, [TaskKey("", "agent", f"{number:0256}") for number in range(100)], NOW_S, KEY)


def test_all_keys_are_tried_whichever_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return one == other

    monkeypatch.setattr(tickets.hmac, "compare_digest", compare)
    read_ticket(TEXT, (KEY, OTHER), NOW_S)
    assert len(compared) == 2
