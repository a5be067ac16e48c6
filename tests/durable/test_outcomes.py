"""What workflows return and raise, and how often they are tried: from their code to who waits for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from hotmesh.durable import Client, RetryPolicy, Worker, activity, errors, workflow

pytestmark = pytest.mark.anyio

QUICK = RetryPolicy(initial_interval="20ms", backoff_coefficient=1, maximum_attempts=3, jitter=0)
calls: list[str] = []


@pytest.fixture(autouse=True)
def no_calls() -> None:
    calls.clear()


@activity.step
async def note(name: str) -> str:
    calls.append(name)
    return name


@activity.step
async def after(name: str, seconds: float) -> str:
    calls.append(name)
    await asyncio.sleep(seconds)
    return name


@activity.step(retry=RetryPolicy(maximum_attempts=1))
async def fails(name: str) -> None:
    calls.append(name)
    raise ValueError(f"{name} always fails")


@asynccontextmanager
async def worker(url: str, *functions: Any, **options: Any) -> AsyncIterator[Client]:
    async with Worker(url, task_queue="outcomes", workflows=list(functions), **options):
        yield await Client.connect(url, namespace=options.get("namespace", "durable"))


def defn(function: Any) -> Any:
    return workflow.defn(task_queue="outcomes")(function)


async def failure(client: Client, function: Any, *args: Any) -> errors.WorkflowFailedError:
    with pytest.raises(errors.WorkflowFailedError) as found:
        await client.execute_workflow(function, *args)
    return found.value


# -- values -------------------------------------------------------------------------------------------------


@pytest.mark.row("CB-08", "CB-09", "CB-10", "CB-11", "CB-12", "CB-13")
async def test_what_a_workflow_returns_arrives_as_it_is(database_url: str) -> None:
    """CB-08 to CB-13, told from memory and read from the row."""
    values: list[Any] = ["text", "", 0, 1.5, False, True, None, [], {}, {"a": [1, {"b": None}]}]

    @defn
    async def gives(place: int) -> Any:
        return await workflow.step(value, place)

    async def value(place: int) -> Any:
        return values[place]

    async with worker(database_url, gives) as client:
        connection = await asyncpg.connect(database_url)
        for place, expected in enumerate(values):
            handle = await client.start_workflow(gives, place)
            for found in (await handle.result(timeout=10), await handle.result(timeout=10)):
                assert found == expected
                assert type(found) is type(expected)
            assert await handle.status() == 0
        assert await connection.fetchval("select bool_and(updated_at > created_at) from durable.job")
        await connection.close()


@pytest.mark.row("CB-04", "CB-05", "CB-06", "CB-07")
async def test_an_empty_database_is_prepared_by_whoever_comes_first(empty_database_url: str) -> None:
    """CB-04 to CB-07: clients and workers at the same instant; and the tables of another namespace stay empty."""

    @defn
    async def lone() -> str:
        return "here"

    async with await Client.connect(empty_database_url, namespace="orders") as client:
        workers = [
            Worker(empty_database_url, task_queue=queue, workflows=[lone], namespace=space)
            for queue, space in (("outcomes", "orders"), ("outcomes", "durable"), ("other", "durable"))
        ]
        first, _, other = await asyncio.gather(
            client.start_workflow(lone),
            asyncio.gather(*(one.start() for one in workers)),
            Client.connect(empty_database_url),
        )
        assert await first.result(timeout=20) == "here"
        connection = await asyncpg.connect(empty_database_url)
        assert await connection.fetchval("select count(*) from orders.job") == 1
        assert await connection.fetchval("select count(*) from durable.job") == 0
        await connection.close()
        assert await other.execute_workflow(lone) == "here"
        await other.close()
        async with Worker(empty_database_url, task_queue="outcomes", workflows=[lone], namespace="later"):
            late = await Client.connect(empty_database_url, namespace="later")
            assert await late.execute_workflow(lone) == "here"
        for one in workers:
            await one.stop()


@pytest.mark.row("IN-22", "IN-23")
async def test_what_a_step_knows_of_itself(database_url: str) -> None:
    """IN-22, IN-23, of steps: name and workflow; elsewhere there is nothing to know."""

    async def asks() -> list[Any]:
        known = activity.get_context()
        return [known.activity_name, known.workflow_id, known.attempt]

    @defn
    async def knows() -> Any:
        return await workflow.step(asks)

    async with worker(database_url, knows) as client:
        handle = await client.start_workflow(knows, id="mine")
        assert await handle.result(timeout=10) == ["asks", "mine", 1]
    with pytest.raises(RuntimeError, match="get_context"):
        activity.get_context()


# -- many things at once ------------------------------------------------------------------------------------


@pytest.mark.row("WP-35", "WP-36", "WP-39", "WP-42", "WP-43")
async def test_asyncio_does_what_it_does_and_the_same_in_a_replay(database_url: str) -> None:
    """WP-35, WP-36, WP-39, WP-42, WP-43, with steps; what came of it is the name of the next step, so that a replay would tell."""
    reached, gate = asyncio.Event(), asyncio.Event()

    async def hold() -> str:
        reached.set()
        await gate.wait()
        return "held"

    async def member(name: str, seconds: float) -> str:
        return await after(name, seconds)

    async def raises() -> None:
        await fails("grouped")

    @defn
    async def busy() -> list[str]:
        told = []
        done, _ = await asyncio.wait(
            [asyncio.create_task(member("slow", 0.3)), asyncio.create_task(member("fast", 0.01))],
            return_when=asyncio.FIRST_COMPLETED,
        )
        told.append(f"first {sorted(one.result() for one in done)}")
        order = [
            await one for one in asyncio.as_completed([member(f"n{n}", 0.02 * (3 - n)) for n in range(4)])
        ]
        told.append(f"order {order}")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(member("given up", 60))
                group.create_task(raises())
        except* errors.ActivityError as found:
            told.append(f"group {len(found.exceptions)}")
        try:  # noqa: SIM105 - as users do
            await fails("swallowed")
        except Exception:  # noqa: BLE001 - as users do
            pass
        told.append(await workflow.step(note, "after", name=f"after {told}"))
        await workflow.step(hold)
        return told

    first = Worker(database_url, task_queue="outcomes", workflows=[busy])
    await first.start()
    client = Client(database_url)
    handle = await client.start_workflow(busy)
    await asyncio.wait_for(reached.wait(), 10)
    await first.stop(grace=0)
    gate.set()
    seen = list(calls)
    async with Worker(database_url, task_queue="outcomes", workflows=[busy]):
        told = await handle.result(timeout=20)
    assert told == ["first ['fast']", "order ['n3', 'n2', 'n1', 'n0']", "group 1", "after"]
    # The slow one of the race had been left; nothing else was run again.
    assert [name for name in calls[len(seen) :] if name != "slow"] == []
    await client.close()


@pytest.mark.row("WP-40", "WP-45")
async def test_random_numbers_take_places_and_many_steps_run_once_each(database_url: str) -> None:
    """WP-40, WP-45."""

    @defn
    async def long() -> list[Any]:
        waits = workflow.condition("go")
        number = workflow.random()
        return [await waits, 0 <= number < 1]

    @defn
    async def many() -> int:
        return len([await note(f"s{place}") for place in range(200)])

    async with worker(database_url, long, many) as client:
        waiting = await client.start_workflow(long)
        assert await client.execute_workflow(many) == 200
        assert calls == [f"s{place}" for place in range(200)]
        await client.signal("go", {"by": "ann"})
        assert await waiting.result(timeout=10) == [{"by": "ann"}, True]


# -- failing, and trying again ------------------------------------------------------------------------------


@pytest.mark.row("RT-08", "RT-20", "RT-28")
async def test_attempts_are_counted_at_one_place(database_url: str) -> None:
    """RT-08, RT-20, RT-28: what is recorded in between begins the count anew; 1 attempt is 1."""

    @defn
    async def stumbles() -> int:
        await note("a")
        if calls.count("first") < 2:
            calls.append("first")
            raise ValueError("at the first place")
        await note("b")
        if calls.count("second") < 2:
            calls.append("second")
            raise OSError("at the second place")
        return calls.count("a") + calls.count("b")

    @defn
    async def once() -> None:
        calls.append("once")
        raise ValueError("recurring-test-error")

    async with worker(database_url, stumbles, once) as client:
        handle = await client.start_workflow(stumbles, retry=QUICK)
        assert await handle.result(timeout=10) == 2
        found = await client.start_workflow(once, retry={"maximum_attempts": 1})
        with pytest.raises(errors.WorkflowFailedError) as raised:
            await found.result(timeout=10)
    error = raised.value
    assert (error.message, error.code, calls.count("once")) == ("recurring-test-error", 597, 1)
    assert "in once" in (error.stack or "")


@pytest.mark.row("RT-12", "RT-18", "RT-21", "RT-22", "RT-31")
async def test_what_is_tried_again_and_what_is_final(database_url: str) -> None:
    """RT-12, RT-18, RT-21, RT-22, RT-31."""

    class DriverError(Exception):
        def __init__(self, code: Any) -> None:
            super().__init__(f"code {code}")
            self.code = code

    kinds: dict[str, Any] = {
        "maxed": lambda: errors.MaxedError("enough"),
        "late": lambda: errors.DurableTimeoutError("too long"),
        "fatal": lambda: errors.FatalError("no"),
        "final": lambda: errors.ApplicationError("final", non_retryable=True),
        "forbidden": lambda: KeyError("not to be retried"),
        "driver": lambda: DriverError("23505"),
        "control": lambda: DriverError(595),
        "soon": lambda: errors.ApplicationError("soon", next_retry_delay=0.01),
    }

    @defn
    async def raises(kind: str) -> None:
        calls.append(kind)
        error = kinds[kind]()
        raise error

    @defn
    async def step_fails() -> None:
        await fails("Validation")

    policy = RetryPolicy(
        initial_interval="20ms",
        backoff_coefficient=1,
        maximum_attempts=3,
        jitter=0,
        non_retryable_errors=[LookupError],
    )

    async with worker(database_url, raises, step_fails, retry=policy) as client:
        expected = {
            "maxed": (597, 1),
            "late": (596, 1),
            "fatal": (598, 1),
            "final": (None, 1),
            "forbidden": (None, 1),
            "driver": (597, 3),
            "control": (597, 3),
        }
        found = await asyncio.gather(*(failure(client, raises, kind) for kind in expected))
        for (kind, (code, times)), error in zip(expected.items(), found, strict=True):
            assert calls.count(kind) == times, kind
            assert code is None or error.code == code, kind
        slow = RetryPolicy(initial_interval="1 hour", maximum_interval="1 hour", maximum_attempts=2)
        began = time.monotonic()
        with pytest.raises(errors.WorkflowFailedError, match="soon"):
            await client.execute_workflow(raises, "soon", retry=slow)
        assert time.monotonic() - began < 5
        error = await failure(client, step_fails)
        assert "Validation always fails" in str(error)
        assert isinstance(error.__cause__, errors.ActivityError)
        assert calls.count("Validation") == 1


async def test_a_chain_of_causes_arrives_whole(database_url: str) -> None:
    @defn
    async def wraps() -> None:
        try:
            await fails("inner")
        except errors.ActivityError as error:
            raise RuntimeError("could not be done") from error

    async with worker(database_url, wraps) as client:
        with pytest.raises(errors.WorkflowFailedError) as found:
            await client.execute_workflow(wraps, retry=QUICK)
    chain: list[BaseException] = []
    one: BaseException | None = found.value
    while one is not None:
        chain.append(one)
        one = one.__cause__
    assert [getattr(error, "message", "") for error in chain] == [
        "could not be done",
        "could not be done",
        "inner always fails",
        "inner always fails",
    ]
    assert found.value.code == 597
