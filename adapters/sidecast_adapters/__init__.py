"""What an agent installs: publish task events to JetStream.

Importing it pulls in neither nats-py nor an agent framework.
"""

from __future__ import annotations

from sidecast_adapters.artifact import Artifact
from sidecast_adapters.counts import Counts
from sidecast_adapters.limit import TooLarge
from sidecast_adapters.publisher import Publisher
from sidecast_adapters.step import Step
from sidecast_adapters.task import Task

__all__ = ["Artifact", "Counts", "Publisher", "Step", "Task", "TooLarge"]
