from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import unused_port
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.__main__ import main
from sidecast_broker.commands.display import Display, JsonLines, Lines, Visual, duration, percent, step_line
from sidecast_broker.commands.event_source import RETRY_MS_MAX, EventSourceParser, ServerSentEvent
from sidecast_broker.commands.tail import follow
from sidecast_broker.commands.terminal import Terminal, one_line, printable, printable_json
from sidecast_broker.commands.watcher import Watcher, WatchRefused

TIMEOUT_S = 10.0

# --- server-sent events


def parse(*chunks: bytes) -> list[tuple[str, str, str]]:
    parser = EventSourceParser()
    return [(event.type, event.data, event.id) for chunk in chunks for event in parser.feed(chunk)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [("message", "a", "")]),
        (b"data:a\n\n", [("message", "a", "")]),
        (b"data:  a\n\n", [("message", " a", "")]),
        (b"data: a\ndata: b\n\n", [("message", "a\nb", "")]),
        (b"data: a\ndata\ndata:\n\n", [("message", "a\n\n", "")]),
        (b"data\n\n", [("message", "", "")]),
        (b"event: x\ndata: a\n\ndata: b\n\n", [("x", "a", ""), ("message", "b", "")]),
        (b"event: x\n\ndata: b\n\n", [("message", "b", "")]),
        (b"event: x\nevent:\ndata: b\n\n", [("message", "b", "")]),
        (b"id: 1\ndata: a\n\ndata: b\n\n", [("message", "a", "1"), ("message", "b", "1")]),
        (b"id: 1\n\ndata: b\n\n", [("message", "b", "1")]),
        (b"id: 1\ndata: a\n\nid\ndata: b\n\n", [("message", "a", "1"), ("message", "b", "")]),
        (b"id: 1\ndata: a\n\nid: 2\x00\ndata: b\n\n", [("message", "a", "1"), ("message", "b", "1")]),
        (b": comment\n:\ndata: a\n:\n\n", [("message", "a", "")]),
        (b"unknown: x\n data: x\nDATA: x\ndata: a\n\n", [("message", "a", "")]),
        (b"data: a:b: c\n\n", [("message", "a:b: c", "")]),
        (
            b"data: a\r\rdata: b\r\n\r\ndata: c\n\r",
            [("message", "a", ""), ("message", "b", ""), ("message", "c", "")],
        ),
        (b"\xef\xbb\xbfdata: a\n\n", [("message", "a", "")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
        (b"data: \xef\xbb\xbfa\n\n", [("message", "\ufeffa", "")]),
        (b"data: \xff\n\n", [("message", "\ufffd", "")]),
        (b"data: a\x0bb\x0cc\xc2\x85d\xe2\x80\xa8e\n\n", [("message", "a\x0bb\x0cc\x85d\u2028e", "")]),
        (b"data: unfinished\n", []),
        (b"data: unfinished", []),
        (b"\n\n\n", []),
        (b"", []),
    ],
)
def test_events_as_the_standard_parses_them(stream: bytes, events: list[tuple[str, str, str]]) -> None:
    assert parse(stream) == events
    assert parse(*(stream[at : at + 1] for at in range(len(stream)))) == events


PIECES = st.sampled_from(
    [
        *(b"data", b"event", b"id", b"retry", b":", b" ", b"x", b"7", b"\x00"),
        *(b"\n", b"\r", b"\r\n", b"\n\n"),
        *("é".encode(), "\U0001f6df".encode(), b"\xef\xbb\xbf", b"\xff", b"\xe2\x80"),
    ]
)


@given(st.lists(PIECES, max_size=60).map(b"".join), st.data())
def test_where_the_bytes_are_cut_makes_no_difference(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole, pieces = EventSourceParser(), EventSourceParser()
    events = whole.feed(stream)
    assert [event for chunk in chunks for event in pieces.feed(chunk)] == events
    assert (pieces.last_event_id, pieces.retry_ms) == (whole.last_event_id, whole.retry_ms)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=12)


@given(
    st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=3), TEXT), max_size=5),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_what_is_framed_is_read_back(events: list[tuple[str, list[str], str]], end: str) -> None:
    text = "".join(
        f"event: {kind}{end}id: {id_}{end}" + "".join(f"data: {line}{end}" for line in data) + end
        for kind, data, id_ in events
    )
    expected = [(kind or "message", "\n".join(data), id_) for kind, data, id_ in events]
    assert parse(text.encode()) == expected


@pytest.mark.parametrize(
    ("line", "retry_ms"),
    [
        (b"retry: 250", 250),
        (b"retry:0", 0),
        (b"retry: 1e3", None),
        (b"retry: -1", None),
        (b"retry: ", None),
        (b"retry", None),
        ("retry: \u0663".encode(), None),
        (b"retry: " + b"9" * 5000, RETRY_MS_MAX),
    ],
)
def test_reconnection_time(line: bytes, retry_ms: int | None) -> None:
    parser = EventSourceParser()
    parser.feed(line + b"\n")
    assert parser.retry_ms == retry_ms


def test_a_new_response_drops_what_was_unfinished_and_keeps_the_position() -> None:
    parser = EventSourceParser()
    assert len(parser.feed(b"retry: 5\nid: 1\ndata: a\n\nid: 2\nevent: x\ndata: b\xc3")) == 1
    parser.restart()
    assert parser.feed(b"\n\ndata: c\n\n") == [ServerSentEvent("message", "c", "1")]
    assert (parser.last_event_id, parser.retry_ms) == ("1", 5)


# --- terminals

HOSTILE = "a\x1b[2J\x1b]0;owned\x07b\x9b31mc\r\x00\x7f\x08d\ne\tf"


def test_text_of_others_cannot_control_the_terminal() -> None:
    assert printable(HOSTILE) == "a[2J]0;ownedb31mcd\ne\tf"
    assert one_line(HOSTILE) == "a[2J]0;ownedb31mcd e f"
    assert printable_json('{"text":"\x9b31m\x7f"}') == '{"text":"\\u009b31m\\u007f"}'


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_printable_text_keeps_everything_but_controls(text: str) -> None:
    kept = printable(text)
    assert not any((ord(char) < 32 and char not in "\n\t") or 127 <= ord(char) < 160 for char in kept)
    assert [char for char in text if char.isprintable()] == [char for char in kept if char.isprintable()]


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("output", "environ", "interactive", "colored"),
    [
        (Screen(), {}, True, True),
        (Screen(), {"NO_COLOR": "1"}, True, False),
        (Screen(), {"NO_COLOR": ""}, True, True),
        (Screen(), {"TERM": "dumb"}, False, False),
        (io.StringIO(), {}, False, False),
    ],
)
def test_what_a_terminal_can_do(
    output: io.StringIO, environ: dict[str, str], interactive: bool, colored: bool
) -> None:
    terminal = Terminal(output, environ)
    assert (terminal.interactive, terminal.colored) == (interactive, colored)
    assert terminal.style("x", "1") == ("\x1b[1mx\x1b[0m" if colored else "x")


def shown(text: str) -> list[str]:
    """Give what a terminal shows at the end of the output: `\\r\\x1b[K` empties a line."""
    return [line.rpartition("\r\x1b[K")[2] for line in text.split("\n")]


def test_the_status_line_stays_below_and_never_mixes_with_text() -> None:
    screen = Screen()
    terminal = Terminal(screen, {"NO_COLOR": "1"})
    terminal.status("10 %")
    terminal.write("Hello, ")
    assert shown(screen.getvalue()) == ["Hello, "]
    terminal.status("20 %")
    assert shown(screen.getvalue()) == ["Hello, "]
    terminal.write("world\n")
    assert shown(screen.getvalue()) == ["Hello, world", "20 %"]
    terminal.line("next")
    assert shown(screen.getvalue()) == ["Hello, world", "next", "20 %"]
    terminal.status("")
    assert shown(screen.getvalue()) == ["Hello, world", "next", ""]


# --- displays


def event(kind: str, **fields: Any) -> ServerSentEvent:
    data = {"type": kind, "taskId": "t", "at": "2026-11-21T07:00:01.250Z", **fields}
    return ServerSentEvent(kind, json.dumps(data), "e-1")


def display(
    kind: Callable[[Terminal, Terminal], Display], *events: ServerSentEvent, tty: bool = False
) -> str:
    output = Screen() if tty else io.StringIO()
    shows = kind(Terminal(output, {}), Terminal(io.StringIO(), {}))
    for each in events:
        shows.show(each)
    return output.getvalue()


STEP = {"id": "s1", "title": "read", "state": "done", "index": 0, "total": 3, "duration_ms": 1234}
WORK = [
    event("stream.open", mode="snapshot", heartbeat_s=15, retry_ms=1000),
    event(
        "task.snapshot",
        task={"id": "t", "artifacts": []},
        state="working",
        progress=0.1,
        steps=[],
        partial=False,
    ),
    event("task.status", state="working", text="Reading"),
    event("task.step", step=STEP | {"state": "running", "duration_ms": None}),
    event("task.progress", progress=0.35, text="chunk 3 of 8"),
    event("task.thought", text="Hm."),
    event("task.step", step=STEP),
    event("task.artifact", artifactId="a", name="report.md", text="# Find", append=False),
    event("task.artifact", artifactId="a", name="report.md", text="ings\n", append=True),
    event("task.error", code="E1", text="oops", recoverable=True),
    event("stream.gap", reason="slow", requested="e-1", oldest="e-5"),
    event("task.status", state="completed", text="", final=True),
    event("stream.end", state="completed", reason="terminal"),
]


def test_lines_are_one_per_event() -> None:
    lines = display(Lines, *WORK).splitlines()
    assert len(lines) == len(WORK)
    assert lines[2].split() == ["07:00:01", "status", "working", "Reading"]
    assert lines[4].split() == ["07:00:01", "progress", "35%", "chunk", "3", "of", "8"]
    assert lines[6].split() == ["07:00:01", "step", "✓", "1/3", "read", "done", "1.2", "s"]
    assert lines[7].split() == ["07:00:01", "artifact", "report.md:", "#", "Find"]
    assert "events are missing here" in lines[10]
    assert lines[12].split() == ["07:00:01", "stream.end", "completed", "terminal"]


def test_json_lines_are_the_data_as_it_came() -> None:
    assert [json.loads(line) for line in display(JsonLines, *WORK).splitlines()] == [
        json.loads(each.data) for each in WORK
    ]


def test_visual_types_out_text_and_shows_steps_and_progress() -> None:
    text = display(Visual, *WORK)
    assert "── report.md ──\n# Findings\n" in text
    assert "[████████░░░░░░░░░░░░░░░░] 35% chunk 3 of 8\n" in text
    assert "▸ 1/3 read running\n" in text
    assert "✓ 1/3 read done 1.2 s\n" in text
    assert "Hm.\n" in text
    assert "events are missing here (this client was too slow)" in text
    assert text.endswith("  ✓ 1/3 read done 1.2 s\n  1 step, 1.2 s\n■ completed terminal\n")


def test_visual_shows_what_a_snapshot_holds() -> None:
    artifact = {"artifactId": "a", "name": "report.md", "parts": [{"text": "# Find"}, {"data": 1}]}
    text = display(
        Visual,
        event("task.snapshot", task={"artifacts": [artifact]}, state="working", progress=0.5, steps=[STEP]),
        event("task.artifact", artifactId="a", text="ings", append=True),
        event("task.step", step=STEP),
    )
    assert "● working\n✓ 1/3 read done 1.2 s\n── report.md ──\n# Find" in text
    assert text.count("read done") == 1
    assert "ings" in text


def test_only_a_terminal_gets_control_codes() -> None:
    for kind in (Lines, Visual, JsonLines):
        assert "\x1b" not in display(kind, *WORK)
        assert "\r" not in display(kind, *WORK)
    assert "\x1b" in display(Visual, *WORK, tty=True)
    assert "\x1b" in display(Lines, *WORK, tty=True)


KINDS = sorted(
    {each.type for each in WORK}
    | {"task.message", "task.debug", "task.batch", "nonsense", "stream.lag", "show"}
)
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.just(HOSTILE) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["text", "parts", "id", "artifacts", "duration_ms", "state", "index"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
FIELDS = [
    "at",
    "state",
    "text",
    "step",
    "steps",
    "task",
    "message",
    "parts",
    "progress",
    "artifactId",
    "name",
    "append",
]
FIELDS += ["reason", "code", "component", "final", "mode", "partial"]


@given(
    st.lists(
        st.tuples(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(FIELDS), ODD, max_size=6)),
        max_size=6,
    ),
    st.sampled_from([Lines, Visual, JsonLines]),
)
def test_no_event_stops_or_controls_a_display(events: list[tuple[str, dict[str, Any]]], kind: Any) -> None:
    text = display(kind, *(ServerSentEvent(name, json.dumps(fields), "") for name, fields in events))
    assert printable(text) == text


@pytest.mark.parametrize("data", ["", "no json", "[]", "1", '"\x1b[2J"', "{" * 100_000, '{"text":"\\ud800"}'])
@pytest.mark.parametrize("kind", [Lines, Visual, JsonLines])
def test_data_that_is_no_object_is_shown_as_far_as_it_can_be(kind: Any, data: str) -> None:
    for name in KINDS:
        text = display(kind, ServerSentEvent(name, data, ""))
        assert printable(text) == text


def test_an_event_name_cannot_control_the_terminal() -> None:
    assert "\x1b" not in display(Lines, ServerSentEvent("\x1b[2J", "{}", ""))


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0.0 s"),
        (1234, "1.2 s"),
        (59_949, "59.9 s"),
        (60_000, "1 min 0 s"),
        (-1, ""),
        ("1", ""),
        (None, ""),
    ],
)
def test_durations(milliseconds: Any, text: str) -> None:
    assert duration(milliseconds) == text


@pytest.mark.parametrize(
    ("progress", "text"), [(0, "0%"), (0.355, "36%"), (1, "100%"), (1.5, ""), ("x", ""), (float("nan"), "")]
)
def test_percentages(progress: Any, text: str) -> None:
    assert percent(progress) == text


def test_a_step_without_a_place_or_a_title() -> None:
    assert step_line({"id": "s"}) == "▸ s running"


# --- following a task over HTTP


def frame(kind: str, id_: int | None = None, **fields: Any) -> bytes:
    head = f"id: e-{id_}\n" if id_ is not None else ""
    return f"{head}event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


OPEN = b"retry: 50\n" + frame("stream.open", mode="snapshot", heartbeat_s=15, retry_ms=50)
END = frame("stream.end", state="completed", reason="terminal")

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Broker:
    """A small server that gives the answers it was told to, one after the other.

    Attributes:
        requests: method, raw path and query, and headers of every request.
    """

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self._app = web.Application()
        self._app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(self._app, handler_cancellation=True, shutdown_timeout=0.1)
        self.port = unused_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.raw_path, dict(request.headers)))
        return await self.answers.pop(0)(request)

    def last_event_ids(self) -> list[str | None]:
        return [headers.get("Last-Event-ID") for _, headers in self.requests]


def stream(*chunks: bytes, drop: bool = False, hold: bool = False) -> Answer:
    """Answer with an event stream that ends, breaks off in the middle (`drop`), or falls silent (`hold`)."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if hold:
            await asyncio.Event().wait()
        if drop:
            assert request.transport is not None
            request.transport.close()
        return response

    return answer


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=code, body=body or None, headers=named)

    return answer


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    broker = Broker()
    await broker.start()
    yield broker
    await broker.stop()


class Watch:
    """Collects what a watcher gives, and the pauses it makes, which take no time."""

    def __init__(
        self,
        broker: Broker,
        task: str = "t",
        params: dict[str, str] | None = None,
        before_attempt: dict[int, Callable[[], Awaitable[None]]] | None = None,
    ) -> None:
        self.notes: list[str] = []
        self.pauses: list[float] = []
        self.events: list[ServerSentEvent] = []
        self._broker = broker
        self._task = task
        self._params = params
        self._before_attempt = before_attempt or {}

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if act := self._before_attempt.get(len(self.pauses)):
            await act()

    async def run(self) -> Watch:
        async with aiohttp.ClientSession() as session, asyncio.timeout(TIMEOUT_S):
            self.watcher = Watcher(
                session,
                self._broker.url,
                self._task,
                params=self._params,
                note=self.notes.append,
                pause=self._pause,
                jitter=lambda _, longest: longest,
            )
            async for each in self.watcher.events():
                self.events.append(each)
        return self

    @property
    def types(self) -> list[str]:
        return [each.type for each in self.events]


async def test_a_stream_is_read_to_its_end(broker: Broker) -> None:
    broker.answers = [stream(OPEN, frame("task.status", 1, state="working"), END)]
    watch = await Watch(broker).run()
    assert watch.types == ["stream.open", "task.status", "stream.end"]
    assert (watch.notes, watch.pauses) == ([], [])


async def test_a_dropped_stream_goes_on_behind_the_last_event(broker: Broker) -> None:
    broker.answers = [
        stream(OPEN, frame("task.snapshot", 4), frame("task.status", 5), b"id: e-6\ndata: half", drop=True),
        stream(OPEN, frame("task.status", 6)),  # EOF without stream.end
        stream(OPEN, frame("task.status", 7), END),
    ]
    watch = await Watch(broker).run()
    assert broker.last_event_ids() == [None, "e-5", "e-6"]
    assert [each.id for each in watch.events if each.type.startswith("task.")] == ["e-4", "e-5", "e-6", "e-7"]
    assert watch.pauses == [0.05, 0.05]
    assert "reconnecting in 0.1 s behind e-5" in watch.notes[0]


async def test_silence_longer_than_three_heartbeats_is_a_drop(broker: Broker) -> None:
    opening = frame("stream.open", mode="snapshot", heartbeat_s=0.02)
    broker.answers = [stream(opening, frame("task.status", 1), hold=True), stream(OPEN, END)]
    watch = await Watch(broker).run()
    assert watch.types == ["stream.open", "task.status", "stream.open", "stream.end"]
    assert watch.notes[0].startswith("no sign of life for 0.06 s")
    assert broker.last_event_ids() == [None, "e-1"]


async def test_waiting_grows_while_there_is_no_answer_and_starts_over_with_one(broker: Broker) -> None:
    broker.answers = [
        stream(b"retry: 100\n" + frame("task.status", 1)),
        *[status(503)] * 9,
        stream(frame("task.status", 2)),
        stream(END),
    ]
    watch = await Watch(broker).run()
    assert watch.pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0, 0.1]


@pytest.mark.parametrize("code", [500, 502, 503, 504, 429, 408])
async def test_temporary_answers_are_asked_again(broker: Broker, code: int) -> None:
    body = b'{"error":{"code":"x","message":"NATS is away"}}'
    broker.answers = [status(code, body, Retry_After="7"), stream(OPEN, END)]
    watch = await Watch(broker).run()
    assert watch.pauses == [7.0]
    assert watch.notes[0].startswith(f"{code} NATS is away; reconnecting in 7.0 s")


async def test_a_refused_connection_is_tried_again() -> None:
    broker = Broker()
    broker.answers = [stream(OPEN, END)]
    watch = Watch(broker, before_attempt={3: broker.start})
    try:
        await watch.run()
    finally:
        await broker.stop()
    assert watch.pauses == [1.0, 2.0, 4.0]
    assert watch.types == ["stream.open", "stream.end"]


async def test_busy_and_drain_say_when_to_come_back(broker: Broker) -> None:
    broker.answers = [
        stream(b"retry: 2500\n" + frame("stream.busy", reason="limit", reconnect_in_ms=2500)),
        stream(OPEN, frame("task.status", 3), frame("stream.drain", reconnect_in_ms=700)),
        stream(OPEN, END),
    ]
    watch = await Watch(broker).run()
    assert watch.pauses == [2.5, 0.7]
    assert broker.last_event_ids() == [None, None, "e-3"]


@pytest.mark.parametrize("code", [400, 401, 403, 404, 406])
async def test_final_answers_end_the_watch(broker: Broker, code: int) -> None:
    broker.answers = [status(code, b'{"error":{"code":"x","message":"no such task"}}')]
    with pytest.raises(WatchRefused, match=f"{code} no such task"):
        await Watch(broker).run()


async def test_a_page_that_is_no_event_stream_ends_the_watch(broker: Broker) -> None:
    broker.answers = [status(200, b"<html>", Content_Type="text/html")]
    with pytest.raises(WatchRefused, match="no event stream but text/html"):
        await Watch(broker).run()


async def test_nothing_follows_ends_the_watch(broker: Broker) -> None:
    broker.answers = [stream(OPEN, frame("task.status", 9), drop=True), status(204)]
    watch = await Watch(broker).run()
    assert watch.watcher.finished
    assert broker.last_event_ids() == [None, "e-9"]


@pytest.mark.parametrize(
    ("task", "path"),
    [
        ("t", "/tasks/t/events"),
        ("a/b", "/tasks/a%2Fb/events"),
        ("a%2Fb", "/tasks/a%252Fb/events"),
        ("../x", "/tasks/..%2Fx/events"),
        ("a b?c#d", "/tasks/a%20b%3Fc%23d/events"),
        ("ä", "/tasks/%C3%A4/events"),
        ("+", "/tasks/%2B/events"),
    ],
)
async def test_any_task_id_is_one_segment_of_the_path(broker: Broker, task: str, path: str) -> None:
    broker.answers = [stream(OPEN, END)]
    await Watch(broker, task).run()
    assert broker.requests[0][0] == path


async def test_parameters_go_into_the_query(broker: Broker) -> None:
    broker.answers = [stream(OPEN, END)]
    await Watch(broker, params={"from": "start", "debug": "1"}).run()
    assert broker.requests[0][0] == "/tasks/t/events?from=start&debug=1"


@pytest.mark.parametrize(
    ("answers", "state"),
    [
        ([stream(OPEN, END)], "completed"),
        ([stream(OPEN, frame("stream.end", state="failed", reason="terminal"))], "failed"),
        ([stream(OPEN, frame("stream.end", reason="not-found"))], ""),
        (
            [status(204), status(200, b'{"task":{},"state":"canceled"}', Content_Type="application/json")],
            "canceled",
        ),
    ],
)
async def test_follow_gives_the_last_state(broker: Broker, answers: list[Answer], state: str) -> None:
    broker.answers = answers
    shows = Lines(Terminal(io.StringIO(), {}), Terminal(io.StringIO(), {}))
    assert await follow(broker.url, "t", shows, token="secret") == state
    assert all(headers["Authorization"] == "Bearer secret" for _, headers in broker.requests)


# --- the command


async def tail(broker: Broker, *arguments: str, **env: str) -> Any:
    invoke = CliRunner().invoke
    return await asyncio.to_thread(invoke, main, ["tail", "t", "--url", broker.url, *arguments], env=env)


@pytest.mark.parametrize(
    ("state", "code"), [("completed", 0), ("failed", 1), ("canceled", 1), ("rejected", 1), ("", 1)]
)
async def test_exit_code_tells_how_the_task_ended(broker: Broker, state: str, code: int) -> None:
    broker.answers = [stream(OPEN, frame("stream.end", state=state, reason="terminal"))]
    assert (await tail(broker)).exit_code == code


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (status(503, b'{"error":{"code":"unavailable","message":"NATS is away"}}'), "503 NATS is away"),
        (status(200, b"{}"), "the answer names none"),
        (status(200, b'{"state":7}'), "the answer names none"),
    ],
)
async def test_a_task_that_is_over_in_an_unknown_way_exits_with_1(
    broker: Broker, answer: Answer, why: str
) -> None:
    broker.answers = [status(204), answer]
    result = await tail(broker)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: the task is over, but its state could not be asked for: {why}\n"


async def test_a_broker_that_leaves_before_it_tells_the_state_exits_with_1(broker: Broker) -> None:
    async def leave(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    # aiohttp itself repeats a GET once.
    broker.answers = [status(204), leave, leave]
    result = await tail(broker)
    assert result.exit_code == 1
    assert "its state could not be asked for: Server disconnected" in result.stderr


async def test_a_closed_standard_output_changes_nothing_else(broker: Broker) -> None:
    broker.answers = [stream(OPEN, frame("stream.end", state="completed", reason="terminal"))]
    command = [sys.executable, "-m", "sidecast_broker", "tail", "t", "--url", broker.url]
    program = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    child = await asyncio.create_subprocess_exec(*program, stderr=asyncio.subprocess.PIPE)
    assert (await child.communicate(), child.returncode) == ((None, b""), 0)


async def test_an_unknown_task_exits_with_1(broker: Broker) -> None:
    broker.answers = [status(404, b'{"error":{"code":"not-found","message":"no such task"}}')]
    result = await tail(broker)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: 404 no such task\n"


async def test_json_output_is_only_json_and_notes_go_to_standard_error(broker: Broker) -> None:
    broker.answers = [stream(OPEN, frame("task.status", 1, state="working")), stream(OPEN, END)]
    result = await tail(broker, "--json", "--wait-s", "5", "--debug", "--from", "now")
    assert [json.loads(line)["type"] for line in result.stdout.splitlines()] == [
        "stream.open", "task.status", "stream.open", "stream.end",
    ]  # fmt: skip
    assert "the stream ended early; reconnecting" in result.stderr
    assert broker.requests[0][0] == "/tasks/t/events?from=now&debug=1&wait_s=5"


async def test_visualize_shows_the_work(broker: Broker) -> None:
    broker.answers = [stream(OPEN, frame("task.artifact", 1, artifactId="a", text="# Findings\n"), END)]
    result = await tail(broker, "--visualize")
    assert (result.exit_code, "# Findings\n" in result.stdout) == (0, True)


async def test_the_token_can_come_from_the_environment(broker: Broker) -> None:
    broker.answers = [stream(OPEN, END)]
    await tail(broker, SIDECAST_TOKEN="secret")
    assert broker.requests[0][1]["Authorization"] == "Bearer secret"


@pytest.mark.parametrize("command", ["tail", "publish"])
@pytest.mark.parametrize(
    "url", ["nonsense", "ftp://h", "http://", "http://h:x", "http://h:99999", "http://h/?q", ""]
)
def test_a_url_that_is_none_is_wrong_usage(command: str, url: str) -> None:
    result = CliRunner().invoke(main, [command, "t", "--url", url])
    assert result.exit_code == 2
    assert "is not http:// or https:// with a host" in result.stderr
