"""`sidecast tail`: follow one task until it ends.

Must not know how events are read or shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

import aiohttp
import click

from sidecast_broker.commands.client_options import client_options
from sidecast_broker.commands.display import Display, JsonLines, Lines, Visual
from sidecast_broker.commands.terminal import open_terminal, printable
from sidecast_broker.commands.watcher import StateUnknown, Watcher, WatchRefused, decode_object, text_of

COMPLETED = "completed"


async def follow(
    url: str, task: str, display: Display, *, token: str | None = None, params: dict[str, str] | None = None
) -> str:
    """Show a task's events until nothing follows.

    Args:
        url: of the broker's public listener.
        task: the task's plain id.
        display: shows the events, and notes about dropped connections.
        token: a bearer token.
        params: for the query.

    Returns:
        The task's last state in the browser format's spelling; empty when the stream ended for
        another reason.

    Raises:
        WatchRefused: the broker's answer is final.
        StateUnknown: nothing follows, and the broker did not tell how the task ended.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    # A stream lasts as long as the task: the watcher itself tells silence from patience.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        watcher = Watcher(session, url, task, params=params, note=display.note)
        async with contextlib.aclosing(watcher.events()) as events:
            async for event in events:
                display.show(event)
                if event.type == "stream.end":
                    return text_of(decode_object(event.data.encode()), "state")
        state = await watcher.state()
        display.note(f"the task is over: {state}")
        return state


@click.command("tail")
@click.argument("task")
@client_options("public", "http://127.0.0.1:8480")
@click.option(
    "--from",
    "start",
    type=click.Choice(["snapshot", "start", "now"]),
    default="snapshot",
    show_default=True,
    help="Begin with the task as it stands, with its first event, or with what comes next.",
)
@click.option("--visualize", is_flag=True, help="Show the work as it happens.")
@click.option("--json", "as_json", is_flag=True, help="Print the events' data, one JSON object per line.")
@click.option("--debug", is_flag=True, help="Also the agent's debug events.")
@click.option(
    "--wait-s", type=click.IntRange(0, 60), help="Wait that long for a task that doesn't exist yet."
)
def command(
    task: str,
    url: str,
    token: str | None,
    start: str,
    visualize: bool,
    as_json: bool,
    debug: bool,
    wait_s: int | None,
) -> None:
    """Follow TASK until it ends; after a dropped connection go on where it broke off.

    Exits with 0 when the task has completed, with 1 when it failed, was canceled or rejected, doesn't exist,
    or is over and the broker doesn't tell how it ended.
    """
    if visualize and as_json:
        raise click.UsageError("--visualize and --json exclude each other")
    params = {"from": start} if start != "snapshot" else {}
    if debug:
        params["debug"] = "1"
    if wait_s is not None:
        params["wait_s"] = str(wait_s)
    display = (Visual if visualize else JsonLines if as_json else Lines)(
        open_terminal(sys.stdout), open_terminal(sys.stderr)
    )
    try:
        state = asyncio.run(follow(url, task, display, token=token, params=params))
    except WatchRefused as error:
        raise click.ClickException(printable(str(error))) from error
    except StateUnknown as error:
        message = f"the task is over, but its state could not be asked for: {error}"
        raise click.ClickException(printable(message)) from error
    if state != COMPLETED:
        raise click.exceptions.Exit(1)
