"""Signed tokens (JWT, RFC 7519): whether one is valid, and whom it names.

Must not know how a request carries one, nor where keys come from.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

import jwt
import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from sidecast_broker.auth.key_set import KEY_ID_BYTES_MAX
from sidecast_broker.auth.keys import Keys, keys_of
from sidecast_broker.core.auth.claims import Accepted, InvalidCredential, principal_of
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.settings import KIB, Auth

TOKEN_BYTES_MAX = 16 * KIB
VERIFIED_MAX = 20_000
"""Verified tokens that are remembered: some 20 MB, and as many as `stream.streams_max` by default."""


class _Header(Struct):
    """What is read of a token's header (RFC 7515, section 4.1) before anything is verified.

    `jku`, `jwk`, `x5u` and `x5c` bring or name keys: whoever wrote the token chose them.
    """

    alg: str
    kid: str | None = None
    crit: Raw | UnsetType = UNSET


def looks_like_token(text: str) -> bool:
    """Tell whether text has the form of a signed token: three parts, without the padding PyJWT lets pass.

    That each part is base64url, written in the one way there is, PyJWT sees to.
    """
    return text.count(".") == 2 and text.isascii() and "=" not in text


class Tokens:
    """Verifies tokens, and remembers those that were valid until they end or a key changes.

    Args:
        settings: which tokens are accepted, and which claims say what.
        keys: those that verify; by default the ones the settings name.
        clock: the time, seconds since 1970.
    """

    def __init__(
        self, settings: Auth, *, keys: Keys | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._keys = keys or keys_of(settings)
        self._clock = clock
        self._algorithms = frozenset(settings.jwt_algorithm_names)
        self._accepted = Accepted(
            settings.jwt_issuer,
            frozenset(settings.jwt_audiences),
            settings.jwt_leeway_s,
            settings.jwt_principal_claim,
            settings.jwt_tenant_claim,
            settings.jwt_grants_claim,
            settings.jwt_rights_claim,
        )
        self._jws = jwt.PyJWS(options={"enforce_minimum_key_length": True})
        self._verified: OrderedDict[bytes, Principal] = OrderedDict()
        self._generation = 0

    async def start(self) -> None:
        """Get the keys ready.

        Raises:
            UnusableFile: they are in a file that can't be used.
        """
        await self._keys.start()

    async def close(self) -> None:
        """Let go of the keys."""
        await self._keys.close()

    async def principal(self, token: str) -> Principal:
        """Give whom a token names; for one that was seen before nothing is awaited.

        Args:
            token: what a client sent, of any length and content.

        Raises:
            InvalidCredential: it isn't valid.
            KeysAway: it may be, but its key isn't known and can't be fetched.
        """
        # Bytes that are no UTF-8 stand in headers as lone surrogates.
        fingerprint = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        remembered = self._recall(fingerprint)
        if remembered is not None:
            return remembered
        header = self._header(token)
        # Nothing is awaited from here to the end: what is remembered is what the keys of now verify.
        for key in await self._keys.find(header.kid, header.alg):
            payload = self._payload(token, key)
            if payload is not None:
                principal = self._verified[fingerprint] = self._named(token, payload)
                if len(self._verified) > VERIFIED_MAX:
                    self._verified.popitem(last=False)
                return principal
        raise InvalidCredential("no key that is trusted signed the token")

    def _recall(self, fingerprint: bytes) -> Principal | None:
        """Give whom a token names that was verified before.

        Raises:
            InvalidCredential: it has expired.
        """
        generation = self._keys.generation()
        if generation != self._generation:
            # What verified a token may be gone, and gone for a reason.
            self._generation = generation
            self._verified.clear()
        principal = self._verified.get(fingerprint)
        if principal is None:
            return None
        assert principal.ends_at_s is not None, "a token without an end is not accepted"
        if self._clock() >= principal.ends_at_s:
            del self._verified[fingerprint]
            raise InvalidCredential("the token has expired", expired=True)
        self._verified.move_to_end(fingerprint)
        return principal

    def _header(self, token: str) -> _Header:
        if len(token) > TOKEN_BYTES_MAX:
            raise InvalidCredential("the token is too long")
        if not looks_like_token(token):
            raise InvalidCredential("not a signed token")
        try:
            content = jwt.utils.base64url_decode(token.partition(".")[0])
            header = msgspec.json.decode(content, type=_Header)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise InvalidCredential("the token's header can't be read") from error
        if header.alg not in self._algorithms:
            raise InvalidCredential("the token's algorithm is not accepted")
        if header.crit is not UNSET:
            # RFC 7515, section 4.1.11: what it lists must be understood, and nothing of the kind is.
            raise InvalidCredential("the token's header has crit")
        if header.kid is not None and len(header.kid) > KEY_ID_BYTES_MAX:
            raise InvalidCredential("the token's key id is too long")
        return header

    def _payload(self, token: str, key: jwt.PyJWK) -> bytes | None:
        """Give what a token's signer signed, or None where that was another key.

        Raises:
            InvalidCredential: it is no signed token.
        """
        try:
            decoded = self._jws.decode_complete(token, key, algorithms=[key.algorithm_name])
        except jwt.InvalidSignatureError:
            return None
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise InvalidCredential(f"not a signed token: {type(error).__name__}") from error
        payload: bytes = decoded["payload"]
        return payload

    def _named(self, token: str, payload: bytes) -> Principal:
        # What PyJWT checks of claims it checks by the system's clock; these are as few.
        try:
            claims = msgspec.json.decode(payload)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise InvalidCredential("the token's claims can't be read") from error
        principal = principal_of(claims, self._accepted, self._clock())
        if principal.credential_id:
            return principal
        # Only what is signed: some signatures can be written in two ways.
        signed = token.rpartition(".")[0].encode()
        return msgspec.structs.replace(principal, credential_id=hashlib.sha256(signed).hexdigest())
