from __future__ import annotations

import pytest

from sidecast_broker.agent_headers import NOTHING, own_headers, passed_headers, told_of
from sidecast_broker.refused import Refused


def test_a_refusal_of_a_header_names_it() -> None:
    for given in ([("X-Name", "\udcff")], [("X-Fine", "a"), ("X-Name", "a\ud800")]):
        with pytest.raises(Refused, match="X-Name"):
            passed_headers(given, NOTHING, None)
        with pytest.raises(Refused, match="X-Name"):
            own_headers(given, NOTHING, "*/*", None)


def test_what_describes_another_body_is_left_out_of_a_request_of_our_own() -> None:
    given = [("Content-Type", "text/plain"), ("CONTENT-LENGTH", "7"), ("Accept", "text/html"), ("X-A", "1")]
    ours = own_headers(given, NOTHING, "application/json", b"{}")
    assert dict(ours) == {
        "X-A": "1",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
    }
    assert "Content-Type" not in own_headers(given, NOTHING, "application/json", None)


def test_a_body_that_was_read_has_another_length_than_the_client_said() -> None:
    given = [("Content-Length", "7"), ("Content-Encoding", "gzip"), ("Content-Type", "text/plain")]
    assert dict(passed_headers(given, NOTHING, b"unpacked")) == {"Content-Type": "text/plain"}
    assert dict(passed_headers(given, NOTHING, None)) == dict(given)


def test_no_name_can_break_a_header() -> None:
    principal, tenant = told_of("al\r\nX-Admin: 1", "b c")
    assert principal is not None
    assert tenant is not None
    assert (principal + tenant).isascii()
    assert not any(character.isspace() for character in principal + tenant)
    assert told_of(None, None) == NOTHING
