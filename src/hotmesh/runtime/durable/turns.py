"""Decides the steps of jobs that are durable functions: what has happened is recorded, the code goes on, what it asks for is built.

The suspended code in memory is a cache. It is used for a job's version at which it is known to stand, and for no other: a
turn that was not seen committed is never gone on from. Whoever computes a step again therefore finds the code dropped, the
history is read, and the code run from its beginning: it comes to the same, or the job is parked.

    advance ── the code stands at the job's version, or its history was loaded ─► a turn
            └─ else (not hosted here, or computed again within a transaction)  ─► recorded, and a turn row for a host
    committed ─► steps of that very turn start; the code stands at the new version
"""

from __future__ import annotations

import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence, Sized
from datetime import datetime
from functools import partial
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from hotmesh.core.advance.limits import Limits
from hotmesh.core.durable import build
from hotmesh.core.durable.build import Again, Outcome, Raised, Returned
from hotmesh.core.durable.commands import (
    Activity,
    Cancelled,
    Command,
    Completion,
    Ended,
    Fail,
    Finish,
    Release,
)
from hotmesh.core.durable.commands import Step as StepCommand
from hotmesh.core.durable.failure import CANCELLED, as_exhausted, failure_of, retry_after
from hotmesh.core.durable.record import Recorded, record
from hotmesh.core.durable.state import Parked, State
from hotmesh.core.mapping import Environment
from hotmesh.core.state.job import Event, Job, StartRequest
from hotmesh.core.state.step import JobChange, Step
from hotmesh.core.wire import dumps_text
from hotmesh.durable_errors import FATAL_CODE, NonDeterminismError, told
from hotmesh.errors import DuplicateJobError
from hotmesh.foreign_errors import words_of
from hotmesh.replay import Strand
from hotmesh.replay.loop import TurnBlocked
from hotmesh.runtime.apart import UNSET
from hotmesh.runtime.durable.activities import Activities, cut_off_by
from hotmesh.runtime.durable.hosted import HostedFunction
from hotmesh.runtime.durable.local_steps import Deliver, LocalSteps
from hotmesh.runtime.durable.parking import BLOCKED, parked
from hotmesh.runtime.durable.pieces import in_pieces, unwatched
from hotmesh.runtime.durable.replay_check import ReplayCheck, ReplayDifferenceError
from hotmesh.runtime.durable.taken_signals import TakenSignals, tell_late, without_taken
from hotmesh.runtime.durable.tenure import Tenures
from hotmesh.runtime.tracebacks import loggable

logger = logging.getLogger("hotmesh.durable")

FOREIGN_PAUSE: Final = 1.0
"""Seconds after which it is looked again whether another process still holds a job."""


class Live:
    """A value that came to be in this process: the copy for the code, once, and its JSON."""

    __slots__ = ("copy", "raw")

    def __init__(self, raw: Any, copy: Any) -> None:
        self.raw = raw
        self.copy = copy


class _Run:
    """The code of one job, suspended."""

    __slots__ = ("commands", "function", "outcome", "seq", "step", "steps", "strand", "tidy", "work")

    def __init__(self, function: HostedFunction, strand: Strand, seq: int, *, tidy: bool) -> None:
        self.function = function
        self.strand = strand
        self.seq = seq
        """The version of the job at which it stands."""
        self.step: Step | None = None
        """The turn that it has taken since, until that is known to be committed."""
        self.commands: Sequence[Command] = ()
        """What that turn asks for."""
        self.outcome: Outcome | None = None
        self.steps: set[int] = set()
        """Positions of steps without an outcome."""
        self.work: set[int] = set()
        """Positions of activities without an outcome."""
        self.tidy = tidy
        """The job never had a row beside its own."""

    def count(self, completions: Sequence[Completion], commands: Sequence[Command]) -> None:
        """Keep account of the steps that have no outcome."""
        for completion in completions:
            self.steps.discard(completion.position)
            self.work.discard(completion.position)
        for command in commands:
            if isinstance(command, StepCommand):
                self.steps.add(command.position)
            elif isinstance(command, Activity):
                self.work.add(command.position)
            elif isinstance(command, Release):
                self.steps.discard(command.position)


class Turns:
    """The durable functions of one member, as the engine's program for their jobs."""

    def __init__(
        self,
        app_id: str,
        deliver: Deliver,
        takes: Callable[[str, str], bool],
        most_steps: int,
        most_kept: int,
        cleaning_up: float,
    ) -> None:
        self._app_id = app_id
        self._deliver = deliver
        self._takes = takes
        self._most_kept = most_kept
        self.tenures: Tenures | None = None
        self.hosted: dict[tuple[str, str], HostedFunction] = {}
        """By queue and name."""
        self.steps = LocalSteps(deliver, most_steps, cleaning_up)
        self.activities = Activities(app_id)
        self._runs: OrderedDict[str, _Run] = OrderedDict()
        self.suspended: Sized = self._runs
        """Those whose code is in memory."""
        self.taken = TakenSignals()
        self.replays = 0
        """How often code was run again from its beginning."""
        self._check = ReplayCheck()
        self.watched: Callable[..., Any] = unwatched
        """Runs code of users: the id of the job, a function, its arguments. Raises what a guard makes of one that blocks."""

    # -- a program, for the engine -----------------------------------------------------------------------

    def serves(self, topic: str) -> bool:
        """Functions are started by queue and name, never by a topic."""
        return False

    def needs(self, event: Event) -> Collection[str]:
        """No records of activities; its history is loaded with the job."""
        return ()

    def start(
        self,
        request: StartRequest,
        now: datetime,
        environment: Environment,
        *,
        taken: Collection[str],
        limits: Limits,
    ) -> Step:
        """The step that creates a job: with its first turn, where its function is hosted."""
        self.forget(request.generation)
        job = build.created(request, self._app_id, now, limits.expire)
        if job.job_id in taken:
            raise DuplicateJobError(job.job_id)
        if request.delay > 0:
            return build.start_later(job, request.search, request.delay)
        where = (job.queue or "", job.topic)
        function = self.hosted.get(where)
        if function is None or not self._takes(*where) or self.tenure < 0:
            return build.start_elsewhere(job, request.search)
        run = _Run(function, function.strand(job), job.seq, tidy=True)
        self._check.watch(run.strand)
        self._runs[job.generation] = run
        return self._turn(run, job, build.NO_EVENTS, now, taken=taken, begins=True, search=request.search)

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
        """The step that events cause."""
        recorded = record(job, events, now)
        if not job.live:
            tell_late(job, events)
            return build.late(job, recorded, now)
        if recorded.interrupt is not None:
            return build.interrupted(job, recorded, now)
        if recorded.timed_out is not None:
            return build.timed_out(job, recorded, now)
        if job.held and not self.holds(job):
            return build.put_off(job, recorded, now, FOREIGN_PAUSE)
        if recorded.state.waits:
            done = {completion.position for completion in recorded.completions}
            return build.paused(job, recorded, now, held=self.steps.runs(job.generation, done))
        run = self._run_of(job)
        if run is None:
            if job.held and not self.wants_history(job):
                done = {completion.position for completion in recorded.completions}
                return build.left_here(job, recorded, now, held=self.steps.runs(job.generation, done))
            return build.record_only(job, recorded, now)
        return self._turn(run, job, recorded, now, taken=taken, begins=False)

    # -- what the engine asks ----------------------------------------------------------------------------

    def ready(self, job: Job) -> bool:
        """Whether a step of the job can be computed without reading its history."""
        if (job.queue, job.topic) not in self.hosted or job.history is not None:
            return True
        run = self._runs.get(job.generation)
        return run is not None and run.step is None and run.seq == job.seq

    def wants_history(self, job: Job) -> bool:
        """Whether the history is to be read with the job."""
        return (job.queue, job.topic) in self.hosted

    def holds(self, job: Job) -> bool:
        """Whether what comes next of a held job is here. One that this process has just committed names no tenure yet."""
        return job.held and (
            job.tenure is None or (self.tenures is not None and self.tenures.holds(job.tenure))
        )

    def ends_elsewhere(self, change: JobChange) -> bool:
        """Whether a job ends whose steps may run in another process, which is to hear of it."""
        job = change.job
        if not change.ended or job.queue is None or job.tenure is None:
            return False
        return self.tenures is None or not self.tenures.holds(job.tenure)

    def known(self, generation: str) -> bool:
        """Whether something of the job is in memory here."""
        return generation in self._runs or self.steps.runs(generation)

    def kept(self, job: Job, events: Sequence[Event]) -> list[Event]:
        """Of what is to be told to a job that was read again, what still counts: not what others have taken over."""
        if self.holds(job):
            return list(events)
        self.gone(job.generation)
        return [event for event in events if event.receipt is not None]

    @property
    def tenure(self) -> int:
        """The number that held jobs of a commit name."""
        return -1 if self.tenures is None else self.tenures.number

    def own_tenures(self) -> Collection[int]:
        """All that jobs may name which this process holds."""
        return () if self.tenures is None else self.tenures.mine

    async def prepare(self, job: Job) -> None:
        """Replay a long history in pieces, between which other things go on; what is left is for the turn."""
        run = self._run_of(job)
        if run is not None:
            replay = partial(self.watched, job.job_id, run.strand.replay)
            if not await in_pieces(
                replay, lambda: self._runs.get(job.generation) is run and run.step is None
            ):
                self.forget(job.generation)

    # -- what becomes of steps ---------------------------------------------------------------------------

    def committed(self, step: Step) -> None:
        """A step of a durable function is committed."""
        change = step.jobs[0]
        job = change.job
        for operation in step.operations:
            self.steps.recorded(job.generation, operation.position)
        run = self._runs.get(job.generation)
        if step.given_up or step.cancels:
            self.activities.cut_off_all([(*key, asked) for key, asked in cut_off_by(step)])
        if change.ended:
            self.gone(job.generation)
            return
        if run is None or run.step is not step:
            self.forget(job.generation)
            held = change.held or (change.held is None and self.holds(job))
            if held and not State.of(job.open).waits:
                self.wake(job.job_id, job.generation)
            return
        run.step, run.seq = None, job.seq
        self.taken.forget(job.generation)
        commands, run.commands = run.commands, ()
        if run.outcome is not None:
            self._check.forget(job.generation)
            self.forget(job.generation)
            return
        for command in commands:
            if isinstance(command, StepCommand):
                self.steps.start(job, command.position, command.name, command.call)
            elif isinstance(command, Release) and command.of == "step" and not command.wait:
                self.steps.cancel(job.generation, command.position)
        if self._check.every and self._check.is_due(job.generation, run.strand):
            self.forget(job.generation)
            return
        self._runs.move_to_end(job.generation)
        self._evict()

    def forget(self, generation: str) -> None:
        """Drop the code of a job; its steps go on, and are found by it when it is replayed."""
        run = self._runs.pop(generation, None)
        if run is not None:
            run.strand.close()

    def gone(self, generation: str) -> None:
        """The job has ended, or is for others: nothing of it counts here any more."""
        self.forget(generation)
        self._check.forget(generation)
        self.taken.forget(generation)
        self.steps.drop(generation)

    def drop_all(self) -> None:
        """The right to all jobs is gone."""
        for generation in [*self._runs, *self.steps.generations]:
            self.gone(generation)

    def close(self) -> None:
        """Let go of everything; what is held is for others."""
        self.steps.close()
        self.activities.close()
        for generation in list(self._runs):
            self.forget(generation)

    def wake(self, job_id: str, generation: str) -> None:
        """Have a held job take a turn."""
        self._deliver(job_id, generation, Event("wake"))

    # -- turns -------------------------------------------------------------------------------------------

    def _run_of(self, job: Job) -> _Run | None:
        run = self._runs.get(job.generation)
        function = self.hosted.get((job.queue or "", job.topic))
        if run is not None:
            if run.step is None and run.seq == job.seq and run.function is function:
                return run
            self.forget(job.generation)
        if function is None or job.history is None:
            return None
        history = job.history
        strand = function.strand(job, history.recorded, history.opened)
        self.replays += 1
        run = self._runs[job.generation] = _Run(function, strand, job.seq, tidy=False)
        self._check.watch(strand)
        return run

    def _turn(
        self,
        run: _Run,
        job: Job,
        recorded: Recorded,
        now: datetime,
        *,
        taken: Collection[str],
        begins: bool,
        search: Any = None,
    ) -> Step:
        commands: Sequence[Command] = ()
        run.outcome = None
        if recorded.failed_turn is not None:
            run.outcome = parked(job, "failed", recorded.failed_turn)
        else:
            try:
                self._check.compare(job.generation, run.strand)
                commands = run.strand.turn(self._live(job, recorded.completions))
                if in_use := {*taken, *self.taken.of(job.generation)} if taken or self.taken else ():
                    recorded, commands = without_taken(run.strand, job, recorded, commands, in_use, now)
            except NonDeterminismError as error:
                run.outcome = (
                    parked(job, "changed", words_of(error), error.position, error.expected, error.actual)
                    if run.function.parks and not isinstance(error, ReplayDifferenceError)
                    else Raised(failure_of(error))
                )
            except TurnBlocked:
                run.outcome = parked(job, "blocked", BLOCKED)
        if commands and isinstance(commands[-1], Finish | Fail | Cancelled):
            run.outcome = self._ended(run, job, commands[-1], afresh=bool(recorded.completions) or begins)
            commands = commands[:-1]
        run.count(recorded.completions, commands)
        held = bool(run.steps)
        if run.outcome is not None:
            # Of one that is parked, steps may run on that were asked for before.
            held = isinstance(run.outcome, Parked) and self.steps.runs(job.generation)
        step = build.turn(
            job,
            recorded,
            commands,
            run.outcome,
            now,
            begins=begins,
            held=held,
            tidy=run.tidy and not run.work,
            search=search,
        )
        if step.timers or step.waits:
            run.tidy = False
        run.step, run.commands = step, commands
        return step

    def _live(self, job: Job, completions: Sequence[Completion]) -> list[Completion]:
        """With the copies of values that came to be here."""
        found = []
        for completion in completions:
            if completion.kind == "step" and completion.status == "done":
                copy = self.steps.copy_of(job.generation, completion.position)
                if copy is not UNSET:
                    found.append(replace(completion, value=Live(completion.value, copy)))
                    continue
                if isinstance(completion.value, msgspec.Raw):
                    completion = replace(completion, value=bytes(completion.value))
            elif completion.value is not None:
                # As it is read again from its row.
                completion = replace(completion, value=dumps_text(completion.value))
            found.append(completion)
        return found

    def _ended(self, run: _Run, job: Job, command: Ended, *, afresh: bool) -> Outcome:
        """What the end of the function comes to."""
        if isinstance(command, Finish):
            try:
                return Returned(run.function.encode(command.value))
            except Exception as error:  # noqa: BLE001 - PayloadError, or whatever a value of the users' does
                stored = failure_of(error)
                logger.error("workflow %s %s failed: %s", job.topic, job.job_id, told(stored), extra={"job_id": job.job_id})  # fmt: skip
                return Raised(stored)
        if isinstance(command, Cancelled):
            return Raised(_cancelled(run.strand, failure_of(command.error)))
        stored = failure_of(command.error)
        if run.strand.missed_cancel:
            # It would fail at the same place again before the cancel can reach it.
            return Raised(_cancelled(run.strand, {"type": CANCELLED, "code": FATAL_CODE, "causes": [stored]}))
        attempt = 1 if afresh else State.of(job.open).attempt + 1
        found = retry_after(stored, run.function.policy(job), attempt, random.random())  # noqa: S311 - no secret
        if isinstance(found, float):
            logger.warning(
                "workflow %s %s failed, attempt %s, next in %s s: %s",
                job.topic,
                job.job_id,
                attempt,
                f"{round(found, 2):g}",
                told(stored),
                extra={"job_id": job.job_id, "attempt": attempt},
                exc_info=loggable(command.error),
            )
            return Again(found, attempt)
        logger.error(
            "workflow %s %s failed: %s",
            job.topic,
            job.job_id,
            told(stored),
            extra={"job_id": job.job_id, "attempt": attempt},
            exc_info=loggable(command.error),
        )
        return Raised(as_exhausted(stored) if found == "exhausted" else stored)

    def _evict(self) -> None:
        """Drop the code that has been idle longest; each costs one replay. What has steps here is not dropped."""
        runs = self._runs
        if len(runs) <= self._most_kept:
            return
        for generation in list(runs):
            if len(runs) <= self._most_kept * 9 // 10:
                return
            run = runs[generation]
            if run.step is None and not run.steps:
                self.forget(generation)


def leave(turns: Turns, queue: str, names: Collection[str]) -> None:
    """Host these functions no more: what happens to their jobs is recorded, and others take their turns."""
    left = [turns.hosted.pop((queue, name), None) for name in names]
    for generation, run in list(turns._runs.items()):
        if run.step is None and run.function in left:
            turns.forget(generation)


def _cancelled(strand: Strand, stored: dict[str, Any]) -> dict[str, Any]:
    """The error of a workflow that was cancelled."""
    return {**stored, "message": strand.cancel_reason or stored.get("message") or "Workflow cancelled"}
