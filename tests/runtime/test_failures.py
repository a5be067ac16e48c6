"""What can go wrong around a mesh: each failure is told in the right place, and the other jobs go on."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from harness import connected, eventually, one_worker, settled
from hotmesh import (
    CompileError,
    ConnectionFailedError,
    ConnectionLostError,
    HotMesh,
    HotMeshError,
    JobError,
    MessageTooLargeError,
    PayloadError,
    SchemaError,
    StreamData,
    Worker,
)
from hotmesh.core.advance.advance import advance
from hotmesh.postgres import local
from hotmesh.runtime.definitions import program as program_module

pytestmark = pytest.mark.anyio

APP = "failures"


async def double(message: StreamData) -> dict[str, Any]:
    return {"y": message.data["x"] * 2}


@asynccontextmanager
async def mesh_on(connection: Any, *workers: Worker, **options: Any) -> AsyncIterator[HotMesh]:
    """A mesh with the one-worker graph; `double` serves it unless other workers are given."""
    async with HotMesh.init(
        app_id=APP, connection=connection, workers=workers or [Worker("w", double)], **options
    ) as mesh:
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        yield mesh


async def works(mesh: HotMesh, x: int = 4) -> None:
    output = await mesh.pubsub("one", {"x": x}, timeout=10)
    assert output.data == {"y": x * 2}


# -- what callers hand in ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        ({"x": float("nan")}, PayloadError, "the number nan at $.x"),
        ({"x": object()}, PayloadError, "a value of type object at $.x"),
        ({"x": "\ud800"}, PayloadError, "half of a surrogate pair at $.x"),
        ({"x": {("a", 1): 1}}, PayloadError, "a key of type tuple at $.x"),
        ({"x": "x" * 2_000_000}, MessageTooLargeError, "more than the limit of 1,048,576 (max_payload)"),
    ],
    ids=["NaN", "no JSON type", "surrogate", "key", "too large"],
)
async def test_data_that_cannot_be_stored_creates_no_job(
    database_url: str, data: Any, error: type[Exception], words: str
) -> None:
    async with mesh_on(database_url) as mesh, connected(database_url) as connection:
        with pytest.raises(error) as caught:
            await mesh.pub("one", data)
        await works(mesh)
        jobs = await connection.fetchval("select count(*) from hotmesh.job")

    assert "data for one" in str(caught.value)
    assert words in str(caught.value)
    assert jobs == 1


async def test_a_broken_graph_is_refused_with_its_place_and_what_runs_goes_on(database_url: str) -> None:
    broken = one_worker(APP).replace("version: '1'", "version: '2'").replace("{to: call}", "{to: nowhere}")
    async with mesh_on(database_url) as mesh, connected(database_url) as connection:
        with pytest.raises(CompileError) as caught:
            await mesh.deploy(broken)
        with pytest.raises(CompileError):
            await mesh.deploy("app:\n  id: failures\n   version: [")
        await works(mesh)
        versions = await connection.fetch("select version from hotmesh.app_version")

    assert any("nowhere" in problem.message and problem.line for problem in caught.value.problems)
    assert [row["version"] for row in versions] == ["1"]


# -- databases that cannot be used ---------------------------------------------------------------------------


async def test_a_missing_database_is_named_at_the_start(database_url: str) -> None:
    name = database_url.split("?", maxsplit=1)[0].rpartition("/")[2]
    with pytest.raises(ConnectionFailedError, match='"nowhere" does not exist'):
        await HotMesh.init(app_id=APP, connection=database_url.replace(name, "nowhere", 1))


@pytest.mark.parametrize("migrate", ["auto", "verify"])
async def test_a_newer_schema_is_refused_at_the_start(database_url: str, migrate: Any) -> None:
    async with connected(database_url) as connection:
        await connection.execute(
            "insert into hotmesh.schema_migration (version, name, checksum) values (9999, 'later', 'x')"
        )
    with pytest.raises(SchemaError, match="at version 9999"):
        await HotMesh.init(app_id=APP, connection=database_url, migrate=migrate)


async def test_an_empty_database_is_refused_when_it_may_only_be_verified(empty_database_url: str) -> None:
    with pytest.raises(SchemaError, match="hotmesh migrate"):
        await HotMesh.init(app_id=APP, connection=empty_database_url, migrate="verify")


async def test_a_read_only_database_is_told_to_callers_and_used_again_when_it_can_be(
    database_url: str,
) -> None:
    name = database_url.split("?", maxsplit=1)[0].rpartition("/")[2]
    async with mesh_on(database_url, settings={"connect_timeout": 0.5, "reconnect_max": 0.2}) as mesh:
        await works(mesh)
        async with connected(database_url) as connection:
            await connection.execute(f"alter database {name} set default_transaction_read_only = on")
            await end_sessions(connection)
        began = time.monotonic()
        with pytest.raises(ConnectionLostError, match="read-only"):
            await mesh.pub("one", {"x": 1})
        assert time.monotonic() - began < 5
        async with connected(database_url) as connection:
            await connection.execute("set default_transaction_read_only = off")
            await connection.execute(f"alter database {name} reset default_transaction_read_only")
            await end_sessions(connection)
        await eventually(lambda: succeeds(mesh), what="an answer")


async def succeeds(mesh: HotMesh) -> bool:
    try:
        await works(mesh)
    except HotMeshError:
        return False
    return True


async def end_sessions(connection: asyncpg.Connection) -> int:
    """End all other sessions of the database, and wait for their end."""
    return int(
        await connection.fetchval(
            "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
        )
    )


FULL = """
create function public.full() returns trigger language plpgsql as $$
begin
    raise sqlstate '53100' using message = 'could not extend file: No space left on device';
end $$;
create trigger full_disk before {event} on hotmesh.job for each row execute function public.full();
"""


async def test_a_full_database_is_told_to_callers_and_used_again_when_there_is_room(
    database_url: str,
) -> None:
    async with mesh_on(database_url) as mesh, connected(database_url) as connection:
        await connection.execute(FULL.format(event="insert"))
        with pytest.raises(HotMeshError, match=r"53100.*No space left on device"):
            await mesh.pub("one", {"x": 1})
        await connection.execute("drop trigger full_disk on hotmesh.job")
        await works(mesh)
        assert await connection.fetchval("select count(*) from hotmesh.job") == 1


async def test_a_result_waits_for_room_in_a_full_database(database_url: str) -> None:
    """Nothing is wrong with the result: it is neither lost nor turned into an error, and not computed again."""
    gate, calls = asyncio.Event(), 0

    async def callback(message: StreamData) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        await gate.wait()
        return {"y": message.data["x"]}

    async with mesh_on(database_url, Worker("w", callback)) as mesh, connected(database_url) as connection:
        waiting = asyncio.create_task(mesh.pubsub("one", {"x": 5}, timeout=20))
        await eventually(lambda: calls == 1, what="the callback")
        await connection.execute(FULL.format(event="update"))
        gate.set()
        engine = mesh._member.engine
        assert engine is not None
        await eventually(lambda: any(cached.refusals > 1 for cached in engine.cache), what="a second attempt")
        await connection.execute("drop trigger full_disk on hotmesh.job")
        output = await waiting

    assert output.data == {"y": 5}
    assert calls == 1


# -- connections that break ----------------------------------------------------------------------------------


@pytest.mark.row(18)
@pytest.mark.parametrize("pooled", [False, True], ids=["own connections", "a pool"])
async def test_after_all_connections_were_killed_at_once_the_next_call_succeeds(
    database_url: str, pooled: bool
) -> None:
    async with (
        asyncpg.create_pool(database_url, min_size=0, max_size=20) as pool,
        mesh_on(pool if pooled else database_url) as mesh,
        connected(database_url) as connection,
    ):
        for _ in range(3):
            await works(mesh)
            await eventually(lambda: count_sessions(connection, 3), what="three connections")
            await end_sessions(connection)
            await works(mesh)
        await settled(connection, APP)


async def count_sessions(connection: asyncpg.Connection, least: int) -> bool:
    query = (
        "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    )
    return bool(await connection.fetchval(query) >= least)


async def test_connections_killed_again_and_again_under_load_lose_nothing(database_url: str) -> None:
    async def slow(message: StreamData) -> dict[str, Any]:
        await asyncio.sleep(0.02 * (message.data["x"] % 7))
        return await double(message)

    async with (
        mesh_on(database_url, Worker("w", slow, max_concurrency=20)) as mesh,
        connected(database_url) as connection,
    ):
        calls = [asyncio.create_task(mesh.pubsub("one", {"x": x}, timeout=30)) for x in range(600)]
        kills = 0
        while not all(call.done() for call in calls):
            await end_sessions(connection)
            kills += 1
            await asyncio.wait(calls, timeout=0.15)
        outputs = await asyncio.gather(*calls)
        await settled(connection, APP)

    assert [output.data["y"] for output in outputs] == [x * 2 for x in range(600)]
    assert kills > 1


async def test_callers_outlast_a_stop_and_start_of_postgres(scratch: Path) -> None:
    server = await asyncio.to_thread(local.ensure_running, scratch, sync=False)
    gate = asyncio.Event()

    async def callback(message: StreamData) -> dict[str, Any]:
        await gate.wait()
        return {"y": message.data["x"] * 2}

    async with mesh_on(server.dsn, Worker("w", callback)) as mesh:
        before = [asyncio.create_task(mesh.pubsub("one", {"x": x}, timeout=30)) for x in range(5)]
        async with connected(server.dsn) as connection:
            await eventually(lambda: held(connection, 5), what="five callbacks")
        await asyncio.to_thread(local.stop, scratch, "fast")
        gate.set()
        during = [asyncio.create_task(mesh.pubsub("one", {"x": x}, timeout=30)) for x in range(5, 10)]
        done, _ = await asyncio.wait([*before, *during], timeout=0.3)
        assert not done
        await asyncio.to_thread(local.ensure_running, scratch)
        outputs = await asyncio.gather(*before, *during)
        await works(mesh)
    await asyncio.to_thread(local.stop, scratch, "immediate")

    assert [output.data["y"] for output in outputs] == [x * 2 for x in range(10)]


async def held(connection: asyncpg.Connection, count: int) -> bool:
    query = "select count(*) from hotmesh.worker_stream where reserved_by is not null"
    return bool(await connection.fetchval(query) == count)


def ask_for_a_password(data_dir: Path) -> None:
    rules = next(data_dir.rglob("pg_hba.conf"))
    rules.write_text("local all guest scram-sha-256\n" + rules.read_text())


async def test_a_wrong_password_is_told_at_the_start(scratch: Path) -> None:
    server = await asyncio.to_thread(local.ensure_running, scratch, sync=False)
    await asyncio.to_thread(ask_for_a_password, scratch)
    async with connected(server.dsn) as connection:
        await connection.execute("create role guest login password 'right'; select pg_reload_conf()")
        await eventually(
            lambda: connection.fetchval(
                "select count(*) from pg_hba_file_rules where 'guest' = any(user_name)"
            )
        )
    with pytest.raises(ConnectionFailedError, match="password authentication failed") as caught:
        await HotMesh.init(app_id=APP, connection={"dsn": server.dsn, "user": "guest", "password": "wrong"})
    await asyncio.to_thread(local.stop, scratch, "immediate")

    assert "wrong" not in str(caught.value)


# -- steps that fail in our own code -------------------------------------------------------------------------


class _BrokenAdvance:
    """`advance` as it would be with a defect that shows for one job only."""

    def __init__(self, poison: object) -> None:
        self.poison = poison
        self.failures = 0

    def __call__(self, plan: Any, job: Any, events: Any, *arguments: Any, **options: Any) -> Any:
        if job.input.get("x") == self.poison and any(event.status == "success" for event in events):
            self.failures += 1
            raise RecursionError("a defect")
        return advance(plan, job, events, *arguments, **options)


async def test_a_step_that_cannot_be_computed_fails_its_activity_alone(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = _BrokenAdvance(poison=13)
    monkeypatch.setattr(program_module, "advance", broken)
    async with mesh_on(database_url) as mesh, connected(database_url) as connection:
        healthy = [asyncio.create_task(mesh.pubsub("one", {"x": x}, timeout=10)) for x in range(10)]
        with pytest.raises(JobError, match="a defect"):
            await mesh.pubsub("one", {"x": 13}, timeout=10)
        outputs = await asyncio.gather(*healthy)
        await works(mesh)
        await settled(connection, APP)

    assert [output.data["y"] for output in outputs] == [x * 2 for x in range(10)]


PARENT = """
    - subscribes: parent
      expire: 3600
      activities:
        begin: {type: trigger}
        ask:
          type: await
          topic: one
          input: {maps: {x: '{begin.output.data.x}'}}
          job: {maps: {y: '{$self.output.data.y}'}}
      transitions:
        begin: [{to: ask}]
"""


async def test_events_that_cannot_be_handled_are_given_up_and_the_parent_is_told(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the stream: tried again with growing pauses, then a dead letter, and an error for whoever waits."""
    broken = _BrokenAdvance(poison=13)
    monkeypatch.setattr(program_module, "advance", broken)
    async with (
        HotMesh.init(app_id=APP, connection=database_url, settings={"poison_threshold": 2}) as mesh,
        HotMesh.init(app_id=APP, connection=database_url, engine=False, workers=[Worker("w", double)]),
        connected(database_url) as connection,
    ):
        await mesh.deploy(one_worker(APP, more=PARENT))
        await mesh.activate("1")
        await works(mesh)
        # As if it had not been told itself, so that all comes by the stream.
        monkeypatch.setattr(mesh._member.engine, "answered", lambda _: None)
        with pytest.raises(JobError) as caught:
            await mesh.pubsub("parent", {"x": 13}, timeout=20)
        await works(mesh)
        await settled(connection, APP)
        letters = await connection.fetch("select reason, stream from hotmesh.dead_letter")

    assert caught.value.code == 598
    assert "Poison message detected" in caught.value.message
    assert "a defect" in caught.value.message
    assert [letter["stream"] for letter in letters] == ["engine"]
    assert broken.failures >= 2


# -- stopping and starting -----------------------------------------------------------------------------------


async def test_stop_gives_running_work_back_at_once(database_url: str) -> None:
    started = asyncio.Event()

    async def stuck(_: StreamData) -> None:
        started.set()
        await asyncio.get_running_loop().create_future()

    async with (
        HotMesh.init(app_id=APP, connection=database_url) as mesh,
        connected(database_url) as connection,
    ):
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        first = await HotMesh.init(
            app_id=APP, connection=database_url, engine=False, workers=[Worker("w", stuck)]
        )
        waiting = asyncio.create_task(mesh.pubsub("one", {"x": 3}, timeout=20))
        await started.wait()
        await first.stop(grace=0.1)
        row = await connection.fetchrow(
            "select reserved_by, delivery, attempt, visible_at <= now() as visible from hotmesh.worker_stream"
        )
        async with HotMesh.init(
            app_id=APP, connection=database_url, engine=False, workers=[Worker("w", double)]
        ):
            output = await waiting

    assert row is not None
    assert dict(row) == {"reserved_by": None, "delivery": 0, "attempt": 0, "visible": True}
    assert output.data == {"y": 6}


async def test_stop_lets_running_callbacks_finish_and_keeps_their_results(database_url: str) -> None:
    started, gate = asyncio.Event(), asyncio.Event()

    async def callback(message: StreamData) -> dict[str, Any]:
        started.set()
        await gate.wait()
        return {"y": message.data["x"]}

    async with connected(database_url) as connection:
        async with mesh_on(database_url, Worker("w", callback)) as mesh:
            job_id = await mesh.pub("one", {"x": 7})
            await started.wait()
            stopping = asyncio.create_task(mesh.stop(grace=10))
            await asyncio.sleep(0)
            gate.set()
            await stopping
        assert await connection.fetchval("select status from hotmesh.job where job_id = $1", job_id) == 0
        await settled(connection, APP, within=1)


async def test_stop_under_load_leaves_nothing_reserved(database_url: str) -> None:
    """What was committed while the instance stopped is free for others at once, not when a lease has lapsed."""
    async with connected(database_url) as connection:
        for _ in range(5):
            mesh = await HotMesh.init(
                app_id=APP,
                connection=database_url,
                workers=[Worker("w", double, max_concurrency=3)],
                lease=600,
            )
            await mesh.deploy(one_worker(APP))
            await mesh.activate("1")
            calls = [asyncio.create_task(mesh.pub("one", {"x": x})) for x in range(200)]
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            await mesh.stop()
            await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), timeout=5)
            reserved = await connection.fetchval(
                "select count(*) from hotmesh.worker_stream where reserved_by is not null"
            )
            assert reserved == 0
        async with mesh_on(database_url):
            await settled(connection, APP, within=10)


async def test_calls_on_a_stopped_instance_fail_at_once(database_url: str) -> None:
    async with mesh_on(database_url) as mesh:
        await works(mesh)
    with pytest.raises(HotMeshError, match="stopped"):
        await asyncio.wait_for(mesh.pub("one", {"x": 1}), timeout=2)


async def test_after_stop_all_a_new_init_works_as_the_first(database_url: str) -> None:
    for _ in range(2):
        one = await HotMesh.init(app_id=APP, connection=database_url, workers=[Worker("w", double)])
        await HotMesh.init(app_id=APP, connection=database_url)
        await one.deploy(one_worker(APP))
        await one.activate("1")
        await works(one)
        await HotMesh.stop_all()
    async with connected(database_url) as connection:
        others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"

        async def alone() -> bool:
            return bool(await connection.fetchval(others) == 0)

        await eventually(alone, what="the end of all connections")


async def test_apps_and_namespaces_in_one_process_do_not_hear_each_other(database_url: str) -> None:
    """The same topic, the same job id, three places."""
    heard: dict[str, list[int]] = {"a": [], "b": [], "c": []}

    def listening(name: str) -> Worker:
        async def callback(message: StreamData) -> dict[str, Any]:
            heard[name].append(message.data["x"])
            return {"y": f"{name}{message.data['x']}"}

        return Worker("w", callback)

    async with (
        HotMesh.init(app_id="app-1", connection=database_url, workers=[listening("a")]) as one,
        HotMesh.init(app_id="app-2", connection=database_url, workers=[listening("b")]) as two,
        HotMesh.init(
            app_id="app-1", namespace="other", connection=database_url, workers=[listening("c")]
        ) as three,
    ):
        for mesh in (one, two, three):
            await mesh.deploy(one_worker(mesh.app_id))
            await mesh.activate("1")
        outputs = [
            await asyncio.gather(
                *(
                    mesh.pubsub("one", {"x": x}, timeout=10, extended={"id": f"job-{x}"})
                    for mesh in (one, two, three)
                )
            )
            for x in range(3)
        ]

    assert [[output.data["y"] for output in row] for row in outputs] == [
        [f"{name}{x}" for name in "abc"] for x in range(3)
    ]
    assert heard == {name: [0, 1, 2] for name in "abc"}


async def test_ten_processes_that_start_at_once_on_an_empty_database_all_serve(
    empty_database_url: str,
) -> None:
    program = f"""
import asyncio, sys
from hotmesh import HotMesh
async def main():
    async with HotMesh.init(app_id="{APP}", connection=sys.argv[1]):
        pass
asyncio.run(main())
"""
    processes = [
        subprocess.Popen(  # noqa: ASYNC220 - a few milliseconds
            [sys.executable, "-c", program, empty_database_url],
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for _ in range(10)
    ]
    ended = await asyncio.gather(*(asyncio.to_thread(process.communicate, None, 60) for process in processes))

    assert [(process.returncode, words) for process, (_, words) in zip(processes, ended, strict=True)] == [
        (0, b"")
    ] * 10
    async with mesh_on(empty_database_url, migrate="verify") as mesh:
        await works(mesh)
