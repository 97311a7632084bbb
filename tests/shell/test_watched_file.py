from __future__ import annotations

import os
from pathlib import Path

import pytest
import structlog
from issuer import Clock

from sidecast_broker.auth.watched_file import FILE_BYTES_MAX, LOOK_S, UnusableFile, WatchedFile


def parse(content: bytes) -> str:
    if content.startswith(b"broken"):
        raise ValueError("makes no sense")
    return content.decode()


@pytest.fixture
def clock() -> Clock:
    return Clock(0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("first")
    return path


@pytest.fixture
def file(path: Path, clock: Clock) -> WatchedFile[str]:
    file = WatchedFile(str(path), parse, clock=clock)
    assert file.open() == "first"
    return file


def test_a_change_is_seen_at_the_next_look(file: WatchedFile[str], path: Path, clock: Clock) -> None:
    path.write_text("other")
    clock.now_s += LOOK_S / 2
    assert file.look() == "first"
    clock.now_s += LOOK_S / 2
    assert file.look() == "other"
    assert file.generation == 2


def test_a_file_that_is_exchanged(file: WatchedFile[str], path: Path, clock: Clock) -> None:
    new = path.with_name("new")
    new.write_text("second")
    new.replace(path)
    clock.now_s += LOOK_S
    assert file.look() == "second"


def test_a_link_that_is_exchanged(tmp_path: Path, clock: Clock) -> None:
    """The way Kubernetes changes a mounted secret."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "data").symlink_to("one")
    file = WatchedFile(str(tmp_path / "data" / "file"), parse, clock=clock)
    assert file.open() == "one"
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(tmp_path / "data")
    clock.now_s += LOOK_S
    assert file.look() == "two"


def test_a_change_within_the_grain_of_the_file_system_is_seen(
    file: WatchedFile[str], path: Path, clock: Clock
) -> None:
    status = path.stat()
    path.write_text("other")  # of the same size
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    clock.now_s += LOOK_S
    assert file.look() == "other"


@pytest.mark.parametrize("fault", ["broken", "gone", "large", "directory"])
def test_the_last_good_version_stays_and_the_fault_is_told_once(
    file: WatchedFile[str], path: Path, clock: Clock, fault: str
) -> None:
    path.unlink()
    if fault == "directory":
        path.mkdir()
    elif fault != "gone":
        path.write_text("broken secret" if fault == "broken" else "x" * (FILE_BYTES_MAX + 1))
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            clock.now_s += LOOK_S
            assert file.look() == "first"
    assert [(line["event"], line["log_level"]) for line in logs] == [("file_unusable", "warning")]
    assert "secret" not in str(logs)
    if fault == "directory":
        path.rmdir()
    path.write_text("mended")
    clock.now_s += LOOK_S
    assert file.look() == "mended"


def test_a_file_that_did_not_change_is_not_made_sense_of_again(path: Path, clock: Clock) -> None:
    calls = []
    os.utime(path, (1, 1))
    file = WatchedFile(str(path), lambda content: calls.append(content) or len(calls), clock=clock)
    file.open()
    for _ in range(3):
        clock.now_s += LOOK_S
        assert file.look() == 1
    path.touch()
    clock.now_s += LOOK_S
    assert file.look() == 1


@pytest.mark.parametrize(
    "content", [None, "broken", "x" * (FILE_BYTES_MAX + 1)], ids=["none", "broken", "large"]
)
def test_it_must_make_sense_at_the_start(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UnusableFile, match=f"^{path}: "):
        WatchedFile(str(path), parse).open()
