"""Calls and schedules between processes: results that are remembered, single flight, beginning again."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from harness import connected, eventually
from hotmesh import ConfigError, DuplicateJobError, HotMesh, HotMeshError, JobError, JobTimeoutError, Virtual
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.virtual.app import VERSION, ensure_active
from hotmesh.virtual.calls import Calls

pytestmark = pytest.mark.anyio

QUICK = {"initial_interval": 0.01}


@pytest.fixture
async def place(module_database_url: str) -> AsyncIterator[dict[str, Any]]:
    """Where the functions of this module are; whatever a test has made is stopped after it."""
    yield {"connection": module_database_url}
    await Virtual.shutdown()


class Counted:
    """A callback that counts its calls, and fails for the first `failures` of them."""

    def __init__(self, failures: int = 0) -> None:
        self.times: list[float] = []
        self.attempts: list[int] = []
        self._failures = failures

    async def __call__(self, *args: Any) -> Any:
        self.times.append(time.monotonic())
        self.attempts.append(Virtual.get_context().attempt)
        if len(self.times) <= self._failures:
            raise ValueError(f"failure {len(self.times)}")
        return {"number": len(self.times), "args": list(args)}


@pytest.mark.row(318, 319)
async def test_a_function_answers_what_it_was_given(place: dict[str, Any]) -> None:
    async def echo(value: Any) -> Any:
        return value

    mesh = await Virtual.connect("echo", echo, **place)

    assert isinstance(mesh, HotMesh)
    assert await Virtual.exec("echo", [{"hello": ["wörld", None, 1.5]}], **place) == {
        "hello": ["wörld", None, 1.5]
    }
    assert await Virtual.exec("echo", [None], **place) is None


async def test_plain_functions_run_in_threads_and_models_are_stored(place: dict[str, Any]) -> None:
    @dataclass
    class Sum:
        value: int
        thread: int

    def add(*numbers: int) -> Sum:
        return Sum(sum(numbers), threading.get_ident())

    await Virtual.connect("add", add, **place)
    await Virtual.connect("later", lambda number: Virtual.exec("add", [number, 1], **place), **place)

    found = await Virtual.exec("add", [1, 2, 3], **place)
    assert found["value"] == 6
    assert found["thread"] != threading.get_ident()
    assert (await Virtual.exec("later", [6], **place))["value"] == 7


@pytest.mark.row(320, 321, 322)
async def test_results_are_kept_until_they_are_flushed(place: dict[str, Any]) -> None:
    counted = Counted()
    await Virtual.connect("count", counted, **place)

    async def count(*args: Any, **options: Any) -> Any:
        return await Virtual.exec("count", args, id="kept", ttl="1 minute", **options, **place)

    first = await count("a")
    assert await count("b") == first == {"number": 1, "args": ["a"]}
    assert await count("c", flush=True) == {"number": 2, "args": ["c"]}
    assert (await count("d"))["number"] == 2

    await Virtual.flush("count", id="kept", **place)
    await Virtual.flush("count", options={"id": "nobody"}, **place)
    assert await Virtual.exec("count", ["e"], options={"id": "kept", "ttl": "1 minute"}, **place) == {
        "number": 3,
        "args": ["e"],
    }


@pytest.mark.row(334)
async def test_a_call_runs_again_when_its_time_is_over(place: dict[str, Any]) -> None:
    counted = Counted()
    await Virtual.connect("expiring", counted, **place)

    async def second() -> Any:
        return (await Virtual.exec("expiring", [], id="x", ttl=0.2, **place))["number"] == 2

    assert (await Virtual.exec("expiring", [], id="x", ttl=0.2, **place))["number"] == 1
    await eventually(second)


@pytest.mark.row(334)
async def test_calls_with_one_id_at_once_are_one_execution(
    place: dict[str, Any], module_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, counted = anyio.Event(), Counted()

    async def slow(value: str) -> Any:
        await counted()
        await release.wait()
        return value

    await Virtual.connect("slow", slow, **place)
    results: list[Any] = []
    looks: set[HotMesh] = set()
    get_state = HotMesh.get_state

    async def look(mesh: HotMesh, topic: str, job_id: str) -> Any:
        found = await get_state(mesh, topic, job_id)
        looks.add(mesh)
        return found

    monkeypatch.setattr(HotMesh, "get_state", look)

    async with (
        HotMesh.init("hmsh", connection=module_database_url, readonly=True) as other,
        anyio.create_task_group() as tasks,
    ):

        async def call(value: str) -> None:
            results.append(await Virtual.exec("slow", [value], id="flight", **place))

        async def call_from_elsewhere() -> None:
            results.append(await Calls(other).call_once("flight", "slow", ["c"], kept=5.0, timeout=20.0))

        tasks.start_soon(call, "a")
        await eventually(lambda: counted.times)
        tasks.start_soon(call, "b")
        tasks.start_soon(call_from_elsewhere)
        await eventually(lambda: len(looks) >= 2)
        release.set()

    assert (results, len(counted.times)) == (["a", "a", "a"], 1)


async def test_a_call_that_failed_is_made_again(place: dict[str, Any]) -> None:
    await Virtual.connect("once", Counted(failures=1), retry={"maximum_attempts": 1}, **place)

    with pytest.raises(JobError, match="failure 1"):
        await Virtual.exec("once", [], id="again", ttl="1 hour", **place)
    assert (await Virtual.exec("once", [], id="again", ttl="1 hour", **place))["number"] == 2


@pytest.mark.row(329)
async def test_a_call_is_tried_three_times_with_growing_pauses(place: dict[str, Any]) -> None:
    failing = Counted(failures=100)
    await Virtual.connect("failing", failing, retry={"initial_interval": 0.05}, **place)

    with pytest.raises(JobError, match="failure 3"):
        await Virtual.exec("failing", **place)
    one, two, three = failing.times
    assert (failing.attempts, three - two > (two - one) / 2) == ([1, 2, 3], True)


async def test_a_call_waits_for_a_worker_and_its_caller_only_so_long(
    place: dict[str, Any], module_database_url: str
) -> None:
    counted = Counted()

    with pytest.raises(JobTimeoutError) as raised:
        await Virtual.exec("nobody", ["late"], timeout=0.05, **place)
    with pytest.raises(JobTimeoutError):
        await Virtual.exec("nobody", id="waits", timeout=0.05, **place)
    with pytest.raises(JobTimeoutError):
        await Virtual.exec("nobody", id="waits", timeout=0.05, **place)
    assert raised.value.code == 504

    await Virtual.connect("nobody", counted, **place)
    await eventually(lambda: len(counted.times) == 2)


async def test_an_id_belongs_to_one_topic(place: dict[str, Any]) -> None:
    await Virtual.connect("mine", Counted(), **place)
    await Virtual.exec("mine", id="taken", ttl=60, **place)

    for call in (
        Virtual.exec("yours", id="taken", **place),
        Virtual.flush("yours", id="taken", **place),
        Virtual.cron("mine", id="taken", interval="1 minute", **place),
    ):
        with pytest.raises(DuplicateJobError, match="taken"):
            await call


@pytest.mark.row(323, 324, 325, 335)
async def test_a_schedule_of_seconds(place: dict[str, Any]) -> None:
    counted = Counted()

    async def start() -> bool:
        return await Virtual.cron("tick", ["x"], callback=counted, id="s1", interval="1 second", **place)

    assert [await start(), await start()] == [True, False]
    await eventually(lambda: len(counted.times) >= 3)
    assert await Virtual.interrupt("tick", id="s1", **place)
    assert not await Virtual.interrupt("tick", id="s1", **place)

    gaps = [later - earlier for earlier, later in zip(counted.times, counted.times[1:], strict=False)]
    assert all(gap >= 1.0 for gap in gaps), gaps
    assert min(gaps) < 1.5, gaps


@pytest.mark.row(326, 334)
async def test_a_schedule_that_has_ended_begins_again(
    place: dict[str, Any], module_database_url: str
) -> None:
    counted = Counted()

    async def start(**options: Any) -> bool:
        return await Virtual.cron(
            "twice", callback=counted, id="s2", interval=1, max_cycles=2, delay=0.1, **options, **place
        )

    async def ended() -> bool:
        async with connected(module_database_url) as database:
            return bool(await database.fetchval("select status <= 0 from hotmesh.job where job_id = 's2'"))

    assert await start()
    await eventually(ended)
    assert len(counted.times) == 2

    assert await start()
    assert not await start()
    await eventually(lambda: len(counted.times) >= 3)
    assert await Virtual.interrupt("twice", id="s2", **place)
    assert await start()


@pytest.mark.row(328)
@pytest.mark.parametrize("attempts", [3, 5])
async def test_a_schedule_ends_when_a_run_has_failed_at_last(
    place: dict[str, Any], module_database_url: str, attempts: int
) -> None:
    failing, schedule = Counted(failures=100), f"failing {attempts}"
    retry = {"maximum_attempts": attempts, "initial_interval": 0.001}

    await Virtual.cron(
        schedule, callback=failing, id=schedule, interval=1, retry=retry, on_error="stop", **place
    )

    async def ended() -> Any:
        async with connected(module_database_url) as database:
            return await database.fetchval(
                "select error ->> 'message' from hotmesh.job where job_id = $1 and ended_at is not null",
                schedule,
            )

    assert await eventually(ended) == f"failure {attempts}"
    assert failing.attempts == list(range(1, attempts + 1))


@pytest.mark.row(372)
async def test_attempts_are_counted_from_one(place: dict[str, Any]) -> None:
    counted = Counted(failures=2)

    await Virtual.cron("third", callback=counted, id="s3", interval="1 hour", retry=QUICK, **place)

    await eventually(lambda: len(counted.times) == 3)
    assert counted.attempts == [1, 2, 3]


async def test_a_schedule_continues_after_a_failure_if_it_is_told_to(place: dict[str, Any]) -> None:
    counted = Counted(failures=1)
    retry = {"maximum_attempts": 1}

    await Virtual.cron(
        "goes on", callback=counted, id="s4", interval=1, on_error="continue", retry=retry, **place
    )

    await eventually(lambda: len(counted.times) >= 2)
    assert counted.attempts[:2] == [1, 1]


@pytest.mark.row(331, 332)
async def test_what_a_callback_knows(place: dict[str, Any]) -> None:
    seen: list[Any] = []

    async def note() -> None:
        seen.append(Virtual.get_context())

    def note_in_thread() -> None:
        seen.append(Virtual.get_context())

    await Virtual.cron("noted", callback=note, id="s5", interval="1 hour", **place)
    await eventually(lambda: seen)
    await Virtual.connect("noted too", note_in_thread, **place)
    await Virtual.exec("noted too", id="call", **place)

    cron, call = seen
    assert (cron.topic, cron.workflow_id, cron.workflow_name) == ("noted", "s5", "hmsh.cron")
    assert (call.topic, call.workflow_id, call.workflow_name) == ("noted too", "call", "hmsh.call")
    for context in (cron, call):
        assert context.guid
        assert context.attempt == 1
        assert context.dimension.startswith(",0")
        assert isinstance(context.trace_id, str)
        assert isinstance(context.span_id, str)


@pytest.mark.row(333)
async def test_there_is_no_context_outside_of_a_callback(place: dict[str, Any]) -> None:
    del place
    with pytest.raises(
        HotMeshError,
        match=r"Virtual.getContext\(\) called outside of a Virtual callback execution context",
    ):
        Virtual.get_context()


async def test_many_processes_deploy_the_app_at_once(database_url: str) -> None:
    async def begin() -> None:
        async with HotMesh.init("hmsh", connection=database_url) as mesh:
            await ensure_active(mesh, ConnectionSource(database_url))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(begin)

    async with connected(database_url) as database:
        rows = await database.fetch("select active_version, epoch from hotmesh.app")
        assert [tuple(row) for row in rows] == [(str(VERSION), 2)]


async def test_a_newer_version_is_left_alone_and_another_app_is_not_overwritten(database_url: str) -> None:
    other = """
app:
  id: shop
  version: '1'
  graphs: [{subscribes: order, activities: {t: {type: trigger}}}]
"""
    async with HotMesh.init("shop", connection=database_url) as shop:
        await shop.deploy(other)
        await shop.activate("1")
    with pytest.raises(ConfigError, match="app shop in namespace hotmesh is an app of its own"):
        await Virtual.exec("x", app_id="shop", connection=database_url)

    async with connected(database_url) as database:
        await Virtual.connect("x", Counted(), connection=database_url)
        await database.execute(
            "insert into hotmesh.app_version (app_id, version, graph, checksum) "
            "select app_id, '99', graph, checksum from hotmesh.app_version where app_id = 'hmsh'"
        )
        await database.execute(
            "update hotmesh.app set active_version = '99', epoch = 50 where app_id = 'hmsh'"
        )
        await Virtual.shutdown()
        await Virtual.connect("x", Counted(), connection=database_url)
        assert await Virtual.exec("x", connection=database_url) == {"number": 1, "args": []}
        active = "select active_version from hotmesh.app where app_id = 'hmsh'"
        assert await database.fetchval(active) == "99"
    await Virtual.shutdown()


async def test_instances_are_shared_and_shutdown_stops_exactly_those(
    place: dict[str, Any], module_database_url: str
) -> None:
    first = Counted()
    async with HotMesh.init("hmsh", connection=module_database_url) as mine:
        one = await Virtual.connect("one", first, **place)
        assert await Virtual.connect("two", Counted(), **place) is one
        assert await Virtual.connect("one", first, **place) is one
        further = await Virtual.connect("one", Counted(), **place)
        named = await Virtual.connect("three", Counted(), guid="by-name", **place)
        quiet = await Virtual.connect("one", first, log_level="silent", **place)
        assert await Virtual.connect("two", Counted(), log_level="silent", **place) is quiet
        assert len({one, further, named, quiet, mine}) == 5
        assert named.guid_ == "by-name"
        with pytest.raises(ConfigError, match="log_level= cannot be 'loud'"):
            await Virtual.cron("one", callback=first, id="loud", interval=1, log_level="loud", **place)

        await Virtual.shutdown()
        assert all(mesh.stopped for mesh in (one, further, named, quiet))
        assert not mine.stopped

    again = await Virtual.connect("one", first, **place)
    assert not again.stopped
    await again.stop()
    assert await Virtual.connect("one", first, **place) is not again


async def test_a_starter_processes_nothing(place: dict[str, Any]) -> None:
    assert await Virtual.cron("later", id="s6", interval="1 hour", **place)
    counted = Counted()
    await Virtual.connect("later", counted, **place)
    await eventually(lambda: counted.times)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"args": "text"}, "args is the list"),
        ({"id": ""}, "id must be a text"),
        ({"ttl": 0, "id": "a"}, "ttl must be longer than 0"),
        ({"ttl": "soon", "id": "a"}, "ttl 'soon' is not a duration"),
        ({"options": {"tll": 1}}, "options has no key 'tll'"),
        ({"options": {"id": "a"}, "id": "b"}, "id is given twice"),
    ],
)
async def test_what_exec_cannot_use_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        await Virtual.exec("t", **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "id must be a text"),
        ({"id": "a"}, "interval is missing"),
        ({"id": "a", "interval": "never"}, "Invalid cron/interval expression: never"),
        ({"id": "a", "interval": 5, "max_cycles": 0}, "max_cycles must be"),
        ({"id": "a", "interval": 5, "on_error": "retry"}, "on_error must be"),
        ({"id": "a", "interval": 5, "args": {"a": 1}}, "args is the list"),
    ],
)
async def test_what_cron_cannot_use_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        await Virtual.cron("t", **arguments)
