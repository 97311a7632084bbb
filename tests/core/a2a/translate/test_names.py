from __future__ import annotations

import pytest
from a2a_documents import STATES, TERMINAL
from msgspec import Raw

from sidecast_broker.core.a2a.translate.names import (
    is_later_state,
    is_other_role,
    role_from_v03,
    role_to_v03,
    state_from_v03,
    state_to_v03,
)
from sidecast_broker.core.a2a.translate.raw import Untranslatable


def raw(text: str) -> Raw:
    return Raw(f'"{text}"'.encode())


@pytest.mark.row("C36", "C37")
@pytest.mark.parametrize(("current", "former"), STATES.items())
def test_states_both_ways(current: str, former: str) -> None:
    name = state_to_v03(raw(current), rest=False)
    assert (name.raw, name.terminal, name.known) == (raw(former), former in TERMINAL, True)
    assert state_from_v03(raw(former), rest=False) == raw(current)
    rest = current.replace("CANCELED", "CANCELLED")
    assert state_to_v03(raw(current), rest=True).raw == raw(rest)
    assert state_to_v03(raw(current), rest=True).terminal == name.terminal
    assert state_from_v03(raw(rest), rest=True) == raw(current)


def test_escapes_spell_the_same_name() -> None:
    assert state_to_v03(Raw(b'"TASK_STATE_W\\u004fRKING"'), rest=False).raw == raw("working")
    assert state_from_v03(Raw(b'"w\\u006frking"'), rest=False) == raw("TASK_STATE_WORKING")
    assert role_to_v03(Raw(b'"R\\u004fLE_USER"'), rest=False) == (raw("user"), True)
    assert role_from_v03(Raw(b'"\\u0075ser"'), rest=False) == raw("ROLE_USER")


def test_a_later_state_is_unknown_and_not_terminal() -> None:
    name = state_to_v03(raw("TASK_STATE_PAUSED"), rest=False)
    assert (name.raw, name.terminal, name.known) == (raw("unknown"), False, False)
    assert state_to_v03(raw("TASK_STATE_PAUSED"), rest=True).raw == raw("TASK_STATE_UNSPECIFIED")


@pytest.mark.parametrize(
    ("value", "later"),
    [
        (b'"TASK_STATE_PAUSED"', True),
        (b'"TASK_STATE_COMPLETED"', False),
        (b'"TASK_STATE_UNSPECIFIED"', False),
        (b'"paused"', False),
        (b"null", False),
        (b"{}", False),
    ],
)
def test_only_a_later_state_may_come_back_from_metadata(value: bytes, later: bool) -> None:
    assert is_later_state(Raw(value)) is later


@pytest.mark.parametrize("value", [b"null", b"3", b"[]", b'"working"', b'"TASK_STATE_"', b'"task_state_x"'])
def test_what_is_no_state_is_refused(value: bytes) -> None:
    for rest in (False, True):
        with pytest.raises(Untranslatable, match="state"):
            state_to_v03(Raw(value), rest=rest)


@pytest.mark.parametrize("value", [b"null", b"3", b"[]", b'"Working"', b'"TASK_STATE_WORKING"', b'""'])
def test_what_is_no_state_of_v03_is_refused(value: bytes) -> None:
    with pytest.raises(Untranslatable, match="state"):
        state_from_v03(Raw(value), rest=False)


@pytest.mark.parametrize("number", range(9))
def test_rest_may_number_its_states(number: int) -> None:
    assert state_from_v03(Raw(str(number).encode()), rest=True) in [raw(state) for state in STATES]


def test_rest_states_have_the_numbers_of_the_proto() -> None:
    assert state_from_v03(Raw(b"5"), rest=True) == raw("TASK_STATE_CANCELED")
    assert state_from_v03(Raw(b"8"), rest=True) == raw("TASK_STATE_AUTH_REQUIRED")
    assert role_from_v03(Raw(b"1"), rest=True) == raw("ROLE_USER")
    with pytest.raises(Untranslatable):
        state_from_v03(Raw(b"9"), rest=True)


@pytest.mark.row("C36")
@pytest.mark.parametrize(
    ("current", "rpc", "known"),
    [
        (raw("ROLE_USER"), "user", True),
        (raw("ROLE_AGENT"), "agent", True),
        (raw("ROLE_UNSPECIFIED"), "agent", False),
        (raw("ROLE_OTHER"), "agent", False),
        (Raw(b"null"), "agent", False),
        (None, "agent", False),
    ],
)
def test_roles_of_json_rpc(current: Raw | None, rpc: str, known: bool) -> None:
    assert role_to_v03(current, rest=False) == (raw(rpc), known)


def test_roles_of_rest_are_those_of_v10_and_later_ones_are_the_agents() -> None:
    for name in ("ROLE_USER", "ROLE_AGENT", "ROLE_UNSPECIFIED"):
        assert role_to_v03(raw(name), rest=True) == (raw(name), True)
    assert role_to_v03(raw("ROLE_OTHER"), rest=True) == (raw("ROLE_AGENT"), False)


def test_only_a_role_v03_lacks_may_come_back_from_metadata() -> None:
    assert is_other_role(raw("ROLE_OTHER"))
    assert is_other_role(raw("ROLE_UNSPECIFIED"))
    assert not is_other_role(raw("ROLE_USER"))
    assert not is_other_role(Raw(b"1"))


@pytest.mark.parametrize("value", [b"null", b"1", b'"ROLE_USER"', b'"system"'])
def test_what_is_no_role_of_v03_is_refused(value: bytes) -> None:
    with pytest.raises(Untranslatable, match="role"):
        role_from_v03(Raw(value), rest=False)
