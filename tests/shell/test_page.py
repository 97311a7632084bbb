from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import aiohttp
import pytest
from brokers import (
    FakeBackend,
    OwnBroker,
    RealBackend,
    artifact,
    broker,
    done,
    status,
    subject_of,
    task_record,
)
from yarl import URL

from sidecast_broker.answers import Away, StreamInfo, TooManyResults
from sidecast_broker.core.log import Stored
from sidecast_broker.page import FOLDER
from sidecast_broker.task_list import FRESH_S, RESULTS_MAX, WHOLE_S, TaskList
from sidecast_schemas.subjects import TaskKey, events_subject


async def fetch(running: OwnBroker, path: str, **headers: str) -> tuple[int, Mapping[str, str], bytes]:
    """Give status, headers and body, redirects not followed."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(URL(running.url + path, encoded=True), headers=headers, allow_redirects=False) as answer,
    ):
        return answer.status, answer.headers, await answer.read()


class TestFiles:
    async def test_page_and_all_it_names_are_served(self, fake: FakeBackend) -> None:
        async with broker(fake) as running:
            status_code, headers, body = await fetch(running, "/ui/")
            assert (status_code, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
            named = re.findall(r'(?:src|href)="([^"#?]+)"', body.decode())
            assert {"app.js", "tokens.css", "icon.svg", "theme.js"} <= set(named)
            for name in {*named, *(path.name for path in FOLDER.iterdir())} - {"./"}:
                assert (await fetch(running, f"/ui/{name}"))[0] == 200, name

    def test_modules_import_only_files_that_exist(self) -> None:
        for path in FOLDER.glob("*.js"):
            for name in re.findall(r'^import .* from "([^"]+)";$', path.read_text(), re.MULTILINE):
                assert (FOLDER / name).exists(), (path.name, name)

    def test_nothing_runs_from_the_markup(self) -> None:
        page = (FOLDER / "index.html").read_text()
        assert not re.search(r"\son\w+=|\sstyle=|<style|javascript:|<script(?![^>]*\ssrc=)", page)
        assert "://" not in page.replace("http://127.0.0.1:8481/publish/task-1", "")

    def test_content_is_never_put_in_as_markup(self) -> None:
        for path in FOLDER.glob("*.js"):
            found = re.findall(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", path.read_text()
            )
            assert found == [], path.name

    async def test_headers_keep_everything_foreign_out(self, fake: FakeBackend) -> None:
        async with broker(fake) as running:
            for path in ("/ui/", "/ui/app.js", "/ui"):
                _status, headers, _body = await fetch(running, path)
                policy = headers["Content-Security-Policy"]
                assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
                assert "unsafe" not in policy
                assert headers["X-Content-Type-Options"] == "nosniff"
                assert headers["Referrer-Policy"] == "no-referrer"

    async def test_unchanged_file_is_not_sent_again(self, fake: FakeBackend) -> None:
        async with broker(fake) as running:
            _status, headers, _body = await fetch(running, "/ui/app.js")
            assert headers["Cache-Control"] == "no-cache"
            again = await fetch(running, "/ui/app.js", **{"If-None-Match": f'"other", {headers["ETag"]}'})
            assert (again[0], again[1]["ETag"], again[2]) == (304, headers["ETag"], b"")
            assert (await fetch(running, "/ui/app.js", **{"If-None-Match": '"other"'}))[0] == 200

    @pytest.mark.parametrize(
        "path",
        ["/ui/none.js", "/ui/..%2fpage.py", "/ui/api", "/ui/api/none", "/ui/a/b"],
    )
    async def test_nothing_else_is_served(self, fake: FakeBackend, path: str) -> None:
        async with broker(fake) as running:
            assert (await running.get(path))[0] == 404

    @pytest.mark.parametrize("path", ["/ui/%2e%2e/page.py", "/ui//app.js"])
    async def test_a_path_that_could_mean_another_is_none(self, fake: FakeBackend, path: str) -> None:
        async with broker(fake) as running:
            assert (await running.get(path))[0] == 400

    async def test_address_without_slash_leads_to_the_page(self, fake: FakeBackend) -> None:
        async with broker(fake) as running:
            status_code, headers, _body = await fetch(running, "/ui?task=a%2Fb")
            assert (status_code, headers["Location"]) == (308, "ui/?task=a%2Fb")


class TestTasks:
    async def test_newest_first_with_states(self, real: RealBackend) -> None:
        async with broker(real) as running:
            await real.publish(task_record("a"), done("a"), task="a")
            await real.publish(task_record("b"), task="b")
            await real.publish(task_record("ü/ b", state="WORKING"), task="ü/ b")
            await real.publish_on(
                subject_of("c"), artifact("x", "c"), {"Sidecast-State": "TASK_STATE_INPUT_REQUIRED"}
            )
            await real.publish(artifact("x", "d"), task="d")
            await real.publish_on("sidecast.v1.events._.other.e", done("e"))
            code, answer = await running.get("/ui/api/tasks")
        assert code == 200
        assert [(task["task"], task["state"]) for task in answer["tasks"]] == [
            ("d", None),
            ("c", "input-required"),
            ("ü/ b", "working"),
            ("b", "submitted"),
            ("a", "completed"),
        ]
        assert [task["sequence"] for task in answer["tasks"]] == [6, 5, 4, 3, 2]
        assert (answer["agent"], answer["tenant"]) == ("agent", "")
        assert (answer["truncated"], answer["partial"]) == (False, False)
        age = datetime.now(UTC) - datetime.fromisoformat(answer["tasks"][0]["updated_at"])
        assert abs(age.total_seconds()) < 30
        assert abs((datetime.now(UTC) - datetime.fromisoformat(answer["now"])).total_seconds()) < 30

    async def test_task_in_memory_knows_its_state_and_its_watchers(self, real: RealBackend) -> None:
        async with broker(real) as running:
            await real.publish(task_record("a"), status("x", "a"), artifact("y", "a"), task="a")
            watch = await running.watch("a")
            await watch.take(2)
            _code, answer = await running.get("/ui/api/tasks")
        assert [(task["state"], task["watchers"]) for task in answer["tasks"]] == [("working", 1)]

    async def test_without_nats_what_is_known_is_shown(self, real: RealBackend) -> None:
        async with broker(real) as running:
            await real.publish(task_record("a"), task="a")
            watch = await running.watch("a")
            await watch.take(2)
            await real.go_away()
            code, answer = await running.get("/ui/api/tasks")
            assert code == 200
            assert answer["partial"] is True
            assert [task["task"] for task in answer["tasks"]] == ["a"]
            await real.come_back()

    async def test_needs_a_credential_where_streams_do(self, fake: FakeBackend) -> None:
        async with broker(fake, auth__required="true") as running:
            assert (await running.get("/ui/api/tasks"))[0] == 401
            assert (await running.get("/ui/"))[0] == 200

    async def test_more_tasks_than_one_answer_holds(self, real: RealBackend) -> None:
        count = RESULTS_MAX + 10
        client = await real.client()
        for number in range(count - 1):
            await client.publish(subject_of(f"t{number}"), status(task=f"t{number}"))
        await real.publish(status(task="last"), task="last")
        async with broker(real) as running:
            _code, answer = await running.get("/ui/api/tasks")
        assert len(answer["tasks"]) == count
        assert answer["tasks"][0]["task"] == "last"
        assert answer["truncated"] is False


class Source:
    """A stream of newest records, and what was asked of it."""

    def __init__(self) -> None:
        self.records: dict[str, Stored] = {}
        self.first = 1
        self.deleted = 0
        self.asked: list[tuple[int, int]] = []
        self.away = False
        self.results_max = RESULTS_MAX

    def put(self, task: str, sequence: int, payload: bytes) -> None:
        subject = events_subject(TaskKey("", "agent", task))
        at = f"2026-01-01T00:00:{sequence % 60:02}Z"
        self.records[subject] = Stored(sequence, 0, at, {"Nats-Subject": subject}, payload)

    async def info(self) -> StreamInfo:
        if self.away:
            raise Away("gone")
        last = max((stored.sequence for stored in self.records.values()), default=0)
        return StreamInfo("e", "c", self.first, last, self.deleted)

    async def last_of(self, subjects: Sequence[str], above: int) -> list[Stored]:
        if len(self.records) > self.results_max and "*" in subjects[0]:
            raise TooManyResults("too many")
        self.asked.append((len(subjects), above))
        wanted = self.records if "*" in subjects[0] else subjects
        found = [self.records[subject] for subject in wanted if self.records[subject].sequence > above]
        return sorted(found, key=lambda stored: stored.sequence)

    async def subjects(self, pattern: str) -> list[str]:
        assert pattern == "sidecast.v1.events._.agent.*"
        return list(self.records)


class TestTaskList:
    @pytest.fixture
    def now(self) -> list[float]:
        return [100.0]

    @pytest.fixture
    def source(self) -> Source:
        return Source()

    @pytest.fixture
    def tasks(self, source: Source, now: list[float]) -> TaskList:
        return TaskList(source, "", "agent", clock=lambda: now[0])

    async def test_only_what_is_new_is_read(self, tasks: TaskList, source: Source, now: list[float]) -> None:
        source.put("a", 1, status(task="a"))
        source.put("b", 2, status(task="b"))
        await tasks.read()
        source.put("a", 3, artifact("x", "a"))
        now[0] += FRESH_S
        listing = await tasks.read()
        assert source.asked == [(1, 0), (1, 2)]
        # An artifact says nothing of the state: it is as it was.
        assert [(each.key.task, each.state) for each in listing.tasks] == [
            ("a", "TASK_STATE_WORKING"),
            ("b", "TASK_STATE_WORKING"),
        ]

    async def test_answers_are_shared_for_a_moment(
        self, tasks: TaskList, source: Source, now: list[float]
    ) -> None:
        await tasks.read()
        source.put("a", 1, status(task="a"))
        assert (await tasks.read()).tasks == []
        now[0] += FRESH_S
        assert len((await tasks.read()).tasks) == 1

    async def test_nothing_new_asks_for_no_record(
        self, tasks: TaskList, source: Source, now: list[float]
    ) -> None:
        source.put("a", 1, status(task="a"))
        for _ in range(3):
            await tasks.read()
            now[0] += FRESH_S
        assert source.asked == [(1, 0)]

    async def test_expired_task_leaves(self, tasks: TaskList, source: Source, now: list[float]) -> None:
        source.put("a", 1, status(task="a"))
        source.put("b", 2, status(task="b"))
        await tasks.read()
        del source.records[events_subject(TaskKey("", "agent", "a"))]
        source.first = 2
        now[0] += FRESH_S
        assert [each.key.task for each in (await tasks.read()).tasks] == ["b"]

    @pytest.mark.parametrize(("passed_s", "deleted"), [(WHOLE_S, 0), (FRESH_S, 1)])
    async def test_purged_task_leaves(
        self, tasks: TaskList, source: Source, now: list[float], passed_s: float, deleted: int
    ) -> None:
        source.put("a", 1, status(task="a"))
        source.put("b", 2, status(task="b"))
        await tasks.read()
        del source.records[events_subject(TaskKey("", "agent", "a"))]
        source.deleted = deleted
        now[0] += passed_s
        assert [each.key.task for each in (await tasks.read()).tasks] == ["b"]

    async def test_nats_away_keeps_what_was_known(
        self, tasks: TaskList, source: Source, now: list[float]
    ) -> None:
        source.put("a", 1, status(task="a"))
        await tasks.read()
        source.away = True
        now[0] += FRESH_S
        listing = await tasks.read()
        assert (len(listing.tasks), listing.partial) == (1, True)

    async def test_many_tasks_are_asked_for_in_lists(
        self, tasks: TaskList, source: Source, now: list[float]
    ) -> None:
        for number in range(RESULTS_MAX + 1):
            source.put(f"t{number}", number + 1, status(task=f"t{number}"))
        listing = await tasks.read()
        assert [size for size, _above in source.asked] == [RESULTS_MAX, 1]
        assert (len(listing.tasks), listing.truncated) == (RESULTS_MAX + 1, False)

    async def test_record_that_is_no_event_is_listed_without_a_state(
        self, tasks: TaskList, source: Source, now: list[float]
    ) -> None:
        source.put("a", 1, b"not json")
        (listed,) = (await tasks.read()).tasks
        assert (listed.key.task, listed.state) == ("a", None)
