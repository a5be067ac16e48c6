"""Jobs, ids and state."""

from __future__ import annotations

from typing import Any

import pytest

from harness import connected, eventually
from hotmesh import (
    DuplicateJobError,
    GetStateError,
    HotMesh,
    JobNotFoundError,
    StreamData,
    TopicNotFoundError,
)

pytestmark = pytest.mark.anyio


async def long(message: StreamData) -> dict[str, Any]:
    return {"text": message.data.get("text") or "x" * message.data["size"]}


WORKERS = {"nothing": lambda _: None, "long": long}


@pytest.mark.row(46, 47)
@pytest.mark.parametrize("topic", ["bare", "two"])
async def test_a_flow_without_maps(mesh: HotMesh, topic: str) -> None:
    output = await mesh.pubsub(topic, {}, timeout=5)
    found = output.metadata
    assert (found.js, found.tpc, found.vrs, found.app) == (0, topic, "1", "jobs")
    assert found.gid
    assert found.jid.startswith("H")
    assert output.data == {}


@pytest.mark.row(48)
async def test_the_id_comes_from_the_payload(mesh: HotMesh) -> None:
    assert await mesh.pub("by.id", {"id": "given"}) == "given"
    assert (await mesh.get_state("by.id", "given")).metadata.jid == "given"


@pytest.mark.row(49)
async def test_the_id_is_computed(mesh: HotMesh) -> None:
    assert await mesh.pub("by.pipe", {"id": "a"}) == "a-suffix"


@pytest.mark.row(50, 51)
async def test_an_id_in_use_is_refused(mesh: HotMesh) -> None:
    await mesh.pub("by.id", {"id": "twice"})
    with pytest.raises(DuplicateJobError, match=r"^Duplicate job: twice: ") as caught:
        await mesh.pub("by.id", {"id": "twice"})
    assert caught.value.job_id == "twice"
    with pytest.raises(DuplicateJobError, match=r"^Duplicate job: twice: "):
        await mesh.pubsub("by.id", {"id": "twice"})


@pytest.mark.row(52)
async def test_an_id_that_resolves_to_nothing_is_generated(mesh: HotMesh) -> None:
    ids = {await mesh.pub("by.id", payload) for payload in ({"id": None}, {}, {"id": ""}, {"id": None})}
    assert len(ids) == 4
    assert all(len(job_id) == 23 and job_id.startswith("H") for job_id in ids)


@pytest.mark.row(53)
async def test_an_id_is_free_again_after_its_job_has_expired(mesh: HotMesh) -> None:
    await mesh.pub("short", {"id": "again"})

    async def gone() -> bool:
        try:
            await mesh.get_status("again")
        except JobNotFoundError:
            return True
        return False

    await eventually(gone)
    with pytest.raises(JobNotFoundError, match=r"^Job again not found: it ended at .* has expired"):
        await mesh.get_state("short", "again")
    assert await mesh.pub("short", {"id": "again"}) == "again"


@pytest.mark.row(54)
async def test_the_status_of_nobody(mesh: HotMesh) -> None:
    with pytest.raises(JobNotFoundError, match=r"^Job nope not found in app [a-z]+$"):
        await mesh.get_status("nope")


@pytest.mark.row(56)
async def test_a_topic_that_nobody_subscribes_to(mesh: HotMesh) -> None:
    expected = "^no subscription found for topic no.such in app jobs for app version 1; .* there are: bare,"
    with pytest.raises(TopicNotFoundError, match=expected):
        await mesh.pub("no.such", {})


@pytest.mark.row(57)
async def test_a_pending_job_is_gone_after_its_time(mesh: HotMesh) -> None:
    job_id = await mesh.pub("waits", {}, extended={"pending": 0.6})
    assert await mesh.get_status(job_id) == -1

    async def gone() -> bool:
        try:
            await mesh.get_status(job_id)
        except JobNotFoundError:
            return True
        return False

    await eventually(gone)
    with pytest.raises(JobNotFoundError):
        await mesh.resume(job_id)


@pytest.mark.row(58)
async def test_a_pending_job_runs_when_it_is_resumed(mesh: HotMesh) -> None:
    job_id = await mesh.pub("waits", {"x": 1}, extended={"pending": 60})
    assert (await mesh.get_state("waits", job_id)).data == {"before": 1}
    await mesh.resume(job_id)

    async def complete() -> bool:
        return await mesh.get_status(job_id) == 0

    await eventually(complete)
    assert (await mesh.get_state("waits", job_id)).data == {"before": 1, "after": 1}


@pytest.mark.row(61)
async def test_state_reads_back_as_it_was_written(mesh: HotMesh) -> None:
    value = {
        "nested": {"deep": [1, 2.5, True, None, {"a": "b"}]},
        "date": "2024-02-29T00:00:00.000Z",
        "no": False,
    }
    job_id = await mesh.pub("by.id", {"value": value})
    assert (await mesh.get_state("by.id", job_id)).data == {"echo": value}


VALUES = [
    "/tmp/x",
    "/foo",
    "/data",
    "/number",
    "/some",
    "/b",
    "",
    "//x",
    2**60,
    {"ключ": ["☕", {"é": "\u2028"}]},
]


@pytest.mark.row(64)
@pytest.mark.parametrize("value", VALUES, ids=str)
async def test_values_round_trip_exactly(mesh: HotMesh, value: Any) -> None:
    output = await mesh.pubsub("by.id", {"value": value}, timeout=5)
    assert output.data == {"echo": value}
    assert (await mesh.get_state("by.id", output.metadata.jid)).data == {"echo": value}


@pytest.mark.row(65)
async def test_text_is_text(mesh: HotMesh) -> None:
    text = """ "quoted" 'single' $1 %L \\ {a.b} {@date.now} """
    assert (await mesh.pubsub("by.id", {"value": text}, timeout=5)).data == {"echo": text}


@pytest.mark.row(66, 67)
async def test_long_results_are_delivered_in_full(mesh: HotMesh) -> None:
    assert (await mesh.pubsub("long", {"size": 20_000}, timeout=5)).data == {"text": "x" * 20_000}
    output = await mesh.pubsub("long", {"text": "☕" * 3_000}, timeout=5)
    assert output.data == {"text": "☕" * 3_000}
    assert await mesh.get_status(output.metadata.jid) == 0


@pytest.mark.row(68)
async def test_a_trace_is_continued(mesh: HotMesh) -> None:
    job_id = await mesh.pub("two", {}, context={"metadata": {"trc": "trace", "spn": "span"}})
    assert (await mesh.get_state("two", job_id)).metadata.trc == "trace"


@pytest.mark.row(55)
async def test_the_state_of_a_scrubbed_job_is_gone(mesh: HotMesh) -> None:
    job_id = await mesh.pub("bare", {})
    await mesh.scrub(job_id)
    with pytest.raises(GetStateError, match=f"Job {job_id} not found"):
        await mesh.get_state("bare", job_id)


@pytest.mark.row(371)
async def test_a_finished_job_was_updated_after_it_was_created(mesh: HotMesh) -> None:
    found = (await mesh.pubsub("two", {}, timeout=5)).metadata
    assert found.ju > found.jc
    stored = (await mesh.get_state("two", found.jid)).metadata
    assert stored.ju > stored.jc == found.jc


async def test_search_fields_that_a_flow_sets_can_be_queried(module_database_url: str) -> None:
    graph = """
app:
  id: search
  version: '1'
  graphs:
    - subscribes: go
      expire: 3600
      activities:
        t: {type: trigger, job: {maps: {'any[_]': {_first: one}}}}
        w: {type: worker, topic: w, job: {maps: {'any[-]': {-mark: two}, plain: 3}}}
      transitions:
        t: [{to: w}]
"""
    from hotmesh import Worker

    async with HotMesh.init(
        "search", connection=module_database_url, workers=[Worker("w", lambda _: {})]
    ) as mesh:
        await mesh.deploy(graph)
        await mesh.activate("1")
        output = await mesh.pubsub("go", {}, timeout=5, extended={"search": {"given": 0}})
        assert output.data == {"plain": 3}
        found = await mesh.get_query_state(output.metadata.jid, ["first", "given", '"-mark"'])
        assert found == {"first": "one", "given": "0", "-mark": "two"}
    async with connected(module_database_url) as connection:
        assert (
            await connection.fetchval(
                "select count(*) from hotmesh.job where app_id = 'search' and status = 0"
            )
            == 1
        )
