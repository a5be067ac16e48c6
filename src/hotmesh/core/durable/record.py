"""What has happened to a durable function's job, as its strand is told: outcomes, in the order in which they count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, cast

from msgspec import Struct
from msgspec.structs import replace

from hotmesh.core.column import without_nul
from hotmesh.core.durable.activities import overdue
from hotmesh.core.durable.commands import Completion
from hotmesh.core.durable.history import order
from hotmesh.core.durable.state import EXECUTION, RUN, TIMEOUT, TO_CLOSE, TO_START, TURN, Paused, State
from hotmesh.core.state.job import Event, Job
from hotmesh.core.state.step import ActivityInstance, Consumed, EscalationEnd, WorkKey
from hotmesh.core.values import UNDEFINED

CANCELLED_CODE: Final = 499
"""Of a signal that says that what was waited for will not come: its work item was cancelled."""


class Recorded(Struct, frozen=True, gc=False):
    """What events of a job come to."""

    completions: list[Completion]
    consumed: tuple[Consumed, ...]
    state: State = State()
    """As it is with these events; whether it has failed or is parked is for the turn to say."""
    interrupt: Mapping[str, Any] | None = None
    """The job is ended from outside, with these options; the rest does not matter then."""
    failed_turn: str | None = None
    """A turn was asked for whose steps could not be made, for this reason."""
    timed_out: str | None = None
    """The time of the whole, or of this run, is over: the name of the timer."""
    released: tuple[ActivityInstance, ...] = ()
    """What waits beside what has come."""
    given_up: tuple[WorkKey, ...] = ()
    """Activities whose time is over, whoever has them."""
    ends: tuple[EscalationEnd, ...] = ()


def record(job: Job, events: Sequence[Event], now: datetime) -> Recorded:
    """What they come to; rows they came from are consumed whatever they say."""
    if len(events) == 1 and (event := events[0]).kind == "step" and event.status == "success":
        outcome = Completion(
            event.dimension[1],
            "step",
            event.activity_id,
            "done",
            now,
            order(job.seq + 1, 0),
            _value(event),
            None,
            event.attempt,
            event.started_at,
        )
        return Recorded([outcome], (), State.of(job.open))
    recorder = _Recorder(job, events, now)
    for event in events:
        recorder.add(event)
    return recorder.recorded()


class _Recorder:
    def __init__(self, job: Job, events: Sequence[Event], now: datetime) -> None:
        self._job = job
        self._now = now
        self._seq = job.seq + 1
        self._state = State.of(job.open)
        self._completions: list[Completion] = []
        self._consumed: list[Consumed] = []
        self._settled: set[int] = set()
        self._signalled = {
            event.dimension[1] for event in events if event.kind == "signal" and len(event.dimension) == 2
        }
        """Waits that have a signal here: it comes before their time is over."""
        self._answered = {event.dimension for event in events if event.kind == "answer"}
        """Activities that have an answer here: it comes before their time is over."""
        self._interrupt: Mapping[str, Any] | None = None
        self._failed: str | None = None
        self._timed_out: str | None = None
        self._released: list[ActivityInstance] = []
        self._given_up: list[WorkKey] = []
        self._ends: list[EscalationEnd] = []

    def recorded(self) -> Recorded:
        return Recorded(
            self._completions,
            tuple(self._consumed),
            self._state,
            self._interrupt,
            self._failed,
            self._timed_out,
            tuple(self._released),
            tuple(self._given_up),
            tuple(self._ends),
        )

    def add(self, event: Event) -> None:
        if event.receipt is not None:
            self._consumed.append(Consumed(self._job.generation, event.receipt))
        match event.kind:
            case "interrupt":
                self._interrupt = event.data if isinstance(event.data, dict) else {}
            case "cancel":
                if not self._state.cancelled:
                    self._state = replace(self._state, cancelled=True, delayed=False)
                    self._unasked("cancel", "", event)
            case "pause":
                reason = event.data if isinstance(event.data, str) else None
                paused = self._state.paused or Paused(self._now.isoformat(), reason)
                self._state = replace(self._state, paused=paused)
            case "resume":
                self._state = replace(self._state, paused=None, delayed=False)
            case "signal":
                if event.dimension:
                    self._signal(event)
                else:
                    self._unasked("signal", event.activity_id, event)
            case "timer":
                self._timer(event)
            case _:
                if event.activity_id == TURN:
                    if event.status == "error":
                        self._failed = str(
                            event.data.get("message") if isinstance(event.data, dict) else event.data
                        )
                elif len(event.dimension) == 2:
                    self._outcome(event, "activity" if event.kind == "answer" else "step")

    def _timer(self, event: Event) -> None:
        name, dimension = event.activity_id, event.dimension
        if name == TURN:
            if self._state.delayed:
                self._state = replace(self._state, delayed=False)
        elif name in (EXECUTION, RUN) and len(dimension) < 2:
            self._timed_out = name
        elif len(dimension) == 2:
            self._add(dimension[1], "sleep", name, "done", began=event.started_at)
        elif len(dimension) == 3 and dimension[2] == TIMEOUT and dimension[1] not in self._signalled:
            where = dimension[:2]
            self._add(
                dimension[1], "wait", name, "failed", error={"type": "TimeoutError"}, began=event.started_at
            )
            self._released.append(ActivityInstance(self._job.generation, name, where, awaited=True))
            self._ends.append(EscalationEnd(self._job.generation, name, where, "expired"))

        elif len(dimension) == 3 and dimension[2] in (TO_START, TO_CLOSE):
            self._limit(event)

    def _limit(self, event: Event) -> None:
        """The time of an activity is over, unless it has ended or, where that counts, begun."""
        name, where = event.activity_id, event.dimension[:2]
        error = None if where in self._answered else overdue(event)
        if error is not None:
            self._add(
                where[1], "activity", name, "failed", error=error, attempt=max(event.attempt, 1), began=event.started_at
            )  # fmt: skip
            self._given_up.append((self._job.generation, name, where))
            self._released += [
                ActivityInstance(self._job.generation, name, address)
                for address in (where, (*where, TO_START), (*where, TO_CLOSE))
                if address != event.dimension
            ]

    def _signal(self, event: Event) -> None:
        name, where = event.activity_id, event.dimension
        self._released.append(ActivityInstance(self._job.generation, name, (*where, TIMEOUT)))
        value = _value(event)
        if event.status == "error":
            if event.code == CANCELLED_CODE:
                self._add(where[1], "wait", name, "cancelled")
            else:
                # It could not be stored as it is.
                error = value if isinstance(value, dict) else {"message": str(value), "code": event.code}
                self._add(where[1], "wait", name, "failed", error=error)
            self._ends.append(EscalationEnd(self._job.generation, name, where, "cancelled"))
            return
        self._add(where[1], "wait", name, "done", value)
        self._ends.append(EscalationEnd(self._job.generation, name, where, "resolved", without_nul(value)))

    def _outcome(self, event: Event, kind: str) -> None:
        value = _value(event)
        # Of work the attempts that have failed are counted, of a step all.
        attempt = event.attempt + (kind == "activity")
        if event.status == "error":
            error = value if isinstance(value, dict) else {"message": str(value), "code": event.code}
            self._add(
                event.dimension[1], kind, event.activity_id, "failed", error=error, attempt=attempt, began=event.started_at
            )  # fmt: skip
        else:
            self._add(
                event.dimension[1], kind, event.activity_id, "done", value, attempt=attempt, began=event.started_at
            )  # fmt: skip

    def _unasked(self, kind: str, name: str, event: Event) -> None:
        self._state = replace(self._state, events=self._state.events + 1)
        self._add(-self._state.events, kind, name, "done", _value(event))

    def _add(
        self,
        position: int,
        kind: str,
        name: str,
        status: Any,
        value: Any = None,
        *,
        error: Any = None,
        attempt: int = 0,
        began: datetime | None = None,
    ) -> None:
        if position in self._settled:
            return
        self._settled.add(position)
        seq = order(self._seq, len(self._completions))
        self._completions.append(
            Completion(position, kind, name, status, self._now, seq, value, error, attempt, began)
        )


def _value(event: Event) -> Any:
    return None if event.data is UNDEFINED else cast("Any", event.data)
