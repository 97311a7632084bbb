"""Whether a worker still answers: it is asked again and again, and given up after a long silence.

Must not know what becomes of one that hangs.
"""

from __future__ import annotations

import asyncio
import time

import aiohttp

HANG_S = 30.0
"""A worker that answers nothing for so long hangs: as long as Kubernetes' liveness probe lets one process."""
ASK_S = 3.0
"""Between an answer and the next question."""
TICK_S = 1.0
"""In such steps a silence is counted, and after one it is asked again where the answer made no sense."""
LATE_TICKS = 2
"""A step that took so many times as long is not counted: this process did not run either."""

_URL = "http://worker/livez"


async def hung(path: str) -> float:
    """Ask a worker until it hangs.

    A worker is asked on one connection for as long as that lasts: then one that has no file descriptors left
    can answer, too. What isn't HTTP, or not 200, is no answer.

    Args:
        path: of the socket of its internal listener.

    Returns:
        For how long it has answered nothing, in seconds: `HANG_S` or a bit more. Time in which this process
        did not run itself, stopped or on a machine that was suspended, is left out.
    """
    async with aiohttp.ClientSession(
        connector=aiohttp.UnixConnector(path, limit=1),
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        while True:
            if silent_s := await _silence(session):
                return silent_s
            await asyncio.sleep(ASK_S)


async def _silence(session: aiohttp.ClientSession) -> float:
    """Give for how long a worker has been silent that hangs; 0 as soon as it answers."""
    answered = asyncio.create_task(_answered(session))
    silent_s, looked_s = 0.0, time.monotonic()
    try:
        while silent_s < HANG_S:
            await asyncio.wait({answered}, timeout=TICK_S)
            if answered.done():
                await answered
                return 0.0
            now_s = time.monotonic()
            passed_s, looked_s = now_s - looked_s, now_s
            if passed_s < LATE_TICKS * TICK_S:
                silent_s += passed_s
        return silent_s
    finally:
        answered.cancel()


async def _answered(session: aiohttp.ClientSession) -> None:
    """Ask until there is an answer."""
    while True:
        try:
            # One question waits for as long as a silence may last: a busy worker comes to it at some time.
            async with session.head(_URL, allow_redirects=False) as answer:
                if answer.status == 200:
                    return
        except (aiohttp.ClientError, OSError):
            pass  # told apart from silence, it would still be none
        await asyncio.sleep(TICK_S)
