"""Apps and topics that there are not, named to commands: refused or warned of, with what there is."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import pytest
from click.testing import CliRunner, Result

from harness import eventually, one_worker
from hotmesh import HotMesh
from hotmesh.cli import main

COMPUTED = """
    - subscribes: computed
      activities:
        begin: {type: trigger}
        send: {type: worker, topic: '{begin.output.data.to}'}
      transitions:
        begin: [{to: send}]
"""


@pytest.fixture
def shop(database_url: str) -> str:
    asyncio.run(deploy(database_url, "shop"))
    return database_url


async def deploy(url: str, app_id: str, more: str = "") -> None:
    async with HotMesh.init(app_id, connection=url) as mesh:
        await mesh.deploy(one_worker(app_id, "charge", more=more))
        await mesh.activate("1")


def run(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--connection", url])


async def count(url: str, statement: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval(statement))
    finally:
        await connection.close()


@pytest.mark.parametrize(
    "command",
    [
        "jobs",
        "status j",
        "timeline j",
        "explain j",
        "dead-letters list",
        "dead-letters requeue 1",
        "dead-letters discard 1",
        "prune",
        "members",
        "throttle 10",
        "pause",
        "resume",
        "role provision charge",
        "role list",
    ],
)
def test_an_unknown_app_is_refused_and_those_that_there_are_are_named(shop: str, command: str) -> None:
    refused = run(shop, *command.split(), "--app", "shpo")

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "there is no app shpo" in refused.stderr
    assert "shop" in refused.stderr.replace("shpo", "")
    for table in ("throttle", "worker_credential"):
        assert asyncio.run(count(shop, f"select count(*) from hotmesh.{table}")) == 0


@pytest.mark.parametrize(
    "command", ["pause --topic TOPIC", "throttle 10 --topic TOPIC", "dead-letters list --topic TOPIC"]
)
def test_a_topic_that_no_worker_has_is_a_warning(shop: str, command: str) -> None:
    used = run(shop, *command.replace("TOPIC", "charge").split(), "--app", "shop")
    unused = run(shop, *command.replace("TOPIC", "chrage").split(), "--app", "shop")

    assert (used.exit_code, used.stderr) == (0, "")
    assert unused.exit_code == 0
    for fact in ("Warning", "app shop", "chrage", "charge"):
        assert fact in unused.stderr


def test_a_login_for_a_topic_that_nothing_uses_is_a_warning(shop: str) -> None:
    made = run(shop, "role", "provision", "charge", "refnud", "--app", "shop", "--json")

    assert made.exit_code == 0
    assert json.loads(made.stdout)["role_name"]
    assert "refnud" in made.stderr
    assert "topic charge" not in made.stderr
    run(shop, "role", "revoke", json.loads(made.stdout)["role_name"])


def test_jobs_of_a_topic_that_starts_no_graph_are_a_warning(shop: str) -> None:
    assert run(shop, "jobs", "--topic", "one").stderr == ""
    found = run(shop, "jobs", "--topic", "oen")
    assert (found.exit_code, found.stdout) == (0, "no jobs\n")
    assert "oen" in found.stderr
    assert "did you mean one" in found.stderr


def test_where_topics_are_computed_any_may_be_one(database_url: str) -> None:
    asyncio.run(deploy(database_url, "shop", COMPUTED))

    assert run(database_url, "pause", "--app", "shop", "--topic", "anything").stderr == ""


def test_what_is_no_number_of_a_dead_letter_is_said(shop: str) -> None:
    for text in ("abc", "0", "-", "²"):
        refused = run(shop, "dead-letters", "requeue", "--app", "shop", text)
        assert refused.exit_code == 2
        assert f"'{text}' is not a number of a dead letter" in " ".join(refused.stderr.split())


def test_expired_jobs_are_listed_with_all(database_url: str) -> None:
    async def expire() -> None:
        async with HotMesh.init("shop", connection=database_url) as mesh:
            await mesh.deploy(one_worker("shop", "charge").replace("expire: 3600", "expire: 1"))
            await mesh.activate("1")
            await mesh.pub("one", {"x": 1}, extended={"id": "A1"})
            await mesh.interrupt("one", "A1", expire=0.01)
            gone = "select count(*) from hotmesh.job where expires_at < now()"
            await eventually(lambda: count(database_url, gone))

    asyncio.run(expire())
    assert json.loads(run(database_url, "jobs", "--json").stdout) == []
    (listed,) = json.loads(run(database_url, "jobs", "--all", "--json").stdout)
    assert (listed["job_id"], listed["state"], listed["expired"]) == ("A1", "interrupted", True)
    assert "interrupted, expired" in run(database_url, "jobs", "--all").stdout
    for command in (["status", "A1"], ["explain", "A1", "--app", "shop"], ["status", "A1", "--app", "shop"]):
        gone = run(database_url, *command)
        assert gone.exit_code == 1
        for fact in ("A1", "ended", "has expired", "kept 0.01 s"):
            assert fact in gone.stderr
