from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator

import hypothesis
import pytest
import structlog
from brokers import Backend, FakeBackend, RealBackend
from nats_server import NatsServer

pytest_plugins = ["conformance.plugin"]

# How fast examples are made says how busy the machine is, not whether the code is right.
hypothesis.settings.register_profile(
    "any-machine", suppress_health_check=[hypothesis.HealthCheck.too_slow], deadline=None
)
hypothesis.settings.load_profile("any-machine")


@pytest.fixture(scope="session")
def nats_of_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with NatsServer(tmp_path_factory.mktemp("nats") / "store") as server:
        yield server


@pytest.fixture
def fake() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
async def real(nats_of_run: NatsServer) -> AsyncIterator[RealBackend]:
    if nats_of_run.process is None:  # a test failed between killing and starting it
        nats_of_run.start()
    backend = RealBackend(nats_of_run)
    await backend.create()
    await backend.delete_bucket("SIDECAST_REVOKED")
    yield backend
    await backend.close()


@pytest.fixture(params=["fake", "real"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Both, one after the other: what holds for one must hold for the other."""
    name = request.param
    found = request.getfixturevalue(name)
    assert isinstance(found, Backend)
    return found


@pytest.fixture
def unharmed(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Check that no line with a stack trace is logged, nor any error."""
    with structlog.testing.capture_logs() as lines, caplog.at_level(logging.INFO):
        yield
    # By its name: of another phase, `records` is empty.
    records = [*caplog.get_records("setup"), *caplog.get_records("call"), *caplog.records]
    assert [record.getMessage() for record in records if record.levelno > logging.INFO] == []
    assert [line for line in lines if line["log_level"] in ("error", "critical") or "exc_info" in line] == []
