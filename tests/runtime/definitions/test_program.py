"""Programs: what decides the steps of a version is asked, and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import pytest

from harness import Doubler, one_worker
from hotmesh import HotMesh, Worker
from hotmesh.core.advance.limits import Limits
from hotmesh.core.mapping import Environment
from hotmesh.core.plan.compile import Plan
from hotmesh.core.state.job import Event, Job, StartRequest
from hotmesh.core.state.step import Step
from hotmesh.runtime.definitions.program import GraphProgram

pytestmark = pytest.mark.anyio


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

    def counted(plan: Plan) -> Any:
        programs.append(Counted(GraphProgram(plan)))
        return programs[-1]

    doubler = Doubler()
    doubler.gate.set()
    async with HotMesh.init("programs", connection=database_url, workers=[Worker("w", doubler)]) as mesh:
        mesh._member.plans.make_program = counted
        await mesh.deploy(one_worker("programs"))
        await mesh.activate("1")
        assert (await mesh.pubsub("one", {"x": 2}, timeout=10)).data == {"y": 4}
        asked = [what for program in programs for what in program.asked]
        # What an answer needs is asked if it comes before this process has the job in memory.
        assert [what for what in asked if what != "needs"] == ["start", "answer"]
