"""A job while a step works on it: mutable, private to the step, turned into a `Job` at its end."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from hotmesh.core.compile import ActivityPlan, GraphPlan
from hotmesh.core.job import (
    Dimension,
    Job,
    Parent,
    Record,
    dimension_text,
    timestamp,
)
from hotmesh.core.mapping import ENVIRONMENT, Environment, apply_writes
from hotmesh.core.values import UNDEFINED, Json
from hotmesh.core.wire import dumps_text

View = dict[str, Any]
"""An activity as expressions see it: {"output": {"data": …, "metadata": …}, "hook": {"data": …}}."""


class Draft:
    """The working copy of one job. Never mutates the `Job` it came from."""

    __slots__ = (
        "base", "created", "created_at", "data", "descend", "ended", "dropped", "error", "graph", "job_id", "generation",
        "key", "entity", "open", "parent", "records", "reply_to", "status", "touched", "trace_id",
        "input", "now", "search", "version", "app_id", "expire", "span_id",
    )  # fmt: skip

    def __init__(self, base: Job, graph: GraphPlan, now: datetime, *, created: bool) -> None:
        self.base = base
        self.created = created
        self.graph = graph
        self.now = now
        self.app_id = base.app_id
        self.job_id = base.job_id
        self.generation = base.generation
        self.version = base.version
        self.status = base.status
        self.input: Json = base.input
        self.data: dict[str, Any] = base.data
        self.error: Json = base.error
        self.key = base.key
        self.entity = base.entity
        self.parent: Parent | None = base.parent
        self.reply_to = base.reply_to
        self.trace_id = base.trace_id
        self.span_id = base.span_id
        self.expire = base.expire
        self.created_at = base.created_at
        self.open: dict[str, int] | None = None if base.open is None else dict(base.open)
        self.records: dict[str, dict[Dimension, Record]] = dict(base.records)  # type: ignore[arg-type]
        self.touched: dict[tuple[str, Dimension], Record] = {}
        self.search: Json = None
        self.ended = False
        self.dropped = False
        self.descend = False

    def finish(self) -> Job:
        """The job as it will be once the step has committed."""
        base = self.base
        return Job(
            app_id=self.app_id,
            job_id=self.job_id,
            generation=self.generation,
            version=self.version,
            topic=base.topic,
            seq=1 if self.created else base.seq + 1,
            status=self.status,
            input=self.input,
            data=self.data,
            created_at=self.created_at,
            updated_at=self.now,
            error=self.error,
            key=self.key,
            entity=self.entity,
            reply_to=self.reply_to,
            parent=self.parent,
            trace_id=self.trace_id,
            span_id=self.span_id,
            expire=self.expire,
            open=self.open,
            records=self.records,
            covered=base.covered,
        )

    # -- records -----------------------------------------------------------------------------------------

    def record(self, activity_id: str, dimension: Dimension) -> Record | None:
        passes = self.records.get(activity_id)
        return None if passes is None else passes.get(dimension)

    def put(self, activity_id: str, dimension: Dimension, record: Record) -> None:
        passes = self.records.get(activity_id)
        self.records[activity_id] = {dimension: record} if not passes else {**passes, dimension: record}
        self.touched[activity_id, dimension] = record

    def next_pass(self, activity_id: str, parent: Dimension) -> int:
        """The first free index of the activity under its parent's address."""
        passes = self.records.get(activity_id)
        if not passes:
            return 0
        depth = len(parent)
        taken = [address[depth] for address in passes if len(address) > depth and address[:depth] == parent]
        return max(taken) + 1 if taken else 0

    def nearest(self, activity_id: str, dimension: Dimension) -> tuple[Dimension, Record] | None:
        """The activity's record in the thread of `dimension`.

        An ancestor's address is a prefix of it. Of another branch's records, the one that shares the longest prefix
        counts, and of equals the latest.
        """
        passes = self.records.get(activity_id)
        if not passes:
            return None
        if len(passes) == 1:
            return next(iter(passes.items()))
        for length in range(len(dimension), 0, -1):
            record = passes.get(dimension[:length])
            if record is not None:
                return dimension[:length], record
        return max(passes.items(), key=lambda item: (_shared(item[0], dimension), item[0]))

    def write(self, writes: list[tuple[tuple[str, ...], Any]]) -> None:
        if writes:
            self.data = apply_writes(self.data, writes)

    def obligation(self, activity_id: str, change: int) -> None:
        """Count an open obligation of the activity; only graphs with joins ask for it."""
        if self.open is not None:
            count = self.open.get(activity_id, 0) + change
            if count:
                self.open[activity_id] = count
            else:
                self.open.pop(activity_id, None)

    # -- what expressions see ----------------------------------------------------------------------------

    def context(
        self, activity: ActivityPlan, dimension: Dimension, view: View, environment: Environment
    ) -> dict[Any, Any]:
        """The root object for the activity's expressions; only what they read is put into it."""
        context: dict[Any, Any] = {ENVIRONMENT: environment}
        if activity.uses_self:
            context["$self"] = view
            context[activity.id] = view
        if activity.uses_job:
            job: dict[str, Any] = {"data": self.data}
            if "$job" in activity.metadata_of:
                job["metadata"] = self.metadata()
            context["$job"] = job
        for root in activity.roots:
            seen = self.view(root, dimension, with_metadata=root in activity.metadata_of)
            if seen is not None:
                context[root] = seen
        return context

    def view(self, activity_id: str, dimension: Dimension, *, with_metadata: bool) -> View | None:
        """Another activity as expressions see it, or None if it has not run in this thread."""
        trigger = self.graph.trigger
        if activity_id == trigger.id and activity_id not in self.records:
            output: dict[str, Any] = {"data": self.input}
            if with_metadata:
                output["metadata"] = self.trigger_metadata()
            return {"output": output}
        found = self.nearest(activity_id, dimension)
        if found is None:
            return None
        address, record = found
        activity = self.graph.activities.get(activity_id)
        return record_view(record, activity, address, self.now if with_metadata else None)

    def trigger_metadata(self) -> dict[str, Any]:
        created = timestamp(self.created_at)
        return {"aid": self.graph.trigger.id, "atp": "trigger", "dad": ",0", "ac": created, "au": created}

    def metadata(self) -> dict[str, Any]:
        """The job's metadata under its published short names."""
        granularity = self.graph.statistics.granularity
        found: dict[str, Any] = {
            "jid": self.job_id,
            "gid": self.generation,
            "tpc": self.base.topic,
            "app": self.app_id,
            "vrs": self.version,
            "aid": self.graph.trigger.id,
            "jc": timestamp(self.created_at),
            "ju": timestamp(self.now),
            "ts": time_slice(self.created_at, granularity),
            "js": self.status,
        }
        if self.key is not None:
            found["key"] = self.key
        if self.error is not None:
            found["err"] = dumps_text(self.error)
        if self.reply_to is not None:
            found["ngn"] = self.reply_to
        if self.trace_id is not None:
            found["trc"] = self.trace_id
        if self.span_id is not None:
            found["spn"] = self.span_id
        if self.parent is not None:
            found["pj"] = self.parent.job_id
            found["pg"] = self.parent.generation
            found["pd"] = dimension_text(self.parent.dimension)
            found["pa"] = self.parent.activity_id
            if self.parent.severed:
                found["px"] = True
        if self.expire is not None:
            found["expire"] = self.expire
        return found


def record_view(
    record: Record, activity: ActivityPlan | None, address: Dimension, now: datetime | None
) -> View:
    """A record as expressions see it; with `now`, its metadata too."""
    output: dict[str, Any] = {}
    if record.output is not UNDEFINED:
        output["data"] = record.output
    if now is not None:
        output["metadata"] = record_metadata(record, activity, address, now)
    view: View = {"output": output}
    if record.hook is not UNDEFINED:
        view["hook"] = {"data": record.hook}
    return view


def record_metadata(
    record: Record, activity: ActivityPlan | None, address: Dimension, now: datetime
) -> dict[str, Any]:
    """An activity's metadata under its published short names."""
    metadata: dict[str, Any] = {"dad": dimension_text(address), "au": timestamp(record.ended_at or now)}
    if activity is not None:
        metadata["aid"] = activity.id
        metadata["atp"] = activity.type
        if activity.spec.subtype is not None:
            metadata["stp"] = activity.spec.subtype
        elif isinstance(activity.spec.topic, str):
            metadata["stp"] = activity.spec.topic
    if record.started_at is not None:
        metadata["ac"] = timestamp(record.started_at)
    if record.error is not None:
        metadata["err"] = dumps_text(record.error)
        metadata["$error"] = {**record.error, "is_stream_error": True}
    return metadata


_SLICES = {"5m": 5, "10m": 10, "15m": 15, "30m": 30, "1h": 60}


def time_slice(moment: datetime, granularity: str) -> str:
    """The statistics slice a moment belongs to, `YYYYMMDDHHMM`; `0` where time is not sliced."""
    width = _SLICES.get(granularity)
    if width is None:
        return "0"
    minute = moment.minute // width * width
    return f"{moment.year:04d}{moment.month:02d}{moment.day:02d}{moment.hour:02d}{minute:02d}"


def _shared(one: Dimension, other: Dimension) -> int:
    length = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        length += 1
    return length
