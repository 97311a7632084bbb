from __future__ import annotations

from brokers import done, status
from shell.test_hub_faults import Numbers, Turns, new_hub, stored

from sidecast_broker.batches import MADE_BYTES_MAX, Batches, Content
from sidecast_broker.hub import Hub
from sidecast_broker.metrics import Deliveries
from sidecast_broker.subscriber import View


class Counting:
    """A hub whose contents are counted."""

    def __init__(self, hub: Hub, padding: bytes = b"") -> None:
        self.hub = hub
        self.log = hub.log
        self.made = 0
        self._padding = padding

    def content(self, view: View, cursor: int, count_max: int | None) -> Content:
        self.made += 1
        content = self.hub.content(view, cursor, count_max)
        return content._replace(data=content.data + self._padding)

    def last_frame(self, view: View, cursor: int) -> bytes | None:
        return self.hub.last_frame(view, cursor)


def hub_of(*payloads: bytes) -> Hub:
    turns = Turns()
    hub = new_hub(turns)
    for sequence, payload in enumerate(payloads, 1):
        hub.append(stored(sequence, payload))
    turns.run()
    return hub


def test_those_at_the_same_place_share_one_and_others_don_t() -> None:
    source = Counting(hub_of(*[status()] * 9))
    batches = Batches(source, Deliveries())
    plain, even = Numbers(), Numbers(even=True)
    first = batches.after(2, plain, 3)
    assert (first.cursor, first.data, first.events, first.ended) == (5, b"3;4;5;", 3, False)
    assert first.chunked == b"6\r\n3;4;5;\r\n"
    assert batches.after(2, plain, 3) is first
    assert batches.after(2, Numbers(), 3) is first  # an equal view
    assert batches.after(2, plain, None).data == b"3;4;5;6;7;8;9;"
    assert batches.after(3, plain, 3).data == b"4;5;6;"
    assert batches.after(2, even, 3).data == b"4;6;8;"
    assert batches.after(2, plain, 3) is first
    assert (source.made, len(batches)) == (4, 4)


def test_nothing_to_send_moves_the_cursor_on() -> None:
    batches = Batches(Counting(hub_of(*[status()] * 5)), Deliveries())
    batch = batches.after(4, Numbers(even=True), None)
    assert (batch.cursor, batch.data, batch.chunked, batch.events) == (5, b"", b"", 0)


def test_the_end_is_known() -> None:
    batches = Batches(Counting(hub_of(status(), done())), Deliveries())
    assert not batches.after(0, Numbers(), 1).ended
    assert batches.after(0, Numbers(), 2).ended


def test_what_is_kept_is_bounded_and_forgotten() -> None:
    source = Counting(hub_of(*[status()] * 40), b"x" * 100_000)
    batches = Batches(source, Deliveries())
    for cursor in range(40):
        batches.after(cursor, Numbers(), None)
        assert batches.size_bytes <= MADE_BYTES_MAX + 2 * 100_200
    batches.forget()
    assert (len(batches), batches.size_bytes) == (0, 0)
    batches.after(39, Numbers(), None)
    assert source.made == 41


def test_what_was_written_is_counted_when_it_is_forgotten() -> None:
    deliveries = Deliveries()
    batches = Batches(Counting(hub_of(*[status()] * 4)), deliveries)
    batches.after(0, Numbers(), None).written = 3
    batches.after(3, Numbers(), None).written = 1
    batches.forget()
    batches.forget()
    assert (deliveries.events["numbers"], deliveries.bytes_sent) == (13, 3 * len("1;2;3;4;") + 2)
