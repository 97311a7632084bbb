"""TLS of the public listener: its certificate, whose client certificates count, and what changes of both.

Must not know connections.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable

import structlog

from sidecast_broker.auth.watched_file import UnusableFile, WatchedFile
from sidecast_broker.settings import Server

logger = structlog.get_logger(__name__)


class Encryption:
    """Gives the context for each new connection, by the files as they are then.

    A context of its own for each version, not one that is changed: a certificate whose key doesn't fit leaves
    a changed one broken, and authorities can only be added to it. What was connected before stays.

    Args:
        settings: the paths.
        clock: seconds, monotonic.

    Raises:
        UnusableFile: no connection could be made with what the files hold.
    """

    def __init__(self, settings: Server, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        paths = (settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
        self._files = [WatchedFile(path, _pem, clock=clock) for path in paths if path]
        for file in self._files:
            file.open()
        self._generations = self._look()
        try:
            self._context = self._load()
        except (OSError, ValueError) as error:
            raise UnusableFile(f"{settings.tls_certificate}: {_reason(error)}") from error

    def context(self) -> ssl.SSLContext:
        """Give the context for a connection that has just come; at most once a second files are looked at."""
        generations = self._look()
        if generations != self._generations:
            # Tried once for each version: of a new pair the certificate is there before the key.
            self._generations = generations
            try:
                self._context = self._load()
                logger.info("certificate_read", file=self._settings.tls_certificate)
            except (OSError, ValueError) as error:
                logger.warning(
                    "certificate_unusable",
                    file=self._settings.tls_certificate,
                    detail=_reason(error),
                    consequence="the last one that was usable counts",
                )
        return self._context

    def _look(self) -> list[int]:
        for file in self._files:
            file.look()
        return [file.generation for file in self._files]

    def _load(self) -> ssl.SSLContext:
        """Make a context of the files.

        Raises:
            OSError, ValueError: they can't be used, or not with each other.
        """
        settings = self._settings
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        # Without an answer here OpenSSL asks for the password of an encrypted key on the terminal.
        context.load_cert_chain(settings.tls_certificate, settings.tls_key, password=lambda: "")
        if settings.tls_client_ca:
            context.load_verify_locations(settings.tls_client_ca)
            # Not required: whoever shows none may have another credential.
            context.verify_mode = ssl.CERT_OPTIONAL
        return context


def _pem(content: bytes) -> bytes:
    if b"-----BEGIN " not in content or b"-----END " not in content:
        raise ValueError("is no PEM file")
    return content


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return (
            f"certificate and key can't be used: {(error.reason or 'unreadable').lower().replace('_', ' ')}"
        )
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)
