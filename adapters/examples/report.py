"""Publish one task without any agent framework.

python adapters/examples/report.py [nats://127.0.0.1:4222]
"""

from __future__ import annotations

import asyncio
import sys
import uuid

from sidecast_adapters import Publisher


async def main(url: str) -> None:
    """Work on one task that anyone may watch meanwhile."""
    task_id = f"report-{uuid.uuid4().hex[:8]}"
    print("working on", task_id)
    async with Publisher(url, agent="planner") as publisher:
        async with publisher.task(task_id, owner="alice") as task:
            await task.status("working", "Reading the trades")
            async with task.step("read", "Read the trades", index=0, total=2):
                for chunk in range(8):
                    await asyncio.sleep(0.5)
                    await task.progress((chunk + 1) / 8, f"chunk {chunk + 1} of 8")
            async with (
                task.step("write", "Write the report", index=1, total=2),
                task.artifact("report.md", media_type="text/markdown") as report,
            ):
                for piece in ("# Findings\n\n", "All trades ", "add ", "up.\n"):
                    await asyncio.sleep(0.2)
                    await report.write(piece)
        if not await publisher.flush(timeout_s=5):
            print("NATS has not acknowledged everything:", publisher.counts)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "nats://127.0.0.1:4222"))
