"""Which boards are given a record: nobody's who didn't ask for it, and everybody's whose it may be."""

from __future__ import annotations

from typing import cast

import pytest
from brokers import encode, status

from sidecast_broker import routing
from sidecast_broker.board import Board
from sidecast_broker.core.log import Stored
from sidecast_broker.entry import Selection
from sidecast_broker.feed import Arrival
from sidecast_broker.routing import Routing


class Asking:
    """A board of which only the selection matters."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.heeded: list[str] = []

    def heed(self, task: str) -> None:
        self.heeded.append(task)


def board(*tasks: str, context: str | None = None, agent: bool = False) -> Board:
    return cast(Board, Asking(Selection(frozenset(tasks) if tasks else None, context, agent)))


def arrival(task: str, context: str | None = None, payload: bytes | None = None) -> Arrival:
    body = {"taskId": task, "status": {"state": "TASK_STATE_WORKING"}}
    body |= {"contextId": context} if context is not None else {}
    data = payload if payload is not None else encode({"statusUpdate": body})
    return Arrival(1, task, Stored(1, 0, "2026-01-01T00:00:00Z", {}, data), None)


def test_each_is_given_what_it_asked_for() -> None:
    found = Routing()
    ab, bc, whole, x, y = boards = (
        board("a", "b"),
        board("b", "c"),
        board(agent=True),
        board(context="x"),
        board(context="y"),
    )
    for each in boards:
        found.join(each)
    assert found.route(arrival("a", "x")) == [ab, whole, x]
    assert found.route(arrival("b", "y")) == [ab, bc, whole, y]
    assert found.route(arrival("d", "z")) == [whole]
    assert found.all() == list(boards)


def test_who_has_left_is_given_nothing() -> None:
    found = Routing()
    boards = board("a"), board("a"), board(agent=True), board(context="x")
    for each in boards:
        found.join(each)
    found.leave(boards[0])
    assert found.route(arrival("a", "x")) == list(boards[1:])
    for each in boards[1:]:
        found.leave(each)
    assert found.route(arrival("a", "x")) == []
    assert found.all() == []


def test_the_context_a_task_named_first_is_its_context() -> None:
    found = Routing()
    x, y = board(context="x"), board(context="y")
    found.join(x)
    found.join(y)
    assert found.route(arrival("a", "x")) == [x]
    assert found.route(arrival("a", "y")) == [x]
    found.learn("b", "y")
    assert found.route(arrival("b", "x")) == [y]


@pytest.mark.parametrize("payload", [b"", b"\xff", b"{}", b'{"turn":{"id":"t","phase":"begin"}}', None])
def test_what_names_no_context_goes_to_all_contexts_until_that_is_known(payload: bytes | None) -> None:
    found = Routing()
    x, y = board(context="x"), board(context="y")
    found.join(x)
    found.join(y)
    assert found.route(arrival("a", payload=payload)) == [x, y]
    found.learn("a", "y")
    assert found.route(arrival("a", payload=payload)) == [y]


def test_a_list_costs_no_look_at_the_payload(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Routing()
    listed = board("a")
    found.join(listed)
    monkeypatch.setattr(routing, "decode_event", None)
    assert found.route(arrival("a", "x")) == [listed]
    assert found.route(arrival("b", "x")) == []


def test_contexts_are_forgotten_when_nobody_asks_for_any_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "CONTEXTS_MAX", 3)
    found = Routing()
    x = board(context="x")
    found.join(x)
    for number in range(5):
        found.route(arrival(f"t{number}", "x"))
    assert list(found._contexts) == ["t2", "t3", "t4"]
    assert found.route(arrival("t0", "x")) == [x]
    found.leave(x)
    assert not found._contexts
    found.learn("a", "x")
    assert not found._contexts


def test_what_is_learned_comes_from_valid_events_only() -> None:
    found = Routing()
    x = board(context="x")
    found.join(x)
    assert found.route(arrival("a", payload=status("text", "a") + b"}")) == [x]
    assert found._contexts == {}
