"""What Postgres refuses for a while ends no instance, and is never held against a job; what is a job's own fault is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from harness import connected, eventually, one_worker, owed, settled
from hotmesh import HotMesh, HotMeshError, JobError, StreamData, Worker
from hotmesh.errors import CodecError, ConnectionLostError, NotAuthorizedError, SchemaError
from hotmesh.postgres import commits, definitions, loading, members
from hotmesh.postgres.commits import AnsweredElsewhereError
from hotmesh.postgres.connect.failures import Fault, StatementError, fault, passing
from interception import database_of, intercept

pytestmark = pytest.mark.anyio

APP = "refusals"

FLOW = """
app:
  id: refusals
  version: '1'
  graphs:
    - subscribes: outer
      publishes: outer.done
      expire: 3600
      activities:
        begin: {type: trigger}
        call: {type: worker, topic: w, input: {maps: {x: '{begin.output.data.x}'}}}
        rest: {type: hook, sleep: 1}
        ask: {type: await, topic: inner, input: {maps: {x: '{call.output.data.y}'}}}
        end: {type: hook, job: {maps: {y: '{ask.output.data.y}'}}}
      transitions:
        begin: [{to: call}]
        call: [{to: rest}]
        rest: [{to: ask}]
        ask: [{to: end}]
    - subscribes: inner
      expire: 3600
      activities:
        start: {type: trigger}
        work:
          type: worker
          topic: w
          input: {maps: {x: '{start.output.data.x}'}}
          job: {maps: {y: '{$self.output.data.y}'}}
      transitions:
        start: [{to: work}]
"""


class Refusal(StatementError):
    def __init__(self, sqlstate: str) -> None:
        Exception.__init__(self, f"refused with {sqlstate}")
        self.sqlstate = sqlstate


async def double(message: StreamData) -> dict[str, Any]:
    return {"y": message.data["x"] * 2}


@asynccontextmanager
async def deployed(url: str, *workers: Worker, graph: str = "", **options: Any) -> AsyncIterator[HotMesh]:
    served = list(workers) or [Worker("w", double)]
    options.setdefault("settings", {"reconnect_max": 0.2})
    async with HotMesh.init(APP, connection=url, workers=served, **options) as mesh:
        await mesh.deploy(graph or one_worker(APP))
        await mesh.activate("1")
        yield mesh


# -- whose fault it is ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "whose"),
    [
        *((Refusal(state), "values") for state in ("22001", "22003", "22P05", "22P02", "23505", "23514")),
        *(
            (Refusal(state), "database")
            for state in (
                "25P02", "25006", "28000", "3D000", "40001", "40P01", "53000", "53100", "53200", "53300", "53400", "55006",
                "55P03", "57014", "57P01", "57P03", "58000", "58030", "58P01", "72000", "F0000", "",
            )
        ),
        *((Refusal(state), "either") for state in ("54000", "54001", "XX000", "XX001", "P0001", "0A000", "42804")),
        (NotAuthorizedError("42501"), "database"),
        (SchemaError("42P01"), "database"),
        (ConnectionLostError("gone"), "database"),
        (CodecError("no key"), "database"),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), "values"),
    ],
    ids=lambda value: getattr(value, "sqlstate", None) or type(value).__name__ if isinstance(value, Exception) else None,
)  # fmt: skip
def test_the_sqlstate_tells_whose_fault_a_refusal_is(error: Exception, whose: Fault) -> None:
    assert fault(error) == whose
    assert passing(error) == (whose == "database")


# -- no loop ends --------------------------------------------------------------------------------------------


async def test_instances_outlive_a_storm_of_cancelled_statements(database_url: str) -> None:
    """Two engines, one of them without workers: memory, stream, timers, children, claims and answers."""
    async with deployed(database_url, graph=FLOW) as first, connected(database_url) as operator:
        second = await HotMesh.init(APP, connection=database_url, settings={"reconnect_max": 0.2})
        storm = asyncio.create_task(_cancel_everything(operator))
        jobs = []
        try:
            for x in range(60):
                for mesh in (first, second):
                    try:
                        jobs.append((x, await mesh.pub("outer", {"x": x})))
                    except HotMeshError:
                        assert not mesh.stopped
        finally:
            await asyncio.sleep(1.0)
            storm.cancel()
            await asyncio.wait([storm])  # its statement, too: the connection is used again
        assert len(jobs) > 60
        await settled(operator, APP, within=40)
        assert not first.stopped
        assert not second.stopped
        for x, job_id in jobs:
            assert (await first.get_state("outer", job_id)).data == {"y": 4 * x}
        assert (await second.pubsub("outer", {"x": 1}, timeout=10)).data == {"y": 4}
        await second.stop()


async def _cancel_everything(operator: asyncpg.Connection) -> None:
    while True:
        await operator.execute(
            "select pg_cancel_backend(pid) from pg_stat_activity where datname = current_database() "
            "and pid <> pg_backend_pid() and state = 'active' and random() < 0.3"
        )
        await asyncio.sleep(0.003)


def refusing(times: int, error: Callable[[], Exception], asked: list[int]) -> Callable[[Any], Any]:
    """Makes of a function one that is refused some times before it answers."""

    def wrapped(honest: Any) -> Any:
        async def call(*arguments: Any, **options: Any) -> Any:
            asked.append(1)
            if len(asked) <= times:
                raise error()
            return await honest(*arguments, **options)

        return call

    return wrapped


def cancelled() -> Exception:
    return Refusal("57014")


async def test_a_lost_commit_is_looked_up_until_there_is_an_answer(database_url: str) -> None:
    asked: list[int] = []
    async with deployed(database_url) as mesh:
        database, lost = database_of(mesh), 0

        async def commit(*arguments: Any, **options: Any) -> Any:
            nonlocal lost
            found = await honest(*arguments, **options)
            lost += 1
            if lost <= 2:
                raise ConnectionLostError("the answer was lost")
            return found

        honest = intercept(database, commits.commit, commit)
        wrapped = refusing(2, cancelled, asked)
        intercept(database, commits.written, wrapped(intercept(database, commits.written, None)))
        output = await mesh.pubsub("one", {"x": 4}, timeout=10)
        assert not mesh.stopped

    assert output.data == {"y": 8}
    assert len(asked) > 2


async def test_the_commits_go_on_when_it_cannot_be_looked_up_who_was_first(database_url: str) -> None:
    asked: list[int] = []
    gate = asyncio.Event()

    async def wait(message: StreamData) -> dict[str, Any]:
        await gate.wait()
        return {"y": message.data["x"]}

    async with deployed(database_url, Worker("w", wait)) as mesh, connected(database_url) as connection:
        database = database_of(mesh)
        wrapped = refusing(3, cancelled, asked)
        intercept(database, commits.gone, wrapped(intercept(database, commits.gone, None)))
        waiting = asyncio.create_task(mesh.pubsub("one", {"x": 4}, timeout=20))
        await eventually(lambda: connection.fetchval("select count(*) from hotmesh.worker_stream"))
        # Somebody else has it, as if the lease had lapsed: the answer from here does not count.
        await connection.execute("update hotmesh.worker_stream set reserved_by = 'other'")
        gate.set()
        await eventually(lambda: len(asked) > 3, what="a look that is answered")
        await connection.execute("update hotmesh.worker_stream set reserved_by = null, visible_at = now()")
        output = await waiting
        assert not mesh.stopped

    assert output.data == {"y": 4}


@pytest.mark.parametrize("function", [definitions.app_state, members.live_members, loading.load_jobs])
async def test_a_cancelled_look_is_repeated(database_url: str, function: Any) -> None:
    """At what is deployed, at who is there, at a job that is not in memory."""
    asked: list[int] = []
    settings = {"reconnect_max": 0.2, "cache_jobs": 1}
    async with deployed(database_url, settings=settings) as mesh, connected(database_url) as connection:
        database = database_of(mesh)
        intercept(database, function, refusing(2, cancelled, asked)(intercept(database, function, None)))
        if function is definitions.app_state:
            await connection.execute("update hotmesh.app set epoch = epoch + 1")
        outputs = await asyncio.gather(*(mesh.pubsub("one", {"x": x}, timeout=20) for x in range(30)))
        assert not mesh.stopped

    assert [output.data for output in outputs] == [{"y": 2 * x} for x in range(30)]


async def test_a_cancelled_look_for_an_expired_id_is_repeated(database_url: str) -> None:
    asked: list[int] = []
    async with deployed(database_url) as mesh, connected(database_url) as connection:
        database = database_of(mesh)
        await mesh.pubsub("one", {"x": 1}, extended={"id": "same"}, timeout=10)
        await connection.execute("update hotmesh.job set expires_at = now() - interval '1 second'")
        function = commits.free_expired_ids
        intercept(database, function, refusing(2, cancelled, asked)(intercept(database, function, None)))
        output = await mesh.pubsub("one", {"x": 2}, extended={"id": "same"}, timeout=10)
        assert not mesh.stopped

    assert output.data == {"y": 4}
    assert len(asked) >= 3


async def test_an_unexpected_failure_ends_no_commit_loop(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with deployed(database_url) as mesh:
        engine = mesh._member.engine
        assert engine is not None
        recovery = engine.group_commit._recovery
        calls = 0

        async def answered_elsewhere(*_: Any) -> Any:
            nonlocal calls
            calls += 1
            raise RuntimeError("a defect")

        async def commit(*arguments: Any, **options: Any) -> Any:
            if calls < 2:
                raise AnsweredElsewhereError
            return await honest(*arguments, **options)

        honest = intercept(database_of(mesh), commits.commit, commit)
        monkeypatch.setattr(recovery, "answered_elsewhere", answered_elsewhere)
        output = await mesh.pubsub("one", {"x": 4}, timeout=10)
        assert not mesh.stopped

    assert output.data == {"y": 8}


async def test_a_listener_outlives_whatever_the_users_connecting_function_raises(database_url: str) -> None:
    broken = False

    async def connect() -> asyncpg.Connection:
        if broken:
            raise RuntimeError("the vault with the password is sealed")
        return await asyncpg.connect(database_url)

    async with deployed(connect) as mesh, connected(database_url) as operator:  # type: ignore[arg-type]
        broken = True
        await operator.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        )
        await asyncio.sleep(0.5)
        assert not mesh.stopped
        broken = False
        await eventually(lambda: _succeeds(mesh), what="an answer")


async def _succeeds(mesh: HotMesh) -> bool:
    try:
        return (await mesh.pubsub("one", {"x": 2}, timeout=5)).data == {"y": 4}
    except HotMeshError:
        return False


# -- nothing that passes is held against a job ---------------------------------------------------------------

REFUSE = """
create sequence public.refusals;
create function public.refuse() returns trigger language plpgsql as $$
begin
    if nextval('public.refusals') <= {times} then
        raise exception 'not now' using errcode = '{state}';
    end if;
    return new;
end $$;
create trigger refuse before update on hotmesh.job for each row when ({when}) execute function public.refuse();
"""


@pytest.mark.parametrize("state", ["58030", "42501", "XX000", "54000", "57014", "53100", "P0001"])
@pytest.mark.parametrize("apart", [False, True], ids=["memory", "stream"])
async def test_a_refusal_that_passes_is_not_held_against_a_result(
    database_url: str, state: str, apart: bool
) -> None:
    """However often, and whether the answer comes from memory or by the stream."""
    gate, calls = asyncio.Event(), 0

    async def work(message: StreamData) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        await gate.wait()
        return {"y": message.data["x"]}

    async with (
        deployed(database_url, Worker("elsewhere" if apart else "w", work)) as mesh,
        connected(database_url) as connection,
    ):
        worker = None
        if apart:
            worker = await HotMesh.init(
                APP, connection=database_url, engine=False, workers=[Worker("w", work)]
            )
        job_id = await mesh.pub("one", {"x": 3})
        await eventually(lambda: calls == 1, what="the callback")
        await connection.execute(REFUSE.format(times=9, state=state, when="true"))
        gate.set()
        await settled(connection, APP, within=20)
        refused = await connection.fetchval("select last_value from public.refusals")
        state_of = await mesh.get_state("one", job_id)
        letters = await mesh.list_dead_letters()
        if worker is not None:
            await worker.stop()

    assert "err" not in state_of.metadata
    assert state_of.data == {"y": 3}
    assert (calls, letters) == (1, [])
    assert refused > 9


@pytest.mark.parametrize("state", ["22023", "23514", "54000", "XX000"])
@pytest.mark.parametrize("apart", [False, True], ids=["memory", "stream"])
async def test_a_result_that_is_refused_while_its_failure_is_not_becomes_an_error(
    database_url: str, state: str, apart: bool
) -> None:
    async with (
        deployed(database_url, Worker("elsewhere" if apart else "w", double)) as mesh,
        connected(database_url) as connection,
    ):
        worker = None
        if apart:
            worker = await HotMesh.init(
                APP, connection=database_url, engine=False, workers=[Worker("w", double)]
            )
        await connection.execute(REFUSE.format(times=10**9, state=state, when="new.error is null"))
        with pytest.raises(JobError, match="could not be stored") as caught:
            await mesh.pubsub("one", {"x": 3}, timeout=20)
        assert await owed(connection, APP) == {}
        if worker is not None:
            await worker.stop()

    assert caught.value.code == 500


async def test_one_job_that_is_refused_holds_up_no_other_on_the_stream(database_url: str) -> None:
    async with (
        deployed(database_url, Worker("elsewhere", double)) as mesh,
        HotMesh.init(APP, connection=database_url, engine=False, workers=[Worker("w", double)]),
        connected(database_url) as connection,
    ):
        when = "new.job_id = 'stuck'"
        await connection.execute(REFUSE.format(times=10**9, state="58030", when=when))
        await mesh.pub("one", {"x": 1}, extended={"id": "stuck"})
        await asyncio.sleep(0.3)
        outputs = [await mesh.pubsub("one", {"x": x}, timeout=5) for x in range(10)]
        assert await mesh.get_status("stuck") > 0
        await connection.execute("drop trigger refuse on hotmesh.job")
        await settled(connection, APP)
        assert (await mesh.get_state("one", "stuck")).data == {"y": 2}

    assert [output.data for output in outputs] == [{"y": 2 * x} for x in range(10)]


async def test_a_start_that_is_refused_once_is_tried_again(database_url: str) -> None:
    async with deployed(database_url) as mesh, connected(database_url) as connection:
        await connection.execute(
            REFUSE.format(times=2, state="57014", when="true").replace("before update", "before insert")
        )
        assert (await mesh.pubsub("one", {"x": 3}, timeout=10)).data == {"y": 6}
