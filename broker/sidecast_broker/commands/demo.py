"""`sidecast demo`: NATS, the broker and an A2A agent, each a process, and a client that gives it work.

Must not know how any of them works: they are started as a user would start them.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
from msgspec import Struct

from sidecast_broker import log
from sidecast_broker.commands.terminal import (
    BOLD,
    CYAN,
    DIM,
    GREEN,
    RED,
    YELLOW,
    Terminal,
    one_line,
    open_terminal,
)
from sidecast_broker.commands.watcher import decode_object, text_of
from sidecast_broker.embedded import EmbeddedFailed, embedded_nats, free_port, start_child, stop_child
from sidecast_broker.settings import ENV_PREFIX, Server

AGENT = "demo"
AGENT_MODULE = "sidecast_adapters.demo_agent"
"""Started by its name: broker and adapters meet only in schemas."""

CARD_PATH = "/.well-known/agent-card.json"
DEFAULT_FILE = "README.md"
LISTEN_S_MAX = 20.0
LINE_BYTES_MAX = 4 * 1024 * 1024
_NEEDED = ("a2a", "httpx", "uvicorn", "starlette")


class DemoFailed(Exception):  # noqa: N818 - named as the message reads
    """A part of the demo didn't start, or broke."""


class _Part(Struct, frozen=True):
    """A part of the demo that listens."""

    name: str
    process: asyncio.subprocess.Process
    url: str
    internal_url: str = ""


@contextlib.asynccontextmanager
async def _child(
    arguments: list[str], environ: dict[str, str], *, listening_on: int
) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamReader]]:
    """Run a Python module as a child; `listening_on` is the descriptor whose lines we read (1 or 2)."""
    pipe = asyncio.subprocess.PIPE
    process = await start_child(
        [sys.executable, *arguments],
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=pipe if listening_on == 1 else asyncio.subprocess.DEVNULL,
        stderr=pipe if listening_on == 2 else None,
        limit=LINE_BYTES_MAX,
    )
    output = process.stdout or process.stderr
    assert output is not None
    try:
        yield process, output
    finally:
        await stop_child(process)


async def _listening(
    output: asyncio.StreamReader, name: str, show: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Read lines of JSON until the one that says `listening`."""
    try:
        async with asyncio.timeout(LISTEN_S_MAX):
            while line := await output.readline():
                fields = decode_object(line)
                if fields.get("event") == "listening":
                    return fields
                show(fields or {"level": "error", "event": line.decode(errors="replace").strip()})
    except TimeoutError:
        raise DemoFailed(f"the {name} did not listen within {LISTEN_S_MAX:g} s") from None
    raise DemoFailed(f"the {name} ended before it listened")


async def _pass_on(output: asyncio.StreamReader, show: Callable[[dict[str, Any]], None]) -> None:
    while line := await output.readline():
        show(decode_object(line))


async def _while_running(work: Coroutine[Any, Any, None], *parts: _Part) -> None:
    """Do the work as long as the parts it needs are there.

    Raises:
        DemoFailed: one of them ended.
    """
    main = asyncio.create_task(work)
    ends = {asyncio.create_task(part.process.wait()): part.name for part in parts}
    try:
        await asyncio.wait([main, *ends], return_when=asyncio.FIRST_COMPLETED)
        for end, name in ends.items():
            if end.done():
                raise DemoFailed(f"the {name} ended with {end.result()}")
        await main
    finally:
        for task in (main, *ends):
            task.cancel()
        await asyncio.gather(main, *ends, return_exceptions=True)


class Demo:
    """One run of the demo: what it started, and what it tells about it."""

    def __init__(self, terminal: Terminal, notes: Terminal, file: Path, *, port: int, pace: float) -> None:
        """Make a run.

        Args:
            terminal: shows what happens.
            notes: shows what goes wrong.
            file: the text the agent works on.
            port: of the broker's public listener; 0 picks a free one.
            pace: multiplies the agent's pauses.
        """
        self._terminal = terminal
        self._notes = notes
        self._file = file
        self._port = port
        self._pace = pace

    async def run(self, tasks: int, *, stay: bool) -> None:
        """Start everything, have the agent do its tasks, and with `stay` keep serving until cancelled.

        Raises:
            DemoFailed: a part didn't start, or a task didn't complete.
            EmbeddedFailed: there is no NATS server.
        """
        # A run must not depend on what is set for another broker.
        environ = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
        async with contextlib.AsyncExitStack() as stack:
            nats_url = await stack.enter_async_context(embedded_nats())
            agent = await stack.enter_async_context(self._agent(nats_url, environ))
            broker = await stack.enter_async_context(self._broker(nats_url, agent, environ))
            self._introduce(nats_url, agent, broker)
            await _while_running(self._work(broker, tasks, stay=stay), broker, agent)

    async def _work(self, broker: _Part, tasks: int, *, stay: bool) -> None:
        completed = [await self._task(broker, number, tasks) for number in range(1, tasks + 1)]
        if not all(completed):
            raise DemoFailed(f"{completed.count(False)} of {tasks} tasks did not complete")
        if stay:
            terminal = self._terminal
            terminal.line()
            terminal.line("All tasks are over. They can still be watched: run a line from above again,")
            terminal.line("but the last of each: A2A subscribes only to what still runs.")
            terminal.line(terminal.style("Ctrl-C ends the demo.", DIM))
            await asyncio.Event().wait()

    @contextlib.asynccontextmanager
    async def _broker(self, nats_url: str, agent: _Part, environ: dict[str, str]) -> AsyncIterator[_Part]:
        port = free_port(self._port)
        if port != self._port:
            self._notes.line(f"Port {self._port} is taken: the broker gets a free one.")
        settings = {
            "SIDECAST_NATS_URL": nats_url,
            "SIDECAST_AGENT_NAME": AGENT,
            "SIDECAST_AGENT_URL": agent.url,
            "SIDECAST_SERVER_PORT": str(port),
            "SIDECAST_SERVER_INTERNAL_PORT": str(free_port(Server().internal_port) if port else 0),
            "SIDECAST_SERVER_LOG_FORMAT": "json",
        }
        arguments = ["-m", "sidecast_broker", "serve"]
        async with _child(arguments, environ | settings, listening_on=2) as (process, output):
            addresses = await _listening(output, "broker", self._show_log)
            reading = asyncio.create_task(_pass_on(output, self._show_log))
            try:
                yield _Part("broker", process, text_of(addresses, "url"), text_of(addresses, "internal_url"))
            finally:
                reading.cancel()

    @contextlib.asynccontextmanager
    async def _agent(self, nats_url: str, environ: dict[str, str]) -> AsyncIterator[_Part]:
        arguments = ["-m", AGENT_MODULE, f"--nats={nats_url}", f"--agent={AGENT}", f"--pace={self._pace}"]
        async with _child([*arguments, "--", str(self._file)], environ, listening_on=1) as (process, output):
            address = await _listening(output, "agent", self._show_log)
            yield _Part("agent", process, text_of(address, "url"))

    def _show_log(self, fields: dict[str, Any]) -> None:
        level = text_of(fields, "level")
        if level in ("warning", "error", "critical"):
            rest = {
                name: value for name, value in fields.items() if name not in ("level", "event", "timestamp")
            }
            details = " ".join(f"{name}={json.dumps(value, default=str)}" for name, value in rest.items())
            text = one_line(f"{level}: {text_of(fields, 'event')} {details}", 400)
            self._notes.line(self._notes.style(text, YELLOW))

    def _introduce(self, nats_url: str, agent: _Part, broker: _Part) -> None:
        terminal = self._terminal
        version = importlib.metadata.version("a2a-sdk")
        terminal.line(terminal.style(f"Sidecast demo: an A2A agent reports on {self._file.name}", BOLD))
        for name, address, what in (
            ("NATS", nats_url, "embedded, JetStream in a temporary directory"),
            ("agent", agent.url, f"a2a-sdk {version}, publishing to NATS"),
            ("broker", broker.url, f"streams; health and metrics on {broker.internal_url}"),
        ):
            terminal.line(f"  {name:<7} {address:<26} {terminal.style(what, DIM)}")
        terminal.line(f"  {'A2A':<7} {broker.url}{CARD_PATH}")

    async def _task(self, broker: _Part, number: int, total: int) -> bool:
        """Give the agent one task through the broker and follow it to its end; tell whether it completed."""
        import httpx
        from a2a.client.client import ClientConfig
        from a2a.client.client_factory import ClientFactory
        from a2a.types.a2a_pb2 import Message, Part, Role, SendMessageRequest, TaskState
        from a2a.utils.errors import A2AError

        message = Message(
            role=Role.ROLE_USER,
            message_id=uuid.uuid4().hex,
            parts=[Part(text=f"Write a report about {self._file.name}")],
        )
        began = time.monotonic()
        events = 0
        task_id = ""
        state = TaskState.TASK_STATE_UNSPECIFIED
        try:
            async with httpx.AsyncClient(timeout=httpx.Timeout(30, read=None)) as http:
                client = await ClientFactory(ClientConfig(httpx_client=http)).create_from_url(broker.url)
                async for response in client.send_message(SendMessageRequest(message=message)):
                    events += 1
                    update = getattr(response, response.WhichOneof("payload"))
                    if not task_id:
                        task_id = getattr(update, "task_id", "") or update.id
                        self._invite(broker, task_id, number, total)
                    if hasattr(update, "status"):
                        state = update.status.state
                        self._follow(update.status)
        except (A2AError, httpx.HTTPError) as error:
            raise DemoFailed(f"the task broke off: {one_line(str(error)) or type(error).__name__}") from error
        self._terminal.status("")
        name = TaskState.Name(state).removeprefix("TASK_STATE_").lower()
        line = f"  {name} after {time.monotonic() - began:.1f} s, {events} events"
        completed: bool = state == TaskState.TASK_STATE_COMPLETED
        self._terminal.line(self._terminal.style(line, GREEN if completed else RED))
        return completed

    def _invite(self, broker: _Part, task_id: str, number: int, total: int) -> None:
        terminal = self._terminal
        task = quote(task_id, safe="")
        url = "" if broker.url == f"http://{Server().host}:{Server().port}" else f" --url {broker.url}"
        terminal.line()
        terminal.line(terminal.style(f"Task {number} of {total}: watch it from another terminal", BOLD))
        terminal.line(terminal.style(f"  {broker.url}/ui/?task={task}", CYAN))
        terminal.line(terminal.style(f"  curl -N {broker.url}/tasks/{task}/events", CYAN))
        terminal.line(terminal.style(f"  {_own_command()} tail {task} --visualize{url}", CYAN))
        # A header, not `?A2A-Version=1.0`: a question mark is a pattern to some shells.
        a2a = f"curl -N -H 'A2A-Version: 1.0' {broker.url}/tasks/{task}:subscribe"
        terminal.line(terminal.style(f"  {a2a}", CYAN))

    def _follow(self, status: Any) -> None:
        text = "".join(part.text for part in status.message.parts)
        if text:
            self._terminal.status(one_line(f"  {text}"))


def _own_command() -> str:
    """Give what a shell finds this program by: its name where that is on the path, else where it lies."""
    if shutil.which("sidecast"):
        return "sidecast"
    return os.path.relpath(Path(sys.executable).with_name("sidecast"))


async def _until_signal(demo: Demo, tasks: int, *, stay: bool) -> bool:
    """Run the demo; give False when a signal ended it."""
    work = asyncio.create_task(demo.run(tasks, stay=stay))
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        # A second one must not break off the stopping of the children, which has its own time limit.
        if not work.cancelling():
            work.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)
    try:
        await work
    except asyncio.CancelledError:
        return False
    return True


@click.command("demo")
@click.argument(
    "file", required=False, type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
)
@click.option(
    "--tasks", type=click.IntRange(1, 1000), default=3, show_default=True, help="Tasks, one after the other."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8480,
    show_default=True,
    help="Of the broker; 0 picks one.",
)
@click.option(
    "--pace",
    type=click.FloatRange(0, 100),
    default=1.0,
    show_default=True,
    help="Multiplies the agent's pauses.",
)
@click.option("--exit", "leave", is_flag=True, help="End after the last task.")
def command(file: Path | None, tasks: int, port: int, pace: float, leave: bool) -> None:
    """Watch a real A2A agent write a report about FILE (README.md).

    Starts a NATS server, the agent and the broker on this machine, gives the agent its tasks over A2A through
    the broker, and prints how to watch each. Ctrl-C stops everything.
    """
    if file is None:
        file = Path(DEFAULT_FILE)
        if not file.is_file():
            raise click.UsageError(f"there is no {DEFAULT_FILE} here: name a text file, sidecast demo FILE")
    if any(importlib.util.find_spec(module) is None for module in _NEEDED):
        raise click.ClickException('the demo agent needs a2a-sdk: pip install "sidecast[demo]"')
    log.configure("warning", "console")
    terminal = open_terminal(sys.stdout)
    demo = Demo(terminal, open_terminal(sys.stderr), file.resolve(), port=port, pace=pace)
    try:
        ended = asyncio.run(_until_signal(demo, tasks, stay=not leave))
    except (DemoFailed, EmbeddedFailed) as error:
        terminal.status("")
        raise click.ClickException(str(error)) from error
    if not ended:
        terminal.status("")
        terminal.line()
        terminal.line("Stopped.")
