"""What triggers count, and signals to every job that is listed alike."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from harness import eventually
from hotmesh import ConfigError, HotMesh, SignalNotFoundError

pytestmark = pytest.mark.anyio

GRAPH = """
app:
  id: stats
  version: '1'
  graphs:
    - subscribes: order.placed
      expire: 3600
      activities:
        t1:
          type: trigger
          stats:
            id: '{$self.input.data.id}'
            key: '{$self.input.data.shop}'
            granularity: 5m
            measures:
              - {measure: count, target: '{$self.input.data.color}'}
              - {measure: index, target: '{$self.input.data.color}'}
              - {measure: sum, target: '{$self.input.data.price}'}
              - {measure: avg, target: '{$self.input.data.price}'}
              - {measure: mdn, target: '{$self.input.data.price}'}
              - {measure: min, target: '{$self.input.data.price}'}
              - {measure: max, target: '{$self.input.data.price}'}
        h1:
          type: hook
          job: {maps: {answer: '{$self.hook.data.answer}'}}
      transitions:
        t1: [{to: h1}]
      hooks:
        order.answered:
          - to: h1
            conditions:
              match: [{expected: '{$job.metadata.jid}', actual: '{$self.hook.data.id}'}]
    - subscribes: announce
      expire: 3600
      activities:
        t2: {type: trigger}
        s2:
          type: signal
          subtype: all
          topic: order.answered
          key_name: color
          key_value: '{t2.output.data.color}'
          scrub: true
          resolver:
            maps: {data: {shop: '{t2.output.data.shop}'}, range: 1h, end: NOW}
          signal:
            maps: {answer: '{t2.output.data.answer}'}
      transitions:
        t2: [{to: s2}]
"""

QUERY: dict[str, Any] = {"data": {"shop": "north"}, "range": "1h", "end": "NOW"}


@pytest.fixture
async def mesh(database_url: str) -> Any:
    async with HotMesh.init("stats", connection=database_url) as mesh:
        await mesh.deploy(GRAPH)
        await mesh.activate("1")
        for number, (color, price) in enumerate([("red", 10), ("blue", 20), ("red", 60)]):
            await mesh.pub(
                "order.placed", {"id": f"o{number}", "shop": "north", "color": color, "price": price}
            )
        await mesh.pub("order.placed", {"id": "other", "shop": "south", "color": "red", "price": 1})
        yield mesh


async def completed(mesh: HotMesh, job_id: str) -> dict[str, Any]:
    async def complete() -> bool:
        return await mesh.get_status(job_id) == 0

    await eventually(complete)
    return dict((await mesh.get_state("order.placed", job_id)).data)


@pytest.mark.row(213)
async def test_an_hour_in_slices_of_five_minutes_has_thirteen_segments(mesh: HotMesh) -> None:
    stats = await mesh.get_stats("order.placed", QUERY)

    assert len(stats["segments"]) == 13
    assert stats["count"] == 3
    assert sum(segment["count"] for segment in stats["segments"]) == 3
    assert {"target": "color:red", "type": "count", "value": 2} in stats["measures"]


async def test_sums_averages_medians_and_extremes_are_reported(mesh: HotMesh) -> None:
    stats = await mesh.get_stats("order.placed", {**QUERY, "sparse": True})

    assert "segments" not in stats
    found = {
        measure["type"]: measure["value"] for measure in stats["measures"] if measure["target"] == "price"
    }
    assert found == {"sum": 90, "avg": 30, "mdn": 20, "min": 10, "max": 60}


@pytest.mark.row(214)
async def test_ids_by_facet(mesh: HotMesh) -> None:
    found = await mesh.get_ids("order.placed", QUERY)

    assert {count["facet"]: count["count"] for count in found["counts"]} == {"color:red": 2, "color:blue": 1}


@pytest.mark.row(217)
async def test_two_ids_under_a_facet_are_a_list_of_two(mesh: HotMesh) -> None:
    found = await mesh.get_ids("order.placed", QUERY, ["color:red"])

    listed = [measure for segment in found["segments"] for measure in segment["measures"]]
    assert sorted(job_id for measure in listed for job_id in measure["ids"]) == ["o0", "o2"]


@pytest.mark.row(216)
@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"data": {}}, "Invalid combination of start, end, and range values"),
        ({"data": {}, "range": "1h"}, "Invalid combination of start, end, and range values"),
        ({"data": {}, "range": "1h", "start": "NOW", "end": "NOW"}, "Invalid combination"),
        ({"data": {}, "range": "1x", "end": "NOW"}, "Invalid range value"),
        ({"data": {}, "range": "1h", "end": "NOW", "granularity": "7m"}, "Invalid granularity value"),
    ],
)
async def test_a_query_that_makes_no_sense_is_refused(
    mesh: HotMesh, query: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        await mesh.get_stats("order.placed", query)


async def test_a_query_is_resolved_to_key_and_times(mesh: HotMesh) -> None:
    end = datetime(2030, 1, 1, 10, 3, tzinfo=UTC)

    found = await mesh.resolve_query("order.placed", {"data": {"shop": "north"}, "range": "1h", "end": end})

    assert found["key"] == "north"
    assert found["start"] == "2030-01-01T09:00:00.000Z"
    assert datetime.fromisoformat(found["end"]) - end == timedelta()


async def test_a_moment_without_a_zone_is_utc_in_every_form(
    mesh: HotMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        for end in (datetime(2026, 1, 1, 12), "2026-01-01T12:00:00", datetime(2026, 1, 1, 12, tzinfo=UTC)):  # noqa: DTZ001
            found = await mesh.resolve_query("order.placed", {"range": "1h", "end": end})
            assert found["end"] == "2026-01-01T12:00:00.000Z"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.row(167)
async def test_signal_all_resumes_every_listed_job(mesh: HotMesh) -> None:
    keys = await mesh.signal_all("order.answered", {"answer": "yes"}, QUERY, ["color:red"])

    assert len(keys) == 1
    assert keys[0].endswith(":index:color:red")
    assert await completed(mesh, "o0") == {"answer": "yes"}
    assert await completed(mesh, "o2") == {"answer": "yes"}
    assert await mesh.get_status("o1") == 1
    assert await mesh.get_status("other") == 1


@pytest.mark.row(165)
async def test_a_flow_signals_all_listed_jobs_and_scrubs_the_index(mesh: HotMesh) -> None:
    await mesh.pubsub("announce", {"shop": "north", "color": "blue", "answer": "later"}, timeout=10)

    assert await completed(mesh, "o1") == {"answer": "later"}

    async def scrubbed() -> bool:
        counts = (await mesh.get_ids("order.placed", QUERY))["counts"]
        return all(count["facet"] != "color:blue" for count in counts)

    await eventually(scrubbed)


async def test_a_signal_to_all_on_an_unknown_topic_is_refused(mesh: HotMesh) -> None:
    with pytest.raises(SignalNotFoundError, match="unable to find hook rule for topic nobody"):
        await mesh.signal_all("nobody.listens", {}, QUERY)
