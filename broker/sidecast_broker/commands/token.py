"""`sidecast token`: key pairs, tokens and tickets for development, and API keys.

Must not know how the broker verifies them.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from sidecast_broker.auth.api_keys import hash_key, make_key
from sidecast_broker.auth.tickets import Tickets
from sidecast_broker.commands.config import toml_value
from sidecast_broker.commands.settings_options import config_option, settings_from
from sidecast_broker.core.auth.claims import InvalidCredential, check_name, check_tenant
from sidecast_broker.core.auth.grants import InvalidGrant, parse_grant
from sidecast_broker.core.auth.principal import RIGHTS, Principal
from sidecast_broker.core.auth.tickets import TicketTooLong
from sidecast_broker.settings import Auth
from sidecast_schemas.subjects import TaskKey

RSA_BITS = 3072
RSA_EXPONENT = 65537
TTL_S_MAX = 366 * 86400

_MAKERS: dict[str, Callable[[], Any]] = {
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "RS256": lambda: rsa.generate_private_key(RSA_EXPONENT, RSA_BITS),
    "PS256": lambda: rsa.generate_private_key(RSA_EXPONENT, RSA_BITS),
}
_REQUIRED_MEMBERS = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _checked(check: Callable[[str], object]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Give a callback that refuses values of an option, each with the reason."""

    def callback(_ctx: click.Context, _param: click.Parameter, value: Any) -> Any:
        try:
            for each in value if isinstance(value, tuple) else (value,):
                if each is not None:
                    check(each)
        except (InvalidCredential, InvalidGrant) as error:
            raise click.BadParameter(str(error)) from error
        return value

    return callback


def _holder_options(command: _Command) -> _Command:
    """Add the options that say what a credential's holder may do."""
    for option in (
        click.option(
            "--right",
            "rights",
            multiple=True,
            type=click.Choice(RIGHTS),
            help="What they may do beside watching and sending; may be repeated.",
        ),
        click.option(
            "--grant",
            "grants",
            multiple=True,
            metavar="TENANT/AGENT/TASK",
            callback=_checked(parse_grant),
            help="Tasks they may watch beside their own, for example 'acme/*/*' or '_/planner/report-*'; may "
            "be repeated.",
        ),
        click.option("--tenant", callback=_checked(check_tenant), help="Bounds them to one tenant."),
    ):
        command = option(command)
    return command


def _check_name(name: str) -> str:
    return check_name(name, "the name")


@click.group("token")
def command() -> None:
    """Make keys and credentials: what a broker accepts is said by its settings in [auth]."""


# ------------------------------------------------------------------ key pairs


def make_key_pair(algorithm: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Make a key pair as JWKs, named by its thumbprint (RFC 7638).

    Args:
        algorithm: that it is to be used with.

    Returns:
        The private key, and the public one.
    """
    private_key = _MAKERS[algorithm]()
    worker = jwt.get_algorithm_by_name(algorithm)
    public = worker.to_jwk(private_key.public_key(), as_dict=True)
    required = {name: public[name] for name in _REQUIRED_MEMBERS[public["kty"]]}
    thumbprint = hashlib.sha256(msgspec.json.encode(required, order="sorted")).digest()
    names = {"kid": jwt.utils.base64url_encode(thumbprint).decode(), "alg": algorithm}
    members = {name: public[name] for name in public if name != "key_ops"}
    private = {**worker.to_jwk(private_key, as_dict=True), **names}
    private.pop("key_ops", None)
    return private, {**members, **names, "use": "sig"}


@command.command("key-pair")
@click.option("--algorithm", type=click.Choice(list(_MAKERS)), default="ES256", show_default=True)
@click.option(
    "--private",
    "private_file",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="New file for the private key, a JWK; whoever can read it can sign tokens.",
)
@click.option(
    "--jwks",
    "jwks_file",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of the JWK set, for auth.jwt_jwks_file; the public key is added to one that exists.",
)
def key_pair(algorithm: str, private_file: Path, jwks_file: Path) -> None:
    """Make a key pair: a private key that signs tokens, and the JWK set that verifies them."""
    private, public = make_key_pair(algorithm)
    try:
        keys = _keys_in(jwks_file)
        _write_private(private_file, msgspec.json.encode(private) + b"\n")
        _replace(jwks_file, msgspec.json.format(msgspec.json.encode({"keys": [*keys, public]})) + b"\n")
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error
    click.echo(public["kid"])


def _keys_in(file: Path) -> list[Any]:
    if not file.exists():
        return []
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, list[Any]])["keys"]
    except (msgspec.MsgspecError, KeyError) as error:
        raise click.ClickException(f"{file}: not a JWK set") from error


def _write_private(file: Path, content: bytes) -> None:
    """Write what only its owner may read, and overwrite nothing: the key there may be in use."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as output:
        output.write(content)


def _replace(file: Path, content: bytes) -> None:
    """Write a file so that a broker which reads it sees the old one or the new one, whole."""
    part = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    part.write_bytes(content)
    part.replace(file)


# ------------------------------------------------------------------ tokens


@command.command("sign")
@config_option
@click.option(
    "--private",
    "private_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Private key, a JWK as `key-pair` makes it [default: the secret in auth.jwt_secret].",
)
@click.option("--subject", required=True, callback=_checked(_check_name), help="The principal.")
@_holder_options
@click.option(
    "--ttl-s", type=click.IntRange(1, TTL_S_MAX), default=3600, show_default=True, help="Until it ends, in s."
)
@click.option("--issuer", help="Its `iss` [default: auth.jwt_issuer].")
@click.option("--audience", help="Its `aud` [default: the first of auth.jwt_audience].")
def sign(
    config: Path | None,
    private_file: Path | None,
    subject: str,
    tenant: str | None,
    grants: tuple[str, ...],
    rights: tuple[str, ...],
    ttl_s: int,
    issuer: str | None,
    audience: str | None,
) -> None:
    """Sign a token as the settings want it, for development."""
    auth = settings_from({"config": config}).auth
    issuer, audience = issuer or auth.jwt_issuer, audience or next(iter(auth.jwt_audiences), None)
    if not issuer or not audience:
        raise click.UsageError(
            "no issuer or no audience: give --issuer and --audience, or set them in [auth]"
        )
    now_s = int(time.time())
    claims: dict[str, Any] = {
        "iss": issuer,
        "aud": audience,
        "iat": now_s,
        "nbf": now_s,
        "exp": now_s + ttl_s,
        "jti": secrets.token_urlsafe(16),
        auth.jwt_principal_claim: subject,
    }
    if tenant is not None:
        claims[auth.jwt_tenant_claim] = tenant
    if grants:
        claims[auth.jwt_grants_claim] = list(grants)
    if rights:
        claims[auth.jwt_rights_claim] = list(rights)
    key, headers = _signing_key(private_file, auth)
    click.echo(jwt.encode(claims, key, algorithm=key.algorithm_name, headers=headers))


def _signing_key(file: Path | None, auth: Auth) -> tuple[jwt.PyJWK, dict[str, Any] | None]:
    if file is None:
        if not auth.jwt_secret:
            raise click.UsageError("nothing to sign with: give --private, or set auth.jwt_secret")
        secret = jwt.utils.base64url_encode(auth.jwt_secret.encode()).decode()
        return jwt.PyJWK({"kty": "oct", "k": secret}, algorithm="HS256"), None
    try:
        members = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
        # What a key is missing, an error message would show with all else of it.
        key = jwt.PyJWK(members)
        if "d" not in members:
            raise ValueError("a public key")
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from error
    except (msgspec.MsgspecError, jwt.PyJWTError, ValueError):
        raise click.ClickException(f"{file}: not a private key in the form of a JWK") from None
    return key, {"kid": key.key_id} if key.key_id else None


# ------------------------------------------------------------------ tickets


@command.command("ticket")
@config_option
@click.option("--principal", required=True, callback=_checked(_check_name), help="Who holds it.")
@click.option("--tenant", callback=_checked(check_tenant), help="Bounds them to one tenant.")
@click.option(
    "--task",
    "tasks",
    required=True,
    multiple=True,
    callback=_checked(_check_name),
    help="A task of the agent in agent.name; may be repeated.",
)
@click.option("--ttl-s", type=click.IntRange(1), help="Until it opens no more, in s [default: the most].")
def ticket(
    config: Path | None, principal: str, tenant: str | None, tasks: tuple[str, ...], ttl_s: int | None
) -> None:
    """Make a ticket with the secret in auth.ticket_secret, for development: nobody's leave is asked."""
    settings = settings_from({"config": config})
    if not settings.auth.ticket_secret:
        raise click.UsageError("nothing to make it with: set auth.ticket_secret, as at the broker")
    bound = None if tenant is None else check_tenant(tenant)
    of = settings.agent.tenant if bound is None else bound
    keys = [TaskKey(of, settings.agent.name, task) for task in tasks]
    holder = Principal(principal, "ticket", bound)
    try:
        click.echo(Tickets(settings.auth).make(holder, keys, time.time(), ttl_s).text)
    except TicketTooLong as error:
        raise click.UsageError(f"too many tasks: {error}") from error


# ------------------------------------------------------------------ API keys


@command.command("api-key")
@click.option(
    "--id", "key_id", required=True, callback=_checked(_check_name), help="Names it, and revokes it."
)
@click.option("--principal", callback=_checked(_check_name), help="Who holds it [default: its id].")
@_holder_options
@click.option("--ttl-s", type=click.IntRange(1), help="Until it ends, in seconds [default: it has no end].")
def api_key(
    key_id: str,
    principal: str | None,
    tenant: str | None,
    grants: tuple[str, ...],
    rights: tuple[str, ...],
    ttl_s: int | None,
) -> None:
    """Make an API key, and its entry for auth.api_keys_file.

    The key is told once, on standard error. The entry, on standard output, holds a hash, from which the key
    can't be found again.
    """
    key = make_key()
    lines = ["[[key]]", f"id = {toml_value(key_id)}", f"sha256 = {toml_value(hash_key(key))}"]
    lines.append(f"principal = {toml_value(principal or key_id)}")
    if tenant is not None:
        lines.append(f"tenant = {toml_value(tenant)}")
    lines += [
        f"{name} = [{', '.join(map(toml_value, values))}]"
        for name, values in (("grants", grants), ("rights", rights))
        if values
    ]
    now_s = time.time()
    lines.append(f"issued = {datetime.fromtimestamp(now_s, UTC):%Y-%m-%dT%H:%M:%SZ}")
    if ttl_s is not None:
        lines.append(f"expires = {datetime.fromtimestamp(now_s + ttl_s, UTC):%Y-%m-%dT%H:%M:%SZ}")
    click.echo("\n".join(lines))
    click.echo(key, err=True)
