"""Named subscriptions: which one is meant, how far its client has confirmed, and who holds it.

Must not know where any of it is kept.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from sidecast_broker.core.cursor import format_cursor
from sidecast_schemas.subjects import (
    EVENTS_PREFIX,
    SUBSCRIPTIONS_PREFIX,
    InvalidId,
    TaskKey,
    agent_tokens,
    encode_token,
    events_subject,
)

Kind = Literal["task", "context"]
Who = tuple[str | None, str]
"""Whose subscriptions: what bounds the principal, None for nothing, and its name."""

PREFIX = "sidecast-"
DISPLACED_MAX = 16
"""Displaced clients remembered: as many tabs as anybody has open of one task."""
SETTLE_S = 30.0
"""A displaced client that comes again this soon comes by itself, even where it never got an event id."""
CLIENT_CHARACTERS_MAX = 128

_META = "sidecast-"
_encode = msgspec.json.encode
_decode_displaced = msgspec.json.Decoder(list[tuple[str, float]]).decode


class Subscription(NamedTuple):
    """Which named subscription: of whom, to what, by what name. All of it together is its identity.

    Attributes:
        principal_tenant: what bounds the principal; None: nothing does.
        principal: whose; empty where no credential is needed, and all share.
        tenant: of the task.
        agent: of the task.
        kind: what `target` is the id of.
        target: the task's id, or the context's.
        name: as the client chose it.
    """

    principal_tenant: str | None
    principal: str
    tenant: str
    agent: str
    kind: Kind
    target: str
    name: str

    @classmethod
    def to_task(cls, who: Who, key: TaskKey, name: str) -> Subscription:
        """Give a principal's subscription to a task."""
        return cls(*who, key.tenant, key.agent, "task", key.task, name)

    @classmethod
    def to_context(cls, who: Who, tenant: str, agent: str, context: str, name: str) -> Subscription:
        """Give a principal's subscription to the tasks of a context."""
        return cls(*who, tenant, agent, "context", context, name)

    @property
    def owned_prefix(self) -> str:
        """What the consumers of this principal's subscriptions begin with."""
        return owned_prefix(self.principal_tenant, self.principal)

    @property
    def consumer(self) -> str:
        """Name of the JetStream consumer: nothing a client chose stands in it, and no two are alike."""
        return self.owned_prefix + _digest(self, 16)

    @property
    def subject(self) -> str:
        """What the consumer is filtered by; of a context, everything of its agent."""
        if self.kind == "task":
            return events_subject(self.key)
        return f"{EVENTS_PREFIX}.{agent_tokens(self.tenant, self.agent)}.*"

    @property
    def taken_subject(self) -> str:
        """Where a broker says that a stream has taken it over; nothing stores it."""
        return f"{SUBSCRIPTIONS_PREFIX}.{agent_tokens(self.tenant, self.agent)}.{self.consumer}"

    @property
    def key(self) -> TaskKey:
        """The task it follows."""
        assert self.kind == "task"
        return TaskKey(self.tenant, self.agent, self.target)


def owned_prefix(principal_tenant: str | None, principal: str) -> str:
    """Give what the consumers of a principal's subscriptions begin with."""
    return f"{PREFIX}{_digest((principal_tenant, principal), 8)}-"


def _digest(parts: tuple[str | None, ...], size: int) -> str:
    # As a JSON array: no two lists of texts are written alike, whatever stands in them.
    return hashlib.blake2b(_encode(parts), digest_size=size).hexdigest()


def check_name(name: str) -> str:
    """Give a subscription's name where it can be one: 1 to 256 bytes of UTF-8 without control characters.

    Raises:
        ValueError: it can't.
    """
    try:
        encode_token(name)
    except InvalidId as error:
        raise ValueError(str(error).replace("an id", "a name")) from error
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise ValueError("a name must hold no control characters")
    return name


def check_client(client: str) -> str:
    """Give a client's name for itself where it can be one: at most 128 printable ASCII characters.

    Raises:
        ValueError: it can't.
    """
    if len(client) > CLIENT_CHARACTERS_MAX or not (client.isascii() and client.isprintable()):
        raise ValueError(f"client must be at most {CLIENT_CHARACTERS_MAX} printable ASCII characters")
    return client


class Holding(NamedTuple):
    """Who holds a subscription, and whom the holders before displaced.

    Attributes:
        token: of the stream that took it last.
        client: what that client calls itself; empty: nothing.
        displaced: clients that were displaced and when (s since 1970), newest first.
    """

    token: str = ""
    client: str = ""
    displaced: tuple[tuple[str, float], ...] = ()

    def taken(self, token: str, client: str, now_s: float) -> Holding:
        """Give who holds it once a stream has taken it over.

        Args:
            token: of the new stream.
            client: what its client calls itself.
            now_s: seconds since 1970.
        """
        others = [each for each in self.displaced if each[0] not in (client, self.client)]
        if self.client and self.client != client:
            others.insert(0, (self.client, now_s))
        return Holding(token, client, tuple(others[:DISPLACED_MAX]))

    def turns_away(self, client: str, now_s: float, *, automatic: bool) -> bool:
        """Tell whether a client was displaced by another and comes again by itself: two tabs would fight.

        Args:
            client: what it calls itself; who has no name is never turned away.
            now_s: seconds since 1970.
            automatic: it sent what only an automatic reconnect sends.
        """
        if not client or client == self.client:
            return False
        return any(name == client and (automatic or now_s - at_s < SETTLE_S) for name, at_s in self.displaced)


class State(NamedTuple):
    """How a subscription stands.

    Attributes:
        subscription: which one.
        epoch: the stream's when it was made; of another epoch its positions mean nothing.
        start: the sequence its consumer began at.
        begun: whether everything before `start` was confirmed when it was made.
        floor: newest sequence the server takes for acknowledged; purges and expiry move it, too.
        acknowledged: how many were; 0: none ever.
        pending: how many records the server has not been told are confirmed.
        holding: who holds it.
    """

    subscription: Subscription
    epoch: str
    start: int
    begun: bool
    floor: int
    acknowledged: int
    pending: int
    holding: Holding

    @property
    def position(self) -> int | None:
        """The sequence up to which its client has confirmed; None: nothing yet.

        Where `is_certain` says no, it is that only while the record at it is still stored.
        """
        if self.acknowledged:
            return self.floor
        return self.start - 1 if self.begun else None

    @property
    def is_certain(self) -> bool:
        """Whether the position is what the client confirmed: expiry and purges don't move `start`."""
        return not self.acknowledged

    @property
    def cursor(self) -> str | None:
        """The position as an event id."""
        return None if self.position is None else format_cursor(self.epoch, self.position)


def metadata_of(subscription: Subscription, epoch: str, *, begun: bool, holding: Holding) -> dict[str, str]:
    """Write what a consumer must remember beside its position; `state_of` reads it."""
    return {
        f"{_META}identity": _encode(subscription).decode(),
        f"{_META}epoch": epoch,
        f"{_META}begun": "1" if begun else "0",
        f"{_META}holder": holding.token,
        f"{_META}client": holding.client,
        f"{_META}displaced": _encode(holding.displaced).decode(),
    }


def state_of(
    metadata: Mapping[str, str], *, start: int, floor: int, acknowledged: int, pending: int
) -> State | None:
    """Read how a subscription stands; None: the consumer is none of a subscription.

    Args:
        metadata: of the consumer.
        start: the sequence it began at.
        floor: stream sequence of its acknowledgement floor.
        acknowledged: consumer sequence of that.
        pending: records not acknowledged, delivered or not.
    """
    try:
        subscription = msgspec.json.decode(metadata[f"{_META}identity"], type=Subscription)
        holding = Holding(
            metadata[f"{_META}holder"],
            metadata[f"{_META}client"],
            tuple(_decode_displaced(metadata[f"{_META}displaced"])),
        )
        epoch, begun = metadata[f"{_META}epoch"], metadata[f"{_META}begun"] == "1"
    except (KeyError, msgspec.DecodeError):
        return None
    return State(subscription, epoch, start, begun, floor, acknowledged, pending, holding)


class Wish(NamedTuple):
    """What a request for a stream says of a named subscription.

    Attributes:
        name: of the subscription.
        client: what the client calls itself; empty: nothing.
        automatic: whether the request is one that only an automatic reconnect sends.
        by_client: whether only what the client confirms is acknowledged; else also what its TCP has.
    """

    name: str
    client: str
    automatic: bool
    by_client: bool


def described(state: State, *, held: bool) -> dict[str, Any]:
    """Say of a subscription what its owner may know, as JSON.

    How much is pending nobody knows of a context: what lies there is of the agent's other tasks, too.
    """
    subscription = state.subscription
    return {
        "name": subscription.name,
        subscription.kind: subscription.target,
        "acknowledged": state.cursor,
        "pending_events": state.pending if subscription.kind == "task" else None,
        "client": state.holding.client or None,
        "active_here": held,
    }
