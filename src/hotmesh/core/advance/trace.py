"""Spans: what a traced step did, told together with it.

The ids of spans follow from the places they speak of (generation, activity, address, leg). So nothing has to be stored
for the next process to name its parent, and a step that is computed again names the same spans. A job is traced if it
has a trace id; whether it is sampled was decided when it was created, and `UNSAMPLED` as its span id says no.

    JOB 1 ─ TRIGGER 1 ─ WORKER 1 ┬ (the callback's EXECUTE)
                                 └ WORKER 2 ─ what follows …

An activity that waits has two legs: entered (`open`) and answered (`done`); one that does not has only the second of
these ids, under the name of leg 1. What follows hangs below `done` in either case. Activities without a span of their
own are skipped: what follows them hangs below the nearest one before them that has one.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from hotmesh.core.advance.job_draft import JobDraft, View, record_view
from hotmesh.core.advance.metadata import job_metadata, record_metadata
from hotmesh.core.mapping import Environment, to_json_value
from hotmesh.core.plan.compile import ActivityPlan
from hotmesh.core.state.job import (
    ActivityRecord,
    Dimension,
    Event,
    MessageReceipt,
    TimerReceipt,
    dimension_text,
)
from hotmesh.core.state.span import UNSAMPLED, Scalar, Span, TraceMode, job_span_id, span_id
from hotmesh.errors import MappingError


class Trace:
    """Collects the spans of one step."""

    __slots__ = ("_debug", "_environment", "_now", "spans")

    def __init__(self, mode: TraceMode, now: datetime, environment: Environment) -> None:
        self._debug = mode == "debug"
        self._now = now
        self._environment = environment
        self.spans: list[Span] = []

    def traces(self, draft: JobDraft) -> bool:
        """Whether spans are recorded for the job."""
        return draft.trace_id is not None and len(draft.trace_id) == 32 and draft.span_id != UNSAMPLED

    # -- ids that others need ----------------------------------------------------------------------------

    def waiting(self, draft: JobDraft, activity: ActivityPlan, dimension: Dimension) -> str | None:
        """The parent of what an activity waits for: its work, its child."""
        if not self.traces(draft):
            return draft.span_id
        if not self._has_span(activity):
            return self._outcome(draft, activity, dimension)
        return span_id(draft.generation, activity.id, dimension, "open")

    def following(self, draft: JobDraft, activity: ActivityPlan, dimension: Dimension) -> str | None:
        """The parent of what follows an activity."""
        return self._outcome(draft, activity, dimension) if self.traces(draft) else draft.span_id

    def _has_span(self, activity: ActivityPlan) -> bool:
        return self._debug or activity.type in ("trigger", "worker") or activity.telemetry is not None

    def _outcome(self, draft: JobDraft, activity: ActivityPlan, dimension: Dimension) -> str:
        found = activity
        while not self._has_span(found):
            if len(found.incoming) != 1:
                # Which of the ways led here is not known any more; the trigger is before all of them.
                found, dimension = draft.graph.trigger, dimension[:1]
            else:
                found, dimension = draft.graph.activities[found.incoming[0]], dimension[:-1]
        return span_id(draft.generation, found.id, dimension, "done")

    # -- what happened -----------------------------------------------------------------------------------

    def created(self, draft: JobDraft, view: View) -> None:
        """A job and its trigger."""
        if not self.traces(draft):
            return
        trigger = draft.graph.trigger
        job = job_span_id(draft.generation)
        self._add(draft, f"JOB/{draft.app_id}/{draft.base.topic}/1", job, draft.span_id, {})
        record = ActivityRecord("closed", type="trigger", started_at=self._now, ended_at=self._now)
        self._leg(draft, trigger, (0,), 1, "done", job, record, view)

    def ended(self, draft: JobDraft) -> None:
        """A job is over: a span of its whole life."""
        if not self.traces(draft):
            return
        job = job_span_id(draft.generation)
        self._add(
            draft,
            f"JOB/{draft.app_id}/{draft.base.topic}/2",
            span_id(draft.generation, "", (), "end"),
            job,
            {},
            error=_message(draft.error),
            started_at=draft.created_at,
        )

    def entered(self, draft: JobDraft, activity: ActivityPlan, dimension: Dimension, branch: str) -> None:
        """An activity has run its first leg. `branch`: the transition that led to it; "": of a join."""
        if not self._has_span(activity) or not self.traces(draft):
            return
        record = draft.record(activity.id, dimension)
        closed = record is not None and record.state == "closed"
        parent = self._outcome(draft, self._before(draft, activity, dimension, branch), dimension[:-1])
        self._leg(draft, activity, dimension, 1, "done" if closed else "open", parent, record)

    def _before(
        self, draft: JobDraft, activity: ActivityPlan, dimension: Dimension, branch: str
    ) -> ActivityPlan:
        activities = draft.graph.activities
        source = activities.get(branch) or activities.get(branch.rpartition(" ")[0])
        if source is not None:
            return source
        arrived = [name for name in activity.incoming if draft.record(name, dimension[:-1]) is not None]
        return activities[(arrived or activity.incoming)[0]]

    def answered(
        self, draft: JobDraft, activity: ActivityPlan, event: Event, address: Dimension, guid: str
    ) -> None:
        """An activity has got an answer, a signal or its timer, and has its outcome at `address`."""
        if not self._has_span(activity) or not self.traces(draft):
            return
        parent = span_id(draft.generation, activity.id, event.dimension, "open")
        record = draft.record(activity.id, address)
        self._leg(draft, activity, address, 2, "done", parent, record, message_id=event.message_id or guid)

    def cycled(
        self,
        draft: JobDraft,
        cycle: ActivityPlan,
        dimension: Dimension,
        ancestor: ActivityPlan,
        again: Dimension,
    ) -> None:
        """A cycle has given its ancestor a new outcome at address `again`."""
        if not self._has_span(ancestor) or not self.traces(draft):
            return
        parent = self._outcome(draft, cycle, dimension)
        self._leg(draft, ancestor, again, 2, "done", parent, draft.record(ancestor.id, again))

    def consumed(self, draft: JobDraft, event: Event) -> None:
        """A message or a timer has reached its job; only told in debug."""
        if not self._debug or not self.traces(draft):
            return
        match event.receipt:
            case MessageReceipt(message_id):
                name = message_id
            case TimerReceipt():
                name = "timer"
            case _:
                return
        activity = draft.graph.activities.get(event.activity_id)
        topic = None if activity is None else activity.spec.topic
        way = "FANIN" if event.kind in ("answer", "added", "result") else "FANOUT"
        path = [
            way,
            draft.app_id,
            *filter(None, (event.activity_id, topic if isinstance(topic, str) else None)),
        ]
        if activity is None or event.kind == "enter":
            parent = job_span_id(draft.generation)
        else:
            parent = span_id(draft.generation, activity.id, event.dimension, "open")
        attributes: dict[str, Scalar] = {
            "app.stream.guid": name,
            "app.stream.jid": draft.job_id,
            "app.stream.gid": draft.generation,
            "app.stream.aid": event.activity_id,
            "app.stream.dad": dimension_text(event.dimension),
            "app.stream.type": event.kind,
            "app.stream.status": event.status,
            "app.stream.code": event.code,
        }
        found = span_id(draft.generation, event.activity_id, event.dimension, f"{draft.base.seq}/{name}")
        error = f"Function Status Code {event.code}" if event.status == "error" else None
        self.spans.append(
            Span(
                "/".join(path),
                draft.generation,
                str(draft.trace_id),
                found,
                parent,
                self._now,
                attributes,
                error,
            )
        )

    # -- making spans ------------------------------------------------------------------------------------

    def _leg(
        self,
        draft: JobDraft,
        activity: ActivityPlan,
        dimension: Dimension,
        leg: int,
        place: str,
        parent: str,
        record: ActivityRecord | None,
        view: View | None = None,
        message_id: str | None = None,
    ) -> None:
        known = record or ActivityRecord("open", type=activity.type, started_at=self._now)
        metadata = record_metadata(known, activity, dimension, self._now)
        attributes = _scalars("app.activity.", metadata)
        attributes["app.activity.leg"] = leg
        if message_id is not None:
            attributes["app.activity.mid"] = message_id
        if activity.telemetry is not None and place == "done":
            attributes |= self._told(draft, activity, dimension, known, view)
        self._add(
            draft,
            f"{activity.type.upper()}/{draft.app_id}/{activity.id}/{leg}",
            span_id(draft.generation, activity.id, dimension, place),
            parent,
            attributes,
            error=_message(known.error),
        )

    def _told(
        self,
        draft: JobDraft,
        activity: ActivityPlan,
        dimension: Dimension,
        record: ActivityRecord,
        view: View | None,
    ) -> dict[str, Scalar]:
        """What the activity's `telemetry` block says; a block that cannot be evaluated says nothing."""
        if activity.telemetry is None:
            return {}
        seen = record_view(record, activity, dimension, self._now) if view is None else view
        try:
            value = to_json_value(
                activity.telemetry.evaluate(draft.context(activity, dimension, seen, self._environment))
            )
        except MappingError:
            return {}
        return _scalars("app.activity.data.", value) if isinstance(value, dict) else {}

    def _add(
        self,
        draft: JobDraft,
        name: str,
        found: str,
        parent: str | None,
        attributes: dict[str, Scalar],
        *,
        error: str | None = None,
        started_at: datetime | None = None,
    ) -> None:
        metadata = job_metadata(draft, draft.graph, draft.now)
        del metadata["trc"]
        attributes = {**_scalars("app.job.", metadata), **attributes, "app.job.jss": draft.status}
        self.spans.append(
            Span(
                name,
                draft.generation,
                str(draft.trace_id),
                found,
                parent,
                started_at or self._now,
                attributes,
                error,
            )
        )


def _scalars(prefix: str, values: dict[str, Any]) -> dict[str, Scalar]:
    return {
        f"{prefix}{name}": value
        for name, value in values.items()
        if isinstance(value, str | bool | int | float)
    }


def _message(error: Any) -> str | None:
    return None if error is None else str(error.get("message") or "unknown")
