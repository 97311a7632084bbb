"""What about settings is allowed and seldom meant: said once in the log, when a broker begins.

Must not know what is done by settings.
"""

from __future__ import annotations

import structlog

from sidecast_broker.settings import Settings

logger = structlog.get_logger(__name__)


def warn(settings: Settings) -> None:
    """Log what whoever set this may not expect."""
    if settings.auth_on and not settings.auth.schemes:
        logger.warning("auth_without_scheme", consequence="every stream is answered with 401")
    elif settings.auth_on and not settings.auth.ticket_secret:
        logger.warning(
            "ticket_secret_random",
            consequence="tickets and page tokens are good at this replica only, until it restarts",
            setting="auth.ticket_secret",
        )
