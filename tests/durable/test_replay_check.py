"""HOTMESH_REPLAY_EVERY: each n-th turn is replayed from its history, and compared with what was done live."""

from __future__ import annotations

from itertools import count

import pytest

from hotmesh.durable import Client, Worker, errors, workflow
from hotmesh.errors import ConfigError
from hotmesh.runtime.durable.replay_check import VARIABLE, ReplayCheck

pytestmark = [pytest.mark.anyio, pytest.mark.live]

numbers = count()
runs = count()


async def note(name: str) -> str:
    return name


@workflow.defn(task_queue="check")
async def fickle() -> None:
    """Its first operation is always the same, its second never."""
    await workflow.step(note, "first", name="first")
    number = next(numbers)
    await workflow.step(note, "second", name=f"second {number}")
    await workflow.step(note, "third", name="third")


@workflow.defn(task_queue="check")
async def steady(length: int) -> int:
    next(runs)
    for _ in range(length):
        await workflow.step(note, "a", name="a")
    return length


async def test_a_function_that_is_not_deterministic_fails_with_both_sides(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it, it would go on until its process dies, and only then be parked."""
    monkeypatch.setenv(VARIABLE, "1")
    async with Worker(database_url, task_queue="check", workflows=[fickle]):
        client = await Client.connect(database_url)
        with pytest.raises(errors.WorkflowFailedError) as found:
            await client.execute_workflow(fickle)
    lines = str(found.value).splitlines()
    assert "differs at operation 2" in lines[0]
    assert "step 'first'" in lines[2]
    assert "step 'second 0'" in lines[3]
    assert "step 'second 1'" in lines[3]


@pytest.mark.parametrize(("every", "replays"), [("", 0), ("0", 0), ("4", 2), ("1", 9)])
async def test_how_often(
    database_url: str, monkeypatch: pytest.MonkeyPatch, every: str, replays: int
) -> None:
    monkeypatch.setenv(VARIABLE, every)
    before = next(runs)
    async with Worker(database_url, task_queue="check", workflows=[steady]):
        client = await Client.connect(database_url)
        assert await client.execute_workflow(steady, 9) == 9
    assert next(runs) - before - 2 == replays


def test_something_that_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "often")
    with pytest.raises(ConfigError, match="HOTMESH_REPLAY_EVERY is a number of turns"):
        ReplayCheck()
