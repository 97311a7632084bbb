"""What can be set of the listeners, and of what is common to all requests.

Must not know the other sections.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Struct

from sidecast_broker.settings.fields import KIB, MIB, Limit, Port, listed, within


class Server(Struct, frozen=True):
    """Listeners and what is common to all requests."""

    host: Annotated[str, "Address of the public listener."] = "127.0.0.1"
    port: Annotated[Port, "Port of the public listener; 0 picks a free one."] = 8480
    internal_host: Annotated[str, "Address of the internal listener."] = "127.0.0.1"
    internal_port: Annotated[
        Port, "Port of the internal listener (health, metrics, publish); 0 picks a free one."
    ] = 8481
    probe_host: Annotated[
        str,
        "Address of a third listener, with nothing but `/livez`, `/readyz` and `/metrics` of the internal "
        "one: for a kubelet and Prometheus, which come to the pod's address, while the internal listener "
        "stays on loopback. Empty: there is none.",
    ] = ""
    probe_port: Annotated[Port, "Port of the listener at `server.probe_host`; 0 picks a free one."] = 8482
    public_url: Annotated[
        str,
        "Base URL under which clients reach the public listener, as the agent card names it; empty takes "
        "the request's `Host`, with `http`, or `https` on TLS. Needed behind a proxy that ends TLS or adds "
        "a path.",
    ] = ""
    body_bytes_max: Annotated[int, within(KIB, 256 * MIB), "Largest request body that is read, in bytes."] = (
        4 * MIB
    )
    header_s: Annotated[
        float, within(0.1, 3600), "Time the head of a request may take to arrive, in seconds."
    ] = 10.0
    body_s: Annotated[
        float,
        within(0.1, 3600),
        "Time a request body that is read as a whole may take to arrive, in seconds; what "
        "`agent.passthrough` passes on is bounded by `agent.timeout_s`.",
    ] = 30.0
    cors_origins: Annotated[
        str,
        "Origins whose web pages may use the public listener (CORS), exactly as browsers send them, for "
        "example `https://app.example.com`, separated by commas. `*` is every origin, which then can't "
        "send the cookie of a ticket. Empty: none but the broker's own.",
    ] = ""
    head_bytes_max: Annotated[
        int, within(4 * KIB, MIB), "Largest head of a request, in bytes: its line and all fields."
    ] = 64 * KIB
    head_line_bytes_max: Annotated[
        int,
        within(KIB, MIB),
        "Longest request target, and longest header field, in bytes; a token must fit in.",
    ] = 8190
    head_fields_max: Annotated[int, within(16, 10_000), "Most header fields of a request."] = 128
    connections_max: Annotated[
        Limit,
        "Connections to the public listener at once, in one process; more are closed as they come. Trusted "
        "proxies are never closed. 0: no limit but the system's.",
    ] = 30_000
    connections_per_address_max: Annotated[
        Limit, "The same for one address (of IPv6, one /64 network). 0: no limit."
    ] = 0
    trusted_proxies: Annotated[
        str,
        "Networks of the proxies in front of the public listener, separated by commas, for example "
        "`10.0.0.0/8,::1`: what they write into `Forwarded` or `X-Forwarded-For` is believed to be the "
        "client's address, and nothing else of it is. Empty believes nobody.",
    ] = ""
    forwarded_header: Annotated[
        Literal["any", "forwarded", "x-forwarded-for"],
        "The header the trusted proxies write. `any`: either; where a request has both, they must name the "
        "same client, because a proxy passes on the one it doesn't write.",
    ] = "any"
    tls_certificate: Annotated[
        str,
        "Path of the public listener's certificate chain (PEM); with it the listener speaks TLS 1.2 or "
        "newer, and nothing else. Read again when it changes, for new connections.",
    ] = ""
    tls_key: Annotated[str, "Path of that certificate's private key (PEM, without a password)."] = ""
    tls_client_ca: Annotated[
        str,
        "Path of the certificates (PEM) of those who may sign client certificates. Clients are asked for "
        "one, and one that is shown must be valid; needed by `auth.mtls_principal`.",
    ] = ""
    backlog: Annotated[
        int,
        within(1, 65535),
        "Connections that may wait to be accepted; the system's somaxconn also limits it.",
    ] = 4096
    workers: Annotated[
        int,
        within(1, 64),
        "Processes that share the public port, each with a core of its own; from two on another one starts "
        "them again when they die, and serves the internal listener for all.",
    ] = 1
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], "Least severe lines that are logged."
    ] = "info"
    log_format: Annotated[
        Literal["auto", "json", "console"],
        "Form of log lines on standard error; `auto` is `console` on a terminal, else `json`.",
    ] = "auto"
    traces: Annotated[
        Literal["none", "otlp"],
        "Where the spans of recorded traces go: nowhere, or by OTLP over HTTP to the collector that "
        "OpenTelemetry's own variables name (`OTEL_EXPORTER_OTLP_ENDPOINT` and its kin). Needs the extra "
        "`otel`.",
    ] = "none"

    @property
    def cors_origin_names(self) -> tuple[str, ...]:
        """The origins of `cors_origins`."""
        return listed(self.cors_origins)
