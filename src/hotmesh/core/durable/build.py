"""What a turn changes, as the step that is committed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from hotmesh.core.durable.activities import asked_to_end, timers_of, work_of
from hotmesh.core.durable.commands import (
    Activity,
    Command,
    Completion,
    Patch,
    Release,
    Signal,
    Sleep,
    Wait,
)
from hotmesh.core.durable.commands import Step as StepCommand
from hotmesh.core.durable.history import operations, order
from hotmesh.core.durable.metadata import notice
from hotmesh.core.durable.record import Recorded
from hotmesh.core.durable.state import (
    BY_ID,
    EXECUTION,
    MAIN,
    OF_WORKFLOW,
    RUN,
    TIMEOUT,
    TO_CLOSE,
    TO_START,
    TURN,
    Parked,
    State,
)
from hotmesh.core.duration import LONGEST_TIME
from hotmesh.core.state import step as rows
from hotmesh.core.state.job import INTERRUPTED, Job, StartRequest
from hotmesh.core.state.step import (
    ActivityInstance,
    CancelRequest,
    Escalation,
    EscalationEnd,
    JobChange,
    Message,
    PauseChange,
    Step,
    Timer,
    Work,
    WorkKey,
)
from hotmesh.core.values import Json
from hotmesh.durable_errors import TIMEOUT_CODE

NO_VERSION: Final = ""
"""Durable functions have no version of an app."""


class Returned(Struct, frozen=True, gc=False):
    """The function has returned this value, as it is stored."""

    value: Json


class Raised(Struct, frozen=True):
    """The function has failed for good, with this error as it is stored."""

    error: dict[str, Any]


class Again(Struct, frozen=True):
    """The function has failed, and is run again."""

    delay: float
    attempt: int
    """Attempts that have failed in a row."""


Outcome = Returned | Raised | Again | Parked


def created(request: StartRequest, app_id: str, now: datetime, expire: float | None) -> Job:
    """The job of a start, before its first turn."""
    return Job(
        app_id,
        request.job_id or request.default_id,
        request.generation,
        NO_VERSION,
        request.topic,
        1,
        1,
        request.data,
        {},
        now,
        now,
        entity=request.entity,
        reply_to=request.reply_to,
        trace_id=request.trace_id,
        span_id=request.span_id,
        expire=expire if request.expire is None else request.expire,
        queue=request.queue,
        settings=request.settings,
    )


def turn_row(job: Job) -> Work:
    """A turn of the job for whoever hosts its function."""
    return Work(job.job_id, job.generation, TURN, (MAIN,), job.queue or "", {}, job.topic)


def start_elsewhere(job: Job, search: dict[str, Json] | None) -> Step:
    """The job begins where its function is hosted."""
    change = JobChange(job, created=True, held=False, search=search)
    return Step((change,), work=(turn_row(job),), timers=tuple(limits_of(job)))


def start_later(job: Job, search: dict[str, Json] | None, delay: float) -> Step:
    """The job begins in a while: a timer asks for its first turn."""
    job = replace(job, open=State(delayed=True).as_open())
    change = JobChange(job, created=True, held=False, search=search)
    return Step((change,), timers=(_timer(job, TURN, (MAIN,), delay), *limits_of(job, delay)))


def limits_of(job: Job, delay: float = 0.0) -> list[Timer]:
    """The timers of a new job that end it, whatever it does. They count from its first turn."""
    settings = job.settings or {}
    limits = ((EXECUTION, (), "execution_timeout"), (RUN, (MAIN,), "run_timeout"))
    return [
        _timer(job, name, dimension, delay + float(settings[option]))
        for name, dimension, option in limits
        if settings.get(option)
    ]


def record_only(job: Job, recorded: Recorded, now: datetime) -> Step:
    """What has happened is recorded; the turn is for a host."""
    return _recorded(job, recorded, now, work=(turn_row(job),))


def left_here(job: Job, recorded: Recorded, now: datetime, *, held: bool) -> Step:
    """What has happened is recorded; the function is not hosted here any more. `held`: steps of it run on, and the turn comes after them."""
    return _recorded(job, recorded, now, held=held, work=() if held else (turn_row(job),))


def paused(job: Job, recorded: Recorded, now: datetime, *, held: bool) -> Step:
    """What has happened is recorded; whoever resumes it asks for a turn. `held`: whether steps of it still run here."""
    return _recorded(job, recorded, now, held=held, turnless=not recorded.state.delayed)


def late(job: Job, recorded: Recorded, now: datetime) -> Step:
    """The job has ended: what was still on its way to it means nothing."""
    after = replace(job, seq=job.seq + 1, updated_at=now, history=None)
    change = JobChange(after, created=False, expected_seq=job.seq, data_changed=False)
    return Step((change,), consumed=recorded.consumed)


def put_off(job: Job, recorded: Recorded, now: datetime, delay: float) -> Step:
    """Another process has the steps of the job, and lives: what has happened is recorded, and a turn asked for later."""
    return _recorded(job, recorded, now, timers=(_timer(job, TURN, (MAIN,), delay),))


def _recorded(
    job: Job,
    recorded: Recorded,
    now: datetime,
    *,
    work: tuple[Work, ...] = (),
    timers: tuple[Timer, ...] = (),
    held: bool | None = None,
    turnless: bool = True,
) -> Step:
    """`turnless`: what is there for its next turn goes."""
    after = replace(job, seq=job.seq + 1, updated_at=now, open=recorded.state.as_open(), history=None)
    if held is not None:
        after = replace(after, held=held, tenure=None if held else job.tenure)
    return Step(
        (JobChange(after, created=False, expected_seq=job.seq, data_changed=False, held=held),),
        operations=operations(job, after.seq, recorded.completions),
        consumed=recorded.consumed,
        released=(
            *((ActivityInstance(job.generation, TURN, (MAIN,)),) if turnless else ()),
            *recorded.released,
        ),
        escalation_ends=recorded.ends,
        given_up=recorded.given_up,
        pauses=_pauses(job, recorded),
        work=work,
        timers=timers,
    )


def timed_out(job: Job, recorded: Recorded, now: datetime) -> Step:
    """The time of the job is over: it ends, and none of its code runs."""
    settings, whole = job.settings or {}, recorded.timed_out == EXECUTION
    option = "execution_timeout" if whole else "run_timeout"
    error = {
        "message": f"workflow {job.topic} took longer than its {option}, {float(settings.get(option) or 0):g} s",
        "type": "WorkflowTimeoutError",
        "code": TIMEOUT_CODE,
    }
    after = replace(
        job,
        seq=job.seq + 1,
        status=job.status + INTERRUPTED,
        updated_at=now,
        error={**error, "job_id": job.job_id},
        data={"done": True, "$error": error},
        open=None,
        history=None,
        held=False,
    )
    change = JobChange(after, created=False, expected_seq=job.seq, ended=True, dropped=True, held=False)
    return Step(
        (change,),
        operations=operations(job, after.seq, recorded.completions),
        consumed=recorded.consumed,
        notices=(notice(after, now),),
        given_up=((job.generation, TURN, ()),),
    )


def interrupted(job: Job, recorded: Recorded, now: datetime) -> Step:
    """The job is ended from outside."""
    options = recorded.interrupt or {}
    reason = options.get("reason")
    error: dict[str, Any] | None = {
        "message": reason if reason is not None else f"job [{job.job_id}] interrupted",
        "code": options.get("code") or 410,
        "stack": options.get("stack") or "",
        "job_id": job.job_id,
        "type": "TerminatedError",
    }
    if options.get("throw") is False:
        error = None
    expire = job.expire if options.get("expire") is None else min(float(options["expire"]), LONGEST_TIME)
    after = replace(
        job,
        seq=job.seq + 1,
        status=job.status + INTERRUPTED,
        updated_at=now,
        error=error,
        expire=expire,
        open=None,
        history=None,
    )
    change = JobChange(
        after,
        created=False,
        expected_seq=job.seq,
        ended=True,
        dropped=True,
        descend=options.get("descend") is True,
        held=False,
    )
    return Step(
        (change,),
        consumed=recorded.consumed,
        notices=(notice(after, now),),
        given_up=((job.generation, TURN, ()),),
    )


def turn(
    job: Job,
    recorded: Recorded,
    commands: Sequence[Command],
    outcome: Outcome | None,
    now: datetime,
    *,
    begins: bool,
    held: bool,
    tidy: bool,
    search: dict[str, Json] | None = None,
) -> Step:
    """What a turn has come to. `job`: as it was before. `held`: whether steps run here that will bring its next event.
    `tidy`: nothing is there beside its row.
    """
    before = State.of(job.open)
    seq = job.seq if begins else job.seq + 1
    ended = isinstance(outcome, Returned | Raised)
    # Steps run in this process: they leave no row, and most turns ask for nothing else.
    asked = [command for command in commands if type(command) is not StepCommand]
    made = None
    if asked:
        made = _Made(job, seq, now, recorded.completions, goes_on=outcome is None)
        for command in asked:
            made.add(command)
    outcomes = recorded.completions if made is None else made.outcomes
    released = [] if made is None else made.released
    if isinstance(outcome, Parked) or (before.retried and not begins):
        released.append(ActivityInstance(job.generation, TURN, (MAIN,)))
    status, error, data = job.status, job.error, job.data
    if isinstance(outcome, Returned):
        status, data = 0, {"done": True, "response": outcome.value}
    elif isinstance(outcome, Raised):
        status, error = status + INTERRUPTED, {**outcome.error, "job_id": job.job_id}
        data = {"done": True, "$error": outcome.error}
    new = recorded.state
    if new.attempt or new.parked is not None:
        new = replace(new, attempt=0, parked=None)
    timers = [] if made is None else made.timers
    if isinstance(outcome, Again):
        timers = [_timer(job, TURN, (MAIN,), outcome.delay)]
        new = replace(new, attempt=outcome.attempt)
    elif isinstance(outcome, Parked):
        timers = [_timer(job, TURN, (MAIN,), outcome.delay)]
        new = replace(new, attempt=before.attempt, parked=outcome)
    if begins and job.settings:
        timers = [*timers, *limits_of(job)]
    after = replace(
        job,
        seq=seq,
        status=status,
        error=error,
        data=data,
        updated_at=now,
        open=None if ended else new.as_open(),
        history=None,
        held=held and not ended,
        # That of this process, which is known once the step is written.
        tenure=None if held else job.tenure,
    )
    change = JobChange(
        after,
        created=begins,
        expected_seq=0 if begins else job.seq,
        ended=ended,
        dropped=ended and not tidy,
        data_changed=ended,
        held=held and not ended,
        search=search,
    )
    recorded_released = recorded.released
    if ended and recorded_released:
        # Also at the end a wait whose time is over must not have had its signal.
        recorded_released = tuple(one for one in recorded_released if one.awaited)
    step = Step(
        (change,),
        operations=operations(job, seq, outcomes) if outcomes else (),
        given_up=recorded.given_up,
        pauses=() if ended or job.open is None else _pauses(job, recorded),
        consumed=recorded.consumed,
        timers=() if ended else tuple(timers),
        released=recorded_released if ended else (*recorded_released, *released),
        escalation_ends=recorded.ends,
        notices=(notice(after, now),) if ended else (),
    )
    if made is None:
        return step
    return replace(
        step,
        work=() if ended else tuple(made.work),
        waits=() if ended else tuple(made.waits),
        signals=tuple(made.signals),
        messages=tuple(made.messages),
        escalations=() if ended else tuple(made.escalations),
        escalation_ends=(*recorded.ends, *made.ends),
        cancels=() if ended else tuple(made.cancels),
        given_up=(*step.given_up, *made.given_up),
    )


def _pauses(job: Job, recorded: Recorded) -> tuple[PauseChange, ...]:
    """What becomes of its activities that nobody runs: as long as it is paused they wait."""
    paused = recorded.state.paused is not None
    if paused == (State.of(job.open).paused is not None):
        return ()
    return (PauseChange(job.generation, paused),)


class _Made:
    """What the commands of a turn come to."""

    def __init__(
        self, job: Job, seq: int, now: datetime, outcomes: list[Completion], *, goes_on: bool
    ) -> None:
        self._job = job
        self._seq = seq
        self._now = now
        self._goes_on = goes_on
        """Else the function has ended, is run again, or parked: what it has open is given up."""
        self.outcomes = outcomes
        self.work: list[Work] = []
        self.timers: list[Timer] = []
        self.waits: list[rows.Wait] = []
        self.released: list[ActivityInstance] = []
        self.signals: list[rows.Signal] = []
        self.messages: list[Message] = []
        self.escalations: list[Escalation] = []
        self.ends: list[EscalationEnd] = []
        self.cancels: list[CancelRequest] = []
        self.given_up: list[WorkKey] = []

    def add(self, command: Command) -> None:
        """Perform a command."""
        match command:
            case Activity():
                if self._goes_on:
                    self.work.append(work_of(self._job, command))
                    if command.options:
                        self.timers += timers_of(self._job, command)
            case Sleep(position, seconds, name):
                self.timers.append(_timer(self._job, name, (MAIN, position), seconds))
            case Wait():
                self._wait(command)
            case Signal():
                self._signal(command)
            case Patch(position, name, version):
                self._outcome(position, command.kind, name, "done", version)
            case Release():
                if not command.wait:
                    self._release(command)
                elif command.of == "activity":
                    where = (MAIN, command.position)
                    error = asked_to_end(command.name)
                    self.cancels.append(CancelRequest(self._job.generation, command.name, where, error))
            case _:
                if self._goes_on:
                    raise NotImplementedError(f"operations of kind {command.kind} cannot be carried out yet")

    def _wait(self, command: Wait) -> None:
        job, where = self._job, (MAIN, command.position)
        topic = BY_ID if command.correlated else OF_WORKFLOW
        key = command.name if command.correlated else f"{job.generation}:{command.name}"
        alone = command.correlated and not command.shared
        self.waits.append(rows.Wait(job.job_id, job.generation, command.name, where, topic, key, alone))
        if command.timeout is not None:
            self.timers.append(_timer(job, command.name, (*where, TIMEOUT), command.timeout))
        if command.escalation is not None:
            fields = {
                "task_queue": job.queue,
                "workflow_type": job.topic,
                "trace_id": job.trace_id,
                **command.escalation,
                "signal_key": key,
                "topic": topic,
            }
            self.escalations.append(Escalation(job.job_id, job.generation, command.name, where, fields))

    def _signal(self, command: Signal) -> None:
        """It counts with this turn; that it was sent is recorded, so that a replay does not send it again."""
        if command.job_id is None:
            keep = KEEP if command.expire is None else command.expire
            self.signals.append(rows.Signal(BY_ID, command.name, command.data, keep=keep))
        else:
            message = f"signal:{self._job.generation}:{command.position}"
            self.messages.append(
                Message("signal", command.job_id, message, activity_id=command.name, data=command.data)
            )
        self._outcome(command.position, command.kind, command.name, "done")

    def _release(self, command: Release) -> None:
        job, where = self._job, (MAIN, command.position)
        if command.of == "wait" and not self._goes_on:
            return  # one that is run again waits for the same: its rows stay, and its work item
        if command.of != "step":
            self.released.append(ActivityInstance(job.generation, command.name, where))
        if command.of == "activity":
            self.given_up.append((job.generation, command.name, where))
            self.released += [
                ActivityInstance(job.generation, command.name, (*where, mark))
                for mark in (TO_START, TO_CLOSE)
            ]
        if command.of == "wait":
            self.released.append(ActivityInstance(job.generation, command.name, (*where, TIMEOUT)))
            self.ends.append(EscalationEnd(job.generation, command.name, where, "cancelled"))
        if self._goes_on:
            # A function that is run again asks for it anew; one that has ended, for nothing.
            self._outcome(command.position, command.of, command.name, "released")

    def _outcome(self, position: int, kind: str, name: str, status: Any, value: Any = None) -> None:
        seq = order(self._seq, len(self.outcomes))
        self.outcomes = [*self.outcomes, Completion(position, kind, name, status, self._now, seq, value)]


KEEP: Final = 600.0
"""Seconds for which a signal to an id is kept that nobody waits for yet."""


def _timer(job: Job, name: str, dimension: tuple[int, ...], delay: float) -> Timer:
    return Timer(job.job_id, job.generation, name, dimension, delay)


NO_EVENTS: Final = Recorded([], ())
