"""On jobs by answers that are added to what was answered before."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest
from asyncpg import Connection
from stage import ANSWER, Stage, add, answer, claim, named

from attacks.attack import (
    INVALID,
    TOO_MUCH,
    answered_by_its_holder,
    ended,
    harmless,
    has_rows,
    held_by_another,
)
from attacks.payloads import BROKEN
from harness import eventually
from hotmesh.postgres.connect.failures import DRIVER_ERRORS


async def answered_pending(c: Connection, s: Stage) -> Any:
    """Work that this login has answered with `pending`, and an engine has seen it."""
    await s.work()
    [row] = await eventually(lambda: claim(c))
    assert await answer(c, [row], '{"y": 0}', status="pending", code=202) == [True]
    state = "select state = 'pending' from hotmesh.activity where generation = $1 and activity_id = 'call'"
    await eventually(lambda: s.owner.fetchval(state, row["generation"]))
    return row


async def written(s: Stage, row: Any) -> Any:
    """All that an answer can have changed of a job."""
    return [
        await s.owner.fetch(f"select t::text from hotmesh.{table} as t where generation = $1 order by 1", row["generation"])
        for table in ("job", "activity", "worker_stream", "worker_pending", "engine_stream", "dead_letter")
    ]  # fmt: skip


async def answered_later(c: Connection, s: Stage, row: Any) -> None:
    """Who gave the pending answer still can give the last one; then nothing is left of it."""
    assert await add(c, row, '{"y": 1}', guid="last") == "sent"
    await eventually(lambda: ended(s, row["job_id"]))
    assert (await s.mesh.get_state("order.charge", row["job_id"])).data == {"y": 1}
    kept = "select count(*) from hotmesh.worker_pending where generation = $1"
    assert await s.owner.fetchval(kept, row["generation"]) == 0


@harmless
async def add_to_what_another_login_has_answered(c: Connection, s: Stage) -> None:
    row = await answered_pending(s.worker, s)
    before = await written(s, row)
    assert await add(c, row) == "closed"
    assert await written(s, row) == before
    await answered_later(s.worker, s, row)


@harmless
async def add_to_what_waits_or_is_held(c: Connection, s: Stage) -> None:
    """Nobody has answered pending: neither for work that is free, nor for what others, or it itself, hold."""
    job_id = await s.work()
    free = await s.owner.fetchrow("select * from hotmesh.worker_stream where job_id = $1", job_id)
    before = await written(s, free)
    assert await add(c, free) == "closed"
    assert await written(s, free) == before
    [row] = await eventually(lambda: claim(s.worker))
    before = await written(s, row)
    assert await add(c, row) == "closed"
    assert await written(s, row) == before
    await answered_by_its_holder(s, [row])
    await s.work()
    [own] = await eventually(lambda: claim(c))
    before = await written(s, own)
    assert await add(c, own) == "held"
    assert await written(s, own) == before
    assert await answer(c, [own], '{"y": 1}') == [True]


@harmless
async def add_to_what_it_has_answered_for_good(c: Connection, s: Stage) -> None:
    await s.work()
    [row] = await eventually(lambda: claim(c))
    assert await answer(c, [row], '{"y": 1}') == [True]
    assert await add(c, row) == "closed"
    await eventually(lambda: ended(s, row["job_id"]))
    assert await add(c, row) == "closed"
    assert (await s.mesh.get_state("order.charge", row["job_id"])).data == {"y": 1}


@harmless
async def add_after_answering_pending_and_for_good_at_once(c: Connection, s: Stage) -> None:
    await s.work()
    [row] = await eventually(lambda: claim(c))
    await c.fetchval(ANSWER, "m", *named([row, row]), ["success", "pending"], [200, 202], ['{"y": 1}', '{"y": 2}'])  # fmt: skip
    if not await ended(s, row["job_id"]):
        await add(c, row, '{"y": 2}')
    await eventually(lambda: ended(s, row["job_id"]))
    assert (await s.mesh.get_state("order.charge", row["job_id"])).data["y"] in (1, 2)
    assert await add(c, row, guid="more") == "closed"


@harmless
async def add_again_after_the_last_answer(c: Connection, s: Stage) -> None:
    row = await answered_pending(c, s)
    async with s.owner.transaction():
        # No engine may apply the last answer before the attacker has tried.
        await s.owner.execute("select from hotmesh.job where job_id = $1 for update", row["job_id"])
        assert await add(c, row, '{"y": 1}', guid="last") == "sent"
        assert await add(c, row, guid="last") == "duplicate"
        assert await add(c, row, guid="another") == "closed"
        assert await add(c, row, guid="another", status="pending", code=202) == "closed"
    await eventually(lambda: ended(s, row["job_id"]))
    assert await add(c, row, guid="another") == "closed"
    assert await add(c, row, guid="last") == "closed"
    assert (await s.mesh.get_state("order.charge", row["job_id"])).data == {"y": 1}


@harmless
async def replay_an_answer_that_was_added(c: Connection, s: Stage) -> None:
    row = await answered_pending(c, s)
    passes = "select count(*) from hotmesh.activity where generation = $1 and activity_id = 'call'"
    assert await add(c, row, guid="one", status="pending", code=202) == "sent"
    await eventually(lambda: has_rows(s, passes, row, 2))
    for _ in range(3):
        await add(c, row, guid="one", status="pending", code=202)
    assert await add(c, row, guid="two", status="pending", code=202) == "sent"
    await eventually(lambda: has_rows(s, passes, row, 3))
    await answered_later(c, s, row)


@harmless
async def add_to_a_job_that_has_ended(c: Connection, s: Stage) -> None:
    row = await answered_pending(c, s)
    await s.mesh.interrupt("order.charge", row["job_id"])
    before = await written(s, row)
    assert await add(c, row) == "closed"
    assert await written(s, row) == before
    assert before[3] == []
    await s.mesh.scrub(row["job_id"])
    assert await add(c, row) == "closed"


@harmless
async def add_to_an_earlier_generation_of_a_job(c: Connection, s: Stage) -> None:
    row = await answered_pending(c, s)
    await s.mesh.scrub(row["job_id"])
    await s.mesh.pub("order.charge", {"x": 1}, extended={"id": row["job_id"]})
    [new] = await eventually(lambda: claim(s.worker))
    assert await answer(s.worker, [new], '{"y": 0}', status="pending", code=202) == [True]
    before = await written(s, new)
    assert await add(c, row) == "closed"
    assert await add(c, new) == "closed"
    assert (await written(s, new))[3] == before[3]
    await answered_later(s.worker, s, new)


@harmless
async def name_another_job_or_activity_when_adding(c: Connection, s: Stage) -> None:
    row = await answered_pending(c, s)
    hidden = await s.generation("hidden")
    for other in (
        {"job_id": "hidden"},
        {"job_id": "hidden", "generation": hidden, "activity": "hide"},
        {"generation": hidden},
        {"generation": "00000000-0000-0000-0000-000000000000"},
        {"generation": None},
        {"job_id": None},
        {"activity": "start", "dimension": "{0}"},
        {"activity": ""},
        {"activity": None},
        {"dimension": "{0,1}"},
        {"dimension": "{}"},
        {"dimension": None},
    ):
        assert await add(c, row, **other) == "closed"
    assert await s.mesh.get_status("hidden") == 1
    await answered_later(c, s, row)


@harmless
async def add_to_another_app_or_a_topic_that_was_taken_away(c: Connection, s: Stage) -> None:
    """Even if it is written down that this login gave the pending answer."""
    row = await answered_pending(c, s)
    changed = "update hotmesh.worker_pending set app_id = $2, topic = $3 where generation = $1"
    for app_id, topic in (("vault", "charge"), ("shop", "hidden")):
        await s.owner.execute(changed, row["generation"], app_id, topic)
        before = await written(s, row)
        assert await add(c, row) == "closed"
        assert await written(s, row) == before
    await s.owner.execute(changed, row["generation"], "shop", "charge")
    await answered_later(c, s, row)


@harmless
async def add_once_it_is_revoked(c: Connection, s: Stage) -> None:
    row = await answered_pending(c, s)
    revoked = "update hotmesh.worker_credential set revoked_at = {} where role_name = $1"
    await s.owner.execute(revoked.format("now()"), s.stolen.role_name)
    try:
        before = await written(s, row)
        # Refused, or its session has been ended by an engine, which looks for those of revoked logins.
        with pytest.raises((OSError, *DRIVER_ERRORS)) as raised:
            await add(c, row)
        if isinstance(raised.value, asyncpg.PostgresError):
            assert raised.value.sqlstate in ("42501", "57P01", "08003"), repr(raised.value)
        assert await written(s, row) == before
    finally:
        await s.owner.execute(revoked.format("null"), s.stolen.role_name)
    async with s.attacker() as again:
        await answered_later(again, s, row)


@harmless
async def add_under_names_that_engines_use(c: Connection, s: Stage) -> None:
    """A message that the job gets later must not find its id in use."""
    row = await answered_pending(c, s)
    for guid in ("answer:call:{0,0}", "interrupt", f"resume:{row['job_id']}", "later:last", "'", "x" * 512):
        assert await add(c, row, guid=guid, status="pending", code=202) == "sent"
    ids = "select message_id from hotmesh.engine_stream where generation = $1"
    assert all(one["message_id"].startswith("later:") for one in await s.owner.fetch(ids, row["generation"]))
    await answered_later(c, s, row)


@harmless
async def add_with_what_no_answer_may_have(c: Connection, s: Stage) -> None:
    row = await answered_pending(c, s)
    before = await written(s, row)
    for name, data in BROKEN.items():
        with pytest.raises(asyncpg.PostgresError) as raised:
            await add(c, row, data)
        assert raised.value.sqlstate == INVALID, name
    for options in (
        {"status": "interrupted"},
        {"status": None},
        {"code": None},
        {"guid": ""},
        {"guid": None},
        {"guid": "x" * 513},
        {"status": "error", "data": "[1]"},
    ):
        with pytest.raises(asyncpg.PostgresError) as raised:
            await add(c, row, **options)
        assert raised.value.sqlstate == INVALID, options
    with pytest.raises(asyncpg.PostgresError) as raised:
        await add(c, row, json.dumps({"y": "x" * 2_000_000}))
    assert raised.value.sqlstate == TOO_MUCH
    assert await written(s, row) == before
    await answered_later(c, s, row)


@harmless
async def add_without_end(c: Connection, s: Stage) -> None:
    row = await answered_pending(c, s)
    most = "update hotmesh.worker_credential set most_attempts = $2 where role_name = $1"
    await s.owner.execute(most, s.stolen.role_name, 3)
    try:
        for n in range(3):
            assert await add(c, row, guid=f"g{n}", status="pending", code=202) == "sent"
        with pytest.raises(asyncpg.PostgresError) as raised:
            await add(c, row, guid="more")
        assert raised.value.sqlstate == TOO_MUCH
    finally:
        await s.owner.execute(most, s.stolen.role_name, 1000)
    await answered_later(c, s, row)


@harmless
async def add_and_keep_the_transaction_open(c: Connection, s: Stage) -> None:
    """With the row that the engine has to remove; the engine ends the session."""
    row = await answered_pending(c, s)
    await c.execute("begin")
    assert await add(c, row, status="pending", code=202) == "sent"
    await s.mesh.interrupt("order.charge", row["job_id"])
    await eventually(c.is_closed)


@harmless
async def pretend_to_have_answered_pending(c: Connection, s: Stage) -> None:
    """For work that it does not hold, a pending answer leaves nothing behind."""
    rows = await held_by_another(c, s)
    assert await answer(c, rows, status="pending", code=202) == [False]
    before = await written(s, rows[0])
    assert await add(c, rows[0]) == "closed"
    assert await written(s, rows[0]) == before
    assert before[3] == []
    await answered_by_its_holder(s, rows)
