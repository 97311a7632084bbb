"""An agent that records its traces: one task, reported on in one span.

Must not know who watches. Run as a program: NATS url, agent's name, task.
"""

from __future__ import annotations

import asyncio
import sys

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from sidecast_adapters import Publisher


async def main(url: str, agent: str, task_id: str) -> None:
    """Begin the task, work on it once a line has come on standard input, and on another without a trace."""
    tracer = trace.get_tracer("agent")
    async with Publisher(url, agent=agent) as publisher:
        with tracer.start_as_current_span("work"):
            async with publisher.task(task_id) as task:
                await publisher.flush()
                await asyncio.to_thread(sys.stdin.readline)
                await task.status("working", "Reading the trades")
                await publisher.flush()
                for number in range(5):
                    await task.progress(number / 5)
        async with publisher.task("untraced") as task:
            await task.status("working", "Nobody asked")


if __name__ == "__main__":
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    asyncio.run(main(*sys.argv[1:]))
    provider.shutdown()
