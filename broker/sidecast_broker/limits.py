"""How much one asker may take: connections, streams, new ones, waits, tickets; a refusal names its limit.

Must not know what a stream or a ticket is, nor who may see what.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from aiohttp import web

from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.core.forwarded import Address, is_within, limited_as, parse_address, parse_networks
from sidecast_broker.core.rates import Admission, Counts, Rates
from sidecast_broker.metrics import Metrics
from sidecast_broker.refused import Refused
from sidecast_broker.settings import Auth, Server, Stream
from sidecast_schemas.subjects import TaskKey

FULL_RETRY_S = 5.0
"""When to come back where as many are open as may be: they leave when they like."""
MINUTE_S = 60.0
STORM_S_MAX = 60.0
"""Longest time somebody is told to stay away because too many come at once."""

Who = tuple[str | None, str]
"""A principal: names are unique within what bounds them."""


class Asker(NamedTuple):
    """Who takes something.

    Attributes:
        who: the principal; None: no credential is needed, and nobody is told from anybody.
        address: what the client's address is limited as; empty: it has none.
    """

    who: Who | None = None
    address: str = ""


def asker_of(request: web.BaseRequest, principal: Principal) -> Asker:
    """Give who is behind a request."""
    who = None if principal.anybody else (principal.tenant, principal.name)
    return Asker(who, _address(request))


def _address(request: web.BaseRequest) -> str:
    return limited_as(request.remote or "")


class Seat:
    """Where one open stream is counted.

    Attributes:
        asker: whose it is.
        key: the task it is counted at; None: at none.
        waits: whether it is counted as waiting.
    """

    __slots__ = ("asker", "key", "waits")

    def __init__(self, asker: Asker, key: TaskKey | None, *, waits: bool) -> None:
        self.asker = asker
        self.key = key
        self.waits = waits


class Place(NamedTuple):
    """Where one connection is counted.

    Attributes:
        address: what its peer's is limited as.
    """

    address: str


class Places:
    """Counts the connections of the public listener, and closes the door where there are too many.

    Args:
        server: the limits, and whom they don't hold back.
        metrics: where to count who was turned away.
    """

    def __init__(self, server: Server, metrics: Metrics) -> None:
        self._trusted = parse_networks(server.trusted_proxies)
        self._all = Counts[None](server.connections_max)
        self._of_address = Counts[str](server.connections_per_address_max)
        self._metrics = metrics

    def __len__(self) -> int:
        return self._all.held(None)

    def enter(self, peer: str) -> Place | None:
        """Count a connection that has just come; None: it is one too many, and to be closed unread.

        A trusted proxy is counted, but comes in always: those it speaks for can't be told apart here.

        Args:
            peer: the address of its other end.
        """
        parsed = parse_address(peer)
        address = "" if parsed is None else limited_as(str(parsed))
        full = self._all.is_full(None)
        if (full or self._of_address.is_full(address)) and not self._trusts(parsed):
            self._metrics.rejected.labels("connections" if full else "address-connections").inc()
            return None
        self._all.add(None)
        self._of_address.add(address)
        return Place(address)

    def _trusts(self, peer: Address | None) -> bool:
        return peer is not None and is_within(peer, self._trusted)

    def leave(self, place: Place) -> None:
        """Count a connection no more."""
        self._all.remove(None)
        self._of_address.remove(place.address)


class Limits:
    """Counts what askers hold and how often they come, and refuses what is more than they may.

    Args:
        stream: the limits of streams.
        auth: the limit of tickets.
        clock: seconds, monotonic.
    """

    def __init__(self, stream: Stream, auth: Auth, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._streams = Counts[None](stream.streams_max)
        self._of_principal = Counts[Who](stream.streams_per_principal_max)
        self._of_address = Counts[str](stream.streams_per_address_max)
        self._of_task = Counts[TaskKey](stream.streams_per_task_max)
        self._waiters = Counts[None](stream.waiters_max)
        self._waiters_of = Counts[Who](stream.waiters_per_principal_max)
        burst = stream.opens_burst_max or stream.opens_per_s_max
        self._opens = Admission(stream.opens_per_s_max, burst, STORM_S_MAX)
        self._opens_from = Rates[str](stream.opens_per_address_per_minute_max, MINUTE_S)
        self._tickets_of = Rates[Who](auth.tickets_per_minute_max, MINUTE_S)

    # ------------------------------------------------------------------ how often

    def arrive(self, request: web.BaseRequest) -> None:
        """Count a request for a stream by its address, before anything about it costs more.

        Raises:
            Refused: too many have come from there.
        """
        if (address := _address(request)) and (wait_s := self._opens_from.take(address, self._clock())):
            raise _too_often("address-opens", "too many streams were asked for from this address", wait_s)

    def open(self) -> None:
        """Count a stream that somebody who may have one begins to open.

        Raises:
            Refused: this broker opens as many as it may.
        """
        if wait_s := self._opens.enter(self._clock()):
            raise _too_often("opens", "too many streams are being opened", wait_s)

    def ticket(self, principal: Principal) -> None:
        """Count a ticket that a principal asks for.

        Raises:
            Refused: they have asked for too many.
        """
        if wait_s := self._tickets_of.take((principal.tenant, principal.name), self._clock()):
            raise _too_often("tickets", "too many tickets were asked for", wait_s)

    # ------------------------------------------------------------------ how many

    @property
    def full(self) -> bool:
        """Whether there is room for no stream, whoever asks."""
        return self._streams.is_full(None)

    def check(self, asker: Asker, key: TaskKey | None = None, *, waits: bool = False) -> None:
        """Tell whether there is room for one more stream; nothing is counted.

        Args:
            asker: who it is for.
            key: the task it is of; None: not known yet, or not one whose room may be told of to this asker.
            waits: for its task to begin.

        Raises:
            Refused: there is none; names the limit.
        """
        if self.full:
            raise _full("limit", "this broker holds as many streams as it may")
        if asker.who is not None and self._of_principal.is_full(asker.who):
            raise _full("principal-streams", "this principal has as many streams as they may")
        if asker.address and self._of_address.is_full(asker.address):
            raise _full("address-streams", "this address has as many streams as it may")
        if waits:
            if self._waiters.is_full(None):
                raise _full("waiters", "as many streams as may wait for a task")
            if asker.who is not None and self._waiters_of.is_full(asker.who):
                raise _full("principal-waiters", "this principal has as many waiting streams as they may")
        if key is not None and self._of_task.is_full(key):
            raise _full("task-streams", "this task has as many streams as it may")

    def take(self, asker: Asker, key: TaskKey | None, *, waits: bool) -> Seat:
        """Count one more stream, for which `check` has found room; `leave` ends that, and is called once."""
        self._streams.add(None)
        if asker.who is not None:
            self._of_principal.add(asker.who)
        if asker.address:
            self._of_address.add(asker.address)
        if key is not None:
            self._of_task.add(key)
        if waits:
            self._waiters.add(None)
            if asker.who is not None:
                self._waiters_of.add(asker.who)
        return Seat(asker, key, waits=waits)

    def settle(self, seat: Seat, key: TaskKey) -> None:
        """Count a stream that has waited by its task, which has begun.

        Raises:
            Refused: the task has as many as it may.
        """
        self._stop_waiting(seat)
        if seat.key is None:
            if self._of_task.is_full(key):
                raise _full("task-streams", "this task has as many streams as it may")
            self._of_task.add(key)
            seat.key = key

    def leave(self, seat: Seat) -> None:
        """Count a stream no more."""
        asker = seat.asker
        self._stop_waiting(seat)
        self._streams.remove(None)
        if asker.who is not None:
            self._of_principal.remove(asker.who)
        if asker.address:
            self._of_address.remove(asker.address)
        if seat.key is not None:
            self._of_task.remove(seat.key)

    def _stop_waiting(self, seat: Seat) -> None:
        if seat.waits:
            seat.waits = False
            self._waiters.remove(None)
            if seat.asker.who is not None:
                self._waiters_of.remove(seat.asker.who)


def _full(reason: str, detail: str) -> Refused:
    return Refused("limit", detail, reason=reason, retry_after_s=FULL_RETRY_S)


def _too_often(reason: str, detail: str, wait_s: float) -> Refused:
    return Refused("limit", detail, reason=reason, retry_after_s=wait_s)
