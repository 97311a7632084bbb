"""Client certificates: whom the one of a connection names.

Must not know how it was verified: the listener's TLS takes only certificates that its authorities signed.
"""

from __future__ import annotations

import hashlib
import ssl
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Literal

from aiohttp import web

from sidecast_broker.core.auth.claims import InvalidCredential, check_name
from sidecast_broker.core.auth.principal import Principal

Part = Literal["cn", "uri", "dns", "email"]

KNOWN_MAX = 4096
"""Certificates that are remembered: reading one costs as much as verifying a token."""

_ALTERNATIVES: dict[Part, str] = {"uri": "URI", "dns": "DNS", "email": "email"}


class Certificates:
    """Tells principals by a part of their certificates.

    Args:
        part: the subject's common name, or the subject's alternative name of a kind.
    """

    def __init__(self, part: Part) -> None:
        self._part = part
        self._known: OrderedDict[bytes, Principal] = OrderedDict()

    def presented(self, request: web.BaseRequest) -> ssl.SSLObject | None:
        """Give the TLS side of a request's connection, where the client has shown a verified certificate."""
        transport = request.transport
        tls: ssl.SSLObject | None = None if transport is None else transport.get_extra_info("ssl_object")
        # A listener that verifies nothing would take any certificate.
        if tls is None or tls.context.verify_mode == ssl.CERT_NONE or not tls.getpeercert(True):
            return None
        return tls

    def principal(self, tls: ssl.SSLObject, now_s: float) -> Principal:
        """Give whom the certificate of a connection names.

        Args:
            tls: what `presented` gave.
            now_s: seconds since 1970.

        Raises:
            InvalidCredential: the certificate names nobody, or has expired since the connection was made.
        """
        fingerprint = hashlib.sha256(tls.getpeercert(True) or b"").digest()
        principal = self._known.get(fingerprint)
        if principal is None:
            principal = certified(tls.getpeercert() or {}, self._part, fingerprint.hex())
            self._known[fingerprint] = principal
            if len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)
        if principal.ends_at_s is not None and now_s >= principal.ends_at_s:
            raise InvalidCredential("the certificate has expired", expired=True)
        return principal


def certified(certificate: Mapping[str, Any], part: Part, fingerprint: str) -> Principal:
    """Give whom a verified certificate names.

    Args:
        certificate: as `ssl.SSLSocket.getpeercert` gives it.
        part: what names the principal; exactly one of that kind must be there.
        fingerprint: SHA-256 of the certificate, in hexadecimal.

    Raises:
        InvalidCredential: it names nobody, or more than one.
    """
    if part == "cn":
        attributes = (pair for each in certificate.get("subject", ()) for pair in each)
        names = [value for kind, value in attributes if kind == "commonName"]
    else:
        alternatives = certificate.get("subjectAltName", ())
        names = [value for kind, value in alternatives if kind == _ALTERNATIVES[part]]
    if len(names) != 1:
        raise InvalidCredential(f"the certificate has {len(names)} names of the kind {part}, not 1")
    valid_from = certificate.get("notBefore")
    return Principal(
        check_name(names[0], "the principal"),
        "mtls",
        ends_at_s=float(ssl.cert_time_to_seconds(certificate["notAfter"])),
        credential_id=fingerprint,
        issued_at_s=None if valid_from is None else float(ssl.cert_time_to_seconds(valid_from)),
    )
