"""One process of a drill: `python member.py '<order as JSON>'`. It serves until it is killed.

What its callbacks do in the world is one appended line each, in a file outside the database.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Awaitable
from typing import Any

from hotmesh import DatabaseError, DuplicateJobError, HotMesh, HotMeshError, StreamData, Worker
from ledger import Ledger

APP = "drill"

LEASE = 2.0
"""Seconds after which the work of a dead process goes to another."""

TOPICS = ("first", "left", "right", "part", "turn", "last")

TURNS = 3
"""Passes through the cycle of a job."""

FLOW = """
app:
  id: drill
  version: '1'
  graphs:
    # One worker, then five branches side by side: two workers, a child, a sleeper and a cycle; and one that follows.
    - subscribes: order
      expire: 36000
      activities:
        start:
          type: trigger
          job: {maps: {applied: 0}}
        first:
          type: worker
          topic: first
          input: {maps: {x: '{start.output.data.x}'}}
          job: {maps: {first: '{$self.output.data.y}', applied: {'@pipe': [['{$job.data.applied}', 1], ['{@math.add}']]}}}
        left:
          type: worker
          topic: left
          input: {maps: {x: '{first.output.data.y}'}}
          job: {maps: {left: '{$self.output.data.y}', applied: {'@pipe': [['{$job.data.applied}', 1], ['{@math.add}']]}}}
        right:
          type: worker
          topic: right
          input: {maps: {x: '{first.output.data.y}'}}
          job: {maps: {right: '{$self.output.data.y}', applied: {'@pipe': [['{$job.data.applied}', 1], ['{@math.add}']]}}}
        last:
          type: worker
          topic: last
          input: {maps: {x: '{left.output.data.y}'}}
          job: {maps: {last: '{$self.output.data.y}', applied: {'@pipe': [['{$job.data.applied}', 1], ['{@math.add}']]}}}
        child:
          type: await
          topic: part
          input: {maps: {x: '{first.output.data.y}'}}
          job: {maps: {part: '{$self.output.data.y}', applied: {'@pipe': [['{$job.data.applied}', 1], ['{@math.add}']]}}}
        nap:
          type: hook
          sleep: 0.3
          job: {maps: {napped: true}}
        awake:
          type: hook
          job: {maps: {applied: {'@pipe': [['{$job.data.applied}', 1], ['{@math.add}']]}}}
        pass:
          type: hook
          output: {maps: {n: 0}}
        turn:
          type: worker
          topic: turn
          input: {maps: {x: '{pass.output.data.n}'}}
          job: {maps: {turns: '{$self.output.data.y}', applied: {'@pipe': [['{$job.data.applied}', 1], ['{@math.add}']]}}}
        again:
          type: cycle
          ancestor: pass
          input: {maps: {n: '{turn.output.data.y}'}}
      transitions:
        start: [{to: first}]
        first: [{to: left}, {to: right}, {to: child}, {to: nap}, {to: pass}]
        left: [{to: last}]
        nap: [{to: awake}]
        pass: [{to: turn}]
        turn:
          - to: again
            conditions:
              match:
                - {expected: true, actual: {'@pipe': [['{turn.output.data.y}', 3], ['{@conditional.less_than}']]}}

    - subscribes: part
      expire: 36000
      activities:
        begin: {type: trigger}
        piece:
          type: worker
          topic: part
          input: {maps: {x: '{begin.output.data.x}'}}
          job: {maps: {y: '{$self.output.data.y}'}}
      transitions:
        begin: [{to: piece}]
"""


def expected(x: int) -> dict[str, Any]:
    """The data of a job on `order` that ran undisturbed; `applied` counts every result that went into it."""
    return {
        "first": x + 1,
        "left": x + 2,
        "right": x + 2,
        "last": x + 3,
        "part": x + 2,
        "napped": True,
        "turns": TURNS,
        "applied": 6 + TURNS,
    }


RECORDS = {
    "first": 1,
    "left": 1,
    "right": 1,
    "last": 1,
    "child": 1,
    "nap": 1,
    "awake": 1,
    "pass": 3,
    "turn": 3,
    "again": 2,
}
"""Passes of each activity of a job on `order`; its child has one of `piece`."""


async def main(order: dict[str, Any]) -> None:
    """`member`, `url`, `ledger`; `engine`, `worker`: what it is; `publish`: [first, step, count, per second] or null."""
    ledger = Ledger(order["ledger"])
    member = order["member"]

    async def work(message: StreamData) -> dict[str, Any]:
        await run_a_while(ledger, member, message)
        return {"y": message.data["x"] + 1}

    workers = [Worker(topic, work, max_concurrency=20) for topic in TOPICS] if order["worker"] else []
    starting = HotMesh.init(
        app_id=APP,
        connection=order["url"],
        guid=member,
        name=member,
        engine=order["engine"],
        workers=workers,
        lease=LEASE,
        settings={"poison_threshold": 100, "connect_timeout": 60},
    )
    mesh = await joined(starting, ledger, member)
    ledger.append(what="up", member=member)
    if order.get("publish"):
        await publish(mesh, ledger, member, *order["publish"])
    await asyncio.get_running_loop().create_future()


async def run_a_while(ledger: Ledger, member: str, message: StreamData) -> None:
    """What every callback does: leave a line, and run so long that a kill finds many of them running."""
    key = message.metadata
    ledger.append(
        what="run",
        member=member,
        app=key.app,
        job=key.jid,
        gid=key.gid,
        activity=key.aid,
        address=key.dad,
        topic=key.topic,
    )
    await asyncio.sleep(random.uniform(0.01, 0.2))


async def joined(starting: Awaitable[HotMesh], ledger: Ledger, member: str) -> HotMesh:
    """The instance, as soon as there is a database: whoever starts processes starts them again; here they do it themselves."""
    while True:
        try:
            return await starting
        except DatabaseError as error:
            ledger.append(what="not up", member=member, error=str(error))
            await asyncio.sleep(0.1)


async def publish(
    mesh: HotMesh, ledger: Ledger, member: str, first: int, step: int, count: int, rate: float
) -> None:
    """Create jobs order-<n>, n from `first` in steps. One that a dead predecessor has created already is passed over."""
    for number in range(first, count, step):
        while True:
            try:
                await mesh.pub("order", {"x": number}, extended={"id": f"order-{number}"})
            except DuplicateJobError:
                break
            except HotMeshError as error:
                ledger.append(what="pub failed", member=member, job=f"order-{number}", error=str(error))
                await asyncio.sleep(0.1)
                continue
            await asyncio.sleep(1 / rate)
            break


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
