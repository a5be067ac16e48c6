"""Up to where a queue has been looked at, and that nothing below that is missed for long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from harness import connected, eventually, init_within, one_worker
from hotmesh import Worker
from hotmesh.runtime import frontier as module
from hotmesh.runtime.frontier import SLACK, Frontier, FrontierLimits
from hotmesh.runtime.limits import MemberLimits

LIMITS = FrontierLimits()

SELDOM = MemberLimits(frontier=FrontierLimits(share=1e9, longest=1.0))
"""Looks from the beginning are a second apart."""

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def later(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(module, "time", found)
    return found


def test_the_first_look_begins_at_the_beginning_and_the_next_where_it_ended(clock: Clock) -> None:
    frontier = Frontier(LIMITS)

    assert frontier.since() is None
    frontier.looked(None, 0.1, NOON, exactly=True)
    assert frontier.since() == NOON - SLACK
    frontier.looked(frontier.since(), 0.1, later(5), exactly=True)
    assert frontier.since() == later(5) - SLACK


def test_looks_from_the_beginning_take_a_small_share_of_the_time(clock: Clock) -> None:
    frontier = Frontier(LIMITS)
    frontier.looked(None, 0.1, NOON, exactly=True)
    frontier.looked(frontier.since(), 3.0, later(1), exactly=True)
    clock.now += LIMITS.share * 0.1 - 0.01

    assert frontier.since() is not None
    clock.now += 0.02
    assert frontier.since() is None


def test_they_are_never_far_apart(clock: Clock) -> None:
    frontier = Frontier(LIMITS)
    frontier.looked(None, 3600.0, NOON, exactly=True)
    clock.now += LIMITS.longest + 0.01

    assert frontier.since() is None


def test_as_long_as_nothing_is_known_each_look_begins_at_the_beginning(clock: Clock) -> None:
    frontier = Frontier(LIMITS)
    frontier.looked(None, 1.0, None, exactly=False)

    assert frontier.since() is None


def test_a_look_from_there_never_goes_back(clock: Clock) -> None:
    frontier = Frontier(LIMITS)
    frontier.looked(None, 1.0, NOON, exactly=True)
    frontier.looked(frontier.since(), 1.0, later(-60), exactly=True)

    assert frontier.since() == NOON - SLACK


def test_a_look_from_the_beginning_goes_back_to_what_it_found(clock: Clock) -> None:
    frontier = Frontier(LIMITS)
    frontier.looked(None, 1.0, NOON, exactly=True)
    frontier.looked(None, 1.0, later(-60), exactly=False)
    assert frontier.since() == NOON - SLACK, "all of it was taken"

    frontier.looked(None, 1.0, later(-60), exactly=True)
    assert frontier.since() == later(-60) - SLACK, "there may be more"


# -- rows that come back ---------------------------------------------------------------------------------------


async def work(_: Any) -> dict[str, Any]:
    return {}


@pytest.fixture
async def held(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection beside a mesh that has run something, and looks from the beginning once a second only."""
    async with (
        init_within(SELDOM, "shop", connection=database_url) as engine,
        connected(database_url) as connection,
    ):
        await engine.deploy(one_worker("shop"))
        await engine.activate("1")
        async with init_within(
            SELDOM, "shop", connection=database_url, engine=False, workers=[Worker("w", work)]
        ):
            for _ in range(5):
                await engine.pubsub("one", {}, timeout=10)
            await asyncio.sleep(0.2)
            yield connection


@pytest.mark.anyio
@pytest.mark.parametrize("table", ["worker_stream", "engine_stream"])
async def test_rows_of_long_ago_are_found_within_seconds(held: asyncpg.Connection, table: str) -> None:
    columns = {
        "worker_stream": ("topic, workflow_name, visible_at", "'w', 'n', now() - interval '1 day'"),
        "engine_stream": (
            "message_id, kind, status, code, visible_at",
            "'m', 'answer', 'success', 200, now() - interval '1 day'",
        ),
    }
    names, values = columns[table]
    # Their jobs are gone: whoever finds them removes them.
    await held.execute(
        f"insert into hotmesh.{table} (app_id, job_id, generation, activity_id, dimension, created_at, {names}) "
        f"select 'shop', 'gone-' || i, gen_random_uuid(), 'a', '{{0,0}}', now() - interval '1 day', {values} "
        "from generate_series(1, 30) as i"
    )

    async def all_found() -> bool:
        return not await held.fetchval(f"select count(*) from hotmesh.{table}")

    began = time.monotonic()
    await eventually(all_found, what="rows of long ago", within=8)
    assert time.monotonic() - began < 6


def test_who_has_heard_of_something_owes_a_look_from_the_beginning(clock: Clock) -> None:
    frontier = Frontier(LIMITS)
    frontier.looked(None, 0.1, NOON, exactly=True)
    assert frontier.owed(None) is None
    frontier.news()
    frontier.looked(frontier.since(), 0.1, later(1), exactly=True)

    assert frontier.owed(None) == pytest.approx(LIMITS.share * 0.1)
    assert frontier.owed(0.5) == 0.5
    clock.now += 2 * LIMITS.share * 0.1
    assert frontier.owed(None) == 0.0
    frontier.looked(None, 0.1, None, exactly=False)
    assert frontier.owed(None) is None


@pytest.mark.anyio
async def test_what_a_long_transaction_has_begun_starts_when_it_commits(database_url: str) -> None:
    """Its rows are due since long before others can see them; nobody polls here, and whole looks are a second apart."""
    seldom = {"poll": 30.0}
    async with (
        init_within(SELDOM, "shop", connection=database_url, settings=seldom) as engine,
        init_within(
            SELDOM,
            "shop",
            connection=database_url,
            engine=False,
            workers=[Worker("w", work)],
            settings=seldom,
        ),
        connected(database_url) as connection,
    ):
        await engine.deploy(one_worker("shop"))
        await engine.activate("1")
        for number in range(3):
            await engine.pubsub("one", {}, timeout=10)
            async with connection.transaction():
                await engine.pub("one", {}, connection=connection, extended={"id": f"late-{number}"})
                for _ in range(3):
                    # What is looked at meanwhile moves on.
                    await engine.pubsub("one", {}, timeout=10)
                    await asyncio.sleep(0.25)

            async def ended(job_id: str = f"late-{number}") -> bool:
                return (await engine.get_status(job_id)) == 0

            await eventually(ended, what="the job that began in a long transaction", within=5)
