"""One task's events over HTTP, across dropped connections, as a browser's EventSource reads them.

Must not know how events are shown.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from sidecast_broker.commands.event_source import EventSourceParser, ServerSentEvent

BACKOFF_MS_MAX = 10_000
RETRY_MS = 1000
ANSWER_S_MAX = 30.0
HEARTBEAT_S = 15.0
HEARTBEATS_MISSED = 3
RETRY_AFTER_S_MAX = 60

_TEMPORARY = frozenset({408, 425, 429})


class WatchRefused(Exception):  # noqa: N818 - named as the answer reads
    """The broker's answer is final: asking again would not help.

    Attributes:
        status: of the HTTP response.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class StateUnknown(Exception):  # noqa: N818 - named as the answer reads
    """The broker did not tell the task's state."""


class _Dropped(Exception):  # noqa: N818 - a state, not an error
    def __init__(self, reason: str, after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.after_s = after_s


class Watcher:
    """Reads a task's events, and after a drop goes on behind the last one received.

    Attributes:
        finished: whether the broker said that nothing follows (status 204).
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        task: str,
        *,
        params: Mapping[str, str] | None = None,
        note: Callable[[str], None] = lambda _: None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Make a watcher; it connects when its events are asked for.

        Args:
            session: carries the credential, if any.
            url: of the broker's public listener, without a slash at its end.
            task: the task's plain id.
            params: for the query.
            note: told in one line about every drop.
            pause: waits that many seconds.
            jitter: picks a number between two.
        """
        self.finished = False
        self._session = session
        # Every character of the id, also the slash: one path segment, whatever the id is.
        self._url = f"{url.rstrip('/')}/tasks/{quote(task, safe='')}/events"
        self._params = dict(params or {})
        self._note = note
        self._pause = pause
        self._jitter = jitter
        self._parser = EventSourceParser()
        self._silence_s = HEARTBEAT_S * HEARTBEATS_MISSED
        self._after_s = 0.0

    async def events(self) -> AsyncGenerator[ServerSentEvent]:
        """Give events until `stream.end`, which is the last one, or until the broker says nothing follows.

        Raises:
            WatchRefused: the broker's answer is final, for example 404.
        """
        failures = 0
        while not self.finished:
            self._after_s = 0.0
            try:
                async with asyncio.timeout(ANSWER_S_MAX):
                    response = await self._session.get(self._request_url(), headers=self._headers())
                async with response:
                    await self._check(response)
                    async for event in self._read(response):
                        if event.type != "stream.busy":
                            failures = 0
                        yield event
                        if event.type == "stream.end":
                            return
                reason = "the stream ended early"
            except _Dropped as drop:
                reason, self._after_s = str(drop), drop.after_s
            except TimeoutError:
                reason = "no answer"
            except (aiohttp.ClientError, OSError) as error:
                reason = str(error) or type(error).__name__
            if not self.finished:
                await self._wait(reason, failures)
                failures += 1

    async def state(self) -> str:
        """Ask once for the task's state, in the browser format's spelling.

        Raises:
            StateUnknown: there is no answer, or no state in it.
        """
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                headers = {"Accept": "application/json"}
                async with self._session.get(self._request_url(), headers=headers) as response:
                    if response.status != 200:
                        raise StateUnknown(await _problem(response))
                    state = text_of(decode_object(await response.read()), "state")
        except (aiohttp.ClientError, OSError) as error:
            raise StateUnknown(str(error) or "no answer") from error
        if not state:
            raise StateUnknown("the answer names none")
        return state

    def _request_url(self) -> URL:
        # Encoded above: yarl would turn %2F and %252F of an id into something else.
        return URL(self._url, encoded=True).update_query(self._params)

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self._parser.last_event_id:
            headers["Last-Event-ID"] = self._parser.last_event_id
        return headers

    async def _check(self, response: aiohttp.ClientResponse) -> None:
        status = response.status
        if status == 204:
            self.finished = True
        elif status == 200:
            if response.content_type != "text/event-stream":
                raise WatchRefused(status, f"the answer is no event stream but {response.content_type}")
        else:
            async with asyncio.timeout(ANSWER_S_MAX):
                message = await _problem(response)
            if status >= 500 or status in _TEMPORARY:
                raise _Dropped(message, _retry_after_s(response.headers.get("Retry-After", "")))
            raise WatchRefused(status, message)

    async def _read(self, response: aiohttp.ClientResponse) -> AsyncIterator[ServerSentEvent]:
        if self.finished:
            return
        self._parser.restart()
        while True:
            try:
                async with asyncio.timeout(self._silence_s):
                    chunk = await response.content.readany()
            except TimeoutError:
                raise _Dropped(f"no sign of life for {self._silence_s:g} s") from None
            if not chunk:
                return
            for event in self._parser.feed(chunk):
                self._obey(event)
                yield event

    def _obey(self, event: ServerSentEvent) -> None:
        if event.type == "stream.open":
            heartbeat_s = decode_object(event.data.encode()).get("heartbeat_s")
            if isinstance(heartbeat_s, int | float) and heartbeat_s > 0:
                self._silence_s = heartbeat_s * HEARTBEATS_MISSED
        elif event.type in ("stream.drain", "stream.busy"):
            reconnect_in_ms = decode_object(event.data.encode()).get("reconnect_in_ms")
            if isinstance(reconnect_in_ms, int | float):
                self._after_s = min(max(reconnect_in_ms / 1000, 0), RETRY_AFTER_S_MAX)

    async def _wait(self, reason: str, failures: int) -> None:
        retry_ms = RETRY_MS if self._parser.retry_ms is None else self._parser.retry_ms
        longest_ms = max(retry_ms, min(BACKOFF_MS_MAX, max(retry_ms, 100) * 2 ** min(failures, 10)))
        delay_s = (
            self._jitter(max(retry_ms, longest_ms / 2), longest_ms) / 1000 if failures else retry_ms / 1000
        )
        delay_s = max(delay_s, self._after_s)
        position = f" behind {self._parser.last_event_id}" if self._parser.last_event_id else ""
        self._note(f"{reason}; reconnecting in {delay_s:.1f} s{position}")
        await self._pause(delay_s)


def decode_object(data: bytes) -> dict[str, Any]:
    """Decode a JSON object; anything else is an empty one."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def text_of(fields: Mapping[str, Any], name: str) -> str:
    """Give a field that should be text, empty when it is missing or something else."""
    value = fields.get(name)
    return value if isinstance(value, str) else ""


async def _problem(response: aiohttp.ClientResponse) -> str:
    error = decode_object(await response.content.read(4096)).get("error")
    detail = text_of(error, "message") if isinstance(error, dict) else ""
    return f"{response.status} {detail or response.reason or ''}".strip()


def _retry_after_s(value: str) -> float:
    return min(int(value[:9]), RETRY_AFTER_S_MAX) if value.isascii() and value.isdigit() else 0.0
