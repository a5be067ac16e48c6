"""Plan, deploy, activate: what a deploy takes and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import connected, one_worker
from hotmesh import CompileError, HotMesh, StreamData, Worker

pytestmark = pytest.mark.anyio

GRAPHS = Path(__file__).parents[1] / "graphs"


async def _versions(url: str) -> list[str]:
    async with connected(url) as connection:
        return [row["version"] for row in await connection.fetch("select version from hotmesh.app_version")]


@pytest.mark.row(23, 24)
async def test_a_file_with_references_is_planned_and_deployed(database_url: str) -> None:
    async with HotMesh.init("referring", connection=database_url) as mesh:
        planned = await mesh.plan(GRAPHS / "with_references.yaml")
        assert await _versions(database_url) == []
        assert await mesh.deploy(GRAPHS / "with_references.yaml") == planned
        assert len(await _versions(database_url)) == 1
    assert "$ref" not in str(planned)


@pytest.mark.row(13, 25)
async def test_a_second_instance_deploys_text_and_runs(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def double(message: StreamData) -> dict[str, Any]:
        return {"y": message.data["x"] * 2}

    async with (
        HotMesh.init("text", connection=database_url),
        HotMesh.init("text", connection=database_url, workers=[Worker("w", double)]) as second,
    ):
        await second.deploy(one_worker("text"))
        assert await second.activate("1") is True
        assert (await second.pubsub("one", {"x": 2}, timeout=10)).data == {"y": 4}
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


@pytest.mark.row(30)
async def test_schemas_of_the_graph_are_those_of_its_activities(database_url: str) -> None:
    text = """
app:
  id: schemas
  version: '1'
  graphs:
    - subscribes: s
      input: {schema: {type: object, properties: {a: {type: string}}}}
      output: {schema: {type: object, properties: {b: {type: string}}}}
      activities:
        t: {type: trigger}
        h: {type: hook}
      transitions: {t: [{to: h}]}
"""
    async with HotMesh.init("schemas", connection=database_url) as mesh:
        manifest = await mesh.plan(text)
    trigger = manifest["app"]["graphs"][0]["activities"]["t"]
    assert trigger["output"]["schema"]["properties"] == {"a": {"type": "string"}}
    assert trigger["job"]["schema"]["properties"] == {"b": {"type": "string"}}


BROKEN = {
    "V1": "- subscribes: b\n      activities: {t: {type: trigger}}",
    "V2": "- subscribes: b\n      activities: {u: {type: trigger, job: {maps: {x: '{nobody.output.data.x}'}}}}",
    "V4": "- subscribes: b\n      activities: {u: {type: trigger, job: {maps: {x: '{@math.nothing}'}}}}",
    "V3": "- subscribes: b\n      activities: {u: {type: trigger, job: {maps: {x: '{@nothing.add}'}}}}",
    "V5": "- subscribes: b\n      activities: {u: {type: hook}}",
    "V8": "- subscribes: b\n      activities: {u: {type: trigger}, v: {type: trigger}}",
    "V6": "- subscribes: b\n      activities: {u: {type: trigger}}\n      transitions: {u: [{to: nobody}]}",
    "V9": "- subscribes: b\n      activities: {u: {type: trigger}, v: {type: magic}}",
    "V11": "- subscribes: b\n      activities: {u: {type: trigger}, v: {type: worker}}\n      transitions: {u: [{to: v}]}",
    "V13": "- subscribes: b\n      activities: {u: {type: trigger}, v: {type: hook}, w: {type: hook}}\n"
    "      transitions: {u: [{to: v}], v: [{to: w}], w: [{to: v}]}",
    "syntax": "- subscribes: [b",
    "reference": "- $ref: ./missing.yaml",
}


@pytest.mark.row(37, 38, 39)
@pytest.mark.parametrize("rule", BROKEN)
async def test_what_is_wrong_is_named_and_nothing_is_stored(
    module_database_url: str, tmp_path: Path, rule: str
) -> None:
    graph = f"""
app:
  id: broken
  version: '1'
  graphs:
    - subscribes: a
      activities: {{t: {{type: trigger}}}}
    {BROKEN[rule]}
"""
    async with HotMesh.init("broken", connection=module_database_url) as mesh:
        for call in (mesh.plan, mesh.deploy):
            with pytest.raises(CompileError) as caught:
                await call(graph, base_path=tmp_path)
            assert rule in {problem.rule for problem in caught.value.problems}
            assert all(problem.path or problem.line for problem in caught.value.problems)
    assert await _versions(module_database_url) == []


@pytest.mark.row(39)
async def test_the_app_of_a_document_is_the_instances(module_database_url: str) -> None:
    async with HotMesh.init("broken", connection=module_database_url) as mesh:
        with pytest.raises(CompileError, match="V16"):
            await mesh.deploy(one_worker("another"))
    assert await _versions(module_database_url) == []
