"""The command as a whole, and the commands that look at a database."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import asyncpg
import click
import pytest
from click.testing import CliRunner, Result

from harness import connected
from hotmesh import HotMesh, Response, StreamData, Worker
from hotmesh.cli import COMMANDS, drawing, main
from hotmesh.cli.common import listing

GRAPH = """
app:
  id: shop
  version: '1'
  graphs:
    - subscribes: order.placed
      expire: 600
      activities:
        placed: {type: trigger, stats: {id: '{$self.input.data.id}'}}
        charge:
          type: worker
          topic: charge
          input: {maps: {amount: '{placed.output.data.amount}'}}
          job: {maps: {receipt: '{$self.output.data.receipt}'}}
        approve: {type: hook, sleep: 3600}
        ship: {type: worker, topic: nobody}
      transitions:
        placed: [{to: charge}]
        charge:
          - {to: approve, conditions: {code: 202}}
          - {to: ship, conditions: {code: 203}}
      hooks:
        approved:
          - to: approve
            conditions:
              match: [{expected: '{$job.metadata.jid}', actual: '{$self.hook.data.id}'}]
"""


async def charge(message: StreamData) -> Response:
    if message.data["amount"] < 0:
        raise ValueError("a negative amount")
    return Response({"receipt": "r1"}, code=message.data["amount"])


@pytest.fixture
def shop(database_url: str) -> str:
    """A database with four jobs of the app `shop`: complete, failed, and two that wait."""

    async def place() -> None:
        async with HotMesh.init("shop", connection=database_url, workers=[Worker("charge", charge)]) as mesh:
            await mesh.deploy(GRAPH)
            await mesh.activate("1")
            await mesh.pubsub("order.placed", {"id": "paid", "amount": 200}, timeout=10)
            with pytest.raises(Exception, match="a negative amount"):
                await mesh.pubsub("order.placed", {"id": "broken", "amount": -1}, timeout=10)
            for job_id, amount in ("waiting", 202), ("queued", 203):
                await mesh.pub("order.placed", {"id": job_id, "amount": amount})
            # A stop waits for what runs, so both have been charged afterwards.

    asyncio.run(place())
    return database_url


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def data(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_help_imports_no_command() -> None:
    code = (
        "import sys; from hotmesh.cli import main; main(['--help'], standalone_mode=False); "
        "print([name for name in sys.modules if name.startswith(('hotmesh.cli.', 'rich'))])"
    )

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert printed.startswith("Usage: ")
    assert printed.endswith("[]\n")


def test_the_list_of_commands_says_what_they_say() -> None:
    context = click.Context(main)
    for name, (_, line) in COMMANDS.items():
        command = main.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert (command.help or "").partition("\n")[0] == line


def test_the_version_is_that_of_the_package() -> None:
    assert run("--version").stdout.endswith(f" {version('hotmesh')}\n")


def test_unknown_commands_are_wrong_usage() -> None:
    result = run("fly")

    assert result.exit_code == 2
    assert "No such command 'fly'" in result.stderr


def test_jobs_lists_the_newest_first_and_filters(shop: str) -> None:
    listed = data("jobs", "--connection", shop)
    assert {job["job_id"]: job["state"] for job in listed} == {
        "paid": "complete",
        "broken": "failed",
        "waiting": "running",
        "queued": "running",
    }
    assert [job["created_at"] for job in listed] == sorted(
        (job["created_at"] for job in listed), reverse=True
    )

    def ids(*options: str) -> set[str]:
        return {job["job_id"] for job in data("jobs", "--connection", shop, *options)}

    assert ids("--state", "failed") == {"broken"}
    assert ids("--topic", "order.placed", "--state", "complete") == {"paid"}
    assert len(ids("--limit", "2")) == 2


def test_jobs_of_any_age_are_listed_the_newest_first(shop: str) -> None:
    async def age() -> None:
        async with connected(shop) as database:
            for job_id, ago in (("paid", "3 years"), ("broken", "5 hours"), ("waiting", "5 minutes")):
                await database.execute(
                    "update hotmesh.job set created_at = now() - $2::text::interval where job_id = $1",
                    job_id,
                    ago,
                )

    asyncio.run(age())
    newest = ["queued", "waiting", "broken", "paid"]

    for limit in range(1, 5):
        listed = data("jobs", "--connection", shop, "--limit", str(limit))
        assert [job["job_id"] for job in listed] == newest[:limit]
    assert [job["job_id"] for job in data("jobs", "--connection", shop, "--state", "complete")] == ["paid"]


def test_jobs_prints_whole_ids(shop: str) -> None:
    printed = run("jobs", "--connection", shop, "--state", "complete").stdout

    assert " paid   order.placed   complete " in printed


def test_lists_are_shortened_for_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    listing().print("x" * 200)
    monkeypatch.setenv("COLUMNS", "100")
    listing().print("x" * 200)

    assert [len(line) for line in capsys.readouterr().out.splitlines()] == [200, 100, 100]


def test_in_a_pipe_nothing_of_a_job_is_shortened_or_broken(
    shop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> None:
        async with connected(shop) as database:
            await database.execute(
                "update hotmesh.worker_stream set attempt = 1, last_error = $1, visible_at = now() - interval '1 minute'",
                "psycopg.errors.ConnectionError: " + "a long way " * 30 + "to the end",
            )

    asyncio.run(fail())
    monkeypatch.delenv("COLUMNS", raising=False)
    (row,) = (
        line for line in run("status", "queued", "--connection", shop).stdout.splitlines() if "nobody" in line
    )
    assert "psycopg.errors.ConnectionError: a long way" in row
    assert "to the end" in row
    assert "due since 1 min" in row or "due since 60" in row
    assert " now " not in row

    monkeypatch.setenv("COLUMNS", "80")
    words = run("status", "queued", "--connection", shop).stdout.split()
    assert {"psycopg.errors.ConnectionError:", "nobody", "work", "ship"} <= set(words)
    assert "…" in "".join(words)


def test_jobs_of_an_empty_namespace(database_url: str) -> None:
    assert run("jobs", "--connection", database_url).stdout == "no jobs\n"


def test_status_shows_data_errors_and_what_a_job_waits_for(shop: str) -> None:
    assert data("status", "paid", "--connection", shop)["data"] == {"receipt": "r1"}
    assert data("status", "broken", "--connection", shop)["error"]["message"] == "a negative amount"

    waiting = data("status", "waiting", "--connection", shop)
    assert [(one["kind"], one["activity_id"]) for one in waiting["open"]] == [
        ("timer", "approve"),
        ("signal", "approve"),
    ]
    queued = data("status", "queued", "--connection", shop)
    assert [(one["kind"], one["detail"]) for one in queued["open"]] == [("work", "nobody")]

    printed = run("status", "waiting", "--connection", shop).stdout
    assert printed.startswith("waiting  running, ")
    assert "in 1 h 0 min" in printed or "in 59 min" in printed
    assert "approved waiting" in " ".join(printed.split())


def test_timeline_draws_what_is_done_and_what_is_open(shop: str) -> None:
    done = data("timeline", "paid", "--connection", shop)["activities"]
    assert [(one["activity_id"], one["state"], one["code"]) for one in done] == [("charge", "closed", 200)]

    lines = run("timeline", "queued", "--connection", shop).stdout.splitlines()
    charged, shipped = (
        next(line for line in lines if line.startswith(f" {name} ")) for name in ("charge", "ship")
    )
    assert "203" in charged
    assert "open" in shipped


def test_a_job_that_is_not_there_is_one_line_on_stderr(shop: str) -> None:
    result = run("status", "nobody", "--connection", shop)

    assert (result.exit_code, result.stderr) == (
        1,
        "Error: Job nobody not found in app shop\n",
    )


def test_a_job_id_of_two_apps_needs_the_app(shop: str) -> None:
    async def place() -> None:
        async with HotMesh.init("shop2", connection=shop, workers=[Worker("charge", charge)]) as mesh:
            await mesh.deploy(GRAPH.replace("id: shop", "id: shop2"))
            await mesh.activate("1")
            await mesh.pubsub("order.placed", {"id": "paid", "amount": 200}, timeout=10)

    asyncio.run(place())
    result = run("status", "paid", "--connection", shop)

    assert (result.exit_code, result.stderr) == (
        1,
        "Error: several apps have a job paid: say which with --app (shop, shop2)\n",
    )
    assert data("status", "paid", "--app", "shop2", "--connection", shop)["app_id"] == "shop2"


def test_migrate_creates_the_tables_once(empty_database_url: str) -> None:
    missing = run("jobs", "--connection", empty_database_url)
    assert missing.exit_code == 1
    assert missing.stderr.endswith("run `hotmesh migrate`\n")
    assert run("migrate", "--verify", "--connection", empty_database_url).exit_code == 1

    first = data("migrate", "--connection", empty_database_url)
    again = data("migrate", "--connection", empty_database_url)

    assert first["applied"]["migrations"][0] == "0001_initial"
    assert again["applied"] == {"migrations": [], "functions": False}
    assert run("migrate", "--verify", "--connection", empty_database_url).exit_code == 0


def test_migrate_prints_what_it_would_run(empty_database_url: str) -> None:
    printed = run("migrate", "--print", "--namespace", "other").stdout
    assert printed.startswith("begin;\n")
    assert 'create table "other".job' in printed

    pending = run("migrate", "--dry-run", "--namespace", "other", "--connection", empty_database_url)
    assert pending.stdout == printed
    assert run("jobs", "--namespace", "other", "--connection", empty_database_url).exit_code == 1


def test_migrate_lets_an_app_run_as_another_role(database_url: str) -> None:
    name = "app_" + database_url.partition("?")[0].rpartition("/")[2]
    grant = ("migrate", "--grant", name, "--connection", database_url)
    app_url = database_url.replace("://hotmesh@", f"://{name}@")
    missing = run(*grant)
    assert missing.exit_code == 1
    assert f"role {name} does not exist: create it first" in missing.stderr
    assert run("migrate", "--grant", "public", "--connection", database_url).exit_code == 1

    async def owner(statement: str) -> None:
        connection = await asyncpg.connect(database_url)
        await connection.execute(statement)
        await connection.close()

    asyncio.run(owner(f"create role {name} login"))
    try:
        refused = run("jobs", "--connection", app_url)
        assert "hotmesh migrate --grant" in refused.stderr
        printed = run("migrate", "--dry-run", "--grant", name, "--connection", database_url).stdout
        assert printed == f"begin;\nselect \"hotmesh\".grant_app('{name}');\ncommit;\n"

        assert data(*grant)["granted"] == [name]
        assert run(*grant).stdout == f"hotmesh was up to date\nhotmesh: an app may run as {name}\n"

        assert data("jobs", "--connection", app_url) == []
        assert run("migrate", "--verify", "--connection", app_url).exit_code == 0
        assert run("migrate", "--connection", app_url).stdout == "hotmesh was up to date\n"
        assert run("migrate", "--grant", name, "--connection", app_url).exit_code == 1
    finally:
        asyncio.run(owner(f"drop owned by {name}; drop role {name}"))


def test_migrate_has_one_task_at_a_time() -> None:
    result = run("migrate", "--print", "--verify")

    assert result.exit_code == 2
    assert "--print, --dry-run and --verify exclude each other" in result.stderr
    assert "--verify grants nothing" in run("migrate", "--verify", "--grant", "app").stderr


def test_a_namespace_is_a_plain_name() -> None:
    assert run("jobs", "--namespace", "a b").exit_code == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0004, "0.4 ms"), (0.0123, "12 ms"), (3.2, "3.20 s"), (250, "4 min 10 s"), (7_500, "2 h 5 min")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert drawing.duration(seconds) == text
