"""What processes cost that have nothing to do: CPU of Postgres, transactions, and sessions.

`python bench/idle.py` starts real processes, each with an engine and a worker, lets them settle, and watches.
`--dsn` uses another Postgres on this machine, as superuser.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
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

PROCESS = """
import asyncio, sys
from hotmesh import HotMesh, Worker
async def work(message):
    return {}
async def main():
    async with HotMesh.init("idle", connection=sys.argv[1], workers=[Worker("w", work)]) as mesh:
        await mesh.pubsub("one", {}, timeout=60)
        print("up", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
asyncio.run(main())
"""


async def measure(dsn: str | None, processes: int, seconds: float) -> dict[str, Any]:
    async with open_cluster(dsn) as cluster:
        postgres = await cluster.postmaster()
        if postgres is None:
            raise SystemExit("Postgres is not on this machine: its CPU time cannot be read")
        await cluster.recreate(DATABASE)
        found = {"machine": machine(), "Postgres": await cluster.description()}
        found["nobody"] = await _watch(cluster, postgres, [], seconds)
        found[f"{processes} processes"] = await _run(cluster, postgres, processes, seconds)
        await cluster.drop(DATABASE)
        return found


async def _run(cluster: Cluster, postgres: psutil.Process, count: int, seconds: float) -> dict[str, Any]:
    from hotmesh import HotMesh

    url = cluster.dsn(DATABASE)
    async with HotMesh.init("idle", connection=url) as mesh:
        await mesh.deploy(FLOW)
        await mesh.activate("1")
    started = [
        subprocess.Popen(  # noqa: ASYNC220 - a few milliseconds
            [sys.executable, "-c", PROCESS, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for _ in range(count)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == b"up\n"
        await asyncio.sleep(SETTLE)
        return await _watch(cluster, postgres, [psutil.Process(p.pid) for p in started], seconds)
    finally:
        for process in started:
            process.communicate()


async def _watch(
    cluster: Cluster, postgres: psutil.Process, ours: list[psutil.Process], seconds: float
) -> dict[str, Any]:
    connection = await asyncpg.connect(cluster.dsn("postgres"))
    count = "select xact_commit + xact_rollback from pg_stat_database where datname = $1"
    sessions = "select count(*) from pg_stat_activity where datname = $1 and backend_type = 'client backend'"
    try:
        before = await connection.fetchval(count, DATABASE)
        cpu, own, since = _cpu([postgres]), _cpu(ours), time.monotonic()
        await asyncio.sleep(seconds)
        took = time.monotonic() - since
        cpu, own = _cpu([postgres]) - cpu, _cpu(ours) - own
        done = await connection.fetchval(count, DATABASE) - before
        return {
            "CPU of Postgres, % of a core": round(100 * cpu / took, 3),
            "CPU of the processes, % of a core": round(100 * own / took, 3),
            "transactions/s": round(done / took, 1),
            "sessions": await connection.fetchval(sessions, DATABASE),
        }
    finally:
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
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--name", help="write the results under this name")
    options = parser.parse_args(arguments)
    found = asyncio.run(measure(options.dsn, options.processes, options.seconds))
    markdown = "\n".join(
        markdown_of_pairs(head, {key: str(value) for key, value in facts.items()})
        for head, facts in found.items()
    )
    print(markdown)
    if options.name:
        write_results(options.name, f"{markdown}\n", {"date": now()[:10]} | found)


if __name__ == "__main__":
    main()
