"""What decides: one version of an app as the engine uses it, whatever its jobs are written in.

The engine takes a job and what happened to it, asks the job's program for a step, and commits that. A program decides
and does nothing else: the same job, events and moment give the same step, so that a step which lost a race is
computed again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from hotmesh.core.advance.advance import advance, start
from hotmesh.core.advance.limits import Limits
from hotmesh.core.mapping import Environment
from hotmesh.core.plan.compile import Plan
from hotmesh.core.state.job import Event, Job, StartRequest
from hotmesh.core.state.step import Step


class Program(Protocol):
    """`taken` are ids of jobs that a commit found in other hands; `limits` bound a step."""

    def serves(self, topic: str) -> bool:
        """Whether it has something to start on the topic."""
        ...

    def start(
        self,
        request: StartRequest,
        now: datetime,
        environment: Environment,
        *,
        taken: Collection[str],
        limits: Limits,
    ) -> Step:
        """The step that creates a job. Raises TopicNotFoundError, MappingError, DuplicateJobError."""
        ...

    def advance(
        self,
        job: Job,
        events: Sequence[Event],
        now: datetime,
        environment: Environment,
        *,
        taken: Collection[str],
        limits: Limits,
    ) -> Step:
        """The step that events cause in a job. Their records (`needs`) are loaded."""
        ...

    def needs(self, event: Event) -> Collection[str]:
        """The activities whose records a step on the event may read, in the dimension of the event."""
        ...


@dataclass(frozen=True, slots=True)
class GraphProgram:
    """A compiled version of an app's graphs."""

    plan: Plan

    def serves(self, topic: str) -> bool:
        return topic in self.plan.graphs

    def start(
        self,
        request: StartRequest,
        now: datetime,
        environment: Environment,
        *,
        taken: Collection[str],
        limits: Limits,
    ) -> Step:
        return start(self.plan, request, now, environment, taken=taken, limits=limits)

    def advance(
        self,
        job: Job,
        events: Sequence[Event],
        now: datetime,
        environment: Environment,
        *,
        taken: Collection[str],
        limits: Limits,
    ) -> Step:
        return advance(self.plan, job, events, now, environment, taken=taken, limits=limits)

    def needs(self, event: Event) -> Collection[str]:
        activity = self.plan.activities.get(event.activity_id)
        return () if activity is None else activity.needs
