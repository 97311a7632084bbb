"""What can be set, read once at start from a file, the environment and flags.

Must not know what any setting is used for: only its type, its bounds, and what must hold between settings.
The documentation of settings is generated from the descriptions here.
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints
from urllib.parse import SplitResult, urlsplit

import msgspec
from msgspec import Meta, Struct

from sidecast_schemas.subjects import InvalidId, encode_token

ENV_PREFIX = "SIDECAST_"

ENV_OF_CLIENTS = frozenset({"SIDECAST_CONFIG", "SIDECAST_TOKEN"})
"""Environment variables of the command line that are no settings."""

MASK = "********"

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

Port = Annotated[int, Meta(ge=0, le=65535)]


class InvalidSettings(ValueError):  # noqa: N818 - named as the answer reads: the settings are invalid
    """Settings that can't be started with: every problem found, one per line, each naming its setting."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Server(Struct, frozen=True):
    """Listeners and what is common to all requests."""

    host: Annotated[str, Meta(description="Address of the public listener.")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="Port of the public listener; 0 picks a free one.")] = 8480
    internal_host: Annotated[str, Meta(description="Address of the internal listener.")] = "127.0.0.1"
    internal_port: Annotated[
        Port,
        Meta(description="Port of the internal listener (health, metrics, publish); 0 picks a free one."),
    ] = 8481
    body_bytes_max: Annotated[
        int, Meta(ge=KIB, le=256 * MIB, description="Largest request body that is read, in bytes.")
    ] = 4 * MIB
    backlog: Annotated[
        int,
        Meta(
            ge=1,
            le=65535,
            description="Connections that may wait to be accepted; the system's somaxconn also limits it.",
        ),
    ] = 4096
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least severe lines that are logged.")
    ] = "info"
    log_format: Annotated[
        Literal["auto", "json", "console"],
        Meta(
            description="Form of log lines on standard error; `auto` is `console` on a terminal, else `json`."
        ),
    ] = "auto"


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
    """The agent this broker stands beside."""

    name: Annotated[
        str, Meta(description="Name the agent publishes under; requests that name no agent mean this one.")
    ] = "agent"
    tenant: Annotated[
        str, Meta(description="Tenant of requests that carry none; empty is the tenant without a name.")
    ] = ""


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
        Meta(description="Allow requests without a credential on addresses that other machines can reach."),
    ] = False


class Stream(Struct, frozen=True):
    """Streams to clients."""

    heartbeat_s: Annotated[
        float, Meta(ge=0.1, le=300, description="Silence after which a heartbeat is sent, in seconds.")
    ] = 15.0
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
    streams_max: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Streams open at once in one process.")
    ] = 20_000


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
            "scheme is configured."
        ),
    ] = True


class Settings(Struct, frozen=True):
    """Everything that can be set; every field has a default that works on one machine.

    Attributes:
        sources: where each setting that isn't at its default came from, by `section.key`.
    """

    server: Server = Server()
    nats: Nats = Nats()
    agent: Agent = Agent()
    auth: Auth = Auth()
    stream: Stream = Stream()
    log: Log = Log()
    internal: Internal = Internal()
    sources: dict[str, str] = {}

    @property
    def auth_on(self) -> bool:
        """Whether requests need a credential."""
        return self.auth.required == "true" or (self.auth.required == "auto" and not self.may_be_open)

    @property
    def may_be_open(self) -> bool:
        """Whether requests without a credential are acceptable: both listeners on loopback, or told so."""
        hosts = (self.server.host, self.server.internal_host)
        return self.auth.insecure or all(map(is_loopback, hosts))


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


def _sections() -> Iterator[tuple[str, type[Struct]]]:
    for field in msgspec.structs.fields(Settings):
        if isinstance(field.type, type) and issubclass(field.type, Struct):
            yield field.name, field.type


def _all_settings() -> Iterator[Setting]:
    for section, struct in _sections():
        hints = get_type_hints(struct, include_extras=True)
        for field in msgspec.structs.fields(struct):
            annotation = hints[field.name]
            yield Setting(section, field.name, annotation, field.default, _metas(annotation))


SETTINGS: tuple[Setting, ...] = tuple(_all_settings())
"""Every setting, by section, in the order of their documentation."""

_BY_NAME = {setting.name: setting for setting in SETTINGS}
_BY_ENV = {setting.env: setting for setting in SETTINGS}
_FILE_BY_ENV = {setting.env + "_FILE": setting for setting in SETTINGS if setting.masked}
_SECTIONS = tuple(section for section, _ in _sections())

# Kubernetes tells every pod about the services of its namespace; one named sidecast, or sidecast-anything,
# does it in our prefix.
_SERVICE_LINK = re.compile(
    r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$"
)
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


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
        flags: values by `section.key`; None is a flag that wasn't given.
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
    for name, value in flags.items():
        if name not in _BY_NAME:
            problems.append(_unknown(name, list(_BY_NAME)))
        elif value is not None:
            given[name] = (value, "flag", True)

    values: dict[str, dict[str, Any]] = {section: {} for section in _SECTIONS}
    for name, (value, source, strict) in given.items():
        setting = _BY_NAME[name]
        try:
            values[setting.section][setting.key] = _convert(setting, value, strict)
        except ValueError as error:
            problems.append(f"{name}: {error} (from {source})")
    if problems:
        raise InvalidSettings(problems)
    sections: dict[str, Any] = {section: struct(**values[section]) for section, struct in _sections()}
    settings = Settings(
        **sections,
        sources={name: source for name, (_, source, _) in given.items()},
    )
    problems = list(_contradictions(settings))
    if problems:
        raise InvalidSettings(problems)
    return settings


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
        if section not in _SECTIONS:
            problems.append(_unknown(section, list(_SECTIONS), "section"))
        elif not isinstance(table, dict):
            problems.append(f"{section}: is a section, written [{section}]")
        else:
            for key, value in table.items():
                name = f"{section}.{key}"
                if name in _BY_NAME:
                    yield name, value
                else:
                    problems.append(_unknown(name, list(_BY_NAME)))


def _from_environ(
    environ: Mapping[str, str], read: Callable[[str], bytes], problems: list[str]
) -> Iterator[tuple[str, str, str]]:
    for variable, value in environ.items():
        if not variable.startswith(ENV_PREFIX) or variable in ENV_OF_CLIENTS:
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
            problems.append(_unknown(variable, [*_BY_ENV, *_FILE_BY_ENV]))


def _is_service_link(variable: str, value: str) -> bool:
    if variable not in _BY_ENV and _SERVICE_LINK.search(variable):
        return True
    # A service named sidecast-server takes the very name of server.port.
    return variable.endswith("_PORT") and _SERVICE_ADDRESS.match(value) is not None


def _unknown(name: str, known: list[str], what: str = "setting") -> str:
    # A key in the wrong section is as likely as a misspelt one.
    key = name.rpartition(".")[2]
    near = [candidate for candidate in known if "." in name and candidate.endswith("." + key)]
    near = near or difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"{name}: there is no such {what}; the nearest is {near[0]}"


def _convert(setting: Setting, value: Any, strict: bool) -> Any:
    if isinstance(value, bool) and setting.name == "auth.required":
        value = str(value).lower()
    converted = msgspec.convert(value, setting.type, strict=strict)
    # Bounds don't hold NaN back: every comparison with it is false.
    if isinstance(converted, float) and not math.isfinite(converted):
        raise ValueError("must be a finite number")
    if isinstance(converted, str) and not converted.isprintable():
        raise ValueError("must not hold control characters")
    return converted


def _contradictions(settings: Settings) -> Iterator[str]:
    server, nats, log = settings.server, settings.nats, settings.log
    for name, host in (("server.host", server.host), ("server.internal_host", server.internal_host)):
        if not host or "/" in host or " " in host:
            yield f"{name}: {host!r} is not an address; 0.0.0.0 or :: listens on all"
    if server.port == server.internal_port != 0 and _overlap(server.host, server.internal_host):
        yield "server.internal_port: must differ from server.port, both listeners would be the same"
    for url in nats.url.split(","):
        if not _is_nats_url(url.strip()):
            yield f"nats.url: {mask_url(url.strip())!r} is not nats://, tls://, ws:// or wss:// with a host"
    if nats.duplicate_window_s > nats.max_age_s:
        yield "nats.duplicate_window_s: must not exceed nats.max_age_s"
    try:
        encode_token(settings.agent.name)
        if settings.agent.tenant:
            encode_token(settings.agent.tenant)
    except InvalidId as error:
        yield f"agent.name, agent.tenant: {error}"
    if log.task_bytes_max > log.bytes_max:
        yield "log.task_bytes_max: must not exceed log.bytes_max"
    yield from _auth_contradictions(settings)


def _auth_contradictions(settings: Settings) -> Iterator[str]:
    if settings.may_be_open or settings.auth.required == "true":
        return
    reachable = [
        f"server.{key} = {host!r}"
        for key, host in (("host", settings.server.host), ("internal_host", settings.server.internal_host))
        if not is_loopback(host)
    ]
    where = " and ".join(reachable)
    if settings.auth.required == "false":
        yield f"auth.required: false with {where} needs auth.insecure (--insecure)"
    else:
        yield (
            f"auth.required: no scheme is configured, and other machines can reach {where}; listen on "
            "127.0.0.1, or accept requests without a credential with auth.insecure (--insecure)"
        )


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


def mask_url(url: str) -> str:
    """Replace user, password or token of each URL of a comma separated list."""
    return re.sub(r"(?<=://)[^/,]*@", MASK + "@", url)
