"""The group commit serves whoever has a step; programs decide the steps; stopping waits for what is in flight."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from harness import Doubler, connected, eventually, one_worker
from hotmesh import HotMesh, Worker
from hotmesh.core.advance.limits import DEFAULT_LIMITS, Limits
from hotmesh.core.mapping import Environment
from hotmesh.core.plan.compile import Plan
from hotmesh.core.state.job import Event, Job, StartRequest
from hotmesh.core.state.step import Consumed, Step
from hotmesh.postgres.steps import Committed
from hotmesh.runtime import ids
from hotmesh.runtime.definitions.program import GraphProgram
from hotmesh.runtime.engine.engine import Engine
from hotmesh.runtime.engine.in_flight import InFlight
from hotmesh.runtime.engine.ticket import Attempt, Ticket

pytestmark = pytest.mark.anyio

APP = "tickets"


class Noted(Ticket):
    """A ticket of somebody who has a step of his own, and writes down what becomes of it."""

    __slots__ = ("fate",)

    def __init__(self, step: Step, epoch: int) -> None:
        super().__init__(step)
        self.epoch = epoch
        self.fate: list[Any] = []

    def recompute(self) -> None:
        self.fate.append("recompute")

    def applied(self, attempt: Attempt, committed: Committed) -> None:
        self.fate.append("applied")

    async def refused(self, reason: str, taken: str) -> None:
        self.fate.append((reason, taken))

    def unwritten(self) -> None:
        self.fate.append("unwritten")

    def rejected(self, error: BaseException, *, own: bool) -> None:
        self.fate.append(type(error).__name__)

    def without(self, gone: Collection[Consumed]) -> None:
        self.fate.append(gone)

    def give_up(self, error: BaseException) -> bool:
        self.fate.append("give up")
        return True

    def abandon(self, error: BaseException) -> None:
        self.fate.append("abandon")


@asynccontextmanager
async def deployed(
    url: str, *workers: Worker, make_program: Callable[[Plan], Any] = GraphProgram
) -> AsyncIterator[tuple[HotMesh, Engine]]:
    async with HotMesh.init(APP, connection=url, workers=list(workers)) as mesh:
        mesh._member.plans.make_program = make_program
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        assert mesh._member.engine is not None
        yield mesh, mesh._member.engine


async def noted(mesh: HotMesh, job_id: str) -> Noted:
    """A ticket that creates a job of this id."""
    program = await mesh._member.plans.active_program()
    request = StartRequest("one", {"x": 1}, ids.generation(), ids.guid(), job_id=job_id)
    step = program.start(
        request, datetime.now(UTC), mesh._member.surroundings.environment, taken=(), limits=DEFAULT_LIMITS
    )
    return Noted(step, mesh._member.plans.epoch)


async def test_a_ticket_is_told_what_becomes_of_its_step(database_url: str) -> None:
    async with deployed(database_url) as (mesh, engine), connected(database_url) as connection:
        first, same, stale = [await noted(mesh, job_id) for job_id in ("a", "a", "b")]
        stale.epoch -= 1
        for ticket in (first, same, stale):
            engine.group_commit.submit(ticket)
        await eventually(lambda: first.fate and same.fate and stale.fate)
        created = await connection.fetch("select job_id from hotmesh.job")

    assert first.fate == ["applied"]
    assert same.fate == [("duplicate", "a")]
    assert stale.fate == ["recompute"]
    assert [row["job_id"] for row in created] == ["a"]


async def test_a_step_that_cannot_be_stored_harms_no_other_of_its_batch(database_url: str) -> None:
    async with deployed(database_url) as (mesh, engine), connected(database_url) as connection:
        await connection.execute(
            "create function public.refuse() returns trigger language plpgsql as "
            "$$ begin raise exception 'no'; end $$; create trigger refuse before insert on hotmesh.job "
            "for each row when (new.job_id = 'poison') execute function public.refuse()"
        )
        tickets = [await noted(mesh, job_id) for job_id in ("a", "poison", "b")]
        for ticket in tickets:
            engine.group_commit.submit(ticket)
        await eventually(lambda: all(ticket.fate for ticket in tickets))

    assert [ticket.fate for ticket in tickets] == [["applied"], ["StatementError"], ["applied"]]


class Counted:
    """A program that decides as graphs do, and counts what it is asked."""

    def __init__(self, inner: GraphProgram) -> None:
        self._inner = inner
        self.plan = inner.plan
        self.asked: list[str] = []

    def serves(self, topic: str) -> bool:
        return self._inner.serves(topic)

    def start(
        self,
        request: StartRequest,
        now: datetime,
        environment: Environment,
        *,
        taken: Collection[str],
        limits: Limits,
    ) -> Step:
        self.asked.append("start")
        return self._inner.start(request, now, environment, taken=taken, limits=limits)

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
        self.asked += [event.kind for event in events]
        return self._inner.advance(job, events, now, environment, taken=taken, limits=limits)

    def needs(self, event: Event) -> Collection[str]:
        self.asked.append("needs")
        return self._inner.needs(event)


async def test_whatever_program_a_version_has_decides(database_url: str) -> None:
    programs: list[Counted] = []

    def counted(plan: Plan) -> Counted:
        programs.append(Counted(GraphProgram(plan)))
        return programs[-1]

    doubler = Doubler()
    doubler.gate.set()
    async with deployed(database_url, Worker("w", doubler), make_program=counted) as (mesh, _):
        assert (await mesh.pubsub("one", {"x": 2}, timeout=10)).data == {"y": 4}
        assert [asked for program in programs for asked in program.asked] == ["start", "answer"]


async def test_what_is_in_flight_is_waited_for() -> None:
    in_flight = InFlight()
    await in_flight.none()
    done: list[str] = []

    async def wait() -> None:
        await in_flight.none()
        done.append("waited")

    async with anyio.create_task_group() as tasks:
        in_flight.begin()
        in_flight.begin()
        tasks.start_soon(wait)
        await anyio.lowlevel.checkpoint()
        in_flight.end()
        await anyio.lowlevel.checkpoint()
        assert not done
        # What begins before anybody has looked is waited for, too.
        in_flight.end()
        in_flight.begin()
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        assert not done
        in_flight.end()
    assert done == ["waited"]
