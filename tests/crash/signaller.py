"""Sends signals until it is killed: `python signaller.py '<order as JSON>'`; a line in a file for each that was answered."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from hotmesh import HotMesh

APP = "signalled"

FLOW = """
app:
  id: signalled
  version: '1'
  graphs:
    - subscribes: s
      expire: 3600
      activities:
        t: {type: trigger, job: {maps: {count: 0}}}
        h: {type: hook, job: {maps: {count: {'@pipe': [['{$job.data.count}', 1], ['{@math.add}']]}}}}
      transitions:
        t: [{to: h}]
      hooks:
        go:
          - to: h
            conditions: {match: [{expected: '{$job.metadata.jid}', actual: '{$self.hook.data.id}'}]}
"""


async def main() -> None:
    order = json.loads(sys.argv[1])
    said = os.open(order["answered"], os.O_WRONLY | os.O_APPEND)

    async def keep_signalling(mesh: HotMesh, job_id: str) -> None:
        while True:
            outcome = await mesh.signal("go", {"id": job_id}, "pending", 202)
            os.write(said, f"{job_id} {outcome}\n".encode())

    async with HotMesh.init(APP, connection=order["url"]) as mesh, asyncio.TaskGroup() as callers:
        for job_id in order["jobs"]:
            callers.create_task(keep_signalling(mesh, job_id))


if __name__ == "__main__":
    asyncio.run(main())
