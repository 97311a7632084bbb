"""Page tokens of the agent's lists, sealed: a client can neither read one nor make one up.

Must not know lists. An agent's own token may name a task (a2a-sdk's do), perhaps one of somebody else, and
what it says to a token that was made up tells whether that task exists.
"""

from __future__ import annotations

import base64
import binascii
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sidecast_broker.auth.derived import derived_keys

PURPOSE = "sidecast page tokens"
TOKEN_CHARACTERS_MAX = 4096

_NONCE_BYTES = 12
"""Random for each token: good for some 2^32 of them (NIST SP 800-38D, section 8.3)."""


class InvalidPageToken(ValueError):  # noqa: N818 - named as the answer reads: the page token is invalid
    """A token this broker has not made for who sends it."""


class PageTokens:
    """Seals tokens, each for one principal.

    Args:
        secret: what all replicas share; empty: tokens are good at this process only.
        previous: the secret before, whose tokens are still opened; empty: there is none.
    """

    def __init__(self, secret: str = "", previous: str = "") -> None:
        self._ciphers = [AESGCM(key) for key in derived_keys(PURPOSE, secret, previous)]

    def seal(self, principal: str, token: str) -> str:
        """Give what a principal gets for the agent's token; empty stays empty."""
        if not token:
            return ""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[0].encrypt(nonce, token.encode(errors="surrogatepass"), principal.encode())
        return base64.urlsafe_b64encode(nonce + sealed).rstrip(b"=").decode()

    def open(self, principal: str, sealed: str) -> str:
        """Give the agent's token for what a principal sends; empty stays empty.

        Raises:
            InvalidPageToken: this broker has not made it for this principal.
        """
        if not sealed:
            return ""
        try:
            if len(sealed) > TOKEN_CHARACTERS_MAX * 2:
                raise ValueError("too long")
            raw = base64.b64decode(sealed + "=" * (-len(sealed) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidPageToken("the page token is not one of this list") from error
        for cipher in self._ciphers:
            try:
                token = cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], principal.encode())
                return token.decode(errors="surrogatepass")
            except (ValueError, InvalidTag):
                pass  # sealed with another secret, or nowhere
        raise InvalidPageToken("the page token is not one of this list")
