"""The records of a task worth looking at: an agent that reads trades and writes a report.

Must not know how they are published or shown.
"""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

from brokers import encode

ACTIVITY = "urn:sidecast:activity:v1"

REPORT = """# Settlement review, 3rd quarter

**1,284 trades** were read from four venues. *Nine* of them did not settle on the agreed day; \
the reasons are below. Details are on [the desk's page](https://example.com/desk "desk").

## Findings

| venue | trades | late | share |
| --- | --- | --- | --- |
| Xetra | 512 | 2 | 0.4 % |
| Euronext | 401 | 1 | 0.2 % |
| LSE | 298 | 6 | 2.0 % |
| SIX | 73 | 0 | 0.0 % |

1. Six of the nine are from one counterparty.
2. Two lack a *place of settlement*:
   - `TRD-20931`, corrected on the next day
   - `TRD-20988`, **still open**
3. One was cancelled by both sides.

> The late share at LSE is five times that of the others, and it rises.

## How it was computed

```python
late = [trade for trade in trades if trade.settled_on > trade.due_on]
share = len(late) / len(trades)
```

## Next

- [x] tell operations about `TRD-20988`
- [ ] ask the counterparty for its cut-off times
- [ ] run again with the figures of October

<b>Markup of others</b> stays text, and [this](javascript:alert(1)) is no link.
"""

VERDICT = {
    "late": 9,
    "share": 0.007,
    "by_venue": {"Xetra": 2, "Euronext": 1, "LSE": 6, "SIX": 0},
    "open": ["TRD-20988"],
    "confirmed": True,
    "reviewer": None,
}


class Story:
    """Makes the records of one task.

    Args:
        task: its id.
    """

    def __init__(self, task: str) -> None:
        self.task = task
        self._messages = 0

    def begin(self, asked: str = "Which trades of the last quarter settled late, and why?") -> bytes:
        """Give the record that begins the log, with what the user asked."""
        history = [{"messageId": "ask", "role": "ROLE_USER", "parts": [{"text": asked}]}]
        status = {"state": "TASK_STATE_SUBMITTED"}
        return encode(
            {"task": {"id": self.task, "contextId": "desk-7", "status": status, "history": history}}
        )

    def status(self, text: str = "", state: str = "WORKING", **metadata: Any) -> bytes:
        """Give a status, with a message where there is a text."""
        status: dict[str, Any] = {"state": f"TASK_STATE_{state}"}
        if text:
            self._messages += 1
            message_id = f"m{self._messages}"
            status["message"] = {"messageId": message_id, "role": "ROLE_AGENT", "parts": [{"text": text}]}
        body = {"taskId": self.task, "contextId": "desk-7", "status": status}
        return encode({"statusUpdate": body | ({"metadata": metadata} if metadata else {})})

    def activity(self, kind: str, text: str = "", **fields: Any) -> bytes:
        """Give a status that reports an activity."""
        return self.status(text, **{ACTIVITY: {"kind": kind, **fields}})

    def progress(self, share: float, text: str = "") -> bytes:
        """Give a progress report."""
        return self.activity("progress", text, progress=share)

    def step(
        self, index: int, title: str, state: str, duration_ms: float | None = None, total: int = 4
    ) -> bytes:
        """Give the state of one step."""
        step = {"id": f"s{index}", "title": title, "state": state, "index": index, "total": total}
        return self.activity(
            "step", title, step=step | ({} if duration_ms is None else {"duration_ms": duration_ms})
        )

    def artifact(
        self,
        artifact_id: str,
        *parts: dict[str, Any],
        name: str = "",
        append: bool = False,
        last: bool = True,
    ) -> bytes:
        """Give an artifact, or a piece of one."""
        artifact = {"artifactId": artifact_id, "name": name, "parts": list(parts)}
        body = {
            "taskId": self.task,
            "contextId": "desk-7",
            "artifact": artifact,
            "append": append,
            "lastChunk": last,
        }
        return encode({"artifactUpdate": body})

    def report(self, text: str = REPORT, pieces: int = 24) -> list[bytes]:
        """Give a Markdown report in pieces."""
        size = -(-len(text) // pieces)
        cut = [text[at : at + size] for at in range(0, len(text), size)]
        return [
            self.artifact(
                "report",
                {"text": piece, "mediaType": "text/markdown"},
                name="settlement-review.md",
                append=number > 0,
                last=number == len(cut) - 1,
            )
            for number, piece in enumerate(cut)
        ]

    def work(self) -> list[bytes]:
        """Give what happens up to the beginning of the report."""
        return [
            self.begin(),
            self.status("Opening the books of the third quarter"),
            self.step(0, "Read the trades", "running"),
            *(self.progress(0.03 * n, f"{n * 107:,} of 1,284 trades read") for n in range(1, 13)),
            self.activity("debug", "cache miss: venue calendar XLON 2026"),
            self.step(0, "Read the trades", "done", 4310.5),
            self.step(1, "Match settlements", "running"),
            self.activity(
                "thought",
                "Six of the nine late trades share a counterparty. That is no accident; "
                "I will look at their cut-off times.",
            ),
            self.activity(
                "error",
                "SIX answers slowly; asking again",
                code="TIMEOUT",
                component="venues",
                recoverable=True,
            ),
            self.progress(0.52, "1,275 of 1,284 matched"),
            self.step(1, "Match settlements", "done", 2875.0),
            self.step(2, "Write the report", "running"),
        ]

    def finish(self) -> list[bytes]:
        """Give what follows the report."""
        return [
            self.step(2, "Write the report", "done", 6120.0),
            self.step(3, "Draw the figures", "running"),
            self.artifact(
                "chart",
                {"raw": chart(), "mediaType": "image/png", "filename": "late-share.png"},
                name="late-share.png",
            ),
            self.artifact("verdict", {"data": VERDICT}, name="verdict.json"),
            self.artifact(
                "drawing",
                {
                    "raw": _base64(b"<svg onload='alert(1)'/>"),
                    "mediaType": "image/svg+xml",
                    "filename": "drawing.svg",
                },
                name="drawing.svg",
            ),
            self.progress(1.0, "everything is written"),
            self.step(3, "Draw the figures", "done", 940.0),
            self.status("Nine of 1,284 trades settled late; the report says why.", "COMPLETED"),
        ]

    def whole(self) -> list[bytes]:
        """Give a whole task."""
        return [*self.work(), *self.report(), *self.finish()]


def chart(width: int = 560, height: int = 200) -> str:
    """Give a small bar chart as PNG, in base64."""
    shares = (0.2, 0.1, 1.0, 0.04, 0.35, 0.5, 0.28)
    band = width // len(shares)
    rows = []
    for y in range(height):
        row = bytearray(b"\0")
        for x in range(width):
            column, inside = divmod(x, band)
            bar = (
                column < len(shares)
                and 12 < inside < band - 12
                and height - 14 - y < shares[column] * (height - 40)
            )
            axis = height - 15 <= y <= height - 14
            row += (
                b"\x9a\xa3\xb5" if axis else (b"\x3a\x4b\xcb" if bar and y < height - 15 else b"\xfb\xfc\xff")
            )
        rows.append(bytes(row))

    def block(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return _base64(
        b"\x89PNG\r\n\x1a\n"
        + block(b"IHDR", head)
        + block(b"IDAT", zlib.compress(b"".join(rows)))
        + block(b"IEND", b"")
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
