"""A strand: what code asks for, what it is told, and what it may do wrong."""

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import random
from typing import Any

import pytest

from hotmesh.core.durable.commands import (
    Activity,
    Cancelled,
    Command,
    Completion,
    Fail,
    Finish,
    Opened,
    Release,
    Signal,
    Sleep,
    Step,
)
from hotmesh.durable_errors import NonDeterminismError, NotAllowedInWorkflowError
from hotmesh.replay import Operation, Strand, closing, guard, patch, running_strand, shielded
from hotmesh.replay.loop import TurnBlocked
from odd_errors import ODD_ERRORS, odd
from replay_programs import START, completion

Main = Callable[[], Coroutine[Any, Any, Any]]


@pytest.fixture(autouse=True)
def patched() -> None:
    patch()


def strand_of(main: Main, **options: Any) -> Strand:
    return Strand(main, seed=b"one", started_at=START, **options)


def strand() -> Strand:
    found: Strand | None = running_strand()
    assert found is not None
    return found


def step(name: str, cancellation: Any = "try_cancel") -> Operation[Any]:
    return strand().ask(Step(strand().reserve(), name), cancellation=cancellation)


def done(position: int, name: str = "a", kind: str = "step", failed: bool = False) -> Completion:
    return completion(position, kind, name, failed, 1, position)


CANCEL = completion(-1, "cancel", "", False, 1, 99)


def ended(main: Main) -> Command:
    one = strand_of(main)
    try:
        return one.turn()[-1]
    finally:
        one.close()


def test_positions_are_given_when_called_and_commands_when_all_is_blocked() -> None:
    async def main() -> Any:
        second = step("b")
        first = step("a")
        return [await first, await second, await first]

    one = strand_of(main)
    assert one.turn() == [Step(1, "b"), Step(2, "a")]
    assert one.turn([done(2)]) == []
    assert one.turn([done(1, "b")]) == [Finish(["v2", "v1", "v2"])]
    one.close()


def test_what_is_recorded_or_open_is_not_sent_again() -> None:
    async def main() -> Any:
        strand().perform(Signal(strand().reserve(), "told"))
        return [await step("a"), await step("b"), await asyncio.sleep(5, "slept")]

    signalled = Completion(1, "signal", "told", "done", START)
    one = strand_of(main, recorded=[signalled, done(2)], opened=[])
    assert one.turn() == [Step(3, "b")]
    two = strand_of(main, recorded=[signalled, done(2), done(3, "b")], opened=[Opened(4, "sleep", "timer")])
    assert [two.replaying, two.turn(), two.replaying] == [True, [], False]
    one.close()
    two.close()


def test_another_operation_than_recorded_is_refused_side_by_side() -> None:
    async def main() -> None:
        await step("b")

    one = strand_of(main, recorded=[done(1)])
    with pytest.raises(
        NonDeterminismError, match=r"expected \(history\): step 'a'\n.*actual \(code\): +step 'b'"
    ) as caught:
        one.turn()
    one.close()
    assert caught.value.position == 1

    two = strand_of(main, opened=[Opened(1, "step", "b"), Opened(2, "sleep", "sleep")])
    with pytest.raises(NonDeterminismError, match="nothing: every task waits after operation 1"):
        two.turn()
    two.close()


def test_an_outcome_of_something_else_is_never_taken_for_ones_own() -> None:
    """A step that runs here still, of a turn that the code does otherwise when it is replayed."""

    async def main() -> None:
        await step("b")

    one = strand_of(main)
    one.turn()
    with pytest.raises(NonDeterminismError, match=r"(?s)history\): step 'a'.*code\): +step 'b'"):
        one.turn([done(1, "a")])
    one.close()


def test_code_that_waits_for_what_was_given_up_is_told_so() -> None:
    """Else it would wait for ever, and nobody would know."""

    async def gives_up() -> None:
        left = step("a")
        await step("b")
        left.cancel()
        await step("c")

    async def waits() -> None:
        left = step("a")
        await step("b")
        await left

    given_up = Completion(1, "step", "a", "released", START, 3)
    recorded = [given_up, done(2, "b")]
    one = strand_of(gives_up, recorded=recorded)
    assert one.turn() == [Step(3, "c")]
    one.close()
    two = strand_of(waits, recorded=recorded)
    with pytest.raises(NonDeterminismError, match="given up") as caught:
        two.turn()
    assert caught.value.position == 1
    two.close()


def test_code_that_swallows_everything_cannot_get_past_a_difference() -> None:
    went: list[int] = []
    unending = len(closing.UNENDING)

    async def main() -> None:
        while True:
            try:
                went.append(1)
                await step("other")
            except BaseException:  # noqa: BLE001 - as users do
                went.append(2)

    one = strand_of(main, recorded=[done(1)])
    with pytest.raises(NonDeterminismError):
        one.turn()
    one.close()
    assert went[:1] == [1]
    assert len(closing.UNENDING) == unending + 1  # never collected: it would go on wherever that happens


def test_timers_of_asyncio_are_operations_and_go_when_cancelled() -> None:
    async def main() -> Any:
        async with asyncio.timeout(9):
            await step("a")
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(2):
                await step("b")
        except TimeoutError:
            return strand().now()

    one = strand_of(main)
    assert one.turn() == [Sleep(1, 9.0, "timer"), Step(2, "a")]
    assert one.turn([done(2)]) == [Release(1, "sleep", "timer"), Sleep(3, 2.0, "timer"), Step(4, "b")]
    late = done(3, "timer", "sleep")
    assert one.turn([late]) == [Release(4, "step", "b"), Finish(late.at)]
    one.close()


def test_what_is_asked_for_and_given_up_in_one_turn_vanishes() -> None:
    async def main() -> None:
        step("a").cancel()
        await step("b")

    one = strand_of(main)
    assert one.turn() == [Step(2, "b")]
    one.close()


def test_a_cancel_reaches_main_and_releases_what_it_awaits() -> None:
    async def main() -> None:
        await step("a")

    one = strand_of(main)
    one.turn()
    released, end = one.turn([CANCEL])
    assert released == Release(1, "step", "a")
    assert isinstance(end, Cancelled)
    one.close()


def test_a_cancel_that_is_taken_back_in_time_leaves_nothing_behind() -> None:
    """As a timeout does whose block fails at the same moment."""

    async def main() -> Any:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        asked = task.cancelling()
        return asked, task.uncancel(), await step("a")

    one = strand_of(main)
    assert one.turn() == [Step(1, "a")]
    assert one.turn([done(1)]) == [Finish((1, 0, "v1"))]
    one.close()


def test_a_task_that_cancels_itself_is_cancelled_where_it_waits_next() -> None:
    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await step("a")

    [end] = strand_of(main).turn()
    assert isinstance(end, Cancelled)


def test_a_shield_keeps_a_cancel_until_its_end() -> None:
    async def main() -> str:
        try:
            async with shielded():
                await step("a")
                await asyncio.gather(step("b"), asyncio.sleep(0))
            await step("never")
        except asyncio.CancelledError:
            async with shielded():
                await step("undo")
        return "undone"

    one = strand_of(main)
    one.turn()
    assert one.turn([CANCEL]) == []
    assert one.turn([done(1)]) == [Step(2, "b")]
    assert one.turn([done(2, "b")]) == [Step(3, "undo")]
    assert one.turn([done(3, "undo")]) == [Finish("undone")]
    one.close()


def test_one_that_winds_down_is_still_awaited() -> None:
    async def main() -> Any:
        operation: Operation[Any] = strand().ask(
            Activity(strand().reserve(), "a"), cancellation="wait_completed"
        )
        await step("b")
        operation.cancel()
        return await operation

    one = strand_of(main)
    one.turn()
    assert one.turn([done(2, "b")]) == [Release(1, "activity", "a", wait=True)]
    assert one.turn([done(1, kind="activity")]) == [Finish("v1")]
    one.close()


def test_what_comes_unasked_waits_for_its_handler() -> None:
    got: list[Any] = []

    async def handler(completion: Completion) -> None:
        got.append((completion.value, await step("h")))

    async def main() -> None:
        await step("a")
        strand().handle("signal", "add", handler)
        await strand().condition(lambda: len(got) == 2)

    one = strand_of(main)
    one.turn()
    signals = [Completion(-n, "signal", "add", "done", START, value=n) for n in (1, 2)]
    assert one.turn([signals[0]]) == []
    assert one.turn([done(1)]) == [Step(2, "h")]
    assert one.turn([signals[1]]) == [Step(3, "h")]
    assert one.turn([done(3, "h"), done(2, "h")]) == [Finish(None)]
    assert got == [(2, "v3"), (1, "v2")]
    one.close()


def test_random_numbers_and_ids_are_the_same_again() -> None:
    async def main() -> Any:
        return strand().random().random(), strand().uuid4()

    first, second = ended(main), ended(main)
    assert first == second
    assert isinstance(first, Finish)
    assert first.value[1].version == 4
    other = Strand(main, seed=b"two", started_at=START)
    assert other.turn() != [first]
    other.close()


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, SystemExit, GeneratorExit, StopAsyncIteration, BaseException]
)
def test_any_exception_ends_the_workflow_and_nothing_else(error: type[BaseException]) -> None:
    async def main() -> None:
        raise error

    end = ended(main)
    assert isinstance(end, Fail)
    assert type(end.error) is error


@pytest.mark.parametrize("name", ODD_ERRORS)
def test_odd_exceptions_end_the_workflow_and_nothing_else(name: str) -> None:
    async def inner() -> None:
        await asyncio.sleep(0)
        raise odd(name)

    async def main() -> None:
        await asyncio.gather(inner(), inner())

    assert isinstance(ended(main), Fail)


def test_what_decoding_raises_is_the_outcome() -> None:
    for raised, caught in ((ValueError, ValueError), (StopIteration, RuntimeError), (SystemExit, SystemExit)):

        def decode(_: Completion, raised: type[BaseException] = raised) -> Any:
            raise raised

        async def main(decode: Any = decode) -> None:
            await strand().ask(Step(strand().reserve(), "a"), decode)

        one = strand_of(main)
        one.turn()
        (end,) = one.turn([done(1)])
        assert isinstance(end, Fail)
        assert type(end.error) is caught
        one.close()


def test_tasks_that_still_run_are_cancelled_and_told_of() -> None:
    async def background() -> None:
        try:
            await step("b")
        finally:
            await step("too late")

    async def main() -> str:
        asyncio.create_task(background())  # noqa: RUF006 - as users do
        step("forgotten")
        await step("a")
        return "done"

    one = strand_of(main)
    one.turn()
    assert one.turn([done(2)]) == [Release(3, "step", "b"), Release(1, "step", "forgotten"), Finish("done")]
    assert [words.split("'")[1] for words, _ in one.notices] == ["task-5", "forgotten"] or len(
        one.notices
    ) == 2
    unending = len(closing.UNENDING)
    one.close()
    assert len(closing.UNENDING) == unending


def test_a_closed_strand_has_no_effects_and_ends_stubborn_code() -> None:
    seen: list[str] = []

    async def main() -> None:
        try:
            await step("a")
        finally:
            seen.append("finally")
            await step("in finally")
            seen.append("after")

    one = strand_of(main)
    one.turn()
    unending = len(closing.UNENDING)
    one.close()
    one.close()
    assert seen == ["finally"]
    assert len(closing.UNENDING) == unending
    with pytest.raises(RuntimeError, match="closed"):
        one.turn()


def test_dropped_strands_leave_nothing_to_the_collector() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(5))
            await step("a")

    gc.collect()
    before = len([one for one in gc.get_objects() if isinstance(one, Strand)])
    for _ in range(20):
        one = strand_of(main)
        one.turn()
        one.close()
    del one
    gc.collect()
    assert len([found for found in gc.get_objects() if isinstance(found, Strand)]) <= before


def test_a_turn_inside_a_task_of_another_loop_leaves_that_alone() -> None:
    async def main() -> Any:
        return asyncio.current_task() is not None and asyncio.get_running_loop()

    async def outer() -> None:
        mine = asyncio.current_task()
        end = ended(main)
        assert isinstance(end, Finish)
        assert isinstance(end.value, Strand)
        assert asyncio.current_task() is mine
        await asyncio.sleep(0)

    asyncio.run(outer())


def refused(act: Callable[[], Any]) -> NotAllowedInWorkflowError:
    async def main() -> None:
        result = act()
        if asyncio.iscoroutine(result):
            await result

    end = ended(main)
    assert isinstance(end, Fail)
    assert isinstance(end.error, NotAllowedInWorkflowError), end.error
    return end.error


@pytest.mark.parametrize(
    ("act", "use"),
    [
        (lambda: asyncio.to_thread(print), "workflow.step"),
        (lambda: asyncio.open_connection("localhost", 1), "workflow.step"),
        (lambda: asyncio.create_subprocess_exec("ls"), "workflow.step"),
        (lambda: asyncio.get_running_loop().call_soon_threadsafe(print), "signal"),
        (lambda: f"{time.time()}", "workflow.now"),
        (lambda: f"{uuid.uuid4()}", "workflow.uuid4"),
        (lambda: Path("/etc/hostname").read_text(), "workflow.step"),
        (lambda: socket.create_connection(("127.0.0.1", 1)), "workflow.step"),
    ],
)
def test_what_no_replay_would_do_again_is_refused(act: Callable[[], Any], use: str) -> None:
    guard()
    assert use in str(refused(act))


def test_outside_of_workflows_nothing_is_refused() -> None:
    guard()
    assert time.time() > 0
    assert uuid.uuid4().version == 4
    assert random() < 1


def test_a_guard_ends_a_turn_whatever_the_code_does() -> None:
    async def main() -> None:
        raise TurnBlocked

    one = strand_of(main)
    with pytest.raises(TurnBlocked):
        one.turn()
    one.close()


def test_code_that_never_ends_does_not_keep_the_process_from_ending() -> None:
    code = (
        "from datetime import datetime, UTC\n"
        "from hotmesh.replay import Strand\n"
        "import asyncio\n"
        "async def main():\n"
        "    while True:\n"
        "        try: await asyncio.get_running_loop().create_future()\n"
        "        except BaseException: pass\n"
        "s = Strand(main, seed=b'', started_at=datetime.now(UTC)); s.turn(); s.close(); del s\n"
        "print('over')\n"
    )
    over = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert over.stdout == "over\n"


def test_what_is_told_with_several_outcomes_of_a_turn() -> None:
    """Each is news: the code is nowhere where it has been before."""
    seen: list[bool] = []
    strand_: Any = None

    async def main() -> None:
        for _ in range(2):
            await asyncio.sleep(1)
            seen.append(strand_.replaying)

    completions = [Completion(place, "sleep", "timer", "done", START, place) for place in (1, 2)]
    strand_ = Strand(main, seed=b"x", started_at=START)
    strand_.turn()
    strand_.turn(completions)
    assert seen == [False, False]
    seen.clear()
    strand_ = Strand(main, seed=b"x", started_at=START, recorded=completions)
    strand_.turn()
    assert seen == [True, False]
