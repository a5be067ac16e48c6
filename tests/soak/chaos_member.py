"""One process of the chaos: `python chaos_member.py '<order as JSON>'`. It has an instance in each app, and serves until SIGTERM.

What its callbacks do in the world is one appended line each, in a file outside the database.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from contextlib import AsyncExitStack
from typing import Any

from member import LEASE, TURNS, joined, publish, run_a_while
from member import expected as expected_of_a_drill

from hotmesh import HotMesh, StreamData, Worker
from hotmesh.runtime.startup import Starting
from ledger import Ledger

APPS = ("north", "south")

TOPICS = ("first", "left", "right", "last", "part", "turn", "flaky")

COUNTED = "applied: {'@pipe': [['{$job.data.applied}', 1], ['{@math.add}']]}"

GRAPHS = """
app:
  id: APP
  version: 'VERSION'
  graphs:
    # A worker, then side by side: two workers that meet, a child, a sleeper that ends with stopping another job, a cycle,
    # a worker that fails at first, and a wait for the signal that a child sends.
    - subscribes: order
      publishes: order.done
      expire: 36000
      hooks:
        go:
          - to: wait
            conditions:
              match:
                - {expected: '{$job.metadata.jid}', actual: '{$self.hook.data.id}'}
      activities:
        start: {type: trigger, job: {maps: {applied: 0}}}
        first: {type: worker, topic: first, input: {maps: {x: '{start.output.data.x}'}}, job: {maps: {first: '{$self.output.data.y}', COUNTED}}}
        left: {type: worker, topic: left, input: {maps: {x: '{first.output.data.y}'}}, job: {maps: {left: '{$self.output.data.y}', COUNTED}}}
        right: {type: worker, topic: right, input: {maps: {x: '{first.output.data.y}'}}, job: {maps: {right: '{$self.output.data.y}', COUNTED}}}
        last: {type: worker, join: all, topic: last, input: {maps: {x: '{left.output.data.y}'}}, job: {maps: {last: '{$self.output.data.y}', COUNTED}}}
        child: {type: await, topic: part, input: {maps: {x: '{first.output.data.y}'}}, job: {maps: {part: '{$self.output.data.y}', COUNTED}}}
        victim: {type: await, await: false, topic: doomed, input: {maps: {of: '{$job.metadata.jid}'}}}
        nap: {type: hook, sleep: 0.5, job: {maps: {napped: true}}}
        stop: {type: interrupt, topic: doomed, throw: false, descend: true, target: {'@pipe': [['doomed-', '{$job.metadata.jid}'], ['{@string.concat}']]}}
        pass: {type: hook, output: {maps: {n: 0}}}
        turn: {type: worker, topic: turn, input: {maps: {x: '{pass.output.data.n}'}}, job: {maps: {turns: '{$self.output.data.y}', COUNTED}}}
        again: {type: cycle, ancestor: pass, input: {maps: {n: '{turn.output.data.y}'}}}
        flaky: {type: worker, topic: flaky, retry_policy: {maximum_attempts: 50, initial_interval: 0.05, backoff_coefficient: 1, maximum_interval: 1}, input: {maps: {x: '{first.output.data.y}'}}, job: {maps: {flaky: '{$self.output.data.y}', COUNTED}}}
        wait: {type: hook, hook: {type: object}, job: {maps: {signalled: '{$self.hook.data.word}', COUNTED}}}
        caller: {type: await, topic: call, input: {maps: {id: '{$job.metadata.jid}'}}, job: {maps: {called: '{$self.output.data.done}', COUNTED}}}
      transitions:
        start: [{to: first}]
        first: [{to: left}, {to: right}, {to: child}, {to: victim}, {to: pass}, {to: flaky}, {to: wait}, {to: caller}]
        left: [{to: last}]
        right: [{to: last}]
        victim: [{to: nap}]
        nap: [{to: stop}]
        pass: [{to: turn}]
        turn:
          - to: again
            conditions: {match: [{expected: true, actual: {'@pipe': [['{turn.output.data.y}', 3], ['{@conditional.less_than}']]}}]}

    - subscribes: part
      expire: 36000
      activities:
        begin: {type: trigger}
        piece: {type: worker, topic: part, input: {maps: {x: '{begin.output.data.x}'}}, job: {maps: {y: '{$self.output.data.y}'}}}
      transitions: {begin: [{to: piece}]}

    - subscribes: call
      expire: 36000
      activities:
        begun: {type: trigger}
        tell: {type: signal, subtype: one, topic: go, signal: {maps: {id: '{begun.output.data.id}', word: now}}, job: {maps: {done: true}}}
      transitions: {begun: [{to: tell}]}

    - subscribes: doomed
      expire: 36000
      activities:
        born: {type: trigger, stats: {id: {'@pipe': [['doomed-', '{$self.input.data.of}'], ['{@string.concat}']]}}}
        sleep: {type: hook, sleep: 36000}
      transitions: {born: [{to: sleep}]}
""".replace("COUNTED", COUNTED)


def graphs(app: str, version: str) -> str:
    """The graphs of an app; the versions differ in their names alone."""
    return GRAPHS.replace("APP", app).replace("VERSION", version)


def expected(x: int) -> dict[str, Any]:
    """The data of a job on `order` that ran undisturbed; `applied` counts every result that went into it."""
    return expected_of_a_drill(x) | {
        "flaky": x + 2,
        "signalled": "now",
        "called": True,
        "applied": 9 + TURNS,  # the maps of a hook run when it begins to wait, and again when it is signalled
    }


RECORDS = {
    "first": 1, "left": 1, "right": 1, "last": 1, "child": 1, "victim": 1, "nap": 1, "stop": 1, "pass": TURNS,
    "turn": TURNS, "again": TURNS - 1, "flaky": 1, "wait": 1, "caller": 1,
}  # fmt: skip
"""Passes of each activity of a job on `order`."""

CALLBACKS = 5 + TURNS + 1
"""Different messages that reach callbacks for each order: its own, and its child's."""


async def main(order: dict[str, Any]) -> None:
    """`member`, `url`, `ledger`; `engine`, `worker`: what it is; `publish`: [first, step, count, per second] or null."""
    ledger, member = Ledger(order["ledger"]), order["member"]
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)

    async def work(message: StreamData) -> dict[str, Any]:
        await run_a_while(ledger, member, message)
        if message.metadata.topic == "flaky" and not message.metadata.get("try"):
            raise RuntimeError("the first time always fails")
        return {"y": message.data["x"] + 1}

    async with AsyncExitStack() as stack:
        meshes = []
        for app in APPS:
            workers = [Worker(topic, work, max_concurrency=20) for topic in TOPICS] if order["worker"] else []
            mesh = await joined(instance(app, order, workers), ledger, member)
            meshes.append(await stack.enter_async_context(mesh))
        ledger.append(what="up", member=member)
        if order.get("publish"):
            publishing = [
                asyncio.ensure_future(publish(mesh, ledger, member, *order["publish"])) for mesh in meshes
            ]
            stack.callback(lambda: [task.cancel() for task in publishing])
        await over.wait()
    ledger.append(what="down", member=member)


def instance(app: str, order: dict[str, Any], workers: list[Worker]) -> Starting[HotMesh]:
    return HotMesh.init(
        app,
        connection=order["url"],
        guid=f"{order['member']}-{app}",
        engine=order["engine"],
        workers=workers,
        lease=LEASE,
        settings={"poison_threshold": 1_000, "connect_timeout": 60},
    )


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
