"""Cycles."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from harness import eventually
from hotmesh import HotMesh, JobError, Response, StreamData

pytestmark = pytest.mark.anyio

calls: defaultdict[str, list[tuple[str, Any]]] = defaultdict(list)
steps: defaultdict[str, int] = defaultdict(int)


async def increment(message: StreamData) -> dict[str, int]:
    calls[message.metadata.jid].append((message.metadata.dad, message.data))
    return {"n": (message.data.get("n") or 0) + 1}


async def reentrant(message: StreamData) -> Response:
    """Answers with the codes of a plan, one after the other, and with 200 at its end."""
    job_id, plan = message.data["id"], message.data["plan"]
    number = steps[job_id]
    steps[job_id] += 1
    if number == len(plan):
        return Response({"done": True})
    code = plan[number]
    if code == 599:
        return Response({"message": "again"}, status="error", code=599)
    return Response({"seconds": 0.05, "await": code != 5900}, code=min(code, 590) if code == 5900 else code)


WORKERS = {"increment": increment, "reentrant": reentrant, "proxy": lambda _: {}}


@pytest.mark.row(136, 138)
async def test_a_worker_runs_five_times_in_passes_of_its_own(mesh: HotMesh) -> None:
    output = await mesh.pubsub("counter", {}, timeout=5)
    assert output.data == {"counter": 5}
    assert calls[output.metadata.jid] == [
        (",0,0,0", {"n": 0, "first": True}),
        (",0,1,0", {"n": 1}),
        (",0,2,0", {"n": 2}),
        (",0,3,0", {"n": 3}),
        (",0,4,0", {"n": 4}),
    ]


@pytest.mark.row(137)
async def test_a_version_that_is_deployed_meanwhile_cycles_by_a_code(
    module_database_url: str,
) -> None:
    def graph(version: str, condition: str) -> str:
        return f"""
app:
  id: hot
  version: '{version}'
  graphs:
    - subscribes: go
      expire: 3600
      activities:
        t: {{type: trigger}}
        p: {{type: hook, output: {{maps: {{n: 0}}}}}}
        w: {{type: worker, topic: w, input: {{maps: {{n: '{{p.output.data.n}}'}}}}, job: {{maps: {{n: '{{$self.output.data.n}}'}}}}}}
        c: {{type: cycle, ancestor: p, input: {{maps: {{n: '{{w.output.data.n}}'}}}}}}
      transitions:
        t: [{{to: p}}]
        p: [{{to: w}}]
        w: [{{to: c, conditions: {condition}}}]
"""

    async def until_five(message: StreamData) -> Response:
        number = message.data["n"] + 1
        return Response({"n": number}, code=500 if number < 5 else 200)

    from hotmesh import Worker

    async with HotMesh.init("hot", connection=module_database_url, workers=[Worker("w", until_five)]) as mesh:
        await mesh.deploy(graph("1", "{code: 999}"))
        await mesh.activate("1")
        assert (await mesh.pubsub("go", {}, timeout=5)).data == {"n": 1}
        await mesh.deploy(graph("2", "{code: 500}"))
        await mesh.activate("2")
        output = await mesh.pubsub("go", {}, timeout=5)
        assert (output.data, output.metadata.vrs) == ({"n": 5}, "2")
        assert (await mesh.export(output.metadata.jid))["status"] == "0"


@pytest.mark.row(139)
async def test_an_endless_cycle_fails_the_job(mesh: HotMesh, module_database_url: str) -> None:
    settings = {"max_cycles": 3}
    async with HotMesh.init(mesh.app_id, connection=module_database_url, settings=settings) as short:
        with pytest.raises(JobError, match=r"^Cycle limit exceeded for job H") as caught:
            await short.pubsub("endless", {}, timeout=5)
        assert await short.get_status(str(caught.value.job_id)) == 0


@pytest.mark.row(140)
@pytest.mark.parametrize(
    "plan",
    [[], [588], [595], [591], [590], [5900], [589], [599, 599], [588, 595, 591, 590, 5900, 589, 599]],
    ids=str,
)
async def test_a_flow_that_is_entered_again_and_again(mesh: HotMesh, plan: list[int]) -> None:
    job_id = await mesh.pub("reentrant", {"plan": plan})
    signalled = False

    async def complete() -> bool:
        nonlocal signalled
        if 595 in plan and not signalled and steps[job_id] == plan.index(595) + 1:
            signalled = True
            await mesh.signal("reentrant.go", {"id": job_id})
        return await mesh.get_status(job_id) == 0

    await eventually(complete)
    state = await mesh.get_state("reentrant", job_id)
    assert (state.data, "err" in state.metadata) == ({"done": True}, False)
    assert steps[job_id] == len(plan) + 1
