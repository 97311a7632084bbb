"""`sidecast bench`: what a running broker delivers, measured from outside.

Must not know how the broker works: it publishes over HTTP and watches streams, each watcher in one of several
processes, so that the measuring is not what is measured.
"""

from sidecast_broker.commands.bench.command_line import command

__all__ = ["command"]
