"""Names that rows are found by are stored up to their bounds, and refused by name beyond, before an index of Postgres does it."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from typing import Any

import asyncpg
import pytest

from harness import connected, eventually
from hotmesh import CompileError, ConfigError, HotMesh, MappingError, Worker
from hotmesh.core.lengths import (
    LONGEST_APP,
    LONGEST_ID,
    LONGEST_MEMBER,
    LONGEST_NAME,
    LONGEST_TOPIC,
    LONGEST_VERSION,
    excess,
)

pytestmark = pytest.mark.anyio


def text(size: int) -> str:
    """Of so many bytes, in characters of four; by chance, so that Postgres cannot make it shorter."""
    chance = random.Random(size)
    rest = size % 4
    return "".join(chr(chance.randrange(0x10000, 0x2FFFF)) for _ in range(size // 4)) + "x" * rest


APP = "a" * LONGEST_APP


def graphs(subscribes: str = "go", hook: str = "told", version: str = "1") -> dict[str, Any]:
    return {
        "app": {
            "id": APP,
            "version": version,
            "graphs": [
                {
                    "subscribes": subscribes,
                    "publishes": f"{subscribes[1:]}",
                    "expire": 3600,
                    "activities": {
                        "t": {
                            "type": "trigger",
                            "entity": "{t.output.data.entity}",
                            "stats": {
                                "key": "{$self.input.data.job_key}",
                                "measures": [{"measure": "count", "target": "{$self.input.data.facet}"}],
                            },
                        },
                        "w": {
                            "type": "worker",
                            "topic": "{t.output.data.topic}",
                            "input": {"maps": {"workflowName": "{t.output.data.name}"}},
                        },
                        "h": {
                            "type": "hook",
                            "escalation": {
                                "role": "{t.output.data.role}",
                                "entity": "{t.output.data.entity}",
                                "originId": "{t.output.data.origin}",
                                "description": "{t.output.data.description}",
                            },
                        },
                    },
                    "transitions": {"t": [{"to": "w"}], "w": [{"to": "h"}]},
                    "hooks": {
                        hook: [
                            {
                                "to": "h",
                                "conditions": {
                                    "match": [
                                        {"expected": "{t.output.data.key}", "actual": "{$self.hook.data.id}"}
                                    ]
                                },
                            }
                        ]
                    },
                }
            ],
        }
    }


AT_MOST = {
    "topic": text(LONGEST_TOPIC),
    "name": text(LONGEST_NAME),
    "role": text(LONGEST_NAME),
    "entity": text(LONGEST_NAME),
    "job_key": text(LONGEST_NAME),
    "origin": text(LONGEST_ID),
    "key": text(LONGEST_ID),
    "facet": text(5000),
    "description": text(5000),
}


async def work(message: Any) -> dict[str, Any]:
    return {}


async def test_everything_at_its_bound_is_stored(any_database_url: str) -> None:
    subscribes, hook = text(LONGEST_TOPIC), text(LONGEST_TOPIC - 4) + "hook"
    version, guid = text(LONGEST_VERSION), text(LONGEST_MEMBER)
    workers = [Worker(AT_MOST["topic"], work, workflow_name=AT_MOST["name"])]
    async with HotMesh.init(APP, connection=any_database_url, guid=guid, workers=workers) as mesh:
        await mesh.deploy(graphs(subscribes, hook, version))
        await mesh.activate(version)
        await mesh.signal(hook, {"id": text(LONGEST_ID - 4)})  # kept for one to come
        await mesh.sub(text(1024), lambda *_: None)
        await mesh.throttle(1, topic=text(LONGEST_TOPIC))
        job_id = await mesh.pub(
            subscribes, AT_MOST, extended={"id": text(2048), "entity": text(LONGEST_NAME)}
        )

        async def waits() -> Any:
            async with connected(any_database_url) as connection:
                return await connection.fetchval("select count(*) from hotmesh.wait")

        await eventually(waits, what="the wait")
        await mesh.signal(hook, {"id": AT_MOST["key"]})
        await eventually(lambda: ended(mesh, job_id), what="the end")


async def ended(mesh: HotMesh, job_id: str) -> bool:
    return await mesh.get_status(job_id) == 0


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("topic", "the topic of worker w has 503 bytes; it may have at most 500"),
        ("name", "the workflow name of worker w has 1003 bytes; it may have at most 1000"),
        ("role", "escalation.role of hook h has 1003 bytes"),
        ("key", "has 2051 bytes; it may have at most 2048"),
        ("origin", "escalation.originId of hook h has 2051 bytes"),
        ("job_key", "the job key of stats.key has 1003 bytes"),
        ("entity", "the entity has 1003 bytes"),
    ],
)
async def test_what_a_flow_computes_is_refused_by_name(any_database_url: str, name: str, what: str) -> None:
    workers = [Worker(AT_MOST["topic"], work)]
    async with HotMesh.init(APP, connection=any_database_url, workers=workers) as mesh:
        await mesh.deploy(graphs())
        await mesh.activate("1")
        data = {**AT_MOST, name: AT_MOST[name] + "xxx"}
        if name in ("job_key", "entity"):  # of the trigger, so that the caller is told
            with pytest.raises(MappingError, match=what):
                await mesh.pub("go", data)
            return
        job_id = await mesh.pub("go", data)

        async def told() -> Any:
            async with connected(any_database_url) as connection:
                return await connection.fetchval(
                    "select string_agg(a.error::text, '') from hotmesh.activity as a join hotmesh.job as j using (generation) "
                    "where j.job_id = $1",
                    job_id,
                )

        assert what in await eventually(told, what="an error")


REFUSED: dict[str, Callable[[HotMesh], Coroutine[Any, Any, Any]]] = {}


def refused(what: str) -> Callable[[Callable[[HotMesh], Coroutine[Any, Any, Any]]], None]:
    def add(run: Callable[[HotMesh], Coroutine[Any, Any, Any]]) -> None:
        REFUSED[what] = run

    return add


@refused("extended.entity has 1001 bytes")
async def _entity(mesh: HotMesh) -> None:
    await mesh.pub("go", {}, extended={"entity": text(1001)})


@refused("topic has 501 bytes")
async def _rate(mesh: HotMesh) -> None:
    await mesh.throttle(1, topic=text(501))


@refused("a worker's topic has 501 bytes")
async def _topic(mesh: HotMesh) -> None:
    mesh.add_worker(Worker(text(501), work))


@refused("workflow_name of worker w has 1001 bytes")
async def _name(mesh: HotMesh) -> None:
    mesh.add_worker(Worker("w", work, workflow_name=text(1001)))


@pytest.mark.parametrize("what", REFUSED)
async def test_an_argument_is_refused_by_name(database_url: str, what: str) -> None:
    async with HotMesh.init(APP, connection=database_url) as mesh:
        await mesh.deploy(graphs())
        await mesh.activate("1")
        with pytest.raises(ConfigError, match=what):
            await REFUSED[what](mesh)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"guid": text(513)}, "config.guid has 513 bytes"),
        ({"app_id": "a" * 101}, "config.appId has 101 bytes"),
    ],
)
async def test_an_instance_is_refused_by_name(database_url: str, options: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        async with HotMesh.init(**{"app_id": APP, "connection": database_url, **options}):
            pass


@pytest.mark.parametrize(
    ("document", "what"),
    [
        (graphs(subscribes=text(502)), "subscribes has 502 bytes"),
        (graphs(hook=text(501)), "the topic of a hook rule has 501 bytes"),
        (graphs(version=text(256)), "app.version has 256 bytes"),
    ],
)
async def test_a_graph_is_refused_by_name(database_url: str, document: dict[str, Any], what: str) -> None:
    async with HotMesh.init(APP, connection=database_url) as mesh:
        with pytest.raises(CompileError, match=what):
            await mesh.deploy(document)


async def test_sql_refuses_by_name(any_database_url: str) -> None:
    async with (
        HotMesh.init(APP, connection=any_database_url) as mesh,
        connected(any_database_url) as connection,
    ):
        await mesh.deploy(graphs())
        await mesh.activate("1")
        with pytest.raises(asyncpg.PostgresError, match="at most 1000 bytes") as raised:
            await connection.fetchval("select hotmesh.start_job($1, 'go', entity => $2)", APP, text(1001))
        assert raised.value.sqlstate == "MS400"


def test_bytes_are_counted_and_not_characters() -> None:
    assert excess("é" * 500, 1000) == 0
    assert excess("é" * 501, 1000) == 1002
    assert excess("\ud800" * 3, 8) == 9
