"""One conversation with an agent, spoken on any of the four wires, written down so that two can be compared.

Must not know who answers: an agent itself, or a broker before it.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple

import aiohttp
from a2a_rig.operations import Asked, other_request
from a2a_rig.wire import V03_REST, Wire, request, split, state_of, task_of, texts_of
from sse import Frame, Parser
from yarl import URL

SILENCE_S = 3.5
"""An answer that says nothing for so long, not even that it lives, is left open."""

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(Z|[+-]\d\d:\d\d)?$")


class Item(NamedTuple):
    """One frame of a stream, or a whole answer.

    Attributes:
        said: its JSON, ids and times replaced; None for an empty body.
        event: the name of the frame; empty where it has none.
        resumable: whether the frame has an id.
    """

    said: Any
    event: str = ""
    resumable: bool = False


Ending = Literal["end", "broken", "open"]


class Exchange(NamedTuple):
    """A request and what was answered.

    Attributes:
        step: which request of the conversation.
        status: of HTTP.
        media_type: of the answer.
        items: the frames, or the body alone.
        ending: whether the answer ended, broke off, or said nothing more for a while and stayed open.
    """

    step: str
    status: int
    media_type: str
    items: list[Item]
    ending: Ending = "end"


class Conversation:
    """Everything that was said, in order.

    Args:
        session: to ask with.
        url: of whom.
        wire: to speak.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, wire: Wire) -> None:
        self.exchanges: list[Exchange] = []
        self._session = session
        self._url = url
        self._wire = wire
        self._names: dict[str, str] = {}

    async def hold(self) -> list[Exchange]:
        """Go through the script; give what was answered."""
        await self._stream("a message alone", "message hello")
        task, _ = await self._stream("artifacts", 'chunks 3; say hi; parts; replace anew; meta {"n": 1.5}')
        await self._known(task, "completed", "")
        await self._ask("get", self._request("get", task=task))
        await self._ask("get with one message", other_request(self._wire, "get with one message", task))
        await self._waiting()
        await self._canceled()
        await self._stream("failure", "chunks 1; fail")
        await self._stream("rejection", "reject")
        await self._ask("send", self._request("send", text="chunks 2; say hi"))
        await self._ask("send for a message", self._request("send", text="message hello"))
        await self._refused(task)
        return self.exchanges

    async def _known(self, task: str, state: str, text: str) -> None:
        """Wait until the agent itself knows what it has said: a log may be faster than its store."""
        async with asyncio.timeout(SILENCE_S):
            while True:
                async with self._open(self._request("get", task=task)) as reading:
                    held = await reading.response.json(content_type=None)
                status = held.get("result", held)["status"]
                if (state_of(status), texts_of(status.get("message"))) == (state, text):
                    return

    async def _waiting(self) -> None:
        """Be asked, answer, be asked again, and cancel."""
        task, context = await self._stream("question", "chunks 2; ask why")
        await self._stream("answer", "chunks 2 3; ask more", task=task, context=context)
        await self._known(task, "input-required", "more")
        await self._ask("list tasks", other_request(self._wire, "list tasks", task, context))
        for do in ("set push config", "get push config", "list push configs", "delete push config"):
            await self._ask(do, other_request(self._wire, do, task))
        gone = other_request(self._wire, "get push config", task)
        await self._ask("get deleted push config", gone)
        await self._ask("cancel what waits", self._request("cancel", task=task))
        await self._ask("get what was canceled", self._request("get", task=task))

    async def _canceled(self) -> None:
        """Cancel a task while two streams of it are open."""
        async with self._open(self._request("stream", text="chunks 1; wait")) as sent:
            await sent.until("artifact")
            task = task_of(sent.events[0])
            async with self._open(self._request("subscribe", task=task)) as watched:
                # Not every agent begins with the Task: that it listens, the head of its answer says.
                assert watched.response.status == 200
                await self._ask("cancel", self._request("cancel", task=task))
                reading = asyncio.create_task(sent.to_the_end())
                await self._read("watched while it is canceled", watched)
                await reading
                await self._read("canceled", sent)

    async def _refused(self, task: str) -> None:
        """Ask for what can't be had."""
        unknown = str(uuid.uuid4())
        for do in ("get", "cancel", "subscribe", "send", "stream"):
            await self._ask(f"{do}, unknown task", self._request(do, text="chunks 1", task=unknown))
            if do != "get":
                await self._ask(f"{do}, ended task", self._request(do, text="chunks 1", task=task))
        for do in ("extended card", "no such operation"):
            await self._ask(do, other_request(self._wire, do, task))

    # ------------------------------------------------------------------ asking

    async def _stream(self, step: str, text: str, **fields: Any) -> tuple[str, str]:
        """Send a message and read all; give the ids of its task and context."""
        async with self._open(self._request("stream", text=text, **fields)) as reading:
            await self._read(step, reading)
            for event in reading.events:
                kind, held = split(event)
                if kind != "message":
                    return task_of(event), str(held["contextId"])
            return "", ""

    def _request(self, do: str, **fields: Any) -> Asked:
        # Agents of v0.3 answer GET alone on REST, those of v1.0 rather POST.
        verb = "GET" if do == "subscribe" and self._wire == V03_REST else ""
        return request(self._wire, do, verb=verb, **fields)

    async def _ask(self, step: str, asked: Asked) -> None:
        async with self._open(asked) as reading:
            await self._read(step, reading)

    @asynccontextmanager
    async def _open(self, asked: Asked) -> AsyncIterator[_Reading]:
        method, path, body, headers = asked
        async with self._session.request(
            method, URL(self._url + path, encoded=True), data=body, headers=headers
        ) as response:
            yield _Reading(response)

    async def _read(self, step: str, reading: _Reading) -> None:
        """Read to the end, and write it down."""
        response = reading.response
        ending: Ending = "end"
        if response.content_type == "text/event-stream":
            ending = await reading.to_the_end()
            items = [self._frame(frame) for frame in reading.frames]
        else:
            body = await response.read()
            said = json.loads(body) if response.content_type.endswith("json") else body.decode()
            items = [Item(self._plain(said))] if body else []
        self.exchanges.append(Exchange(step, response.status, response.content_type, items, ending))

    # ------------------------------------------------------------------ writing down

    def _frame(self, frame: Frame) -> Item:
        name = "" if frame.type == "message" else frame.type
        return Item(self._plain(frame.json), name, frame.id is not None)

    def _plain(self, value: Any) -> Any:
        """Give JSON in which ids are numbers by their first appearance, and times are their offsets."""
        if isinstance(value, dict):
            # In order of their names: what stands first in an object says nothing.
            return {name: self._plain(value[name]) for name in sorted(value)}
        if isinstance(value, list):
            return [self._plain(each) for each in value]
        if isinstance(value, str):
            return _TIME.sub(r"<time>\1", _ID.sub(self._name, value))
        return value

    def _name(self, found: re.Match[str]) -> str:
        return self._names.setdefault(found[0], f"<{len(self._names) + 1}>")


class _Reading:
    """An answer as it is read, with any line ends and any number of data lines."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.frames: list[Frame] = []
        self.events: list[dict[str, Any]] = []
        self._ending: Ending | None = None
        self._parser = Parser(strict=False)

    async def until(self, kind: str) -> None:
        """Read until an event of a kind has come."""
        async with asyncio.timeout(SILENCE_S):
            while not any(split(event)[0] == kind for event in self.events):
                self._take(await self.response.content.readany())

    async def to_the_end(self) -> Ending:
        """Read until nothing more comes, once; tell how that was."""
        if self._ending is None:
            self._ending = await self._read()
        return self._ending

    async def _read(self) -> Ending:
        try:
            while True:
                # Heartbeats are no words: a stream of nothing else is one that stays open.
                async with asyncio.timeout(SILENCE_S):
                    begun = len(self.frames)
                    while len(self.frames) == begun:
                        data = await self.response.content.readany()
                        if not data:
                            return "end"
                        self._take(data)
        except TimeoutError:
            return "open"
        except aiohttp.ClientPayloadError:
            return "broken"

    def _take(self, data: bytes) -> None:
        for frame in self._parser.feed(data):
            if isinstance(frame, Frame):
                self.frames.append(frame)
                if "error" not in frame.json:
                    self.events.append(frame.json.get("result", frame.json))
