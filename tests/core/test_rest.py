"""What is left of a page is given on without a hole, and is never more than its bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.rest import REST_BYTES_MAX, Rest, rest_of

pages = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0, 1, 1000, REST_BYTES_MAX // 3, REST_BYTES_MAX, 10**6])),
    max_size=30,
)


def page_of(shape: list[tuple[bool, int]]) -> list[tuple[int, bytes]]:
    """Give frames of these sizes, some without a position; the last one has one."""
    last = len(shape)
    return [
        (at if is_place or at == last else 0, b"x" * size) for at, (is_place, size) in enumerate(shape, 1)
    ]


@given(pages)
def test_it_is_the_front_of_what_was_left_up_to_a_position_and_within_the_bound(
    shape: list[tuple[bool, int]],
) -> None:
    page = page_of(shape)
    rest = rest_of(page, 7, 99)
    kept = rest.pieces if rest is not None else []
    assert kept == page[: len(kept)]
    assert sum(len(data) for _position, data in kept) <= REST_BYTES_MAX
    if rest is not None:
        assert rest.after == 7
        assert rest.end == (99 if len(kept) == len(page) else kept[-1][0])
        assert rest.end
    # No more of it would have fitted.
    more = next((at for at, (position, _data) in enumerate(page) if at >= len(kept) and position), None)
    if more is not None:
        assert sum(len(data) for _position, data in page[: more + 1]) > REST_BYTES_MAX


def test_nothing_left_is_nothing_to_keep() -> None:
    assert rest_of([], 7, 99) is None
    assert rest_of([(8, b"")], 7, 99) == Rest(7, [(8, b"")], 99)
