from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from a2a_rig.processes import Agent, Driver, Generation
from a2a_rig.stage import Stage
from a2a_rig.wire import WIRES, Door, Wire
from nats_server import NatsServer, create_stream

StageOf = Callable[..., Stage]
Crossed = tuple[Stage, Wire]

SETUPS = [("v1", "adapter"), ("v1", "proxy"), ("v03", "adapter"), ("v03", "proxy")]


@pytest.fixture(scope="session")
def nats_of_a2a(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One NATS server for all these tests: each has tasks of its own."""
    with NatsServer(tmp_path_factory.mktemp("a2a-nats") / "store") as server:
        asyncio.run(create_stream(server.url))
        yield server


@pytest.fixture(scope="session")
def agent_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Generation], Agent]]:
    """Give the plain agent of a generation, started once and shared: tests have tasks of their own."""
    folder = tmp_path_factory.mktemp("a2a-agents")
    started: dict[str, Agent] = {}
    with ExitStack() as stack:

        def give(generation: Generation) -> Agent:
            if generation not in started:
                options = ("--compat",) if generation == "v1" else ()
                started[generation] = stack.enter_context(Agent(folder, generation, options=options))
            return started[generation]

        yield give


@pytest.fixture(scope="session")
def driver_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Driver]]:
    """Give the driver of an SDK, started once and shared."""
    log = tmp_path_factory.mktemp("a2a-drivers") / "log"
    started: dict[str, Driver] = {}
    with ExitStack() as stack:

        def give(name: str) -> Driver:
            if name not in started:
                started[name] = stack.enter_context(Driver(name, log))
            return started[name]

        yield give


@pytest.fixture(scope="session")
def stage_of(
    nats_of_a2a: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Stage]]:
    """Give a stage that isn't changed by its tests, started once for each set of settings and shared."""
    folder = tmp_path_factory.mktemp("a2a-stages")
    started: dict[Any, Stage] = {}
    with ExitStack() as stack:

        def give(*arguments: Any, **settings: Any) -> Stage:
            key = (arguments, tuple(sorted(settings.items())))
            if key not in started:
                started[key] = stack.enter_context(Stage(folder, nats_of_a2a, *arguments, **settings))
            return started[key]

        yield give


@pytest.fixture
def own_stage(nats_of_a2a: NatsServer, tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """Give a stage of the test's own: its broker and its agent may be killed."""
    with ExitStack() as stack:
        yield lambda *arguments, **settings: stack.enter_context(
            Stage(tmp_path, nats_of_a2a, *arguments, **settings)
        )


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        yield session


@pytest.fixture
def door_to(session: aiohttp.ClientSession) -> Callable[[str], Door]:
    """Give a door to an address."""
    return lambda url: Door(session, url)


@pytest.fixture
def log(stage_of: StageOf) -> Stage:
    """Give a broker without an agent: the test writes the log."""
    return stage_of()


def _pairs(chosen: Callable[[int, int], bool]) -> list[Any]:
    """Give all pairs of a setup and a wire; those that are not chosen only run with `accept`."""
    return [
        pytest.param(
            (setup, wire),
            id=f"{'-'.join(setup)}-{wire}",
            marks=() if chosen(row, column) else pytest.mark.accept,
        )
        for row, setup in enumerate(SETUPS)
        for column, wire in enumerate(WIRES)
    ]


@pytest.fixture(params=_pairs(lambda row, column: (column - row) % 4 < 2))
def crossed(request: pytest.FixtureRequest, stage_of: StageOf) -> Crossed:
    """Give a broker beside an agent, and a wire to speak to it: half of the pairs in the normal run."""
    setup, wire = request.param
    return stage_of(*setup), wire


@pytest.fixture(params=SETUPS, ids="-".join)
def stage(request: pytest.FixtureRequest, stage_of: StageOf) -> Stage:
    """Give a broker beside an agent of each generation, in each way of capture."""
    return stage_of(*request.param)
