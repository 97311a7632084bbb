from __future__ import annotations

from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.settings.fields import Limit, Port, listed, within

ITEMS = st.lists(st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters=","), min_size=1))


@given(ITEMS, st.sampled_from(["", " ", "  "]), st.sampled_from(["", ",", " , ,"]))
def test_items_are_listed_whatever_blanks_stand_around_them(items: list[str], blank: str, end: str) -> None:
    assert listed(f"{blank},{blank}".join(items) + end) == tuple(items)


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [(Annotated[int, within(2, 4)], 2, 4), (Port, 0, 65535), (Limit, 0, 1_000_000)],
)
def test_bounds_are_included_and_nothing_beyond(kind: type[int], low: int, high: int) -> None:
    assert [msgspec.convert(value, kind) for value in (low, high)] == [low, high]
    for value in (low - 1, high + 1):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(value, kind)
