"""How an attack is written: a function, and with which errors of Postgres it may end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from asyncpg import Connection
from stage import Stage, answer, claim

from harness import eventually

DENIED = "42501"
INVALID = "22023"
TOO_MUCH = "54000"


@dataclass(frozen=True)
class Attack:
    run: Callable[[Connection, Stage], Awaitable[Any]]
    refused: tuple[str, ...]


ATTACKS: dict[str, Attack] = {}

Attacking = Callable[[Connection, Stage], Awaitable[Any]]


def refused(*sqlstates: str) -> Callable[[Attacking], Attacking]:
    def add(run: Attacking) -> Attacking:
        ATTACKS[run.__name__] = Attack(run, sqlstates)
        return run

    return add


harmless = refused()


def statements(name: str, sqlstates: str | tuple[str, ...], *texts: str) -> None:
    """Attacks by single statements, each of which is refused."""
    states = (sqlstates,) if isinstance(sqlstates, str) else sqlstates

    async def run(c: Connection, s: Stage) -> None:
        for text in texts:
            with pytest.raises(asyncpg.PostgresError) as raised:
                await (c.execute if ";" in text else c.fetch)(text)
            assert raised.value.sqlstate in states, f"{text}: {raised.value!r}"

    ATTACKS[name] = Attack(run, ())


# -- what attacks share --------------------------------------------------------------------------------------


async def relations(c: Connection, kinds: str) -> list[str]:
    rows = await c.fetch(
        "select relname::text as name from pg_class "
        "where relnamespace = 'hotmesh'::regnamespace and relkind::text = any($1::text[])",
        list(kinds),
    )
    return [row["name"] for row in rows]


async def each_denied(c: Connection, kinds: str, *templates: str) -> None:
    names = await relations(c, kinds)
    assert names
    for name in names:
        for template in templates:
            with pytest.raises(asyncpg.PostgresError) as raised:
                await c.execute(template.format(f'hotmesh."{name}"'))
            assert raised.value.sqlstate in (DENIED, "42809"), f"{template} {name}: {raised.value!r}"


async def held_by_another(c: Connection, s: Stage) -> list[Any]:
    """Work that the honest worker holds; under the very name of member that the attacker uses."""
    await s.work()
    rows = await eventually(lambda: claim(s.worker, 1, member="m"))
    return list(rows)


async def answered_by_its_holder(s: Stage, rows: list[Any]) -> None:
    assert await answer(s.worker, rows, '{"y": 1}') == [True]


async def ended(s: Stage, job_id: str) -> bool:
    return await s.mesh.get_status(job_id) <= 0


async def has_rows(s: Stage, query: str, row: Any, count: int) -> bool:
    return bool(await s.owner.fetchval(query, row["generation"]) == count)


async def give_back_everything(s: Stage) -> None:
    await s.owner.execute(
        "update hotmesh.worker_stream set reserved_by = null, reserved_at = null, visible_at = now() "
        "where app_id = 'shop' and topic = 'charge'"
    )


async def runs_as_ever(c: Connection, s: Stage) -> Any:
    """Claim and answer, whatever the session is set to."""
    job_id = await s.work()
    rows = await eventually(lambda: claim(c))
    assert await answer(c, rows, '{"y": 1}') == [True]
    await eventually(lambda: ended(s, job_id))
    return rows
