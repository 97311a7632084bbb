"""The named subscriptions of who asks, over HTTP: confirmed, listed, deleted.

Must not know streams, nor how a position is kept.
"""

from __future__ import annotations

from typing import Annotated

from aiohttp import hdrs, web
from msgspec import Meta, Struct

from sidecast_broker.answers import Away
from sidecast_broker.auth.access import Access
from sidecast_broker.bodies import read_json
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.core.cursor import Cursor, MalformedCursor, parse_cursor
from sidecast_broker.core.subscriptions import State, Subscription, check_name, described, owned_prefix
from sidecast_broker.paths import path_segment, query_value
from sidecast_broker.refused import Refused, unknown
from sidecast_broker.router import Route, delete, get, post
from sidecast_broker.settings import Settings
from sidecast_broker.subscriptions import Subscriptions, unavailable
from sidecast_broker.takeover import who_of
from sidecast_schemas import headers as names
from sidecast_schemas.subjects import InvalidId, TaskKey, encode_token, parse_subject

PATH = "/subscriptions"
BODY_BYTES_MAX = 16 * 1024
_NO_STORE = {hdrs.CACHE_CONTROL: "no-store"}


class _Confirmed(Struct, frozen=True, forbid_unknown_fields=True):
    id: Annotated[str, Meta(max_length=128)]
    task: str | None = None


class SubscriptionDesk:
    """Answers for the named subscriptions of who asks; those of others don't exist.

    Args:
        settings: whose tasks there are.
        access: who may watch what.
        subscriptions: the named ones.
    """

    def __init__(self, settings: Settings, access: Access, subscriptions: Subscriptions) -> None:
        self._agent = settings.agent.name
        self._access = access
        self._stream = subscriptions.stream
        self._subscriptions = subscriptions

    def routes(self) -> list[Route]:
        """Give the routes."""
        return [
            get(PATH, self._list),
            delete(f"{PATH}/*", self._delete),
            post(f"{PATH}/*/ack", self._acknowledge),
        ]

    async def _list(self, request: web.BaseRequest) -> web.Response:
        principal = await self._access.who(request)
        states = await self._owned(principal)
        held = self._subscriptions.holds
        found = [described(state, held=held(state.subscription)) for state in states]
        found.sort(key=lambda each: (each["name"], each.get("task", "")))
        return web.json_response({"subscriptions": found}, headers=_NO_STORE)

    async def _delete(self, request: web.BaseRequest) -> web.Response:
        access = self._access
        arrived_s = access.now()
        principal = await self._changes(request)
        name = _name(request)
        task = query_value(request, "task") if "task" in request.query else None
        subscription = await self._named(principal, name, task, arrived_s)
        try:
            deleted = await self._subscriptions.consumers.delete(subscription.consumer)
            if deleted:
                await self._subscriptions.consumers.say_taken(subscription, "")
        except Away as away:
            raise unavailable(away) from away
        if not deleted:
            await access.hold(arrived_s)
            raise unknown()
        return web.Response(status=204, headers=_NO_STORE)

    async def _acknowledge(self, request: web.BaseRequest) -> web.Response:
        access = self._access
        principal = await self._changes(request)
        name = _name(request)
        confirmed = await read_json(request, _Confirmed, BODY_BYTES_MAX)
        arrived_s = access.now()
        try:
            cursor = parse_cursor(confirmed.id)
        except MalformedCursor as error:
            raise Refused("bad-request", f"id: {error}") from error
        task = confirmed.task
        if task is None:
            task = await self._task_at(cursor)
        subscription = await self._named(principal, name, task, arrived_s)
        state = await self._confirm(subscription, cursor)
        if state is None:
            await access.hold(arrived_s)
            raise unknown()
        answer = {"name": name, subscription.kind: subscription.target, "acknowledged": state.cursor}
        return web.json_response(answer, headers=_NO_STORE)

    async def _changes(self, request: web.BaseRequest) -> Principal:
        """Give who asks for a change.

        Raises:
            Refused: `unauthenticated`; `forbidden`: with a ticket, which may be in anybody's history.
        """
        principal = await self._access.who(request)
        if principal.scheme == "ticket":
            raise Refused("forbidden", "a ticket only opens streams")
        return principal

    async def _confirm(self, subscription: Subscription, cursor: Cursor) -> State | None:
        try:
            made = await self._subscriptions.consumers.get(subscription.consumer)
            if made is None:
                return None
            info = await self._stream.info()
        except Away as away:
            raise unavailable(away) from away
        if cursor.epoch != info.epoch or made.state.epoch != info.epoch:
            raise Refused("bad-request", "id: of another epoch", reason="epoch")
        if cursor.sequence > info.last:
            raise Refused("bad-request", "id: beyond what there is", reason="ahead")
        return await self._subscriptions.acknowledge(subscription, cursor.sequence)

    async def _task_at(self, cursor: Cursor) -> str | None:
        """Give the task an event id is of; None: its record isn't stored any more, or never was."""
        try:
            stored = await self._stream.at(cursor.sequence)
        except Away as away:
            raise unavailable(away) from away
        if stored is None:
            return None
        try:
            return parse_subject(stored.headers[names.SUBJECT]).task
        except InvalidId:
            return None

    async def _named(
        self, principal: Principal, name: str, task: str | None, arrived_s: float
    ) -> Subscription:
        """Give a principal's subscription by its name; where they have several so named, the task decides.

        Raises:
            Refused: `not-found`: there is none, or its task may not be watched; `bad-request`.
        """
        access = self._access
        tenant = access.tenant(principal)
        assert tenant is not None, "the path names no tenant that could be out of reach"
        if task is not None:
            try:
                encode_token(task)
            except InvalidId as error:
                raise Refused("bad-request", f"task: {error}") from error
            key = TaskKey(tenant, self._agent, task)
            await access.require(principal, key, arrived_s)
            return Subscription(*who_of(principal), key.tenant, key.agent, "task", key.task, name)
        owned = await self._owned(principal)
        found = [state.subscription for state in owned if state.subscription.name == name]
        if not found:
            await access.hold(arrived_s)
            raise unknown()
        if len(found) > 1:
            raise Refused("bad-request", "several tasks have a subscription of this name: say which task")
        return found[0]

    async def _owned(self, principal: Principal) -> list[State]:
        """Give how a principal's subscriptions stand, of tasks of this agent that they may watch."""
        who = who_of(principal)
        try:
            states = await self._subscriptions.consumers.owned(owned_prefix(*who))
        except Away as away:
            raise unavailable(away) from away
        tenant = self._access.tenant(principal)
        ours = [
            state
            for state in states
            # The names of consumers hold but 64 bits of whose they are.
            if (state.subscription.principal_tenant, state.subscription.principal) == who
            and (state.subscription.tenant, state.subscription.agent) == (tenant, self._agent)
            and state.subscription.kind == "task"
        ]
        visible = await self._access.visible(principal, {state.subscription.key for state in ours})
        return [state for state in ours if state.subscription.key in visible.keys]


def _name(request: web.BaseRequest) -> str:
    try:
        return check_name(path_segment(request, 1))
    except ValueError as error:
        raise Refused("bad-request", f"subscription: {error}") from error
