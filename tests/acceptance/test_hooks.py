"""Hooks, signals and timers."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from datetime import timedelta
from typing import Any

import pytest

from harness import connected, eventually
from hotmesh import DBA, HotMesh, JobError, JobOutput, StreamData

pytestmark = pytest.mark.anyio

noted: defaultdict[str, list[Any]] = defaultdict(list)


async def note(message: StreamData) -> None:
    noted[message.data["id"]].append(message.data["v"])


WORKERS = {"note": note}


async def finished(mesh: HotMesh, topic: str, job_id: str) -> dict[str, Any]:
    async def ended() -> bool:
        return await mesh.get_status(job_id) <= 0

    await eventually(ended)
    return dict((await mesh.get_state(topic, job_id)).data)


@pytest.mark.row(141, 142)
async def test_a_signal_resumes_a_hook(mesh: HotMesh) -> None:
    job_id = await mesh.pub("wait", {"key": "k141"})
    assert await mesh.get_status(job_id) == 1
    assert await mesh.signal("wait.signal", {"id": "k141", "v": {"a": [1]}})
    assert await finished(mesh, "wait", job_id) == {"got": {"a": [1]}}


@pytest.mark.row(143)
async def test_a_sleep_with_seconds_from_job_data(mesh: HotMesh) -> None:
    output = await mesh.pubsub("sleep", {"seconds": 0.05}, timeout=5)
    assert output.data == {"seconds": 0.05, "done": True}


@pytest.mark.row(144)
async def test_at_the_threshold_a_hook_does_not_register(mesh: HotMesh, module_database_url: str) -> None:
    output = await mesh.pubsub("threshold", {"threshold": 1}, timeout=5)
    assert (output.data, output.metadata.js) == ({"done": False}, 0)
    async with connected(module_database_url) as connection:
        found = await connection.fetchval(
            "select count(*) from hotmesh.wait where topic = 'threshold.signal'"
        )
    assert found == 0


@pytest.mark.row(145)
async def test_without_a_threshold_it_waits(mesh: HotMesh) -> None:
    job_id = await mesh.pub("threshold", {})
    await mesh.signal("threshold.signal", {"id": job_id, "done": True, "extra": 5})
    assert await finished(mesh, "threshold", job_id) == {"done": True, "extra": 5}


@pytest.mark.row(146, 150, 171)
async def test_signal_first_is_one_completion(mesh: HotMesh) -> None:
    told: list[JobOutput] = []
    await mesh.sub("either.done", lambda _, output: told.append(output))
    job_id = await mesh.pub("either", {"timeout": 0.6})
    await mesh.signal("either.signal", {"id": job_id, "payload": "p"})
    data = await finished(mesh, "either", job_id)
    assert data == {"signaled": True, "payload": "p"}
    await asyncio.sleep(0.7)
    await mesh.unsub("either.done")
    assert [output.data for output in told] == [data]


@pytest.mark.row(147, 149)
@pytest.mark.parametrize("timeout", [0.05, "0.05"])
async def test_the_timer_first(mesh: HotMesh, timeout: Any) -> None:
    before = time.time() * 1000
    output = await mesh.pubsub("either", {"timeout": timeout}, timeout=5)
    assert output.data["signaled"] is False
    assert before - 1_000 <= output.data["at"] <= time.time() * 1000
    await mesh.signal("either.signal", {"id": output.metadata.jid, "payload": "late"}, pending=False)
    assert "payload" not in (await mesh.get_state("either", output.metadata.jid)).data


@pytest.mark.row(148)
async def test_a_sleep_that_resolves_to_null_waits_for_the_signal(mesh: HotMesh) -> None:
    job_id = await mesh.pub("either", {"timeout": None})
    await mesh.signal("either.signal", {"id": job_id})
    assert (await finished(mesh, "either", job_id))["signaled"] is True


@pytest.mark.row(151, 159)
async def test_of_signals_before_the_wait_the_last_one_counts(mesh: HotMesh) -> None:
    job_id = await mesh.pub("late", {"delay": 0.5, "key": "k151"})
    for value in (1, 2):
        await mesh.signal("late.signal", {"id": "k151", "v": value})
    assert await finished(mesh, "late", job_id) == {"got": 2}


@pytest.mark.row(152, 155)
async def test_signals_and_waits_that_race_all_meet(mesh: HotMesh, module_database_url: str) -> None:
    async with HotMesh.init("hooks", connection=module_database_url) as other:

        async def pair(number: int) -> dict[str, Any]:
            key = f"race{number}"
            signal = {"id": key, "v": number}
            start, send = mesh.pubsub("wait", {"key": key}, timeout=10), other.signal("wait.signal", signal)
            output, _ = await (asyncio.gather(start, send) if number % 2 else _reversed(send, start))
            return dict(output.data)

        async def _reversed(send: Any, start: Any) -> Any:
            sent, output = await asyncio.gather(send, start)
            return output, sent

        found = await asyncio.gather(*(pair(number) for number in range(100)))
    assert found == [{"got": number} for number in range(100)]


@pytest.mark.row(153, 154, 158)
async def test_registrations_come_and_go(mesh: HotMesh, module_database_url: str) -> None:
    async with connected(module_database_url) as connection:

        async def rows(table: str) -> int:
            return int(await connection.fetchval(f"select count(*) from hotmesh.{table} where key = 'k153'"))

        await mesh.signal("wait.signal", {"id": "k153", "v": 1})
        assert (await rows("signal"), await rows("wait")) == (1, 0)
        assert (await mesh.pubsub("wait", {"key": "k153"}, timeout=5)).data == {"got": 1}
        assert (await rows("signal"), await rows("wait")) == (0, 0)
        job_id = await mesh.pub("wait", {"key": "k153"})
        assert (await rows("signal"), await rows("wait")) == (0, 1)
        await mesh.signal("wait.signal", {"id": "k153", "v": 2})
        assert await finished(mesh, "wait", job_id) == {"got": 2}
        assert (await rows("signal"), await rows("wait")) == (0, 0)


@pytest.mark.row(160, 162)
async def test_early_signals_are_kept_for_their_time(mesh: HotMesh, module_database_url: str) -> None:
    await mesh.signal("wait.signal", {"id": "k160", "$expire": "1h"})
    await mesh.signal("wait.signal", {"id": "k161"})
    async with connected(module_database_url) as connection:
        rows = await connection.fetch(
            "select key, expires_at - created_at as kept from hotmesh.signal where key in ('k160', 'k161')"
        )
        assert {row["key"]: row["kept"] for row in rows} == {
            "k160": timedelta(hours=1),
            "k161": timedelta(minutes=10),
        }
        await connection.execute(
            "update hotmesh.signal set expires_at = now() - interval '1 second' where key = 'k160'"
        )
    job_id = await mesh.pub("wait", {"key": "k160"})
    assert await mesh.get_status(job_id) == 1
    await mesh.interrupt("wait", job_id)


@pytest.mark.row(161)
async def test_an_early_pending_signal_stays_pending(mesh: HotMesh) -> None:
    await mesh.signal("wait.signal", {"id": "early", "v": "first"}, "pending", 202)
    job_id = await mesh.pub("wait", {"key": "early"})
    await eventually(lambda: noted[job_id] == ["first"])
    assert await mesh.get_status(job_id) >= 1
    await mesh.signal("wait.signal", {"id": "early", "v": "last"})
    assert (await finished(mesh, "wait", job_id))["got"] == "last"


@pytest.mark.row(163)
async def test_pending_signals_keep_the_hook_open(mesh: HotMesh) -> None:
    job_id = await mesh.pub("wait", {"key": "k163"})
    for value in (1, 2):
        await mesh.signal("wait.signal", {"id": "k163", "v": value}, "pending", 202)
    await eventually(lambda: sorted(noted[job_id]) == [1, 2])
    await mesh.signal("wait.signal", {"id": "k163", "v": 3})
    assert (await finished(mesh, "wait", job_id))["got"] == 3
    await mesh.signal("wait.signal", {"id": "k163", "v": 4}, pending=False)
    assert (await mesh.get_state("wait", job_id)).data["got"] == 3


@pytest.mark.row(164)
async def test_error_signals(mesh: HotMesh) -> None:
    job_id = await mesh.pub("wait", {"key": "k164"})
    await mesh.signal("wait.signal", {"id": "k164", "message": "no"}, "error", 400)
    assert await finished(mesh, "wait", job_id) == {"refused": "no"}

    running = asyncio.create_task(mesh.pubsub("wait", {"key": "k164b"}, timeout=5))
    await asyncio.sleep(0)
    await mesh.signal("wait.signal", {"id": "k164b", "message": "never"}, "error", 499)
    with pytest.raises(JobError, match=r"^never \(job H") as caught:
        await running
    assert caught.value.code == 499


@pytest.mark.row(166)
async def test_a_flow_signals_pending_and_then_success(mesh: HotMesh) -> None:
    output = await mesh.pubsub("ask", {"key": "k166"}, timeout=5)
    assert output.data == {"got": 2, "pending": 1, "done": 2}


@pytest.mark.row(169)
async def test_a_wait_outlives_hours_and_pruning(mesh: HotMesh, module_database_url: str) -> None:
    job_id = await mesh.pub("wait", {"key": "k169"})
    async with connected(module_database_url) as connection:
        for table, columns in (("wait", ["created_at"]), ("job", ["created_at", "updated_at"])):
            changes = ", ".join(f"{column} = {column} - interval '2 hours'" for column in columns)
            await connection.execute(f"update hotmesh.{table} set {changes} where job_id = $1", job_id)
    await DBA.prune(connection=module_database_url, app_id="hooks", expire="1 hour")
    await mesh.signal("wait.signal", {"id": "k169", "v": 1})
    assert await finished(mesh, "wait", job_id) == {"got": 1}


@pytest.mark.row(170)
async def test_a_timer_of_a_second_is_precise(mesh: HotMesh) -> None:
    started = time.monotonic()
    await mesh.pubsub("sleep", {"seconds": 1}, timeout=5)
    assert 1.0 <= time.monotonic() - started < 2.0


@pytest.mark.row(171)
async def test_many_timers_at_once_are_one_completion_each(mesh: HotMesh) -> None:
    told: list[str] = []
    await mesh.sub("sleep.done", lambda _, output: told.append(output.metadata.jid))
    jobs = await asyncio.gather(*(mesh.pub("sleep", {"seconds": 0.1}) for _ in range(20)))
    await eventually(lambda: len(told) >= 20)
    await asyncio.sleep(0.05)
    await mesh.unsub("sleep.done")
    assert sorted(told) == sorted(jobs)
