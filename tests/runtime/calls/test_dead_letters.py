"""What was given up: how it is listed, put back exactly once, or discarded for good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from harness import bury_job, connected, eventually, owed, settled
from hotmesh import (
    ConfigError,
    DeadLetterNotFoundError,
    HotMesh,
    JobCompletedError,
    JobError,
    StreamData,
    Worker,
)

pytestmark = pytest.mark.anyio

GRAPHS = """
app:
  id: letters
  version: '1'
  graphs:
    - subscribes: one
      publishes: one.done
      activities:
        t1: {type: trigger}
        w1: {type: worker, topic: w, input: {maps: {x: '{t1.output.data.x}'}}, job: {maps: {y: '{$self.output.data.y}'}}}
      transitions:
        t1: [{to: w1}]
    - subscribes: two
      expire: 3600
      activities:
        t2: {type: trigger}
        w2: {type: worker, topic: w, input: {maps: {x: 1}}, job: {maps: {a: '{$self.output.data.y}'}}}
        v2: {type: worker, topic: v, input: {maps: {x: 2}}, job: {maps: {b: '{$self.output.data.y}'}}}
        h2: {type: hook}
      transitions:
        t2: [{to: w2}, {to: v2}, {to: h2}]
      hooks:
        go.on:
          - to: h2
            conditions: {match: [{expected: '{$job.metadata.jid}', actual: '{$self.hook.data.id}'}]}
    - subscribes: caught
      expire: 3600
      activities:
        t3: {type: trigger}
        w3: {type: worker, topic: w}
        h3: {type: hook, sleep: 3600}
      transitions:
        t3: [{to: w3}]
        w3: [{to: h3, conditions: {code: 598}}]
    - subscribes: joined
      expire: 3600
      activities:
        t4: {type: trigger}
        a4: {type: worker, topic: w, input: {maps: {x: 1}}}
        b4: {type: worker, topic: v, input: {maps: {x: 2}}}
        j4: {type: hook, join: all, job: {maps: {sum: {'@pipe': [['{a4.output.data.y}', '{b4.output.data.y}'], ['{@math.add}']]}}}}
      transitions:
        t4: [{to: a4}, {to: b4}]
        a4: [{to: j4, conditions: {code: 200}}]
        b4: [{to: j4, conditions: {code: 200}}]
    - subscribes: parent
      expire: 3600
      activities:
        t5: {type: trigger}
        c5: {type: await, topic: two}
      transitions:
        t5: [{to: c5}]
"""


async def double(message: StreamData) -> dict[str, Any]:
    return {"y": message.data["x"] * 2}


@asynccontextmanager
async def running(url: str, *workers: Worker) -> AsyncIterator[HotMesh]:
    async with HotMesh.init(app_id="letters", connection=url, workers=workers) as mesh:
        await mesh.deploy(GRAPHS)
        await mesh.activate("1")
        yield mesh


async def poison(connection: asyncpg.Connection, *topics: str) -> None:
    """Make what is queued on the topics look as if every worker that took it had died."""
    await connection.execute(
        "update hotmesh.worker_stream set delivery = 5, visible_at = now() where topic = any($1)",
        list(topics),
    )


@asynccontextmanager
async def gravedigger(url: str, *topics: str) -> AsyncIterator[HotMesh]:
    """A process that finds the poison and gives it up; it has no engine."""

    async def never(_: StreamData) -> None:
        await asyncio.Event().wait()

    workers = [Worker(topic, never) for topic in topics]
    async with HotMesh.init(app_id="letters", connection=url, engine=False, workers=workers) as mesh:
        yield mesh


async def dead(mesh: HotMesh, count: int = 1, **which: Any) -> list[int]:
    """The ids of the dead letters, the oldest first, once there are so many."""

    async def enough() -> list[int]:
        found = await mesh.list_dead_letters(**which)
        return [letter.id for letter in reversed(found)] if len(found) >= count else []

    ids: list[int] = await eventually(enough, what=f"{count} dead letters")
    return ids


async def has_status(mesh: HotMesh, job_id: str, status: int) -> None:
    async def look() -> bool:
        return await mesh.get_status(job_id) == status

    await eventually(look, what=f"status {status}")


@pytest.mark.row(374)
async def test_a_dead_letter_is_listed_requeued_and_runs(database_url: str) -> None:
    results = []
    async with running(database_url) as mesh, connected(database_url) as connection:
        await mesh.sub("one.done", lambda _, output: results.append(output))
        job_id = await mesh.pub("one", {"x": 21})
        await poison(connection, "w")
        async with gravedigger(database_url, "w"):
            (letter_id,) = await dead(mesh)
        await eventually(lambda: results)
        letters = await mesh.list_dead_letters()
        assert [letter.id for letter in await mesh.list_dead_letters("w", job_id)] == [letter_id]
        assert await mesh.list_dead_letters(topic="v") == await mesh.list_dead_letters(job_id="nope") == []
        assert len(await mesh.list_dead_letters(limit=1)) == 1
        with pytest.raises(ConfigError):
            await mesh.list_dead_letters(limit=0)

        await mesh.requeue(letter_id)
        assert await mesh.get_status(job_id) == 1
        assert await mesh.list_dead_letters() == []
        async with HotMesh.init(
            app_id="letters", connection=database_url, engine=False, workers=[Worker("w", double)]
        ):
            await eventually(lambda: len(results) == 2)
        with pytest.raises(DeadLetterNotFoundError):
            await mesh.requeue(letter_id)
        assert await owed(connection, "letters") == {}

    (letter,) = letters
    assert (letter.stream, letter.topic, letter.job_id) == ("worker", "w", job_id)
    assert (letter.activity_id, letter.dimension) == ("w1", (0, 0))
    assert letter.reason.startswith("Poison message detected")
    assert letter.message["data"] == {"x": 21}
    first, second = results
    assert '"code":598' in first.metadata.err
    assert (second.data, "err" in second.metadata) == ({"y": 42}, False)


@pytest.mark.row(374)
async def test_a_discarded_dead_letter_stays_out(database_url: str) -> None:
    async with running(database_url) as mesh, connected(database_url) as connection:
        job_id = await mesh.pub("two", {})
        await poison(connection, "w")
        async with gravedigger(database_url, "w"):
            (letter_id,) = await dead(mesh)
        await has_status(mesh, job_id, 2)
        await mesh.discard(letter_id)
        assert await mesh.list_dead_letters() == []
        for decide in (mesh.discard, mesh.requeue):
            with pytest.raises(DeadLetterNotFoundError, match=str(letter_id)):
                await decide(letter_id)
        assert await owed(connection, "letters") == {"worker_stream": 1, "wait": 1, "live jobs": 1}


async def test_a_dead_letter_of_another_app_is_out_of_reach(database_url: str) -> None:
    async with running(database_url) as mesh, connected(database_url) as connection:
        await mesh.pub("two", {})
        await poison(connection, "w")
        async with gravedigger(database_url, "w"):
            (letter_id,) = await dead(mesh)
        async with HotMesh.init(app_id="strangers", connection=database_url) as other:
            assert await other.list_dead_letters() == []
            with pytest.raises(DeadLetterNotFoundError):
                await other.requeue(letter_id)
            with pytest.raises(DeadLetterNotFoundError):
                await other.discard(letter_id)


async def test_requeueing_before_an_engine_has_seen_the_error_withdraws_it(database_url: str) -> None:
    async with running(database_url) as mesh:
        job_id = await mesh.pub("one", {"x": 1})
    async with connected(database_url) as connection:
        await poison(connection, "w")
        async with gravedigger(database_url, "w") as digger:
            (letter_id,) = await dead(digger)
            assert await owed(connection, "letters") == {"engine_stream": 1, "live jobs": 1}
        async with HotMesh.init(app_id="letters", connection=database_url, engine=False) as operator:
            await operator.requeue(letter_id)
            assert await owed(connection, "letters") == {"worker_stream": 1, "live jobs": 1}
        async with running(database_url, Worker("w", double)) as mesh:
            await settled(connection, "letters")
            error, data = await connection.fetchval(
                "select (error, data) from hotmesh.job where job_id = $1", job_id
            )
            assert (error, data) == (None, '{"y":2}')


async def test_a_branch_of_a_live_job_is_opened_again_and_its_error_taken_back(database_url: str) -> None:
    async with running(database_url) as mesh, connected(database_url) as connection:
        job_id = await mesh.pub("two", {})
        await poison(connection, "w")
        async with gravedigger(database_url, "w"):
            (letter_id,) = await dead(mesh)
        await has_status(mesh, job_id, 2)
        assert "err" in (await mesh.get_state("two", job_id)).metadata
        await mesh.requeue(letter_id)
        assert await mesh.get_status(job_id) == 3
        assert "err" not in (await mesh.get_state("two", job_id)).metadata
        async with running(database_url, Worker("w", double), Worker("v", double)):
            await mesh.signal("go.on", {"id": job_id})
            await has_status(mesh, job_id, 0)
        state = await mesh.get_state("two", job_id)
        assert (state.data, "err" in state.metadata) == ({"a": 2, "b": 4}, False)


async def test_the_error_of_another_failed_branch_remains(database_url: str) -> None:
    async with running(database_url) as mesh, connected(database_url) as connection:
        job_id = await mesh.pub("two", {})
        await mesh.signal("go.on", {"id": job_id})
        await poison(connection, "w", "v")
        async with gravedigger(database_url, "w", "v"):
            letters = await dead(mesh, 2)
        await has_status(mesh, job_id, 0)
        by_topic = {letter.topic: letter.id for letter in await mesh.list_dead_letters(job_id=job_id)}
        assert sorted(by_topic.values()) == letters
        await mesh.requeue(by_topic["w"])
        state = await mesh.get_state("two", job_id)
        assert (state.metadata.js, "workers of v" in state.metadata.err) == (1, True)
        await mesh.requeue(by_topic["v"])
        state = await mesh.get_state("two", job_id)
        assert (state.metadata.js, "err" in state.metadata) == (2, False)
        async with running(database_url, Worker("w", double), Worker("v", double)):
            await has_status(mesh, job_id, 0)
        assert (await mesh.get_state("two", job_id)).data == {"a": 2, "b": 4}


async def test_a_join_waits_again_for_the_branch_that_was_opened_again(database_url: str) -> None:
    async with running(database_url) as mesh, connected(database_url) as connection:
        job_id = await mesh.pub("joined", {})
        await poison(connection, "w")
        async with gravedigger(database_url, "w"):
            (letter_id,) = await dead(mesh)
        await has_status(mesh, job_id, 1)
        await mesh.requeue(letter_id)
        async with running(database_url, Worker("v", double)):
            await has_status(mesh, job_id, 2)
            await eventually(lambda: _is_waiting_at_the_join(mesh, job_id))
        async with running(database_url, Worker("w", double)):
            await has_status(mesh, job_id, 0)
        assert (await mesh.get_state("joined", job_id)).data == {"sum": 6}


async def _is_waiting_at_the_join(mesh: HotMesh, job_id: str) -> bool:
    return any(branch.activity_id == "j4" for branch in (await mesh.explain(job_id)).branches)


async def test_an_error_that_a_transition_took_is_not_undone(database_url: str) -> None:
    async with running(database_url) as mesh, connected(database_url) as connection:
        job_id = await mesh.pub("caught", {})
        await poison(connection, "w")
        async with gravedigger(database_url, "w"):
            (letter_id,) = await dead(mesh)
        await eventually(lambda: _count(connection, "timer"))
        with pytest.raises(JobCompletedError, match=f"Job {job_id} has gone on: activity w3"):
            await mesh.requeue(letter_id)
        assert [letter.id for letter in await mesh.list_dead_letters()] == [letter_id]
        assert await owed(connection, "letters") == {"timer": 1, "live jobs": 1}


async def _count(connection: asyncpg.Connection, table: str) -> int:
    return int(await connection.fetchval(f"select count(*) from hotmesh.{table}"))


async def test_a_job_that_ended_for_another_reason_stays_ended(database_url: str) -> None:
    async with running(database_url) as mesh, connected(database_url) as connection:
        job_id = await mesh.pub("two", {})
        await poison(connection, "w")
        async with gravedigger(database_url, "w"):
            (letter_id,) = await dead(mesh)
        await has_status(mesh, job_id, 2)
        await mesh.interrupt("two", job_id)
        with pytest.raises(JobCompletedError, match=f"Job {job_id} already completed"):
            await mesh.requeue(letter_id)
        await mesh.scrub(job_id)
        with pytest.raises(DeadLetterNotFoundError):
            await mesh.requeue(letter_id)


async def test_of_many_who_requeue_a_dead_letter_one_succeeds(database_url: str) -> None:
    async with running(database_url) as mesh, connected(database_url) as connection:
        job_id = await mesh.pub("two", {})
        await poison(connection, "w")
        async with gravedigger(database_url, "w"):
            (letter_id,) = await dead(mesh)
        await has_status(mesh, job_id, 2)
        others = [
            await HotMesh.init(app_id="letters", connection=database_url, engine=False) for _ in range(6)
        ]
        outcomes = await asyncio.gather(
            *(other.requeue(letter_id) for other in (mesh, *others)), return_exceptions=True
        )
        for other in others:
            await other.stop()
        assert await mesh.get_status(job_id) == 3
        assert await owed(connection, "letters") == {"worker_stream": 2, "wait": 1, "live jobs": 1}
    assert [outcome for outcome in outcomes if outcome is None] == [None]
    assert sum(isinstance(outcome, DeadLetterNotFoundError) for outcome in outcomes) == 6


async def test_a_requeue_that_is_cut_off_has_not_happened(database_url: str) -> None:
    async with running(database_url) as mesh, connected(database_url) as connection:
        job_id = await mesh.pub("two", {})
        await poison(connection, "w")
        async with gravedigger(database_url, "w"):
            (letter_id,) = await dead(mesh)
        await has_status(mesh, job_id, 2)
        # Its last act fails, as it would if the process or the server died before the commit.
        await connection.execute(
            "create function stop() returns trigger language plpgsql as $$ begin raise exception 'stop'; end $$;"
            "create trigger stop before delete on hotmesh.dead_letter for each row execute function stop()"
        )
        with pytest.raises(Exception, match="stop"):
            await mesh.requeue(letter_id)
        assert await owed(connection, "letters") == {"worker_stream": 1, "wait": 1, "live jobs": 1}
        assert await mesh.get_status(job_id) == 2
        await connection.execute("drop trigger stop on hotmesh.dead_letter")
        await mesh.requeue(letter_id)
        assert await mesh.get_status(job_id) == 3


# -- jobs that an engine could not go on with ------------------------------------------------------------------


async def give_up(url: str, connection: asyncpg.Connection, job_id: str) -> None:
    """What an engine does with a job after its last try to handle what is due.

    The message that is due means nothing to a job that is not pending, so that it is handled with ease afterwards.
    """
    generation = await connection.fetchval("select generation from hotmesh.job where job_id = $1", job_id)
    await connection.execute(
        "insert into hotmesh.engine_stream (app_id, job_id, generation, message_id, kind, activity_id, dimension, "
        "status, code, data, visible_at, created_at) values "
        "('letters', $1, $2, 'nothing', 'resume', '', '{}', 'success', 200, '{\"a\": [1.10]}', now(), now())",
        job_id,
        generation,
    )
    await bury_job(url, "letters", job_id)


async def test_a_job_that_was_given_up_comes_back_with_all_that_was_open(database_url: str) -> None:
    async with running(database_url) as mesh:
        job_id = await mesh.pub("two", {})
    async with connected(database_url) as connection:
        before = await _rows(connection)
        await give_up(database_url, connection, job_id)
        assert await owed(connection, "letters") == {}
        async with HotMesh.init(app_id="letters", connection=database_url, engine=False) as operator:
            status = await operator.get_status(job_id)
            assert status == 3 - 1_000_000_000
            assert '"code":598' in (await operator.get_state("two", job_id)).metadata.err.replace(" ", "")
            (letter,) = await operator.list_dead_letters()
            assert (letter.stream, letter.topic, letter.activity_id) == ("engine", "resume", "")
            # The waiting hook is no more, so its signal is kept.
            async with HotMesh.init(app_id="letters", connection=database_url, readonly=True) as sender:
                await sender.signal("go.on", {"id": job_id})
            await operator.requeue(letter.id)
            assert await operator.get_status(job_id) == 3
            assert "err" not in (await operator.get_state("two", job_id)).metadata
            with pytest.raises(DeadLetterNotFoundError):
                await operator.requeue(letter.id)
        data = await connection.fetchval(
            "select data::text from hotmesh.engine_stream where message_id = 'nothing'"
        )
        assert data == '{"a": [1.10]}'
        # The kept signal has found its waiter by now.
        after = await _rows(connection)
        assert after["worker_stream"] == before["worker_stream"]
        assert (before["wait"], after["wait"]) == ([("h2", [0, 0])], [])
        async with running(database_url, Worker("w", double), Worker("v", double)) as mesh:
            await has_status(mesh, job_id, 0)
            assert (await mesh.get_state("two", job_id)).data == {"a": 2, "b": 4}


async def _rows(connection: asyncpg.Connection) -> dict[str, list[Any]]:
    found = {}
    for table in ("worker_stream", "timer", "wait"):
        rows = await connection.fetch(
            f"select activity_id, dimension from hotmesh.{table} order by activity_id"
        )
        found[table] = [tuple(row) for row in rows]
    return found


async def test_an_error_from_before_a_job_was_given_up_is_restored(database_url: str) -> None:
    async with running(database_url) as mesh, connected(database_url) as connection:
        job_id = await mesh.pub("two", {})
        await poison(connection, "w")
        async with gravedigger(database_url, "w"):
            await dead(mesh)
        await has_status(mesh, job_id, 2)
    async with connected(database_url) as connection:
        await give_up(database_url, connection, job_id)
        async with HotMesh.init(app_id="letters", connection=database_url, engine=False) as operator:
            letters = {letter.stream: letter.id for letter in await operator.list_dead_letters()}
            with pytest.raises(JobCompletedError):
                await operator.requeue(letters["worker"])
            await operator.requeue(letters["engine"])
            state = await operator.get_state("two", job_id)
            assert (state.metadata.js, "workers of w" in state.metadata.err) == (2, True)
            await operator.requeue(letters["worker"])
            assert await operator.get_status(job_id) == 3


async def test_a_parent_is_told_that_its_child_was_given_up(database_url: str) -> None:
    async with running(database_url) as mesh, connected(database_url) as connection:
        parent = await mesh.pub("parent", {})
        child = await connection.fetchval("select job_id from hotmesh.job where parent_job_id = $1", parent)
        await give_up(database_url, connection, child)
        await has_status(mesh, parent, 0)
        error = (await mesh.get_state("parent", parent)).metadata.err
        assert "Poison message detected: by a test" in error
        # A child that comes back finds that its parent has gone on, and completes for itself.
        (letter,) = await mesh.list_dead_letters(job_id=child)
        await mesh.requeue(letter.id)
        await mesh.signal("go.on", {"id": child})
        async with running(database_url, Worker("w", double), Worker("v", double)):
            await has_status(mesh, child, 0)
        await settled(connection, "letters")
        assert await mesh.get_status(parent) == 0


async def test_a_dead_letter_without_a_job_is_queued_again(database_url: str) -> None:
    async with running(database_url) as mesh, connected(database_url) as connection:
        await connection.execute("delete from hotmesh.broadcast")
        number = await connection.fetchval(
            "insert into hotmesh.broadcast (app_id, topic, facet, query, data, created_at) "
            "values ('letters', 'no.such', 'a:b', '{}', '{}', now()) returning id"
        )
        await connection.execute("select hotmesh.bury_broadcast('letters', $1, 'not yet known')", number)
        (letter,) = await mesh.list_dead_letters()
        assert (letter.stream, letter.topic, letter.job_id, letter.activity_id) == (
            "engine",
            "no.such",
            "",
            "",
        )
        await mesh.requeue(letter.id)

        # It still cannot be carried out, and so becomes a dead letter again.
        async def back() -> bool:
            return [one.id for one in await mesh.list_dead_letters()] not in ([], [letter.id])

        await eventually(back)


async def test_a_caller_is_told_of_the_error_and_the_requeued_job_goes_on_without_it(
    database_url: str,
) -> None:
    async with running(database_url) as mesh, connected(database_url) as connection:
        waiting = asyncio.create_task(mesh.pubsub("one", {"x": 3}, timeout=20))
        await eventually(lambda: _count(connection, "worker_stream"))
        await poison(connection, "w")
        async with gravedigger(database_url, "w"):
            (letter_id,) = await dead(mesh)
        with pytest.raises(JobError, match="Poison message detected") as caught:
            await waiting
        # However long ago it ended: the job comes back while its row is there.
        await connection.execute("update hotmesh.job set expires_at = now() - interval '1 hour'")
        await mesh.requeue(letter_id)
        assert caught.value.job_id is not None
        assert await mesh.get_status(caught.value.job_id) == 1


async def test_an_engine_gives_up_what_it_cannot_store_and_goes_on_once_it_can(database_url: str) -> None:
    async with HotMesh.init(
        app_id="letters", connection=database_url, settings={"poison_threshold": 1}
    ) as mesh, connected(database_url) as connection:  # fmt: skip
        await mesh.deploy(GRAPHS)
        await mesh.activate("1")
        job_id = await mesh.pub("two", {})
        await connection.execute(
            "create function stop() returns trigger language plpgsql as $$ begin raise exception 'full' using errcode = '22023'; end $$;"
            "create trigger stop before update on hotmesh.job for each row when (new.status > 0) "
            "execute function stop()"
        )
        await mesh.signal("go.on", {"id": job_id})
        (letter_id,) = await dead(mesh)
        (letter,) = await mesh.list_dead_letters()
        assert (letter.topic, letter.activity_id, "full" in letter.reason) == ("signal", "h2", True)
        assert await mesh.get_status(job_id) < 0
        await connection.execute("drop trigger stop on hotmesh.job")
        await mesh.requeue(letter_id)
        await has_status(mesh, job_id, 2)


NUL: dict[str, Any] = {"x": "\0 and \\u0000 and \\\0", "\0": ["\0"]}


@pytest.mark.parametrize("graph", ["one", "whole"])
async def test_nul_characters_survive_a_requeue(database_url: str, graph: str) -> None:
    yaml = GRAPHS.replace("input: {maps: {x: '{t1.output.data.x}'}}", "input: {maps: '{t1.output.data}'}")
    received: list[Any] = []

    async def receive(message: StreamData) -> dict[str, Any]:
        received.append(message.data)
        return {"y": 1}

    async with HotMesh.init(app_id="letters", connection=database_url) as mesh:
        await mesh.deploy(yaml)
        await mesh.activate("1")
        job_id = await mesh.pub("one", NUL)
        if graph == "one":
            async with connected(database_url) as connection:
                await poison(connection, "w")
            async with gravedigger(database_url, "w"):
                await dead(mesh)
            await has_status(mesh, job_id, 0)
    if graph == "whole":  # without an engine that would handle what is due before it is given up
        async with connected(database_url) as connection:
            await give_up(database_url, connection, job_id)
    async with HotMesh.init(app_id="letters", connection=database_url) as mesh:
        (letter_id,) = await dead(mesh)
        await mesh.requeue(letter_id)
        async with HotMesh.init(
            app_id="letters", connection=database_url, engine=False, workers=[Worker("w", receive)]
        ):
            await eventually(lambda: received)
    assert received == [NUL]
