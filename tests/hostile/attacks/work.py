"""On work of other topics, other apps and other logins."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest
from asyncpg import Connection
from stage import ANSWER, BURY, CLAIM, EXTEND, NEXT, POSTPONE, Stage, answer, claim, named

from attacks.attack import DENIED, answered_by_its_holder, ended, harmless, held_by_another, refused
from harness import eventually

# -- other topics, other apps -------------------------------------------------------------------------------


@refused(DENIED)
async def claim_another_topic(c: Connection, s: Stage) -> Any:
    return await claim(c, topic="hidden")


@refused(DENIED)
async def claim_another_topic_beside_its_own(c: Connection, s: Stage) -> Any:
    return await c.fetch(CLAIM, "m", ["charge", "hidden"], [None, None], ["{}", "{}"], [1, 1], 30.0)


@harmless
async def claim_by_patterns_and_nothing(c: Connection, s: Stage) -> None:
    for topic in ("*", "%", "", "CHARGE", " charge", "charge ", "charge,hidden", "{charge}", None):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await c.fetch(CLAIM, "m", [topic], [None], ["{}"], [1], 30.0)
    nothings: list[Any] = [[], None]
    for nothing in nothings:
        assert await c.fetch(CLAIM, "m", nothing, nothing, nothing, nothing, 30.0) == []


@harmless
async def claim_the_same_topic_of_another_app(c: Connection, s: Stage) -> Any:
    await s.work()
    found = await claim(c, 100)
    assert {row["app_id"] for row in found} == {"shop"}
    assert await answer(c, found, '{"y": 1}') == [True] * len(found)
    return found


@refused(DENIED)
async def ask_when_work_of_another_topic_is_due(c: Connection, s: Stage) -> Any:
    return await c.fetchval(NEXT, ["hidden"], [None], ["{}"])


@refused(DENIED)
async def set_the_list_of_allowed_streams_row_310(c: Connection, s: Stage) -> Any:
    await c.execute("set app.allowed_streams = 'hidden'")
    return await claim(c, topic="hidden")


@harmless
async def use_a_namespace_that_is_not_its_own(c: Connection, s: Stage) -> None:
    await s.owner.execute(
        "create schema if not exists elsewhere; create table if not exists elsewhere.job (x text)"
    )
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await c.fetch("select * from elsewhere.job")


# -- answers that are not its own ---------------------------------------------------------------------------


@harmless
async def answer_for_another_login(c: Connection, s: Stage) -> None:
    rows = await held_by_another(c, s)
    for member in ("m", f"{s.honest.role_name}/m", f"../{s.honest.role_name}/m"):
        assert await answer(c, rows, '{"y": 666}', member=member) == [False]
    await answered_by_its_holder(s, rows)


@harmless
async def extend_postpone_and_bury_for_another_login(c: Connection, s: Stage) -> None:
    rows = await held_by_another(c, s)
    names = named(rows)
    assert await c.fetchval(EXTEND, "m", *names, 30.0) == [False]
    assert await c.fetchval(POSTPONE, "m", *names, [0.0], [True]) == 0
    assert await c.fetchval(BURY, "m", *(name[0] for name in names), "gone", "{}") is False
    await answered_by_its_holder(s, rows)


@harmless
async def answer_for_work_that_it_knows_and_does_not_hold(c: Connection, s: Stage) -> None:
    hidden = await s.generation("hidden")
    for generation in (hidden, "00000000-0000-0000-0000-000000000000"):
        found = await c.fetchval(ANSWER, "m", [generation], ["hide"], ["{0,0}"], ["success"], [200], ["{}"])
        assert found == [False]
    assert await s.mesh.get_status("hidden") == 1


@harmless
async def answer_for_a_member_of_the_mesh(c: Connection, s: Stage) -> None:
    job_id = await s.work()
    await s.owner.execute(
        "update hotmesh.worker_stream set reserved_by = $1, visible_at = now() + interval '1 minute' where job_id = $2",
        s.mesh.guid_,
        job_id,
    )
    generation = await s.generation(job_id)
    assert await c.fetchval(ANSWER, s.mesh.guid_, [generation], ["call"], ["{0,0}"], ["success"], [200], ["{}"]) == [False]  # fmt: skip
    await s.mesh.scrub(job_id)


@harmless
async def replay_an_answer(c: Connection, s: Stage) -> None:
    job_id = await s.work()
    rows = await eventually(lambda: claim(c))
    assert await answer(c, rows, '{"y": 1}') == [True]
    assert await answer(c, rows, '{"y": 666}') == [False]
    await eventually(lambda: ended(s, job_id))
    assert (await s.mesh.get_state("order.charge", job_id)).data == {"y": 1}
    assert await answer(c, rows, '{"y": 666}') == [False]


@harmless
async def answer_one_work_twice_at_once(c: Connection, s: Stage) -> None:
    job_id = await s.work()
    [row] = await eventually(lambda: claim(c))
    generations, activities, dimensions = named([row, row])
    await c.fetchval(ANSWER, "m", generations, activities, dimensions, ["success"] * 2, [200] * 2, ['{"y": 1}', '{"y": 2}'])  # fmt: skip
    await eventually(lambda: ended(s, job_id))
    assert (await s.mesh.get_state("order.charge", job_id)).data["y"] in (1, 2)


@harmless
async def answer_after_the_lease_has_passed_to_another(c: Connection, s: Stage) -> None:
    job_id = await s.work()
    rows = await eventually(lambda: claim(c))
    await s.owner.execute("update hotmesh.worker_stream set visible_at = now() where job_id = $1", job_id)
    other = await eventually(lambda: claim(s.worker))
    assert await answer(c, rows, '{"y": 666}') == [False]
    await answered_by_its_holder(s, other)


@harmless
async def name_another_job_activity_or_address(c: Connection, s: Stage) -> None:
    """What is answered follows from the stored work; the names only find it."""
    await s.work()
    [row] = await eventually(lambda: claim(c))
    generation = row["generation"]
    for activity, dimension in (
        ("start", "{0}"),
        ("call", "{0,1}"),
        ("call", "{}"),
        ("", "{0,0}"),
        (None, None),
    ):
        found = await c.fetchval(
            ANSWER, "m", [generation], [activity], [dimension], ["success"], [200], ["{}"]
        )
        assert found == [False]
    assert await answer(c, [row], '{"y": 1}') == [True]
