"""Whatever a callback raises, cancels or leaves in its task is its own outcome: it ends no instance, and harms no other job."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.from_thread
import pytest

from harness import connected, eventually, one_worker, settled
from hotmesh import HotMesh, JobError, PayloadError, Response, StreamData, Worker
from hotmesh.runtime.apart import Apart
from memory_queue import Workshop, row
from odd_errors import ODD_ERRORS, odd

pytestmark = pytest.mark.anyio

APP = "hostile"

Hostile = Callable[[StreamData], Awaitable[Any]]


def current() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


# -- what it leaves in its task ------------------------------------------------------------------------------


async def cancels_itself_and_returns(_: StreamData) -> dict[str, Any]:
    current().cancel()
    return {"y": "done"}


async def handles_its_own_cancellation(_: StreamData) -> dict[str, Any]:
    current().cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    assert current().cancelling() == 1  # and it is left so
    return {"y": "done"}


async def handles_a_failed_task_group(_: StreamData) -> dict[str, Any]:
    async def fails() -> None:
        raise ValueError("one of them")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            await asyncio.sleep(1)
    except* ValueError:
        pass
    return {"y": "done"}


async def uncancels_more_than_was_cancelled(_: StreamData) -> dict[str, Any]:
    current().uncancel()
    current().uncancel()
    return {"y": "done"}


async def leaves_a_scope_open(_: StreamData) -> dict[str, Any]:
    anyio.CancelScope().__enter__().cancel()
    return {"y": "done"}


async def leaves_tasks_behind(_: StreamData) -> dict[str, Any]:
    async def fails() -> None:
        raise SystemError("later")

    task = asyncio.ensure_future(fails())
    task.add_done_callback(lambda task: task.exception())
    return {"y": "done"}


async def awaits_what_was_cancelled(_: StreamData) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def is_cancelled_by_another_task(_: StreamData) -> None:
    asyncio.get_running_loop().call_soon(current().cancel)
    await asyncio.sleep(10)


async def raises_cancelled(_: StreamData) -> None:
    raise asyncio.CancelledError


async def raises_exit(_: StreamData) -> None:
    raise SystemExit(3)


async def raises_generator_exit(_: StreamData) -> None:
    raise GeneratorExit


async def raises_stop(_: StreamData) -> None:
    raise StopAsyncIteration


async def raises_a_base(_: StreamData) -> None:
    raise BaseException("of all")


class _Odd(Exception):
    """One of which nothing can be asked."""

    @property
    def code(self) -> int:
        raise SystemExit(1)

    def __str__(self) -> str:
        raise asyncio.CancelledError

    __repr__ = __str__


async def raises_what_cannot_say_what_it_is(_: StreamData) -> None:
    raise _Odd


async def raises_an_exit_with_an_odd_code(_: StreamData) -> None:
    raise SystemExit(_Odd())


async def raises_a_group_of_all_that(_: StreamData) -> None:
    raise BaseExceptionGroup("all", [_Odd(), SystemExit(1), asyncio.CancelledError(), GeneratorExit()])


RETURN: list[Hostile] = [
    cancels_itself_and_returns,
    handles_its_own_cancellation,
    handles_a_failed_task_group,
    uncancels_more_than_was_cancelled,
    leaves_a_scope_open,
    leaves_tasks_behind,
]

RAISE: list[Hostile] = [
    awaits_what_was_cancelled,
    is_cancelled_by_another_task,
    raises_cancelled,
    raises_exit,
    raises_generator_exit,
    raises_stop,
    raises_a_base,
    raises_what_cannot_say_what_it_is,
    raises_an_exit_with_an_odd_code,
    raises_a_group_of_all_that,
]


async def test_an_instance_outlives_whatever_callbacks_do(database_url: str) -> None:
    """Each in turn, on one slot, with an honest job before and after it in the same instance."""
    now: list[Hostile] = []

    async def callback(message: StreamData) -> Any:
        return await now[0](message) if message.data["x"] == "hostile" else {"y": message.data["x"]}

    async with HotMesh.init(
        APP, connection=database_url, workers=[Worker("w", callback, max_concurrency=1)]
    ) as mesh:
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        for hostile in [*RETURN, *RAISE]:
            now[:] = [hostile]
            found: Any
            try:
                found = (await mesh.pubsub("one", {"x": "hostile"}, timeout=10)).data
            except JobError as error:
                found = error.code
            assert found == ({"y": "done"} if hostile in RETURN else 500), hostile.__name__
            honest = await mesh.pubsub("one", {"x": 1}, timeout=10)
            assert honest.data == {"y": 1}, hostile.__name__
        assert not mesh.stopped
        async with connected(database_url) as connection:
            await settled(connection, APP)


async def test_a_callback_that_raises_keyboard_interrupt_itself_has_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As under `asyncio.run`, where Ctrl-C is another handler's than Python's own."""

    async def raises(_: StreamData) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("signal.getsignal", lambda _: lambda *_: None)
    shop = Workshop(raises)
    async with shop.working():
        shop.take(row(1))
        await shop.idle()

    assert [(event.status, event.code) for event in shop.events] == [("error", 500)]


# -- what it sees of others ----------------------------------------------------------------------------------

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


@pytest.mark.parametrize("plain", [False, True], ids=["coroutine", "thread"])
async def test_each_callback_has_a_context_of_its_own(plain: bool) -> None:
    seen: list[str] = []

    def look(message: StreamData) -> None:
        seen.append(tenant.get())
        tenant.set(message.job_id)

    async def in_the_loop(message: StreamData) -> None:
        look(message)

    shop = Workshop(look if plain else in_the_loop, slots=1)
    async with shop.working():
        for number in range(3):
            shop.take(row(number))
            await shop.idle()
    assert seen == ["nobody"] * 3


async def test_each_callback_has_a_task_of_its_own() -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def look(_: StreamData) -> None:
        tasks.append(current())

    shop = Workshop(look, slots=1)
    async with shop.working():
        for number in range(3):
            shop.take(row(number))
            await shop.idle()
    assert len(set(map(id, tasks))) == 3
    assert all(task.done() for task in tasks)


async def test_what_who_asks_has_in_its_context_is_not_the_callbacks(database_url: str) -> None:
    seen: list[str] = []

    async def callback(_: StreamData) -> dict[str, Any]:
        seen.append(tenant.get())
        return {"y": 1}

    async with HotMesh.init(APP, connection=database_url, workers=[Worker("w", callback)]) as mesh:
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        tenant.set("of the caller")
        await mesh.pubsub("one", {"x": 1}, timeout=10)
    assert seen == ["nobody"]


async def test_what_a_callback_changes_is_its_own_copy(database_url: str) -> None:
    """The data of a message came from the job's own, in the memory of the same process."""
    graph = f"""
app:
  id: {APP}
  version: '1'
  graphs:
    - subscribes: one
      expire: 3600
      activities:
        start: {{type: trigger}}
        first:
          type: worker
          topic: w
          input: {{maps: {{lines: '{{start.output.data.lines}}'}}}}
        second:
          type: worker
          topic: w
          input: {{maps: {{lines: '{{start.output.data.lines}}'}}}}
          job: {{maps: {{lines: '{{start.output.data.lines}}', seen: '{{$self.output.data.seen}}'}}}}
      transitions:
        start: [{{to: first}}]
        first: [{{to: second}}]
"""
    kept: list[dict[str, Any]] = []

    async def callback(message: StreamData) -> dict[str, Any]:
        result = {"seen": [dict(line) for line in message.data["lines"]]}
        message.data["lines"][0]["sku"] = "changed"
        message.data["lines"].pop()
        message.metadata["jid"] = "another"
        kept.append(result)
        return result

    async with HotMesh.init(APP, connection=database_url, workers=[Worker("w", callback)]) as mesh:
        await mesh.deploy(graph)
        await mesh.activate("1")
        lines = [{"sku": "A"}, {"sku": "B"}]
        output = await mesh.pubsub("one", {"lines": lines}, timeout=10)
        kept[1]["seen"].clear()
        stored = await mesh.get_state("one", output.metadata.jid)
    assert output.data == stored.data == {"lines": lines, "seen": lines}


# -- what it returns -----------------------------------------------------------------------------------------


class _Model:
    """One whose conversion raises what nobody would think of."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def model_dump(self, *, mode: str) -> Any:
        raise self.error


@dataclass
class _Holder:
    inside: Any


CONVERSIONS: dict[str, Callable[[], Any]] = {
    "nested": lambda: {"lines": [1, _Model(RuntimeError("odd"))]},
    "a group": lambda: {"lines": [1, _Model(ExceptionGroup("odd", [OSError()]))]},
    "by its attributes": lambda: {"lines": [1, _Model(AttributeError("odd"))]},
}


@pytest.mark.parametrize("name", CONVERSIONS)
async def test_a_result_whose_conversion_raises_fails_with_its_path(name: str) -> None:
    async def callback(_: StreamData) -> Any:
        return CONVERSIONS[name]()

    shop = Workshop(callback)
    async with shop.working():
        shop.take(row(1))
        await shop.idle()
    (event,) = shop.events
    assert isinstance(event.data, dict)
    assert (event.status, event.code) == ("error", 500)
    assert "the result of worker w cannot be stored as JSON: a value of type _Model" in event.data["message"]
    assert event.data["message"].endswith("at $.lines[1]")


@pytest.mark.parametrize("error", [RuntimeError("odd"), SystemExit(1), asyncio.CancelledError()])
@pytest.mark.parametrize("whole", [False, True], ids=["in a holder", "whole"])
async def test_a_result_that_cannot_be_converted_at_all_fails_its_job_alone(
    error: BaseException, whole: bool
) -> None:
    async def callback(_: StreamData) -> Any:
        return _Model(error) if whole else _Holder(_Model(error))

    shop = Workshop(callback, slots=1)
    async with shop.working():
        shop.take(row(1))
        await shop.idle()
        shop.take(row(2))
        await shop.idle()
    assert [(event.status, event.code) for event in shop.events] == [("error", 500)] * 2


async def test_data_whose_conversion_raises_cannot_be_published(database_url: str) -> None:
    async with HotMesh.init(APP, connection=database_url) as mesh:
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        for name, make in CONVERSIONS.items():
            with pytest.raises(PayloadError, match=r"type _Model.* at \$\.lines\[1\]"):
                await mesh.pub("one", make())
            assert not mesh.stopped, name


# -- how it ends ---------------------------------------------------------------------------------------------


class Rollback:
    """A callback that takes some awaits to clean up, and counts how often it was cancelled meanwhile."""

    def __init__(self) -> None:
        self.steps = 0
        self.cancelled = 0

    async def __call__(self, message: StreamData) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            for _ in range(5):
                try:
                    await asyncio.sleep(0.02)
                    self.steps += 1
                except asyncio.CancelledError:
                    self.cancelled += 1


async def test_a_callback_cleans_up_undisturbed_after_its_timeout() -> None:
    rollback = Rollback()
    shop = Workshop(rollback, timeout=0.05)
    async with shop.working():
        shop.take(row(1))
        await shop.idle()
    assert (rollback.steps, rollback.cancelled) == (5, 0)
    assert [(event.status, event.code) for event in shop.events] == [("error", 504)]


async def test_a_callback_cleans_up_undisturbed_when_its_instance_stops(database_url: str) -> None:
    rollback = Rollback()
    async with HotMesh.init(APP, connection=database_url, workers=[Worker("w", rollback)]) as mesh:
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        job_id = await mesh.pub("one", {"x": 1})
        await eventually(mesh._member.workers.running_topics)
        await mesh.stop(grace=0.05)
    assert (rollback.steps, rollback.cancelled) == (5, 0)
    async with connected(database_url) as connection:
        row = await connection.fetchrow("select * from hotmesh.worker_stream where job_id = $1", job_id)
        assert row is not None
        assert (row["attempt"], row["reserved_by"]) == (0, None), "given back, and no failure"


async def test_what_a_callback_raises_while_it_is_stopped_is_no_failure_of_its_work() -> None:
    async def fails(_: StreamData) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            raise ConnectionError("the rollback failed")

    shop = Workshop(fails)
    async with shop.working():
        shop.take(row(1))
        await anyio.wait_all_tasks_blocked()
        shop.served.stopping = True
        shop.callbacks.cut_off_all()
        await shop.idle()
    assert (shop.events, shop.queue.postponed) == ([], [("1", 0.0, False)])


class Stubborn:
    """A callback that swallows every cancellation."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.cancelled = 0

    async def __call__(self, message: StreamData) -> dict[str, Any]:
        while not self.release.is_set():
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
        return {"y": 1}


IMPATIENT = {"cleaning_up": 0.1}


async def test_stop_leaves_a_callback_that_does_not_end(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    stubborn = Stubborn()
    workers = [Worker("w", stubborn)]
    async with HotMesh.init(APP, connection=database_url, workers=workers, settings=IMPATIENT) as mesh:
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        job_id = await mesh.pub("one", {"x": 1})
        await eventually(mesh._member.workers.running_topics)
        began = time.monotonic()
        await mesh.stop(grace=0.1)
        assert time.monotonic() - began < 3
    (record,) = [record for record in caplog.records if "does not end" in record.message]
    assert f"the callback of worker w (job {job_id})" in record.message
    assert "await self.release.wait()" in record.message
    assert record.levelno == logging.ERROR
    assert stubborn.cancelled == 1
    async with connected(database_url) as connection:
        held = await connection.fetchval("select reserved_by from hotmesh.worker_stream")
        assert held is None, "others may have it"
    # It is none of the tasks whose end `asyncio.run` would wait for.
    assert not any("Stubborn" in repr(task.get_coro()) for task in asyncio.all_tasks())
    stubborn.release.set()


async def test_stop_leaves_all_that_do_not_end_at_once(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Also if others wait for them meanwhile: who stops a second time, and who has ended the first."""
    stubborn = Stubborn()
    workers = [Worker("w", stubborn)]
    async with HotMesh.init(APP, connection=database_url, workers=workers, settings=IMPATIENT) as mesh:
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        for number in range(3):
            await mesh.pub("one", {"x": number})
        await eventually(lambda: len(mesh._member.workers.running_topics()) == 3)
        with anyio.fail_after(4):
            async with anyio.create_task_group() as stopping:
                stopping.start_soon(mesh.stop, 1)
                stopping.start_soon(mesh.stop, 1)
    assert stubborn.cancelled == 3
    assert sum("does not end" in record.message for record in caplog.records) == 3
    async with connected(database_url) as connection:
        rows = await connection.fetch("select reserved_by, attempt from hotmesh.worker_stream")
    assert [tuple(row) for row in rows] == [(None, 0)] * 3
    stubborn.release.set()


async def test_who_cancels_all_tasks_neither_meets_a_callback_nor_waits_for_it() -> None:
    stubborn = Stubborn()
    shop = Workshop(stubborn)
    async with shop.working():
        shop.take(row(1))
        await eventually(lambda: shop.worker().running == 1)
        await asyncio.sleep(0)
        assert not any("Stubborn" in repr(task.get_coro()) for task in asyncio.all_tasks())
        stubborn.release.set()
        await shop.idle()
    assert stubborn.cancelled == 0


async def test_what_a_callback_waits_for_may_be_cancelled_with_all_tasks_of_a_program() -> None:
    """It sees that before whoever watches over callbacks does; its work is given back, and has not failed."""
    shared: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def waits(_: StreamData) -> None:
        await shared

    shop = Workshop(waits, retry={"maximum_attempts": 3})
    async with shop.working():
        shop.take(row(1))
        await anyio.wait_all_tasks_blocked()
        (watcher,) = (task for task in asyncio.all_tasks() if task.get_name() == "watch callbacks")
        shared.cancel()
        watcher.cancel()
        await shop.idle()
    assert (shop.events, shop.queue.buried) == ([], [])
    assert shop.queue.postponed == [("1", 0.0, False)]


async def test_a_call_that_is_waited_for_by_several_and_left_holds_none_of_them() -> None:
    stubborn = Stubborn()
    call = Apart(0.1)
    call.start("it", copy_context(), stubborn, None)
    waiting = [asyncio.create_task(call.wait()) for _ in range(3)]
    await asyncio.sleep(0.01)
    waiting[0].cancel()
    await asyncio.wait(waiting, timeout=3)
    assert [task.cancelled() for task in waiting] == [True, False, False]
    assert (call.left, stubborn.cancelled) == (True, 1)
    await asyncio.wait_for(call.wait(), 1)
    stubborn.release.set()


async def test_a_callback_that_does_not_end_keeps_its_slot_until_it_does() -> None:
    stubborn = Stubborn()
    shop = Workshop(stubborn, slots=1, timeout=0.05, settings=IMPATIENT)
    async with shop.working():
        shop.take(row(1))
        await shop.idle()
        assert [event.code for event in shop.events] == [504]
        assert (shop.worker().used, shop.worker().running) == (1, 1)
        stubborn.release.set()
        await eventually(lambda: shop.worker().used == 0)
        assert [event.code for event in shop.events] == [504], "what it returns later counts for nothing"
        shop.take(row(2))
        await shop.idle()
    assert [event.code for event in shop.events] == [504, 200]


async def test_there_are_no_more_threads_than_may_run_at_once(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    inside = 0
    most = 0
    lock = threading.Lock()

    def blocks(_: StreamData) -> dict[str, Any]:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        release.wait(30)
        with lock:
            inside -= 1
        return {"y": 1}

    worker = Worker("w", blocks, max_concurrency=3, timeout=0.1)
    async with HotMesh.init(APP, connection=database_url, workers=[worker]) as mesh:
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        jobs = [await mesh.pub("one", {"x": number}) for number in range(12)]
        await eventually(lambda: sum("does not end" in record.message for record in caplog.records) == 3)
        await asyncio.sleep(0.5)
        assert most == 3
        assert sum(thread.name == "worker w" for thread in threading.enumerate()) == 3
        assert any("release.wait(30)" in record.message for record in caplog.records)
        release.set()
        async with connected(database_url) as connection:
            await settled(connection, APP)
        ended = [await mesh.get_state("one", job) for job in jobs]
    assert sum("err" in output.metadata for output in ended) == 3
    await eventually(lambda: not any(thread.name == "worker w" for thread in threading.enumerate()))


async def test_a_plain_function_can_learn_that_it_was_cut_off_and_call_the_event_loop() -> None:
    learned = threading.Event()

    async def double(number: int) -> int:
        return number * 2

    def works(message: StreamData) -> dict[str, Any]:
        if message.data["x"] == 1:
            return {"y": anyio.from_thread.run(double, 21)}
        try:
            while True:
                anyio.from_thread.check_cancelled()
                time.sleep(0.01)
        finally:
            learned.set()

    shop = Workshop(works, slots=1, timeout=0.1)
    async with shop.working():
        shop.take(row(1))
        await shop.idle()
        shop.take(row(2))
        await shop.idle()
        await eventually(lambda: shop.worker().used == 0)
    assert [(event.code, event.data.get("y")) for event in shop.events if isinstance(event.data, dict)] == [
        (200, 42),
        (504, None),
    ]
    assert learned.is_set()


# -- what is said of it --------------------------------------------------------------------------------------


def _deep() -> None:
    raise ConnectionError("smtp is down")


@pytest.mark.parametrize("plain", [False, True], ids=["coroutine", "thread"])
async def test_a_failure_is_logged_with_what_follows(plain: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def mail(_: StreamData) -> None:
        _deep()

    def mail_in_thread(_: StreamData) -> None:
        _deep()

    retry = {"maximum_attempts": 2, "initial_interval": 0.8, "backoff_coefficient": 1}
    shop = Workshop(mail_in_thread if plain else mail, retry=retry)
    with caplog.at_level(logging.WARNING, "hotmesh"):
        async with shop.working():
            shop.take(row(1), row(2, attempt=1))
            await shop.idle()
    by_job = {record.__dict__["job_id"]: record for record in caplog.records}
    first, last = by_job["job-1"], by_job["job-2"]
    assert (first.levelno, last.levelno) == (logging.WARNING, logging.ERROR)
    said = "ConnectionError: smtp is down (activity call)"
    assert first.message == f"worker w of job job-1 failed, attempt 1 of 2, next in 0.8 s: {said}"
    assert last.message == f"worker w of job job-2 failed, attempt 2 of 2, the last: {said}"
    facts = {name: first.__dict__[name] for name in ("activity_id", "topic", "attempt", "attempts", "delay")}
    assert facts == {"activity_id": "call", "topic": "w", "attempt": 1, "attempts": 2, "delay": 0.8}
    stack = logging.Formatter().formatException(first.exc_info)  # type: ignore[arg-type]
    frames = [line.strip() for line in stack.splitlines() if line.strip().startswith("File")]
    assert [frame.rsplit(" in ")[-1] for frame in frames] == [
        "mail_in_thread" if plain else "mail",
        "_deep",
    ]
    (event,) = shop.events
    assert isinstance(event.data, dict)
    assert "hotmesh/runtime" not in event.data["stack"]
    assert "_deep" in event.data["stack"]


async def test_a_timeout_is_logged_with_the_place_where_the_callback_stood(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def waits(_: StreamData) -> None:
        await asyncio.sleep(30)

    shop = Workshop(waits, timeout=0.05)
    async with shop.working():
        shop.take(row(1))
        await shop.idle()
    (record,) = caplog.records
    assert (
        "attempt 1 of 1, the last: TimeoutError: the callback of worker w did not return within 0.05 s"
        in (record.message)
    )
    assert "await asyncio.sleep(30)" in logging.Formatter().formatException(record.exc_info)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error", [ValueError("half \ud800"), ValueError("x" * 3_000_000), KeyError("half \ud800")]
)
async def test_every_failure_can_be_written_to_a_log(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(_: StreamData) -> None:
        raise error

    shop = Workshop(fails)
    async with shop.working():
        shop.take(row(1))
        await shop.idle()
    (record,) = caplog.records
    text = logging.Formatter("%(message)s").format(record)
    assert type(error).__name__ in text
    assert len(text.encode()) < 20_000


async def test_a_message_says_what_attempt_it_is_and_whose() -> None:
    found: list[tuple[Any, ...]] = []

    async def look(message: StreamData) -> None:
        found.append((message.job_id, message.activity_id, message.attempt, message.idempotency_key))

    shop = Workshop(look)
    async with shop.working():
        shop.take(row(1), row(2, attempt=2))
        await shop.idle()
    assert found == [("job-1", "call", 1, "1:call:0.0"), ("job-2", "call", 3, "2:call:0.0")]


# -- what is an answer ---------------------------------------------------------------------------------------


async def test_only_the_full_answer_to_this_message_is_more_than_data(
    caplog: pytest.LogCaptureFixture,
) -> None:
    results: dict[int, Callable[[StreamData], dict[str, Any]]] = {
        1: lambda message: {"metadata": {"guid": "g-1"}, "lines": [1]},
        2: lambda message: {"metadata": {"guid": "g-1", "jid": "j"}, "data": {"y": 1}, "status": "error"},
        3: lambda message: {"metadata": dict(message.metadata), "total": 3},
        4: lambda message: {"metadata": dict(message.metadata)},
        5: lambda message: {"metadata": dict(message.metadata), "data": {"y": 1}, "code": 202},
        6: lambda message: {"metadata": {"pages": 1}, "data": 2},
    }

    async def callback(message: StreamData) -> dict[str, Any]:
        return results[message.data["x"]](message)

    shop = Workshop(callback, slots=1)
    with caplog.at_level(logging.WARNING, "hotmesh"):
        async with shop.working():
            for number in results:
                shop.take(row(number))
                await shop.idle()
    found = [(event.status, event.code, event.data) for event in shop.events]
    own = {"guid": "3:call:0.0", "jid": "job-3"}
    assert found[0] == ("success", 200, {"metadata": {"guid": "g-1"}, "lines": [1]})
    assert found[1][:2] == ("success", 200)
    data: Any = found[2][2]
    assert (data["total"], data["metadata"].items() >= own.items()) == (3, True)
    assert found[3][:2] == ("success", 200)
    assert found[3][2].keys() == {"metadata"}  # type: ignore[union-attr]
    assert found[4] == ("success", 202, {"y": 1})
    assert found[5] == ("success", 200, {"metadata": {"pages": 1}, "data": 2})
    assert [record.__dict__["job_id"] for record in caplog.records] == ["job-1", "job-2", "job-3", "job-4"]


@pytest.mark.parametrize("plain", [False, True], ids=["coroutine", "thread"])
async def test_an_error_that_cannot_be_asked_fails_its_job_alone(database_url: str, plain: bool) -> None:
    """Whatever it does when it is asked what it is, the slot of its callback is free again."""

    def fails(message: StreamData) -> dict[str, Any]:
        if message.data["x"] is not None:
            raise odd(message.data["x"])
        return {"y": "done"}

    async def fails_in_a_task(message: StreamData) -> dict[str, Any]:
        return fails(message)

    callback = fails if plain else fails_in_a_task
    async with HotMesh.init(
        APP, connection=database_url, workers=[Worker("w", callback, max_concurrency=1)]
    ) as mesh:
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        for name in ODD_ERRORS:
            with pytest.raises(JobError):
                await mesh.pubsub("one", {"x": name}, timeout=10)
        assert (await mesh.pubsub("one", {"x": None}, timeout=10)).data == {"y": "done"}


@pytest.mark.parametrize("code", ["²", "9" * 5_000, "", "nine", True, None, [422]])
async def test_an_error_whose_code_is_none_is_an_error_all_the_same(database_url: str, code: Any) -> None:
    async def refuses(_: StreamData) -> Response:
        return Response({"message": "no", "code": code}, status="error", code=200)

    async with HotMesh.init(APP, connection=database_url, workers=[Worker("w", refuses)]) as mesh:
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        with pytest.raises(JobError) as raised:
            await mesh.pubsub("one", {"x": 1}, timeout=10)
    assert raised.value.code == 500


async def test_the_result_of_a_plain_function_is_converted_in_its_thread() -> None:
    threads = []

    class Model:
        def model_dump(self, mode: str) -> dict[str, str]:
            threads.append(threading.current_thread())
            return {"y": mode}

    def answers(_: StreamData) -> Model:
        return Model()

    shop = Workshop(answers)
    async with shop.working():
        shop.take(row(1))
        await shop.idle()
    assert threads
    assert threads[0] is not threading.main_thread()


async def test_stop_leaves_any_number_of_callbacks_that_do_not_end() -> None:
    """One after the other is left while the others are waited for."""

    async def never_ends(_: StreamData) -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(100)

    shop = Workshop(never_ends, slots=3, settings={"cleaning_up": 0.2})
    with anyio.fail_after(10):
        async with shop.working():
            for number in range(3):
                shop.take(row(number))
            await eventually(lambda: len(shop.callbacks.topics) == 3)
            shop.callbacks.cut_off_all()
            await shop.callbacks.until_over()
    assert not shop.callbacks.busy
