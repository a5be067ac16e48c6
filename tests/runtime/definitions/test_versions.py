"""Versions: deploy changes nothing that runs, jobs keep the version they started on, and signals find them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from harness import eventually
from hotmesh import HotMesh, JobError, SignalNotFoundError, VersionNotFoundError

pytestmark = pytest.mark.anyio


def graph(version: str, *, hook: str = "go", field: str = "id", after: str = "h2", result: str = "") -> str:
    """trigger → waiting hook → passthrough hook that notes the version."""
    return f"""
app:
  id: versions
  version: '{version}'
  graphs:
    - subscribes: start
      expire: 3600
      activities:
        t1: {{type: trigger}}
        h1: {{type: hook}}
        {after}: {{type: hook, job: {{maps: {{ran: '{result or version}'}}}}}}
      transitions:
        t1: [{{to: h1}}]
        h1: [{{to: {after}}}]
      hooks:
        {hook}:
          - to: h1
            conditions: {{match: [{{expected: '{{$job.metadata.jid}}', actual: '{{$self.hook.data.{field}}}'}}]}}
"""


@pytest.fixture
async def mesh(database_url: str) -> AsyncIterator[HotMesh]:
    async with HotMesh.init("versions", connection=database_url) as mesh:
        await mesh.deploy(graph("1"))
        await mesh.activate("1")
        yield mesh


async def ran(mesh: HotMesh, job_id: str) -> str:
    async def complete() -> bool:
        return await mesh.get_status(job_id) == 0

    await eventually(complete)
    return str((await mesh.get_state("start", job_id)).data["ran"])


@pytest.mark.row(36)
async def test_a_deploy_changes_nothing_that_runs(mesh: HotMesh, database_url: str) -> None:
    await mesh.deploy(graph("2"))

    async with HotMesh.init("versions", connection=database_url) as other:
        job_id = await other.pub("start")
        assert (await other.get_state("start", job_id)).metadata.vrs == "1"


@pytest.mark.row(43)
@pytest.mark.parametrize("change", [{"hook": "elsewhere"}, {"field": "job"}, {"after": "h3"}])
async def test_a_waiting_job_goes_on_by_its_own_version(mesh: HotMesh, change: dict[str, str]) -> None:
    job_id = await mesh.pub("start")
    await mesh.deploy(graph("2", **change))
    await mesh.activate("2")

    await mesh.signal("go", {"id": job_id})

    assert await ran(mesh, job_id) == "1"


async def test_a_signal_meets_jobs_of_old_and_new_versions(mesh: HotMesh) -> None:
    old = await mesh.pub("start")
    await mesh.deploy(graph("2", field="job"))
    await mesh.activate("2")
    new = await mesh.pub("start")

    await mesh.signal("go", {"job": new})
    await mesh.signal("go", {"id": old})

    assert (await ran(mesh, old), await ran(mesh, new)) == ("1", "2")


async def test_a_topic_of_no_version_is_refused(mesh: HotMesh) -> None:
    with pytest.raises(SignalNotFoundError):
        await mesh.signal("nowhere", {"id": "x"})


async def test_unpinned_jobs_follow_the_active_version(database_url: str) -> None:
    async with HotMesh.init("versions", connection=database_url, pin_versions=False) as mesh:
        await mesh.deploy(graph("1"))
        await mesh.activate("1")
        job_id = await mesh.pub("start")
        await mesh.deploy(graph("2"))
        await mesh.activate("2")

        await mesh.signal("go", {"id": job_id})

        assert await ran(mesh, job_id) == "2"


async def test_a_version_that_lacks_an_activity_fails_the_job_and_drops_nothing(database_url: str) -> None:
    lacking = graph("2").replace("h1", "h9")
    async with HotMesh.init("versions", connection=database_url, pin_versions=False) as mesh:
        await mesh.deploy(graph("1"))
        await mesh.activate("1")
        job_id = await mesh.pub("start")
        await mesh.deploy(lacking)
        await mesh.activate("2")

        await mesh.signal("go", {"id": job_id})

        async def over() -> bool:
            return await mesh.get_status(job_id) == 0

        await eventually(over)
        error = (await mesh.get_state("start", job_id)).metadata.err
        assert "has no activity h1" in error


@pytest.mark.row(40)
@pytest.mark.parametrize("version", ["1.0.0", "beta", "01", "2030-01-01"])
async def test_any_text_is_a_version(mesh: HotMesh, version: str) -> None:
    await mesh.deploy(graph(version))

    assert await mesh.activate(version) is True

    job_id = await mesh.pub("start")
    assert (await mesh.get_state("start", job_id)).metadata.vrs == version


@pytest.mark.row(34)
async def test_a_version_never_deployed_cannot_be_activated(mesh: HotMesh) -> None:
    with pytest.raises(VersionNotFoundError, match="Version 999 does not exist for app versions"):
        await mesh.activate("999")

    assert (await mesh.get_state("start", await mesh.pub("start"))).metadata.vrs == "1"


async def test_rolling_back_is_activating_an_older_version(mesh: HotMesh) -> None:
    await mesh.deploy(graph("2"))
    await mesh.activate("2")
    await mesh.activate("1")

    assert (await mesh.get_state("start", await mesh.pub("start"))).metadata.vrs == "1"


async def test_no_job_starts_on_an_old_version_once_activate_has_returned(
    mesh: HotMesh, database_url: str
) -> None:
    async with HotMesh.init("versions", connection=database_url) as other:
        await other.pub("start")
        for version in ("2", "3", "4", "5"):
            await mesh.deploy(graph(version))
            await mesh.activate(version)
            job_id = await other.pub("start")
            assert (await other.get_state("start", job_id)).metadata.vrs == version


async def test_deploying_a_version_again_replaces_it_for_every_process(
    mesh: HotMesh, database_url: str
) -> None:
    async with HotMesh.init("versions", connection=database_url) as other:
        job_id = await other.pub("start")
        await mesh.deploy(graph("1", result="again"))

        await other.signal("go", {"id": job_id})

        assert await ran(other, job_id) == "again"


@pytest.mark.row(41)
async def test_a_job_before_any_deploy_is_refused_and_later_ones_run(database_url: str) -> None:
    async with HotMesh.init("versions", connection=database_url) as mesh:
        with pytest.raises(Exception, match="no app found for id versions"):
            await mesh.pub("start")
        await mesh.deploy(graph("1"))
        await mesh.activate("1")
        with pytest.raises(JobError, match="timeout"):
            await mesh.pubsub("start", timeout=0)
