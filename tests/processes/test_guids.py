"""A guid is that of one live process, and free at once when that has been killed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from troupe import Remote, RemoteError, Troupe, graph

from harness import connected, eventually

pytestmark = pytest.mark.anyio

APP = "troupe"

IN_USE = (
    r"ConfigError: config\.guid \[me\] is in use by another instance of app troupe, .* session of Postgres is"
)


@pytest.fixture
async def owner(troupe: Troupe) -> Remote:
    return await own(troupe)


async def own(troupe: Troupe, **options: Any) -> Remote:
    """A process whose instance has the guid `me`, on version 1."""
    owner = await troupe.enter("owner", guid="me", **options)
    await owner.call("deploy", graph("1"))
    await owner.call("activate", "1")
    return owner


async def sessions(troupe: Troupe) -> int:
    """How many sessions hold the guid."""
    async with connected(troupe.url) as connection:
        return int(
            await connection.fetchval(
                "select count(*) from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock' "
                "and (classid::bigint << 32) | objid::bigint = hotmesh.guid_key($1, 'me')",
                APP,
            )
        )


async def test_a_second_live_process_with_a_guid_is_refused_and_the_first_goes_on(
    troupe: Troupe, owner: Remote
) -> None:
    second = await troupe.prepare("second", guid="me")
    with pytest.raises(RemoteError, match=IN_USE):
        await second.call("begin")

    assert await owner.runs() == "1"
    # The refused one has left nothing, and is no member.
    assert [profile["engine_id"] for profile in await owner.call("roll_call")] == ["me", "me"]
    await owner.call("stop")
    await second.call("begin")
    assert await second.runs() == "1"


async def test_of_many_that_start_at_once_one_gets_the_guid(troupe: Troupe, owner: Remote) -> None:
    await owner.call("stop")
    rivals = await asyncio.gather(*(troupe.prepare(f"rival-{number}", guid="me") for number in range(5)))

    outcomes = await asyncio.gather(*(rival.call("begin") for rival in rivals), return_exceptions=True)

    assert outcomes.count("me") == 1
    assert (
        sum(isinstance(outcome, RemoteError) and outcome.kind == "ConfigError" for outcome in outcomes) == 4
    )


async def test_who_was_killed_comes_back_under_its_guid_at_once(troupe: Troupe, owner: Remote) -> None:
    killed = owner
    for number in range(5):
        await killed.call("start", "one", 10, f"job-{number}")
        await killed.kill()
        killed = await troupe.enter(f"owner-{number}", guid="me")
    assert await killed.runs() == "1"

    # Nor does it help to have stood still.
    await killed.stop()
    await killed.kill()
    back = await troupe.enter("back", guid="me")
    assert await back.runs() == "1"


async def test_who_stands_still_keeps_its_guid(troupe: Troupe, owner: Remote) -> None:
    await owner.stop()
    second = await troupe.prepare("second", guid="me")
    with pytest.raises(RemoteError, match=IN_USE):
        await second.call("begin")
    owner.go()
    assert await owner.runs() == "1"


async def test_who_lost_its_connection_is_never_refused_and_has_the_guid_again(
    troupe: Troupe, owner: Remote
) -> None:
    async with connected(troupe.url) as connection:
        await connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )
    await eventually(lambda: held(troupe))
    assert await owner.runs() == "1"
    second = await troupe.prepare("second", guid="me")
    with pytest.raises(RemoteError, match=IN_USE):
        await second.call("begin")


async def held(troupe: Troupe) -> bool:
    return await sessions(troupe) == 1


async def test_who_comes_back_and_finds_another_session_with_its_guid_goes_on_and_has_it_later(
    troupe: Troupe,
) -> None:
    """As after a half-open connection, of which the server does not know yet."""
    owner = await own(troupe, listener_limits={"probe_period": 0.5})
    async with connected(troupe.url) as connection:
        await owner.stop()
        await connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )
        await eventually(lambda: taken(connection))
        owner.go()
        assert await owner.runs() == "1"
    await eventually(lambda: held(troupe))
    second = await troupe.prepare("second", guid="me")
    with pytest.raises(RemoteError, match=IN_USE):
        await second.call("begin")


async def taken(connection: Any) -> bool:
    return bool(await connection.fetchval("select pg_try_advisory_lock(hotmesh.guid_key($1, 'me'))", APP))


async def test_through_a_pooler_the_direct_connection_keeps_the_guid(
    troupe: Troupe, owner: Remote, pooled_database_url: str
) -> None:
    way: dict[str, Any] = {"url": pooled_database_url, "direct_connection": troupe.url}
    second = await troupe.prepare("second", guid="me", **way)
    with pytest.raises(RemoteError, match=IN_USE):
        await second.call("begin")
    await owner.kill()
    await second.call("begin")
    third = await troupe.prepare("third", guid="me", **way)
    with pytest.raises(RemoteError, match=IN_USE):
        await third.call("begin")
    await second.kill()
    await third.call("begin")
    assert await third.runs() == "1"
