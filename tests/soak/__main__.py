"""Drills, chaos and hostilities for minutes: `python -m tests.soak --minutes 6 --seed 7`; 1 is returned if a promise was broken.

A drill kills the processes of one app, and Postgres with them; the chaos does all that can be done to two apps at once; in the
hostile part callbacks, subscribers, sinks and log handlers do all that code of users can do to the instances that call it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "crash")]

import chaos  # noqa: E402 - it lies beside this
import drill  # noqa: E402 - it lies beside the crash test
import hostilities  # noqa: E402 - it lies beside this
from fleet import durable_postgres  # noqa: E402 - it lies beside the crash test

RESULTS = HERE.parent.parent / "bench" / "results"

ROUND = 30.0
"""Seconds of disturbance between two looks at what came of it."""

RATE = 30.0
"""Jobs created per second while nothing is dead."""


PARTS = ("drill", "chaos", "hostile")

CHAOS_RATE = 10.0
"""Jobs created per second in each app of the chaos; each is thirteen activities and three further jobs."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=6.0, help="how long (default: 6), a third of it for each"
    )
    parser.add_argument("--seed", type=int, default=None, help="of what happens, and when")
    parser.add_argument("--only", choices=PARTS, help="one of them, for the whole time")
    parser.add_argument("--record", action="store_true", help="write the figures to bench/results")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(4))
    parts = (options.only,) if options.only else PARTS
    seconds = options.minutes * 60 / len(parts)
    found: dict[str, Any] = {}
    problems: list[str] = []
    if "drill" in parts:
        reports = asyncio.run(_soak(seconds, seed))
        total = _total(reports, seed)
        print(drill_line(total), flush=True)
        problems += total.problems
        found |= {"total": asdict(total), "rounds": [asdict(report) for report in reports]}
    if "chaos" in parts:
        storm = asyncio.run(_chaos(seconds, seed))
        print(f"chaos: {storm.summary()}", *storm.problems, sep="\n  ", flush=True)
        problems += storm.problems
        found["chaos"] = asdict(replace(storm, did=dict(storm.did)))
    if "hostile" in parts:
        plays = asyncio.run(_hostile(seconds, seed))
        problems += [problem for play in plays for problem in play.problems]
        found["hostile"] = [asdict(play) for play in plays]
    if options.record:
        print(f"recorded in {_record(found, options.minutes)}")
    return 1 if problems else 0


async def _chaos(seconds: float, seed: int) -> chaos.ChaosReport:
    directory = _directory()
    report = await chaos.run(
        directory, jobs=int(seconds * CHAOS_RATE * 0.4), rate=CHAOS_RATE, seconds=seconds, seed=seed
    )
    if report.problems:
        report.problems.append(f"what happened lies in {directory}")
    else:
        shutil.rmtree(directory, ignore_errors=True)
    return report


async def _hostile(seconds: float, seed: int) -> list[hostilities.HostileReport]:
    """Rounds as those of the drills, each with a process, a database and a seed of its own."""
    ends = time.monotonic() + seconds
    reports: list[hostilities.HostileReport] = []
    directory = _directory()
    try:
        while (left := ends - time.monotonic()) > 5 or not reports:
            number = len(reports)
            async with durable_postgres(directory / str(number)) as (_, url):
                lasting = max(3.0, min(ROUND, left - 10))
                report = await asyncio.to_thread(hostilities.play, url, lasting, seed + number)
            reports.append(report)
            print(f"hostile: {report.summary()}", *report.problems, sep="\n  ", flush=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return reports


async def _soak(seconds: float, seed: int) -> list[drill.Report]:
    """Rounds until the time is up; each has a Postgres of its own, so that one failure does not hide the next."""
    ends = time.monotonic() + seconds
    reports: list[drill.Report] = []
    while (left := ends - time.monotonic()) > 5 or not reports:
        disturbance = max(3.0, min(ROUND, left - 10))
        report = await _round(seed + len(reports), disturbance)
        reports.append(report)
        print(f"round {len(reports)}: {report.summary()}", flush=True)
        for problem in report.problems:
            print(f"  {problem}", flush=True)
    return reports


async def _round(seed: int, disturbance: float) -> drill.Report:
    directory = _directory()
    try:
        report = await drill.run(
            directory,
            jobs=int(disturbance * RATE * 0.6),
            rate=RATE,
            disturbance=disturbance,
            seed=seed,
            settle_within=60,
        )
    except BaseException:
        print(f"what happened lies in {directory}", file=sys.stderr)
        raise
    if report.problems:
        report.problems.append(f"what happened lies in {directory}")
    else:
        shutil.rmtree(directory, ignore_errors=True)
    return report


def _directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="hotmesh-soak-", dir="/tmp"))
    if os.geteuid() == 0:
        directory.chmod(0o711)  # for the account that root's servers run as
    return directory


def _total(reports: list[drill.Report], seed: int) -> drill.Report:
    total = drill.Report(seed)
    for report in reports:
        total.seconds += report.seconds
        total.jobs += report.jobs
        total.kills += report.kills
        total.restarts_of_postgres += report.restarts_of_postgres
        total.runs += report.runs
        total.repeated_runs += report.repeated_runs
        total.slowest_takeover = max(total.slowest_takeover, report.slowest_takeover)
        total.settling = max(total.settling, report.settling)
        total.problems += report.problems
    return total


def drill_line(total: drill.Report) -> str:
    """The summary of the whole soak."""
    return f"soak: {total.summary()}"


def _record(results: dict[str, Any], minutes: float) -> Path:
    moment = datetime.now(UTC)
    found: dict[str, Any] = {
        "benchmark": "soak",
        "at": moment.isoformat(timespec="seconds"),
        "minutes": minutes,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        **results,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"soak-{moment:%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
    return path


if __name__ == "__main__":
    sys.exit(main())
