"""The jobs that this process holds in memory, and the events that wait for their next steps.

Everything here may be lost at any moment: each job is a row, and each event came from one.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from hotmesh.core.state.job import Event, Job
from hotmesh.core.state.step import Step
from hotmesh.postgres.steps import Batch
from hotmesh.runtime.engine.in_flight import InFlight
from hotmesh.runtime.engine.limits import EngineLimits
from hotmesh.runtime.engine.ticket import UncommittedStep
from hotmesh.runtime.settings import Settings


class HandedEvent(Event, frozen=True, gc=False):
    """An event whose row other engines may take from some moment on: then it is theirs, or found by the stream."""

    until: float = 0.0
    """By `time.monotonic`."""


def without_lapsed(events: Sequence[Event]) -> list[Event]:
    """The events without those that came to this process alone, and lay here until they are for everybody."""
    now = time.monotonic()
    return [event for event in events if not isinstance(event, HandedEvent) or now < event.until]


class CachedJob:
    """A job in memory, with the events that wait for its next step. `busy`: a step of it is on its way."""

    __slots__ = (
        "blocked",
        "busy",
        "cuts",
        "events",
        "failures",
        "generation",
        "job",
        "job_id",
        "job_size",
        "refusals",
        "size",
    )

    def __init__(self, job_id: str, generation: str) -> None:
        self.job_id = job_id
        self.generation = generation
        self.job: Job | None = None
        self.events: list[Event] = []
        self.busy = False
        self.blocked = 0
        """Commits in a row that found the job in another transaction's hands."""
        self.cuts = 0
        """Times in a row that a step of it was cut off."""
        self.failures = 0
        """Times in a row that what was reported failed its activity instead."""
        self.refusals = 0
        """Commits in a row that the database refused for reasons of its own, as far as is known."""
        self.size = 0
        """Bytes, as far as they are known; `job_size`: those of them that are not records."""
        self.job_size = 0


class JobCache:
    """Jobs in memory by generation, bounded by number and bytes. `readonly`: only those with events here."""

    def __init__(
        self, settings: Settings, in_flight: InFlight, limits: EngineLimits, *, readonly: bool
    ) -> None:
        self._most_jobs = settings.cache_jobs
        self._most_bytes = settings.cache_bytes
        self._most_records = limits.cached_records
        self._in_flight = in_flight
        self._readonly = readonly
        self._jobs: OrderedDict[str, CachedJob] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[CachedJob]:
        return iter(self._jobs.values())

    def __contains__(self, generation: str) -> bool:
        return generation in self._jobs

    def get(self, generation: str) -> CachedJob | None:
        return self._jobs.get(generation)

    def get_or_add(self, job_id: str, generation: str) -> CachedJob:
        """Something happened to the job: it is the last one to be forgotten."""
        cached = self._jobs.get(generation)
        if cached is None:
            cached = self._jobs[generation] = CachedJob(job_id, generation)
        else:
            self._jobs.move_to_end(generation)
        return cached

    def holds(self, cached: CachedJob) -> bool:
        """Whether this is the job's place in memory (still); not so after its end."""
        return self._jobs.get(cached.generation) is cached

    # -- steps -------------------------------------------------------------------------------------------

    def occupy(self, cached: CachedJob) -> None:
        """A step of the job begins: until `vacate`, its events wait for the next one."""
        cached.busy = True
        self._in_flight.begin()

    def vacate(self, cached: CachedJob) -> None:
        """No step of the job is on its way, and no event waits."""
        cached.busy = False
        self._in_flight.end()
        if cached.job is None:
            self.forget(cached)

    def to_reload(self, cached: CachedJob) -> None:
        """What is known of the job is not what its row says."""
        cached.job = None
        self._jobs[cached.generation] = cached

    def update(self, step: Step, sizes: Batch, own: CachedJob | None) -> None:
        """A step is committed: its jobs are now as it says. `own`: the job whose events it consumed."""
        for change in step.jobs:
            job = change.job
            if change.ended:
                gone = self._jobs.pop(job.generation, None)
                if gone is not None:
                    self._weigh_nothing(gone)
                    gone.job = None
                continue
            cached = self._jobs.get(job.generation)
            if cached is None:
                if self._readonly or not job.live:
                    continue
                cached = (
                    own
                    if own is not None and own.generation == job.generation
                    else CachedJob(job.job_id, job.generation)
                )
                self._jobs[job.generation] = cached
            # A step of another way in may have been told first.
            if cached.job is None or cached.job.seq < job.seq:
                cached.job = job
            size = max(sizes.sizes.get(job.generation, 0), cached.job_size)
            grown = size - cached.job_size + sizes.record_sizes.get(job.generation, 0)
            cached.job_size = size
            cached.size += grown
            self.bytes += grown

    def adopt(self, item: UncommittedStep) -> None:
        """Keep a job that came by the stream in memory if it has work here."""
        job = item.step.jobs[0].job
        if job.live and any(item.local):
            self._jobs.setdefault(job.generation, CachedJob(job.job_id, job.generation))

    # -- forgetting --------------------------------------------------------------------------------------

    def shorten(self, cached: CachedJob) -> None:
        """Forget a job whose history has become too long to be kept; what a step needs of it is loaded."""
        job = cached.job
        if job is not None and sum(map(len, job.records.values())) > self._most_records:
            cached.job = None
            if self.holds(cached):
                self._weigh_nothing(cached)

    def forget(self, cached: CachedJob) -> None:
        if self.holds(cached):
            del self._jobs[cached.generation]
            self._weigh_nothing(cached)

    def evict(self) -> None:
        """Forget the jobs that have been idle longest; each costs one load when something happens to it."""
        jobs, most_jobs, most_bytes = self._jobs, self._most_jobs, self._most_bytes
        if len(jobs) <= most_jobs and self.bytes <= most_bytes:
            return
        for generation in list(jobs):
            if len(jobs) <= most_jobs * 9 // 10 and self.bytes <= most_bytes * 9 // 10:
                return
            cached = jobs[generation]
            if not cached.busy:
                self.bytes -= cached.size
                del jobs[generation]

    def _weigh_nothing(self, cached: CachedJob) -> None:
        self.bytes -= cached.size
        cached.size = cached.job_size = 0
