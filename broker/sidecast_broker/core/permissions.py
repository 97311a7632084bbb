"""The NATS subjects a broker must be allowed to use, and what each is for.

Must not know connections, nor who grants them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from sidecast_schemas.subjects import (
    CAPTORS_PREFIX,
    EVENTS_PREFIX,
    LIVE_PREFIX,
    SUBSCRIPTIONS_PREFIX,
    agent_tokens,
)

Direction = Literal["publish", "subscribe"]


class Permission(NamedTuple):
    """One subject.

    Attributes:
        direction: what must be allowed.
        subject: as nats-server's configuration writes it.
        use: what the broker does there, as part of a sentence.
        essential: whether the broker serves no watcher without it.
    """

    direction: Direction
    subject: str
    use: str
    essential: bool = True


def needed(
    *,
    stream: str,
    tenant: str,
    agent: str,
    manages: bool,
    captures: bool,
    has_agent: bool,
    keeps_messages: bool,
    authenticates: bool,
) -> list[Permission]:
    """Give what the broker of one agent uses.

    Args:
        stream: name of the stream.
        tenant: of the agent; empty for the one without a name.
        agent: its name.
        manages: whether the broker makes what is missing.
        captures: whether it publishes what the agent answers.
        has_agent: whether messages are sent through it.
        keeps_messages: whether all brokers know which task a message has begun.
        authenticates: whether credentials are needed, and so can be revoked.
    """
    place = f"{agent_tokens(tenant, agent)}.*"
    found = [
        Permission("publish", f"$JS.API.STREAM.INFO.{stream}", "ask the stream's state"),
        Permission("publish", f"$JS.API.STREAM.MSG.GET.{stream}", "ask the stream's leader for an event"),
        Permission("publish", f"$JS.API.DIRECT.GET.{stream}", "read the history of tasks"),
        Permission("publish", "_INBOX.>", "know that a subscription stands"),
        Permission("subscribe", "_INBOX.>", "receive answers"),
        Permission("subscribe", f"{LIVE_PREFIX}.{place}", "receive events as they are stored"),
        Permission(
            "subscribe",
            f"$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.{stream}",
            "notice at once that events may have been lost",
            essential=False,
        ),
        Permission("publish", f"{EVENTS_PREFIX}.{place}", "publish what comes over HTTP", essential=captures),
    ]
    if manages:
        found += [
            Permission("publish", f"$JS.API.STREAM.CREATE.{stream}", "create the stream", essential=False),
            Permission("publish", f"$JS.API.STREAM.UPDATE.{stream}", "write a new epoch", essential=False),
        ]
    if captures:
        captors = f"{CAPTORS_PREFIX}.{place}"
        found += [
            Permission("publish", captors, "ask which broker captures a task"),
            Permission("subscribe", captors, "say that it captures a task"),
        ]
    buckets = []
    if has_agent and keeps_messages:
        buckets.append((f"{stream}_MESSAGES", place, "remember which task a message has begun"))
    if authenticates:
        buckets.append((f"{stream}_REVOKED", "*", "know what is revoked"))
    for bucket, keys, use in buckets:
        found += [
            Permission("publish", f"$KV.{bucket}.{keys}", use),
            Permission("publish", f"$JS.API.STREAM.INFO.KV_{bucket}", use),
            Permission("publish", f"$JS.API.STREAM.MSG.GET.KV_{bucket}", use),
        ]
        if manages:
            found.append(
                Permission("publish", f"$JS.API.STREAM.CREATE.KV_{bucket}", f"create the bucket {bucket}")
            )
    use = "keep named subscriptions"
    consumers = "$JS.API.CONSUMER"
    found += [
        Permission("publish", subject, use, essential=False)
        for subject in (
            f"{consumers}.CREATE.{stream}.*.{EVENTS_PREFIX}.{place}",
            f"{consumers}.INFO.{stream}.*",
            f"{consumers}.DELETE.{stream}.*",
            f"{consumers}.NAMES.{stream}",
            f"{consumers}.MSG.NEXT.{stream}.*",
            f"$JS.ACK.{stream}.>",
            f"{SUBSCRIPTIONS_PREFIX}.{place}",
        )
    ]
    found.append(Permission("subscribe", f"{SUBSCRIPTIONS_PREFIX}.{place}", use, essential=False))
    return found
