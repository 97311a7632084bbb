"""Asks a service of the operator's whether a principal may watch a task, and remembers its answers shortly.

Must not know requests, nor who owns a task. Everything but a clear yes is a no: away, slow, unreadable.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import aiohttp
import msgspec
import structlog

from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.settings import Auth
from sidecast_schemas.subjects import TaskKey

logger = structlog.get_logger(__name__)

Action = Literal["watch", "send", "cancel", "notify"]
"""What somebody wants of a task; `notify` is to read or change where its push notifications go."""

ANSWERS_MAX = 10_000
"""Answers remembered at once; each is some 500 bytes."""
FAULT_S = 1.0
"""How long no answer counts as a no: who is away isn't asked for each request, and is back soon."""
BODY_BYTES_MAX = 65_536
CONNECTIONS_MAX = 32


_FAULTS = (TimeoutError, aiohttp.ClientError, OSError, msgspec.DecodeError, RecursionError, ValueError)


class Decider(Protocol):
    """Decides what neither a grant nor ownership does."""

    async def allows(self, principal: Principal, key: TaskKey, action: Action) -> bool:
        """Tell whether it is allowed; anything but a clear yes is a no."""


class _Question(NamedTuple):
    principal: str
    tenant: str
    agent: str
    task: str
    action: Action


class _Said(msgspec.Struct):
    allow: bool


_decode = msgspec.json.Decoder(_Said).decode


class Webhook:
    """Decides what neither a grant nor ownership does.

    Args:
        settings: where it is, how long it may take, and how long its answers hold.
        clock: seconds, monotonic.
    """

    def __init__(self, settings: Auth, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = settings.webhook_url
        self._timeout_s = settings.webhook_timeout_s
        self._keep_s = settings.webhook_cache_s
        self._clock = clock
        self._known: OrderedDict[_Question, tuple[bool, float]] = OrderedDict()
        self._asking: dict[_Question, asyncio.Task[bool]] = {}
        self._session: aiohttp.ClientSession | None = None
        self._reported = ""

    async def close(self) -> None:
        """End what is being asked, and the connections."""
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def allows(self, principal: Principal, key: TaskKey, action: Action) -> bool:
        """Tell whether the service allows it; those who ask the same at once share one question.

        Args:
            principal: who wants it.
            key: the task, which need not exist.
            action: what is wanted.
        """
        question = _Question(principal.name, key.tenant, key.agent, key.task, action)
        if (known := self._known.get(question)) is not None:
            allowed, until_s = known
            if self._clock() < until_s:
                self._known.move_to_end(question)
                return allowed
            del self._known[question]
        task = self._asking.get(question)
        if task is None:
            task = self._asking[question] = asyncio.get_running_loop().create_task(self._ask(question))
            task.add_done_callback(lambda _done: self._asking.pop(question, None))
        # One who leaves doesn't end it for the others.
        return await asyncio.shield(task)

    async def _ask(self, question: _Question) -> bool:
        try:
            async with asyncio.timeout(self._timeout_s):
                allowed = await self._post(question)
        except _FAULTS as error:
            self._report(str(error) or type(error).__name__)
            self._keep(question, False, min(FAULT_S, self._keep_s))
            return False
        self._report("")
        self._keep(question, allowed, self._keep_s)
        return allowed

    async def _post(self, question: _Question) -> bool:
        if self._session is None:
            # No cookies are kept, no proxy of the environment is used, and a redirect is not followed: the
            # question names who asks for what.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
            )
        body = msgspec.json.encode(question._asdict())
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
            if answer.status != 200:
                if answer.status >= 500:
                    raise ValueError(f"it answered with status {answer.status}")
                return False
            said = b""
            async for piece in answer.content.iter_any():
                said += piece
                if len(said) > BODY_BYTES_MAX:
                    raise ValueError("its answer is too long")
            return _decode(said).allow

    def _keep(self, question: _Question, allowed: bool, keep_s: float) -> None:
        if keep_s <= 0:
            return
        self._known[question] = allowed, self._clock() + keep_s
        self._known.move_to_end(question)
        if len(self._known) > ANSWERS_MAX:
            self._known.popitem(last=False)

    def _report(self, fault: str) -> None:
        """Log what keeps it from answering, once as long as it stays the same, and that it answers again."""
        if fault != self._reported:
            if fault:
                logger.warning("webhook_refuses_all", error=fault[:200])
            else:
                logger.info("webhook_answers")
            self._reported = fault
