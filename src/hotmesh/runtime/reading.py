"""Reads jobs for people and programs: raw, by search fields, as an export, and why they do not move."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from hotmesh.core.advance.expressions import maps
from hotmesh.core.advance.job_draft import JobDraft, record_view
from hotmesh.core.advance.metadata import job_metadata, trigger_metadata
from hotmesh.core.mapping import to_text
from hotmesh.core.plan.compile import ActivityPlan, GraphPlan, Plan
from hotmesh.core.state.job import ActivityRecord, Dimension, Job, dimension_text
from hotmesh.core.values import UNDEFINED, Json
from hotmesh.core.wire import dumps_text
from hotmesh.errors import ConfigError, GetStateError, JobNotFoundError, MappingError, VersionNotFoundError
from hotmesh.postgres import reading
from hotmesh.postgres.reading import WholeJob
from hotmesh.runtime.explain import Explanation, Serves, explanation

if TYPE_CHECKING:
    from hotmesh.core.mapping import Environment
    from hotmesh.postgres.reading import Situation
    from hotmesh.postgres.rows import HeldWork
    from hotmesh.postgres.store import Store
    from hotmesh.runtime.definitions.plans import Plans

PARTS: Final = ("dependencies", "process", "status", "activities")
"""The members of an export."""

CHILDREN: Final = 20
"""Awaited jobs that an explanation looks into."""


class JobReader:
    """Reads the jobs of one app. `serves` says what workers this process has."""

    def __init__(
        self,
        store: Store,
        plans: Plans,
        environment: Environment,
        serves: Serves = lambda _topic, _name: False,
    ) -> None:
        self._store = store
        self._plans = plans
        self._environment = environment
        self._serves = serves

    # -- as stored ---------------------------------------------------------------------------------------

    async def get_raw(self, job_id: str) -> dict[str, Any]:
        """All stored fields of a job as one flat dict. Raises GetStateError."""
        found = await reading.raw_job(self._store, job_id)
        if found is None:
            raise GetStateError(job_id)
        columns, records = found
        raw: dict[str, Any] = {":": columns["status"], **columns}
        raw |= columns["search"] or {}
        if columns["cancelled"]:
            raw["-cancelled-"] = "1"
        for record in records:
            del record["generation"]
            raw[record["activity_id"] + dimension_text(tuple(record["dimension"]))] = record
        return raw

    async def get_query_state(self, job_id: str, fields: Sequence[str]) -> dict[str, str | None]:
        """Search fields as text, by name; None for those that the job does not have."""
        if isinstance(fields, str) or not isinstance(fields, Collection):
            raise ConfigError(f"fields is a list of names, not {fields!r}")
        for field in fields:
            if not isinstance(field, str):
                raise ConfigError(f"fields is a list of names, and {field!r} is none")
        stored = await reading.search_fields(self._store, job_id)
        found: dict[str, str | None] = {}
        for field in fields:
            literal = len(field) > 1 and field[0] == field[-1] == '"'
            name = field[1:-1] if literal else field
            value = stored.get(name if literal else f"_{name}")
            found[name] = None if value is None else _as_text(value)
        return found

    # -- as an export ------------------------------------------------------------------------------------

    async def export(
        self,
        job_id: str,
        *,
        enrich_inputs: bool = False,
        allow: Collection[str] | None = None,
        block: Collection[str] | None = None,
    ) -> dict[str, Any]:
        """A job as one nested document. Raises GetStateError."""
        wanted = _parts(allow, block)
        whole = await reading.whole_job(self._store, job_id)
        if whole is None:
            raise GetStateError(job_id)
        plan = await self._plans.version(whole.job.version)
        found: dict[str, Any] = {}
        if "dependencies" in wanted:
            found["dependencies"] = []
        if "process" in wanted:
            found["process"] = _process(plan.graphs[whole.job.topic], whole.job)
        if "status" in wanted:
            found["status"] = str(whole.job.status)
        if enrich_inputs and "activities" in wanted:
            found["activities"] = await self._activities(plan, whole)
        return found

    async def _activities(self, plan: Plan, whole: WholeJob) -> list[dict[str, Any]]:
        entries = list(_worker_passes(plan, whole, self._environment))
        for job_id in await reading.named_descendants(self._store, whole.job.job_id):
            below = await reading.whole_job(self._store, job_id)
            if below is not None:
                plan = await self._plans.version(below.job.version)
                entries += _worker_passes(plan, below, self._environment)
        entries.sort(key=lambda entry: (entry["started_at"] or "", entry["dimension"]))
        return entries

    # -- why it does not move ----------------------------------------------------------------------------

    async def explain(self, job_id: str) -> Explanation:
        """What a job waits for. Raises JobNotFoundError."""
        found = (await reading.situations(self._store, [job_id])).get(job_id)
        if found is None:
            raise JobNotFoundError(job_id)
        children: dict[str, Situation] = {}
        if found.children:
            awaited = [child.job_id for child in found.children[:CHILDREN]]
            children = await reading.situations(self._store, awaited)
        plans = {
            version: await self._plan(version)
            for version in {found.version, *(child.version for child in children.values())}
        }
        explained = {
            name: explanation(self._store.app_id, child, plans[child.version], self._serves, {})
            for name, child in children.items()
        }
        return explanation(self._store.app_id, found, plans[found.version], self._serves, explained)

    async def _plan(self, version: str) -> Plan | None:
        try:
            return await self._plans.version(version)
        except VersionNotFoundError:
            return None


def _as_text(value: Json) -> str:
    return (
        value
        if isinstance(value, str)
        else to_text(value)
        if not isinstance(value, dict | list)
        else dumps_text(value)
    )


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


def _worker_passes(plan: Plan, whole: WholeJob, environment: Environment) -> Iterator[dict[str, Any]]:
    """One entry for each pass of a worker activity, those that are still queued among them."""
    graph = plan.graphs[whole.job.topic]
    draft = JobDraft(whole.job, graph, whole.job.updated_at, created=False)
    queued = {(work.activity_id, work.dimension): work for work in whole.work}
    for activity_id, passes in whole.job.records.items():
        activity = graph.activities.get(activity_id)
        if activity is None or activity.type != "worker":
            continue
        for address, record in passes.items():
            work = queued.pop((activity_id, address), None)
            data = _derived(draft, activity, address, environment) if work is None else work.data
            yield _entry(draft, activity_id, address, record, data, work)
    for (activity_id, address), work in queued.items():
        record = ActivityRecord("open", type="worker", started_at=work.created_at)
        yield _entry(draft, activity_id, address, record, work.data, work)


def _derived(draft: JobDraft, activity: ActivityPlan, address: Dimension, environment: Environment) -> Json:
    """The input that the activity's maps give in what is recorded by now."""
    try:
        context = draft.context(activity, address, {"output": {}}, environment)
        return maps(activity, "input_maps", context)
    except MappingError:
        return None


def _entry(
    draft: JobDraft,
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
    iteration = _iteration(draft, activity_id, address)
    if iteration is not None:
        entry["cycle_iteration"] = iteration
    return entry


def _retries(record: ActivityRecord, work: HeldWork | None) -> int | None:
    """Tries that failed; None for one that was neither answered nor is queued."""
    if work is not None:
        return work.attempt
    return None if record.state == "open" else record.attempt or 0


def _iteration(draft: JobDraft, activity_id: str, address: Dimension) -> int | None:
    """Which pass of the innermost cycle around it the address belongs to; None outside of cycles."""
    around = [
        activity.ancestor.id
        for activity in draft.graph.activities.values()
        if activity.ancestor is not None and activity_id in activity.ancestor.downstream
    ]
    for length in range(len(address), 0, -1):
        for ancestor in around:
            recorded = address[:length] in draft.records.get(ancestor, {})
            if recorded or (length == 1 and ancestor == draft.graph.trigger.id):
                return address[length - 1]
    return None


def _milliseconds(started: datetime, ended: datetime) -> int:
    # Two clocks may be involved: the database's for the start, an engine's for the end.
    return max(round((ended - started).total_seconds() * 1000), 0)


def _iso(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
