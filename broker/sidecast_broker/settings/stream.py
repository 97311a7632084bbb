"""What can be set of streams to clients: their beats, buffers, lags and limits.

Must not know the other sections.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from sidecast_broker.settings.fields import KIB, MIB, Limit, within


class Stream(Struct, frozen=True):
    """Streams to clients."""

    heartbeat_s: Annotated[
        float, within(0.1, 300), "Silence after which a heartbeat is sent, in seconds."
    ] = 15.0
    a2a_heartbeat_s: Annotated[
        float,
        within(0.1, 300),
        "The same on A2A streams, in seconds: Python clients give up after 5 s of silence.",
    ] = 3.0
    retry_ms: Annotated[
        int, within(0, 600_000), "Time clients are told to wait before reconnecting, in ms."
    ] = 1000
    buffer_bytes_max: Annotated[
        int,
        within(4 * KIB, 64 * MIB),
        "Write buffer of one client, in bytes; beyond it the client leaves the shared loop and is sent to "
        "at its own pace.",
    ] = 256 * KIB
    send_buffer_bytes: Annotated[
        int,
        within(4 * KIB, 16 * MIB),
        "Kernel send buffer of one client (SO_SNDBUF), in bytes; small shows lag early.",
    ] = 64 * KIB
    lag_s_max: Annotated[
        float, within(0.1, 3600), "Age of the oldest unsent event that counts as lag, in seconds."
    ] = 30.0
    skip_s: Annotated[
        float,
        within(0.1, 3600),
        "Time a client with `?slow=snapshot` may be behind before it is sent the task as it stands instead "
        "of what it has missed, in seconds.",
    ] = 1.0
    wait_s_max: Annotated[
        float, within(0, 60), "Longest `?wait_s=` for a task that does not exist yet, in seconds."
    ] = 60.0
    drain_s: Annotated[
        float,
        within(0, 3600),
        "Time over which streams are told to reconnect elsewhere on SIGTERM, in seconds.",
    ] = 5.0
    age_max_s: Annotated[
        float,
        within(0, 30 * 86400),
        "Age at which a stream is told to reconnect, so that long ones spread over brokers again, in "
        "seconds; each at a random time in the last quarter of it. 0: none is.",
    ] = 0.0
    streams_max: Annotated[int, within(1, 1_000_000), "Streams open at once in one process."] = 20_000
    streams_per_principal_max: Annotated[
        Limit, "The same for one principal, where they are told apart. 0: no limit."
    ] = 10_000
    streams_per_address_max: Annotated[
        Limit,
        "The same for one address (of IPv6, one /64 network); needs `server.trusted_proxies` behind a "
        "proxy, where else all clients have one. 0: no limit.",
    ] = 0
    streams_per_task_max: Annotated[Limit, "The same for one task. 0: no limit."] = 0
    tasks_per_stream_max: Annotated[
        int,
        within(1, 10_000),
        "Tasks that one stream may list, and that one of an agent or context begins with.",
    ] = 256
    opens_per_s_max: Annotated[
        Limit,
        "New streams per second in one process, of those who may have one: who reconnects with many others "
        "is told when to come again. 0: no limit.",
    ] = 0
    opens_burst_max: Annotated[
        Limit,
        "New streams at once after silence, where `stream.opens_per_s_max` limits them. 0: as many as in a "
        "second.",
    ] = 0
    opens_per_address_per_minute_max: Annotated[
        Limit,
        "Requests for streams per minute from one address, also such that are refused; needs "
        "`server.trusted_proxies` behind a proxy. 0: no limit.",
    ] = 0
    waiters_max: Annotated[
        Limit, "Streams that wait for their task to begin (`?wait_s=`), in one process. 0: no limit."
    ] = 10_000
    waiters_per_principal_max: Annotated[
        Limit, "The same for one principal, where they are told apart. 0: no limit."
    ] = 5_000
    subscriptions_max: Annotated[
        int,
        within(0, 100_000),
        "Streams of named subscriptions open at once in one process: each costs the NATS server. 0: no "
        "limit.",
    ] = 200
    subscriptions_per_principal_max: Annotated[
        int,
        within(0, 100_000),
        "Named subscriptions of one principal, at all brokers, open or not; of all clients together where "
        "no credential is needed. 0: no limit.",
    ] = 200
    subscription_inactive_s: Annotated[
        float,
        within(1, 2_592_000),
        "Time after which a named subscription that nobody has open is forgotten, in seconds; no use "
        "beyond `nats.max_age_s`.",
    ] = 86_400.0
