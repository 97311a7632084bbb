"""The NATS permissions that the documentation gives to an agent and its broker, as a server's configuration.

Must not know who uses them.
"""

from __future__ import annotations

import re
from pathlib import Path

OPERATIONS = Path(__file__).parents[1] / "docs" / "operations.md"


def documented() -> dict[str, str]:
    """Give the permissions of the page, each as nats-server's configuration writes them."""
    section = OPERATIONS.read_text().partition("## NATS permissions")[2]
    block = re.search(r"```\n(.*?)```", section, re.DOTALL)
    assert block is not None
    agent, broker = block[1].split("# the broker of that agent")
    return {"agent": agent, "broker": broker}


def configuration() -> str:
    """Give the configuration of a server with the users `agent` and `broker`, both with the password `pw`."""
    users = "\n".join(
        f"{{user: {name}, password: pw, permissions: {{\n{rights}\n}}}}"
        for name, rights in documented().items()
    )
    return f"authorization {{ users: [\n{users}\n] }}\n"
