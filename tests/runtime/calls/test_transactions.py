"""A job that is started within a transaction of its caller's exists if and only if that commits."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy
from sqlalchemy import orm, pool
from sqlalchemy.ext import asyncio as sqlalchemy_asyncio

from harness import connected, eventually, settled
from hotmesh import (
    AppNotFoundError,
    ConfigError,
    DuplicateJobError,
    HotMesh,
    MappingError,
    NotAuthorizedError,
    PayloadError,
    SchemaError,
    TopicNotFoundError,
    Worker,
)
from hotmesh.postgres import definitions
from interception import database_of, intercept

pytestmark = pytest.mark.anyio

FLOW = """
app:
  id: shop
  version: '{version}'
  graphs:
    - subscribes: order
      publishes: order.done
      expire: 3600
      activities:
        start:
          type: trigger
          entity: order
          stats: {{key: '{{$self.input.data.kind}}', measures: [{{measure: count, target: '{{$self.input.data.kind}}'}}]}}
          job: {{maps: {{version: '{version}'}}}}
        call:
          type: worker
          topic: work
          input: {{maps: {{x: '{{start.output.data.x}}'}}}}
          job: {{maps: {{y: '{{$self.output.data.y}}'}}}}
      transitions:
        start: [{{to: call}}]
    - subscribes: named
      expire: 3600
      activities:
        named_start: {{type: trigger, stats: {{id: '{{$self.input.data.id}}'}}}}
    - subscribes: strict
      activities:
        strict_start:
          type: trigger
          job: {{maps: {{y: {{'@pipe': [['{{$self.input.data.text}}'], ['{{@string.trim}}']]}}}}}}
{more}"""


def flow(version: str = "1", more: str = "") -> str:
    return FLOW.format(version=version, more=more)


async def double(message: Any) -> dict[str, Any]:
    return {"y": message.data["x"] * 2}


@asynccontextmanager
async def shop(url: str, *, workers: bool = True, **options: Any) -> AsyncIterator[HotMesh]:
    serving = [Worker("work", double)] if workers else []
    async with HotMesh.init("shop", connection=url, workers=serving, **options) as mesh:
        await mesh.deploy(flow())
        await mesh.activate("1")
        yield mesh


async def done(mesh: HotMesh, job_id: str, topic: str = "order") -> dict[str, Any]:
    """The data of a job once it is complete."""

    async def complete() -> bool:
        return await mesh.get_status(job_id) == 0

    await eventually(complete, what=f"the end of {job_id}")
    data: dict[str, Any] = (await mesh.get_state(topic, job_id)).data
    return data


async def jobs(url: str) -> list[str]:
    async with connected(url) as connection:
        return [row[0] for row in await connection.fetch("select job_id from hotmesh.job order by 1")]


# -- with every driver -----------------------------------------------------------------------------------

Use = Callable[[Any], Awaitable[None]]
"""What to do with a connection inside of its transaction."""


class Undo(Exception):
    """Makes the transaction roll back."""


async def by_asyncpg(url: str, use: Use) -> None:
    async with connected(url) as connection, connection.transaction():
        await use(connection)


async def by_asyncpg_pool(url: str, use: Use) -> None:
    async with (
        asyncpg.create_pool(url, min_size=1) as pool,
        pool.acquire() as connection,
        connection.transaction(),
    ):
        await use(connection)


async def by_psycopg(url: str, use: Use) -> None:
    with psycopg.connect(url, row_factory=psycopg.rows.dict_row) as connection:
        await use(connection)


async def by_async_psycopg(url: str, use: Use) -> None:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await use(connection)


def _engine(url: str) -> sqlalchemy.Engine:
    return sqlalchemy.create_engine(
        url.replace("postgresql://", "postgresql+psycopg://"), poolclass=pool.NullPool
    )


@asynccontextmanager
async def _async_engine(url: str, driver: str) -> AsyncIterator[sqlalchemy_asyncio.AsyncEngine]:
    engine = sqlalchemy_asyncio.create_async_engine(url.replace("postgresql://", f"postgresql+{driver}://"))
    try:
        yield engine
    finally:
        await engine.dispose()


async def by_sqlalchemy(url: str, use: Use) -> None:
    with _engine(url).begin() as connection:
        await use(connection)


async def by_sqlalchemy_session(url: str, use: Use) -> None:
    with orm.Session(_engine(url)) as session, session.begin():
        await use(session)


async def by_sqlalchemy_asyncpg(url: str, use: Use) -> None:
    async with _async_engine(url, "asyncpg") as engine, engine.begin() as connection:
        await use(connection)


async def by_sqlalchemy_async_psycopg(url: str, use: Use) -> None:
    async with _async_engine(url, "psycopg") as engine, engine.begin() as connection:
        await use(connection)


async def by_sqlalchemy_async_session(url: str, use: Use) -> None:
    async with (
        _async_engine(url, "asyncpg") as engine,
        sqlalchemy_asyncio.AsyncSession(engine) as session,
        session.begin(),
    ):
        await use(session)


DRIVERS = [
    by_asyncpg,
    by_asyncpg_pool,
    by_psycopg,
    by_async_psycopg,
    by_sqlalchemy,
    by_sqlalchemy_session,
    by_sqlalchemy_asyncpg,
    by_sqlalchemy_async_psycopg,
    by_sqlalchemy_async_session,
]


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_job_exists_if_and_only_if_its_caller_commits(database_url: str, driver: Any) -> None:
    async with shop(database_url) as mesh:

        async def use(connection: Any) -> None:
            job_id = await mesh.pub("order", {"x": 4}, extended={"id": "kept"}, connection=connection)
            assert job_id == "kept"
            assert await jobs(database_url) == []

        async def give_up(connection: Any) -> None:
            await mesh.pub("order", {"x": 5}, extended={"id": "undone"}, connection=connection)
            raise Undo

        with pytest.raises(Undo):
            await driver(database_url, give_up)
        await driver(database_url, use)

        assert await done(mesh, "kept") == {"version": "1", "y": 8}
        assert await jobs(database_url) == ["kept"]


@pytest.mark.parametrize("driver", [by_asyncpg, by_psycopg, by_sqlalchemy_async_session])
async def test_a_duplicate_leaves_the_transaction_usable(database_url: str, driver: Any) -> None:
    async with shop(database_url) as mesh:
        await mesh.pub("order", {"x": 1}, extended={"id": "taken"})

        async def use(connection: Any) -> None:
            with pytest.raises(DuplicateJobError) as caught:
                await mesh.pub("order", {"x": 2}, extended={"id": "taken"}, connection=connection)
            assert caught.value.job_id == "taken"
            await mesh.pub("order", {"x": 3}, extended={"id": "free"}, connection=connection)
            with pytest.raises(DuplicateJobError):
                await mesh.pub("order", {"x": 3}, extended={"id": "free"}, connection=connection)

        await driver(database_url, use)

        assert (await done(mesh, "free"))["y"] == 6
        assert (await done(mesh, "taken"))["y"] == 2


async def test_what_is_no_connection_is_named(database_url: str) -> None:
    async with shop(database_url) as mesh:
        for given in (database_url, object()):
            with pytest.raises(ConfigError, match="connection= takes an asyncpg or psycopg connection"):
                await mesh.pub("order", {}, connection=given)
        async with _async_engine(database_url, "asyncpg") as engine, engine.connect() as connection:
            with pytest.raises(ConfigError, match="pass the AsyncSession or AsyncConnection itself"):
                await mesh.pub("order", {}, connection=connection.sync_connection)


async def test_a_connection_to_elsewhere_is_refused(database_url: str, empty_database_url: str) -> None:
    async with shop(database_url) as mesh, connected(empty_database_url) as elsewhere:
        with pytest.raises(SchemaError, match="without the tables of this hotmesh"):
            await mesh.pub("order", {}, connection=elsewhere)


# -- what is refused, before anything is written ------------------------------------------------------------


async def test_what_cannot_start_raises_before_anything_is_written(database_url: str) -> None:
    async with shop(database_url) as mesh, connected(database_url) as connection:
        async with connection.transaction():
            with pytest.raises(TopicNotFoundError):
                await mesh.pub("nowhere", {}, connection=connection)
            with pytest.raises(PayloadError):
                await mesh.pub("order", {"x": float("nan")}, connection=connection)
            with pytest.raises(MappingError):
                await mesh.pub("strict", {"text": 1}, connection=connection)
            assert await connection.fetchval("select count(*) from hotmesh.job") == 0
        async with HotMesh.init("empty", connection=database_url) as empty:
            with pytest.raises(AppNotFoundError):
                await empty.pub("order", {}, connection=connection)


async def test_the_id_of_the_graph_is_known_before_the_commit(database_url: str) -> None:
    async with shop(database_url) as mesh, connected(database_url) as connection:
        async with connection.transaction():
            named = await mesh.pub("named", {"id": "A7"}, extended={"id": "B8"}, connection=connection)
            invented = await mesh.pub("order", {"x": 1}, connection=connection)

        assert named == "A7"
        assert await done(mesh, invented)


# -- who starts it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"readonly": True}, {"engine": False}])
async def test_it_starts_when_an_engine_comes(database_url: str, options: dict[str, Any]) -> None:
    async with shop(database_url):
        pass
    async with (
        HotMesh.init("shop", connection=database_url, **options) as mesh,
        connected(database_url) as connection,
    ):
        async with connection.transaction():
            extended = {"id": "later", "entity": "given", "search": {"sku": 7}, "marker": {"-m": 1}}
            await mesh.pub(
                "order",
                {"x": 2, "kind": "k"},
                {"metadata": {"trc": "t1", "spn": "s1"}},
                extended,
                connection=connection,
            )

        assert await mesh.get_status("later") == 1
        assert (await mesh.get_state("order", "later")).data == {}
        assert (await mesh.export("later"))["status"] == "1"
        assert await mesh.get_query_state("later", ["sku", '"-m"']) == {"sku": "7", "-m": "1"}
        found = await mesh.explain("later")
        assert [reason.text.partition(",")[0] for reason in found.branches[0].reasons] == [
            "an engine to handle its start"
        ]
        assert found.unaccounted == 0
        with pytest.raises(DuplicateJobError):
            async with connection.transaction():
                await mesh.pub("order", {}, extended={"id": "later"}, connection=connection)

        async with shop(database_url) as other:
            assert (await done(other, "later"))["y"] == 4
            assert (await other.get_stats("order", {"data": {"kind": "k"}, "range": "1h", "end": "NOW"}))[
                "count"
            ] == 1
            output = await other.get_state("order", "later")
            assert (output.metadata["trc"], output.metadata["key"]) == ("t1", "k")
            raw = await other.get_raw("later")
            assert (raw["entity"], raw["_sku"], raw["-m"]) == ("given", "7", 1)


async def test_a_job_that_waits_for_its_start_can_be_interrupted_and_scrubbed(database_url: str) -> None:
    async with shop(database_url):
        pass
    async with (
        HotMesh.init("shop", connection=database_url, readonly=True) as mesh,
        connected(database_url) as connection,
    ):
        async with connection.transaction():
            for job_id in ("stopped", "scrubbed"):
                await mesh.pub("order", {"x": 1}, extended={"id": job_id}, connection=connection)
        await mesh.scrub("scrubbed")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(mesh.interrupt("order", "stopped"))
            await eventually(
                lambda: connection.fetchval("select true from hotmesh.engine_stream where kind = 'interrupt'")
            )
            async with shop(database_url, workers=False):
                await settled(connection, "shop")
        assert await mesh.get_status("stopped") < -1
        assert await jobs(database_url) == ["stopped"]


async def test_a_pending_job_waits_for_resume(database_url: str) -> None:
    async with shop(database_url) as mesh, connected(database_url) as connection:
        async with connection.transaction():
            await mesh.pub("order", {"x": 3}, extended={"id": "p", "pending": 60}, connection=connection)

        async def pending() -> bool:
            return await mesh.get_status("p") == -1

        await eventually(pending)
        left = await connection.fetchval("select expires_at - now() from hotmesh.job where job_id = 'p'")
        assert 50 < left.total_seconds() <= 60
        await mesh.resume("p")
        assert (await done(mesh, "p"))["y"] == 6


async def test_a_start_that_fails_after_the_commit_is_a_failed_job(database_url: str) -> None:
    async with shop(database_url) as mesh, connected(database_url) as connection:
        # From SQL, nobody tries the maps before.
        await connection.execute("""select hotmesh.start_job('shop', 'strict', '{"text": 1}', 'bad')""")
        await settled(connection, "shop")

        explained = await mesh.explain("bad")
        assert explained.state == "failed"
        assert "string.trim" in explained.error["message"]
        kept = await connection.fetchval("select expires_at - now() from hotmesh.job where job_id = 'bad'")
        assert kept.total_seconds() > 80_000


# -- versions ------------------------------------------------------------------------------------------------


async def test_a_version_that_is_activated_meanwhile_is_the_one_it_starts_on(database_url: str) -> None:
    async with shop(database_url) as mesh, connected(database_url) as connection:
        async with connection.transaction():
            await mesh.pub("order", {"x": 1}, extended={"id": "between"}, connection=connection)
            await mesh.deploy(flow("2"))
            await mesh.activate("2")

        assert await done(mesh, "between") == {"version": "2", "y": 2}
        assert (await mesh.get_state("order", "between")).metadata["vrs"] == "2"


async def test_a_topic_that_the_next_version_drops_is_still_served_by_the_one_of_the_call(
    database_url: str,
) -> None:
    async with shop(database_url) as mesh, connected(database_url) as connection:
        async with connection.transaction():
            await mesh.pub("order", {"x": 1}, extended={"id": "between"}, connection=connection)
            await mesh.deploy(flow("2").replace("subscribes: order", "subscribes: other"))
            await mesh.activate("2")

        assert await done(mesh, "between") == {"version": "1", "y": 2}


async def test_a_process_that_has_heard_nothing_of_a_version_decides_by_it(database_url: str) -> None:
    async with shop(database_url) as mesh, connected(database_url) as connection:
        await mesh._member.plans.active()
        database = database_of(mesh)
        state = await definitions.app_state(database)

        async def as_before() -> Any:
            return state

        async with shop(database_url, workers=False) as other:
            intercept(database, definitions.app_state, as_before)
            await other.deploy(flow("2").replace("{$self.input.data.id}", "{$self.input.data.number}"))
            await other.activate("2")
            intercept(database, definitions.app_state, None)
            async with connection.transaction():
                found = await mesh.pub("named", {"id": "A", "number": "7"}, connection=connection)
            assert found == "7"


async def test_a_transaction_with_an_older_snapshot_starts_jobs(database_url: str) -> None:
    async with shop(database_url) as mesh, connected(database_url) as connection:
        async with connection.transaction(isolation="repeatable_read"):
            await connection.fetchval("select count(*) from hotmesh.job")
            await mesh.deploy(flow("2"))
            await mesh.activate("2")
            await mesh.pub("order", {"x": 1}, extended={"id": "old"}, connection=connection)

        assert await done(mesh, "old") == {"version": "2", "y": 2}


# -- two at once, and crashes --------------------------------------------------------------------------------


async def test_of_two_transactions_that_want_one_id_the_second_waits_for_the_first(database_url: str) -> None:
    async with (
        shop(database_url) as mesh,
        connected(database_url) as one,
        connected(database_url) as two,
    ):
        for commits in (False, True):
            first = one.transaction()
            await first.start()
            job_id = f"contended-{commits}"
            await mesh.pub("order", {"x": 1}, extended={"id": job_id}, connection=one)
            async with two.transaction():
                second = asyncio.ensure_future(
                    mesh.pub("order", {"x": 2}, extended={"id": job_id}, connection=two)
                )
                await eventually(
                    lambda: one.fetchval("select true from pg_locks where not granted"), what="a wait"
                )
                await (first.commit() if commits else first.rollback())
                if commits:
                    with pytest.raises(DuplicateJobError):
                        await second
                else:
                    await second
            assert (await done(mesh, job_id))["y"] == (2 if commits else 4)


async def test_an_open_transaction_holds_up_nobody_but_who_wants_its_id(database_url: str) -> None:
    async with shop(database_url) as mesh, connected(database_url) as connection:
        for commits in (True, False):
            job_id = f"held-{commits}"
            transaction = connection.transaction()
            await transaction.start()
            await mesh.pub("order", {"x": 1}, extended={"id": job_id}, connection=connection)
            wanted = asyncio.ensure_future(mesh.pub("order", {"x": 2}, extended={"id": job_id}))
            await eventually(
                lambda: mesh._member.engine is not None and mesh._member.engine.starts.waiting_for_id,
                what="a start put off",
            )
            others = [await mesh.pub("order", {"x": number}) for number in range(3)]
            assert [(await done(mesh, other))["y"] for other in others] == [0, 2, 4]
            assert not wanted.done()
            await (transaction.commit() if commits else transaction.rollback())
            if commits:
                with pytest.raises(DuplicateJobError):
                    await wanted
            else:
                assert await wanted == job_id
            assert (await done(mesh, job_id))["y"] == (2 if commits else 4)


async def test_an_expired_job_gives_its_id_free(database_url: str) -> None:
    async with shop(database_url) as mesh, connected(database_url) as connection:
        await mesh.pub("order", {"x": 1}, extended={"id": "again"})
        await done(mesh, "again")
        await connection.execute("update hotmesh.job set expires_at = now() - interval '1 second'")
        async with connection.transaction():
            await mesh.pub("order", {"x": 5}, extended={"id": "again"}, connection=connection)

        assert (await done(mesh, "again"))["y"] == 10


async def test_many_starts_of_one_transaction_and_two_engines_run_once_each(database_url: str) -> None:
    calls: list[int] = []

    async def count(message: Any) -> dict[str, Any]:
        calls.append(message.data["x"])
        return {"y": 0}

    async with (
        HotMesh.init("shop", connection=database_url, workers=[Worker("work", count)]) as mesh,
        HotMesh.init("shop", connection=database_url, workers=[Worker("work", count)]),
        connected(database_url) as connection,
    ):
        await mesh.deploy(flow())
        await mesh.activate("1")
        await connection.execute(
            "select hotmesh.start_job('shop', 'order', jsonb_build_object('x', n)) from generate_series(1, 300) as n"
        )
        await settled(connection, "shop")

    assert sorted(calls) == list(range(1, 301))


CALLER = """
import asyncio, sys
import asyncpg
from hotmesh import HotMesh

async def main():
    async with HotMesh.init("shop", connection=sys.argv[1], engine=False) as mesh:
        connection = await asyncpg.connect(sys.argv[1])
        async with connection.transaction():
            await mesh.pub("order", {"x": 1}, extended={"id": "killed"}, connection=connection)
            print("started", flush=True)
            await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_caller_that_is_killed_before_its_commit_leaves_nothing(database_url: str) -> None:
    async with shop(database_url) as mesh, connected(database_url) as connection:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CALLER, database_url, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"started\n"
        process.send_signal(signal.SIGKILL)
        await process.wait()
        # The id is free as soon as Postgres has noticed, and nothing else is left.
        async with connection.transaction():
            await mesh.pub("order", {"x": 4}, extended={"id": "killed"}, connection=connection)

        assert (await done(mesh, "killed"))["y"] == 8
        assert await jobs(database_url) == ["killed"]


# -- from SQL ------------------------------------------------------------------------------------------------


async def test_a_job_is_started_from_plain_sql(database_url: str) -> None:
    async with shop(database_url) as mesh, connected(database_url) as connection:
        async with connection.transaction():
            await connection.execute("create table orders (id integer primary key)")
            await connection.execute("insert into orders values (7)")
            job_id = await connection.fetchval(
                "select hotmesh.start_job('shop', 'order', jsonb_build_object('x', o.id), job_id => 'order-' || o.id, "
                "search => '{\"sku\": 3}') from orders as o"
            )
        assert job_id == "order-7"
        assert (await done(mesh, job_id))["y"] == 14
        assert await mesh.get_query_state(job_id, ["sku"]) == {"sku": "3"}

        await connection.execute(
            "select hotmesh.start_job('shop', 'order', job_id => 'later', pending => '5000000 years')"
        )

        async def waits() -> bool:
            return await mesh.get_status("later") == -1

        await eventually(waits)

        invented = await connection.fetchval("""select hotmesh.start_job('shop', 'order', '{"x": 1}')""")
        assert len(invented) == 23
        assert (await done(mesh, invented))["y"] == 2


@pytest.mark.parametrize(
    ("call", "sqlstate", "message"),
    [
        ("'shop', 'order', job_id => 'taken'", "MS409", "Duplicate job: taken: a live job has this id"),
        (
            "'shop', 'nowhere'",
            "MS404",
            "for topic nowhere in app shop for app version 1; no graph is started by it, there are: .*order",
        ),
        (
            "'none', 'order'",
            "MS404",
            "no app found for id none: nothing is active under app none.*apps here: .*shop",
        ),
        ("'shop', 'named'", "MS400", "the graph on topic named computes the ids of its jobs"),
        ("'shop', 'order', job_id => ''", "MS400", "a job id is a text of 1 to 512 characters"),
        ("'shop', 'order', search => '[1]'", "MS400", "search is an object"),
        ("'shop', 'order', pending => '-1 s'", "MS400", "pending must not be negative"),
    ],
)
async def test_sql_is_told_what_is_wrong(
    module_database_url: str, call: str, sqlstate: str, message: str
) -> None:
    async with shop(module_database_url, workers=False), connected(module_database_url) as connection:
        await connection.execute(
            "select hotmesh.start_job('shop', 'order', job_id => 'taken') where not exists "
            "(select from hotmesh.job where job_id = 'taken')"
        )
        with pytest.raises(asyncpg.PostgresError, match=message) as caught:
            await connection.execute(f"select hotmesh.start_job({call})")
        assert caught.value.sqlstate == sqlstate


async def test_a_role_needs_a_grant_and_no_table(database_url: str) -> None:
    async with shop(database_url) as mesh, connected(database_url) as connection:
        await connection.execute("create role clerk; grant usage on schema hotmesh to clerk")
        try:
            await connection.execute("set role clerk")
            with pytest.raises(NotAuthorizedError):
                await mesh.pub("order", {"x": 1}, connection=connection)
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute("select hotmesh.start_job('shop', 'order')")
            await connection.execute("reset role")
            await connection.execute("grant execute on function hotmesh.start_job to clerk")
            await connection.execute("grant execute on function hotmesh.try_start_job to clerk")
            await connection.execute("set role clerk")
            await mesh.pub("order", {"x": 1}, extended={"id": "by-clerk"}, connection=connection)
            await connection.execute("""select hotmesh.start_job('shop', 'order', '{"x": 2}', 'by-sql')""")
            assert (await done(mesh, "by-clerk"))["y"] == 2
            assert (await done(mesh, "by-sql"))["y"] == 4
        finally:
            await connection.execute("reset role; drop owned by clerk; drop role clerk")
