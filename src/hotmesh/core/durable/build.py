"""What a turn changes, as the step that is committed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from hotmesh.core.durable.commands import Command, Completion, Release, Sleep
from hotmesh.core.durable.commands import Step as StepCommand
from hotmesh.core.durable.history import operations, order
from hotmesh.core.durable.record import Recorded
from hotmesh.core.durable.state import MAIN, TURN, Parked, State
from hotmesh.core.duration import LONGEST_TIME
from hotmesh.core.state.job import INTERRUPTED, Job, StartRequest, timestamp
from hotmesh.core.state.step import ActivityInstance, JobChange, Notice, Step, Timer, Work
from hotmesh.core.values import Json
from hotmesh.core.wire import dumps_text

NO_VERSION: Final = ""
"""Durable functions have no version of an app."""


class Returned(Struct, frozen=True):
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
    return Step((JobChange(job, created=True, held=False, search=search),), work=(turn_row(job),))


def record_only(job: Job, recorded: Recorded, now: datetime) -> Step:
    """What has happened is recorded; the turn is for a host."""
    after = replace(job, seq=job.seq + 1, updated_at=now, history=None)
    return Step(
        (JobChange(after, created=False, expected_seq=job.seq, data_changed=False),),
        operations=operations(job, after.seq, recorded.completions),
        consumed=recorded.consumed,
        released=(ActivityInstance(job.generation, TURN, (MAIN,)),),
        work=(turn_row(job),),
    )


def put_off(job: Job, recorded: Recorded, now: datetime, delay: float) -> Step:
    """Another process has the steps of the job, and lives: what has happened is recorded, and a turn asked for later."""
    after = replace(job, seq=job.seq + 1, updated_at=now, history=None)
    return Step(
        (JobChange(after, created=False, expected_seq=job.seq, data_changed=False),),
        operations=operations(job, after.seq, recorded.completions),
        consumed=recorded.consumed,
        released=(ActivityInstance(job.generation, TURN, (MAIN,)),),
        timers=(_timer(job, TURN, (MAIN,), delay),),
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
    return Step((change,), consumed=recorded.consumed, notices=(_notice(after, now),))


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
    state = State.of(job.open)
    seq = job.seq if begins else job.seq + 1
    completions = recorded.completions
    ended = isinstance(outcome, Returned | Raised)
    timers: list[Timer] = []
    released: list[ActivityInstance] = []
    if job.open is not None and not begins:
        released.append(ActivityInstance(job.generation, TURN, (MAIN,)))
    for command in commands:
        if isinstance(command, Sleep):
            timers.append(_timer(job, command.name, (MAIN, command.position), command.seconds))
        elif isinstance(command, Release) and not command.wait:
            if command.of == "sleep":
                released.append(ActivityInstance(job.generation, command.name, (MAIN, command.position)))
            if outcome is None:
                # A function that is run again asks for it anew; one that has ended, for nothing.
                completions = [*completions, _released(command, order(seq, len(completions)), now)]
        elif not isinstance(command, StepCommand | Release) and outcome is None:
            raise NotImplementedError(f"operations of kind {command.kind} cannot be carried out yet")
    status, error, data = job.status, job.error, job.data
    if isinstance(outcome, Returned):
        status, data = 0, {"done": True, "response": outcome.value}
    elif isinstance(outcome, Raised):
        status, error = status + INTERRUPTED, {**outcome.error, "job_id": job.job_id}
        data = {"done": True, "$error": outcome.error}
    new = State()
    if isinstance(outcome, Again):
        timers = [_timer(job, TURN, (MAIN,), outcome.delay)]
        new = State(outcome.attempt)
    elif isinstance(outcome, Parked):
        timers = [_timer(job, TURN, (MAIN,), outcome.delay)]
        new = State(state.attempt, outcome)
        if not released:
            released.append(ActivityInstance(job.generation, TURN, (MAIN,)))
    after = replace(
        job,
        seq=seq,
        status=status,
        error=error,
        data=data,
        updated_at=now,
        open=new.as_open(),
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
    return Step(
        (change,),
        operations=operations(job, seq, completions) if completions else (),
        consumed=recorded.consumed,
        timers=() if ended else tuple(timers),
        released=() if ended else tuple(released),
        notices=(_notice(after, now),) if ended else (),
    )


def _timer(job: Job, name: str, dimension: tuple[int, ...], delay: float) -> Timer:
    return Timer(job.job_id, job.generation, name, dimension, delay)


def _released(command: Release, seq: int, now: datetime) -> Completion:
    return Completion(command.position, command.of, command.name, "released", now, seq)


def _notice(job: Job, now: datetime) -> Notice:
    """Whoever waits is told of the end."""
    return Notice(job.job_id, job.reply_to, None, metadata(job, now), job.data, seq=job.seq)


def metadata(job: Job, updated_at: datetime) -> dict[str, Any]:
    """A job's metadata, under the published short names."""
    created_at = timestamp(job.created_at)
    found: dict[str, Any] = {
        "jid": job.job_id,
        "gid": job.generation,
        "tpc": job.topic,
        "app": job.app_id,
        "vrs": job.version,
        "aid": TURN,
        "jc": created_at,
        "ju": timestamp(updated_at),
        "ts": created_at[:12],
        "js": job.status,
    }
    if job.error is not None:
        found["err"] = dumps_text(job.error)
    if job.reply_to is not None:
        found["ngn"] = job.reply_to
    if job.expire is not None:
        found["expire"] = job.expire
    return found


NO_EVENTS: Final = Recorded([], ())
