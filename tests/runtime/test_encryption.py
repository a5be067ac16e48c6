"""With a codec nothing of the users' values is stored or sent in clear, and no process harms what it cannot decode."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from harness import bury_job, connected, eventually, settled
from hotmesh import AesGcmCodec, CodecError, ConfigError, HotMesh, JobError, Response, Worker
from hotmesh.core.codec import Payload
from hotmesh.runtime.members.listener import member_channel

pytestmark = pytest.mark.anyio

SECRET = "geheimnis"
NUMBER = 8675309123

FLOW = """
app:
  id: vault
  version: '1'
  graphs:
    - subscribes: go
      publishes: gone
      expire: 3600
      activities:
        start:
          type: trigger
          entity: '{$self.input.data.label}'
          stats: {key: key, measures: [{measure: index, target: '{$self.input.data.label}'}]}
          job: {maps: {told: '{$self.input.data.text}', _label: '{$self.input.data.label}'}}
        call:
          type: worker
          topic: work
          input: {maps: {text: '{start.output.data.text}', number: '{start.output.data.number}'}}
          job: {maps: {answer: '{$self.output.data}'}}
        ask:
          type: hook
          hook: {type: object}
          escalation: {role: clerk, envelope: {text: '{start.output.data.text}'}}
          job: {maps: {signal: '{$self.hook.data.text}'}}
        child:
          type: await
          topic: below
          input: {maps: {text: '{start.output.data.text}'}}
          job: {maps: {child: '{$self.output.data.text}'}}
      transitions:
        start: [{to: call}]
        call: [{to: ask}]
        ask: [{to: child}]
      hooks:
        asked: [{to: ask, conditions: {match: [{expected: '{$job.metadata.jid}', actual: '{$self.hook.data.id}'}]}}]
    - subscribes: below
      expire: 3600
      activities:
        below_start: {type: trigger, job: {maps: {text: '{$self.input.data.text}'}}}
    - subscribes: fail
      expire: 3600
      publishes: failed
      activities:
        fail_start: {type: trigger}
        fail_call: {type: worker, topic: broken, input: {maps: {text: '{fail_start.output.data.text}'}}}
      transitions:
        fail_start: [{to: fail_call}]
    - subscribes: sleep
      expire: 3600
      activities:
        sleep_start: {type: trigger}
        sleep_nap: {type: hook, sleep: 0.05, job: {maps: {text: '{sleep_start.output.data.text}'}}}
      transitions:
        sleep_start: [{to: sleep_nap}]
"""
INPUT = {"text": SECRET, "number": NUMBER, "label": "clear"}

TABLES = (
    "job", "activity", "worker_stream", "engine_stream", "timer", "wait", "signal", "dead_letter", "escalation",
    "measure", "broadcast",
)  # fmt: skip

KEY, OTHER = AesGcmCodec({"k": b"1" * 32}), AesGcmCodec({"o": b"2" * 32})
KEY_PAYLOAD = Payload(KEY)


async def work(message: Any) -> dict[str, Any]:
    return {"text": message.data["text"], "number": message.data["number"]}


async def broken(message: Any) -> Response:
    return Response({"message": f"cannot bear {message.data['text']}"}, status="error", code=500)


WORKERS = {"work": work, "broken": broken}


@asynccontextmanager
async def vault(url: str, *topics: str, codec: Any = KEY, **options: Any) -> AsyncIterator[HotMesh]:
    workers = [Worker(topic, WORKERS[topic]) for topic in topics]
    async with HotMesh.init("vault", connection=url, workers=workers, codec=codec, **options) as mesh:
        if options.get("engine", True):
            await mesh.deploy(FLOW)
            await mesh.activate("1")
        yield mesh


async def stored(connection: asyncpg.Connection) -> str:
    """Everything that the tables hold, as text."""
    found = [
        await connection.fetchval(f"select coalesce(json_agg(t), '[]')::text from hotmesh.{table} as t")
        for table in TABLES
    ]
    return "\n".join(found)


async def nothing_in_clear(connection: asyncpg.Connection) -> None:
    text = await stored(connection)
    for value in (SECRET, str(NUMBER), "cannot bear"):
        assert value not in text


async def ended(mesh: HotMesh, job_id: str) -> None:
    async def over() -> bool:
        return await mesh.get_status(job_id) <= 0

    await eventually(over, what=f"the end of {job_id}")


# -- at rest ---------------------------------------------------------------------------------------------


@pytest.mark.row(297, 298)
async def test_nothing_is_stored_in_clear(database_url: str) -> None:
    async with vault(database_url) as mesh, connected(database_url) as connection:
        job_id = await mesh.pub("go", INPUT, extended={"search": {"sku": "S1"}})
        await mesh.pub("fail", INPUT, extended={"id": "failing"})
        assert await connection.fetchval("select count(*) from hotmesh.worker_stream") == 2
        await nothing_in_clear(connection)

        async with vault(database_url, "work", "broken", engine=False):

            async def asked() -> Any:
                return await connection.fetchval("select true from hotmesh.wait")

            await eventually(asked)
            await ended(mesh, "failing")
            await nothing_in_clear(connection)
        await mesh.signal("asked", {"id": "early", "text": SECRET})
        await nothing_in_clear(connection)
        await mesh.signal("asked", {"id": job_id, "text": SECRET})
        await ended(mesh, job_id)
        await settled(connection, "vault")
        await nothing_in_clear(connection)

        answer = {"text": SECRET, "number": NUMBER}
        expected = {"told": SECRET, "answer": answer, "signal": SECRET, "child": SECRET}
        assert (await mesh.get_state("go", job_id)).data == expected
        exported = await mesh.export(job_id, enrich_inputs=True)
        assert exported["activities"][0]["input"] == answer
        raw = await mesh.get_raw(job_id)
        assert (raw["input"], raw["data"], raw["call,0,0"]["output"]) == (INPUT, expected, answer)
        error = json.loads((await mesh.get_state("fail", "failing")).metadata["err"])
        assert error["message"] == f"cannot bear {SECRET}"
        explained = await mesh.explain("failing")
        assert explained.error == error
        # What is to be found by is clear.
        assert (
            await connection.fetchval("select entity from hotmesh.job where job_id = $1", job_id) == "clear"
        )
        assert await mesh.get_query_state(job_id, ["label", "sku"]) == {"label": "clear", "sku": "S1"}
        assert (
            await connection.fetchval("select code from hotmesh.activity where activity_id = 'fail_call'")
            == 500
        )
        row = await connection.fetchrow("select envelope, resolver_payload, role from hotmesh.escalation")
        assert row is not None
        assert row["role"] == "clerk"


async def test_the_dead_letter_of_a_job_is_encoded_and_can_be_requeued(database_url: str) -> None:
    async with vault(database_url, "work", "broken") as mesh, connected(database_url) as connection:
        job_id = await mesh.pub("fail", INPUT)
        await ended(mesh, job_id)
        await mesh.pub("go", INPUT, extended={"id": "buried"})
        await eventually(
            lambda: connection.fetchval("select generation from hotmesh.wait where job_id = 'buried'")
        )
        await connection.execute(
            "insert into hotmesh.engine_stream (app_id, job_id, generation, message_id, kind, activity_id, dimension, status, "
            "code, data, attempt, visible_at, created_at) select app_id, job_id, generation, 'x', 'signal', activity_id, "
            "dimension, 'success', 200, $1::json, 9, now() + interval '1 hour', now() from hotmesh.wait",
            KEY_PAYLOAD.dumps({"id": "buried", "text": SECRET}),
        )
        await connection.execute(
            "update hotmesh.engine_stream set visible_at = now() - interval '1 second', attempt = 9"
        )
        await bury_job(database_url, "vault", "buried", KEY)
        await nothing_in_clear(connection)

        (letter,) = await mesh.list_dead_letters()
        assert letter.message["messages"][0]["data"] == {"id": "buried", "text": SECRET}
        await mesh.requeue(letter.id)
        await ended(mesh, "buried")
        assert (await mesh.get_state("go", "buried")).data["signal"] == SECRET


async def test_results_are_sent_to_other_processes_encoded(database_url: str) -> None:
    heard: list[str] = []
    told: list[Any] = []
    async with (
        vault(database_url, "broken") as mesh,
        vault(database_url) as other,
        connected(database_url) as connection,
    ):
        for one in (mesh, other):
            channel = member_channel(one._member.listener.channel, one.guid_)
            await connection.add_listener(channel, lambda *arguments: heard.append(arguments[3]))
        await other.sub("failed", lambda topic, output: told.append(output))
        await mesh.pub("fail", INPUT)
        await eventually(lambda: told)
        with pytest.raises(JobError, match=f"cannot bear {SECRET}"):
            await other.pubsub("fail", INPUT, timeout=10)

        assert json.loads(told[0].metadata["err"])["message"] == f"cannot bear {SECRET}"
        assert heard
        assert SECRET not in "".join(heard)


@pytest.mark.row(291, 292, 295)
async def test_a_codec_comes_changes_and_goes(database_url: str) -> None:
    both = AesGcmCodec({"new": b"3" * 32, "k": b"1" * 32}, current="new")
    async with vault(database_url, "work", codec=None) as mesh, connected(database_url) as connection:

        async def run(job_id: str) -> str:
            await mesh.pub("go", INPUT, extended={"id": job_id})
            await eventually(
                lambda: connection.fetchval("select true from hotmesh.wait where job_id = $1", job_id)
            )
            return str(await connection.fetchval("select data from hotmesh.job where job_id = $1", job_id))

        try:
            assert SECRET in await run("plain")
            HotMesh.register_codec(KEY)
            assert (await run("first")).startswith('"hotmesh.codec:k.')
            HotMesh.register_codec(both)
            assert (await run("second")).startswith('"hotmesh.codec:new.')
            for job_id in ("plain", "first", "second"):
                assert (await mesh.get_state("go", job_id)).data["told"] == SECRET
                await mesh.signal("asked", {"id": job_id, "text": SECRET})
                await ended(mesh, job_id)
            HotMesh.register_codec(None)
            assert SECRET in await run("plain again")
            with pytest.raises(CodecError):
                await mesh.get_state("go", "second")
        finally:
            HotMesh.register_codec(None)


@pytest.mark.row(293, 294)
async def test_dates_and_scalars_read_as_without_a_codec(database_url: str) -> None:
    from datetime import UTC, datetime

    values = [
        datetime(2030, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
        1,
        2**60,
        1.5,
        True,
        None,
        "",
        "text",
        "hotmesh.codec:x",
    ]
    async with vault(database_url, codec=None) as plain, vault(database_url) as mesh:
        for value in values:
            found = []
            for one in (plain, mesh):
                job_id = await one.pub("below", {"text": value})
                found.append((await one.get_state("below", job_id)).data)
            assert found[0] == found[1]
        # A value that is nothing but text which looks encoded is text, with and without a codec.
        for one in (plain, mesh):
            job_id = await one.pub("below", "hotmesh.codec:x")
            assert (await one.get_raw(job_id))["input"] == "hotmesh.codec:x"


@pytest.mark.row(296)
def test_a_codec_is_registered_for_the_process() -> None:
    try:
        HotMesh.register_codec(KEY)
        assert HotMesh.get_codec() is KEY
    finally:
        HotMesh.register_codec(None)
    assert HotMesh.get_codec() is None
    with pytest.raises(ConfigError, match="a codec has the methods encode and decode"):
        HotMesh.register_codec(object())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a codec has the methods encode and decode"):
        HotMesh.init("vault", codec="key")  # type: ignore[arg-type]


async def test_a_job_that_sql_has_started_in_clear_is_encoded_when_it_starts(database_url: str) -> None:
    async with vault(database_url, readonly=True) as mesh, connected(database_url) as connection:
        await mesh.pub("below", {"text": SECRET}, extended={"id": "python"}, connection=connection)
        await nothing_in_clear(connection)
        await connection.execute(
            "select hotmesh.start_job('vault', 'below', jsonb_build_object('text', $1::text), 'sql')", SECRET
        )
        async with vault(database_url):
            await ended(mesh, "python")
            await ended(mesh, "sql")
        await nothing_in_clear(connection)
        for job_id in ("python", "sql"):
            assert (await mesh.get_state("below", job_id)).data == {"text": SECRET}


# -- processes without the key -----------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [None, OTHER])
async def test_reading_without_the_key_says_so(database_url: str, codec: Any) -> None:
    async with vault(database_url) as mesh, vault(database_url, codec=codec, readonly=True) as blind:
        job_id = await mesh.pub("below", {"text": SECRET})

        for read in (
            blind.get_state("below", job_id),
            blind.export(job_id),
            blind.get_raw(job_id),
        ):
            with pytest.raises(CodecError):
                await read
        assert await blind.get_status(job_id) == 0
        assert (await blind.explain(job_id)).state == "complete"


@pytest.mark.parametrize("codec", [None, OTHER])
async def test_a_worker_without_the_key_gives_work_back(
    database_url: str, codec: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with vault(database_url) as mesh, connected(database_url) as connection:
        async with vault(database_url, "work", engine=False, codec=codec):
            await mesh.pub("go", INPUT, extended={"id": "j"})

            async def given_back() -> Any:
                return await connection.fetchval(
                    "select true from hotmesh.worker_stream where reserved_by is null and visible_at > now()"
                )

            await eventually(given_back)
            row = await connection.fetchrow("select attempt, delivery from hotmesh.worker_stream")
            assert tuple(row or ()) == (0, 0)
        assert "work cannot be decoded" in caplog.text
        async with vault(database_url, "work", engine=False):
            await eventually(lambda: connection.fetchval("select true from hotmesh.wait"))
        assert await connection.fetchval("select count(*) from hotmesh.dead_letter") == 0


async def test_an_engine_without_the_key_leaves_jobs_alone(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with vault(database_url, "work") as mesh, connected(database_url) as connection:
        for job_id in ("one", "two"):
            await mesh.pub("go", INPUT, extended={"id": job_id})
        await eventually(lambda: connection.fetchval("select count(*) = 2 from hotmesh.wait"))
        sleeping = await mesh.pub("sleep", {"text": SECRET})
        await mesh.stop()
        async with vault(database_url, codec=OTHER) as blind:
            mine = await blind.pub("below", {"text": "mine"})
            for job_id in ("one", "two"):
                await blind.signal("asked", {"id": job_id, "text": "answered"})

            async def left() -> Any:
                return await connection.fetchval(
                    "select count(*) = 2 and max(attempt) = 0 from hotmesh.engine_stream where visible_at > now()"
                )

            await eventually(left)
            # It handles what it can decode meanwhile.
            assert (await blind.get_state("below", mine)).data == {"text": "mine"}
        assert "jobs cannot be decoded" in caplog.text
        assert await connection.fetchval("select count(*) from hotmesh.dead_letter") == 0
        both = AesGcmCodec({"k": b"1" * 32, "o": b"2" * 32}, current="k")
        async with vault(database_url, codec=both) as able:
            for job_id in ("one", "two", sleeping):
                await ended(able, job_id)
            assert (await able.get_state("go", "one")).data["signal"] == "answered"
            assert (await able.get_state("sleep", sleeping)).data == {"text": SECRET}


async def test_an_answer_for_a_job_that_cannot_be_decoded_here_is_handed_on(database_url: str) -> None:
    """A process that had the job's key when it began the work, and has lost it when it is done."""
    both = AesGcmCodec({"k": b"1" * 32, "o": b"2" * 32}, current="k")
    release = asyncio.Event()
    codec: list[Any] = [both]
    calls: list[int] = []

    class Changing:
        def encode(self, text: str, /) -> str:
            return str(codec[0].encode(text))

        def decode(self, text: str, /) -> str:
            return str(codec[0].decode(text))

    async def slow(message: Any) -> dict[str, Any]:
        calls.append(1)
        await release.wait()
        return {"text": "done", "number": 1}

    async with (
        HotMesh.init(
            "vault",
            connection=database_url,
            workers=[Worker("work", slow)],
            codec=Changing(),
            settings={"cache_jobs": 0},
        ) as mesh,
        connected(database_url) as connection,
    ):
        await mesh.deploy(FLOW)
        await mesh.activate("1")
        await mesh.pub("go", INPUT, extended={"id": "j"})
        await eventually(lambda: calls)
        codec[0] = OTHER
        release.set()
        await eventually(lambda: connection.fetchval("select true from hotmesh.engine_stream"))
        assert await connection.fetchval("select count(*) from hotmesh.worker_stream") == 0
        await mesh.stop()
        async with vault(database_url, codec=both) as able:
            await eventually(lambda: connection.fetchval("select true from hotmesh.wait"))
            assert (await able.get_state("go", "j")).data["answer"]["text"] == "done"
    assert calls == [1]


async def test_a_codec_that_fails_for_a_while_loses_nothing(database_url: str) -> None:
    failing = False

    class Shaky:
        def encode(self, text: str, /) -> str:
            if failing:
                raise OSError("no answer from the key store")
            return str(KEY.encode(text))

        def decode(self, text: str, /) -> str:
            return str(KEY.decode(text))

    async def fails_now(message: Any) -> dict[str, Any]:
        nonlocal failing
        failing = True
        return {"text": "done", "number": 1}

    async with HotMesh.init(
        "vault", connection=database_url, workers=[Worker("work", fails_now)], codec=Shaky()
    ) as mesh:
        await mesh.deploy(FLOW)
        await mesh.activate("1")
        await mesh.pub("go", INPUT, extended={"id": "j"})
        await eventually(lambda: failing)
        with pytest.raises(CodecError, match="no answer from the key store"):
            await mesh.pub("go", INPUT)
        failing = False
        async with connected(database_url) as connection:
            await eventually(lambda: connection.fetchval("select true from hotmesh.wait"))
        assert (await mesh.get_state("go", "j")).data["answer"]["text"] == "done"


async def test_a_caller_whose_process_cannot_decode_the_result_is_told(database_url: str) -> None:
    blind_codec: list[Any] = [KEY]

    class Changing:
        def encode(self, text: str, /) -> str:
            return str(KEY.encode(text))

        def decode(self, text: str, /) -> str:
            return str(blind_codec[0].decode(text))

    async with (
        vault(database_url, "broken") as mesh,
        vault(database_url, codec=Changing(), readonly=True) as caller,
    ):
        del mesh
        blind_codec[0] = OTHER
        with pytest.raises(CodecError):
            await caller.pubsub("fail", INPUT, timeout=10)
