"""A broker with real credentials, tasks of several owners behind it, and all that an attack may change.

Must not know what is attacked.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import issuer
from a2a_rig.awkward import AwkwardAgent
from access_rig import ALICES, OPEN, RecordingBackend, as_task, stocked
from brokers import OwnBroker, broker
from issuer import AUDIENCE, ISSUER, jwks
from sse import exchange

from sidecast_broker.auth.api_keys import hash_key

API_KEY = "sidecast_" + "k3y" * 14
TICKET_SECRET = "a secret of tickets that is long enough for them"
REVOKED = "SIDECAST_REVOKED"


def token(kind: str = "rsa", algorithm: str | None = None, **changed: Any) -> str:
    """Sign a token of alice's that is valid for ten minutes, unless what is changed says otherwise."""
    return issuer.token(kind, algorithm, **{"exp": int(time.time()) + 600, **changed})


def bearer(text: str) -> str:
    """Give the line that carries a token or a key."""
    return f"Authorization: Bearer {text}"


class Shot(NamedTuple):
    """A request, byte for byte but for its framing.

    Attributes:
        method: of HTTP.
        target: of HTTP, as it is sent.
        lines: of the head; a `Host` is added where they name none.
        body: sent with its length, and as JSON unless the lines name a type.
        internal: whether it goes to the internal listener.
    """

    method: str
    target: str
    lines: tuple[str, ...] = ()
    body: bytes | None = None
    internal: bool = False

    def raw(self) -> bytes:
        """Write it, over a connection of its own."""
        names = {line.partition(":")[0].strip().lower() for line in self.lines}
        head = [f"{self.method} {self.target} HTTP/1.1"]
        head += ["Host: localhost"] if "host" not in names else []
        head += [*self.lines, "Connection: close"]
        if self.body is not None:
            head += ["Content-Type: application/json"] if "content-type" not in names else []
            if not names & {"content-length", "transfer-encoding"}:
                head.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join((*head, "", "")).encode("utf-8", "surrogateescape") + (self.body or b"")


class Scene(NamedTuple):
    """What is attacked, and what must stay as it is."""

    broker: OwnBroker
    backend: RecordingBackend
    agent: AwkwardAgent
    ticket: str

    async def fire(self, shot: Shot) -> bytes:
        """Give every byte of the answer."""
        url = self.broker.internal_url if shot.internal else self.broker.url
        return await exchange(url, shot.raw())

    def state(self) -> tuple[object, ...]:
        """Give all that an attack may have changed."""
        server, listening = self.backend.server, self.broker.listening
        return (
            server.last,
            sorted(server._buckets.get(REVOKED, {})),
            len(self.agent.requests),
            [stream["task"] for stream in listening.streams.describe()],
            listening.streams.draining,
        )


@asynccontextmanager
async def scene(folder: Path, **settings: Any) -> AsyncIterator[Scene]:
    """Run all of it, with one stream of alice's open."""
    (folder / "keys.json").write_bytes(jwks("rsa", "p256", "ed"))
    (folder / "keys.toml").write_text(
        f'[[key]]\nid = "one"\nsha256 = "{hash_key(API_KEY)}"\nprincipal = "alice"\n'
        f'[[key]]\nid = "old"\nsha256 = "{hash_key("old-key")}"\nprincipal = "alice"\n'
        "expires = 2001-01-01T00:00:00Z\n"
    )
    given = {
        "auth__jwt_issuer": ISSUER,
        "auth__jwt_audience": AUDIENCE,
        "auth__jwt_jwks_file": folder / "keys.json",
        "auth__api_keys_file": folder / "keys.toml",
        "auth__ticket_secret": TICKET_SECRET,
        "auth__refusal_floor_ms": 5,
    } | settings
    backend = stocked()
    async with AwkwardAgent() as agent:
        agent.answer = as_task
        async with broker(backend, agent__url=agent.url, **given) as running:
            stream = await running.watch(OPEN, headers=dict([bearer(token()).split(": ", 1)]))
            await stream.take(2)
            it = Scene(running, backend, agent, "")
            body = json.dumps({"tasks": [ALICES]}).encode()
            answer = await it.fire(Shot("POST", "/tickets", (bearer(token()),), body))
            yield it._replace(ticket=json.loads(answer.partition(b"\r\n\r\n")[2])["ticket"])
