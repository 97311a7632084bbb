"""How a Task of an agent is to be read: whether it doubles, and what of it has been heard already.

Must not know logs, nor what is published.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from msgspec import Raw

from sidecast_broker.core.a2a.content import elements_of, fields_of
from sidecast_schemas.codec import ArtifactUpdateBody, Event, RawObject, StatusUpdateBody

_decode_payload = msgspec.json.Decoder(RawObject).decode


class Reading(NamedTuple):
    """How a Task is to be read.

    Attributes:
        doubles: the agent's Tasks may hold an artifact's piece once for each stream that was open.
        heard: what the agent's stream has said before the Task came, oldest first, and the log doesn't have
            yet: only what came before that is wanted of the Task. None where there is no such stream.
    """

    doubles: bool = False
    heard: Sequence[Event] | None = None


AS_IT_IS = Reading()


class Heard:
    """What events say that follow a Task which may contain them already.

    Args:
        events: of one task, oldest first.

    Attributes:
        status: whether there is a status among them.
        messages: the ids of the messages they say.
        replaced: the ids of artifacts they say anew.
        pieces: the parts they append, by artifact.
    """

    def __init__(self, events: Sequence[Event]) -> None:
        self.status = False
        self.messages: set[str] = set()
        self.replaced: set[str] = set()
        self.pieces: dict[str, list[Raw]] = {}
        for event in events:
            if isinstance(event.body, StatusUpdateBody):
                self.status = True
                update = fields_of(_decode_payload(event.payload)["statusUpdate"])
                self.messages.add(id_of_message(fields_of(update["status"]).get("message")))
            elif isinstance(event.body, ArtifactUpdateBody):
                artifact = fields_of(_decode_payload(event.payload)["artifactUpdate"])["artifact"]
                artifact_id = event.body.artifact.artifactId
                if not event.body.append:
                    self.replaced.add(artifact_id)
                pieces = self.pieces.setdefault(artifact_id, [])
                pieces += elements_of(fields_of(artifact).get("parts"))


def id_of_message(message: Raw | None) -> str:
    """Give the id of a message; "" for one without, and for what is none."""
    raw = fields_of(message).get("messageId")
    if raw is None or memoryview(raw)[0] != ord('"'):
        return ""
    return msgspec.json.decode(raw, type=str)
