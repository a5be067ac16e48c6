"""`hotmesh explain`."""

from __future__ import annotations

import asyncio
import json

from click.testing import CliRunner, Result

from hotmesh import HotMesh
from hotmesh.cli import main

GRAPH = """
app:
  id: shop
  version: '1'
  graphs:
    - subscribes: order
      activities:
        placed: {type: trigger}
        charge: {type: worker, topic: payments}
      transitions:
        placed: [{to: charge}]
"""


def explain(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["explain", *arguments, "--app", "shop", "--connection", url])


def test_a_stuck_job_is_explained(database_url: str) -> None:
    async def start() -> None:
        async with HotMesh.init(app_id="shop", connection=database_url) as mesh:
            await mesh.deploy(GRAPH)
            await mesh.activate("1")
            await mesh.pub("order", {}, extended={"id": "A1"})

    asyncio.run(start())
    for_people = explain(database_url, "A1")
    for_programs = explain(database_url, "A1", "--json")
    unknown = explain(database_url, "nope")

    assert for_people.exit_code == for_programs.exit_code == 0
    assert "worker charge at 0/0 waits for" in for_people.stdout
    assert "start a worker on topic payments" in for_people.stdout
    found = json.loads(for_programs.stdout)
    assert (found["job_id"], found["unblock"]) == ("A1", ["start a worker on topic payments"])
    assert (unknown.exit_code, unknown.stderr) == (
        1,
        "Error: Job nope not found in app shop\n",
    )
