"""What became of a signal is told to who sent it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from harness import connected, eventually
from hotmesh import ConfigError, HotMesh, MappingError, SignalNotDeliveredError, SignalNotFoundError

pytestmark = pytest.mark.anyio

GRAPH = """
app:
  id: rone
  version: '1'
  graphs:
    - subscribes: s
      expire: 3600
      activities:
        t: {type: trigger}
        h: {type: hook, job: {maps: {told: '{$self.hook.data.decision}'}}}
      transitions:
        t: [{to: h}]
      hooks:
        go:
          - to: h
            conditions: {match: [{expected: '{$job.metadata.jid}', actual: '{$self.hook.data.id}'}]}
"""


@pytest.fixture
async def mesh(database_url: str) -> AsyncIterator[HotMesh]:
    async with HotMesh.init("rone", connection=database_url) as mesh:
        await mesh.deploy(GRAPH)
        await mesh.activate("1")
        yield mesh


async def kept(url: str) -> int:
    async with connected(url) as connection:
        return int(await connection.fetchval("select count(*) from hotmesh.signal"))


async def waiting(url: str) -> int:
    async with connected(url) as connection:
        return int(await connection.fetchval("select count(*) from hotmesh.wait"))


async def test_a_signal_is_delivered_kept_or_dropped(mesh: HotMesh, database_url: str) -> None:
    early: dict[str, Any] = {"id": "early", "decision": "yes"}
    assert await mesh.signal("go", early, pending=False) == "dropped"
    assert await kept(database_url) == 0
    assert await mesh.signal("go", early) == "kept"
    assert await kept(database_url) == 1

    await mesh.pub("s", {}, extended={"id": "late"})
    await eventually(lambda: waiting(database_url))
    assert await mesh.signal("go", {"id": "late", "decision": "yes"}) == "delivered"


async def test_a_required_signal_that_nobody_waits_for_raises(mesh: HotMesh, database_url: str) -> None:
    with pytest.raises(SignalNotDeliveredError) as caught:
        await mesh.signal("go", {"id": "nobody"}, required=True)
    assert (caught.value.topic, caught.value.keys) == ("go", ("nobody",))
    for fact in ("go", "nobody", "dropped"):
        assert fact in str(caught.value)
    assert await kept(database_url) == 0

    await mesh.pub("s", {}, extended={"id": "there"})
    await eventually(lambda: waiting(database_url))
    assert await mesh.signal("go", {"id": "there", "decision": "yes"}, required=True) == "delivered"
    with pytest.raises(ConfigError, match="required"):
        await mesh.signal("go", {"id": "there"}, required="yes")  # type: ignore[arg-type]


async def test_a_topic_without_a_hook_rule_names_those_that_have_one(mesh: HotMesh) -> None:
    with pytest.raises(SignalNotFoundError) as caught:
        await mesh.signal("nope", {"id": "x"})
    for fact in ("nope", "app rone", "go"):
        assert fact in str(caught.value)


async def test_a_payload_without_its_key_says_what_is_missing_and_what_it_has(mesh: HotMesh) -> None:
    with pytest.raises(MappingError) as caught:
        await mesh.signal("go", {"decision": "yes"})
    for fact in ("go", "$self.hook.data.id", "decision"):
        assert fact in str(caught.value)
