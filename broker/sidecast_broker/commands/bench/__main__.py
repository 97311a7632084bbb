"""One process of watchers: its plan is the argument, what it saw is its last line.

Must not know that there are others.
"""

from __future__ import annotations

import sys

import msgspec

from sidecast_broker.commands.bench.watching import Plan, watch
from sidecast_broker.commands.serve import run_loop

if __name__ == "__main__":
    run_loop(watch(msgspec.json.decode(sys.argv[1].encode(), type=Plan)))
