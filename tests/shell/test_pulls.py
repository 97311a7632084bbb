"""Subjects on which records that were pulled are acknowledged."""

from __future__ import annotations

import pytest

from sidecast_broker.pulls import pulled_of


@pytest.mark.parametrize(
    "reply",
    [
        "$JS.ACK.SIDECAST.sidecast-1-2.1.77.5.1764259200000000000.9",
        "$JS.ACK.hub.hash.SIDECAST.sidecast-1-2.1.77.5.1764259200000000000.9",
        "$JS.ACK._.hash.SIDECAST.sidecast-1-2.1.77.5.1764259200000000000.9.token",
    ],
)
def test_a_record_is_known_by_the_subject_it_is_acknowledged_on(reply: str) -> None:
    assert pulled_of(reply) == (77, reply)


@pytest.mark.parametrize("reply", ["", "_INBOX.a", "$JS.ACK.a.b.c.d.e.f.g"])
def test_what_is_no_such_subject_is_refused(reply: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        pulled_of(reply)
