"""What newcomers do wrong most often: each mistake is told by its name, and with the way out."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import traceback
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter
from typing import Any

import pytest

from hotmesh.durable import Client, RetryPolicy, Worker, activity, errors, workflow
from hotmesh.errors import ConfigError

pytestmark = pytest.mark.anyio

defn = workflow.defn(task_queue="mistakes", retry=RetryPolicy(maximum_attempts=1))
outside: list[asyncio.Future[int]] = []


@activity.step
async def charge(amount: int) -> str:
    return f"paid {amount}"


@activity.defn
async def ship(parcel: int) -> int:
    return parcel


@activity.defn
def weigh(parcel: int) -> int:
    return parcel


async def label(parcel: Any) -> str:
    return f"label of {parcel}"


@defn
async def right(amount: int) -> str:
    return await charge(amount)


@defn
async def forgets_await() -> Any:
    return charge(5)


@defn
async def blocks() -> None:
    pause()


def pause() -> None:
    time.sleep(5)


@defn
async def rolls() -> float:
    return numbers()


def numbers() -> float:
    return random.random()


@defn
async def fetches() -> None:
    urllib.request.urlopen("http://127.0.0.1:1/")  # noqa: ASYNC210 - the mistake


@defn
async def reads() -> str:
    with open("/etc/hostname") as file:  # noqa: ASYNC230, PTH123 - the mistake
        return file.read()


@defn
async def steps_a_lambda() -> int:
    return await workflow.step(lambda: 5)


@defn
async def calls_too_early() -> str:
    return await workflow.step(label(5))  # type: ignore[call-overload,no-any-return]


@defn
async def gives_an_object() -> str:
    return await workflow.step(label, {"box": [1, object()]})


@defn
async def calls_an_activity() -> int:
    return await ship(5)


@defn
async def calls_a_blocking_activity() -> int:
    return weigh(5)


@defn
async def misspells() -> str:
    return await workflow.step(charge, 5, retries=3)  # type: ignore[call-overload,no-any-return]


@defn
async def names_an_argument() -> str:
    return await workflow.step(charge, amount=5)  # type: ignore[call-overload,no-any-return]


@defn
async def waits_for_the_process() -> int:
    return await outside[0]


@defn
async def uses_a_client() -> str:
    return await Client().execute_workflow(right, 5)


@defn
async def steps_a_workflow() -> str:
    return await workflow.step(right, 5)


TOLD: dict[Callable[..., Any], tuple[str, ...]] = {
    forgets_await: ("the step 'charge', which was not awaited, at result",),
    blocks: ("time.sleep()", "await asyncio.sleep(…)"),
    rolls: ("random.random()", "workflow.random()"),
    fetches: ("socket.getaddrinfo('127.0.0.1')", "workflow.step"),
    reads: ("open('/etc/hostname')", "workflow.step"),
    steps_a_lambda: ("a lambda has no name, so it cannot be a step", "def"),
    calls_too_early: (
        "label(...) was called where the function itself is wanted",
        "`label` without the brackets",
    ),
    gives_an_object: ("argument parcel of label", "a value of type object at parcel.box[1]", "a dataclass"),
    calls_an_activity: (
        "call activity ship directly",
        "`await workflow.step(ship, …)`, or `workflow.execute_activity`",
    ),
    calls_a_blocking_activity: ("call activity weigh directly", "`await workflow.step(weigh, …)`"),
    misspells: ("workflow.step has no option retries", "did you mean retry?"),
    names_an_argument: ("no option amount", "the arguments of charge are given by position"),
    waits_for_the_process: ("another event loop", "workflow.step"),
    uses_a_client: ("use a Client", "in a step"),
    steps_a_workflow: ("right is a workflow, so it cannot be a step", "`await right(...)`"),
}


async def test_mistakes_in_a_workflow_fail_it_by_name_and_with_the_way_out(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "hotmesh")
    outside[:] = [asyncio.get_running_loop().create_future()]
    async with Worker(database_url, task_queue="mistakes", workflows=[right, *TOLD]):
        client = await Client.connect(database_url)
        handles = {function: await client.start_workflow(function) for function in TOLD}
        for function, words in TOLD.items():
            with pytest.raises(errors.WorkflowFailedError) as failed:
                await handles[function].result(timeout=10)
            for word in words:
                assert word in str(failed.value), function
        assert await client.execute_workflow(right, 5) == "paid 5"


async def test_starts_that_go_wrong_are_told_where_they_are_made(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Worker(database_url, task_queue="mistakes", workflows=[right]):
        client = await Client.connect(database_url)
        start: Any = client.start_workflow
        with pytest.raises(
            ConfigError, match=r"right\(\.\.\.\) was called where the function itself is wanted"
        ):
            await start(right(5))
        with pytest.raises(
            TypeError, match="the arguments of right are given by position, after the function"
        ):
            await start(right, amount=5)
        with pytest.raises(TypeError, match="no option workflow_id; did you mean id"):
            await start(right, 5, workflow_id="a")

        handle = await start(rolls, id="lost")
        with pytest.raises(
            TimeoutError, match=r"lost has not ended within 0\.1 s, and runs on; `hotmesh explain lost "
        ):
            await handle.result(timeout=0.1)
        with pytest.raises(errors.WorkflowAlreadyStartedError, match=r"lost.*choose another.*use_existing"):
            await start(rolls, id="lost")
        await start("rihgt", 5, task_queue="mistakes")
        warned = [record.getMessage() for record in caplog.records if record.name == "hotmesh.durable"]
        assert [words.partition(",")[0] for words in warned] == [
            "workflow rolls is started on queue mistakes",
            "workflow rihgt is started on queue mistakes",
        ]
        assert "(is right meant?)" in warned[1]


@dataclass
class Parcel:
    weight: int


@activity.step
async def pack(weight: int):  # type: ignore[no-untyped-def]  # the mistake: nothing says what comes back
    return Parcel(weight)


@defn
async def packs() -> list[int]:
    parcel = await pack(5)
    return [parcel["weight"], (await pack(6))["weight"]]


@defn
async def in_tasks() -> list[str]:
    async with asyncio.TaskGroup() as tasks:
        several = [tasks.create_task(charge(amount)) for amount in range(3)]
    return [*(task.result() for task in several), await asyncio.create_task(charge(3))]


@defn
async def fails_in_a_group() -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(misses())


async def misses() -> None:
    raise KeyError("lamp")


async def test_what_goes_wrong_is_logged_with_its_traceback_and_told_by_what_it_is(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Worker(database_url, task_queue="mistakes", workflows=[packs, in_tasks, fails_in_a_group]):
        client = await Client.connect(database_url)
        assert await client.execute_workflow(in_tasks) == ["paid 0", "paid 1", "paid 2", "paid 3"]
        assert await client.execute_workflow(packs) == [5, 6]
        with pytest.raises(errors.WorkflowFailedError, match=r"\(1 sub-exception\): KeyError: 'lamp'"):
            await client.execute_workflow(fails_in_a_group)
    without, failed = [record for record in caplog.records if record.name == "hotmesh.durable"]
    assert without.getMessage().startswith(
        "result of pack is a Parcel, and comes back as plain JSON: annotate it, as in -> Parcel"
    )
    assert failed.getMessage().partition("(event")[0].strip().endswith("(1 sub-exception): KeyError: 'lamp'")
    assert failed.exc_info is not None
    shown = "".join(traceback.format_exception(failed.exc_info[1]))
    assert 'raise KeyError("lamp")' in shown
    assert "hotmesh/replay" not in shown


async def test_a_label_does_not_lead_a_workflow_to_another_queue_nor_a_hyphen_to_another_schema(
    database_url: str,
) -> None:
    options: Any = {"namespace": "My-Shop"}
    async with Worker(database_url, task_queue="mistakes", workflows=[right], **options):
        client = await Client.connect(database_url, **options)
        handle = await client.start_workflow(right, 5, entity="card")
        assert await handle.result(timeout=10) == "paid 5"
        described = await handle.describe()
        assert (described.task_queue, described.entity) == ("mistakes", "card")
        async with Client(database_url, namespace="my-shop") as other:
            with pytest.raises(errors.WorkflowNotFoundError, match="in namespace my-shop"):
                await other.get_workflow_handle(handle.workflow_id).describe()


async def test_what_is_for_workflows_says_so_elsewhere() -> None:
    with pytest.raises(
        errors.NotInWorkflowError, match=r"workflow\.step works only inside a workflow function"
    ):
        workflow.step(charge, 5)
    with pytest.raises(RuntimeError, match="is for code of an activity or a step"):
        activity.get_context()
    assert (await charge(5), await ship(5), weigh(5)) == ("paid 5", 5, 5)


def test_a_clock_or_a_number_that_a_workflow_calls_is_found_when_it_is_decorated() -> None:
    async def by_class() -> str:
        return str(datetime.now())  # noqa: DTZ005 - the mistake

    async def by_module() -> float:
        return time.monotonic()

    async def by_name() -> float:
        return perf_counter()

    async def of_random() -> int:
        return random.randint(1, 6)

    async def sleeps() -> None:
        time.sleep(5)  # noqa: ASYNC251 - the mistake

    for function, called, use in (
        (by_class, "datetime.now()", "workflow.now()"),
        (by_module, "time.monotonic()", "workflow.now()"),
        (by_name, "perf_counter()", "workflow.now()"),
        (of_random, "random.randint()", "workflow.random_generator()"),
        (sleeps, "time.sleep()", "asyncio.sleep"),
    ):
        line = function.__code__.co_firstlineno + 1
        with pytest.raises(ConfigError) as refused:
            workflow.defn(function)
        assert f"workflow {function.__name__} calls {called} ({__file__}:{line})" in str(refused.value)
        assert use in str(refused.value)


def test_what_only_names_a_clock_is_no_call_of_one() -> None:
    @workflow.defn
    async def names() -> int:
        dice = workflow.random_generator()
        await workflow.step(random.randint, 1, 6)
        await workflow.step(perf_counter)
        return dice.randint(1, 6) + len(datetime.now.__name__)

    assert workflow.defn(names) is names


def test_a_worker_is_told_what_goes_where() -> None:
    with pytest.raises(ConfigError, match="charge is an activity or a step, and no workflow"):
        Worker(task_queue="mistakes", workflows=[charge])
    with pytest.raises(ConfigError, match="right is a workflow, so it cannot be an activity"):
        Worker(task_queue="mistakes", workflows=[right], activities=[right])
    with pytest.raises(ConfigError, match="a lambda has no name, so it cannot be a workflow"):
        Worker(task_queue="mistakes", workflows=[lambda: 5])
