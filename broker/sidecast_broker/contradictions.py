"""What must hold between settings for the broker to start with them.

Must not know where a setting comes from, nor what it is used for.
"""

from __future__ import annotations

from collections.abc import Iterator

from sidecast_broker.agent_tables import SECTION
from sidecast_broker.core.forwarded import parse_networks
from sidecast_broker.core.origins import is_origin
from sidecast_broker.core.pace import RATE_MIN, parse_rates
from sidecast_broker.setting_urls import (
    KEY_URL,
    is_base_url,
    is_http_url,
    is_key_url,
    is_nats_url,
    is_plain_path,
    mask_url,
)
from sidecast_broker.settings import ALGORITHMS, Agent, Auth, Nats, Server, Settings, is_loopback
from sidecast_schemas.subjects import InvalidId, encode_token


def contradictions(settings: Settings) -> Iterator[str]:
    """Give what keeps from starting with these settings, each naming the setting that is wrong."""
    server, nats, log = settings.server, settings.nats, settings.log
    for name, host in (("server.host", server.host), ("server.internal_host", server.internal_host)):
        if not host or "/" in host or " " in host:
            yield f"{name}: {host!r} is not an address; 0.0.0.0 or :: listens on all"
    if server.port == server.internal_port != 0 and _overlap(server.host, server.internal_host):
        yield "server.internal_port: must differ from server.port, both listeners would be the same"
    yield from _probe_contradictions(server)
    for url in nats.url.split(","):
        if not is_nats_url(url.strip()):
            yield f"nats.url: {mask_url(url.strip())!r} is not nats://, tls://, ws:// or wss:// with a host"
    if nats.duplicate_window_s > nats.max_age_s:
        yield "nats.duplicate_window_s: must not exceed nats.max_age_s"
    try:
        encode_token(settings.agent.name)
    except InvalidId as error:
        yield f"agent.name: {error}"
    pace = settings.pace
    for name in ("batch_ms", "batch_max"):
        if getattr(pace, name) > getattr(pace, f"{name}_max"):
            yield f"pace.{name}: must not exceed pace.{name}_max"
    if 0 < pace.rate < RATE_MIN or pace.rate > pace.rate_max:
        yield f"pace.rate: must be 0, or from {RATE_MIN:g} to pace.rate_max"
    try:
        if any(rate > pace.rate_max for rate in parse_rates(pace.rates).values()):
            yield "pace.rates: none may exceed pace.rate_max"
    except ValueError as error:
        yield f"pace.rates: {error}"
    if log.task_bytes_max > log.bytes_max:
        yield "log.task_bytes_max: must not exceed log.bytes_max"
    yield from _address_contradictions(settings)
    yield from _cors_contradictions(settings.server.cors_origin_names)
    yield from _listener_contradictions(settings)
    yield from _nats_contradictions(nats)
    yield from _jwt_contradictions(settings.auth)
    yield from _auth_contradictions(settings)


def _probe_contradictions(server: Server) -> Iterator[str]:
    host, port = server.probe_host, server.probe_port
    if "/" in host or " " in host:
        yield f"server.probe_host: {host!r} is not an address; 0.0.0.0 or :: listens on all"
    if not host or not port:
        return
    for name in ("", "internal_"):
        if port == getattr(server, f"{name}port") and _overlap(host, getattr(server, f"{name}host")):
            yield f"server.probe_port: must differ from server.{name}port, both listeners would be the same"


def _nats_contradictions(nats: Nats) -> Iterator[str]:
    if bool(nats.tls_certificate_file) != bool(nats.tls_key_file):
        missing = "tls_key_file" if nats.tls_certificate_file else "tls_certificate_file"
        yield f"nats.{missing}: is needed too, for a certificate to be shown"
    if nats.credentials_file and nats.nkey_seed_file:
        yield "nats.nkey_seed_file: not together with nats.credentials_file, which holds a seed of its own"


def _listener_contradictions(settings: Settings) -> Iterator[str]:
    server = settings.server
    if bool(server.tls_certificate) != bool(server.tls_key):
        missing = "tls_key" if server.tls_certificate else "tls_certificate"
        yield f"server.{missing}: is needed too, for the listener to speak TLS"
    if server.tls_client_ca and not server.tls_certificate:
        yield "server.tls_client_ca: needs server.tls_certificate: without TLS no client shows a certificate"
    if settings.auth.mtls_principal != "none" and not server.tls_client_ca:
        yield "server.tls_client_ca: is needed by auth.mtls_principal: nobody's certificate would be verified"
    try:
        parse_networks(server.trusted_proxies)
    except ValueError as error:
        yield f"server.trusted_proxies: {error}"
    if server.head_line_bytes_max > server.head_bytes_max:
        yield "server.head_line_bytes_max: must not exceed server.head_bytes_max"
    if (
        0 < server.connections_max < settings.stream.streams_max
        and "server.connections_max" in settings.sources
    ):
        yield "server.connections_max: must not be below stream.streams_max: each stream is a connection"


def _address_contradictions(settings: Settings) -> Iterator[str]:
    url = settings.server.public_url
    if url and not is_base_url(url):
        yield _no_base_url("server.public_url", url)
    yield from _agent_contradictions("agent", settings.agent)
    for name, agent in settings.agents.items():
        yield from _agent_contradictions(f"{SECTION}.{name}", agent)


def _no_base_url(name: str, url: str) -> str:
    return (
        f"{name}: {mask_url(url)!r} is not http:// or https:// with a host, and a path of plain "
        "segments at most; credentials, a query and a fragment can't be used"
    )


def _agent_contradictions(name: str, agent: Agent) -> Iterator[str]:
    try:
        encode_token(agent.tenant or "_")
    except InvalidId as error:
        yield f"{name}.tenant: {error}"
    if agent.url and not is_base_url(agent.url):
        yield _no_base_url(f"{name}.url", agent.url)
    if not agent.url:
        if agent.capture == "proxy":
            yield f"{name}.capture: proxy needs {name}.url"
        if agent.passthrough:
            yield f"{name}.passthrough: needs {name}.url"
    for path in agent.passthrough_paths:
        if not is_plain_path(path):
            yield f"{name}.passthrough: {path!r} is not a path of plain segments that begins with a slash"


def _cors_contradictions(origins: tuple[str, ...]) -> Iterator[str]:
    if "*" in origins and len(origins) > 1:
        yield "server.cors_origins: * is every origin, and stands alone"
    for origin in origins:
        if origin != "*" and not is_origin(origin):
            yield (
                f"server.cors_origins: {mask_url(origin)!r} is not an origin as browsers send it: http:// or "
                "https://, a host in small letters, and a port only where it isn't the scheme's own"
            )


SECRET_BYTES_MIN = 32
"""RFC 7518, section 3.2: a key at least as long as the hash; a short one can be guessed from any token."""


def _jwt_contradictions(auth: Auth) -> Iterator[str]:
    for algorithm in auth.jwt_algorithm_names:
        if algorithm not in ALGORITHMS:
            yield f"auth.jwt_algorithms: {algorithm!r} is none of {', '.join(ALGORITHMS)}"
    if auth.jwks_interval_s > auth.jwks_s:
        yield "auth.jwks_interval_s: must not exceed auth.jwks_s"
    if "jwt" not in auth.schemes:
        return
    if not auth.jwt_issuer:
        yield "auth.jwt_issuer: is needed to accept tokens"
    if not auth.jwt_audiences:
        yield "auth.jwt_audience: is needed to accept tokens: those made for others must not be accepted"
    sources = {
        f"auth.{key}": value
        for key, value in (
            ("jwt_jwks_url", auth.jwt_jwks_url),
            ("jwt_jwks_file", auth.jwt_jwks_file),
            ("jwt_secret", auth.jwt_secret),
        )
        if value
    }
    if len(sources) > 1:
        yield f"{', '.join(sources)}: keys can come from one of these only"
    if auth.jwt_secret and len(auth.jwt_secret.encode()) < SECRET_BYTES_MIN:
        yield f"auth.jwt_secret: must be at least {SECRET_BYTES_MIN} bytes long"
    if auth.jwt_jwks_url and not is_key_url(auth.jwt_jwks_url):
        yield f"auth.jwt_jwks_url: {mask_url(auth.jwt_jwks_url)!r} is not {KEY_URL}"
    if auth.jwt_issuer and not sources and not (is_key_url(auth.jwt_issuer) and "?" not in auth.jwt_issuer):
        yield (
            f"auth.jwt_issuer: {mask_url(auth.jwt_issuer)!r} is not {KEY_URL}, so that its keys can't be "
            "found; name them with auth.jwt_jwks_url, auth.jwt_jwks_file or auth.jwt_secret"
        )
    usable = [name for name in auth.jwt_algorithm_names if name.startswith("HS") == bool(auth.jwt_secret)]
    if not usable:
        yield "auth.jwt_algorithms: holds none for the kind of keys that is configured"


def _ticket_contradictions(auth: Auth) -> Iterator[str]:
    for name, secret in (
        ("ticket_secret", auth.ticket_secret),
        ("ticket_secret_previous", auth.ticket_secret_previous),
    ):
        if secret and len(secret.encode()) < SECRET_BYTES_MIN:
            yield f"auth.{name}: must be at least {SECRET_BYTES_MIN} bytes long"
    if auth.ticket_secret_previous and not auth.ticket_secret:
        yield "auth.ticket_secret_previous: needs auth.ticket_secret, which replaces it"
    if auth.ticket_secret and auth.ticket_secret in (auth.ticket_secret_previous, auth.jwt_secret):
        yield "auth.ticket_secret: must differ from auth.ticket_secret_previous and auth.jwt_secret"


def _auth_contradictions(settings: Settings) -> Iterator[str]:
    yield from _ticket_contradictions(settings.auth)
    if (url := settings.auth.webhook_url) and not is_http_url(url):
        yield f"auth.webhook_url: {mask_url(url)!r} is not http:// or https:// with a host"
    if settings.may_be_open or settings.auth.required == "true":
        return
    if settings.auth.required == "auto" and settings.auth.schemes:
        return
    reachable = [
        f"server.{key} = {host!r}"
        for key, host in (("host", settings.server.host), ("internal_host", settings.server.internal_host))
        if not is_loopback(host)
    ]
    where = " and ".join(reachable)
    if settings.auth.required == "false":
        yield f"auth.required: false with {where} needs auth.insecure (--insecure)"
    elif settings.auth.insecure:
        yield (
            f"auth.required: auto with {where} is not off by auth.insecure alone; to accept requests without "
            "a credential, auth.required = false is needed too"
        )
    else:
        yield (
            f"auth.required: no scheme is configured, and other machines can reach {where}; listen on "
            "127.0.0.1, or accept requests without a credential with auth.required = false and auth.insecure "
            "(--insecure sets both)"
        )


def _overlap(host: str, other: str) -> bool:
    hosts = {host, other}
    everywhere = {"0.0.0.0", "::"}  # noqa: S104 - compared with, not bound
    return len(hosts) == 1 or bool(hosts & everywhere) or hosts == {"localhost", "127.0.0.1"}
