"""What can be set, read once at start from a file, the environment and flags.

Must not know what any setting is used for: only its type, its bounds, and what must hold between settings.
The documentation of settings is generated from the descriptions here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from sidecast_broker.core.auth.principal import Principal, Scheme
from sidecast_broker.core.pace import Bounds, parse_rates

ENV_PREFIX = "SIDECAST_"


KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

Port = Annotated[int, Meta(ge=0, le=65535)]

ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"),
    *("HS256", "HS384", "HS512"),
)
"""What tokens can be signed with (RFC 7518, RFC 8037); `none` is no signature."""


class Server(Struct, frozen=True):
    """Listeners and what is common to all requests."""

    host: Annotated[str, Meta(description="Address of the public listener.")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="Port of the public listener; 0 picks a free one.")] = 8480
    internal_host: Annotated[str, Meta(description="Address of the internal listener.")] = "127.0.0.1"
    internal_port: Annotated[
        Port,
        Meta(description="Port of the internal listener (health, metrics, publish); 0 picks a free one."),
    ] = 8481
    probe_host: Annotated[
        str,
        Meta(
            description="Address of a third listener, with nothing but `/livez`, `/readyz` and `/metrics` of "
            "the internal one: for a kubelet and Prometheus, which come to the pod's address, while the "
            "internal listener stays on loopback. Empty: there is none."
        ),
    ] = ""
    probe_port: Annotated[
        Port, Meta(description="Port of the listener at `server.probe_host`; 0 picks a free one.")
    ] = 8482
    public_url: Annotated[
        str,
        Meta(
            description="Base URL under which clients reach the public listener, as the agent card names "
            "it; empty takes the request's `Host`, with `http`, or `https` on TLS. Needed behind a proxy "
            "that ends TLS or adds a path."
        ),
    ] = ""
    body_bytes_max: Annotated[
        int, Meta(ge=KIB, le=256 * MIB, description="Largest request body that is read, in bytes.")
    ] = 4 * MIB
    header_s: Annotated[
        float,
        Meta(ge=0.1, le=3600, description="Time the head of a request may take to arrive, in seconds."),
    ] = 10.0
    body_s: Annotated[
        float,
        Meta(
            ge=0.1,
            le=3600,
            description="Time a request body that is read as a whole may take to arrive, in seconds; what "
            "`agent.passthrough` passes on is bounded by `agent.timeout_s`.",
        ),
    ] = 30.0
    cors_origins: Annotated[
        str,
        Meta(
            description="Origins whose web pages may use the public listener (CORS), exactly as browsers "
            "send them, for example `https://app.example.com`, separated by commas. `*` is every origin, "
            "which then can't send the cookie of a ticket. Empty: none but the broker's own."
        ),
    ] = ""
    head_bytes_max: Annotated[
        int,
        Meta(ge=4 * KIB, le=MIB, description="Largest head of a request, in bytes: its line and all fields."),
    ] = 64 * KIB
    head_line_bytes_max: Annotated[
        int,
        Meta(
            ge=KIB,
            le=MIB,
            description="Longest request target, and longest header field, in bytes; a token must fit in.",
        ),
    ] = 8190
    head_fields_max: Annotated[
        int, Meta(ge=16, le=10_000, description="Most header fields of a request.")
    ] = 128
    connections_max: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Connections to the public listener at once, in one process; more are closed as they "
            "come. Trusted proxies are never closed. 0: no limit but the system's.",
        ),
    ] = 30_000
    connections_per_address_max: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="The same for one address (of IPv6, one /64 network). 0: no limit.",
        ),
    ] = 0
    trusted_proxies: Annotated[
        str,
        Meta(
            description="Networks of the proxies in front of the public listener, separated by commas, for "
            "example `10.0.0.0/8,::1`: what they write into `Forwarded` or `X-Forwarded-For` is believed to "
            "be the client's address, and nothing else of it is. Empty believes nobody."
        ),
    ] = ""
    forwarded_header: Annotated[
        Literal["any", "forwarded", "x-forwarded-for"],
        Meta(
            description="The header the trusted proxies write. `any`: either; where a request has both, they "
            "must name the same client, because a proxy passes on the one it doesn't write."
        ),
    ] = "any"
    tls_certificate: Annotated[
        str,
        Meta(
            description="Path of the public listener's certificate chain (PEM); with it the listener speaks "
            "TLS 1.2 or newer, and nothing else. Read again when it changes, for new connections."
        ),
    ] = ""
    tls_key: Annotated[
        str, Meta(description="Path of that certificate's private key (PEM, without a password).")
    ] = ""
    tls_client_ca: Annotated[
        str,
        Meta(
            description="Path of the certificates (PEM) of those who may sign client certificates. Clients "
            "are asked for one, and one that is shown must be valid; needed by `auth.mtls_principal`."
        ),
    ] = ""
    backlog: Annotated[
        int,
        Meta(
            ge=1,
            le=65535,
            description="Connections that may wait to be accepted; the system's somaxconn also limits it.",
        ),
    ] = 4096
    workers: Annotated[
        int,
        Meta(
            ge=1,
            le=64,
            description="Processes that share the public port, each with a core of its own; from two on "
            "another one starts them again when they die, and serves the internal listener for all.",
        ),
    ] = 1
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least severe lines that are logged.")
    ] = "info"
    log_format: Annotated[
        Literal["auto", "json", "console"],
        Meta(
            description="Form of log lines on standard error; `auto` is `console` on a terminal, else `json`."
        ),
    ] = "auto"
    traces: Annotated[
        Literal["none", "otlp"],
        Meta(
            description="Where the spans of recorded traces go: nowhere, or by OTLP over HTTP to the "
            "collector that OpenTelemetry's own variables name (`OTEL_EXPORTER_OTLP_ENDPOINT` and its kin). "
            "Needs the extra `otel`."
        ),
    ] = "none"

    @property
    def cors_origin_names(self) -> tuple[str, ...]:
        """The origins of `cors_origins`."""
        return _listed(self.cors_origins)


class Nats(Struct, frozen=True):
    """The NATS server, and the JetStream stream that holds the events."""

    url: Annotated[
        str,
        Meta(
            min_length=1,
            description="Servers, separated by commas: `nats://`, `tls://`, `ws://` or `wss://`.",
            extra={"masked": "url"},
        ),
    ] = "nats://127.0.0.1:4222"
    stream: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9_-]{1,128}$", description="Name of the JetStream stream.")
    ] = "SIDECAST"
    credentials_file: Annotated[
        str, Meta(description="Path of a NATS `.creds` file; empty connects without one.")
    ] = ""
    nkey_seed_file: Annotated[
        str, Meta(description="Path of a file with the seed of an nkey; empty connects without one.")
    ] = ""
    tls_ca_file: Annotated[
        str,
        Meta(
            description="Path of the certificates (PEM) of those who may sign the server's; empty takes the "
            "system's."
        ),
    ] = ""
    tls_certificate_file: Annotated[
        str,
        Meta(description="Path of the certificate chain (PEM) shown to the server; empty shows none."),
    ] = ""
    tls_key_file: Annotated[
        str, Meta(description="Path of that certificate's private key (PEM, without a password).")
    ] = ""
    manage_stream: Annotated[
        bool, Meta(description="Create the stream where it is missing, with the four settings below.")
    ] = True
    replicas: Annotated[
        Literal[1, 3], Meta(description="Copies of the stream the NATS cluster keeps, when it is created.")
    ] = 1
    max_age_s: Annotated[
        int,
        Meta(ge=1, le=366 * 86400, description="Age at which an event is discarded, in seconds."),
    ] = 86400
    max_bytes: Annotated[
        int,
        Meta(
            ge=MIB,
            le=1024 * GIB,
            description="Size at which the oldest events are discarded, in bytes; one limit for all tenants.",
        ),
    ] = GIB
    duplicate_window_s: Annotated[
        float,
        Meta(ge=0.1, le=86400, description="Time in which a repeated message id is stored once, in seconds."),
    ] = 120.0
    messages_age_s: Annotated[
        int,
        Meta(
            ge=0,
            le=366 * 86400,
            description="Time for which all brokers know which task a message has begun, in seconds: sent "
            "again, it begins no other. 0: only the broker it came through knows, for five minutes.",
        ),
    ] = 86400
    verify_s: Annotated[
        float,
        Meta(
            ge=0.1,
            le=300,
            description="How often watched tasks are compared with the stream, in seconds: republished "
            "events can be lost without a sign.",
        ),
    ] = 5.0
    request_s: Annotated[
        float, Meta(ge=0.1, le=60, description="Time one request to NATS may take, in seconds.")
    ] = 2.0
    page_events: Annotated[
        int, Meta(ge=1, le=1000, description="Events asked for by one read of a task's history.")
    ] = 256
    history_reads_max: Annotated[
        int, Meta(ge=1, le=1024, description="Reads of task history under way at once.")
    ] = 16


class Agent(Struct, frozen=True):
    """The agent this broker stands beside; or, of several, one of the others."""

    name: Annotated[
        str, Meta(description="Name the agent publishes under; requests that name no agent mean this one.")
    ] = "agent"
    tenant: Annotated[
        str, Meta(description="Tenant of requests that carry none; empty is the tenant without a name.")
    ] = ""
    url: Annotated[
        str,
        Meta(
            description="Base URL of the agent; its card is at `/.well-known/agent-card.json` below it. "
            "Empty is no agent: tasks can be watched, by a card of the broker's own, and every other A2A "
            "operation answers with an error.",
        ),
    ] = ""
    capture: Annotated[
        Literal["adapter", "proxy"],
        Meta(
            description="Who publishes the agent's events: the agent itself, with the adapter, or this "
            "broker, from what the agent answers."
        ),
    ] = "adapter"
    passthrough: Annotated[
        str,
        Meta(
            description="Paths beyond A2A that are passed to the agent with all below them, separated by "
            "commas, for example `/docs,/files`; `/` passes everything the broker doesn't serve itself."
        ),
    ] = ""
    timeout_s: Annotated[
        float,
        Meta(
            ge=0.1,
            le=86400,
            description="Silence of the agent after which a request is given up, in seconds; event streams "
            "may be silent for longer once they have begun. Blocking sends take as long as the agent works.",
        ),
    ] = 60.0
    card_s: Annotated[
        float,
        Meta(
            ge=1,
            le=86400,
            description="Time the agent's card is kept before it is asked for again, in seconds.",
        ),
    ] = 60.0

    @property
    def passthrough_paths(self) -> tuple[str, ...]:
        """The paths of `passthrough`, without a slash at their ends; `/` is the empty one."""
        return tuple(path.strip().rstrip("/") for path in self.passthrough.split(",") if path.strip())


class Auth(Struct, frozen=True):
    """Who may open a stream."""

    required: Annotated[
        Literal["auto", "true", "false"],
        Meta(
            description="Whether requests need a credential. `auto` is off only while no scheme is "
            "configured and both listeners are on loopback addresses; `true` without a scheme answers 401 to "
            "everything; `false` elsewhere than on loopback needs `auth.insecure`."
        ),
    ] = "auto"
    insecure: Annotated[
        bool,
        Meta(
            description="Allow `auth.required = false` on addresses that other machines can reach; alone it "
            "switches nothing off. The flag `--insecure` sets both."
        ),
    ] = False
    jwt_issuer: Annotated[
        str,
        Meta(
            description="Issuer of the tokens that are accepted, exactly as their `iss`. Without one of the "
            "three ways to get keys below, they are found by OpenID Connect discovery."
        ),
    ] = ""
    jwt_audience: Annotated[
        str,
        Meta(description="Whom tokens must be meant for (`aud`): any of these, separated by commas."),
    ] = ""
    jwt_jwks_url: Annotated[
        str,
        Meta(description="URL of the issuer's JWK set: `https://`, or `http://` on a loopback address."),
    ] = ""
    jwt_jwks_file: Annotated[
        str, Meta(description="Path of a file that holds the issuer's JWK set; read again when it changes.")
    ] = ""
    jwt_secret: Annotated[
        str,
        Meta(
            description="Secret that is shared with the issuer, at least 32 bytes, for tokens signed with "
            "HS256, HS384 (48 bytes) or HS512 (64 bytes).",
            extra={"masked": "whole"},
        ),
    ] = ""
    jwt_algorithms: Annotated[
        str,
        Meta(
            description="Algorithms that tokens may be signed with, separated by commas. Each key is used "
            "with those of its own type only, and where it names one, with that one only."
        ),
    ] = ",".join(ALGORITHMS)
    jwt_leeway_s: Annotated[
        float,
        Meta(ge=0, le=120, description="How far the issuer's clock may differ from this one, in seconds."),
    ] = 30.0
    jwt_principal_claim: Annotated[str, Meta(min_length=1, description="Claim that names the principal.")] = (
        "sub"
    )
    jwt_tenant_claim: Annotated[
        str,
        Meta(
            min_length=1,
            description="Claim that names the tenant which bounds the principal; a token without it is not "
            "bound to one.",
        ),
    ] = "tenant"
    jwt_grants_claim: Annotated[
        str,
        Meta(min_length=1, description="Claim with the list of grants, each `tenant/agent/task`."),
    ] = "sidecast_grants"
    jwt_rights_claim: Annotated[
        str, Meta(min_length=1, description="Claim with the list of rights: `publish`, `admin`.")
    ] = "sidecast_rights"
    jwks_s: Annotated[
        float,
        Meta(ge=1, le=86400, description="How often the issuer's keys are fetched again, in seconds."),
    ] = 300.0
    jwks_interval_s: Annotated[
        float,
        Meta(
            ge=1,
            le=3600,
            description="Least time between two fetches of the issuer's keys, in seconds, however many "
            "tokens name keys that are not known.",
        ),
    ] = 10.0
    api_keys_file: Annotated[
        str,
        Meta(
            description="Path of a TOML file with the SHA-256 hashes of API keys and who holds them; read "
            "again when it changes. `sidecast token api-key` makes its entries."
        ),
    ] = ""
    mtls_principal: Annotated[
        Literal["none", "cn", "uri", "dns", "email"],
        Meta(
            description="What names the principal in a client's certificate: the subject's common name, or "
            "the alternative name of that kind; `none`: certificates name nobody."
        ),
    ] = "none"

    ticket_secret: Annotated[
        str,
        Meta(
            description="Secret that tickets and the page tokens of lists are made with, at least 32 bytes, "
            "the same on all replicas. Empty: random, so that both are good at the process that made them "
            "only.",
            extra={"masked": "whole"},
        ),
    ] = ""
    ticket_secret_previous: Annotated[
        str,
        Meta(
            description="The secret before, while it is replaced: what was made with it is still taken.",
            extra={"masked": "whole"},
        ),
    ] = ""
    ticket_ttl_s_max: Annotated[
        int,
        Meta(
            ge=1,
            le=3600,
            description="Longest time a ticket opens streams, in seconds; those it opened live as long as "
            "the credential it was made with.",
        ),
    ] = 300
    expiring_s: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="Time before the end of its credential at which a stream is told of it, in seconds.",
        ),
    ] = 30.0
    revocation_s: Annotated[
        int,
        Meta(
            ge=60,
            le=366 * 86400,
            description="Time a revocation lives, in seconds: at least as long as credentials do, for one "
            "that outlives it is accepted again. The same for all brokers of a stream.",
        ),
    ] = 86400

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        """The kinds of credential that are configured; tickets are made with any of them."""
        jwt = (self.jwt_issuer, self.jwt_audience, self.jwt_jwks_url, self.jwt_jwks_file, self.jwt_secret)
        configured: dict[Scheme, bool] = {
            "jwt": any(jwt),
            "api_key": bool(self.api_keys_file),
            "mtls": self.mtls_principal != "none",
        }
        return tuple(scheme for scheme, is_configured in configured.items() if is_configured)

    @property
    def jwt_audiences(self) -> tuple[str, ...]:
        """The audiences of `jwt_audience`."""
        return _listed(self.jwt_audience)

    @property
    def jwt_algorithm_names(self) -> tuple[str, ...]:
        """The algorithms of `jwt_algorithms`."""
        return _listed(self.jwt_algorithms)

    refusal_floor_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000,
            description="Time from a request to the answer that there is no such task, or none for who asks, "
            "in ms; it leaves after a whole number of these, so that what took how long tells nothing.",
        ),
    ] = 100
    webhook_url: Annotated[
        str,
        Meta(
            description="URL that is asked by `POST` whether a principal may watch a task they neither own "
            'nor have a grant for; `200` with `{"allow": true}` allows it. Empty asks nobody.',
            extra={"masked": "url"},
        ),
    ] = ""
    tickets_per_minute_max: Annotated[
        int,
        Meta(ge=0, le=1_000_000, description="Tickets per minute for one principal. 0: no limit."),
    ] = 600
    webhook_timeout_s: Annotated[
        float,
        Meta(ge=0.05, le=30, description="Time after which no answer of the webhook is a no, in seconds."),
    ] = 2.0
    webhook_cache_s: Annotated[
        float,
        Meta(
            ge=0,
            le=300,
            description="Time an answer of the webhook holds, yes or no, in seconds; 0 asks anew.",
        ),
    ] = 5.0


class Stream(Struct, frozen=True):
    """Streams to clients."""

    heartbeat_s: Annotated[
        float, Meta(ge=0.1, le=300, description="Silence after which a heartbeat is sent, in seconds.")
    ] = 15.0
    a2a_heartbeat_s: Annotated[
        float,
        Meta(
            ge=0.1,
            le=300,
            description="The same on A2A streams, in seconds: Python clients give up after 5 s of silence.",
        ),
    ] = 3.0
    retry_ms: Annotated[
        int, Meta(ge=0, le=600_000, description="Time clients are told to wait before reconnecting, in ms.")
    ] = 1000
    buffer_bytes_max: Annotated[
        int,
        Meta(
            ge=4 * KIB,
            le=64 * MIB,
            description="Write buffer of one client, in bytes; beyond it the client leaves the shared loop "
            "and is sent to at its own pace.",
        ),
    ] = 256 * KIB
    send_buffer_bytes: Annotated[
        int,
        Meta(
            ge=4 * KIB,
            le=16 * MIB,
            description="Kernel send buffer of one client (SO_SNDBUF), in bytes; small shows lag early.",
        ),
    ] = 64 * KIB
    lag_s_max: Annotated[
        float,
        Meta(ge=0.1, le=3600, description="Age of the oldest unsent event that counts as lag, in seconds."),
    ] = 30.0
    skip_s: Annotated[
        float,
        Meta(
            ge=0.1,
            le=3600,
            description="Time a client with `?slow=snapshot` may be behind before it is sent the task as it "
            "stands instead of what it has missed, in seconds.",
        ),
    ] = 1.0
    wait_s_max: Annotated[
        float,
        Meta(ge=0, le=60, description="Longest `?wait_s=` for a task that does not exist yet, in seconds."),
    ] = 60.0
    drain_s: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="Time over which streams are told to reconnect elsewhere on SIGTERM, in seconds.",
        ),
    ] = 5.0
    age_max_s: Annotated[
        float,
        Meta(
            ge=0,
            le=30 * 86400,
            description="Age at which a stream is told to reconnect, so that long ones spread over brokers "
            "again, in seconds; each at a random time in the last quarter of it. 0: none is.",
        ),
    ] = 0.0
    streams_max: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Streams open at once in one process.")
    ] = 20_000
    streams_per_principal_max: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="The same for one principal, where they are told apart. 0: no limit.",
        ),
    ] = 10_000
    streams_per_address_max: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="The same for one address (of IPv6, one /64 network); needs "
            "`server.trusted_proxies` behind a proxy, where else all clients have one. 0: no limit.",
        ),
    ] = 0
    streams_per_task_max: Annotated[
        int, Meta(ge=0, le=1_000_000, description="The same for one task. 0: no limit.")
    ] = 0
    tasks_per_stream_max: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="Tasks that one stream may list, and that one of an agent or context begins with.",
        ),
    ] = 256
    opens_per_s_max: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="New streams per second in one process, of those who may have one: who reconnects "
            "with many others is told when to come again. 0: no limit.",
        ),
    ] = 0
    opens_burst_max: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="New streams at once after silence, where `stream.opens_per_s_max` limits them. 0: "
            "as many as in a second.",
        ),
    ] = 0
    opens_per_address_per_minute_max: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Requests for streams per minute from one address, also such that are refused; "
            "needs `server.trusted_proxies` behind a proxy. 0: no limit.",
        ),
    ] = 0
    waiters_max: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Streams that wait for their task to begin (`?wait_s=`), in one process. 0: no "
            "limit.",
        ),
    ] = 10_000
    waiters_per_principal_max: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="The same for one principal, where they are told apart. 0: no limit.",
        ),
    ] = 5_000
    subscriptions_max: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000,
            description="Streams of named subscriptions open at once in one process: each costs the NATS "
            "server. 0: no limit.",
        ),
    ] = 200
    subscriptions_per_principal_max: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000,
            description="Named subscriptions of one principal, at all brokers, open or not; of all clients "
            "together where no credential is needed. 0: no limit.",
        ),
    ] = 200
    subscription_inactive_s: Annotated[
        float,
        Meta(
            ge=1,
            le=2_592_000,
            description="Time after which a named subscription that nobody has open is forgotten, in "
            "seconds; no use beyond `nats.max_age_s`.",
        ),
    ] = 86_400.0


class Pace(Struct, frozen=True):
    """How fast each client is sent to, and what it may ask for."""

    batch_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=60_000,
            description="Time over which events gather for a client that asks for no `?batch_ms=`, in ms. "
            "0: they go out as they come.",
        ),
    ] = 0
    batch_ms_max: Annotated[
        int, Meta(ge=0, le=60_000, description="Longest `?batch_ms=` a client may ask for, in ms.")
    ] = 5_000
    batch_max: Annotated[
        int,
        Meta(ge=1, le=100_000, description="Events that go out at once where `?batch_max=` names no number."),
    ] = 100
    batch_max_max: Annotated[
        int, Meta(ge=1, le=100_000, description="Largest `?batch_max=` a client may ask for.")
    ] = 1_000
    rate: Annotated[
        float,
        Meta(
            ge=0,
            le=100_000,
            description="Events per second for a client that asks for no `?max_rate=`. 0: as many as come.",
        ),
    ] = 0.0
    rate_max: Annotated[
        float,
        Meta(
            ge=0.1, le=100_000, description="Highest `?max_rate=` a client may ask for, in events per second."
        ),
    ] = 1_000.0
    rates: Annotated[
        str,
        Meta(
            description="The same for single principals: `NAME=EVENTS_PER_S`, separated by commas, for "
            "example `alice=10,reports=0`; the others have `pace.rate`."
        ),
    ] = ""
    burst: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="Events a client with a rate is sent at once after silence.",
        ),
    ] = 20
    late_s_max: Annotated[
        float,
        Meta(
            ge=1,
            le=86400,
            description="How late a client with a rate may be by that before `?slow=` acts, in seconds.",
        ),
    ] = 300.0

    def bounds(self, principal: Principal) -> Bounds:
        """Give the same as `parse_pace` takes it for a principal."""
        bounds = Bounds(**{name: getattr(self, name) for name in Bounds._fields})
        if not self.rates or principal.anybody:
            return bounds
        return bounds._replace(rate=parse_rates(self.rates).get(principal.name, self.rate))


class Log(Struct, frozen=True):
    """Recent events kept in memory."""

    task_bytes_max: Annotated[
        int, Meta(ge=KIB, le=GIB, description="Recent events of one task in memory, in bytes.")
    ] = 8 * MIB
    bytes_max: Annotated[
        int, Meta(ge=KIB, le=64 * GIB, description="Recent events of all tasks in memory, in bytes.")
    ] = 256 * MIB
    idle_s: Annotated[
        float,
        Meta(ge=0, le=86400, description="Time after which a task nobody watches leaves memory, in seconds."),
    ] = 60.0


class Internal(Struct, frozen=True):
    """The internal listener."""

    open: Annotated[
        bool,
        Meta(
            description="Serve publishing and administration without a credential on loopback, while no "
            "credential is needed."
        ),
    ] = True


class Settings(Struct, frozen=True):
    """Everything that can be set; every field has a default that works on one machine.

    Attributes:
        agents: the agents beside the one of `agent`, by name; what `[agents.NAME]` leaves out is filled in.
        sources: where each setting that isn't at its default came from, by `section.key`.
    """

    server: Server = Server()
    nats: Nats = Nats()
    agent: Agent = Agent()
    auth: Auth = Auth()
    stream: Stream = Stream()
    pace: Pace = Pace()
    log: Log = Log()
    internal: Internal = Internal()
    agents: dict[str, Agent] = {}
    sources: dict[str, str] = {}

    @property
    def of_agents(self) -> tuple[Settings, ...]:
        """These settings as each agent is served by them: that of `agent.name` first."""
        alone = msgspec.structs.replace(self, agents={})
        return alone, *(msgspec.structs.replace(alone, agent=agent) for agent in self.agents.values())

    @property
    def auth_on(self) -> bool:
        """Whether requests need a credential."""
        asked_for = self.auth.required == "true" or (self.auth.required == "auto" and self.auth.schemes)
        return bool(asked_for) or not self.may_be_open

    @property
    def may_be_open(self) -> bool:
        """Whether requests without a credential are acceptable: on loopback, or where asked for."""
        hosts = (self.server.host, self.server.internal_host)
        asked_for = self.auth.required == "false" and self.auth.insecure
        return asked_for or all(map(is_loopback, hosts))


def _listed(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


class Setting(NamedTuple):
    """One setting as documentation and `load` see it.

    Attributes:
        type: its annotation with bounds, for `msgspec.convert`.
        metas: the bounds and descriptions of that annotation, outermost first.
    """

    section: str
    key: str
    type: Any
    default: Any
    metas: tuple[Meta, ...]

    @property
    def name(self) -> str:
        """`section.key`, as in messages and documentation."""
        return f"{self.section}.{self.key}"

    @property
    def env(self) -> str:
        """Its environment variable."""
        return f"{ENV_PREFIX}{self.section}_{self.key}".upper()

    @property
    def description(self) -> str:
        """What it sets, one or two sentences."""
        return next(meta.description for meta in self.metas if meta.description)

    @property
    def masked(self) -> Literal["whole", "url"] | None:
        """How a secret is masked: as a whole, or only the user part of URLs; None: it is no secret."""
        return next((meta.extra["masked"] for meta in self.metas if meta.extra), None)


def _metas(annotation: Any) -> tuple[Meta, ...]:
    if get_origin(annotation) is not Annotated:
        return ()
    return tuple(meta for meta in reversed(get_args(annotation)[1:]) if isinstance(meta, Meta))


def sections() -> Iterator[tuple[str, type[Struct]]]:
    """Give every section with its struct."""
    for field in msgspec.structs.fields(Settings):
        if isinstance(field.type, type) and issubclass(field.type, Struct):
            yield field.name, field.type


def _all_settings() -> Iterator[Setting]:
    for section, struct in sections():
        hints = get_type_hints(struct, include_extras=True)
        for field in msgspec.structs.fields(struct):
            annotation = hints[field.name]
            yield Setting(section, field.name, annotation, field.default, _metas(annotation))


SETTINGS: tuple[Setting, ...] = tuple(_all_settings())
"""Every setting, by section, in the order of their documentation."""


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a listener on that address."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
