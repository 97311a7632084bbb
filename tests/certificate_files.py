"""The certificate files of a listener that speaks TLS, which a test writes and changes.

Must not know what is tested.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NamedTuple

import trustme

from sidecast_broker.settings import Server


class Files(NamedTuple):
    """A listener's certificate files, and who signs them.

    Attributes:
        authority: has signed the server's certificate, and is trusted to sign clients'.
    """

    folder: Path
    authority: trustme.CA

    @property
    def settings(self) -> dict[str, object]:
        return {f"server__tls_{name}": self.path(name) for name in ("certificate", "key")}

    @property
    def mutual(self) -> dict[str, object]:
        return {
            **self.settings,
            "server__tls_client_ca": self.path("client_ca"),
            "auth__mtls_principal": "cn",
            "auth__refusal_floor_ms": 20,
        }

    @property
    def server(self) -> Server:
        return Server(
            tls_certificate=str(self.path("certificate")),
            tls_key=str(self.path("key")),
            tls_client_ca=str(self.path("client_ca")),
        )

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def renew(self, *parts: str, authority: trustme.CA | None = None) -> None:
        """Write a new certificate and key, or only one of the two."""
        made = (authority or self.authority).issue_cert("127.0.0.1")
        for part in parts or ("certificate", "key"):
            blob = made.private_key_pem if part == "key" else made.cert_chain_pems[0]
            new = self.folder / "new"
            new.write_bytes(blob.bytes())
            new.replace(self.path(part))

    def trust(self, *clients: trustme.CA) -> None:
        """Say who may sign clients' certificates."""
        blobs = [each.cert_pem.bytes() for each in clients]
        self.path("client_ca").write_bytes(b"".join(blobs))

    def context(self, certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
        """Give a client's context."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        context.set_alpn_protocols(["h2", "http/1.1"])
        if certificate is not None:
            certificate.configure_cert(context)
        return context


def files_in(folder: Path, authority: trustme.CA) -> Files:
    """Write files that fit each other."""
    folder.mkdir(exist_ok=True)
    made = Files(folder, authority)
    made.renew()
    made.trust(authority)
    return made
