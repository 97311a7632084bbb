"""What the card declares is what is taken: each credential, carried as the card says, on all wires of A2A."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any

import aiohttp
import pytest
from a2a_rig.awkward import CARD_PATH, AwkwardAgent
from a2a_rig.wire import WIRES, Door, Wire
from access_rig import ALICES, BOBS, OPEN, as_task, stocked
from brokers import broker
from certificate_files import Files
from issuer import AUDIENCE, ISSUER, jwks, token

from sidecast_broker.auth.api_keys import hash_key

KEY = "sidecast_" + "k3y" * 14

Carried = tuple[dict[str, str], bool]
"""Headers of a request, and whether it comes with a client's certificate."""

ALL = ("jwt", "api_key", "mtls")
CONFIGURED = [*((kind,) for kind in ALL), ("jwt", "api_key"), ALL]


def settings_for(kinds: tuple[str, ...], files: Files) -> dict[str, object]:
    """Give the settings of a listener over TLS that takes these credentials, and write their files."""
    given: dict[str, object] = {**files.settings, "auth__refusal_floor_ms": 20}
    if "jwt" in kinds:
        (files.folder / "jwks.json").write_bytes(jwks("p256"))
        given |= {"auth__jwt_issuer": ISSUER, "auth__jwt_audience": AUDIENCE}
        given["auth__jwt_jwks_file"] = files.folder / "jwks.json"
    if "api_key" in kinds:
        entry = f'[[key]]\nid = "k"\nsha256 = "{hash_key(KEY)}"\nprincipal = "alice"\n'
        (files.folder / "keys.toml").write_text(entry)
        given["auth__api_keys_file"] = files.folder / "keys.toml"
    if "mtls" in kinds:
        given |= files.mutual
    return given


def carried_v1(scheme: Mapping[str, Any], bearer: str) -> Carried:
    """Carry a credential as a security scheme of A2A v1.0 says (section 4.5)."""
    if "mtlsSecurityScheme" in scheme:
        return {}, True
    if "httpAuthSecurityScheme" in scheme:
        assert scheme["httpAuthSecurityScheme"]["scheme"] == "bearer"
        return {"Authorization": f"Bearer {bearer}"}, False
    assert scheme["apiKeySecurityScheme"]["location"] == "header"
    return {scheme["apiKeySecurityScheme"]["name"]: KEY}, False


def carried_v03(scheme: Mapping[str, Any], bearer: str) -> Carried:
    """Carry a credential as a security scheme of A2A v0.3 says (section 5.5.3)."""
    if scheme["type"] == "mutualTLS":
        return {}, True
    if scheme["type"] == "http":
        assert scheme["scheme"] == "bearer"
        return {"Authorization": f"Bearer {bearer}"}, False
    assert (scheme["type"], scheme["in"]) == ("apiKey", "header")
    return {scheme["name"]: KEY}, False


CARRY: dict[str, Callable[[Mapping[str, Any], str], Carried]] = {"1.0": carried_v1, "0.3": carried_v03}
NAMES = {"jwt": "bearer", "api_key": "apiKey", "mtls": "mtls"}


@asynccontextmanager
async def session_over(files: Files, url: str, *, certified: bool) -> Any:
    """Give a door whose client shows a certificate, or none."""
    shown = files.authority.issue_cert("alice.example", common_name="alice") if certified else None
    connector = aiohttp.TCPConnector(ssl=files.context(shown))
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Door(session, url)


@pytest.mark.row("C54")
@pytest.mark.parametrize("kinds", CONFIGURED, ids="-".join)
async def test_each_credential_the_card_declares_works_on_all_wires(
    kinds: tuple[str, ...], files: Files
) -> None:
    bearer = token("p256", sub="alice", exp=int(time.time()) + 600)
    async with AwkwardAgent() as agent:
        agent.answer = as_task
        async with broker(stocked(), agent__url=agent.url, **settings_for(kinds, files)) as running:
            async with session_over(files, running.url, certified=False) as door:
                card = (await door.raw("GET", CARD_PATH)).json
            declared = card["securitySchemes"]
            wanted = [NAMES[kind] for kind in kinds]
            assert list(declared) == wanted
            # Any one of them is enough: in each generation a list of alternatives.
            assert card["security"] == [{name: []} for name in wanted]
            assert [list(each["schemes"]) for each in card["securityRequirements"]] == [[n] for n in wanted]
            for wire in WIRES:
                for scheme in declared.values():
                    headers, certified = CARRY[wire.version](scheme, bearer)
                    async with session_over(files, running.url, certified=certified) as door:
                        await _works(door, wire, headers)


async def _works(door: Door, wire: Wire, headers: dict[str, str]) -> None:
    async with door.open(wire, "subscribe", task=OPEN, headers=headers) as stream:
        (first,) = await stream.take(1)
        assert OPEN in json.dumps(first.result)
    for do in ("get", "send", "cancel"):
        fields = {"text": "go"} if do == "send" else {}
        answer = await door.ask(wire, do, task=ALICES, headers=headers, **fields)
        assert answer.status == 200
        assert b"error" not in answer.body
        refused = await door.ask(wire, do, task=BOBS, headers=headers, **fields)
        assert b"error" in refused.body or refused.status == 404


@pytest.mark.row("C51", "C54")
@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_a_credential_the_card_does_not_declare_is_none(wire: Wire, kind: str, files: Files) -> None:
    bearer = token("p256", sub="alice", exp=int(time.time()) + 600)
    carried = {
        "jwt": ({"Authorization": f"Bearer {bearer}"}, False),
        "api_key": ({"X-API-Key": KEY}, False),
        "mtls": ({}, True),
    }
    others = tuple(each for each in ALL if each != kind)
    headers, certified = carried.pop(kind)
    changes = settings_for(others, files)
    async with broker(stocked(), **changes) as running:
        async with session_over(files, running.url, certified=certified) as door:
            answers = [await door.ask(wire, do, task=ALICES, headers=headers) for do in ("subscribe", "get")]
        assert {answer.status for answer in answers} == {401}
        assert {answer.headers["WWW-Authenticate"] for answer in answers} == {'Bearer realm="sidecast"'}
        assert not any(ALICES.encode() in answer.body for answer in answers)
        for own, shown in carried.values():
            async with session_over(files, running.url, certified=shown) as door:
                assert (await door.ask(wire, "get", task=ALICES, headers=own)).status != 401


def test_every_kind_is_tried_alone_and_together() -> None:
    assert set(chain(*CONFIGURED)) == set(NAMES)
    assert {(kind,) for kind in NAMES} | {tuple(NAMES)} <= set(CONFIGURED)
