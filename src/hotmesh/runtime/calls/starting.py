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
from hotmesh.core.wire import dumps_text
from hotmesh.errors import AppNotFoundError, DuplicateJobError, TopicNotFoundError
from hotmesh.postgres.connect.caller import fetch_row
from hotmesh.postgres.store import Store
from hotmesh.runtime.surroundings import Surroundings

_TYPES = ("text", "text", "text", "text", "text", "text", "double precision", "text", "text", "bigint")


async def start_within(surroundings: Surroundings, connection: Any, request: StartRequest) -> str:
    """Create the job on the caller's connection; returns its id.

    Raises AppNotFoundError, TopicNotFoundError, MappingError, DuplicateJobError, ConfigError, SchemaError.
    """
    store, plans, settings = surroundings.store, surroundings.plans, surroundings.settings
    limits = Limits(max_cycles=settings.max_cycles, expire=settings.expire)
    if surroundings.telemetry is not None:
        request = surroundings.telemetry.carried(request)
    for current in (True, True, False):
        plan = await plans.active()
        epoch = plans.epoch
        step = start(plan, request, datetime.now(UTC), surroundings.environment, limits=limits)
        job_id = step.jobs[0].job.job_id
        # By a transaction that began earlier, the definitions may be older for good: then only the topic is looked up.
        outcome, version = await _try(store, connection, request, job_id, epoch if current else None)
        match outcome:
            case "started":
                return job_id
            case "duplicate":
                raise DuplicateJobError(job_id)
            case "app":
                raise AppNotFoundError(store.app_id)
            case "topic":
                raise TopicNotFoundError(request.topic, store.app_id, version)
            case _:
                await plans.refresh()
    raise AssertionError("without an epoch, nothing is stale")


async def _try(
    store: Store, connection: Any, request: StartRequest, job_id: str, epoch: int | None
) -> tuple[str, str]:
    arguments = (
        store.app_id,
        request.topic,
        store.payload.dumps(request.data),
        job_id,
        request.entity,
        None if request.search is None else dumps_text(request.search),
        request.pending,
        request.trace_id,
        request.span_id,
        epoch,
    )
    select = store.bound("select outcome, version from mesh.try_start_job")
    outcome, version = await fetch_row(connection, select, _TYPES, arguments)
    return str(outcome), str(version)
