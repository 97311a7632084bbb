from __future__ import annotations

import asyncio
import importlib.util
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.__main__ import main
from sidecast_broker.commands.demo import DemoFailed, _Part, _while_running, free_port

# a2a-sdk's own imports may warn; what matters here is ours.
demo_agent = pytest.importorskip("sidecast_adapters.demo_agent")

TEXT = """# Title

First sentence, with five words... no. A second sentence is here!

## Part one ##

The broker keeps events. The broker resumes streams. See [the docs](https://example.org/very/long/path).

```python
broker broker broker broker
# not a heading
```

- a list item is no sentence of the prose
| a | table |
"""


def test_findings_of_a_text() -> None:
    findings = demo_agent.Findings()
    findings.add(TEXT)
    assert findings.headings == [(1, "Title"), (2, "Part one")]
    assert (findings.code_blocks, findings.links) == (1, 1)
    assert findings.terms["broker"] == 2
    assert "example" not in findings.terms
    assert "The broker keeps events." in findings.sentences
    assert all("list item" not in sentence for sentence in findings.sentences)


def test_the_report_says_what_was_found() -> None:
    findings = demo_agent.Findings()
    findings.add(TEXT)
    report = demo_agent.report("x.md", findings)
    assert report.startswith("# Report on x.md\n")
    assert "- Title\n  - Part one\n" in report
    assert "| broker | 2 |" in report
    assert "1 code blocks" in report


@pytest.mark.parametrize("text", ["", "\n\n", "#", "```", "\x00\x1b", "a" * 100_000, "。" * 100])
def test_any_text_can_be_reported_on(text: str) -> None:
    findings = demo_agent.Findings()
    for piece in demo_agent.pieces(text, 16):
        findings.add(piece)
    assert demo_agent.report("x", findings).endswith("on average.\n")
    assert list(demo_agent.thoughts(findings))


@given(st.text(st.sampled_from("ab \n.")), st.integers(1, 20))
def test_pieces_hold_the_whole_text(text: str, count: int) -> None:
    pieces = demo_agent.pieces(text, count)
    assert 1 <= len(pieces) <= count
    assert "".join(pieces).split() == text.split()


def test_pieces_end_between_paragraphs() -> None:
    text = "\n\n".join(f"paragraph {number}\nsecond line" for number in range(40))
    pieces = demo_agent.pieces(text, 8)
    assert len(pieces) == 8
    assert all(re.match(r"paragraph \d+\n", piece) for piece in pieces)


def test_only_the_beginning_of_a_large_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_agent, "FILE_BYTES_MAX", 5)
    file = tmp_path / "text"
    file.write_text("aaaaéé")
    assert demo_agent.read_text(file) == "aaaa"
    file.write_bytes(b"aa\xff")
    with pytest.raises(UnicodeDecodeError):
        demo_agent.read_text(file)


def test_a_taken_port_gives_way_to_a_free_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port(port) == 0
    assert free_port(port) == port


def test_without_a_file_there_must_be_a_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["demo"])
    assert result.exit_code == 2
    assert "there is no README.md here: name a text file, sidecast demo FILE" in result.stderr


def test_a_missing_sdk_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "README.md").write_text("x")
    monkeypatch.chdir(tmp_path)
    find_spec = importlib.util.find_spec

    def found(name: str, *rest: Any) -> Any:
        return None if name == "a2a" else find_spec(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    result = CliRunner().invoke(main, ["demo"])
    assert result.exit_code == 1
    assert 'pip install "sidecast[demo]"' in result.stderr


async def _part(code: str) -> _Part:
    return _Part("broker", await asyncio.create_subprocess_exec(sys.executable, "-c", code), "")


async def test_the_demo_ends_when_one_of_its_parts_does() -> None:
    with pytest.raises(DemoFailed, match="the broker ended with 3"):
        await _while_running(asyncio.sleep(3600), await _part("raise SystemExit(3)"))


async def test_the_demo_ends_with_its_work() -> None:
    part = await _part("import time; time.sleep(3600)")
    try:
        await _while_running(asyncio.sleep(0), part)

        async def fails() -> None:
            raise DemoFailed("the task")

        with pytest.raises(DemoFailed, match="the task"):
            await _while_running(fails(), part)
    finally:
        part.process.kill()
        await part.process.wait()
