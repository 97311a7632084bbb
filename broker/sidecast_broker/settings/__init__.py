"""What can be set, read once at start from a file, the environment and flags: one module per section.

Must not know what any setting is used for: only its type, its bounds, and what it says of itself.
The documentation of settings is generated from the descriptions here.
"""

from sidecast_broker.settings.agent import Agent
from sidecast_broker.settings.auth import ALGORITHMS, Auth
from sidecast_broker.settings.catalogue import ENV_PREFIX, SETTINGS, Setting
from sidecast_broker.settings.fields import GIB, KIB, MIB
from sidecast_broker.settings.internal import Internal
from sidecast_broker.settings.log import Log
from sidecast_broker.settings.nats import Nats
from sidecast_broker.settings.pace import Pace
from sidecast_broker.settings.server import Server
from sidecast_broker.settings.settings import Settings, is_loopback, sections
from sidecast_broker.settings.stream import Stream

__all__ = [
    "ALGORITHMS",
    "ENV_PREFIX",
    "GIB",
    "KIB",
    "MIB",
    "SETTINGS",
    "Agent",
    "Auth",
    "Internal",
    "Log",
    "Nats",
    "Pace",
    "Server",
    "Setting",
    "Settings",
    "Stream",
    "is_loopback",
    "sections",
]
