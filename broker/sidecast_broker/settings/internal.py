"""What can be set of the internal listener, beyond its address.

Must not know the other sections.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct


class Internal(Struct, frozen=True):
    """The internal listener."""

    open: Annotated[
        bool,
        "Serve publishing and administration without a credential on loopback, while no credential is "
        "needed.",
    ] = True
