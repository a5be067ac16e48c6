"""What members cost that have nothing to do: CPU of Postgres, transactions, and sessions.

`python bench/idle.py` starts real processes, each with an engine and a worker, lets them settle, and watches.
`--beside` watches them beside a loaded mesh: an engine with 48 callers, and its worker in a process of its own, first with
nobody else, then with the idle members. They serve another topic than the load, or with `--same-topic` the same; `--members`
of them are in one process. With `--pooler` they go through that, but for the connection that listens.
`--dsn` uses another Postgres on this machine, as superuser.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from cluster import Cluster, cpu_seconds, open_cluster
from report import machine, markdown_of_pairs, now, write_results

DATABASE = "bench_idle"
SETTLE = 50.0
"""Seconds until connections that were only needed at the start have been closed."""

FLOW = """
app:
  id: idle
  version: '1'
  graphs:
    - subscribes: one
      activities:
        start: {type: trigger}
        call: {type: worker, topic: w}
      transitions:
        start: [{to: call}]
"""

START = """
import asyncio, json, sys, time
from contextlib import AsyncExitStack
from hotmesh import HotMesh, Worker
async def work(message):
    return {}
async def until_told():
    print("up", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
"""

IDLE = f"""{START}
async def main():
    async with AsyncExitStack() as stack:
        for _ in range(int(sys.argv[2])):
            ways = dict(zip(("connection", "direct_connection"), [*sys.argv[4:], sys.argv[1]]))
            started = HotMesh.init("idle", workers=[Worker(sys.argv[3], work)], **ways)
            mesh = await stack.enter_async_context(started)
            if sys.argv[3] == "w":
                await mesh.pubsub("one", {{}}, timeout=60)
        await until_told()
asyncio.run(main())
"""

WORKER = f"""{START}
async def main():
    async with HotMesh.init("idle", connection=sys.argv[1], engine=False, workers=[Worker("w", work)]):
        await until_told()
asyncio.run(main())
"""

ENGINE = f"""{START}
done = []
async def call(mesh):
    while True:
        since = time.perf_counter()
        await mesh.pubsub("one", {{}}, timeout=60)
        done.append(time.perf_counter() - since)
async def main():
    async with HotMesh.init("idle", connection=sys.argv[1]) as mesh:
        calls = [asyncio.ensure_future(call(mesh)) for _ in range(int(sys.argv[2]))]
        print("up", flush=True)
        while await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline):
            print(json.dumps([len(done), sorted(done[-2000:])[len(done[-2000:]) // 2]]), flush=True)
        for one in calls:
            one.cancel()
asyncio.run(main())
"""

LOOKS = ["lock_due_jobs", "next_event_at", "claim_work", "next_work_at"]
"""By which members look whether there is something for them, and ask when there will be."""

CALLERS = 48
WARM_UP = 4.0


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    async with open_cluster(options.dsn) as cluster:
        postgres = await cluster.postmaster()
        if postgres is None:
            raise SystemExit("Postgres is not on this machine: its CPU time cannot be read")
        await cluster.recreate(DATABASE)
        await cluster.execute(DATABASE, f"alter database {DATABASE} set track_functions = 'pl'")
        await _deploy(cluster)
        found = {"machine": machine(), "Postgres": await cluster.description()}
        each = min(options.members, options.idle)
        counts = [each] * (options.idle // each)
        pooler = [] if options.pooler is None else [Cluster.at(options.pooler, DATABASE)]
        topic = "w" if options.same_topic or not options.beside else "another"
        seconds = options.seconds
        if not options.beside:
            found["nobody"] = await _watch(cluster, postgres, [], seconds)
            with _started(cluster, IDLE, [[str(count), topic, *pooler] for count in counts]) as idle:
                await _settled(idle)
                found[f"{options.idle} members"] = await _watch(cluster, postgres, _seen(idle), seconds)
        else:
            found["load, nobody beside it"] = alone = await _load(cluster, postgres, [], seconds)
            with _started(cluster, IDLE, [[str(count), topic, *pooler] for count in counts]) as idle:
                await _settled(idle)
                beside = await _load(cluster, postgres, idle, seconds)
            # What the load itself needs grows with its flows.
            grown = beside["flows/s"] / max(alone["flows/s"], 1.0)
            for what in ("transactions/s", "looks/s"):
                beside[f"{what} of each"] = round((beside[what] - alone[what] * grown) / sum(counts), 2)
            ratio = beside["CPU of Postgres, ms/flow"] / alone["CPU of Postgres, ms/flow"]
            beside["CPU of Postgres, against nobody"] = round(ratio, 2)
            found[f"load, {sum(counts)} idle members beside it"] = beside
        await cluster.drop(DATABASE)
        return found


async def _deploy(cluster: Cluster) -> None:
    from hotmesh import HotMesh

    async with HotMesh.init("idle", connection=cluster.dsn(DATABASE)) as mesh:
        await mesh.deploy(FLOW)
        await mesh.activate("1")


Started = list["subprocess.Popen[bytes]"]


@contextmanager
def _started(cluster: Cluster, program: str, arguments: Sequence[Sequence[str]]) -> Iterator[Started]:
    """Processes that run the program, until the end of the block."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, cluster.dsn(DATABASE), *given],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for given in arguments
    ]
    try:
        yield started
    finally:
        for process in started:
            process.communicate()


def _seen(started: Started) -> list[psutil.Process]:
    return [psutil.Process(process.pid) for process in started]


async def _up(started: Started) -> None:
    for process in started:
        assert await _line(process) == b"up\n"


async def _settled(started: Started) -> None:
    await _up(started)
    await asyncio.sleep(SETTLE)


async def _line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return await asyncio.to_thread(process.stdout.readline)


async def _load(cluster: Cluster, postgres: psutil.Process, idle: Started, seconds: float) -> dict[str, Any]:
    """Watch a loaded mesh, with these processes beside it."""
    with _started(cluster, WORKER, [[]]) as worker, _started(cluster, ENGINE, [[str(CALLERS)]]) as engine:
        await _up([*worker, *engine])
        await asyncio.sleep(WARM_UP)
        before, _ = await _done(engine[0])
        since = time.monotonic()
        found = await _watch(cluster, postgres, _seen(idle), seconds)
        after, median = await _done(engine[0])
        rate = (after - before) / (time.monotonic() - since)
        return {
            "flows/s": round(rate),
            "p50 of a flow, ms": round(1_000 * median, 1),
            "CPU of Postgres, ms/flow": round(10 * found["CPU of Postgres, % of a core"] / rate, 3),
            **found,
        }


async def _done(engine: subprocess.Popen[bytes]) -> tuple[int, float]:
    """How many flows are done, and the median time of the last of them."""
    assert engine.stdin is not None
    engine.stdin.write(b"\n")
    engine.stdin.flush()
    count, median = json.loads(await _line(engine))
    return count, median


async def _watch(
    cluster: Cluster, postgres: psutil.Process, ours: list[psutil.Process], seconds: float
) -> dict[str, Any]:
    connection = await asyncpg.connect(cluster.dsn("postgres"))
    inside = await asyncpg.connect(cluster.dsn(DATABASE))
    looks = "select coalesce(sum(calls), 0) from pg_stat_user_functions where funcname = any ($1)"
    count = "select xact_commit + xact_rollback from pg_stat_database where datname = $1"
    sessions = "select count(*) from pg_stat_activity where datname = $1 and backend_type = 'client backend'"
    try:
        before = await connection.fetchval(count, DATABASE)
        looked = await inside.fetchval(looks, LOOKS)
        cpu, own, since = _cpu([postgres]), _cpu(ours), time.monotonic()
        await asyncio.sleep(seconds)
        took = time.monotonic() - since
        cpu, own = _cpu([postgres]) - cpu, _cpu(ours) - own
        done = await connection.fetchval(count, DATABASE) - before
        looked = await inside.fetchval(looks, LOOKS) - looked
        return {
            "CPU of Postgres, % of a core": round(100 * cpu / took, 3),
            "CPU of the processes, % of a core": round(100 * own / took, 3),
            "transactions/s": round(done / took, 1),
            "looks/s": round(float(looked) / took, 1),
            "sessions": await connection.fetchval(sessions, DATABASE) - 1,
        }
    finally:
        await inside.close()
        await connection.close()


def _cpu(processes: list[psutil.Process]) -> float:
    """Seconds of CPU; of living descendants, too. Linux counts nanoseconds, where others count ticks."""
    if not Path("/proc/self/schedstat").exists():
        return sum(map(cpu_seconds, processes))
    total = 0
    for process in processes:
        for member in [process, *process.children(recursive=True)]:
            for task in Path(f"/proc/{member.pid}/task").glob("*/schedstat"):
                total += int(task.read_text().split()[0])
    return total / 1e9


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dsn")
    parser.add_argument("--idle", type=int, default=16, help="idle members")
    parser.add_argument("--members", type=int, default=1, help="of them in one process")
    parser.add_argument("--beside", action="store_true", help="beside a loaded mesh")
    parser.add_argument("--pooler", help="by which they go but for the connection that listens; a DSN")
    parser.add_argument("--same-topic", action="store_true", help="which serve what the load needs")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--name", help="write the results under this name")
    options = parser.parse_args(arguments)
    found = asyncio.run(measure(options))
    markdown = "\n".join(
        markdown_of_pairs(head, {key: str(value) for key, value in facts.items()})
        for head, facts in found.items()
    )
    print(markdown)
    if options.name:
        write_results(options.name, f"{markdown}\n", {"date": now()[:10]} | found)


if __name__ == "__main__":
    main()
