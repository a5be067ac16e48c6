"""By what is sent: payloads, statements in arguments, numbers and arrays."""

from __future__ import annotations

import contextlib
import json
from functools import partial
from typing import Any

import asyncpg
import pytest
from asyncpg import Connection
from stage import ADD, ANSWER, BURY, CLAIM, EXTEND, NEXT, POSTPONE, Stage, answer, claim, named

from attacks.attack import ATTACKS, INVALID, TOO_MUCH, Attack, ended, harmless, refused, statements
from harness import eventually

# -- payloads -----------------------------------------------------------------------------------------------


BROKEN = {
    "nan": '{"y": NaN}',
    "infinity": '{"y": -Infinity}',
    "no json": "{'y': 1}",
    "nothing": "",
    "cut off": '{"y": ',
    "number beyond doubles": '{"y": [1e400]}',
    "number of 5000 digits": '{"y": ' + "9" * 5000 + "}",
    "half of a surrogate pair": '{"y": "\\ud800"}',
    "half of a surrogate pair in a key": '{"\\udfff": 1}',
    "201 levels": "[" * 201 + "]" * 201,
    "5000 levels": "[" * 5000 + "]" * 5000,
    "100000 levels": '{"a":' * 100_000 + "1" + "}" * 100_000,
}


def _broken(name: str, data: str, status: str) -> None:
    async def run(c: Connection, s: Stage) -> None:
        await s.work()
        rows = await eventually(lambda: claim(c))
        with pytest.raises(asyncpg.PostgresError) as raised:
            await answer(c, rows, data, status=status)
        assert raised.value.sqlstate == INVALID
        assert await answer(c, rows, '{"y": 1}') == [True]

    ATTACKS[f"answer_with_{name.replace(' ', '_')}_as_{status}"] = Attack(run, ())


for name, data in BROKEN.items():
    _broken(name, data, "success")
for name in ("number beyond doubles", "half of a surrogate pair", "5000 levels"):
    _broken(name, BROKEN[name], "error")
_broken("a list", "[1]", "error")
_broken("a text", '"gone"', "error")


@harmless
async def answer_with_statuses_and_codes_of_its_own(c: Connection, s: Stage) -> None:
    await s.work()
    rows = await eventually(lambda: claim(c))
    for status in ("interrupted", "SUCCESS", "", None, "error'--"):
        with pytest.raises(asyncpg.PostgresError):
            await answer(c, rows, status=status)
    with pytest.raises(asyncpg.PostgresError):
        await answer(c, rows, code=None)
    with pytest.raises(asyncpg.PostgresError) as raised:
        await c.fetch("select hotmesh.worker_answer('m', '{}', '{}', '{}', '{}', '{99999999999}', '{}')")
    assert raised.value.sqlstate == "22003"
    assert await answer(c, rows, '{"y": 1}', code=-(2**31)) == [True]


@refused(TOO_MUCH)
async def answer_with_two_megabytes(c: Connection, s: Stage) -> None:
    await s.work()
    rows = await eventually(lambda: claim(c))
    await answer(c, rows, json.dumps({"y": "x" * 2_000_000}))


@harmless
async def answer_with_an_error_of_odd_shape(c: Connection, s: Stage) -> None:
    """What an engine does not expect in an error does not reach it."""
    for data in (
        '{"message": {"a": 1}, "code": "x", "stack": 5, "error": [1], "more": 1}',
        "{}",
        '{"message": null}',
    ):
        job_id = await s.work()
        rows = await eventually(lambda: claim(c))
        assert await answer(c, rows, data, status="error", code=418) == [True]
        await eventually(partial(ended, s, job_id))
        error = json.loads((await s.mesh.get_state("order.charge", job_id)).metadata["err"])
        assert error["code"] == 418
        assert isinstance(error["message"], str)
        assert "more" not in error


@refused("22021")
async def send_a_nul_character(c: Connection, s: Stage) -> None:
    await claim(c, member="a\0b")


INJECTIONS = (
    "'; drop table hotmesh.job; --",
    '"; drop table hotmesh.job; --',
    "$$; drop table hotmesh.job; $$",
    "\\'; drop table hotmesh.job; --",
    "{0,0}'::integer[]); delete from hotmesh.job; --",
    "%s %I %L $1 :x {0}",
)


@harmless
async def put_sql_into_every_argument(c: Connection, s: Stage) -> Any:
    await s.work()
    rows = await eventually(lambda: claim(c))
    generation = rows[0]["generation"]
    got: list[Any] = []
    for text in INJECTIONS:
        for statement, arguments in (
            (CLAIM, (text, ["charge"], [text], ["{}"], [0], 30.0)),
            (CLAIM, ("m", [text], [None], ["{}"], [1], 30.0)),
            (CLAIM, ("m", ["charge"], [None], [text], [0], 30.0)),
            (ANSWER, (text, [generation], [text], ["{0}"], ["success"], [200], ["{}"])),
            (ANSWER, ("m", [generation], ["call"], [text], ["success"], [200], ["{}"])),
            (ANSWER, ("m", [generation], ["call"], ["{9}"], [text], [200], ["{}"])),
            (ANSWER, ("m", [generation], ["call"], ["{9}"], ["success"], [200], [text])),
            (ADD, (text, generation, text, "{0}", text, "success", 200, "{}")),
            (ADD, ("x", generation, "call", text, "g", "success", 200, "{}")),
            (ADD, ("x", generation, "call", "{0}", "g", text, 200, text)),
            (EXTEND, (text, [generation], [text], ["{0}"], 30.0)),
            (POSTPONE, (text, [generation], [text], ["{0}"], [0.0], [True])),
            (BURY, (text, generation, text, "{0}", text, "{}")),
            (NEXT, ([text], [text], ["{}"])),
        ):
            with contextlib.suppress(asyncpg.PostgresError):
                got.append(await c.fetch(statement, *arguments))
    assert await answer(c, rows, '{"y": 1}') == [True]
    return got


# -- numbers and arrays -------------------------------------------------------------------------------------


@harmless
async def ask_for_leases_that_make_no_sense(c: Connection, s: Stage) -> None:
    await s.work()
    for lease in (-1.0, 0.0, 0.5, 301.0, 1e308, float("inf"), float("nan"), float("-inf"), None):
        with pytest.raises(asyncpg.PostgresError) as raised:
            await c.fetch(CLAIM, "m", ["charge"], [None], ["{}"], [1], lease)
        assert raised.value.sqlstate == INVALID
    rows = await eventually(lambda: claim(c))
    for lease in (-1.0, 301.0, float("nan"), float("inf"), None):
        with pytest.raises(asyncpg.PostgresError) as raised:
            await c.fetchval(EXTEND, "m", *named(rows), lease)
        assert raised.value.sqlstate == INVALID
    assert await answer(c, rows, '{"y": 1}') == [True]


@harmless
async def ask_for_limits_that_make_no_sense(c: Connection, s: Stage) -> None:
    for limit in (-1, -(2**31), 0, None):
        assert await c.fetch(CLAIM, "m", ["charge"], [None], ["{}"], [limit], 30.0) == []
    for limits in ([], [1, 1], None):
        with pytest.raises(asyncpg.PostgresError):
            await c.fetch(CLAIM, "m", ["charge"], [None], ["{}"], limits, 30.0)


@harmless
async def send_arrays_of_hundreds_of_thousands(c: Connection, s: Stage) -> None:
    many = 200_000
    with pytest.raises(asyncpg.PostgresError) as raised:
        await c.fetch("select * from hotmesh.worker_claim('m', array_fill('charge'::text, array[$1::integer]), null, null, null, 30)", many)  # fmt: skip
    assert raised.value.sqlstate == TOO_MUCH
    names = "array_fill(gen_random_uuid(), array[$1::integer]), array_fill('a'::text, array[$1::integer]), array_fill('{0}'::text, array[$1::integer])"
    for call in (
        f"worker_answer('m', {names}, array_fill('success'::text, array[$1::integer]), array_fill(1, array[$1::integer]), null)",
        f"worker_extend('m', {names}, 30)",
        f"worker_postpone('m', {names}, null, null)",
    ):
        with pytest.raises(asyncpg.PostgresError) as raised:
            await c.fetch(f"select hotmesh.{call}", many)
        assert raised.value.sqlstate == TOO_MUCH


statements(
    "send_arrays_of_odd_shape",
    (INVALID, TOO_MUCH, "22P02"),
    "select * from hotmesh.worker_claim('m', '{{charge},{charge}}', '{{a},{a}}', '{{a},{a}}', '{{1},{1}}', 30)",
    "select * from hotmesh.worker_claim('m', '{charge}', '{null}', '{null}', '{1,2}', 30)",
    "select hotmesh.worker_answer('m', '{}', '{a}', '{}', '{}', '{}', '{}')",
    "select hotmesh.worker_answer('m', null, null, null, null, null, null)",
    "select hotmesh.worker_extend('m', null, null, null, 30)",
    "select hotmesh.worker_postpone('m', array[gen_random_uuid()], '{a}', '{0}', '{0}', '{null}')",
    "select hotmesh.worker_postpone('m', array[gen_random_uuid()], '{a}', '{0}', '{0}', '{true}', '{a,b}')",
    "select hotmesh.worker_postpone('m', array[gen_random_uuid()], '{a}', '{0}', '{0}', '{true}', array[repeat('x', 20001)])",
    "select hotmesh.worker_extend('', array[gen_random_uuid()], '{a}', '{0}', 30)",
    "select hotmesh.worker_extend(null, array[gen_random_uuid()], '{a}', '{0}', 30)",
    "select hotmesh.worker_set_beside(null, gen_random_uuid(), 'a', '{0}', false)",
    "select hotmesh.worker_set_beside('m', gen_random_uuid(), 'a', '{a}', false)",
    "select hotmesh.worker_extend(repeat('m', 201), array[gen_random_uuid()], '{a}', '{0}', 30)",
)
