"""A real A2A agent to watch: it reads a text file and writes a report about it.

Must not know who watches: what it says goes to a2a-sdk's event queue, and one line hands that to Sidecast.

    python -m sidecast_adapters.demo_agent --nats nats://127.0.0.1:4222 README.md

prints one line of JSON with its address as soon as it listens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import uvicorn
from a2a.helpers.proto_helpers import new_task
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types.a2a_pb2 import (
    AgentCapabilities,
    AgentCard,
    AgentExtension,
    AgentInterface,
    AgentSkill,
    Part,
    TaskState,
)
from starlette.applications import Starlette

from sidecast_adapters import Publisher
from sidecast_adapters.a2a import publishing
from sidecast_schemas.events import ACTIVITY

FILE_BYTES_MAX = 4 * 1024 * 1024
READS = 16
"""Pieces the file is read in; a longer file has longer pieces."""
PIECE_CHARS = 60

# Pauses add up to about 25 s at pace 1: long enough to watch, to leave, and to come back.
READ_PAUSE_S = 0.4
ANALYSE_PAUSE_S = 0.9
WRITE_S = 12.0

STEPS = ("read", "analyse", "write report")

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_FENCE = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#{1,6})[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
_NO_PROSE = re.compile(r"^\s*(#|\||[-*+] |\d+[.)] |>|<|\[)")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_COMMON_WORDS = frozenset(
    re.split(
        r"\s+",
        """about after all also and any are because been before being between both but can could does each
        every for from had has have her here his how into its just like made make many may more most
        much must not now off one only onto other our out over own same see should since some such than
        that the their them then there these they this those through too two under until upon use used
        very was were what when where which while who why will with without would you your""",
    )
)
_WORDS_PER_MINUTE = 230


def pieces(text: str, count: int) -> list[str]:
    """Cut a text into at most `count` groups of paragraphs of about the same size."""
    paragraphs = re.split(r"(?<=\n)\s*\n", text)
    size = max(1, -(-len(text) // count))
    groups = [""]
    for paragraph in paragraphs:
        if groups[-1] and len(groups[-1]) + len(paragraph) > size and len(groups) < count:
            groups.append("")
        groups[-1] += paragraph + "\n"
    return groups


class Findings:
    """What a text consists of, piece by piece."""

    def __init__(self) -> None:
        self.headings: list[tuple[int, str]] = []
        self.words = 0
        self.terms: Counter[str] = Counter()
        self.sentences: list[str] = []
        self.code_blocks = 0
        self.links = 0

    def add(self, text: str) -> None:
        """Take in a piece of whole paragraphs."""
        self.code_blocks += len(_FENCE.findall(text))
        text = _FENCE.sub("", text)
        self.links += len(_LINK.findall(text))
        text = _LINK.sub(r"\1", text)
        self.headings += [(len(level), title) for level, title in _HEADING.findall(text)]
        words = _WORD.findall(text)
        self.words += len(words)
        self.terms.update(
            word.lower() for word in words if len(word) > 2 and word.lower() not in _COMMON_WORDS
        )
        for paragraph in re.split(r"\n\s*\n", text):
            prose = " ".join(line.strip() for line in paragraph.splitlines() if not _NO_PROSE.match(line))
            self.sentences += [part for part in re.split(r"(?<=[.!?])\s+", prose) if _WORD.search(part)]

    def longest_sentences(self, count: int) -> list[tuple[int, str]]:
        """Give the longest sentences, each with its number of words."""
        counted = [(len(_WORD.findall(sentence)), sentence) for sentence in dict.fromkeys(self.sentences)]
        return sorted(counted, key=lambda item: -item[0])[:count]


def report(name: str, findings: Findings) -> str:
    """Write the report as Markdown."""
    return "\n".join(_report_lines(name, findings)) + "\n"


def _report_lines(name: str, findings: Findings) -> Iterator[str]:
    minutes = max(1, round(findings.words / _WORDS_PER_MINUTE))
    sentences = len(findings.sentences)
    yield f"# Report on {name}\n"
    yield (
        f"{findings.words:,} words in {sentences:,} sentences, about {minutes} min to read; "
        f"{len(findings.headings)} headings, {findings.links} links, {findings.code_blocks} code blocks.\n"
    )
    yield "## Structure\n"
    for level, title in findings.headings[:20]:
        yield f"{'  ' * (level - 1)}- {title}"
    if not findings.headings:
        yield "The text has no headings."
    elif len(findings.headings) > 20:
        yield f"- and {len(findings.headings) - 20} more"
    yield "\n## Most frequent terms\n"
    yield "| term | times | of 1,000 words |"
    yield "| --- | --- | --- |"
    for term, count in findings.terms.most_common(10):
        yield f"| {term} | {count} | {1000 * count / max(1, findings.words):.1f} |"
    yield "\n## Longest sentences\n"
    for words, sentence in findings.longest_sentences(3):
        yield f"- {words} words: “{sentence[:400]}”"
    average = findings.words / max(1, sentences)
    yield "\n## In short\n"
    yield _verdict(findings, average)


def _verdict(findings: Findings, average: float) -> str:
    terms = [term for term, _ in findings.terms.most_common(3)]
    about = f"It is mostly about {', '.join(terms)}. " if terms else ""
    how = "short" if average < 14 else "of usual length" if average < 24 else "long"
    return f"{about}Sentences are {how}, with {average:.0f} words on average."


class _Work:
    """Tells about one task: steps with durations, progress, thoughts, and the report as it grows."""

    def __init__(self, updater: TaskUpdater, pace: float) -> None:
        self._updater = updater
        self._pace = pace

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds * self._pace)

    async def tell(self, text: str, **activity: Any) -> None:
        message = self._updater.new_agent_message([Part(text=text)]) if text else None
        await self._updater.update_status(
            TaskState.TASK_STATE_WORKING, message=message, metadata={ACTIVITY: activity}
        )

    async def progress(self, done: float, text: str) -> None:
        await self.tell(text, kind="progress", progress=round(done, 3))

    async def think(self, text: str) -> None:
        await self.tell(text, kind="thought")

    @asynccontextmanager
    async def step(self, title: str) -> AsyncIterator[None]:
        index = STEPS.index(title)
        step = {"id": f"step-{index + 1}", "title": title, "index": index, "total": len(STEPS)}
        await self.tell(title, kind="step", step={**step, "state": "running"})
        began = time.monotonic()
        state = "failed"
        try:
            yield
            state = "done"
        finally:
            duration_ms = round((time.monotonic() - began) * 1000, 1)
            await self.tell(title, kind="step", step={**step, "state": state, "duration_ms": duration_ms})

    async def write(self, name: str, text: str) -> None:
        chunks = [text[at : at + PIECE_CHARS] for at in range(0, len(text), PIECE_CHARS)]
        for number, chunk in enumerate(chunks, 1):
            await self._updater.add_artifact(
                [Part(text=chunk, media_type="text/markdown")],
                artifact_id="report",
                name=name,
                append=number > 1,
                last_chunk=number == len(chunks),
            )
            if number % 8 == 0:
                await self.progress(
                    0.6 + 0.4 * number / len(chunks), f"wrote {number} of {len(chunks)} pieces"
                )
            await self.pause(WRITE_S / len(chunks))


class ReportExecutor(AgentExecutor):  # type: ignore[misc]
    """Writes a report about the file a message names, or about the first one."""

    def __init__(self, files: list[Path], pace: float) -> None:
        """Make an executor.

        Args:
            files: the only files it reads, whatever a message says.
            pace: multiplies all pauses; 0 works without any.
        """
        self._files = files
        self._pace = pace

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Read, analyse, write."""
        if context.current_task is None:
            await event_queue.enqueue_event(
                new_task(
                    context.task_id,
                    context.context_id,
                    TaskState.TASK_STATE_SUBMITTED,
                    history=[context.message],
                )
            )
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        asked = context.get_user_input()
        file = next((file for file in self._files if file.name in asked), self._files[0])
        try:
            text = await asyncio.to_thread(read_text, file)
        except (OSError, UnicodeDecodeError) as error:
            reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
            await updater.failed(updater.new_agent_message([Part(text=f"Can't read {file.name}: {reason}")]))
            return
        summary = await self._report(_Work(updater, self._pace), file.name, text)
        await updater.complete(updater.new_agent_message([Part(text=summary)]))

    async def _report(self, work: _Work, name: str, text: str) -> str:
        findings = Findings()
        await work.progress(0, f"Opened {name}: {len(text):,} characters")
        async with work.step("read"):
            parts = pieces(text, READS)
            for number, part in enumerate(parts, 1):
                findings.add(part)
                await work.pause(READ_PAUSE_S)
                await work.progress(0.4 * number / len(parts), f"read {number} of {len(parts)} pieces")
        async with work.step("analyse"):
            for number, thought in enumerate(thoughts(findings), 1):
                await work.think(thought)
                await work.pause(ANALYSE_PAUSE_S)
                await work.progress(0.4 + 0.05 * number, "weighing what was read")
        async with work.step("write report"):
            await work.write(f"report-{Path(name).stem}.md", report(name, findings))
        return f"Read {findings.words:,} words of {name} and wrote a report."

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """End the task as canceled."""
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


def thoughts(findings: Findings) -> Iterator[str]:
    """Say what stands out in a text."""
    headings = len(findings.headings)
    if headings:
        each = findings.words // headings
        yield f"{headings} headings over {findings.words:,} words: a section has about {each} words."
    else:
        yield f"{findings.words:,} words without a heading: I'll have to find the subject from the terms."
    if findings.terms:
        term, count = findings.terms.most_common(1)[0]
        yield f"“{term}” comes up {count} times, more often than anything else that carries meaning."
    for words, sentence in findings.longest_sentences(1):
        yield f"The longest sentence has {words} words. It begins: “{sentence[:60]}”. Worth quoting."
    if findings.code_blocks:
        yield f"{findings.code_blocks} code blocks: I leave them out of the word counts."


def read_text(file: Path) -> str:
    """Read the beginning of a file, at most `FILE_BYTES_MAX` bytes.

    Raises:
        OSError: it can't be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    with file.open("rb") as stream:
        content = stream.read(FILE_BYTES_MAX + 1)
    if len(content) > FILE_BYTES_MAX:
        # What the limit cut may have been the middle of a character.
        return content[:FILE_BYTES_MAX].decode(errors="ignore")
    return content.decode()


def agent_card(url: str) -> AgentCard:
    """Give the card of the agent at that address."""
    return AgentCard(
        name="Report writer",
        description="Reads a text file and writes a report about it.",
        version="1.0.0",
        supported_interfaces=[AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version="1.0")],
        capabilities=AgentCapabilities(
            streaming=True,
            extensions=[
                AgentExtension(uri=ACTIVITY, description="Steps, progress and thoughts as they happen")
            ],
        ),
        default_input_modes=["text/plain"],
        default_output_modes=["text/markdown"],
        skills=[
            AgentSkill(
                id="report",
                name="Report",
                description="Structure, frequent terms and long sentences of a text.",
                tags=["text"],
            )
        ],
    )


class _Server(uvicorn.Server):  # type: ignore[misc]
    """Leaves signals to us: uvicorn ends the process with them, before the publisher has sent everything."""

    def capture_signals(self) -> AbstractContextManager[None]:
        return nullcontext()


async def serve(options: argparse.Namespace) -> None:
    """Serve the agent until SIGTERM or Ctrl-C."""
    listener = socket.create_server((options.host, options.port))
    url = f"http://{options.host}:{listener.getsockname()[1]}/"
    card = agent_card(url)
    async with Publisher(options.nats, agent=options.agent, tenant=options.tenant) as publisher:
        handler = DefaultRequestHandler(
            agent_executor=publishing(ReportExecutor(options.files, options.pace), publisher),
            task_store=InMemoryTaskStore(),
            agent_card=card,
        )
        routes = [*create_agent_card_routes(card), *create_jsonrpc_routes(handler, "/")]
        config = uvicorn.Config(Starlette(routes=routes), log_level="warning", timeout_graceful_shutdown=1)
        # Connections wait in the socket's queue until uvicorn takes them.
        sys.stdout.write(json.dumps({"event": "listening", "url": url}) + "\n")
        sys.stdout.flush()
        server = _Server(config)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, setattr, server, "should_exit", True)
        await server.serve(sockets=[listener])


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="sidecast_adapters.demo_agent", description=__doc__.splitlines()[0])
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="text to report about")
    parser.add_argument("--nats", default="nats://127.0.0.1:4222", help="NATS server to publish to")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--agent", default="demo", help="name to publish under")
    parser.add_argument("--tenant", default="", help="tenant to publish under")
    parser.add_argument("--pace", type=float, default=1.0, help="multiplies all pauses; 0 works without any")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
