"""Agents and clients as processes of their own: started, killed, spoken to.

Must not know what a test looks at.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from a2a_rig.environments import NODE_SDKS, PYTHON_SDKS, ROOT, node, node_modules_of, python_of
from a2a_rig.wire import split, text_after
from e2e.ports import fixed_ports

READY_S_MAX = 30.0
ANSWER_S_MAX = 20.0

HERE = Path(__file__).parent
PATHS = ":".join(str(ROOT / folder) for folder in ("tests", "adapters", "schemas"))

Generation = Literal["v1", "v03"]


def environ() -> dict[str, str]:
    """Give the environment of a process of ours: our folders are importable, nothing is set for a broker."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SIDECAST_", "PYTHON"))}
    return own | {"PYTHONPATH": PATHS}


class Agent:
    """One test agent; a context manager that starts and stops it.

    Args:
        folder: where its tasks and its log are kept, over restarts.
        generation: the a2a-sdk it is built on.
        nats_url: where it publishes; empty leaves it as it comes from the SDK.
        options: further words of its command line.
        sdk: the version of the a2a-sdk; empty for the newest of its generation.

    Attributes:
        url: where it listens, the same over restarts.
    """

    def __init__(
        self,
        folder: Path,
        generation: Generation = "v1",
        *,
        nats_url: str = "",
        options: tuple[str, ...] = (),
        sdk: str = "",
    ) -> None:
        (self._port,) = fixed_ports(1)
        self.url = f"http://127.0.0.1:{self._port}"
        self.generation = generation
        self._tasks = folder / f"tasks-{self._port}"
        self._tasks.mkdir(parents=True)
        self._log = folder / f"agent-{self._port}.log"
        self._command = [str(python_of(sdk or PYTHON_SDKS[generation])), "-m", f"a2a_rig.agent_{generation}"]
        self._command += ["--port", str(self._port), "--tasks", str(self._tasks), *options]
        if nats_url:
            self._command += ["--nats", nats_url]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it, and wait until it listens."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=environ(), stdout=log, stderr=log)
        deadline = time.monotonic() + READY_S_MAX
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the agent doesn't listen: {self._log.read_text()[-3000:]}")
            time.sleep(0.02)
        return self

    def _listens(self) -> bool:
        try:
            self._read("/control/seen")
        except (urllib.error.URLError, OSError):
            return False
        return True

    def _read(self, path: str, method: str = "GET") -> Any:
        request = urllib.request.Request(f"{self.url}{path}", method=method)
        with urllib.request.urlopen(request, timeout=ANSWER_S_MAX) as answer:
            return json.loads(answer.read() or b"null")

    def kill9(self) -> None:
        """Kill it without warning."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop it; nothing happens where it doesn't run."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def seen(self) -> dict[str, Any]:
        """What it has seen since it started; see `control.Control`."""
        found = self._read("/control/seen")
        assert isinstance(found, dict)
        return found

    def requests_to(self, *words: str) -> list[dict[str, Any]]:
        """Give the A2A requests it has seen whose path holds one of these words."""
        return [each for each in self.seen["requests"] if any(word in each["path"] for word in words)]

    def open(self, gate: str) -> None:
        """Open a gate of a script."""
        self._read(f"/control/open/{gate}", "POST")

    def reached(self, gate: str) -> None:
        """Wait until a script has reached a gate."""
        self._read(f"/control/reached/{gate}")

    def edit(self, task: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Change a task it keeps while it doesn't run: work done where nobody watched."""
        assert self._process is None
        file = self._tasks / f"{task}.json"
        kept = json.loads(file.read_text())
        change(kept)
        file.write_text(json.dumps(kept))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Client(NamedTuple):
    """One SDK client: which SDK, and which of its bindings."""

    language: Literal["py", "js"]
    generation: Generation
    binding: Literal["jsonrpc", "rest"]

    def __str__(self) -> str:
        return f"{self.language}-{self.generation}-{self.binding}"

    @property
    def driver(self) -> str:
        """The process that serves both bindings of an SDK."""
        return f"{self.language}-{self.generation}"

    @property
    def keeps_append(self) -> bool:
        """Whether it hands on `append`: one SDK loses it, so that every piece looks like a new artifact."""
        return str(self) != "js-v03-rest"

    @property
    def version(self) -> Literal["1.0", "0.3"]:
        """The version of A2A it speaks."""
        return "1.0" if self.generation == "v1" else "0.3"

    def said(self, words: str) -> str:
        """Give an outline as it looks with what this SDK loses left out."""
        return words if self.keeps_append else words.replace("+ ", " ")

    def text_after(self, events: list[dict[str, Any]]) -> str:
        """Give what the artifact `out` says after these events."""
        if self.keeps_append:
            return text_after(events)
        texts = [text_after([event]) for event in events if split(event)[0] in ("task", "artifact")]
        return "".join(texts)


CLIENTS = [
    Client(language, generation, binding)
    for language in ("py", "js")
    for generation in ("v1", "v03")
    for binding in ("jsonrpc", "rest")
]


def command_of(driver: str) -> list[str]:
    """Give the command line of a driver."""
    language, generation = driver.split("-")
    if language == "py":
        return [str(python_of(PYTHON_SDKS[generation])), "-m", f"a2a_rig.client_{generation}"]
    packages = str(node_modules_of(NODE_SDKS[generation]))
    return [node(), str(HERE / "driver.mjs"), str(HERE / f"client_{generation}.mjs"), packages]


class SdkError(Exception):
    """What an SDK raised, as its driver described it.

    Attributes:
        kind: the name of its class.
        code: the JSON-RPC code or HTTP status, where the SDK still knows it.
        message: its text.
        cursor: the last event id that passed by before it.
    """

    def __init__(self, kind: str, code: int | None, message: str, cursor: str) -> None:
        super().__init__(f"{kind} {code}: {message}")
        self.kind = kind
        self.code = code
        self.message = message
        self.cursor = cursor


class Call:
    """One call under way at a driver.

    Attributes:
        cursor: the last event id that passed by, known when the call has ended.
    """

    def __init__(self, driver: Driver, number: int) -> None:
        self._driver = driver
        self._number = number
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.cursor = ""

    def take(self, line: dict[str, Any]) -> None:
        """Take a line of the driver; from its thread."""
        # The loop of a test that has ended is closed, and nobody waits for the line.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._lines.put_nowait, line)

    async def next(self, timeout_s: float = ANSWER_S_MAX) -> dict[str, Any] | None:
        """Give the next event or the result, or None at the end.

        Raises:
            SdkError: the SDK raised.
            TimeoutError: nothing came.
        """
        async with asyncio.timeout(timeout_s):
            line = await self._lines.get()
        if "event" in line:
            event: dict[str, Any] = line["event"]
            return event
        self.cursor = line["cursor"]
        if "error" in line:
            raise SdkError(**line["error"], cursor=line["cursor"])
        return line.get("result")

    async def rest(self, timeout_s: float = ANSWER_S_MAX) -> list[dict[str, Any]]:
        """Give all events to the end.

        Raises:
            SdkError: the SDK raised.
            TimeoutError: nothing came for that long.
        """
        found = []
        while (event := await self.next(timeout_s)) is not None:
            found.append(event)
        return found

    async def leave(self) -> None:
        """Close the stream as a program that is no longer interested does, and wait until it is closed."""
        self._driver.write({"leave": self._number})
        try:
            await self.rest()
        except SdkError as error:
            self.cursor = error.cursor


class Driver:
    """One SDK in a process of its own; a context manager that starts and ends it.

    Args:
        name: which, for example `py-v1`.
        log: where what it complains about goes.
    """

    def __init__(self, name: str, log: Path) -> None:
        self._command = command_of(name)
        self._log = log
        self._calls: dict[int, Call] = {}
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes]

    async def call(self, do: str, url: str, binding: str = "jsonrpc", **fields: Any) -> Call:
        """Begin a call; see `driver.py` for the fields."""
        number = next(self._numbers)
        call = self._calls[number] = Call(self, number)
        self.write({"call": number, "do": do, "url": url, "binding": binding, **fields})
        return call

    async def ask(self, do: str, url: str, binding: str = "jsonrpc", **fields: Any) -> dict[str, Any]:
        """Make a call that is no stream, and give its answer.

        Raises:
            SdkError: the SDK raised.
        """
        answer = await (await self.call(do, url, binding, **fields)).next()
        assert answer is not None
        return answer

    def write(self, command: dict[str, Any]) -> None:
        """Write one command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            self._calls[said["call"]].take(said)

    def __enter__(self) -> Self:
        with self._log.open("ab") as errors:
            self._process = subprocess.Popen(
                self._command, env=environ(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )
        self._reading = threading.Thread(target=self._read)
        self._reading.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._reading.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
