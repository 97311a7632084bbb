"""Inputs of any form to both listeners of a broker with real credentials: nothing breaks, nothing changes."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from attacks import keyring
from attacks.fuzzing import SETTINGS, stock, withstand
from attacks.inputs import Input, corpus, made, some
from attacks.keyring import TOKENS
from attacks.knocking import Answer
from attacks.outcome import SECRET, Outcome, check, check_shares
from brokers import TASK, FakeBackend, broker, status, subject_of
from recording_agent import RecordingAgent

COUNT, SEED = 2_000, 30_000
CONNECTIONS = 32


async def fuzz(folder: Path, inputs: Sequence[Input]) -> Outcome:
    """Send inputs to a broker in this process; give what came of them, which is nothing wrong."""
    backend = FakeBackend()
    await stock(backend)
    async with (
        RecordingAgent() as agent,
        broker(backend, agent__url=agent.url, **SETTINGS, **keyring.settings(folder)) as running,
    ):
        outcome = await withstand(backend, running, agent, inputs, CONNECTIONS)
    gc.collect()  # an exception that nobody has retrieved is told of when its task goes
    assert outcome.keep(folder) == []
    assert outcome.sent == len(inputs)
    return outcome


async def test_fuzzed_inputs_are_answered(tmp_path: Path, unharmed: None) -> None:
    check_shares(await fuzz(tmp_path, list(some(SEED, 0, COUNT))))


async def test_kept_inputs_are_answered(tmp_path: Path, unharmed: None) -> None:
    outcome = await fuzz(tmp_path, corpus())
    assert {200, 204, 400, 401, 403, 404, 405, 408, 415, 421, 422} <= outcome.statuses.keys()


def test_an_input_is_made_again_by_its_seed_and_number() -> None:
    inputs = list(some(SEED, 0, 300))
    assert [made(SEED, number) for number in range(300)] == inputs
    assert len({each.raw for each in inputs}) > 290
    assert made(SEED + 1, 0) != inputs[0]


HEADERS = {"content-type": "application/json", "x-content-type-options": "nosniff"}
FINE = Answer(200, HEADERS, b"{}", closes=False)
ANYBODYS = Input("", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", internal=False, parts=("kept",), ends=False)
ALICES = ANYBODYS._replace(raw=TOKENS["alice"].encode())
OPERATORS = ANYBODYS._replace(raw=TOKENS["operator"].encode())
WATCHED = FINE._replace(body=b'{"streams": [{"tenant": "acme"}]}')
WATCHED_ELSEWHERE = FINE._replace(body=b'{"streams": [{"tenant": "acme"}, {"tenant": ""}]}')
SHOWN = FINE._replace(headers=HEADERS | {"content-type": "text/plain"}, body=SECRET.encode())


@pytest.mark.parametrize(("given", "answer"), [(ANYBODYS, FINE), (ALICES, SHOWN), (OPERATORS, WATCHED)])
def test_a_right_answer_is_taken(given: Input, answer: Answer) -> None:
    check(given, answer)


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        (ANYBODYS, FINE._replace(status=500)),
        (ANYBODYS, FINE._replace(status=503)),
        (ANYBODYS, FINE._replace(status=101)),
        (ANYBODYS, FINE._replace(body=b"{")),
        (ANYBODYS, FINE._replace(headers={})),
        (ANYBODYS, SHOWN),
        (ANYBODYS, WATCHED),
        (OPERATORS, WATCHED_ELSEWHERE),
    ],
)
def test_a_wrong_answer_is_noticed_and_its_input_kept(given: Input, answer: Answer, tmp_path: Path) -> None:
    outcome = Outcome()
    outcome.take(given, [FINE, answer])
    assert len(outcome.keep(tmp_path)) == 1
    assert (tmp_path / "public-found-0.http").read_bytes() == given.raw


async def test_what_changes_meanwhile_is_noticed(tmp_path: Path) -> None:
    backend = FakeBackend()
    await stock(backend)

    def changing() -> Iterator[Input]:
        yield ANYBODYS
        backend.server.publish(subject_of(TASK), status("of nobody's"), {})

    async with (
        RecordingAgent() as agent,
        broker(backend, agent__url=agent.url, **SETTINGS, **keyring.settings(tmp_path)) as running,
    ):
        with pytest.raises(AssertionError, match=subject_of(TASK)):
            await withstand(backend, running, agent, changing(), 1)
