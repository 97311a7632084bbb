from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from issuer import Clock, auth_settings, private_key
from multidict import CIMultiDict

from sidecast_broker.auth.certificates import Certificates, Part, certified
from sidecast_broker.auth.credentials import Credentials
from sidecast_broker.core.auth.claims import InvalidCredential
from sidecast_broker.refused import Refused

SINCE = datetime(2026, 1, 1, tzinfo=UTC)
NOW_S = (SINCE + timedelta(days=1)).timestamp()
END_S = (datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)).timestamp()


def issue(directory: Path, name: str, signer: str, *names: x509.GeneralName, authority: bool = False) -> Path:
    """Write a certificate with its key, signed by that of `signer`."""
    subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (name, signer))
    builder = (
        x509.CertificateBuilder(issuer, subject)
        .public_key(private_key(f"p256-{name}").public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(SINCE - timedelta(days=3650))
        .not_valid_after(datetime.fromtimestamp(END_S, UTC))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    key = private_key(f"p256-{name}")
    certificate = builder.sign(private_key(f"p256-{signer}"), hashes.SHA256())
    file = directory / f"{name}.pem"
    file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    return file


@dataclass
class Tls:
    """Connections of clients with or without a certificate, in memory."""

    directory: Path

    def __post_init__(self) -> None:
        self.authority = issue(self.directory, "authority", "authority", authority=True)
        self.server = issue(self.directory, "server", "authority", x509.DNSName("broker"))

    def connect(self, certificate: Path | None, verify: ssl.VerifyMode = ssl.CERT_OPTIONAL) -> ssl.SSLObject:
        """Give the server's side of a connection.

        Raises:
            ssl.SSLError: the server doesn't take the certificate.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server)
        context.load_verify_locations(self.authority)
        context.verify_mode = verify
        client_context = ssl.create_default_context(cafile=str(self.authority))
        if certificate is not None:
            client_context.load_cert_chain(certificate)
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = context.wrap_bio(to_server, to_client, server_side=True)
        client = client_context.wrap_bio(to_client, to_server, server_hostname="broker")
        waiting = [client, server]
        while waiting:
            for side in tuple(waiting):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
                waiting.remove(side)
        return server


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    return Tls(tmp_path)


def request(tls_object: ssl.SSLObject | None, *headers: tuple[str, str]) -> web.BaseRequest:
    transport = mock.Mock()
    transport.get_extra_info.side_effect = lambda name, default=None: (
        tls_object if name == "ssl_object" else default
    )
    return make_mocked_request("GET", "/", headers=CIMultiDict(headers), transport=transport)


async def named(tls_object: ssl.SSLObject, part: Part, now_s: float = NOW_S) -> str:
    settings = auth_settings(jwt_issuer=None, jwt_audience=None, mtls_principal=part)
    principal = await Credentials(settings, clock=Clock(now_s)).principal(request(tls_object))
    assert (principal.scheme, principal.ends_at_s) == ("mtls", END_S)
    assert (principal.tenant, principal.grants, principal.rights) == (None, (), frozenset())
    return principal.name


async def test_a_verified_certificate_names_its_holder(tls: Tls) -> None:
    names = (
        x509.UniformResourceIdentifier("spiffe://acme/alice"),
        x509.DNSName("alice.example"),
        x509.RFC822Name("alice@example.org"),
    )
    connection = tls.connect(issue(tls.directory, "alice", "authority", *names))
    assert await named(connection, "cn") == "alice"
    assert await named(connection, "uri") == "spiffe://acme/alice"
    assert await named(connection, "dns") == "alice.example"
    assert await named(connection, "email") == "alice@example.org"


async def test_a_certificate_names_the_credential_by_its_hash(tls: Tls) -> None:
    certificate = issue(tls.directory, "alice", "authority")
    certificates = Certificates("cn")
    principals = {certificates.principal(tls.connect(certificate), NOW_S) for _ in range(2)}
    (principal,) = principals
    fingerprint = x509.load_pem_x509_certificate(certificate.read_bytes()).fingerprint(hashes.SHA256())
    assert principal.credential_id == fingerprint.hex()


async def refusal(tls_object: ssl.SSLObject | None, *headers: tuple[str, str], now_s: float = NOW_S) -> str:
    settings = auth_settings(jwt_jwks_file="/unused", mtls_principal="uri")
    with pytest.raises(Refused) as refused:
        await Credentials(settings, clock=Clock(now_s)).principal(request(tls_object, *headers))
    assert refused.value.code == "unauthenticated"
    return refused.value.detail


async def test_no_certificate_is_no_credential(tls: Tls) -> None:
    assert await refusal(None) == "a credential is required"
    assert await refusal(tls.connect(None)) == "a credential is required"


async def test_a_listener_that_verifies_nothing_takes_no_certificate(tls: Tls) -> None:
    certificate = issue(tls.directory, "alice", "authority", x509.UniformResourceIdentifier("a:b"))
    assert await refusal(tls.connect(certificate, ssl.CERT_NONE)) == "a credential is required"
    unverified = mock.Mock(spec=ssl.SSLObject)
    unverified.context.verify_mode = ssl.CERT_NONE
    unverified.getpeercert.side_effect = lambda binary=False: b"certificate" if binary else {}
    assert Certificates("cn").presented(request(unverified)) is None


def test_a_certificate_of_another_authority_makes_no_connection(tls: Tls) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        tls.connect(issue(tls.directory, "mallory", "mallory"))


async def test_a_certificate_without_the_name_or_with_two_names_nobody(tls: Tls) -> None:
    uris = [x509.UniformResourceIdentifier(f"spiffe://{name}") for name in "ab"]
    for names in ([], uris, [x509.DNSName("alice.example")]):
        connection = tls.connect(issue(tls.directory, "alice", "authority", *names))
        assert await refusal(connection) == "the credential is not valid"


async def test_a_certificate_ends_while_its_connection_goes_on(tls: Tls) -> None:
    certificate = issue(tls.directory, "alice", "authority", x509.UniformResourceIdentifier("a:b"))
    connection = tls.connect(certificate)
    assert await named(connection, "uri", END_S - 1) == "a:b"
    assert await refusal(connection, now_s=END_S) == "the credential has expired"


async def test_a_certificate_and_another_credential(tls: Tls) -> None:
    connection = tls.connect(
        issue(tls.directory, "alice", "authority", x509.UniformResourceIdentifier("a:b"))
    )
    for header in (("Authorization", "Bearer x"), ("X-API-Key", "x")):
        assert await refusal(connection, header) == "the request carries more than one credential"


async def test_certificates_that_name_nobody_are_no_credentials(tls: Tls) -> None:
    connection = tls.connect(issue(tls.directory, "alice", "authority"))
    with pytest.raises(Refused, match="a credential is required"):
        await Credentials(auth_settings(jwt_jwks_file="/unused")).principal(request(connection))


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "x" * 257, "\x7f"], ids=repr)
def test_names_that_can_be_nobodys(name: str) -> None:
    certificate: dict[str, Any] = {
        "subject": ((("commonName", name),),),
        "notAfter": "Jan  1 00:00:00 2027 GMT",
    }
    with pytest.raises(InvalidCredential, match="the principal"):
        certified(certificate, "cn", "")


def test_two_common_names_are_nobodys() -> None:
    subject = ((("organizationName", "x"), ("commonName", "a")), (("commonName", "b"),))
    with pytest.raises(InvalidCredential, match="2 names"):
        certified({"subject": subject}, "cn", "")
