"""What a step costs within a commit, by how many share it: CPU of Postgres and of this process, and pages touched.

`python bench/commits.py` commits the two steps of a flow of one activity, for 10 to 400 flows at once, without engine and
callers. `--against CHECKOUT` measures another checkout in turns; `--dsn` uses another Postgres on this machine, as
superuser. A step of 400 must cost at most 1.1 times of what one of 10 costs.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import asyncpg

DATABASE = "bench_commits"
APP = "bench"
SIZES = (10, 25, 100, 400)
STEPS = 4_000
"""Steps of each size in a round."""
VALUES = {"small": 1, "1 kB": 64}
"""How much data a job has: so many times 15 bytes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dsn", help="a Postgres to use, as superuser, instead of a fresh embedded one")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another checkout of this project")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--name", help="name of the results' files (none)")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(asyncio.run(_side(options.side))))
    else:
        asyncio.run(_compare(options))


# -- one round, with the code of one checkout ------------------------------------------------------------


async def _side(dsn: str) -> list[dict[str, Any]]:
    from hotmesh.postgres.connect.source import ConnectionSource
    from hotmesh.postgres.migrate import migrate

    source = ConnectionSource(dsn)
    await migrate(source, "hotmesh")
    connection = await asyncpg.connect(dsn)
    await connection.execute("insert into hotmesh.app (app_id) values ($1)", APP)
    found = []
    for values, length in VALUES.items():
        for size in SIZES:
            await _rounds(connection, source, size, 200, length)  # warm up: plans, the driver's statements
            found.append(
                {"values": values, "steps": size}
                | await _rounds(connection, source, size, STEPS, length)
                | {"pages": await _pages(connection, source, size, length)}
            )
            await connection.execute("vacuum")
    await connection.close()
    return found


def _flows(size: int, length: int) -> tuple[list[Any], list[Any]]:
    """The first and the second step of so many flows."""
    from hotmesh.core.state.job import ActivityRecord, Job, WorkReceipt
    from hotmesh.core.state.step import Consumed, JobChange, RecordChange, Step, Work

    now = dt.datetime.now(tz=dt.UTC)
    data = {"items": ["some value ä"] * length}
    first, second = [], []
    for _ in range(size):
        name, generation = "H" + uuid4().hex[:22], str(uuid4())

        def job(seq: int, status: int, data: Any, name: str = name, generation: str = generation) -> Job:
            return Job(APP, name, generation, "1", "t", seq, status, data, data, now, now)

        first.append(
            Step(
                (JobChange(job(1, 1, data), created=True),),
                records=(
                    RecordChange(
                        generation,
                        "start",
                        (0,),
                        ActivityRecord("closed", type="trigger", started_at=now, ended_at=now),
                    ),
                    RecordChange(
                        generation, "call", (0, 0), ActivityRecord("open", type="worker", started_at=now)
                    ),
                ),
                work=(Work(name, generation, "call", (0, 0), "w", data, "n"),),
            )
        )
        second.append(
            Step(
                (JobChange(job(2, 0, data), False, 1, ended=True, data_changed=True),),
                records=(
                    RecordChange(
                        generation,
                        "call",
                        (0, 0),
                        ActivityRecord("closed", type="worker", ended_at=now, output=data),
                    ),
                ),
                consumed=(Consumed(generation, WorkReceipt("call", (0, 0))),),
            )
        )
    return first, second


def _batch(steps: list[Any]) -> Any:
    from hotmesh.postgres.steps import Batch

    batch = Batch()
    for number, step in enumerate(steps):
        batch.add(number, step, local=[True] * len(step.work), send_delay=lambda _: 0.0)
    return batch


async def _rounds(
    connection: asyncpg.Connection, source: Any, size: int, steps: int, length: int
) -> dict[str, Any]:
    from hotmesh.postgres import commits
    from hotmesh.postgres.database import Database

    database = Database(source, "hotmesh", APP)
    server = Path(f"/proc/{connection.get_server_pid()}/schedstat")
    times = []
    for _ in range(max(2, steps // (2 * size))):
        server_time = own_time = 0.0
        for part in _flows(size, length):
            before, own = _nanoseconds(server), time.process_time_ns()
            committed = await commits.commit(database, connection, _batch(part), "me", 0, 1, 30.0, None)
            own_time += time.process_time_ns() - own
            server_time += _nanoseconds(server) - before
            if committed.refused:
                raise AssertionError(committed.refused)
        times.append((server_time / (2 * size) / 1000, own_time / (2 * size) / 1000))
    return {"postgres": median(a for a, _ in times), "application": median(b for _, b in times)}


def _nanoseconds(schedstat: Path) -> int:
    """CPU time of a process of this machine."""
    return int(schedstat.read_text().split()[0])


async def _pages(connection: asyncpg.Connection, source: Any, size: int, length: int) -> float:
    """Pages of tables and indexes that a step touches."""
    from hotmesh.postgres.database import Database
    from hotmesh.postgres.sections import COMMIT

    statement = Database(source, "hotmesh", APP).bound(COMMIT)
    pages = 0
    for part in _flows(size, length):
        arguments = _batch(part).arguments(APP, "me", 0, 1, 30.0, None)
        plan = json.loads(
            await connection.fetchval(f"explain (analyze, buffers, format json) {statement}", *arguments)
        )[0]["Plan"]
        pages += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return pages / (2 * size)


# -- all rounds ------------------------------------------------------------------------------------------


async def _compare(options: argparse.Namespace) -> None:
    from cluster import open_cluster
    from report import machine, markdown_of_pairs, write_results

    sides = {"hotmesh": Path(sys.executable)}
    if options.against:
        sides["hotmesh, before"] = options.against.resolve() / ".venv/bin/python"
    rounds: dict[str, list[list[dict[str, Any]]]] = {label: [] for label in sides}
    async with open_cluster(options.dsn) as cluster:
        facts = {"machine": machine(), "Postgres": await cluster.description()}
        for turn in range(1, options.rounds + 1):
            for label, python in sides.items():
                await cluster.recreate(DATABASE)
                side = await asyncio.create_subprocess_exec(
                    python, __file__, "--side", cluster.dsn(DATABASE), stdout=subprocess.PIPE
                )
                output, _ = await side.communicate()
                if side.returncode:
                    sys.exit(side.returncode)
                rounds[label].append(json.loads(output))
                print(f"{turn}/{options.rounds} {label}", file=sys.stderr, flush=True)
        await cluster.drop(DATABASE)
    lines = [
        "| | values | steps in a commit | CPU of Postgres, µs a step | of the application | pages a step |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for label, found in rounds.items():
        for each in zip(*found, strict=True):
            figures = (
                f"{median(one[key] for one in each):.1f}" for key in ("postgres", "application", "pages")
            )
            lines.append(f"| {label} | {each[0]['values']} | {each[0]['steps']} | {' | '.join(figures)} |")
    body = "\n".join([*lines, "", *(markdown_of_pairs(head, pairs) for head, pairs in facts.items())])
    print(body)
    if options.name:
        write_results(options.name, body, facts | {"rounds": rounds})


if __name__ == "__main__":
    main()
