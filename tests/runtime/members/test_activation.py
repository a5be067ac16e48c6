"""Activation: every engine that is there agrees, then all switch; or nothing has changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from harness import connected, eventually
from hotmesh import ActivationError, ConfigError, HotMesh, VersionNotFoundError
from hotmesh.postgres import definitions
from hotmesh.postgres.activation import activating
from interception import database_of, intercept

pytestmark = pytest.mark.anyio

APP = "switched"


def graph(version: str, *, note: str = "") -> str:
    return f"""
app:
  id: {APP}
  version: '{version}'
  graphs:
    - subscribes: start
      expire: 3600
      activities:
        t1: {{type: trigger}}
        h1: {{type: hook, job: {{maps: {{ran: '{note or version}'}}}}}}
      transitions:
        t1: [{{to: h1}}]
"""


@pytest.fixture
async def mesh(database_url: str) -> AsyncIterator[HotMesh]:
    async with HotMesh.init(APP, connection=database_url) as mesh:
        await mesh.deploy(graph("1"))
        await mesh.activate("1")
        await mesh.deploy(graph("2"))
        yield mesh


@pytest.fixture
async def other(mesh: HotMesh, database_url: str) -> AsyncIterator[HotMesh]:
    async with HotMesh.init(APP, connection=database_url) as other:
        yield other


async def runs(mesh: HotMesh) -> str:
    """What a job that starts now is run by."""
    output = await mesh.pubsub("start", timeout=5)
    assert output.metadata.vrs == output.data["ran"]
    return str(output.data["ran"])


@pytest.mark.row(26, 44)
async def test_alone_it_takes_no_time(mesh: HotMesh) -> None:
    begun = time.monotonic()
    for _ in range(10):
        assert await mesh.activate("2", delay=60) is True
        assert await mesh.activate("1", delay=60) is True
    assert time.monotonic() - begun < 10

    assert await mesh.activate("2") is True
    assert await runs(mesh) == "2"


async def test_no_engine_runs_a_version_that_another_has_not_loaded(mesh: HotMesh, other: HotMesh) -> None:
    prepare = other._member.plans.prepare
    asked, agreed = asyncio.Event(), asyncio.Event()

    async def hesitate(version: str) -> str:
        asked.set()
        await agreed.wait()
        return await prepare(version)

    other._member.plans.prepare = hesitate  # type: ignore[method-assign]
    activation = asyncio.create_task(mesh.activate("2", delay=30))
    await asked.wait()
    assert (await runs(mesh), await runs(other)) == ("1", "1")
    assert not activation.done()

    agreed.set()
    assert await activation is True
    assert other._member.plans.known("2") is not None
    assert (await runs(other), await runs(mesh)) == ("2", "2")


@pytest.mark.row(45)
async def test_activations_at_once_and_again_all_succeed(mesh: HotMesh, other: HotMesh) -> None:
    activated = await asyncio.gather(
        mesh.activate("2"),
        other.activate("2"),
        mesh.activate("2"),
        other.activate("1"),
        other.activate("2"),
    )
    assert all(activated)
    assert await mesh.activate("2") is True
    assert await runs(mesh) == await runs(other) == "2"


@pytest.mark.row(27, 29)
async def test_two_deploy_and_activate_at_once_and_then_the_next(mesh: HotMesh, other: HotMesh) -> None:
    await asyncio.gather(mesh.deploy(graph("9")), other.deploy(graph("9")))
    await asyncio.gather(mesh.activate("9"), other.activate("9"))
    assert await runs(mesh) == await runs(other) == "9"

    await other.deploy(graph("10"))
    await other.activate("10")
    assert await runs(mesh) == await runs(other) == "10"


@pytest.mark.row(28)
async def test_nine_versions_in_turn(mesh: HotMesh, other: HotMesh) -> None:
    for number in range(1, 10):
        await mesh.deploy(graph(str(number)))
        await mesh.activate(str(number))
        assert await runs(other) == str(number)


async def test_an_engine_that_cannot_load_the_version_stops_it(mesh: HotMesh, other: HotMesh) -> None:
    async def refuse(version: str) -> str:
        raise ValueError(f"no such thing as {version}")

    other._member.plans.prepare = refuse  # type: ignore[method-assign]

    with pytest.raises(
        ActivationError, match=f"Version 2 not activated. Engine {other.guid_} cannot load it"
    ):
        await mesh.activate("2", delay=30)
    with pytest.raises(
        ActivationError, match=r"Version 2 not activated\. This engine cannot load it: ValueError"
    ):
        await other.activate("2")
    assert await runs(mesh) == await runs(other) == "1"

    del other._member.plans.prepare
    assert await mesh.activate("2") is True


@pytest.mark.row(35)
async def test_a_version_that_is_not_there_leaves_nothing_behind(mesh: HotMesh, other: HotMesh) -> None:
    heard: list[dict[str, Any]] = []
    await other.sub_quorum(lambda _, message: heard.append(message))
    with pytest.raises(VersionNotFoundError, match=f"Version 999 does not exist for app {APP}"):
        await mesh.activate("999")
    assert (await runs(mesh), await runs(other)) == ("1", "1")

    assert await other.activate("2") is True
    # That of the fixture may still be heard.
    await eventually(lambda: {m["until_version"] for m in heard if m["type"] == "activate"} - {"1"} == {"2"})


async def test_who_does_not_answer_is_away_and_finds_the_version_later(
    mesh: HotMesh, other: HotMesh, caplog: pytest.LogCaptureFixture
) -> None:
    other._member.quorum.on_message = lambda notice: None  # type: ignore[method-assign]
    assert await runs(other) == "1"

    assert await mesh.activate("2", delay=0.01) is True

    assert "members did not answer before an activation" in caplog.text
    assert await runs(other) == "2"


async def test_a_member_whose_connection_is_lost_is_not_waited_for(
    mesh: HotMesh, other: HotMesh, database_url: str
) -> None:
    asked = asyncio.Event()
    other._member.quorum.on_message = lambda notice: asked.set()  # type: ignore[method-assign]
    activation = asyncio.create_task(mesh.activate("2", delay=60))
    await asked.wait()
    await other.stop()

    with anyio.fail_after(10):
        assert await activation is True


async def test_a_member_without_an_engine_may_activate_and_is_not_asked(
    mesh: HotMesh, database_url: str
) -> None:
    async with HotMesh.init(APP, connection=database_url, engine=False) as bare:
        assert await bare.activate("2", delay=30) is True
        assert await mesh.activate("1", delay=30) is True
    assert await runs(mesh) == "1"


async def test_a_version_deployed_anew_meanwhile_is_agreed_on_anew(mesh: HotMesh, other: HotMesh) -> None:
    prepare, times = other._member.plans.prepare, 0

    async def while_it_changes(version: str) -> str:
        nonlocal times
        times += 1
        checksum = await prepare(version)
        if times == 1:
            await mesh.deploy(graph("2", note="anew"))
        return checksum

    other._member.plans.prepare = while_it_changes  # type: ignore[method-assign]
    assert await mesh.activate("2", delay=30) is True

    assert times == 2
    assert (await other.pubsub("start", timeout=5)).data == {"ran": "anew"}


async def test_a_start_that_waits_for_the_old_version_begins_on_the_new_one(
    mesh: HotMesh, other: HotMesh
) -> None:
    """The other member, which has loaded nothing yet, reads what has changed while a start there loads the version."""
    plans = other._member.plans
    read, gate = asyncio.Event(), asyncio.Event()

    async def held() -> Any:
        read.set()
        await gate.wait()
        return await checksums()

    await plans.refresh()
    assert plans.known("1") is None
    checksums = intercept(database_of(other), definitions.checksums, held)
    other._member.quorum.on_message = lambda notice: None  # type: ignore[method-assign]
    assert await mesh.activate("2", delay=0.01) is True
    reading = asyncio.create_task(plans.refresh())
    await asyncio.wait_for(read.wait(), 5)
    starting = asyncio.create_task(other.pubsub("start", timeout=5))
    await asyncio.sleep(0)
    gate.set()

    assert (await starting).data == {"ran": "2"}
    await reading


async def test_the_right_to_activate_ends_with_whoever_has_it(
    mesh: HotMesh, other: HotMesh, database_url: str
) -> None:
    with pytest.raises(ActivationError, match="another activation of app switched has been under way"):
        async with activating(mesh._member.database, 1, 60), activating(other._member.database, 0.05, 60):
            raise AssertionError("two at once")
    # One that says nothing for too long loses it.
    async with connected(database_url) as connection:
        await connection.execute("set idle_session_timeout = '100ms'")
        await connection.execute("select pg_advisory_lock(hotmesh.activation_key($1))", APP)
        assert await mesh.activate("2") is True
    # Alone or not, it is waited for.
    await other.stop()
    async with activating(mesh._member.database, 1, 60), connected(database_url) as connection:
        waiting = asyncio.create_task(mesh.activate("1"))
        query = (
            "select true from pg_locks join pg_database on pg_database.oid = database "
            "where datname = current_database() and locktype = 'advisory' and not granted"
        )
        await eventually(lambda: connection.fetchval(query), what="a wait for the right")
        assert not waiting.done()
    assert await waiting is True


async def test_a_bad_delay_is_refused(mesh: HotMesh) -> None:
    with pytest.raises(ConfigError, match="delay"):
        await mesh.activate("2", delay=-1)


@pytest.mark.row(42)
async def test_an_idle_engine_runs_what_another_brought(mesh: HotMesh, other: HotMesh) -> None:
    assert await runs(other) == "1"
    await mesh.deploy(f"""
app:
  id: {APP}
  version: '3'
  graphs:
    - subscribes: start
      expire: 3600
      activities:
        t1: {{type: trigger, job: {{maps: {{brandNew: '{{$self.output.data.from}}'}}}}}}
        fresh: {{type: hook, output: {{maps: {{field: 7}}}}, job: {{maps: {{told: '{{$self.hook.data.word}}'}}}}}}
      transitions:
        t1: [{{to: fresh}}]
      hooks:
        fresh.topic:
          - to: fresh
            conditions: {{match: [{{expected: '{{$job.metadata.jid}}', actual: '{{$self.hook.data.id}}'}}]}}
""")
    await mesh.activate("3")

    job_id = await other.pub("start", {"from": "other"})
    await other.signal("fresh.topic", {"id": job_id, "word": "hello"})

    async def ended() -> bool:
        return await mesh.get_status(job_id) == 0

    await eventually(ended)
    for member in (mesh, other):
        found = await member.get_state("start", job_id)
        assert (found.metadata.vrs, found.data) == ("3", {"brandNew": "other", "told": "hello"})


async def test_an_activation_that_is_cancelled_changes_nothing_and_stops_no_other(
    mesh: HotMesh, other: HotMesh
) -> None:
    asked = asyncio.Event()
    heard, other._member.quorum.on_message = other._member.quorum.on_message, lambda notice: asked.set()  # type: ignore[method-assign]
    activation = asyncio.create_task(mesh.activate("2", delay=60))
    await asked.wait()
    activation.cancel()
    await asyncio.wait([activation])
    assert await runs(mesh) == "1"

    other._member.quorum.on_message = heard  # type: ignore[method-assign]
    with anyio.fail_after(10):
        assert await other.activate("2") is True


async def test_who_hears_nothing_finds_the_answers(
    mesh: HotMesh, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with HotMesh.init(APP, connection=database_url, direct_connection=False) as deaf:
        with anyio.fail_after(10):
            assert await deaf.activate("2", delay=30) is True
        assert mesh._member.plans.known("2") is not None
        assert (await runs(deaf), await runs(mesh)) == ("2", "2")

        async def refuse(version: str) -> str:
            raise ValueError(f"no such thing as {version}")

        mesh._member.plans.prepare = refuse  # type: ignore[method-assign]
        with pytest.raises(ActivationError, match=f"Engine {mesh.guid_} cannot load it"):
            await deaf.activate("1", delay=30)
        await mesh.stop()
        assert await deaf.activate("1") is True
    assert "members did not answer" not in caplog.text
