"""Attacks with a stolen worker login and a plain driver: each is refused or harmless, shows nothing, and the app goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from attacks import ATTACKS
from attacks.attack import give_back_everything, runs_as_ever
from guarded import login
from stage import SECRET, Stage, staged

from harness import connected

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def stage(guarded_database: str) -> AsyncIterator[Stage]:
    async with staged(guarded_database) as made:
        yield made


@pytest.mark.row(307, 308, 310, 311)
@pytest.mark.parametrize("name", list(ATTACKS))
async def test_a_stolen_login_gets_nowhere_with(stage: Stage, name: str) -> None:
    attack = ATTACKS[name]
    try:
        async with asyncio.timeout(40), stage.attacker() as thief:
            if attack.refused:
                with pytest.raises(asyncpg.PostgresError) as raised:
                    await attack.run(thief, stage)
                assert raised.value.sqlstate in attack.refused, repr(raised.value)
                got: Any = raised.value.as_dict()
            else:
                got = await attack.run(thief, stage)
    finally:
        await give_back_everything(stage)
    assert SECRET not in repr([list(map(tuple, got))] if isinstance(got, list) and got and isinstance(got[0], asyncpg.Record) else got)  # fmt: skip
    await stage.finish()


def test_there_are_many_attacks() -> None:
    assert len(ATTACKS) >= 40


async def test_no_worker_needs_more_than_its_login(stage: Stage) -> None:
    """The stage itself: without an attack the stolen login works."""
    async with connected(login(stage.url, stage.stolen)) as worker:
        await runs_as_ever(worker, stage)
