"""Values at the edge of what columns hold: refused where they come in, or stored as they are; never a poisoned step."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from harness import connected, eventually, init_within, settled
from hotmesh import ConfigError, HotMesh, JobError, MappingError, Response, StreamData, Worker
from hotmesh.runtime.engine.limits import EngineLimits
from hotmesh.runtime.limits import DEFAULT_LIMITS, MemberLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

APP = "edges"

GRAPHS = """
app:
  id: edges
  version: '1'
  graphs:
    - subscribes: open
      expire: 3600
      activities:
        o0: {type: trigger}
        o1: {type: worker, topic: slow, job: {maps: {last: '{$self.output.data.n}'}}}
        o2: {type: hook}
      transitions:
        o0: [{to: o1}]
        o1: [{to: o2, conditions: {code: [200, 202]}}]
    - subscribes: named
      expire: 3600
      activities:
        n0: {type: trigger}
        n1:
          type: worker
          topic: '{n0.output.data.topic}'
          job: {maps: {_sku: '{$self.output.data.sku}', -mark: {deep: '{$self.output.data.mark}'}}}
      transitions:
        n0: [{to: n1}]
    - subscribes: ask
      expire: 3600
      activities:
        a0: {type: trigger}
        a1:
          type: hook
          escalation:
            role: '{a0.output.data.role}'
            metadata: {said: '{a0.output.data.said}'}
          job: {maps: {got: '{$self.hook.data.got}'}}
      transitions:
        a0: [{to: a1}]
      hooks:
        told:
          - to: a1
            conditions: {match: [{expected: '{a0.output.data.key}', actual: '{$self.hook.data.key}'}]}
    - subscribes: stop
      expire: 3600
      activities:
        s0: {type: trigger}
        s1: {type: interrupt, topic: open, target: '{s0.output.data.target}'}
      transitions:
        s0: [{to: s1}]
    - subscribes: counted
      expire: 3600
      activities:
        c0:
          type: trigger
          stats:
            key: all
            measures: [{measure: index, target: '{$self.input.data.color}'}]
        c1: {type: hook}
      transitions:
        c0: [{to: c1}]
      hooks:
        all.told:
          - to: c1
            conditions: {match: [{expected: '{$job.metadata.jid}', actual: '{$self.hook.data.id}'}]}
    - subscribes: tell
      expire: 3600
      activities:
        t0: {type: trigger}
        t1:
          type: signal
          subtype: all
          topic: all.told
          key_name: color
          key_value: '{t0.output.data.color}'
          resolver: {maps: {data: {}}}
          signal: {maps: {text: '{t0.output.data.text}'}}
      transitions:
        t0: [{to: t1}]
"""

NUL = "a\0b"


@asynccontextmanager
async def mesh_on(
    url: str, *workers: Worker, limits: MemberLimits = DEFAULT_LIMITS
) -> AsyncIterator[HotMesh]:
    async with init_within(limits, APP, connection=url, workers=workers) as mesh:
        await mesh.deploy(GRAPHS)
        await mesh.activate("1")
        yield mesh


# -- codes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [2**31, -(2**31) - 1, 10**20, 1.5, True, "4e2", None])
async def test_codes_that_no_column_holds_are_refused(database_url: str, code: Any) -> None:
    metadata = {"jid": "j", "gid": "00000000-0000-0000-0000-000000000000", "dad": ",0", "aid": "o1"}
    async with mesh_on(database_url) as mesh:
        for call in (
            mesh.signal("told", {"key": 1}, code=code),
            mesh.add({"metadata": metadata, "code": code}),
            mesh.interrupt("open", "j", code=code),
        ):
            with pytest.raises(ConfigError, match="code must be an integer from -2147483648 to 2147483647"):
                await call


async def test_an_error_with_a_code_beyond_all_has_code_500(database_url: str) -> None:
    async with mesh_on(database_url) as mesh, connected(database_url) as connection:
        job = await mesh.pub("ask", {"key": "k", "role": "r"})
        await mesh.signal("told", {"key": "k", "code": 10**20}, status="error")
        await settled(connection, APP)
        state = await mesh.get_state("ask", job)
    assert '"code":500' in state.metadata.err


# -- further answers -----------------------------------------------------------------------------------------


async def test_the_ids_of_further_answers_are_bounded_and_go_with_the_last(database_url: str) -> None:
    limits = MemberLimits(engine=EngineLimits(seen_answers=4))
    requests: list[StreamData] = []

    def begin(message: StreamData) -> Response:
        requests.append(message)
        return Response({"n": 0}, status="pending")

    async with (
        mesh_on(database_url, Worker("slow", begin), limits=limits) as mesh,
        connected(database_url) as connection,
    ):
        job = await mesh.pub("open", {})
        await eventually(lambda: requests)

        async def add(n: int, guid: str, status: str = "pending") -> None:
            metadata = {**requests[0].metadata, "guid": guid}
            await mesh.add({"metadata": metadata, "data": {"n": n}, "status": status})
            await eventually(nothing_waits)

        async def nothing_waits() -> bool:
            return bool(await connection.fetchval("select count(*) = 0 from hotmesh.engine_stream"))

        async def seen() -> Any:
            return await connection.fetchval(
                "select seen from hotmesh.activity where activity_id = 'o1' and state <> 'closed'"
            )

        for n in range(1, 8):
            await add(n, f"g{n}")
        assert await seen() == [f"later:g{n}" for n in range(4, 8)]
        await add(99, "g7")  # a repetition changes nothing
        assert await seen() == [f"later:g{n}" for n in range(4, 8)]
        assert (await mesh.get_state("open", job)).data == {"last": 7}
        await add(8, "g8", "success")
        await settled(connection, APP)
        assert (await mesh.get_state("open", job)).data == {"last": 8}
        assert await connection.fetchval("select count(*) from hotmesh.activity where seen is not null") == 0


# -- NUL characters ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extended", "words"),
    [
        ({"search": {"sku": NUL}}, "search field or marker 'sku' has a NUL character"),
        ({"search": {NUL: 1}}, "has a NUL character"),
        ({"marker": {"-done": {"deep": [NUL]}}}, "search field or marker 'done' has a NUL character"),
    ],
)
async def test_search_fields_with_a_nul_are_refused(
    database_url: str, extended: dict[str, Any], words: str
) -> None:
    async with mesh_on(database_url) as mesh:
        with pytest.raises(ConfigError, match=words):
            await mesh.pub("open", {}, extended=extended)
        with pytest.raises(ConfigError, match=r"context\.metadata\.trc is a text without NUL"):
            await mesh.pub("open", {}, {"metadata": {"trc": NUL}})
        literal = {
            "search": {"sku": "a\\u0000b"},
            "marker": {"-x": 5},
        }  # spelled out, it is text as any other
        job = await mesh.pub("open", {}, extended=literal)
        assert await mesh.get_query_state(job, ["sku", '"-x"']) == {"sku": "a\\u0000b", "-x": "5"}


async def test_a_nul_in_what_a_flow_stores_by_itself_is_that_activitys_error(database_url: str) -> None:
    def answer(message: StreamData) -> dict[str, Any]:
        return {"sku": "fine", "mark": NUL}

    async with mesh_on(database_url, Worker("w", answer)) as mesh:
        with pytest.raises(JobError, match="search field or marker -mark has a NUL character"):
            await mesh.pubsub("named", {"topic": "w"}, timeout=10)
        with pytest.raises(JobError, match="the topic of worker n1 has a NUL character"):
            await mesh.pubsub("named", {"topic": NUL}, timeout=10)
        with pytest.raises(JobError, match="the target of interrupt s1 has a NUL character"):
            await mesh.pubsub("stop", {"target": NUL}, timeout=10)
        for payload, words in (
            ({"key": "k", "role": NUL}, "escalation.role of hook a1 has a NUL character"),
            (
                {"key": "k", "role": "r", "said": {"x": [NUL]}},
                "escalation.metadata of hook a1 has a NUL character",
            ),
        ):
            with pytest.raises(JobError, match=words):
                await mesh.pubsub("ask", payload, timeout=10)
        with pytest.raises(MappingError, match=r"what the trigger counts as index of .* has a NUL character"):
            await mesh.pub("counted", {"color": NUL})


async def test_a_nul_in_payloads_arrives_as_it_was_sent(database_url: str) -> None:
    def echo(message: StreamData) -> dict[str, Any]:
        return {"n": message.metadata.jid + NUL}

    async with mesh_on(database_url, Worker("slow", echo)) as mesh, connected(database_url) as connection:
        origin = await mesh.pub("open", {"originJobId": NUL, "parentWorkflowId": "p"}, extended={"id": "o"})
        asked = await mesh.pub("ask", {"key": "k", "role": "r", "x": NUL})
        await mesh.signal("told", {"key": "k", "got": NUL})
        counted = await mesh.pub("counted", {"color": "red"})
        await mesh.pub("tell", {"color": "red", "text": NUL})
        await settled(connection, APP)
        await eventually(lambda: _none(connection, "broadcast"))
        await settled(connection, APP)
        assert (await mesh.get_state("open", origin)).data == {"last": "o" + NUL}
        assert (await mesh.get_state("ask", asked)).data == {"got": NUL}
        exported = await mesh.export(counted)
        assert NUL in str(exported).replace("\\x00", "\0")
        row: Any = await connection.fetchrow(
            "select origin_id, parent_id from hotmesh.job where job_id = 'o'"
        )
        assert dict(row) == {"origin_id": None, "parent_id": "p"}
        item: Any = await connection.fetchrow(
            "select status, resolver_payload ->> 'got' as got from hotmesh.escalation"
        )
        assert dict(item) == {"status": "resolved", "got": "a\ufffdb"}
        assert await connection.fetchval("select count(*) from hotmesh.dead_letter") == 0


async def _none(connection: Any, table: str) -> bool:
    return bool(await connection.fetchval(f"select count(*) = 0 from hotmesh.{table}"))
