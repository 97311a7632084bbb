from __future__ import annotations

import json
import stat
import time
import tomllib
from pathlib import Path
from typing import Any

import jwt
import pytest
from click.testing import CliRunner
from issuer import AUDIENCE, ISSUER, SECRET, auth_settings

from sidecast_broker.__main__ import main
from sidecast_broker.auth.api_keys import ApiKeys
from sidecast_broker.auth.tickets import Tickets
from sidecast_broker.auth.tokens import Tokens
from sidecast_broker.core.auth.principal import Grant, Principal
from sidecast_broker.settings import Auth
from sidecast_schemas.subjects import TaskKey

SETTINGS = {"SIDECAST_AUTH_JWT_ISSUER": ISSUER, "SIDECAST_AUTH_JWT_AUDIENCE": f"{AUDIENCE}, other"}


def invoke(*arguments: str, env: dict[str, str] | None = None) -> Any:
    return CliRunner().invoke(main, ["token", *arguments], env=env)


def key_pair(directory: Path, *options: str, private: str = "private.json") -> Any:
    files = ("--private", str(directory / private), "--jwks", str(directory / "jwks.json"))
    return invoke("key-pair", *files, *options)


def sign(directory: Path, *options: str, env: dict[str, str] | None = None) -> Any:
    settings = SETTINGS | {"SIDECAST_AUTH_JWT_JWKS_FILE": str(directory / "jwks.json")} | (env or {})
    return invoke("sign", "--private", str(directory / "private.json"), *options, env=settings)


async def principal_of(directory: Path, token: str, **settings: Any) -> Principal:
    given = {"jwt_jwks_file": str(directory / "jwks.json")} if "jwt_secret" not in settings else {}
    tokens = Tokens(auth_settings(**given, **settings))
    await tokens.start()
    principal = await tokens.principal(token)
    await tokens.close()
    return principal


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256", "PS256"])
async def test_a_token_of_a_new_key_is_accepted(tmp_path: Path, algorithm: str) -> None:
    made = key_pair(tmp_path, "--algorithm", algorithm)
    assert made.exit_code == 0, made.output
    signed = sign(tmp_path, "--subject", "alice", "--ttl-s", "60")
    assert signed.exit_code == 0, signed.output
    token = signed.stdout.strip()
    principal = await principal_of(tmp_path, token)
    assert (principal.name, principal.tenant, principal.grants) == ("alice", None, ())
    assert principal.ends_at_s == pytest.approx(time.time() + 60 + 30, abs=5)
    header = jwt.get_unverified_header(token)
    assert (header["alg"], header["kid"]) == (algorithm, made.stdout.strip())


async def test_a_token_says_what_its_holder_may_do(tmp_path: Path) -> None:
    key_pair(tmp_path)
    options = ("--tenant", "acme", "--grant", "acme/*/*", "--grant", "_/a/b*", "--right", "admin")
    env = {"SIDECAST_AUTH_JWT_GRANTS_CLAIM": "watch", "SIDECAST_AUTH_JWT_PRINCIPAL_CLAIM": "user"}
    token = sign(tmp_path, "--subject", "alice", *options, "--audience", "other", env=env).stdout.strip()
    settings = {"jwt_audience": "other", "jwt_grants_claim": "watch", "jwt_principal_claim": "user"}
    principal = await principal_of(tmp_path, token, **settings)
    assert (principal.name, principal.tenant, principal.rights) == ("alice", "acme", frozenset({"admin"}))
    assert principal.grants == (Grant("acme", None, None), Grant("", "a", "b", is_prefix=True))
    assert len(principal.credential_id) == 22


async def test_a_token_of_a_shared_secret(tmp_path: Path) -> None:
    env = SETTINGS | {"SIDECAST_AUTH_JWT_SECRET": SECRET}
    token = invoke("sign", "--subject", "alice", env=env).stdout.strip()
    assert (await principal_of(tmp_path, token, jwt_secret=SECRET)).name == "alice"


async def test_a_second_key_is_added_to_the_set(tmp_path: Path) -> None:
    key_pair(tmp_path)
    token = sign(tmp_path, "--subject", "alice").stdout.strip()
    assert key_pair(tmp_path, "--algorithm", "RS256", private="second.json").exit_code == 0
    assert len(json.loads((tmp_path / "jwks.json").read_bytes())["keys"]) == 2
    assert (await principal_of(tmp_path, token)).name == "alice"
    assert {file.name for file in tmp_path.iterdir()} == {"jwks.json", "private.json", "second.json"}


def test_a_private_key_is_its_owners_and_is_told_nowhere_else(tmp_path: Path) -> None:
    made = key_pair(tmp_path)
    file = tmp_path / "private.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    secret = json.loads(file.read_bytes())["d"]
    assert secret not in made.output + (tmp_path / "jwks.json").read_text()
    assert not {"d", "p", "q", "k"} & json.loads((tmp_path / "jwks.json").read_bytes())["keys"][0].keys()


def test_no_private_key_is_overwritten(tmp_path: Path) -> None:
    key_pair(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    again = key_pair(tmp_path)
    assert again.exit_code == 1
    assert "File exists" in again.stderr
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"keys": 7}'])
def test_what_is_no_set_of_keys_is_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / "jwks.json").write_text(content)
    made = key_pair(tmp_path)
    assert (made.exit_code, made.stderr) == (1, f"Error: {tmp_path / 'jwks.json'}: not a JWK set\n")
    assert [file.name for file in tmp_path.iterdir()] == ["jwks.json"]


@pytest.mark.parametrize("content", ["", "[]", "{}", "public", '{"kty": "EC", "d": "hunter2"}'])
def test_what_is_no_private_key_is_not_shown(tmp_path: Path, content: str) -> None:
    key_pair(tmp_path)
    if content == "public":
        content = json.dumps(json.loads((tmp_path / "jwks.json").read_bytes())["keys"][0])
    (tmp_path / "private.json").write_text(content)
    signed = sign(tmp_path, "--subject", "alice")
    assert signed.exit_code == 1
    assert signed.stderr == f"Error: {tmp_path / 'private.json'}: not a private key in the form of a JWK\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["sign"],
        ["sign", "--subject", "alice"],
        ["sign", "--subject", ""],
        ["sign", "--subject", "a\nb"],
        ["sign", "--subject", "a", "--issuer", "i", "--audience", "b"],
        ["sign", "--subject", "a", "--ttl-s", "0"],
        ["sign", "--subject", "a", "--grant", "*"],
        ["sign", "--subject", "a", "--right", "fly"],
        ["sign", "--subject", "a", "--tenant", "x" * 257],
        ["key-pair"],
        ["key-pair", "--private", "/tmp/p", "--jwks", "/tmp/j", "--algorithm", "HS256"],
        ["api-key"],
        ["ticket", "--principal", "alice", "--task", "t"],
        ["ticket", "--principal", "alice"],
        ["ticket", "--task", "t"],
        ["ticket", "--principal", "", "--task", "t"],
        ["ticket", "--principal", "alice", "--task", ""],
        ["ticket", "--principal", "alice", "--task", "t", "--ttl-s", "0"],
        ["api-key", "--id", ""],
        ["api-key", "--id", "a", "--principal", "a\0"],
        ["api-key", "--id", "a", "--ttl-s", "0"],
    ],
    ids=repr,
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "Usage" in result.output


def test_a_key_is_told_once_and_its_entry_holds_a_hash(tmp_path: Path) -> None:
    options = ("--tenant", "acme", "--grant", "acme/*/*", "--right", "publish", "--ttl-s", "3600")
    made = invoke("api-key", "--id", 'the "one"', "--principal", "bob", *options)
    assert made.exit_code == 0, made.output
    key, entry = made.stderr.strip(), made.stdout
    assert key not in entry
    assert list(tomllib.loads(entry)) == ["key"]
    other = invoke("api-key", "--id", "two")
    file = tmp_path / "keys.toml"
    file.write_text(entry + other.stdout)
    keys = ApiKeys(str(file))
    keys.start()
    principal = keys.principal(key)
    assert (principal.name, principal.tenant, principal.credential_id) == ("bob", "acme", 'the "one"')
    assert (principal.grants, principal.rights) == ((Grant("acme", None, None),), frozenset({"publish"}))
    assert principal.ends_at_s == pytest.approx(time.time() + 3600, abs=5)
    found = keys.principal(other.stderr.strip())
    assert found.issued_at_s == pytest.approx(time.time(), abs=5)
    assert found == Principal("two", "api_key", credential_id="two", issued_at_s=found.issued_at_s)


def test_a_ticket_is_taken_by_a_broker_with_the_same_secret() -> None:
    environ = {"SIDECAST_AUTH_TICKET_SECRET": SECRET, "SIDECAST_AGENT_NAME": "planner"}
    made = invoke(
        "ticket", "--principal", "alice", "--task", "t-1", "--task", "t-2", "--ttl-s", "60", env=environ
    )
    assert made.exit_code == 0, made.output
    text = made.stdout.strip()
    tickets = Tickets(Auth(ticket_secret=SECRET))
    keys = frozenset(TaskKey("", "planner", task) for task in ("t-1", "t-2"))
    assert tickets.ticket(text, time.time() + 50) == Principal("alice", "ticket", tasks=keys)
    assert tickets.ticket(text, time.time() + 61) is None
    bound = invoke("ticket", "--principal", "alice", "--tenant", "acme", "--task", "t", env=environ)
    principal = tickets.ticket(bound.stdout.strip(), time.time())
    assert principal is not None
    assert (principal.tenant, principal.tasks) == ("acme", {TaskKey("acme", "planner", "t")})
    nameless = invoke("ticket", "--principal", "alice", "--tenant", "_", "--task", "t", env=environ)
    principal = tickets.ticket(nameless.stdout.strip(), time.time())
    assert principal is not None
    assert principal.tenant == ""


def test_a_ticket_for_more_tasks_than_fit_is_not_made() -> None:
    tasks = [option for number in range(40) for option in ("--task", f"{number:0200}")]
    made = invoke("ticket", "--principal", "a", *tasks, env={"SIDECAST_AUTH_TICKET_SECRET": SECRET})
    assert (made.exit_code, "too many tasks" in made.output) == (2, True)
