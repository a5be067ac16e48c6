"""`hotmesh doctor`: each finding by facts alone, then on a real database, as an app's login."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import click
import pytest
from click.testing import CliRunner, Result

from harness import app_login, connected, eventually, one_worker
from hotmesh import HotMesh, Worker
from hotmesh.cli import main
from hotmesh.observe.doctor.facts import (
    AppState,
    Facts,
    Holder,
    ParkedJob,
    Server,
    Snapshot,
    StuckJob,
    TableState,
    TopicState,
)
from hotmesh.observe.doctor.findings import Finding, examine, exit_code
from hotmesh.observe.doctor.reading import _difference, read
from hotmesh.observe.observer import observing
from hotmesh.postgres import local

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
SOURCE = Path(__file__).parents[2] / "src" / "hotmesh" / "observe" / "doctor" / "findings.py"
MB = 2**20


def held(kind: str = "session", *, seconds: float | None = 90.0, transactions: int = 10) -> Facts:
    return Facts(
        snapshots=(Snapshot(kind, "77", "ann", "psql", "idle in transaction", seconds, transactions),)
    )


def server(**given: Any) -> Facts:
    return Facts(server=Server(**given))


def table(**given: Any) -> Facts:
    return Facts(tables=(TableState(**{"name": "job", "live": 10, "dead": 0, "bytes": 8192, **given}),))


def app(**given: Any) -> Facts:
    return Facts(apps=(AppState("shop", **given),))


@pytest.mark.parametrize(
    ("facts", "code", "severity", "words"),
    [
        (server(version_number=130011, version="13.11"), "old-postgres", "error", "13.11 is older than 14"),
        (Facts(schema_problem="schema hotmesh lacks 0002_x"), "schema", "error", "lacks 0002_x"),
        (Facts(missing_rights=("insert on job",)), "missing-grants", "error", "lacks insert on job"),
        (Facts(denied=("doctor_app",)), "not-examined", "warning", "doctor_app"),
        (held(), "held-snapshot", "warning", "session 77 of ann (psql), idle in transaction holds a snapshot for 90 s"),
        (held(seconds=1800), "held-snapshot", "error", "for 30 min"),
        (held(seconds=None, transactions=60_000), "held-snapshot", "warning", "60,000 transactions old"),
        (held(seconds=None, transactions=2_000_000), "held-snapshot", "error", "2,000,000"),
        (held("prepared transaction"), "held-snapshot", "warning", "prepared transaction 77"),
        (held("replication slot", seconds=None, transactions=10**6), "held-snapshot", "error", "replication slot"),
        (held("standby", seconds=None, transactions=10**6), "held-snapshot", "error", "standby"),
        (server(autovacuum=False), "autovacuum-off", "error", "autovacuum"),
        (table(never_vacuumed=True), "autovacuum-off", "error", "off for table job"),
        (table(dead=200_000, live=50_000), "autovacuum-behind", "warning", "200,000 dead rows beside 50,000; vacuumed never"),
        (table(bytes=900 * MB, live=100), "bloat", "warning", "900 MB for 100 rows"),
        (server(clock_difference=3.0), "clock-difference", "warning", "3.0 s ahead"),
        (server(clock_difference=-40.0), "clock-difference", "error", "40.0 s behind"),
        (server(connections=80), "connection-budget", "warning", "80 of 100 connections of the server"),
        (server(connections=96), "connection-budget", "error", "96 of 100"),
        (server(role_limit=10, role_connections=9), "connection-budget", "warning", "9 of 10 connections of role"),
        (server(database_limit=10, database_connections=10), "connection-budget", "error", "of database"),
        (app(active_version=None), "nothing-active", "warning", "no version is active"),
        (app(engines=0, has_open_jobs=True), "no-engine", "error", "none of them goes on"),
        (app(due_events=5, oldest_event=40), "events-behind", "warning", "5 events wait for 1 engine, the oldest for 40 s"),
        (app(due_events=1, oldest_event=40, engines=2), "events-behind", "warning", "1 event waits for 2 engines"),
        (app(due_events=5, oldest_event=400), "events-behind", "error", "7 min"),
        (app(topics=(TopicState("pay", 3, 0, 20),)), "no-worker", "warning", "3 pieces of work of topic pay"),
        (app(topics=(TopicState("pay", 1, 0, 20),)), "no-worker", "warning", "1 piece of work of topic pay waits"),
        (app(topics=(TopicState("pay", 3, 0, 999),)), "no-worker", "error", "17 min"),
        (app(holders=(Holder("w-1", 2, 25, False),)), "dead-member", "warning", "w-1 is gone"),
        (app(holders=(Holder("w-1", 1, 25, False),)), "dead-member", "warning", "holds 1 piece of work for 25 s"),
        (app(stuck=(StuckJob("j1", "a", 99),)), "stuck-job", "error", "1 job runs, and nothing is waiting that could let it go on"),
        (app(parked=(ParkedJob("j1", "order"),)), "parked", "error", "1 workflow is parked, because of its code: j1"),
        (app(dead_letters=1), "dead-letters", "warning", "1 dead letter: "),
        (app(dead_letters=100_000), "dead-letters", "warning", "100,000 or more dead letters"),
        (app(dead_letters=2), "dead-letters", "warning", "2 dead letters"),
        (app(paused=("workers of pay",)), "paused", "warning", "workers of pay are paused"),
        (app(expired_jobs=20_000), "retention-off", "warning", "20,000 jobs are over"),
        (app(expired_jobs=20_000, retention_late=7200), "retention-off", "warning", "nobody deletes them"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found(facts: Facts, code: str, severity: str, words: str) -> None:
    (found,) = examine(facts)

    assert (found.code, found.severity) == (code, severity)
    assert words in found.what
    assert found.todo


@pytest.mark.parametrize(
    "facts",
    [
        Facts(),
        app(engines=0),
        held(seconds=20),
        held(seconds=None, transactions=900),
        table(dead=90_000),
        table(bytes=900 * MB, live=1_000_000),
        server(clock_difference=0.4),
        server(connections=70),
        app(has_open_jobs=True, due_events=50, oldest_event=2),
        app(topics=(TopicState("pay", 3, 1, 20), TopicState("ship", 3, 0, 2))),
        app(holders=(Holder("w-1", 2, 25, True),)),
        app(expired_jobs=20_000, retention_late=-30),
        app(expired_jobs=500),
    ],
)
def test_what_is_in_order_is_not_spoken_of(facts: Facts) -> None:
    assert examine(facts) == []


COMMANDS = (
    Facts(schema_problem="schema hotmesh lacks 0002_x"),
    Facts(missing_rights=("insert on job",), server=Server(role="a b")),
    app(dead_letters=2),
    app(paused=("workers of pay it",)),
    app(paused=("engines",)),
    app(expired_jobs=20_000),
    app(stuck=(StuckJob("j 1", "a", 99),)),
    app(parked=(ParkedJob("j 1", "order"),)),
    app(topics=(TopicState("pay", 3, 0, 20),)),
    app(due_events=5, oldest_event=40),
)


@pytest.mark.parametrize("facts", COMMANDS)
def test_every_command_that_is_recommended_is_one(facts: Facts) -> None:
    (found,) = examine(facts)
    commands = re.findall(r"`hotmesh ([^`]+)`", found.todo)

    assert commands
    assert "hotmesh " not in re.sub(r"`hotmesh [^`]+`", "", found.todo)
    for command in commands:
        parsed: click.Command = main
        context = click.Context(main)
        rest = shlex.split(command)
        while isinstance(parsed, click.Group):
            _, known, rest = parsed.resolve_command(context, rest)
            assert known is not None
            parsed = known
            context = click.Context(parsed, parent=context)
        parsed.parse_args(context, rest)  # raises UsageError for what it does not take


def test_all_that_recommends_a_command_is_looked_at() -> None:
    recommended = set(
        re.findall(r"`hotmesh (\w[\w-]*)", SOURCE.read_text(encoding="utf-8").partition("def examine")[2])
    )
    looked_at = {
        word
        for facts in COMMANDS
        for found in examine(facts)
        for word in re.findall(r"`hotmesh ([\w-]+)", found.todo)
    }

    assert recommended == looked_at


def test_a_paused_topic_is_not_said_to_lack_workers() -> None:
    found = examine(app(paused=("workers of pay",), topics=(TopicState("pay", 3, 0, 999),)))

    assert [one.code for one in found] == ["paused"]


def test_sessions_that_are_not_shown_in_full_are_spoken_of() -> None:
    facts = Facts(
        server=Server(sees_all=False, role="app"), snapshots=held(seconds=None, transactions=6_000).snapshots
    )
    passing = Facts(server=facts.server, snapshots=held(seconds=None, transactions=40).snapshots)

    assert [one.code for one in examine(facts)] == ["hidden-sessions"]
    assert examine(passing) == []


def test_errors_come_first_and_make_the_exit_code() -> None:
    found = examine(app(dead_letters=1, stuck=(StuckJob("j1", "a", 99),)))

    assert [one.severity for one in found] == ["error", "warning"]
    assert [exit_code([]), exit_code(found[1:]), exit_code(found)] == [0, 1, 2]


def test_the_clock_difference_is_what_the_question_did_not_take() -> None:
    before = datetime(2026, 1, 1, tzinfo=UTC)
    after = before + timedelta(seconds=1)
    found = [_difference(before + timedelta(seconds=s), before, after) for s in (-2, 0.5, 4)]

    assert found == [-2, 0, 3]


def test_every_finding_is_on_the_page_and_no_other() -> None:
    codes = set(re.findall(r'Finding\(\s*"([a-z-]+)"', SOURCE.read_text(encoding="utf-8"))) | {
        "no-connection"
    }

    assert set(re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE)) == codes


# -- on a database -------------------------------------------------------------------------------------------


def doctor(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["doctor", "--connection", url, *arguments])


async def findings(url: str) -> dict[str, Finding]:
    async with observing(url, "hotmesh") as observer:
        return {one.code: one for one in examine(await read(observer, "hotmesh"))}


@asynccontextmanager
async def started(url: str, **options: Any) -> AsyncIterator[HotMesh]:
    async with HotMesh.init("shop", connection=url, **options) as mesh:
        await mesh.deploy(one_worker("shop"))
        await mesh.activate("1")
        yield mesh


@pytest.mark.anyio
async def test_a_mesh_that_is_well_has_nothing(database_url: str) -> None:
    async with started(database_url):
        assert await findings(database_url) == {}


@pytest.mark.anyio
async def test_a_mesh_without_engine_and_with_work_that_nobody_takes(database_url: str) -> None:
    async with started(database_url) as mesh:
        await mesh.pub("one", {})
    async with connected(database_url) as owner:
        await owner.execute(
            "update hotmesh.worker_stream set visible_at = now() - interval '1 hour', reserved_by = null"
        )
    found = await findings(database_url)

    assert found["no-engine"].severity == "error"
    assert "topic w wait" in found["no-worker"].what


@pytest.mark.anyio
async def test_a_holder_that_is_gone_a_stuck_job_a_pause_and_an_old_snapshot(database_url: str) -> None:
    async with (
        started(database_url) as mesh,
        connected(database_url) as owner,
        connected(database_url) as holder,
    ):
        await mesh.pub("one", {}, extended={"id": "held"})
        await mesh.pub("one", {}, extended={"id": "stuck"})
        await mesh.pause(topic="w")
        await owner.execute(
            "update hotmesh.worker_stream set visible_at = now() + interval '1 minute', reserved_by = 'nobody' "
            "where job_id = 'held'; delete from hotmesh.worker_stream where job_id = 'stuck'; "
            "update hotmesh.job set updated_at = now() - interval '1 hour' where job_id = 'stuck'"
        )
        await holder.execute("begin isolation level repeatable read; select count(*) from hotmesh.job")
        async with observing(database_url, "hotmesh") as observer:
            facts = await read(observer, "hotmesh")
        found = {one.code: one for one in examine(facts)}

    assert "member nobody is gone" in found["dead-member"].what
    assert "stuck" in found["stuck-job"].what
    assert "workers of w are paused" in found["paused"].what
    assert any(one.kind == "session" and one.seconds is not None for one in facts.snapshots)
    assert facts.apps[0].engines == 1


@pytest.mark.anyio
async def test_a_live_holder_is_there(database_url: str) -> None:
    begun, release = anyio.Event(), anyio.Event()

    async def work(_: Any) -> None:
        begun.set()
        await release.wait()

    async with started(database_url, workers=[Worker("w", work)]) as mesh:
        await mesh.pub("one", {})
        await begun.wait()
        async with observing(database_url, "hotmesh") as observer:
            facts = await read(observer, "hotmesh")
        release.set()

    (holder,) = facts.apps[0].holders
    assert (holder.member, holder.is_there) == (mesh.guid_, True)


def test_the_login_of_an_app_can_ask_everything(database_url: str) -> None:
    async def prepare() -> None:
        async with started(database_url):
            pass

    asyncio.run(prepare())
    with app_login(database_url) as url:
        result = doctor(url, "--json")
        told = json.loads(result.stdout)

        assert told["findings"] == []
        assert (result.exit_code, told["exit_code"], told["apps"]) == (0, 0, ["shop"])


def test_missing_grants_are_named(database_url: str) -> None:
    async def prepare() -> None:
        async with started(database_url):
            pass

    async def take_away(url: str) -> None:
        async with connected(database_url) as owner:
            role = url.partition("://")[2].partition("@")[0]
            await owner.execute(f"revoke insert on hotmesh.job from {role}")

    asyncio.run(prepare())
    with app_login(database_url) as url:
        asyncio.run(take_away(url))
        result = doctor(url)

    assert result.exit_code == 2
    assert "lacks insert on job" in result.stdout
    assert "hotmesh migrate --grant app_" in result.stdout


def test_without_tables_and_without_a_database(empty_database_url: str) -> None:
    empty = doctor(empty_database_url)
    nothing = doctor("postgresql://x@127.0.0.1:1/y")

    assert (empty.exit_code, nothing.exit_code) == (2, 2)
    assert "error schema: there are no hotmesh tables in namespace hotmesh" in empty.stdout
    assert "error no-connection" in nothing.stdout
    assert "release that" not in empty.stdout
    assert empty.stdout.splitlines()[-1] == "1 error, 0 warnings"
    jobs = CliRunner().invoke(main, ["jobs", "--connection", empty_database_url])
    assert "; run `hotmesh migrate`" in jobs.stderr
    assert "namespaces that have" not in jobs.stderr


def test_an_unknown_app_is_refused_with_those_that_there_are(database_url: str) -> None:
    async def prepare() -> None:
        async with started(database_url):
            pass

    asyncio.run(prepare())
    result = doctor(database_url, "--app", "shpo")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "there is no app shpo; did you mean shop?" in result.stderr
    told = doctor(database_url, "--app", "shpo", "--json")
    assert (told.exit_code, told.stderr) == (1, "")
    assert "no app shpo" in json.loads(told.stdout)["error"]


# -- who holds a snapshot --------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_session_that_holds_a_snapshot_is_named_in_full_and_none_of_another_database(
    database_url: str, empty_database_url: str
) -> None:
    async with connected(database_url) as holder, connected(empty_database_url) as elsewhere:
        for one in (holder, elsewhere):
            await one.execute("set application_name = 'report'")
            await one.execute("begin isolation level repeatable read; select 1 from pg_class")
        async with observing(database_url, "hotmesh") as observer:
            facts = await read(observer, "hotmesh")
        pid = str(holder.get_server_pid())
        (found,) = [one for one in facts.snapshots if one.application == "report"]

    assert (found.kind, found.name, found.state) == ("session", pid, "idle in transaction")
    assert found.role
    assert found.seconds is not None
    assert found.asked is not None
    (told,) = examine(Facts(snapshots=(replace(found, seconds=3600.0, asked=600.0),)))
    assert told.what.startswith(
        f"session {pid} of {found.role} (report), idle in transaction holds a snapshot for 60 min, "
    )
    assert "its last statement began 10 min ago" in told.what
    assert told.todo.endswith(f"pg_terminate_backend({pid})")


@pytest.mark.anyio
async def test_prepared_transactions_slots_and_standbys_are_named(scratch: Path) -> None:
    first, second = scratch / "first", scratch / "second"

    async def settings(**given: str) -> str:
        server = await asyncio.to_thread(local.ensure_running, first, sync=False)
        async with connected(server.dsn) as connection:
            for name, value in given.items():
                await connection.execute(f"alter system set {name} = '{value}'")
        await asyncio.to_thread(local.stop, first, "fast")
        return server.dsn

    try:
        url = await settings(max_prepared_transactions="3", wal_level="logical")
        await asyncio.to_thread(copied, first, second)
        primary = await asyncio.to_thread(local.ensure_running, first)
        async with connected(primary.dsn) as connection:
            await connection.execute("select pg_create_physical_replication_slot('copy')")
            await connection.execute("select pg_create_logical_replication_slot('feed', 'test_decoding')")
            await connection.execute("begin; create table orders (id integer); prepare transaction 'left'")
            standby = await asyncio.to_thread(local.ensure_running, second)
            async with connected(standby.dsn) as reader:
                await reader.execute("begin isolation level repeatable read; select 1 from pg_class")
                async with started(url):
                    pass

                async def kinds() -> dict[str, Snapshot] | None:
                    async with observing(url, "hotmesh") as observer:
                        facts = await read(observer, "hotmesh")
                    found = {one.kind: one for one in facts.snapshots}
                    return found if "replication slot" in found else None

                found = await eventually(kinds, what="the feedback of the standby", within=30)
    finally:
        for directory in (second, first):
            await asyncio.to_thread(local.stop, directory, "immediate")

    assert found["prepared transaction"].name == "left"
    assert found["prepared transaction"].seconds is not None
    assert found["replication slot"].name == "copy"
    assert found["logical replication slot"].name == "feed"
    told = {
        one.kind: examine(Facts(snapshots=(replace(one, seconds=None, transactions=10**6),)))[0]
        for one in found.values()
    }
    assert told["prepared transaction"].todo.endswith("rollback prepared 'left'")
    assert told["replication slot"].todo.endswith("pg_drop_replication_slot('copy')")
    assert told["logical replication slot"].todo.endswith("pg_drop_replication_slot('feed')")
    assert "no row of the catalog" in told["logical replication slot"].what


def copied(first: Path, second: Path) -> None:
    """The stopped server, as a standby of it that says what its queries still need."""
    source, target = first / "cluster", second / "cluster"
    owner = source.stat()
    second.mkdir(mode=0o711)
    shutil.copytree(source, target)
    (target / "standby.signal").touch()
    with (target / "postgresql.auto.conf").open("a") as lines:
        lines.write(
            f"primary_conninfo = 'host={first / 'socket'} port=5432 user=hotmesh'\nprimary_slot_name = 'copy'\n"
            "hot_standby_feedback = on\nwal_receiver_status_interval = 1\nwal_retrieve_retry_interval = 200\n"
        )
    for path in (target, *target.rglob("*")):
        shutil.chown(path, owner.st_uid, owner.st_gid)
