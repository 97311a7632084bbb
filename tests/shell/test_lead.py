from __future__ import annotations

from typing import Any

import pytest

from sidecast_broker.answers import Away
from sidecast_broker.lead import Lead

SUBJECT = "sidecast.v1.captors._.agent.task-1"


class Servers:
    """Who attends which subject, as the servers know it."""

    def __init__(self) -> None:
        self.attending: dict[object, str] = {}
        self.away = False
        self.asked = 0

    async def attend(self, token: object, subject: str) -> None:
        if self.away:
            raise Away("no servers")
        self.attending[token] = subject

    async def unsubscribe(self, token: object) -> None:
        self.attending.pop(token, None)

    async def attended(self, subject: str) -> bool:
        self.asked += 1
        if self.away:
            raise Away("no servers")
        return subject in self.attending.values()


async def test_who_asks_first_leads_until_it_leaves() -> None:
    servers: Any = Servers()
    one, other = Lead(servers, SUBJECT), Lead(servers, SUBJECT)
    assert one.held is None
    assert await one.take()
    assert not await other.take()
    assert (one.held, other.held) == (True, False)
    await one.leave()
    assert await other.take()


async def test_who_leads_asks_nobody_again() -> None:
    servers: Any = Servers()
    lead = Lead(servers, SUBJECT)
    assert await lead.take()
    asked = servers.asked
    assert await lead.take()
    assert servers.asked == asked


async def test_who_yields_does_not_find_itself_when_it_asks_again() -> None:
    servers: Any = Servers()
    lead = Lead(servers, SUBJECT)
    await lead.take()
    lead.held = False
    assert await lead.take()
    assert list(servers.attending.values()) == [SUBJECT]


async def test_what_can_not_be_found_out_is_known_by_nobody() -> None:
    servers: Any = Servers()
    servers.away = True
    lead = Lead(servers, SUBJECT)
    with pytest.raises(Away):
        await lead.take()
    assert lead.held is None
    servers.away = False
    assert await lead.take()


async def test_closing_leaves_nobody_attending() -> None:
    servers: Any = Servers()
    lead = Lead(servers, SUBJECT)
    await lead.take()
    await lead.close()
    assert not servers.attending
