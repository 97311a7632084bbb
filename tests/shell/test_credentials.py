from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from issuer import AUDIENCE, ISSUER, NOW_S, SECRET, Clock, auth_settings, claims, jwks, token
from multidict import CIMultiDict

from sidecast_broker.auth.api_keys import hash_key
from sidecast_broker.auth.credentials import Credentials
from sidecast_broker.auth.watched_file import UnusableFile
from sidecast_broker.configuration import load
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.refused import Refused
from sidecast_broker.settings import Auth

KEY = "sidecast_" + "k3y" * 14
TICKET = "dGlja2V0"
BEARER = f"Bearer {token('p256')}"


class OneTicket:
    """Stands in for the tickets: knows one."""

    def ticket(self, text: str, now_s: float) -> Principal | None:
        return Principal("carol", "ticket", ends_at_s=now_s + 60) if text == TICKET else None


@pytest.fixture
def settings(tmp_path: Path) -> Auth:
    (tmp_path / "jwks.json").write_bytes(jwks("rsa", "p256"))
    (tmp_path / "keys.toml").write_text(
        f'[[key]]\nid = "one"\nsha256 = "{hash_key(KEY)}"\nprincipal = "bob"\n'
        f'[[key]]\nid = "old"\nsha256 = "{hash_key("old")}"\nprincipal = "bob"\n'
        "expires = 2001-01-01T00:00:00Z\n"
    )
    return auth_settings(jwt_jwks_file=str(tmp_path / "jwks.json"), api_keys_file=str(tmp_path / "keys.toml"))


@pytest.fixture
async def credentials(settings: Auth) -> AsyncIterator[Credentials]:
    credentials = Credentials(settings, tickets=OneTicket(), clock=Clock())
    await credentials.start()
    yield credentials
    await credentials.close()


def request(target: str = "/tasks/t/events", *headers: tuple[str, str]) -> web.BaseRequest:
    return make_mocked_request("GET", target, headers=CIMultiDict(headers))


async def refused(credentials: Credentials, target: str, *headers: tuple[str, str]) -> Refused:
    with pytest.raises(Refused) as caught:
        await credentials.principal(request(target, *headers))
    response = caught.value.response()
    assert (response.status, "WWW-Authenticate" in response.headers) in ((401, True), (503, False))
    return caught.value


def short(value: object) -> str:
    """Name a case the same in every process, whatever keys were made there."""
    return repr(value)[:28]


AUTHORIZATION, API_KEY, COOKIE = "Authorization", "X-API-Key", "Cookie"


@pytest.mark.parametrize(
    ("target", "headers", "name"),
    [
        ("/", [(AUTHORIZATION, BEARER)], "alice"),
        ("/", [(AUTHORIZATION, BEARER.replace("Bearer", "bearer"))], "alice"),
        ("/", [(AUTHORIZATION, BEARER.replace("Bearer ", "BEARER   "))], "alice"),
        ("/", [(AUTHORIZATION, f"Bearer {KEY}")], "bob"),
        ("/", [(API_KEY, KEY)], "bob"),
        (f"/?ticket={TICKET}", [], "carol"),
        (f"/?a=b&ticket={TICKET}&c=d", [], "carol"),
        ("/", [(COOKIE, f"sidecast_ticket={TICKET}")], "carol"),
        ("/", [(COOKIE, f"a=b; sidecast_ticket={TICKET}; c=d")], "carol"),
        # Browsers send cookies unasked, also with the request that asks for a new ticket.
        ("/", [(AUTHORIZATION, BEARER), (COOKIE, f"sidecast_ticket={TICKET}")], "alice"),
        ("/", [(API_KEY, KEY), (COOKIE, "sidecast_ticket=old")], "bob"),
        (f"/?ticket={TICKET}", [(COOKIE, "sidecast_ticket=old")], "carol"),
        ("/?tickets=x&xticket=y", [(API_KEY, KEY)], "bob"),
    ],
    ids=short,
)
async def test_each_kind_of_credential(
    credentials: Credentials, target: str, headers: list[tuple[str, str]], name: str
) -> None:
    assert (await credentials.principal(request(target, *headers))).name == name


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/", []),
        ("/?ticke=t", []),
        ("/?Ticket=dGlja2V0", []),
        ("/?%74icket=dGlja2V0", []),
        ("/ticket=dGlja2V0", []),
        ("/", [(COOKIE, "ticket=dGlja2V0")]),
        ("/", [(COOKIE, "Sidecast_Ticket=dGlja2V0")]),
        ("/", [("Proxy-Authorization", BEARER)]),
        ("/", [("X-Api-Token", KEY)]),
    ],
    ids=short,
)
async def test_no_credential(credentials: Credentials, target: str, headers: list[tuple[str, str]]) -> None:
    assert (await refused(credentials, target, *headers)).detail == "a credential is required"


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/", [(AUTHORIZATION, BEARER), (AUTHORIZATION, BEARER)]),
        ("/", [(AUTHORIZATION, BEARER), (AUTHORIZATION, "Bearer x")]),
        ("/", [(AUTHORIZATION, "Basic x"), (AUTHORIZATION, BEARER)]),
        ("/", [(AUTHORIZATION, BEARER), (API_KEY, KEY)]),
        ("/", [(AUTHORIZATION, f"Bearer {KEY}"), (API_KEY, KEY)]),
        ("/", [(AUTHORIZATION, ""), (API_KEY, KEY)]),
        ("/", [(AUTHORIZATION, BEARER), (API_KEY, "")]),
        ("/", [(API_KEY, KEY), (API_KEY, KEY)]),
        ("/", [(API_KEY, KEY), ("x-api-key", "x")]),
        (f"/?ticket={TICKET}", [(AUTHORIZATION, BEARER)]),
        (f"/?ticket={TICKET}", [(API_KEY, KEY)]),
        ("/?ticket=", [(API_KEY, KEY)]),
        ("/?ticket", [(API_KEY, KEY)]),
        (f"/?ticket={TICKET}&ticket={TICKET}", []),
        (f"/?ticket=x&ticket={TICKET}", []),
        ("/", [(COOKIE, f"sidecast_ticket={TICKET}; sidecast_ticket={TICKET}")]),
        ("/", [(COOKIE, f"sidecast_ticket={TICKET}"), (COOKIE, "sidecast_ticket=x")]),
    ],
    ids=short,
)
async def test_two_credentials(credentials: Credentials, target: str, headers: list[tuple[str, str]]) -> None:
    assert (
        await refused(credentials, target, *headers)
    ).detail == "the request carries more than one credential"


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/", [(AUTHORIZATION, "")]),
        ("/", [(AUTHORIZATION, "Bearer")]),
        ("/", [(AUTHORIZATION, "Bearer ")]),
        ("/", [(AUTHORIZATION, BEARER.replace(" ", "\t"))]),
        ("/", [(AUTHORIZATION, BEARER.replace("Bearer", "DPoP"))]),
        ("/", [(AUTHORIZATION, f"Basic {KEY}")]),
        ("/", [(AUTHORIZATION, KEY)]),
        ("/", [(AUTHORIZATION, token("p256"))]),
        ("/", [(AUTHORIZATION, f"{BEARER}, {BEARER}")]),
        ("/", [(AUTHORIZATION, f"{BEARER} x")]),
        ("/", [(AUTHORIZATION, BEARER[:-4])]),
        ("/", [(AUTHORIZATION, f"Bearer {TICKET}")]),
        ("/", [(AUTHORIZATION, f"Bearer {hash_key(KEY)}")]),
        ("/", [(AUTHORIZATION, "Bearer " + "x" * 100_000)]),
        ("/", [(API_KEY, "")]),
        ("/", [(API_KEY, KEY[:-1])]),
        ("/", [(API_KEY, token("p256"))]),
        ("/", [(API_KEY, TICKET)]),
        ("/?ticket=", []),
        ("/?ticket", []),
        ("/?ticket=%64Glja2V0", []),
        (f"/?ticket={KEY}", []),
        (f"/?ticket={token('p256')}", []),
        ("/", [(COOKIE, f"sidecast_ticket={KEY}")]),
        ("/", [(COOKIE, 'sidecast_ticket="dGlja2V0"')]),
    ],
    ids=short,
)
async def test_an_invalid_credential_of_a_kind_is_not_tried_as_another(
    credentials: Credentials, target: str, headers: list[tuple[str, str]]
) -> None:
    assert (await refused(credentials, target, *headers)).detail == "the credential is not valid"


@pytest.mark.parametrize(
    "headers", [(AUTHORIZATION, f"Bearer {token(exp=NOW_S - 60)}"), (API_KEY, "old")], ids=short
)
async def test_an_expired_credential_says_so(credentials: Credentials, headers: tuple[str, str]) -> None:
    assert (await refused(credentials, "/", headers)).detail == "the credential has expired"


@pytest.mark.parametrize(
    ("given", "schemes"),
    [
        ({"jwt_secret": SECRET}, ("jwt", "ticket")),
        ({"jwt_issuer": None, "jwt_audience": None}, ()),
        ({"jwt_secret": SECRET, "mtls_principal": "cn"}, ("jwt", "mtls", "ticket")),
    ],
)
def test_schemes_are_those_configured(given: dict[str, Any], schemes: tuple[str, ...]) -> None:
    assert Credentials(auth_settings(**given), tickets=OneTicket()).schemes == schemes
    assert Credentials(auth_settings(**given)).schemes == schemes[:-1]


async def test_all_schemes_that_are_configured(settings: Auth) -> None:
    assert Credentials(settings).schemes == ("jwt", "api_key")


@pytest.mark.parametrize(
    "headers", [(AUTHORIZATION, BEARER), (API_KEY, KEY), (COOKIE, f"sidecast_ticket={TICKET}")]
)
async def test_a_scheme_that_is_not_configured_lets_nobody_in(headers: tuple[str, str]) -> None:
    credentials = Credentials(load(None, {}, {"auth.required": "true"}).auth)
    await credentials.start()
    assert (await refused(credentials, "/", headers)).code == "unauthenticated"


async def test_without_keys_a_token_can_not_be_judged() -> None:
    credentials = Credentials(auth_settings(jwt_jwks_url="http://127.0.0.1:1/"), clock=Clock())
    await credentials.start()
    try:
        unjudged = await refused(credentials, "/", (AUTHORIZATION, BEARER))
        assert (unjudged.code, unjudged.retry_after_s) == ("unavailable", 5)
        assert (await refused(credentials, "/", (AUTHORIZATION, "Bearer x"))).code == "unauthenticated"
    finally:
        await credentials.close()


async def test_a_file_that_can_not_be_used_is_no_start(settings: Auth, tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text("[[keys]]")
    with pytest.raises(UnusableFile, match=r"keys\.toml: "):
        await Credentials(settings).start()


async def test_keys_and_key_files_change_while_they_are_used(settings: Auth, tmp_path: Path) -> None:
    monotonic = Clock(0)
    credentials = Credentials(settings, clock=Clock(), monotonic=monotonic)
    await credentials.start()
    assert (await credentials.principal(request("/", (API_KEY, KEY)))).name == "bob"
    (tmp_path / "keys.toml").write_text("")
    monotonic.now_s += 1
    await refused(credentials, "/", (API_KEY, KEY))


async def test_no_secret_is_logged(credentials: Credentials) -> None:
    secrets = [KEY[:-1] + "!", token("rsa-other"), token(sub="a\0"), "hunter2"]
    with structlog.testing.capture_logs() as logs:
        for secret in secrets:
            for headers in ((AUTHORIZATION, f"Bearer {secret}"), (AUTHORIZATION, secret), (API_KEY, secret)):
                error = await refused(credentials, "/", headers)
                assert secret not in f"{error} {error.__cause__}"
            await refused(credentials, f"/?ticket={secret}")
    assert len(logs) == 16
    assert {line["log_level"] for line in logs} == {"debug"}
    text = str(logs)
    assert not any(part in text for secret in secrets for part in secret.split(".") if len(part) > 1)


async def test_who_was_seen_before_is_known_at_once(tmp_path: Path) -> None:
    credentials = Credentials(auth_settings(jwt_secret=SECRET))
    await credentials.start()
    text = jwt.encode(claims(exp=int(time.time()) + 60, iss=ISSUER, aud=AUDIENCE), SECRET, "HS256")
    headers = (
        ("Host", "h"),
        ("Accept", "text/event-stream"),
        (COOKIE, "a=b"),
        (AUTHORIZATION, f"Bearer {text}"),
    )
    given = request("/tasks/t/events?from=start", *headers)
    assert (await credentials.principal(given)).name == "alice"
    costs = []
    for _ in range(50):
        start = time.thread_time_ns()
        for _ in range(100):
            await credentials.principal(given)
        costs.append((time.thread_time_ns() - start) / 100 / 1000)
    print(f"a credential that was seen before: {min(costs):.1f} us")
    assert min(costs) <= 20
