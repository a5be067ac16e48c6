"""The working area of one step: drafts of the jobs in it, what is still to do, and what it will change."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from datetime import datetime

from msgspec import Struct

from hotmesh.core.advance.job_draft import JobDraft
from hotmesh.core.advance.limits import Limits
from hotmesh.core.advance.trace import Trace
from hotmesh.core.mapping import Environment
from hotmesh.core.plan.compile import ActivityPlan, GraphPlan, Plan
from hotmesh.core.state.job import Dimension, Event, Job
from hotmesh.core.state.step import (
    ActivityInstance,
    Broadcast,
    Consumed,
    Escalation,
    EscalationEnd,
    JobChange,
    Measure,
    Message,
    Notice,
    RecordChange,
    Signal,
    Step,
    Timer,
    Wait,
    Work,
)


# What is to do refers to drafts, and no draft to what is to do: there is no ring that the collector would have to find.
class Enter(Struct, frozen=True, gc=False):
    """A transition was taken: enter the activity below the address of its parent."""

    draft: JobDraft
    activity: ActivityPlan
    parent: Dimension
    branch: str


class Begin(Struct, frozen=True, gc=False):
    """A join has gathered its branches: run it in its next pass below this address."""

    draft: JobDraft
    activity: ActivityPlan
    parent: Dimension


class Deliver(Struct, frozen=True, gc=False):
    """A job that is in this step, too, has told its parent something."""

    draft: JobDraft
    event: Event


class StepBuilder:
    """One step in the making. What belongs to it is appended to its lists; `todo` is worked off in order."""

    __slots__ = (
        "broadcasts",
        "budget",
        "consumed",
        "drafts",
        "environment",
        "escalation_ends",
        "escalations",
        "interim",
        "job_ids",
        "limits",
        "measures",
        "messages",
        "notices",
        "now",
        "plan",
        "released",
        "sent",
        "signals",
        "taken",
        "timers",
        "todo",
        "trace",
        "waits",
        "work",
    )

    def __init__(
        self, plan: Plan, now: datetime, environment: Environment, taken: Collection[str], limits: Limits
    ) -> None:
        self.plan = plan
        self.now = now
        self.environment = environment
        self.limits = limits
        self.trace = None if limits.trace is None else Trace(limits.trace, now, environment)
        self.taken = taken
        """Ids of jobs that the step cannot create: a commit found them in other hands."""
        self.drafts: dict[str, JobDraft] = {}
        """Generation → job."""
        self.job_ids: set[str] = set()
        self.todo: deque[Enter | Begin | Deliver] = deque()
        self.budget = limits.activities
        """Activities that may still be entered in this step."""
        self.work: list[Work] = []
        self.messages: list[Message] = []
        self.timers: list[Timer] = []
        self.waits: list[Wait] = []
        self.signals: list[Signal] = []
        self.broadcasts: list[Broadcast] = []
        self.escalations: list[Escalation] = []
        self.escalation_ends: list[EscalationEnd] = []
        self.measures: list[Measure] = []
        self.released: list[ActivityInstance] = []
        self.consumed: list[Consumed] = []
        self.notices: list[Notice] = []
        self.sent: set[str] = set()
        """Ids of the results among the messages."""
        self.interim = 0
        """Interim results that were given in this step."""

    def load(self, job: Job) -> JobDraft:
        """Take an existing job into the step."""
        graph = self.plan.graphs.get(job.topic) or GraphPlan.lost(job.topic)
        draft = JobDraft(job, graph, self.now, created=False)
        self.add(draft)
        return draft

    def add(self, draft: JobDraft) -> None:
        self.drafts[draft.generation] = draft
        self.job_ids.add(draft.job_id)

    def holds(self, job_id: str) -> bool:
        """Whether the id cannot be had for a job that is created in this step."""
        return job_id in self.taken or job_id in self.job_ids

    def step(self) -> Step:
        """What has been worked out, as one immutable change."""
        jobs = []
        records: list[RecordChange] = []
        dropped = set()
        for draft in self.drafts.values():
            jobs.append(
                JobChange(
                    draft.finish(),
                    draft.created,
                    draft.base.seq,
                    draft.ended and not draft.over,
                    draft.dropped,
                    draft.descend,
                    draft.data is not draft.base.data,
                    draft.search,
                    draft.started,
                )
            )
            records += [
                RecordChange(draft.generation, activity_id, dimension, record)
                for (activity_id, dimension), record in draft.touched.items()
            ]
            if draft.dropped:
                dropped.add(draft.generation)
            if self.trace is not None and draft.ended and not draft.over:
                self.trace.ended(draft)
        if dropped:
            self._drop(dropped)
        return Step(
            tuple(jobs),
            tuple(records),
            tuple(self.work),
            tuple(self.messages),
            tuple(self.timers),
            tuple(self.waits),
            tuple(self.signals),
            tuple(self.broadcasts),
            tuple(self.escalations),
            tuple(self.escalation_ends),
            tuple(self.measures),
            tuple(self.released),
            tuple(self.consumed),
            tuple(self.notices),
            () if self.trace is None else tuple(self.trace.spans),
        )

    def _drop(self, dropped: Collection[str]) -> None:
        """A job that gives up what is open does not begin it in the same step, either."""
        self.work = [item for item in self.work if item.generation not in dropped]
        self.timers = [item for item in self.timers if item.generation not in dropped]
        self.waits = [item for item in self.waits if item.generation not in dropped]
        self.escalations = [item for item in self.escalations if item.generation not in dropped]
        self.messages = [item for item in self.messages if item.generation not in dropped]
