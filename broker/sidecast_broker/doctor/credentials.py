"""Looks at what verifies credentials: files that can be read, keys that can be fetched, and one credential.

Must not know what a credential allows.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

from sidecast_broker.auth.api_keys import ApiKeys
from sidecast_broker.auth.keys import KeysAway, keys_of
from sidecast_broker.auth.tokens import Tokens, looks_like_token
from sidecast_broker.auth.watched_file import UnusableFile
from sidecast_broker.core.auth.claims import InvalidCredential
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.doctor.finding import Finding
from sidecast_broker.settings import Settings

CHECK = "auth"
NO_KEY = "sidecast-doctor"
"""An id that no key has: it makes the keys be fetched."""


async def look_at_credentials(settings: Settings, text: str | None) -> list[Finding]:
    """Get ready what verifies credentials, and verify one where it is given.

    Args:
        settings: a broker's.
        text: a token or an API key; None: only what verifies is looked at.
    """
    auth = settings.auth
    if not settings.auth_on:
        return [
            Finding(CHECK, "skip", "no credential is needed: whoever reaches the broker may do everything")
        ]
    if not auth.schemes:
        remedy = "docs/security.md, Identity providers"
        return [
            Finding(CHECK, "fail", "a credential is needed, and none is accepted: all are refused", remedy)
        ]
    found = []
    if "jwt" in auth.schemes:
        found.append(await _look_at_keys(settings))
    if auth.api_keys_file:
        found.append(_look_at_api_keys(auth.api_keys_file))
    if not auth.ticket_secret:
        text_of = "auth.ticket_secret is not set: tickets are good at the broker that made them only"
        found.append(Finding(CHECK, "warn", text_of, "the same secret on all brokers"))
    if text is not None:
        found.append(await _verify(settings, text))
    return found


async def _look_at_keys(settings: Settings) -> Finding:
    keys = keys_of(settings.auth)
    algorithms = settings.auth.jwt_algorithm_names
    try:
        await keys.start()
        await keys.find(NO_KEY, algorithms[0])
    except UnusableFile as error:
        return Finding(CHECK, "fail", str(error), "auth.jwt_jwks_file")
    except KeysAway as away:
        where = settings.auth.jwt_jwks_url or settings.auth.jwt_issuer
        return Finding(
            CHECK, "fail", f"{away} ({where}): tokens are refused", "auth.jwt_jwks_url, auth.jwt_issuer"
        )
    finally:
        await keys.close()
    return Finding(
        CHECK, "ok", f"tokens of {settings.auth.jwt_issuer or 'a shared secret'}: the keys are there"
    )


def _look_at_api_keys(path: str) -> Finding:
    try:
        ApiKeys(path).start()
    except UnusableFile as error:
        return Finding(
            CHECK, "fail", str(error), "auth.api_keys_file; `sidecast token api-key` makes entries"
        )
    return Finding(CHECK, "ok", f"API keys of {path}")


async def _verify(settings: Settings, text: str) -> Finding:
    """Say whom a credential names, never the credential."""
    auth = settings.auth
    try:
        if looks_like_token(text) and "jwt" in auth.schemes:
            tokens = Tokens(auth)
            await tokens.start()
            try:
                principal = await tokens.principal(text)
            finally:
                await tokens.close()
        elif auth.api_keys_file:
            api_keys = ApiKeys(auth.api_keys_file)
            api_keys.start()
            principal = api_keys.principal(text)
        else:
            return Finding(CHECK, "fail", "the credential is no token, and API keys are not accepted")
    except InvalidCredential as invalid:
        return Finding(CHECK, "fail", f"the credential is refused: {invalid}")
    except (KeysAway, UnusableFile) as error:
        return Finding(CHECK, "fail", f"the credential can't be verified: {error}")
    return Finding(CHECK, "ok", f"the credential is {_described(principal)}")


def _described(principal: Principal) -> str:
    parts = [repr(principal.name)]
    if principal.tenant is not None:
        parts.append(f"of tenant {principal.tenant!r}")
    parts.append(f"with {len(principal.grants)} grants")
    if principal.rights:
        parts.append(f"the rights {', '.join(sorted(principal.rights))}")
    if principal.ends_at_s is not None:
        end = datetime.fromtimestamp(principal.ends_at_s, UTC).isoformat(timespec="seconds")
        parts.append(f"until {end} ({principal.ends_at_s - time.time():,.0f} s)")
    return ", ".join(parts)
