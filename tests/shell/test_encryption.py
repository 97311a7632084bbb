from __future__ import annotations

import ssl

import pytest
import structlog
from certificate_files import Files, files_in
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from issuer import Clock

from sidecast_broker.auth.watched_file import UnusableFile
from sidecast_broker.encryption import Encryption


def test_only_a_pair_that_fits_is_taken(files: Files) -> None:
    clock = Clock(0)
    encryption = Encryption(files.server, clock=clock)
    first = encryption.context()

    def looked() -> ssl.SSLContext:
        clock.now_s += 10
        return encryption.context()

    assert looked() is first
    other = files_in(files.folder / "other", files.authority)
    with structlog.testing.capture_logs() as lines:
        other.path("certificate").replace(files.path("certificate"))
        assert looked() is first
        assert looked() is first
    assert [line["event"] for line in lines] == ["file_read", "certificate_unusable"]
    other.path("key").replace(files.path("key"))
    second = looked()
    assert second is not first
    files.path("key").write_bytes(b"-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n")
    with structlog.testing.capture_logs() as lines:
        assert looked() is second
        assert looked() is second
    told = [line for line in lines if line["event"] == "certificate_unusable"]
    assert len(told) == 1
    assert "nonsense" not in str(told)
    for content in (b"", b"nonsense"):
        files.path("key").write_bytes(content)
        assert looked() is second
    files.path("key").unlink()
    assert looked() is second
    files.renew()
    assert looked() is not second


@pytest.mark.parametrize("part", ["certificate", "key", "client_ca"])
@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"-----BEGIN X-----\nMII\n-----END X-----\n"])
def test_what_can_not_be_used_stops_the_start(files: Files, part: str, content: bytes | None) -> None:
    path = files.path(part)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnusableFile, match=r"\.pem: "):
        Encryption(files.server)


def test_a_pair_that_does_not_fit_stops_the_start(files: Files) -> None:
    files.renew("key")
    with pytest.raises(UnusableFile, match="key values mismatch"):
        Encryption(files.server)


def test_a_key_with_a_password_stops_the_start_without_asking(files: Files) -> None:
    key = load_pem_private_key(files.path("key").read_bytes(), None)
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    files.path("key").write_bytes(encrypted)
    with pytest.raises(UnusableFile):
        Encryption(files.server)
