"""What can be set of how fast clients are sent to.

Must not know the other sections, nor how a pace is kept.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.core.pace import Bounds, parse_rates
from sidecast_broker.settings.fields import within


class Pace(Struct, frozen=True):
    """How fast each client is sent to, and what it may ask for."""

    batch_ms: Annotated[
        int,
        within(0, 60_000),
        "Time over which events gather for a client that asks for no `?batch_ms=`, in ms. 0: they go out "
        "as they come.",
    ] = 0
    batch_ms_max: Annotated[int, within(0, 60_000), "Longest `?batch_ms=` a client may ask for, in ms."] = (
        5_000
    )
    batch_max: Annotated[
        int, within(1, 100_000), "Events that go out at once where `?batch_max=` names no number."
    ] = 100
    batch_max_max: Annotated[int, within(1, 100_000), "Largest `?batch_max=` a client may ask for."] = 1_000
    rate: Annotated[
        float,
        within(0, 100_000),
        "Events per second for a client that asks for no `?max_rate=`. 0: as many as come.",
    ] = 0.0
    rate_max: Annotated[
        float, within(0.1, 100_000), "Highest `?max_rate=` a client may ask for, in events per second."
    ] = 1_000.0
    rates: Annotated[
        str,
        "The same for single principals: `NAME=EVENTS_PER_S`, separated by commas, for example "
        "`alice=10,reports=0`; the others have `pace.rate`.",
    ] = ""
    burst: Annotated[
        int, within(1, 100_000), "Events a client with a rate is sent at once after silence."
    ] = 20
    late_s_max: Annotated[
        float,
        within(1, 86400),
        "How late a client with a rate may be by that before `?slow=` acts, in seconds.",
    ] = 300.0

    def bounds(self, principal: Principal) -> Bounds:
        """Give the same as `parse_pace` takes it for a principal."""
        bounds = Bounds(**{name: getattr(self, name) for name in Bounds._fields})
        if not self.rates or principal.anybody:
            return bounds
        return bounds._replace(rate=parse_rates(self.rates).get(principal.name, self.rate))
