"""Which boards a record of an agent is for: by its task, by its context, or all of the agent.

Must not know what boards do with it. What a record costs is what is interested in it, not what there is.
"""

from __future__ import annotations

from sidecast_broker.board import Board
from sidecast_broker.feed import Arrival, Follower
from sidecast_schemas.codec import InvalidEvent, decode_event

CONTEXTS_MAX = 100_000
"""Tasks whose context is remembered, some 15 MB; beyond that it is learned anew."""


class Routing:
    """Holds the boards of one agent."""

    def __init__(self) -> None:
        self._boards: dict[Board, None] = {}
        self._listing: dict[str, dict[Board, None]] = {}
        self._of_context: dict[str, dict[Board, None]] = {}
        self._of_agent: dict[Board, None] = {}
        self._contexts: dict[str, str] = {}

    def join(self, board: Board) -> None:
        """Give a board what is for it from now on."""
        self._boards[board] = None
        selection = board.selection
        for task in selection.tasks or ():
            self._listing.setdefault(task, {})[board] = None
        if selection.context is not None:
            self._of_context.setdefault(selection.context, {})[board] = None
        elif selection.agent:
            self._of_agent[board] = None

    def leave(self, board: Board) -> None:
        """Give a board nothing any more."""
        del self._boards[board]
        selection = board.selection
        for task in selection.tasks or ():
            _take_out(self._listing, task, board)
        if selection.context is not None:
            _take_out(self._of_context, selection.context, board)
        self._of_agent.pop(board, None)
        if not self._of_context:
            self._contexts.clear()

    def all(self) -> list[Follower]:
        """Give all boards."""
        return list(self._boards)

    def route(self, arrival: Arrival) -> list[Follower]:
        """Give the boards that a record is for, or may be."""
        found: list[Follower] = [*self._listing.get(arrival.task, ()), *self._of_agent]
        if self._of_context:
            context = self._context_of(arrival)
            if context:
                boards = self._of_context.get(context, {})
                for board in boards:
                    board.heed(arrival.task)
                found += boards
            else:
                # It doesn't say, nor did one before: whose it is, each finds out by the task's first records.
                found += [board for held in self._of_context.values() for board in held]
        return found

    def learn(self, task: str, context: str) -> None:
        """Know the context of a task that is followed: that which its first records have named."""
        if self._of_context and context:
            self._contexts[task] = context

    def _context_of(self, arrival: Arrival) -> str:
        context = self._contexts.get(arrival.task)
        if context is None:
            try:
                context = decode_event(arrival.stored.payload).context_id or ""
            except InvalidEvent:
                context = ""
            if context:
                if len(self._contexts) >= CONTEXTS_MAX:
                    self._contexts.pop(next(iter(self._contexts)))
                self._contexts[arrival.task] = context
        return context


def _take_out(boards: dict[str, dict[Board, None]], name: str, board: Board) -> None:
    held = boards.get(name)
    if held is not None:
        held.pop(board, None)
        if not held:
            del boards[name]
