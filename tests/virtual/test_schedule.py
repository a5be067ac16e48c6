"""When a schedule runs: by the clock alone, on the pure step."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hotmesh.core.advance.advance import advance, start
from hotmesh.core.mapping import Environment
from hotmesh.core.plan.compile import Plan, compile_app
from hotmesh.core.schedule import Rhythm, read_rhythm
from hotmesh.core.state.job import Event, Job, StartRequest, TimerReceipt, WorkReceipt
from hotmesh.core.state.step import Step, Timer, Work
from hotmesh.runtime.definitions.graph_files import load
from hotmesh.virtual.app import document

PLAN: Plan = compile_app(load(document("hmsh")).app)


@dataclass
class Run:
    """A schedule on a clock that only this test moves; `skew`: what the engine's clock is wrong by, in seconds."""

    now: datetime
    skew: float = 0.0
    job: Job | None = None
    timer: Timer | None = None
    work: Work | None = None
    runs: list[datetime] = field(default_factory=list)

    def start(self, rhythm: Rhythm, *, max_cycles: int = 100, on_error: str = "stop") -> None:
        data: dict[str, Any] = {
            "id": "s", "topic": "w", "args": [], "cron": rhythm.cron, "interval": rhythm.interval,
            "first": rhythm.first, "max_cycles": max_cycles, "on_error": on_error,
        }  # fmt: skip
        request = StartRequest(
            topic="hmsh.cron", data=data, generation="00000000-0000-7000-8000-000000000001", default_id="J"
        )
        self._commit(start(PLAN, request, self.now, self._environment()))

    def sleep(self) -> None:
        """Until the timer is due."""
        assert self.timer is not None
        self.now += timedelta(seconds=self.timer.delay)
        self.happen(Event(
            "timer", self.timer.activity_id, self.timer.dimension, data={},
            receipt=TimerReceipt(self.timer.activity_id, self.timer.dimension), started_at=self.now,
        ))  # fmt: skip

    def answer(self, took: float = 0.0, status: str = "success") -> None:
        assert self.work is not None
        self.runs.append(self.now)
        self.now += timedelta(seconds=took)
        code = 200 if status == "success" else 500
        place = self.work.activity_id, self.work.dimension
        data = {"message": "no", "code": 500} if code == 500 else {}
        self.happen(
            Event("answer", *place, status, code, data, receipt=WorkReceipt(*place), started_at=self.now)
        )

    def happen(self, event: Event) -> None:
        assert self.job is not None
        self._commit(advance(PLAN, self.job, [event], self.now, self._environment()))

    def _commit(self, step: Step) -> None:
        self.job = step.jobs[0].job
        self.timer = step.timers[0] if step.timers else None
        self.work = step.work[0] if step.work else None

    def _environment(self) -> Environment:
        milliseconds = (self.now.timestamp() + self.skew) * 1000
        return Environment(now=lambda: milliseconds, random=lambda: 0.5)


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2024-02-29 {text}").replace(tzinfo=UTC)


@pytest.mark.row(327, 330)
def test_a_cron_expression_runs_once_per_tick() -> None:
    run = Run(at("12:00:12.345"))
    run.start(read_rhythm("* * * * *"))
    for took in (0.0, 0.5, 59.9, 150.0, 0.0):
        run.sleep()
        run.answer(took)

    # A run that takes longer than a minute leaves out the ticks that pass meanwhile.
    assert run.runs == [at("12:01"), at("12:02"), at("12:03"), at("12:04"), at("12:07")]


@pytest.mark.parametrize("skew", [-3.0, -0.001, 0.4, 3.0])
def test_a_clock_that_is_wrong_makes_no_tick_count_twice(skew: float) -> None:
    run = Run(at("12:00:12.345"))
    run.start(read_rhythm("* * * * *"))
    for number in range(4):
        run.sleep()
        run.skew = skew if number % 2 else 0.0
        run.answer()

    gaps = [(later - earlier).total_seconds() for earlier, later in zip(run.runs, run.runs[1:], strict=False)]
    assert all(gap > 55 for gap in gaps), gaps


def test_an_interval_begins_when_a_run_has_ended() -> None:
    run = Run(at("12:00:00.123"))
    run.start(read_rhythm("10 seconds"))
    assert run.timer is None
    for took in (0.0, 4.0, 0.0):
        run.answer(took)
        run.sleep()
    run.answer()

    assert run.runs == [at("12:00:00.123"), at("12:00:10.123"), at("12:00:24.123"), at("12:00:34.123")]


def test_a_delay_comes_before_the_first_run_only() -> None:
    run = Run(at("12:00:50"))
    run.start(read_rhythm("*/5 * * * *", delay=2))
    run.sleep()
    run.answer()
    run.sleep()
    run.answer()

    assert run.runs == [at("12:00:52"), at("12:05")]


@pytest.mark.row(326)
def test_a_schedule_ends_after_its_runs() -> None:
    run = Run(at("12:00"))
    run.start(read_rhythm(1, delay=1), max_cycles=2)
    run.sleep()
    run.answer()
    run.sleep()
    run.answer()

    assert run.timer is None
    assert run.job is not None
    assert (run.job.status, run.job.error) == (0, None)


@pytest.mark.parametrize(("on_error", "goes_on"), [("stop", False), ("continue", True)])
def test_a_failure_ends_the_schedule_unless_it_is_to_continue(on_error: str, goes_on: bool) -> None:
    run = Run(at("12:00"))
    run.start(read_rhythm(5), max_cycles=3, on_error=on_error)
    run.answer(status="error")

    assert run.job is not None
    assert (run.timer is not None, run.job.status > 0, run.job.error is None) == (goes_on,) * 3
