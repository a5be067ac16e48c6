"""A job as one nested document: what its activities left by address, and the passes of its workers with their inputs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from hotmesh.core.advance.expressions import maps
from hotmesh.core.advance.job_draft import JobDraft, record_view
from hotmesh.core.advance.metadata import job_metadata, trigger_metadata
from hotmesh.core.mapping import Environment
from hotmesh.core.plan.compile import ActivityPlan, GraphPlan, Plan
from hotmesh.core.state.job import ActivityRecord, Dimension, Job
from hotmesh.core.values import UNDEFINED, Json
from hotmesh.errors import ConfigError, MappingError
from hotmesh.observe.apps import PlanOf
from hotmesh.observe.fate import not_found
from hotmesh.observe.jobs import WholeJob, named_descendants, whole_job
from hotmesh.observe.observer import Observer
from hotmesh.postgres.rows import HeldWork

PARTS: Final = ("dependencies", "process", "status", "activities")
"""The members of an export."""


async def export(
    observer: Observer,
    app_id: str,
    job_id: str,
    plan_of: PlanOf,
    environment: Environment,
    *,
    enrich_inputs: bool = False,
    allow: Collection[str] | None = None,
    block: Collection[str] | None = None,
) -> dict[str, Any]:
    """The members of a job's document that are allowed and not blocked, `activities` only with `enrich_inputs`.

    Raises JobNotFoundError, VersionNotFoundError; ConfigError, also for a durable function, which has no activities.
    """
    wanted = _parts(allow, block)
    whole = await whole_job(observer, app_id, job_id)
    if whole is None:
        raise await not_found(observer, app_id, job_id)
    if whole.job.queue is not None:
        raise ConfigError(
            f"job {job_id} is the durable function {whole.job.topic}, of which no document can be made yet: "
            f"its operations are in the view job_timeline, and in `hotmesh timeline {job_id} --app {app_id}`"
        )
    plan = await plan_of(whole.job.version)
    found: dict[str, Any] = {}
    if "dependencies" in wanted:
        found["dependencies"] = []
    if "process" in wanted:
        found["process"] = _process(plan.graphs[whole.job.topic], whole.job)
    if "status" in wanted:
        found["status"] = str(whole.job.status)
    if enrich_inputs and "activities" in wanted:
        family = [(plan, whole)]
        for below_id in await named_descendants(observer, app_id, job_id):
            below = await whole_job(observer, app_id, below_id)
            if below is not None:
                family.append((await plan_of(below.job.version), below))
        found["activities"] = _activities(family, environment)
    return found


def _parts(allow: Collection[str] | None, block: Collection[str] | None) -> frozenset[str]:
    for name, given in (("allow", allow), ("block", block)):
        if given is None:
            continue
        if (
            isinstance(given, str)
            or not isinstance(given, Collection)
            or any(part not in PARTS for part in given)
        ):
            raise ConfigError(f"{name} is a list of {', '.join(PARTS)}, not {given!r}")
    return frozenset(PARTS if allow is None else allow) - frozenset(block or ())


# -- the nested document ---------------------------------------------------------------------------------


def _process(graph: GraphPlan, job: Job) -> dict[str, Any]:
    """Records by dimension path and activity, and the job itself under `$<topic>`."""
    process: dict[str, Any] = {}
    trigger = {"output": {"metadata": trigger_metadata(graph, job.created_at), "data": job.input}}
    _level(process, (0,))[graph.trigger.id] = trigger
    for activity_id, passes in job.records.items():
        for address, record in passes.items():
            view = record_view(record, graph.activities.get(activity_id), address, job.updated_at)
            _level(process, address)[activity_id] = view
    process[f"${job.topic}"] = {"data": job.data, "metadata": job_metadata(job, graph, job.updated_at)}
    return process


def _level(process: dict[str, Any], address: Dimension) -> dict[str, Any]:
    level = process
    for index in address:
        level = level.setdefault(str(index), {})
    return level


# -- the activities with their inputs --------------------------------------------------------------------


def _activities(family: Collection[tuple[Plan, WholeJob]], environment: Environment) -> list[dict[str, Any]]:
    """The passes of the workers of several jobs, in the order in which they began."""
    entries = [entry for plan, whole in family for entry in _worker_passes(plan, whole, environment)]
    entries.sort(key=lambda entry: (entry["started_at"] or "", entry["dimension"]))
    return entries


def _worker_passes(plan: Plan, whole: WholeJob, environment: Environment) -> Iterator[dict[str, Any]]:
    """One entry for each pass of a worker activity, those that are still queued among them."""
    job, graph = whole.job, plan.graphs[whole.job.topic]
    draft = JobDraft(job, graph, job.updated_at, created=False)
    queued = {(work.activity_id, work.dimension): work for work in whole.work}
    for activity_id, passes in job.records.items():
        activity = graph.activities.get(activity_id)
        if activity is None or activity.type != "worker":
            continue
        for address, record in passes.items():
            work = queued.pop((activity_id, address), None)
            data = _derived(draft, activity, address, environment) if work is None else work.data
            yield _entry(graph, job, activity_id, address, record, data, work)
    for (activity_id, address), work in queued.items():
        record = ActivityRecord("open", type="worker", started_at=work.created_at)
        yield _entry(graph, job, activity_id, address, record, work.data, work)


def _derived(draft: JobDraft, activity: ActivityPlan, address: Dimension, environment: Environment) -> Json:
    """The input that the activity's maps give in what is recorded by now."""
    try:
        context = draft.context(activity, address, {"output": {}}, environment)
        return maps(activity, "input_maps", context)
    except MappingError:
        return None


def _entry(
    graph: GraphPlan,
    job: Job,
    activity_id: str,
    address: Dimension,
    record: ActivityRecord,
    data: Json,
    work: HeldWork | None,
) -> dict[str, Any]:
    started, ended = record.started_at, record.ended_at
    entry: dict[str, Any] = {
        "name": activity_id,
        "type": "worker",
        "dimension": "/".join(map(str, address)),
        "input": data,
        "output": None if record.output is UNDEFINED else record.output,
        "started_at": _iso(started),
        "completed_at": _iso(ended),
        "duration_ms": None if started is None or ended is None else _milliseconds(started, ended),
        "retry_attempt": _retries(record, work),
        "error": record.error,
    }
    iteration = _iteration(graph, job, activity_id, address)
    if iteration is not None:
        entry["cycle_iteration"] = iteration
    return entry


def _retries(record: ActivityRecord, work: HeldWork | None) -> int | None:
    """Tries that failed; None for one that was neither answered nor is queued."""
    if work is not None:
        return work.attempt
    return None if record.state == "open" else record.attempt or 0


def _iteration(graph: GraphPlan, job: Job, activity_id: str, address: Dimension) -> int | None:
    """Which pass of the innermost cycle around it the address belongs to; None outside of cycles."""
    around = [
        activity.ancestor.id
        for activity in graph.activities.values()
        if activity.ancestor is not None and activity_id in activity.ancestor.downstream
    ]
    for length in range(len(address), 0, -1):
        for ancestor in around:
            recorded = address[:length] in job.records.get(ancestor, {})
            if recorded or (length == 1 and ancestor == graph.trigger.id):
                return address[length - 1]
    return None


def _milliseconds(started: datetime, ended: datetime) -> int:
    # Two clocks may be involved: the database's for the start, an engine's for the end.
    return max(round((ended - started).total_seconds() * 1000), 0)


def _iso(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
