"""Tickets with the keys and bounds of the settings: made for who holds a credential, and read again.

Must not know requests, nor who may watch what.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from sidecast_broker.auth.derived import derived_keys
from sidecast_broker.core.auth.claims import InvalidCredential
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.core.auth.tickets import make_ticket, read_ticket
from sidecast_broker.settings import Auth
from sidecast_schemas.subjects import TaskKey

PURPOSE = "sidecast tickets"


class Made(NamedTuple):
    """A ticket, and how many whole seconds it opens streams."""

    text: str
    expires_in_s: int


class Tickets:
    """Makes tickets and reads them.

    Args:
        settings: the secrets, and how long a ticket may open streams.
    """

    def __init__(self, settings: Auth) -> None:
        self._keys = derived_keys(PURPOSE, settings.ticket_secret, settings.ticket_secret_previous)
        self._ttl_s_max = settings.ticket_ttl_s_max

    def make(
        self, principal: Principal, tasks: Iterable[TaskKey], now_s: float, ttl_s: float | None = None
    ) -> Made:
        """Make a ticket.

        Args:
            principal: whose credential it is made with.
            tasks: those it is for, which the principal may watch.
            now_s: the time, seconds since 1970.
            ttl_s: how long it is wanted for; it gets that as far as the settings allow and the credential
                lives. None: as long as it may.

        Raises:
            TicketTooLong: it wouldn't fit into a request.
        """
        allowed_s: float = self._ttl_s_max
        if ttl_s is not None:
            allowed_s = min(allowed_s, ttl_s)
        if principal.ends_at_s is not None:
            allowed_s = min(allowed_s, principal.ends_at_s - now_s)
        expires_in_s = max(1, math.floor(allowed_s))
        text = make_ticket(principal, tasks, now_s + expires_in_s, self._keys[0])
        return Made(text, expires_in_s)

    def ticket(self, text: str, now_s: float) -> Principal | None:
        """Give whom a ticket names; None where it isn't one that is valid at that time (s since 1970)."""
        try:
            return read_ticket(text, self._keys, now_s)
        except InvalidCredential:
            return None
