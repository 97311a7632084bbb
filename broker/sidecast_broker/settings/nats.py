"""What can be set of the NATS server, and of the stream that holds the events.

Must not know the other sections.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from sidecast_broker.settings.fields import GIB, MIB, SECRET_IN_URL, within


class Nats(Struct, frozen=True):
    """The NATS server, and the JetStream stream that holds the events."""

    url: Annotated[
        str,
        Meta(min_length=1),
        SECRET_IN_URL,
        "Servers, separated by commas: `nats://`, `tls://`, `ws://` or `wss://`.",
    ] = "nats://127.0.0.1:4222"
    stream: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,128}$"), "Name of the JetStream stream."] = (
        "SIDECAST"
    )
    credentials_file: Annotated[str, "Path of a NATS `.creds` file; empty connects without one."] = ""
    nkey_seed_file: Annotated[str, "Path of a file with the seed of an nkey; empty connects without one."] = (
        ""
    )
    tls_ca_file: Annotated[
        str, "Path of the certificates (PEM) of those who may sign the server's; empty takes the system's."
    ] = ""
    tls_certificate_file: Annotated[
        str, "Path of the certificate chain (PEM) shown to the server; empty shows none."
    ] = ""
    tls_key_file: Annotated[str, "Path of that certificate's private key (PEM, without a password)."] = ""
    manage_stream: Annotated[bool, "Create the stream where it is missing, with the four settings below."] = (
        True
    )
    replicas: Annotated[Literal[1, 3], "Copies of the stream the NATS cluster keeps, when it is created."] = 1
    max_age_s: Annotated[int, within(1, 366 * 86400), "Age at which an event is discarded, in seconds."] = (
        86400
    )
    max_bytes: Annotated[
        int,
        within(MIB, 1024 * GIB),
        "Size at which the oldest events are discarded, in bytes; one limit for all tenants.",
    ] = GIB
    duplicate_window_s: Annotated[
        float, within(0.1, 86400), "Time in which a repeated message id is stored once, in seconds."
    ] = 120.0
    messages_age_s: Annotated[
        int,
        within(0, 366 * 86400),
        "Time for which all brokers know which task a message has begun, in seconds: sent again, it begins "
        "no other. 0: only the broker it came through knows, for five minutes.",
    ] = 86400
    verify_s: Annotated[
        float,
        within(0.1, 300),
        "How often watched tasks are compared with the stream, in seconds: republished events can be lost "
        "without a sign.",
    ] = 5.0
    request_s: Annotated[float, within(0.1, 60), "Time one request to NATS may take, in seconds."] = 2.0
    page_events: Annotated[int, within(1, 1000), "Events asked for by one read of a task's history."] = 256
    history_reads_max: Annotated[int, within(1, 1024), "Reads of task history under way at once."] = 16
