"""`hotmesh dead-letters` and `hotmesh prune`."""

from __future__ import annotations

import asyncio
import json

import pytest
from click.testing import CliRunner, Result

from harness import connected, eventually, one_worker
from hotmesh import HotMesh, StreamData, Worker
from hotmesh.cli import main


async def answer(message: StreamData) -> dict[str, int]:
    return {"y": message.data["x"]}


def run(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(
        main, [*arguments, "--app", "shop", "--connection", url], env={"COLUMNS": "120"}
    )


@pytest.fixture
def given_up(database_url: str) -> str:
    """A database in which the work of three jobs was given up."""

    async def give_up() -> None:
        async with HotMesh.init("shop", connection=database_url) as mesh, connected(database_url) as database:
            await mesh.deploy(one_worker("shop", "w"))
            await mesh.activate("1")
            for number in range(3):
                await mesh.pub("one", {"x": number})
            await database.execute("update hotmesh.worker_stream set delivery = 99")
            async with HotMesh.init("shop", connection=database_url, workers=[Worker("w", answer)]):

                async def all_of_them() -> bool:
                    count = "select count(*) from hotmesh.dead_letter"
                    ended = "select count(*) from hotmesh.job where status = 0"
                    return [await database.fetchval(count), await database.fetchval(ended)] == [3, 3]

                await eventually(all_of_them)

    asyncio.run(give_up())
    return database_url


def test_dead_letters_are_listed_requeued_and_discarded(given_up: str) -> None:
    listed = json.loads(run(given_up, "dead-letters", "list", "--json").stdout)
    one, two, three = (letter["id"] for letter in listed)
    assert {(letter["topic"], letter["stream"]) for letter in listed} == {("w", "worker")}
    shown = run(given_up, "dead-letters", "list", "--topic", "w", "--limit", "2").stdout
    assert listed[0]["job_id"] in shown
    assert "Poison message" in shown
    assert run(given_up, "dead-letters", "list", "--job", "nobody").stdout == "no dead letters\n"

    requeued = run(given_up, "dead-letters", "requeue", str(one), str(two))
    assert (requeued.exit_code, requeued.stdout) == (0, f"requeued {one}\nrequeued {two}\n")
    discarded = run(given_up, "dead-letters", "discard", str(three))
    assert (discarded.exit_code, discarded.stdout) == (0, f"discarded {three}\n")
    assert json.loads(run(given_up, "dead-letters", "list", "--json").stdout) == []

    async def both_run() -> None:
        async with (
            HotMesh.init("shop", connection=given_up, workers=[Worker("w", answer)]) as mesh,
        ):
            for letter in listed[:2]:
                job_id = letter["job_id"]

                async def complete(job_id: str = job_id) -> bool:
                    return "y" in (await mesh.get_state("one", job_id)).data

                await eventually(complete)

    asyncio.run(both_run())


@pytest.mark.parametrize("command", ["requeue", "discard"])
def test_a_dead_letter_that_is_gone_is_named(given_up: str, command: str) -> None:
    result = run(given_up, "dead-letters", command, "4711")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "there is no dead letter 4711" in result.stderr


def test_prune_says_what_it_has_deleted(given_up: str) -> None:
    kept = run(given_up, "prune", "--expire", "1 hour")
    assert (kept.exit_code, kept.stdout) == (0, "nothing to delete\n")

    gone = run(given_up, "prune", "--expire", "0", "--no-jobs")
    assert (gone.exit_code, gone.stdout) == (0, "deleted 3 dead letters of workers\n")

    stripped = run(given_up, "prune", "--attributes", "--json")
    assert json.loads(stripped.stdout)["marked"] == 3

    refused = run(given_up, "prune", "--expire", "soon")
    assert refused.exit_code == 1
    assert "expire 'soon' is not a duration" in refused.stderr
