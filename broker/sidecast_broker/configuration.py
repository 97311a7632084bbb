"""Builds the settings from a file, the environment and flags, once at start.

Must not know what any setting is used for: only its type, its bounds, and what must hold between settings.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from sidecast_broker.agent_tables import SECTION, VARIABLE, Tables, from_variable, read_agents
from sidecast_broker.core.forwarded import parse_networks
from sidecast_broker.core.origins import is_origin
from sidecast_broker.core.pace import RATE_MIN, parse_rates
from sidecast_broker.setting_values import convert, unknown
from sidecast_broker.settings import (
    ALGORITHMS,
    ENV_PREFIX,
    SETTINGS,
    Agent,
    Auth,
    Nats,
    Server,
    Settings,
    is_loopback,
    sections,
)
from sidecast_schemas.subjects import InvalidId, encode_token

ENV_OF_CLIENTS = frozenset({"SIDECAST_CONFIG", "SIDECAST_TOKEN"})
"""Environment variables of the command line that are no settings."""


class InvalidSettings(ValueError):  # noqa: N818 - named as the answer reads: the settings are invalid
    """Settings that can't be started with: every problem found, one per line, each naming its setting."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


MASK = "********"

_BY_NAME = {setting.name: setting for setting in SETTINGS}
_BY_ENV = {setting.env: setting for setting in SETTINGS}
_FILE_BY_ENV = {setting.env + "_FILE": setting for setting in SETTINGS if setting.masked}
_SECTIONS = tuple(section for section, _ in sections())

# Kubernetes tells every pod about the services of its namespace; one named sidecast, or sidecast-anything,
# does it in our prefix.
_SERVICE_LINK = re.compile(
    r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$"
)
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")

_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]+)*")
_DOTS = re.compile(r"/\.{1,2}(?:/|$)")


def load(
    file: bytes | None,
    environ: Mapping[str, str],
    flags: Mapping[str, object],
    *,
    read: Callable[[str], bytes] = lambda path: Path(path).read_bytes(),
) -> Settings:
    """Build the settings: flags go before the environment, that before the file, that before defaults.

    Args:
        file: the settings file, TOML with one table per section; None for none.
        environ: environment variables; those outside `SIDECAST_` are ignored. A secret can also be given as
            the path of a file that holds it, in the variable's name with `_FILE` at its end.
        flags: values by `section.key`; None is a flag that wasn't given. `auth.insecure` is also a false
            `auth.required`, where that is given nowhere: who types it means it.
        read: reads the file a `_FILE` variable names.

    Raises:
        InvalidSettings: a key that doesn't exist, a value of the wrong type or out of bounds, or settings
            that contradict each other; all of what was found.
    """
    problems: list[str] = []
    given: dict[str, tuple[Any, str, bool]] = {}
    for name, value in _from_file(file, problems):
        given[name] = (value, "file", True)
    for name, value, variable in _from_environ(environ, read, problems):
        given[name] = (value, f"env {variable}", False)
    tables = _agent_tables(file, environ, problems)
    for name, value in flags.items():
        if name not in _BY_NAME:
            problems.append(unknown(name, list(_BY_NAME)))
        elif value is not None:
            given[name] = (value, "flag", True)
    if flags.get("auth.insecure") and "auth.required" not in given:
        given["auth.required"] = ("false", "flag", True)

    values: dict[str, dict[str, Any]] = {section: {} for section in _SECTIONS}
    for name, (value, source, strict) in given.items():
        setting = _BY_NAME[name]
        try:
            values[setting.section][setting.key] = convert(setting, value, strict)
        except ValueError as error:
            problems.append(f"{name}: {error} (from {source})")
    if problems:
        raise InvalidSettings(problems)
    structs: dict[str, Any] = {section: struct(**values[section]) for section, struct in sections()}
    sources = {name: source for name, (_, source, _) in given.items()}
    agents, sources_of_agents = read_agents(tables, structs["agent"], values["agent"], problems)
    settings = Settings(**structs, agents=agents, sources=sources | sources_of_agents)
    problems += _contradictions(settings)
    if problems:
        raise InvalidSettings(problems)
    return settings


def _agent_tables(file: bytes | None, environ: Mapping[str, str], problems: list[str]) -> Tables:
    """Give the tables of agents: of the environment all or none, as of any other setting."""
    if (text := environ.get(VARIABLE)) is not None:
        try:
            return from_variable(text)
        except ValueError as error:
            problems.append(f"{SECTION}: {error}")
            return Tables({}, "")
    try:
        return Tables(tomllib.loads((file or b"").decode()).get(SECTION, {}), "file")
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError):
        return Tables({}, "")  # what is wrong with the file is said where its sections are read


def _from_file(file: bytes | None, problems: list[str]) -> Iterator[tuple[str, Any]]:
    if file is None:
        return
    try:
        tables = tomllib.loads(file.decode())
    except UnicodeDecodeError as error:
        problems.append(f"settings file: not valid UTF-8 at byte {error.start}")
        return
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        problems.append(f"settings file: {error or 'nested too deeply'}")
        return
    for section, table in tables.items():
        if section == SECTION:
            continue
        if section not in _SECTIONS:
            problems.append(unknown(section, [*_SECTIONS, SECTION], "section"))
        elif not isinstance(table, dict):
            problems.append(f"{section}: is a section, written [{section}]")
        else:
            for key, value in table.items():
                name = f"{section}.{key}"
                if name in _BY_NAME:
                    yield name, value
                else:
                    problems.append(unknown(name, list(_BY_NAME)))


def _from_environ(
    environ: Mapping[str, str], read: Callable[[str], bytes], problems: list[str]
) -> Iterator[tuple[str, str, str]]:
    for variable, value in environ.items():
        if not variable.startswith(ENV_PREFIX) or variable in ENV_OF_CLIENTS or variable == VARIABLE:
            continue
        if _is_service_link(variable, value):
            continue
        if setting := _BY_ENV.get(variable):
            yield setting.name, value, variable
        elif setting := _FILE_BY_ENV.get(variable):
            if setting.env in environ:
                problems.append(f"{setting.name}: both {setting.env} and {variable} are set")
                continue
            try:
                yield setting.name, read(value).decode().strip(), variable
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else "not a readable path of UTF-8 text"
                problems.append(f"{setting.name}: {variable} names {value!r}: {reason}")
        else:
            problems.append(unknown(variable, [*_BY_ENV, *_FILE_BY_ENV, VARIABLE]))


def _is_service_link(variable: str, value: str) -> bool:
    if variable not in _BY_ENV and _SERVICE_LINK.search(variable):
        return True
    # A service named sidecast-server takes the very name of server.port.
    return variable.endswith("_PORT") and _SERVICE_ADDRESS.match(value) is not None


def _contradictions(settings: Settings) -> Iterator[str]:
    server, nats, log = settings.server, settings.nats, settings.log
    for name, host in (("server.host", server.host), ("server.internal_host", server.internal_host)):
        if not host or "/" in host or " " in host:
            yield f"{name}: {host!r} is not an address; 0.0.0.0 or :: listens on all"
    if server.port == server.internal_port != 0 and _overlap(server.host, server.internal_host):
        yield "server.internal_port: must differ from server.port, both listeners would be the same"
    yield from _probe_contradictions(server)
    for url in nats.url.split(","):
        if not _is_nats_url(url.strip()):
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
    if url and not _is_base_url(url):
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
    if agent.url and not _is_base_url(agent.url):
        yield _no_base_url(f"{name}.url", agent.url)
    if not agent.url:
        if agent.capture == "proxy":
            yield f"{name}.capture: proxy needs {name}.url"
        if agent.passthrough:
            yield f"{name}.passthrough: needs {name}.url"
    for path in agent.passthrough_paths:
        if not _PLAIN_PATH.fullmatch(path) or _DOTS.search(path):
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
        yield f"auth.jwt_jwks_url: {mask_url(auth.jwt_jwks_url)!r} is not {_KEY_URL}"
    if auth.jwt_issuer and not sources and not (is_key_url(auth.jwt_issuer) and "?" not in auth.jwt_issuer):
        yield (
            f"auth.jwt_issuer: {mask_url(auth.jwt_issuer)!r} is not {_KEY_URL}, so that its keys can't be "
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
    if (url := settings.auth.webhook_url) and not _is_http_url(url):
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


def _split_url(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    return parts if parts.hostname and port != 0 and " " not in url else None


def _is_nats_url(url: str) -> bool:
    parts = _split_url(url)
    return parts is not None and parts.scheme in ("nats", "tls", "ws", "wss")


def _is_http_url(url: str) -> bool:
    parts = _split_url(url)
    return parts is not None and parts.scheme in ("http", "https") and url.isascii()


def _is_base_url(url: str) -> bool:
    parts = _split_url(url)
    if parts is None or parts.scheme not in ("http", "https") or "@" in parts.netloc:
        return False
    plain = _PLAIN_PATH.fullmatch(parts.path.rstrip("/")) and not _DOTS.search(parts.path)
    return bool(plain) and "?" not in url and "#" not in url and url.isascii() and "\\" not in url


_KEY_URL = "https:// with a host (or http:// on a loopback address), without credentials and fragment"


def is_key_url(url: str) -> bool:
    """Tell whether keys that are trusted can be fetched from a URL: nobody on the way can change them."""
    parts = _split_url(url)
    if parts is None or "@" in parts.netloc or "#" in url or "\\" in url:
        return False
    plain = url.isascii() and url.isprintable()
    secure = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    return plain and secure


def mask_url(url: str) -> str:
    """Replace user, password or token of each URL of a comma separated list."""
    return re.sub(r"(?<=://)[^/,]*@", MASK + "@", url)
