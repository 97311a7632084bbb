"""The named subscriptions of who asks, over HTTP: confirmed, listed, deleted.

Must not know streams, nor how a position is kept.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

from aiohttp import hdrs, web
from msgspec import Meta, Struct

from sidecast_broker.answers import Away
from sidecast_broker.auth.access import Access
from sidecast_broker.bodies import read_json
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.core.cursor import Cursor, MalformedCursor, parse_cursor
from sidecast_broker.core.log import Stored
from sidecast_broker.core.subscriptions import State, Subscription, check_name, described, owned_prefix
from sidecast_broker.paths import check_id, path_segment, query_value
from sidecast_broker.refused import Refused, unknown
from sidecast_broker.router import Route, delete, get, post
from sidecast_broker.settings import Settings
from sidecast_broker.subscriptions import Subscriptions, unavailable
from sidecast_broker.survey import context_of
from sidecast_broker.takeover import who_of
from sidecast_schemas import headers as names
from sidecast_schemas.subjects import InvalidId, TaskKey, parse_subject

PATH = "/subscriptions"
BODY_BYTES_MAX = 16 * 1024
_NO_STORE = {hdrs.CACHE_CONTROL: "no-store"}


class _Confirmed(Struct, frozen=True, forbid_unknown_fields=True):
    id: Annotated[str, Meta(max_length=128)]
    task: str | None = None
    context: str | None = None


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
        found.sort(key=lambda each: (each["name"], each.get("context", ""), each.get("task", "")))
        return web.json_response({"subscriptions": found}, headers=_NO_STORE)

    async def _delete(self, request: web.BaseRequest) -> web.Response:
        access = self._access
        arrived_s = access.now()
        principal = await self._changes(request)
        name = _name(request)
        task, context = (
            query_value(request, each) if each in request.query else None for each in ("task", "context")
        )
        subscription = await self._of_target(principal, name, task, context, arrived_s)
        if subscription is None:
            subscription = await self._of_name(principal, name, arrived_s)
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
        subscription = await self._of_target(principal, name, confirmed.task, confirmed.context, arrived_s)
        if subscription is None:
            subscription = await self._of_event(principal, name, cursor, arrived_s)
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
            info = await self._subscriptions.stream_at(cursor)
        except Away as away:
            raise unavailable(away) from away
        if cursor.epoch != info.epoch or made.state.epoch != info.epoch:
            raise Refused("bad-request", "id: of another epoch", reason="epoch")
        if cursor.sequence > info.last:
            raise Refused("bad-request", "id: beyond what there is", reason="ahead")
        return await self._subscriptions.acknowledge(subscription, cursor.sequence, known=made.state)

    async def _of_target(
        self, principal: Principal, name: str, task: str | None, context: str | None, arrived_s: float
    ) -> Subscription | None:
        """Give a principal's subscription to the task or context that is said; None: none is.

        Raises:
            Refused: `not-found`: the task may not be watched; `bad-request`: what is said is no id, or both.
        """
        if task is not None and context is not None:
            raise Refused("bad-request", "a subscription is to a task or to a context")
        tenant = self._tenant(principal)
        if context is not None:
            check_id("context", context)
            return Subscription.to_context(who_of(principal), tenant, self._agent, context, name)
        if task is None:
            return None
        key = TaskKey(tenant, self._agent, check_id("task", task))
        await self._access.require(principal, key, arrived_s)
        return Subscription.to_task(who_of(principal), key, name)

    async def _of_event(
        self, principal: Principal, name: str, cursor: Cursor, arrived_s: float
    ) -> Subscription:
        """Give a principal's subscription to the task of an event, or to its context.

        Where the event isn't stored any more, or its task may not be watched, the name alone decides.

        Raises:
            Refused: as `_of_name`.
        """
        consumers = self._subscriptions.consumers
        try:
            stored = await self._stream.at(cursor.sequence)
            may_be = [] if stored is None else await self._to_record(principal, name, stored)
            made = await asyncio.gather(*(consumers.get(each.consumer) for each in may_be))
        except Away as away:
            raise unavailable(away) from away
        found = [each for each, is_made in zip(may_be, made, strict=True) if is_made is not None]
        if not found:
            return await self._of_name(principal, name, arrived_s)
        if len(found) > 1:
            raise _ambiguous()
        return found[0]

    async def _to_record(self, principal: Principal, name: str, stored: Stored) -> list[Subscription]:
        """Give the subscriptions of a name that a record may be confirmed in, made or not.

        Raises:
            Away: owners can't be looked up.
        """
        try:
            key = parse_subject(stored.headers[names.SUBJECT])
        except InvalidId:
            return []
        who, tenant = who_of(principal), self._tenant(principal)
        if (key.tenant, key.agent) != (tenant, self._agent):
            return []
        if key not in (await self._access.visible(principal, {key})).keys:
            return []
        to_task, context = Subscription.to_task(who, key, name), context_of(stored)
        if context is None:
            return [to_task]
        return [to_task, Subscription.to_context(who, tenant, self._agent, context, name)]

    async def _of_name(self, principal: Principal, name: str, arrived_s: float) -> Subscription:
        """Give a principal's only subscription of a name.

        Raises:
            Refused: `not-found`: there is none; `bad-request`: there are several.
        """
        owned = await self._owned(principal)
        found = [state.subscription for state in owned if state.subscription.name == name]
        if not found:
            await self._access.hold(arrived_s)
            raise unknown()
        if len(found) > 1:
            raise _ambiguous()
        return found[0]

    def _tenant(self, principal: Principal) -> str:
        tenant = self._access.tenant(principal)
        assert tenant is not None, "the path names no tenant that could be out of reach"
        return tenant

    async def _owned(self, principal: Principal) -> list[State]:
        """Give how a principal's subscriptions stand, of contexts, and of tasks that they may watch."""
        who = who_of(principal)
        try:
            states = await self._subscriptions.consumers.owned(owned_prefix(*who))
        except Away as away:
            raise unavailable(away) from away
        tenant = self._tenant(principal)
        ours = [
            state
            for state in states
            # The names of consumers hold but 64 bits of whose they are.
            if (state.subscription.principal_tenant, state.subscription.principal) == who
            and (state.subscription.tenant, state.subscription.agent) == (tenant, self._agent)
        ]
        # Of a context, each stream shows the tasks that may be watched, and may have none.
        to_tasks = {state.subscription.key for state in ours if state.subscription.kind == "task"}
        visible = await self._access.visible(principal, to_tasks)
        return [
            state
            for state in ours
            if state.subscription.kind == "context" or state.subscription.key in visible.keys
        ]


def _ambiguous() -> Refused:
    return Refused(
        "bad-request",
        "several tasks or contexts have a subscription of this name: say which task, or context",
    )


def _name(request: web.BaseRequest) -> str:
    try:
        return check_name(path_segment(request, 1))
    except ValueError as error:
        raise Refused("bad-request", f"subscription: {error}") from error
