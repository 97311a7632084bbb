"""A collector of traces: takes what is exported by OTLP over HTTP.

Must not know what the spans are about.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

WAIT_S_MAX = 15.0


class Span(NamedTuple):
    """One span, ids in hex, times in ns since 1970."""

    service: str
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: dict[str, str | int]


class Collector:
    """An OTLP/HTTP receiver; a context manager.

    Attributes:
        spans: what it has been given, in the order in which it came.
    """

    def __init__(self) -> None:
        application = web.Application()
        application.router.add_post("/v1/traces", self._take)
        self._server = TestServer(application)
        self.spans: list[Span] = []
        self._came = asyncio.Event()

    @property
    def url(self) -> str:
        """What `OTEL_EXPORTER_OTLP_ENDPOINT` is set to."""
        return str(self._server.make_url("")).rstrip("/")

    async def _take(self, request: web.Request) -> web.Response:
        batch = ExportTraceServiceRequest.FromString(await request.read())
        for of_resource in batch.resource_spans:
            named = {each.key: each.value.string_value for each in of_resource.resource.attributes}
            for of_scope in of_resource.scope_spans:
                for span in of_scope.spans:
                    attributes: dict[str, str | int] = {
                        each.key: each.value.string_value or each.value.int_value for each in span.attributes
                    }
                    self.spans.append(
                        Span(
                            named["service.name"],
                            span.name,
                            span.kind,
                            span.trace_id.hex(),
                            span.span_id.hex(),
                            span.parent_span_id.hex(),
                            span.start_time_unix_nano,
                            span.end_time_unix_nano,
                            attributes,
                        )
                    )
        self._came.set()
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")

    async def until(self, name: str, count: int = 1) -> list[Span]:
        """Wait until so many spans of a name have come; give them, the earliest begun first."""
        async with asyncio.timeout(WAIT_S_MAX):
            while len(found := self.named(name)) < count:
                self._came.clear()
                await self._came.wait()
        return found

    def named(self, name: str) -> list[Span]:
        """Give the spans of a name, the earliest begun first."""
        return sorted((span for span in self.spans if span.name == name), key=lambda span: span.start_ns)

    async def __aenter__(self) -> Collector:
        await self._server.start_server()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._server.close()
