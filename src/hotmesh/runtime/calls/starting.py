"""Starts a job within a transaction of the caller's: it exists if and only if that commits.

What can be wrong with a start is found out here, before anything is written: the definitions are read by this process, the
trigger's maps are tried. Then the job's row and a message are written by the caller's own connection; from the commit
on, they are an engine's. A duplicate is reported by the stored function and raised here, so that the caller's transaction
stays usable.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hotmesh.core.advance.advance import start
from hotmesh.core.advance.limits import Limits
from hotmesh.core.state.job import StartRequest
from hotmesh.errors import AppNotFoundError, DuplicateJobError, TopicNotFoundError
from hotmesh.postgres import callers
from hotmesh.runtime.surroundings import Surroundings


async def start_within(surroundings: Surroundings, connection: Any, request: StartRequest) -> str:
    """Create the job on the caller's connection; returns its id.

    Raises AppNotFoundError, TopicNotFoundError, MappingError, DuplicateJobError, ConfigError, SchemaError.
    """
    database, plans, settings = surroundings.database, surroundings.plans, surroundings.settings
    limits = Limits(max_cycles=settings.max_cycles, expire=settings.expire, max_payload=settings.max_payload)
    if surroundings.telemetry is not None:
        request = surroundings.telemetry.carried(request)
    for current in (True, True, False):
        plan = await plans.active()
        epoch = plans.epoch
        step = start(plan, request, datetime.now(UTC), surroundings.environment, limits=limits)
        job_id = step.jobs[0].job.job_id
        # By a transaction that began earlier, the definitions may be older for good: then only the topic is looked up.
        outcome, version = await callers.try_start_job(
            database,
            connection,
            epoch if current else None,
            request.topic,
            request.data,
            job_id,
            entity=request.entity,
            search=request.search,
            pending=request.pending,
            trace_id=request.trace_id,
            span_id=request.span_id,
        )
        match outcome:
            case "started":
                return job_id
            case "duplicate":
                raise DuplicateJobError(job_id)
            case "app":
                raise AppNotFoundError(database.app_id)
            case "topic":
                raise TopicNotFoundError(request.topic, database.app_id, version)
            case _:
                await plans.refresh()
    raise AssertionError("without an epoch, nothing is stale")
