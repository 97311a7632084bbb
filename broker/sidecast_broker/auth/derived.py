"""The keys derived from the one secret that replicas share, a separate one for each purpose.

Must not know what any of them is used for.
"""

from __future__ import annotations

import os

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32


def derived_keys(purpose: str, secret: str = "", previous: str = "") -> tuple[bytes, ...]:
    """Give the keys for a purpose: the one to make with, then the one before, which is read with only.

    Args:
        purpose: keys of different ones have nothing in common (RFC 5869, section 3.2).
        secret: what all replicas share; empty: random, and good at this process only.
        previous: the secret before; empty: there is none.
    """
    secrets = [secret.encode() if secret else os.urandom(KEY_BYTES)]
    if previous:
        secrets.append(previous.encode())
    return tuple(HKDF(SHA256(), KEY_BYTES, salt=None, info=purpose.encode()).derive(each) for each in secrets)
