"""Who the broker is to a NATS server, and how it knows the server: the options of its connection.

Must not know when it connects, nor what it asks for.
"""

from __future__ import annotations

import ssl
from typing import Any

from sidecast_broker.settings import Nats


def connect_options(nats: Nats) -> dict[str, Any]:
    """Give the options of nats-py's `connect` that the settings ask for; files are read here, or by it.

    Raises:
        OSError: a file of certificates can't be read, or is none (`ssl.SSLError`).
    """
    options: dict[str, Any] = {
        "user_credentials": nats.credentials_file or None,
        "nkeys_seed": nats.nkey_seed_file or None,
    }
    if nats.tls_ca_file or nats.tls_certificate_file:
        context = ssl.create_default_context(cafile=nats.tls_ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if nats.tls_certificate_file:
            # A key that asks for a password would ask the terminal.
            context.load_cert_chain(nats.tls_certificate_file, nats.tls_key_file, password=lambda: b"")
        options["tls"] = context
    return options
