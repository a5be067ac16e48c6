"""Ends sessions of worker logins that keep a transaction open, or use advisory locks.

Row locks last as long as their transaction, and no setting forbids a login to keep one open, or to take locks by numbers
that others use, too. So engines look, and end such sessions: for `longest_transaction` and a moment, and no longer, one can keep an engine
from removing a job. An instance looks before it joins the mesh, so that no lock can keep it out.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import anyio
from anyio.abc import TaskGroup

from hotmesh.postgres.connect.link import Link
from hotmesh.postgres.database import Database
from hotmesh.postgres.logins import sessions

logger = logging.getLogger("hotmesh.security")


@dataclass(frozen=True, slots=True)
class StalledLoginLimits:
    """Times in seconds."""

    longest_transaction: float = 5.0
    """For which a worker login may keep a transaction open; its procedures take milliseconds."""
    look_period: float = 2.0
    """Between two looks, where there are worker logins."""
    idle_period: float = 10.0
    """Between two looks whether there are any by now."""


class StalledLogins:
    """Watches the worker logins of one app, over a connection of its own, since any other may wait for such a session."""

    def __init__(self, database: Database, limits: StalledLoginLimits) -> None:
        self._database = database
        self._limits = limits

    async def look(self) -> None:
        """Look once."""
        link = self._database.link("watch")
        try:
            await self._look(link)
        finally:
            await link.close()

    async def run(self, tasks: TaskGroup) -> None:
        """Start to look again and again."""
        tasks.start_soon(self._watch_loop, name="watch worker logins")

    async def _watch_loop(self) -> None:
        link = self._database.link("watch")
        try:
            while True:
                watching = await self._look(link)
                await anyio.sleep(self._limits.look_period if watching else self._limits.idle_period)
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(2):
                await link.close()

    async def _look(self, link: Link) -> bool:
        """End what has to be ended now; whether the app has worker logins at all."""
        try:
            async with link.use() as connection:
                ended = await sessions.end_stalled_workers(
                    self._database, connection, self._limits.longest_transaction
                )
                restrained = (
                    [] if ended is None else await sessions.restrained_workers(self._database, connection)
                )
        except Exception as error:  # noqa: BLE001 - nothing may end this loop
            logger.warning("sessions of worker logins could not be watched", extra={"error": str(error)})
            return False
        for session in ended or ():
            logger.warning("session of a worker login ended", extra={"session": session})
        for login in restrained:
            logger.warning(
                "worker login restrained", extra={"login": login, "reason": "it rolls back what takes work"}
            )
        if ended is None:
            await link.close()  # nobody to watch: no connection is kept
        return ended is not None
