from __future__ import annotations

import datetime as dt
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from sidecast_broker.core.a2a.translate.raw import Untranslatable
from sidecast_broker.core.a2a.translate.timestamps import to_utc


def utc(text: str) -> str:
    converted: str = json.loads(bytes(to_utc(Raw(json.dumps(text).encode()))))
    return converted


@pytest.mark.row("C60")
@pytest.mark.parametrize(
    ("former", "current"),
    [
        ("2025-04-02T16:59:25.331844", "2025-04-02T16:59:25.331844Z"),
        ("2025-04-02T16:59:25Z", "2025-04-02T16:59:25Z"),
        ("2025-04-02T16:59:25.1000Z", "2025-04-02T16:59:25.1000Z"),
        ("2025-04-02T16:59:25+00:00", "2025-04-02T16:59:25Z"),
        ("2025-04-02T16:59:25-00:00", "2025-04-02T16:59:25Z"),
        ("2025-04-02T16:59:25.5+02:00", "2025-04-02T14:59:25.5Z"),
        ("2025-04-02T16:59:25+0530", "2025-04-02T11:29:25Z"),
        ("2025-04-02T16:59:25-07", "2025-04-02T23:59:25Z"),
        ("2025-01-01T00:30:00+01:00", "2024-12-31T23:30:00Z"),
        ("2024-12-31T23:30:00-01:00", "2025-01-01T00:30:00Z"),
        ("2024-03-01T00:00:00+00:01", "2024-02-29T23:59:00Z"),
        ("2023-03-01T00:00:00+00:01", "2023-02-28T23:59:00Z"),
        ("1900-02-28T23:59:00-00:01", "1900-03-01T00:00:00Z"),
        ("2000-02-28T23:59:00-00:01", "2000-02-29T00:00:00Z"),
        ("2025-04-02 16:59:25", "2025-04-02T16:59:25Z"),
        ("2025-04-02t16:59:25z", "2025-04-02T16:59:25Z"),
        ("2025-04-02T16:59", "2025-04-02T16:59:00Z"),
        ("2025-04-02", "2025-04-02T00:00:00Z"),
        ("2025-04-02T16:59:25,25Z", "2025-04-02T16:59:25.25Z"),
        ("2025-04-02T16:59:25.1234567891234Z", "2025-04-02T16:59:25.123456789Z"),
    ],
)
def test_any_spelling_becomes_utc(former: str, current: str) -> None:
    assert utc(former) == current


@pytest.mark.row("C60")
@given(
    st.datetimes(
        min_value=dt.datetime(2, 1, 1),  # noqa: DTZ001
        max_value=dt.datetime(9998, 1, 1),  # noqa: DTZ001
        timezones=st.integers(-1439, 1439).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes))),
    )
)
def test_it_is_the_same_moment(moment: dt.datetime) -> None:
    converted = utc(moment.isoformat())
    assert converted.endswith("Z")
    assert dt.datetime.fromisoformat(converted) == moment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "1735689600",
        "2025-13-01T00:00:00",
        "2025-00-01T00:00:00",
        "2025-02-29T00:00:00",
        "2025-01-32T00:00:00",
        "2025-01-00T00:00:00",
        "2025-01-01T24:00:00",
        "2025-01-01T00:60:00",
        "2025-01-01T00:00:60",
        "2025-01-01T00:00:00+1",
        "2025-01-01T00:00:00Z\n",
        "0000-01-01T00:00:00",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "２０２５-01-01T00:00:00",
    ],
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(Untranslatable, match="timestamp"):
        utc(text)


@given(st.text("0123456789-:T+Z., ", max_size=30))
def test_any_text_is_a_moment_in_utc_or_refused(text: str) -> None:
    try:
        converted = utc(text)
    except Untranslatable:
        return
    assert dt.datetime.fromisoformat(converted).tzinfo == dt.UTC


def test_a_number_is_no_timestamp() -> None:
    with pytest.raises(Untranslatable, match="timestamp"):
        to_utc(Raw(b"5"))
