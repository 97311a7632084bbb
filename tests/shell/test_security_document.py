"""What the documentation says of security: tests it names exist, settings load, commands do what they say."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from issuer import Clock

from sidecast_broker.__main__ import main
from sidecast_broker.auth.credentials import Credentials
from sidecast_broker.auth.tokens import Tokens
from sidecast_broker.configuration import load
from sidecast_broker.core.auth.claims import Accepted, principal_of
from sidecast_broker.core.auth.principal import Grant
from sidecast_broker.settings import Settings, sections

ROOT = Path(__file__).parents[2]
SECURITY = ROOT / "docs" / "security.md"
TEXT = SECURITY.read_text(encoding="utf-8")


def blocks(language: str, text: str = TEXT) -> list[str]:
    """Give the blocks of code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def section(title: str, text: str = TEXT) -> str:
    """Give what stands below a heading, up to the next one."""
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


# --- threats


def rows() -> list[list[str]]:
    lines = [line for line in section("Threats").splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    defined = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {node.name for node in defined if node.name.startswith("test_")}


def test_each_threat_names_tests_that_exist() -> None:
    assert len(rows()) > 20
    for row in rows():
        assert len(row) == 3, row
        links = re.findall(r"\[(test_\w+)\]\(\.\./(tests/[\w/]+\.py)\)", row[2])
        assert ", ".join(f"[{name}](../{path})" for name, path in links) == row[2], row
        assert links, row
        for name, path in links:
            assert name in names_in(ROOT / path), f"{path} has no {name}"


def test_settings_that_are_named_exist() -> None:
    known = {f"{name}.{field}" for name, struct in sections() for field in struct.__struct_fields__}
    prefixes = "|".join(name for name, _struct in sections())
    named = set(re.findall(rf"`((?:{prefixes})\.[a-z_0-9]+)", TEXT))
    assert len(named) > 10
    assert named <= known


def test_what_is_linked_is_there() -> None:
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = document.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
            path, _, anchor = target.partition("#")
            other = (document.parent / path) if path else document
            assert other.exists(), f"{document.name}: {target}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", other.read_text(encoding="utf-8"), re.MULTILINE)
                slugs = {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}
                assert anchor in slugs, f"{document.name}: {target}"


# --- identity providers

PROVIDERS = {
    "keycloak": {"sub": "5c1f", "sidecast_grants": ["acme/planner/*"]},
    "auth0": {
        "sub": "auth0|5c1f",
        "https://sidecast.example.org/grants": ["acme/planner/*"],
        "https://sidecast.example.org/tenant": "acme",
    },
    "microsoftonline": {"sub": "pairwise", "oid": "5c1f", "roles": ["admin", "Reader"]},
    "google": {"sub": "1170", "hd": "acme.example"},
    "github": {"sub": "repo:acme/app:ref:refs/heads/main", "repository_owner": "acme"},
    "kubernetes": {"sub": "system:serviceaccount:web:dashboard", "kubernetes.io": {"namespace": "web"}},
}
"""Claims of a token as the provider makes it, beside those every token has."""

EXPECTED = {
    "keycloak": ("5c1f", None, (Grant("acme", "planner", None),), frozenset()),
    "auth0": ("auth0|5c1f", "acme", (Grant("acme", "planner", None),), frozenset()),
    "microsoftonline": ("5c1f", None, (), frozenset({"admin"})),
    "google": ("1170", "acme.example", (), frozenset()),
    "github": ("repo:acme/app:ref:refs/heads/main", "acme", (), frozenset()),
    "kubernetes": ("system:serviceaccount:web:dashboard", None, (), frozenset()),
}


def settings_of(provider: str) -> Settings:
    (found,) = (block for block in blocks("toml") if provider in block.partition("jwt_audience")[0])
    return load(found.encode(), {}, {})


def test_each_block_of_settings_is_of_one_provider_and_turns_authentication_on() -> None:
    assert len(blocks("toml")) == len(PROVIDERS)
    for block in blocks("toml"):
        settings = load(block.encode(), {}, {})
        assert settings.auth_on
        assert settings.auth.schemes == ("jwt",)
        # It can be served to others, too: nothing contradicts that.
        load(block.encode(), {}, {"server.host": "0.0.0.0"})


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_providers_claims_say_who_it_is(provider: str) -> None:
    auth, now_s = settings_of(provider).auth, Clock()()
    accepted = Accepted(
        auth.jwt_issuer,
        frozenset(auth.jwt_audiences),
        principal_claim=auth.jwt_principal_claim,
        tenant_claim=auth.jwt_tenant_claim,
        grants_claim=auth.jwt_grants_claim,
        rights_claim=auth.jwt_rights_claim,
    )
    claims = {"iss": auth.jwt_issuer, "aud": auth.jwt_audiences[0], "exp": now_s + 60, **PROVIDERS[provider]}
    found = principal_of(claims, accepted, now_s)
    assert (found.name, found.tenant, found.grants, found.rights) == EXPECTED[provider]


# --- the first steps


async def test_the_three_lines_of_the_readme_switch_it_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = blocks("sh", section("Who may watch", (ROOT / "README.md").read_text(encoding="utf-8")))
    make, export, sign = (shlex.split(line, comments=True) for line in block.strip().splitlines())
    assert CliRunner().invoke(main, make[1:]).exit_code == 0
    environ = dict(each.partition("=")[::2] for each in export[1:])
    signed = CliRunner().invoke(main, sign[1:], env=environ)
    assert signed.exit_code == 0, signed.output

    settings = load(None, environ, {})
    assert settings.auth_on
    assert Credentials(settings.auth).schemes == ("jwt",)
    tokens = Tokens(settings.auth)
    await tokens.start()
    principal = await tokens.principal(signed.stdout.strip())
    await tokens.close()
    assert (principal.name, principal.grants) == ("alice", (Grant("", "planner", None),))


def test_the_script_that_uses_tickets_is_one() -> None:
    """That it works is tested in a browser; here, where there is none, that it can be read."""
    (script,) = blocks("js", section("Tickets for an EventSource"))
    assert script.count("\n") < 30
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node.js")
    done = subprocess.run(
        [node, "--check", "--input-type=module", "-"],
        input=script,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
