"""What is counted, as a dict and as Prometheus reads it."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from harness import connected, eventually, one_worker
from hotmesh import ConfigError, HotMesh, JobError, Response, Worker

pytestmark = pytest.mark.anyio


async def call(message: Any) -> Any:
    x = message.data.get("x")
    if x == "fail":
        return Response({"message": "no"}, status="error", code=409)
    if x == "retry" and not message.metadata.get("try"):
        raise RuntimeError("once more")
    return {"y": x}


async def deployed(mesh: HotMesh) -> HotMesh:
    await mesh.deploy(one_worker(mesh.app_id))
    await mesh.activate("1")
    return mesh


def worker(callback: Any = call) -> Worker:
    return Worker("w", callback, retry={"maximum_attempts": 2, "initial_interval": 0.001})


async def scraped(address: str | None) -> dict[str, dict[str, float]]:
    """Sample → labels but the namespace, `app=shop topic=one` → value."""
    assert address is not None

    def read() -> str:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
            return text

    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(await asyncio.to_thread(read)):
        for sample in family.samples:
            assert sample.labels.pop("namespace") == "hotmesh"
            labels = " ".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


async def test_what_flows_and_callbacks_do_is_counted(database_url: str) -> None:
    async with HotMesh.init("shop", connection=database_url, workers=[worker()]) as mesh:
        await deployed(mesh)
        await mesh.pubsub("one", {"x": 1}, timeout=10)
        await mesh.pubsub("one", {"x": "retry"}, timeout=10)
        with pytest.raises(JobError):
            await mesh.pubsub("one", {"x": "fail"}, timeout=10)
        found = await mesh.metrics()

    assert found["flows_started"] == {"one": 3}
    assert found["flows_ended"] == {"one": {"completed": 2, "failed": 1}}
    assert found["flow_seconds"]["one"]["count"] == 3
    assert found["activities_ended"] == {"worker": {"done": 2, "failed": 1}}
    assert found["callbacks_ended"] == {"w": {"error": 3, "success": 2}}
    assert found["callback_retries"] == {"w": 2}
    assert 0 < found["callback_seconds"]["w"]["sum"] < 5
    assert found["events_handled"] == 3
    assert found["commit_steps"]["sum"] >= 6
    assert found["commit_seconds"]["count"] == found["commit_steps"]["count"]
    assert found["callbacks_running"] == {}
    assert found["throttle_milliseconds"] == {mesh.guid_: {"": 0, "w": 0}}
    assert found["queue_messages"]["engine"][""] == {"ready": 0, "held": 0, "delayed": 0}
    assert set(found["reconnects"].values()) == {0}


async def test_queues_are_measured_when_somebody_looks(database_url: str) -> None:
    async with HotMesh.init("shop", connection=database_url) as mesh:
        await deployed(mesh)
        await asyncio.gather(*(mesh.pub("one", {"x": n}) for n in range(5)))
        async with connected(database_url) as connection:
            await connection.execute(
                "update hotmesh.worker_stream set visible_at = now() - interval '1 minute' where job_id = "
                "(select min(job_id) from hotmesh.job)"
            )
            await connection.execute(
                "update hotmesh.worker_stream set visible_at = now() + interval '1 minute' where job_id = "
                "(select max(job_id) from hotmesh.job)"
            )
        found = await mesh.metrics()

    assert found["queue_messages"]["worker"] == {"w": {"ready": 4, "held": 0, "delayed": 1}}
    assert 60 <= found["queue_oldest_seconds"]["worker"]["w"] < 120
    assert "queue_messages" not in await mesh.metrics(queues=False)


async def test_running_callbacks_and_lost_leases_are_seen(database_url: str) -> None:
    free = asyncio.Event()

    async def waits(message: Any) -> Any:
        await free.wait()
        return {"y": 1}

    async with HotMesh.init("shop", connection=database_url, workers=[worker(waits)], lease=0.6) as mesh:
        await deployed(mesh)
        job_id = await mesh.pub("one", {})
        await eventually(lambda: mesh._member.workers.running_topics() == ["w"])
        found = await mesh.metrics()
        assert found["callbacks_running"] == {"w": 1}
        assert found["queue_messages"]["worker"]["w"]["held"] == 1
        assert found["jobs_in_memory"] == 1
        async with connected(database_url) as connection:
            await connection.execute("delete from hotmesh.worker_stream where job_id = $1", job_id)
        await eventually(lambda: mesh._member.leases.lost)
        free.set()
        await eventually(lambda: mesh._member.metrics.lost_leases == {"w": 1})


async def test_poison_and_reconnects_are_counted(database_url: str) -> None:
    async with HotMesh.init("shop", connection=database_url) as mesh:
        await deployed(mesh)
        job_id = await mesh.pub("one", {})
        async with connected(database_url) as connection:
            await connection.execute(
                "update hotmesh.worker_stream set delivery = 9 where job_id = $1", job_id
            )
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where application_name = 'hotmesh shop' and datname = current_database()"
            )
        await eventually(lambda: mesh._member.listener.reconnects == 1)
        async with HotMesh.init("shop", connection=database_url, workers=[worker()]) as other:
            await eventually(lambda: other._member.metrics.dead_letters == {"worker": 1})
            await eventually(lambda: buried(other))
        assert sum((await mesh.metrics())["reconnects"].values()) >= 2


async def buried(mesh: HotMesh) -> bool:
    return bool((await mesh.metrics())["dead_letters_kept"] == {"worker": 1})


async def test_instances_of_a_process_share_an_endpoint_and_counters_stay(database_url: str) -> None:
    first = await deployed(
        await HotMesh.init("shop", connection=database_url, workers=[worker()], metrics="127.0.0.1:0")
    )
    second = await HotMesh.init("shop", connection=database_url, metrics="127.0.0.1:0")
    other = await HotMesh.init("other", connection=database_url, metrics="127.0.0.1:0")
    address = first.metrics_address
    assert address == second.metrics_address == other.metrics_address
    await first.pubsub("one", {"x": 1}, timeout=10)
    await second.pubsub("one", {"x": 2}, timeout=10)

    found = await scraped(address)
    assert found["hotmesh_flows_started_total"] == {"app=shop topic=one": 2}
    assert found["hotmesh_flows_ended_total"] == {"app=shop outcome=completed topic=one": 2}
    assert found["hotmesh_callbacks_ended_total"] == {"app=shop outcome=success topic=w": 2}
    assert found["hotmesh_callback_seconds_count"] == {"app=shop topic=w": 2}
    assert found["hotmesh_callback_seconds_bucket"]["app=shop le=+Inf topic=w"] == 2
    assert found["hotmesh_queue_messages"]["app=shop state=ready stream=engine topic="] == 0
    assert found["hotmesh_queue_oldest_seconds"]["app=other stream=timer topic="] == 0

    await first.stop()
    assert (await scraped(address))["hotmesh_flows_started_total"] == {"app=shop topic=one": 2}
    await second.stop()
    await other.stop()
    with pytest.raises(OSError):
        await scraped(address)
    # Nothing is left of it: whoever takes the address now counts from the beginning.
    async with HotMesh.init("shop", connection=database_url, metrics=address) as again:
        assert "hotmesh_flows_started_total" not in await scraped(again.metrics_address)


async def test_the_port_of_the_settings(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.listen()
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}"):
            await HotMesh.init("shop", connection=database_url, settings={"metrics_port": port})
    monkeypatch.setenv("HOTMESH_METRICS_PORT", str(port))
    async with HotMesh.init("shop", connection=database_url) as mesh:
        assert mesh.metrics_address == f"127.0.0.1:{port}"
        assert "hotmesh_commit_steps_count" in await scraped(mesh.metrics_address)
    async with HotMesh.init("shop", connection=database_url, settings={"metrics_port": 0}) as mesh:
        assert mesh.metrics_address is None


@pytest.mark.parametrize("wrong", ["here", "127.0.0.1", "host:99999", True, -1])
async def test_what_is_no_address_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="metrics="):
        HotMesh.init("shop", metrics=wrong)
