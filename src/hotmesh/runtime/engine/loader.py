"""Jobs with those of their records that their events may need."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from hotmesh.core.plan.compile import Plan
from hotmesh.core.state.job import Address, Event, Job
from hotmesh.errors import VersionNotFoundError

if TYPE_CHECKING:
    from hotmesh.postgres.connect.connection import Driver
    from hotmesh.postgres.store import Store
    from hotmesh.runtime.definitions.plans import Plans

logger = logging.getLogger("hotmesh.engine")


class Loader:
    """Reads what the activities of jobs left, as far as a step needs it."""

    def __init__(self, store: Store, plans: Plans) -> None:
        self._store = store
        self._plans = plans

    async def load(self, connection: Driver, wanted: Sequence[tuple[Job, Sequence[Event]]]) -> dict[str, Job]:
        """The jobs with the records that their events may need."""
        places = []
        covered: dict[str, frozenset[Address]] = {}
        for job, events in wanted:
            plan = await self.plan_of(job)
            if plan is None:
                continue
            for event in events:
                activity = plan.activities.get(event.activity_id)
                if activity is not None:
                    places += [(job.generation, need, event.dimension) for need in activity.needs]
            covered[job.generation] = frozenset((event.activity_id, event.dimension) for event in events)
        records = await self._store.load_records(connection, places)
        return {
            job.generation: _with(job, records.get(job.generation, {}), covered[job.generation])
            for job, _ in wanted
            if job.generation in covered
        }

    async def plan_of(self, job: Job) -> Plan | None:
        try:
            return self._plans.known_for(job) or await self._plans.for_job(job)
        except VersionNotFoundError:
            logger.error("job of an unknown version", extra={"job_id": job.job_id, "version": job.version})
            return None


def _with(job: Job, records: Any, covered: frozenset[Address]) -> Job:
    return msgspec.structs.replace(job, records=records, covered=covered)
