"""Ends sessions of worker logins that keep a transaction open.

Row locks last as long as their transaction, and no setting forbids a login to keep one open. So engines look, and end what
stays open for longer than `LIMIT`: until then, and no longer, such a session can keep an engine from removing a job.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio

from hotmesh.errors import DatabaseError

if TYPE_CHECKING:
    from hotmesh.postgres.store import Store

logger = logging.getLogger("hotmesh.security")

LIMIT = 5.0
"""Seconds for which a worker login may keep a transaction open; its procedures take milliseconds."""

PERIOD = 2.0
"""Seconds between two looks, where there are worker logins."""

IDLE = 10.0
"""Seconds between two looks whether there are any by now."""


async def end_stalled_workers(store: Store) -> None:
    """Look again and again, until cancelled."""
    while True:
        ended: list[str] | None = None
        try:
            ended = await store.end_stalled_workers(LIMIT)
        except DatabaseError as error:
            logger.warning("sessions of worker logins could not be watched", extra={"error": str(error)})
        for session in ended or ():
            logger.warning(
                "session of a worker login ended: transaction left open", extra={"session": session}
            )
        await anyio.sleep(IDLE if ended is None else PERIOD)
