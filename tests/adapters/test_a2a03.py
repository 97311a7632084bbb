"""The a2a-sdk adapter on a2a-sdk 0.3.26, in a Python environment of its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from a2a_rig.environments import PYTHON_SDKS, ROOT, python_of
from nats_server import NatsServer, create_stream, read_records


@pytest.fixture(scope="module")
def answers_and_records(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, Any], list[dict[str, Any]], set[str | None]]:
    """Run all agents once; give what they answered, everything that was published, and whose it is."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        asyncio.run(create_stream(server.url))
        run = subprocess.run(
            [python_of(PYTHON_SDKS["v03"]), Path(__file__).with_name("a2a03_agent.py"), server.url],
            env=os.environ | {"PYTHONPATH": f"{ROOT / 'adapters'}:{ROOT / 'schemas'}"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert run.returncode == 0, run.stderr
        records = asyncio.run(read_records(server.url, "sidecast.v1.events.>"))
    owners = {headers.get("Sidecast-Owner") for headers, _ in records}
    return json.loads(run.stdout), [msgspec.json.decode(payload) for _, payload in records], owners


@pytest.fixture
def logs(
    answers_and_records: tuple[dict[str, Any], list[dict[str, Any]], set[str | None]],
) -> list[list[dict[str, Any]]]:
    """Give the records of each task, in the order of their first ones."""
    logs: list[list[dict[str, Any]]] = []
    for record in answers_and_records[1]:
        if "task" in record:
            logs.append([])
        logs[-1].append(record)
    return logs


def words(log: list[dict[str, Any]]) -> list[str]:
    """Give one word per record."""
    given = []
    for record in log:
        ((kind, body),) = record.items()
        if kind == "turn":
            given.append(f"turn {body['phase']}" + (f" {body['reason']}" if "reason" in body else ""))
        else:
            given.append(kind + (" " + body["status"]["state"][11:].lower() if "status" in body else ""))
    return given


@pytest.mark.row("C66")
def test_each_way_an_executor_can_behave(logs: list[list[dict[str, Any]]]) -> None:
    begun = ["task submitted", "turn begin"]
    assert [words(log) for log in logs] == [
        [*begun, "statusUpdate working", "artifactUpdate", "statusUpdate completed", "turn end returned"],
        [*begun, "statusUpdate failed", "turn end error"],
        [*begun, "statusUpdate working", "statusUpdate completed", "turn end returned"],
        [*begun, "statusUpdate canceled", "turn end cancelled"],
        [*begun, "statusUpdate canceled", "turn end cancelled"],
        # The second message's turn, on the same task at the same time.
        [
            *begun,
            "turn begin",
            "statusUpdate working",
            "turn end returned",
            "statusUpdate completed",
            "turn end returned",
        ],
    ]


def test_whom_the_broker_names_owns_what_they_begin(
    answers_and_records: tuple[dict[str, Any], list[dict[str, Any]], set[str | None]],
) -> None:
    assert answers_and_records[2] == {"=YUBi"}


def test_what_the_callers_got(
    answers_and_records: tuple[dict[str, Any], list[dict[str, Any]], set[str | None]],
) -> None:
    answers = answers_and_records[0]
    assert answers["message"] == {"message": "r1"}
    assert answers["raises"] == answers["raises_first"] == {"error": "KeyError"}
    assert all(
        "task" in answers[name] for name in ("normal", "status_first", "reports_its_end", "two_messages")
    )
    assert answers["silent"] == {"error": "ServerError"}, (
        "0.3.x calls a task not cancelable whose agent is silent"
    )


def test_events_are_stored_as_v1_json(logs: list[list[dict[str, Any]]]) -> None:
    task, turn, working, artifact, *_ = logs[0]
    assert task["task"]["status"]["state"] == "TASK_STATE_SUBMITTED"
    assert "kind" not in task["task"]
    assert turn["turn"]["message"]["role"] == "ROLE_USER"
    assert turn["turn"]["message"]["parts"] == [{"text": "go"}]
    update = working["statusUpdate"]
    assert "final" not in update
    assert "kind" not in update
    assert update["status"]["timestamp"] == "2025-04-02T16:59:25.331844Z"
    assert update["status"]["message"]["role"] == "ROLE_AGENT"
    assert update["metadata"] == {"count": 3}
    assert artifact["artifactUpdate"]["artifact"]["parts"] == [
        {"text": "hi"},
        {"raw": "aGk=", "mediaType": "text/plain", "filename": "hi.txt"},
        {"url": "https://example.org/x", "mediaType": "text/html"},
        {"data": {"n": 1}},
    ]
    assert "append" not in artifact["artifactUpdate"]
