"""A job while a step works on it: mutable, private to the step, turned into a `Job` at its end."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from hotmesh.core.advance.join_state import JoinState
from hotmesh.core.advance.metadata import job_metadata, record_metadata, trigger_metadata
from hotmesh.core.column import check_size, column_json, size_of
from hotmesh.core.mapping import ENVIRONMENT, Environment, apply_writes, to_json_value
from hotmesh.core.plan.compile import ActivityPlan, GraphPlan
from hotmesh.core.state.job import (
    PENDING_STATUS,
    ActivityRecord,
    Dimension,
    Job,
    Parent,
    PassKey,
)
from hotmesh.core.values import UNDEFINED, Json

View = dict[str, Any]
"""An activity as expressions see it: {"output": {"data": …, "metadata": …}, "hook": {"data": …}}."""


class JobDraft:
    """The working copy of one job. Never mutates the `Job` it came from."""

    __slots__ = (
        "app_id",
        "base",
        "begun",
        "created",
        "created_at",
        "data",
        "descend",
        "dropped",
        "ended",
        "entity",
        "error",
        "expire",
        "generation",
        "graph",
        "input",
        "job_id",
        "join_state",
        "key",
        "now",
        "over",
        "own_records",
        "parent",
        "passes",
        "records",
        "reply_to",
        "search",
        "span_id",
        "started",
        "status",
        "told",
        "touched",
        "trace_id",
        "version",
    )  # fmt: skip

    def __init__(self, base: Job, graph: GraphPlan, now: datetime, *, created: bool) -> None:
        self.base = base
        self.created = created
        self.started = False
        """The job was there before, and this step starts it."""
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
        self.told = base.error is not None
        """Whoever waits for the job has been told that it fails."""
        self.key = base.key
        self.entity = base.entity
        self.parent: Parent | None = base.parent
        self.reply_to = base.reply_to
        self.trace_id = base.trace_id
        self.span_id = base.span_id
        self.expire = base.expire
        self.created_at = base.created_at
        self.join_state = None if base.open is None else JoinState(base.open)
        self.records: dict[str, Mapping[Dimension, ActivityRecord]] = dict(base.records)
        self.own_records: dict[str, dict[Dimension, ActivityRecord]] = {}
        """The parts of `records` that this step has copied, and so may change."""
        self.passes: dict[str, dict[Dimension, int]] = {}
        """Activity → address of the parent → the index of its next pass, where that was asked for."""
        self.begun: set[PassKey] | None = None if base.covered is None else set()
        """Places where the next event may happen; None for a job of which everything is in memory."""
        self.touched: dict[tuple[str, Dimension], ActivityRecord] = {}
        self.search: dict[str, Json] | None = None
        """Search fields and markers that this step sets."""
        self.over = not created and base.status <= 0 and base.status != PENDING_STATUS
        """The job had ended before this step."""
        self.ended = self.over
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
            open=None if self.join_state is None else self.join_state.stored(),
            records=self.records,
            covered=None if self.begun is None else (base.covered or frozenset()) | self.begun,
        )

    def close(self, activity_id: str, dimension: Dimension) -> None:
        """The obligation of an activity is met."""
        self.status -= 1
        if self.join_state is not None:
            self.join_state.closed(activity_id, dimension)

    # -- records -----------------------------------------------------------------------------------------

    def record(self, activity_id: str, dimension: Dimension) -> ActivityRecord | None:
        passes = self.records.get(activity_id)
        return None if passes is None else passes.get(dimension)

    def put(self, activity_id: str, dimension: Dimension, record: ActivityRecord) -> None:
        own = self.own_records.get(activity_id)
        if own is None:
            own = self.own_records[activity_id] = dict(self.records.get(activity_id, ()))
            self.records[activity_id] = own
        own[dimension] = record
        self.touched[activity_id, dimension] = record
        passes = self.passes.get(activity_id)
        if passes is not None:
            for depth in range(len(dimension)):
                parent = dimension[:depth]
                if parent in passes:
                    passes[parent] = max(passes[parent], dimension[depth] + 1)

    def next_pass(self, activity_id: str, parent: Dimension) -> int:
        """The first index of the activity under its parent's address that no pass has had."""
        passes = self.passes.setdefault(activity_id, {})
        if parent not in passes:
            depth = len(parent)
            passes[parent] = 1 + max(
                (
                    address[depth]
                    for address in self.records.get(activity_id, ())
                    if len(address) > depth and address[:depth] == parent
                ),
                default=-1,
            )
        return passes[parent]

    def nearest(
        self, activity_id: str, dimension: Dimension, shared: int = 1
    ) -> tuple[Dimension, ActivityRecord] | None:
        """The activity's record in the pass of `dimension`: one that agrees with it in the first `shared` parts.

        An ancestor's address is a prefix of it. Of another branch's records, the one that shares the longest prefix
        counts, and of equals the latest.
        """
        passes = self.records.get(activity_id)
        if not passes:
            return None
        for length in range(len(dimension), shared - 1, -1):
            record = passes.get(dimension[:length])
            if record is not None:
                return dimension[:length], record
        thread = dimension[:shared]
        found: tuple[int, Dimension] | None = None
        for address in passes:
            if address[: len(thread)] == thread:
                rank = (_shared(address, dimension), address)
                if found is None or rank > found:
                    found = rank
        return None if found is None else (found[1], passes[found[1]])

    def write(self, writes: list[tuple[tuple[str, ...], Any]], max_payload: int, activity_id: str) -> None:
        """Promote values to the job's data; names that begin with `-` or `_` are search fields of the job instead.

        Raises MappingError, and writes nothing, if they have more than `max_payload` bytes together.
        """
        data = []
        search: dict[str, Any] = {}
        size = 0
        for path, value in writes:
            stored = to_json_value(value)
            if path[0][:1] in _SEARCHABLE:
                name = "/".join(path)
                column_json([name, stored], f"search field or marker {path[0]}")
                search[name] = stored
            else:
                data.append((path, stored))
            size += size_of(stored)
        check_size(size, max_payload, f"what {activity_id} writes to its job")
        if search:
            self.search = {**(self.search or {}), **search}
        if data:
            self.data = apply_writes(self.data, data)

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
                job["metadata"] = {"key": "", **job_metadata(self, self.graph, self.now)}
            context["$job"] = job
        for root in activity.roots:
            seen = self.view(
                root, dimension, activity.shared.get(root, 1), with_metadata=root in activity.metadata_of
            )
            if seen is not None:
                context[root] = seen
        return context

    def view(
        self, activity_id: str, dimension: Dimension, shared: int, *, with_metadata: bool
    ) -> View | None:
        """Another activity as expressions see it, or None if it has not run in this pass."""
        trigger = self.graph.trigger
        if activity_id == trigger.id and dimension[:1] not in self.records.get(activity_id, ()):
            output: dict[str, Any] = {"data": self.input}
            if with_metadata:
                output["metadata"] = trigger_metadata(self.graph, self.created_at)
            return {"output": output}
        found = self.nearest(activity_id, dimension, shared)
        if found is None:
            return None
        address, record = found
        activity = self.graph.activities.get(activity_id)
        return record_view(record, activity, address, self.now if with_metadata else None)


_SEARCHABLE = ("-", "_")


def record_view(
    record: ActivityRecord, activity: ActivityPlan | None, address: Dimension, now: datetime | None
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


def _shared(one: Dimension, other: Dimension) -> int:
    length = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        length += 1
    return length
