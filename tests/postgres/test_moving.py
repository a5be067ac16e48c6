"""A namespace is moved to another server while flows run: none is lost, none counts twice."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import asyncpg
import pytest

from harness import connected, eventually
from hotmesh import HotMesh, StreamData, Worker
from hotmesh.postgres import local
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.local import LocalServer
from hotmesh.postgres.migrate import migrate
from hotmesh.postgres.moving import Move, MoveError
from proxy import proxied

pytestmark = pytest.mark.anyio

GRAPH = """
app:
  id: house
  version: '1'
  graphs:
    - subscribes: work
      expire: 0
      activities:
        t: {type: trigger}
        w: {type: worker, topic: w}
        v: {type: worker, topic: w}
      transitions: {t: [{to: w}], w: [{to: v}]}
    - subscribes: waits
      expire: 3600
      activities:
        t2: {type: trigger, stats: {id: '{$self.input.data.id}'}}
        h2: {type: hook}
      transitions: {t2: [{to: h2}]}
      hooks: {sign: [{to: h2, conditions: {match: [{expected: '{t2.output.data.id}', actual: '{$self.hook.data.id}'}]}}]}
    - subscribes: sleeps
      expire: 3600
      activities:
        t3: {type: trigger}
        h3: {type: hook, sleep: 3}
      transitions: {t3: [{to: h3}]}
"""


@pytest.fixture(scope="module")
def servers(server: LocalServer) -> Iterator[tuple[str, str]]:
    """Two servers of their own, since a server has few workers for replication; from the first one may be replicated."""
    old, new = (
        Path(os.environ["HOTMESH_TEST_DIRECTORY"], f"{name}-place-{os.getpid()}") for name in ("old", "new")
    )
    found = local.ensure_running(old, sync=False)
    anyio.run(_execute, found.dsn, "alter system set wal_level = 'logical'")
    local.stop(old)
    yield local.ensure_running(old, sync=False).dsn, local.ensure_running(new, sync=False).dsn
    for directory in (old, new):
        local.remove(directory)


async def _execute(url: str, statement: str) -> None:
    async with connected(url) as connection:
        await connection.execute(statement)


@pytest.fixture
async def places(servers: tuple[str, str], request: pytest.FixtureRequest) -> tuple[str, str]:
    """A namespace at the first server, and an empty database of the same name at the second: one address finds both."""
    name = f"place_{sha256(request.node.name.encode()).hexdigest()[:12]}"
    urls = []
    for server in servers:
        await _execute(server, f"create database {name}")
        urls.append(urlsplit(server)._replace(path=f"/{name}").geturl())
    old, new = urls
    await migrate(ConnectionSource(old), "hotmesh")
    return old, new


def place(url: str) -> ConnectionSource:
    return ConnectionSource(url, application_name="mover")


async def close(move: Move) -> None:
    async def is_close() -> bool:
        return (await move.progress()).close

    await eventually(is_close)


async def test_a_namespace_is_moved_while_flows_run(places: tuple[str, str]) -> None:
    old_url, new_url = places
    ran: Counter[str] = Counter()
    ended: list[float] = []
    failures: list[BaseException] = []

    async def work(message: StreamData) -> dict[str, Any]:
        ran[f"{message.metadata['jid']} {message.metadata['aid']}"] += 1
        return {}

    move = Move(place(old_url), place(new_url), "hotmesh")
    async with proxied(old_url) as proxy:

        async def switch() -> None:
            proxy.lead_to(new_url)

        async with HotMesh.init("house", connection=proxy.url, workers=[Worker("w", work)]) as mesh:
            await mesh.deploy(GRAPH)
            await mesh.activate("1")
            waits = await mesh.pub("waits", {"id": "one"})
            sleeps = await mesh.pub("sleeps", {})
            moved = anyio.Event()
            async with anyio.create_task_group() as tasks:

                async def call() -> None:
                    while not (moved.is_set() and time.monotonic() > until):
                        try:
                            await mesh.pubsub("work", {}, timeout=60)
                        except Exception as error:  # noqa: BLE001 - is what the test is about
                            failures.append(error)
                            return
                        ended.append(time.monotonic())

                until = float("inf")
                for _ in range(20):
                    tasks.start_soon(call)
                await move.begin(old_url)
                await close(move)
                stop = await move.finish(switch)
                until = time.monotonic() + 1
                moved.set()
            await mesh.signal("sign", {"id": "one"})

            async def both_ended() -> bool:
                return [await mesh.get_status(waits), await mesh.get_status(sleeps)] == [0, 0]

            await eventually(both_ended)
        async with connected(new_url) as new, connected(old_url) as old:
            flows = await new.fetchval("select count(*) from hotmesh.job where topic = 'work' and status = 0")
            passes = await new.fetchval(
                "select count(*) from hotmesh.activity as a join hotmesh.job as j using (generation) where j.topic = 'work' "
                "and a.type = 'worker'"
            )
            with pytest.raises(asyncpg.ReadOnlySQLTransactionError, match="moved to another"):
                await old.execute("delete from hotmesh.job")
    longest = max(after - before for before, after in pairwise(ended))
    print(f"{len(ended)} flows, stop {stop:.2f} s, longest pause {longest:.2f} s")

    assert failures == []
    assert (flows, passes) == (len(ended), 2 * len(ended))
    assert len(ran) == 2 * len(ended)
    assert (stop < 5, longest < 5) == (True, True), (stop, longest)


async def test_sequences_and_rights_come_along(places: tuple[str, str]) -> None:
    old_url, new_url = places
    async with connected(old_url) as old:
        await old.execute("insert into hotmesh.app (app_id) values ('house')")
        letter = (
            "insert into hotmesh.dead_letter (app_id, stream, topic, job_id, generation, activity_id, dimension, message, reason, "
            "dead_at) values ('house', 'worker', 't', 'j', gen_random_uuid(), 'a', '{0}', '{}', 'r', now()) returning id"
        )
        last = [await old.fetchval(letter) for _ in range(3)][-1]
        channel = await old.fetchval("select hotmesh.channel('house')")
        role = f"ann_{urlsplit(old_url).path[1:]}"
        await old.execute(f"create role {role}; select hotmesh.grant_app('{role}')")
        move = Move(place(old_url), place(new_url), "hotmesh")
        with pytest.raises(MoveError, match=f"lacks the roles {role}"):
            await move.begin(old_url)
        await _execute(new_url, f"create role {role}")
        await move.begin(old_url)
        await close(move)
        async with connected(new_url) as new:
            with pytest.raises(asyncpg.ReadOnlySQLTransactionError, match="being moved here"):
                await new.execute("delete from hotmesh.app")
            await move.finish()

            assert await new.fetchval(letter) == last + 1
            assert await new.fetchval("select hotmesh.channel('house')") == channel
            assert await new.fetchval("select count(*) from hotmesh.upkeep") == 0
            assert await new.fetchval(f"select has_table_privilege('{role}', 'hotmesh.job', 'insert')")
            await new.execute(f"drop owned by {role}; drop role {role}")
        assert await move.finish() == 0


async def test_a_move_is_given_up(places: tuple[str, str]) -> None:
    old_url, new_url = places
    async with connected(old_url) as old:
        await old.execute("insert into hotmesh.app (app_id) values ('house')")
        move = Move(place(old_url), place(new_url), "hotmesh")
        await move.begin(old_url)
        await close(move)
        await move._close_old(old)
        await move.cancel()

        await old.execute("update hotmesh.app set epoch = 7")
        assert await old.fetchval("select count(*) from pg_publication") == 0
        with pytest.raises(MoveError, match="not being moved"):
            await move.finish()


CANCEL = """
import sys, anyio
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.moving import Move
anyio.run(Move(*(ConnectionSource(url, application_name="mover") for url in sys.argv[1:3]), "hotmesh").cancel)
"""


@pytest.mark.parametrize("held", ["old", "new"])
async def test_who_gives_a_move_up_is_killed_and_does_it_again(places: tuple[str, str], held: str) -> None:
    """Wherever it stood, also while nothing could be written at the old place."""
    old_url, new_url = places
    async with connected(old_url) as old, connected(new_url) as new:
        await old.execute("insert into hotmesh.app (app_id) values ('house')")
        move = Move(place(old_url), place(new_url), "hotmesh")
        await move.begin(old_url)
        await close(move)
        await move._close_old(old)

        holder = old if held == "old" else new
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("lock table hotmesh.app in access share mode")
        killed = subprocess.Popen([sys.executable, "-c", CANCEL, old_url, new_url])  # noqa: ASYNC220
        try:
            await eventually(lambda: _waits_for_lock(holder), what="a move that is held up")
        finally:
            killed.kill()
            await asyncio.to_thread(killed.wait)
        await transaction.rollback()

        await move.cancel()

        await old.execute("update hotmesh.app set epoch = 7")
        assert await old.fetchval("select count(*) from pg_publication") == 0
        assert await new.fetchval("select count(*) from pg_namespace where nspname = 'hotmesh'") == 0


async def _waits_for_lock(connection: asyncpg.Connection) -> bool:
    waits = "select exists (select from pg_locks where relation = 'hotmesh.app'::regclass and not granted)"
    return bool(await connection.fetchval(waits))


async def test_what_stands_in_the_way_is_named(places: tuple[str, str], database_url: str) -> None:
    old_url, new_url = places
    async with connected(database_url) as connection:
        await connection.execute("insert into hotmesh.app (app_id) values ('house')")
    with pytest.raises(MoveError, match="wal_level"):
        await Move(place(database_url), place(new_url), "hotmesh").begin(database_url)
    with pytest.raises(MoveError, match="is not empty"):
        await Move(place(old_url), place(database_url), "hotmesh").begin(old_url)
