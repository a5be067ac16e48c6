"""Activities that no worker has: said loudly, and failed in the end, so that their workflows do not wait for ever.

Each process that runs activities says which, on its row among the members, and looks what waits on the queues that it serves under
names that no member has. A queue that nobody serves is left alone: its workers may only not be there yet.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Final

import anyio
from anyio.abc import TaskGroup

from hotmesh.core.durable.failure import simple_failure
from hotmesh.core.wire import dumps_text
from hotmesh.durable_errors import ActivityNotRegisteredError
from hotmesh.nearest import nearest
from hotmesh.postgres.connect.link import Link
from hotmesh.postgres.database import Database

logger = logging.getLogger("hotmesh.durable")

LONGEST_PERIOD: Final = 10.0
"""Seconds between two looks, at most."""

SAID_AFTER: Final = 2.0
"""Seconds after which it is said that something waits: a worker that starts may have it in a moment."""


class UnknownActivities:
    """Watches the queues of the activities of one member. `serve` starts it."""

    def __init__(self, database: Database, member: str) -> None:
        self._database = database
        self._member = member
        self._known: dict[str, list[str]] = {}
        self._grace = 0.0
        self._said: set[tuple[str, str]] = set()
        self._running = False

    def serve(self, topic: str, names: list[str], grace: float, tasks: TaskGroup | None) -> None:
        """These names of the topic are run here. `grace`: seconds that others may wait; of several the longest."""
        self._known.setdefault(topic, []).extend(names)
        self._grace = max(self._grace, grace)
        if tasks is not None and not self._running:
            self._running = True
            tasks.start_soon(self._watch, name="look for unknown activities")

    def leave(self, topic: str, names: Collection[str]) -> None:
        """These are not run here any more."""
        left = [name for name in self._known.get(topic, ()) if name not in names]
        if left:
            self._known[topic] = left
        else:
            self._known.pop(topic, None)

    async def _watch(self) -> None:
        link = self._database.link("unknown")
        try:
            while True:
                try:
                    await self._look(link)
                except Exception as error:  # noqa: BLE001 - nothing may end this loop
                    logger.warning("unknown activities could not be looked for", extra={"error": str(error)})
                await anyio.sleep(min(LONGEST_PERIOD, max(self._grace / 4, 0.05)))
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(2):
                await link.close()

    async def _look(self, link: Link) -> None:
        query, app_id = self._database.query, self._database.app_id
        known = dumps_text(self._known)
        async with link.use() as connection:
            rows = await connection.fetch(
                query("unknown_activities"), app_id, self._member, known, list(self._known)
            )
            for row in rows:
                topic, name, seconds = row["topic"], row["name"], row["seconds"]
                if seconds is None:
                    continue
                if seconds >= self._grace:
                    error = ActivityNotRegisteredError(
                        name, topic.removesuffix("-activity"), self._known[topic]
                    )
                    stored = simple_failure(error.message, type=type(error).__name__) | {
                        "ended": "non_retryable"
                    }
                    text = dumps_text(stored)
                    await connection.fetchval(query("fail_unknown"), app_id, topic, name, self._grace, text)
                    logger.error(
                        "an activity is given up: %s",
                        error.message,
                        extra={"event": "activity-unknown", "activity": name},
                    )
                elif seconds >= min(SAID_AFTER, self._grace / 2):
                    self._say(topic, name)

    def _say(self, topic: str, name: str) -> None:
        """Once."""
        if (topic, name) in self._said:
            return
        self._said.add((topic, name))
        known = sorted(self._known[topic])
        near = nearest(name, known)
        logger.warning(
            "activity %s waits on queue %s, and no worker has it: activities=[...]; the one here has only %s%s; it fails after %s s",
            name,
            topic.removesuffix("-activity"),
            ", ".join(known),
            f" (is {near} meant?)" if near else "",
            f"{self._grace:g}",
            extra={"event": "activity-unknown", "activity": name},
        )
