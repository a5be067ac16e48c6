"""Tickets: the group commit serves whoever has a step, and tells each what became of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from harness import connected, eventually, one_worker
from hotmesh import HotMesh
from hotmesh.core.advance.limits import DEFAULT_LIMITS
from hotmesh.core.state.job import StartRequest
from hotmesh.core.state.step import Consumed, Step
from hotmesh.postgres.steps import Committed
from hotmesh.runtime import ids
from hotmesh.runtime.engine.engine import Engine
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
async def deployed(url: str) -> AsyncIterator[tuple[HotMesh, Engine]]:
    async with HotMesh.init(APP, connection=url) as mesh:
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
