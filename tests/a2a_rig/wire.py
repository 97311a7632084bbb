"""The four wires of A2A, spoken by hand: requests, exact bytes of answers, frames of streams.

Must not know who serves. Everything it gives is as it stood on the wire; `outline` puts the spellings of all
wires and SDKs into the same few words, for tests that compare them.
"""

from __future__ import annotations

import asyncio
import io
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import aiohttp
from yarl import URL

WAIT_S_MAX = 15.0

Version = Literal["1.0", "0.3"]
Binding = Literal["jsonrpc", "rest"]


class Wire(NamedTuple):
    """A version and a binding."""

    version: Version
    binding: Binding

    def __str__(self) -> str:
        return f"{self.binding}-{self.version}"


WIRES = [Wire(version, binding) for version in ("1.0", "0.3") for binding in ("jsonrpc", "rest")]
V1_RPC, V1_REST, V03_RPC, V03_REST = WIRES

METHODS = {
    "1.0": {
        "stream": "SendStreamingMessage",
        "send": "SendMessage",
        "subscribe": "SubscribeToTask",
        "get": "GetTask",
        "cancel": "CancelTask",
    },
    "0.3": {
        "stream": "message/stream",
        "send": "message/send",
        "subscribe": "tasks/resubscribe",
        "get": "tasks/get",
        "cancel": "tasks/cancel",
    },
}


class Frame(NamedTuple):
    """One block of an event stream.

    Attributes:
        raw: its bytes without the blank line.
        data: its `data:` lines, joined with LF; None where it has none.
        id: its `id:`, or None.
        event: its `event:`, or None.
        comments: its comment lines, with the colon.
        at_s: when it was complete, on the loop's clock.
    """

    raw: bytes
    data: str | None
    id: str | None
    event: str | None
    comments: list[str]
    fields: list[str]
    at_s: float

    @property
    def json(self) -> dict[str, Any]:
        """What `data` says."""
        assert self.data is not None
        found: dict[str, Any] = json.loads(self.data)
        return found

    @property
    def result(self) -> dict[str, Any]:
        """What it says, without a JSON-RPC envelope."""
        whole = self.json
        return whole["result"] if "jsonrpc" in whole else whole


def parse_frame(block: bytes, at_s: float = 0.0) -> Frame:
    """Read one block as the HTML standard says."""
    data: list[str] = []
    held: dict[str, str] = {}
    comments: list[str] = []
    fields: list[str] = []
    for line in block.decode().split("\n"):
        name, colon, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name and colon:
            comments.append(line)
            continue
        fields.append(name)
        if name == "data":
            data.append(value)
        else:
            held[name] = value
    return Frame(
        block, "\n".join(data) if data else None, held.get("id"), held.get("event"), comments, fields, at_s
    )


class Answer(NamedTuple):
    """A whole answer that is no stream.

    Attributes:
        status: of HTTP.
        headers: of HTTP.
        body: its bytes.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """What its body says."""
        return json.loads(self.body)

    @property
    def result(self) -> Any:
        """What it says, without a JSON-RPC envelope."""
        whole = self.json
        return whole["result"] if isinstance(whole, dict) and "jsonrpc" in whole else whole

    @property
    def media_type(self) -> str:
        """The media type of its body."""
        return self.headers.get("Content-Type", "").partition(";")[0]


class Stream:
    """An answer that is being read.

    Attributes:
        response: aiohttp's.
        read_bytes: all bytes so far.
    """

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.read_bytes = b""
        self._pending = b""

    @property
    def media_type(self) -> str:
        """The media type of its body."""
        return self.response.headers.get("Content-Type", "").partition(";")[0]

    async def next(self, timeout_s: float = WAIT_S_MAX) -> Frame | None:
        """Give the next block that has data, with the comments that stood before it; None at the end.

        Raises:
            TimeoutError: nothing came.
            aiohttp.ClientPayloadError: the connection broke.
        """
        if self.media_type != "text/event-stream":
            status, body = self.response.status, await self.response.read()
            raise AssertionError(f"no stream: {status} {self.media_type} {body[:2000]!r}")
        async with asyncio.timeout(timeout_s):
            while True:
                frame = self._cut()
                if frame is not None:
                    return frame
                data = await self.response.content.readany()
                if not data:
                    assert not self._pending.strip(b":\n"), f"an unfinished block: {self._pending!r}"
                    return None
                self.read_bytes += data
                self._pending += data

    def _cut(self) -> Frame | None:
        assert b"\r" not in self._pending, "framing is LF"
        while b"\n\n" in self._pending:
            block, _, self._pending = self._pending.partition(b"\n\n")
            frame = parse_frame(block, asyncio.get_running_loop().time())
            if frame.fields:
                return frame
        return None

    async def rest(self, timeout_s: float = WAIT_S_MAX) -> list[Frame]:
        """Give all frames to the end.

        Raises:
            TimeoutError: nothing came for that long.
            aiohttp.ClientPayloadError: the connection broke.
        """
        found: list[Frame] = []
        while (frame := await self.next(timeout_s)) is not None:
            found.append(frame)
        return found

    async def take(self, count: int, timeout_s: float = WAIT_S_MAX) -> list[Frame]:
        """Give the next frames, which must come."""
        found: list[Frame] = []
        for _ in range(count):
            frame = await self.next(timeout_s)
            assert frame is not None, f"the stream ended after {len(found)} of {count} frames"
            found.append(frame)
        return found

    async def until(self, *words: str, timeout_s: float = WAIT_S_MAX) -> list[Frame]:
        """Give all frames up to the one whose outline is this."""
        found: list[Frame] = []
        wanted = " ".join(words)
        while True:
            frame = await self.next(timeout_s)
            assert frame is not None, f"the stream ended before {wanted!r}: {outlines(found)}"
            found.append(frame)
            if outline(frame.result) == wanted:
                return found

    async def silent(self, for_s: float) -> None:
        """Check that no frame comes, and that the stream stays open, for that long."""
        try:
            frame = await self.next(for_s)
        except TimeoutError:
            return
        raise AssertionError(f"there came {frame!r}" if frame else "the stream ended")

    async def whole(self) -> bytes:
        """Read everything there still is, as it stands."""
        async with asyncio.timeout(WAIT_S_MAX):
            self.read_bytes += await self.response.read()
        return self.read_bytes


class Door:
    """A program that speaks A2A by hand, to a broker or to an agent.

    Args:
        session: to ask with.
        url: of whom.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url

    @asynccontextmanager
    async def open(
        self,
        wire: Wire,
        do: Literal["stream", "subscribe"],
        *,
        text: str = "",
        task: str = "",
        headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> AsyncIterator[Stream]:
        """Open a stream, whatever its answer is; leaving the block closes the connection.

        Args:
            wire: to speak.
            do: send a message, or subscribe to a task.
            text: of the message.
            task: that the message is about, or that is subscribed to.
            headers: further ones.
            fields: see `request`.
        """
        method, path, body, given = request(wire, do, text=text, task=task, **fields)
        async with self._session.request(
            method, URL(self.url + path, encoded=True), data=body, headers=given | dict(headers or {})
        ) as response:
            yield Stream(response)

    async def ask(
        self,
        wire: Wire,
        do: str,
        *,
        text: str = "",
        task: str = "",
        headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> Answer:
        """Make a request and read the whole answer."""
        method, path, body, given = request(wire, do, text=text, task=task, **fields)
        return await self.raw(method, path, body, given | dict(headers or {}))

    async def raw(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Make any request; the path goes as it stands."""
        async with (
            asyncio.timeout(WAIT_S_MAX),
            self._session.request(
                method,
                URL(self.url + path, encoded=True),
                data=None if body is None else io.BytesIO(body),
                headers=headers,
                allow_redirects=False,
            ) as response,
        ):
            return Answer(response.status, response.headers, await response.read())

    async def rpc(self, body: bytes | dict[str, Any], version: str | None = "1.0", path: str = "/") -> Answer:
        """Post a JSON-RPC body as it stands."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        if version is not None:
            headers["A2A-Version"] = version
        return await self.raw("POST", path, data, headers)


def request(
    wire: Wire,
    do: str,
    *,
    text: str = "",
    task: str = "",
    message_id: str = "",
    context: str = "",
    rpc_id: object = 1,
    tenant: str = "",
    prefix: str = "",
    query: str = "",
    verb: str = "",
    metadata: dict[str, Any] | None = None,
    configuration: dict[str, Any] | None = None,
) -> tuple[str, str, bytes | None, dict[str, str]]:
    """Write a request: method, path with query, body and headers.

    Args:
        wire: to speak.
        do: `stream`, `send`, `subscribe`, `get` or `cancel`.
        text: of the message.
        task: that the message is about, or that is asked about.
        message_id: of the message; a new one where it is empty.
        context: of the message.
        rpc_id: of the JSON-RPC request.
        tenant: in the path (REST) or in `params` (JSON-RPC, v1.0).
        prefix: before the path.
        query: after the path, without the question mark.
        verb: HTTP method of a REST request, where it isn't the usual one.
        metadata: of the params.
        configuration: of a message.
    """
    headers = {"Content-Type": "application/json"}
    if wire.version == "1.0":
        headers["A2A-Version"] = "1.0"
    if do in ("stream", "subscribe"):
        headers["Accept"] = "text/event-stream"
    params = _params(wire, do, text, task, message_id or str(uuid.uuid4()), context)
    if metadata is not None:
        params["metadata"] = metadata
    if configuration is not None:
        params["configuration"] = configuration
    suffix = f"?{query}" if query else ""
    if wire.binding == "jsonrpc":
        if tenant:
            params["tenant"] = tenant
        call = {"jsonrpc": "2.0", "id": rpc_id, "method": METHODS[wire.version][do], "params": params}
        return "POST", f"{prefix or '/'}{suffix}", json.dumps(call).encode(), headers
    name = quote(task, safe="")
    paths = {
        "stream": ("POST", "/message:stream"),
        "send": ("POST", "/message:send"),
        "subscribe": ("POST", f"/tasks/{name}:subscribe"),
        "get": ("GET", f"/tasks/{name}"),
        "cancel": ("POST", f"/tasks/{name}:cancel"),
    }
    method, path = paths[do]
    method = verb or method
    before = prefix + ("/v1" if wire.version == "0.3" else "") + (f"/{tenant}" if tenant else "")
    body = json.dumps(params if do in ("stream", "send") else {}).encode() if method == "POST" else None
    return method, before + path + suffix, body, headers


def _params(wire: Wire, do: str, text: str, task: str, message_id: str, context: str) -> dict[str, Any]:
    if do not in ("stream", "send"):
        return {"id": task}
    message: dict[str, Any] = {"messageId": message_id}
    if wire == V03_RPC:
        message |= {"kind": "message", "role": "user", "parts": [{"kind": "text", "text": text}]}
    else:
        message |= {"role": "ROLE_USER"}
        message["content" if wire.version == "0.3" else "parts"] = [{"text": text}]
    if task:
        message["taskId"] = task
    if context:
        message["contextId"] = context
    # The v0.3 proto calls the message `request`; its JSON name is `message`.
    return {"message": message}


# --- the same few words for all wires

_KINDS = {
    "task": "task",
    "message": "message",
    "status-update": "status",
    "artifact-update": "artifact",
    "statusUpdate": "status",
    "artifactUpdate": "artifact",
}


def split(event: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Give the kind of an event in one word, and what it holds; of any wire or SDK."""
    if "kind" in event:
        return _KINDS[event["kind"]], event
    for name, held in event.items():
        if name in _KINDS:
            return _KINDS[name], held
    raise AssertionError(f"not an event: {event}")


def state_of(status: dict[str, Any]) -> str:
    """Give a state in v0.3's spelling: `input-required`."""
    plain = str(status["state"]).removeprefix("TASK_STATE_").lower().replace("_", "-")
    return "canceled" if plain == "cancelled" else plain


def texts_of(held: dict[str, Any] | None) -> str:
    """Give the text of all text parts of a message or an artifact."""
    parts = (held or {}).get("parts") or (held or {}).get("content") or []
    return "".join(part.get("text", "") for part in parts)


def outline(event: dict[str, Any]) -> str:
    """Give an event in a few words: `task working 1 2 `, `status input-required why`, `artifact out+ 3 `."""
    kind, held = split(event)
    if kind == "message":
        return f"message {texts_of(held)}"
    if kind == "artifact":
        sign = "+" if held.get("append") else ""
        return f"artifact {held['artifact']['artifactId']}{sign} {texts_of(held['artifact'])}"
    text = texts_of(held["status"].get("message")) if kind == "status" else text_of_task(held)
    return " ".join(word for word in (kind, state_of(held["status"]), text) if word)


def outlines(frames: list[Frame]) -> list[str]:
    """Give the outlines of frames."""
    return [outline(frame.result) for frame in frames]


def text_of_task(task: dict[str, Any], artifact: str = "out") -> str:
    """Give the text of an artifact of a task, empty where there is none."""
    found = [each for each in task.get("artifacts") or [] if each["artifactId"] == artifact]
    return "".join(texts_of(each) for each in found)


def task_of(event: dict[str, Any]) -> str:
    """Give the id of the task an event is about."""
    kind, held = split(event)
    return str(held["id"] if kind == "task" else held["taskId"])


def text_after(events: list[dict[str, Any]]) -> str:
    """Give what the artifact `out` says after these events: what a watcher ends up with."""
    text = ""
    for event in events:
        kind, held = split(event)
        if kind == "task":
            text = text_of_task(held)
        elif kind == "artifact" and held["artifact"]["artifactId"] == "out":
            piece = texts_of(held["artifact"])
            text = text + piece if held.get("append") else piece
    return text


def numbers(first: int, last: int) -> str:
    """Give what `chunks` writes from one number to another."""
    return "".join(f"{number} " for number in range(first, last + 1))
