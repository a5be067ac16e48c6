"""What is measured: each scenario compares a subject with the contenders that it is held against."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from contender import Contender, Process
from protocol import WIDE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

OURS = Process("side_hotmesh.py", ("both",))
ENGINE = Process("side_hotmesh.py", ("engine",))
WORKER = Process("side_hotmesh.py", ("worker",), drives=False)
DURABLE = Process("side_durable.py", ("both",))
CLIENT = Process("side_durable.py", ("client",))
HOST = Process("side_durable.py", ("host",), drives=False)
BARE = Process("side_prototype.py")
DBOS_WAYS = ("threads", "async")

OPEN_JOBS = 100_000
FINISHED_JOBS = 1_000_000
SIGNALLED = 25_000  # flows that wait for signals, more than are sent

# Databases, each prepared once by a run.
DBOS = "bench_dbos"
BEFORE = "bench_before"
PROTOTYPE = "bench_prototype"
FUNCTIONS, FUNCTIONS_BEFORE = "bench_durable", "bench_durable_before"
PLAIN, EMPTY, OPEN, FINISHED = "bench_hotmesh", "bench_empty", "bench_open", "bench_finished"


@dataclass(frozen=True, slots=True)
class Scenario:
    """A load, and who takes part in it; the first contender is the subject."""

    name: str
    title: str
    flow: str
    concurrency: int
    contenders: tuple[Contender, ...]
    warm_up: int = 200

    @property
    def one_at_a_time(self) -> bool:
        return self.concurrency == 1


def all_scenarios(
    *,
    uvloop: bool = False,
    dbos_ways: Sequence[str] = DBOS_WAYS,
    scale: float = 1.0,
    against: Path | None = None,
) -> list[Scenario]:
    """`against`: the checkout to hold flows against, instead of DBOS."""
    ours = Contender("hotmesh, uvloop" if uvloop else "hotmesh", PLAIN, (_with_loop(OURS, uvloop=uvloop),))
    if against is None:
        others = [Contender(f"DBOS, {way}", DBOS, (dbos(way),)) for way in dbos_ways]
    else:
        others = [Contender("hotmesh, before", BEFORE, (replace(OURS, checkout=against),))]
    held = (ours, *others)

    ours_only = held if against is not None else (ours,)

    durable = Contender("durable", FUNCTIONS, (_with_loop(DURABLE, uvloop=uvloop),))
    if against is None:
        beside = (durable, replace(ours, label="graph"), *others)
    else:
        beside = (
            durable,
            Contender("durable, before", FUNCTIONS_BEFORE, (replace(DURABLE, checkout=against),)),
        )
    durable_apart = Contender("durable, host apart", FUNCTIONS, (HOST, CLIENT))

    apart = Contender("hotmesh, worker apart", PLAIN, (WORKER, ENGINE))
    bare = Contender("prototype", PROTOTYPE, (_with_loop(BARE, uvloop=uvloop),))
    limit = (ours, bare)
    two = Contender("hotmesh, two processes", PLAIN, (OURS, OURS))
    empty = Contender("hotmesh, empty tables", EMPTY, (OURS,))
    open_jobs = Contender(f"hotmesh, {OPEN_JOBS * scale:,.0f} open jobs", OPEN, (OURS,))
    finished_jobs = Contender(f"hotmesh, {FINISHED_JOBS * scale:,.0f} finished jobs", FINISHED, (OURS,))

    return [
        Scenario("one-1", "one activity, one at a time", "one", 1, held),
        Scenario("one-50", "one activity, 50 concurrent", "one", 50, held),
        Scenario("five-1", "five activities in a row, one at a time", "five", 1, held),
        Scenario("five-50", "five activities in a row, 50 concurrent", "five", 50, held),
        Scenario("durable-one-1", "durable function, one step, one at a time", "one", 1, beside),
        Scenario("durable-one-50", "durable function, one step, 50 concurrent", "one", 50, beside),
        Scenario("durable-five-1", "durable function, five steps, one at a time", "five", 1, beside),
        Scenario("durable-five-50", "durable function, five steps, 50 concurrent", "five", 50, beside),
        Scenario(
            "durable-fan-1", f"durable function, {WIDE} steps gathered, one at a time", "wide", 1, beside, 50
        ),
        Scenario(
            "durable-fan-10",
            f"durable function, {WIDE} steps gathered, 10 concurrent",
            "wide",
            10,
            beside,
            50,
        ),
        Scenario(
            "durable-apart-1",
            "durable function hosted in a second process, one at a time",
            "one",
            1,
            (durable_apart, durable, apart),
        ),
        Scenario(
            "durable-apart-50",
            "durable function hosted in a second process, 50 concurrent",
            "one",
            50,
            (durable_apart, durable, apart),
        ),
        Scenario("limit-one-1", "one activity, one at a time, against the bare commit path", "one", 1, limit),
        Scenario(
            "limit-one-50", "one activity, 50 concurrent, against the bare commit path", "one", 50, limit
        ),
        Scenario(
            "limit-five-50", "five in a row, 50 concurrent, against the bare commit path", "five", 50, limit
        ),
        Scenario("signal-1", "signals to waiting flows, one at a time", "signalled", 1, ours_only, SIGNALLED),
        Scenario(
            "signal-50", "signals to waiting flows, 50 concurrent", "signalled", 50, ours_only, SIGNALLED
        ),
        Scenario("fan-1", "50 activities in parallel, one at a time", "fan", 1, (ours,), warm_up=10),
        Scenario("fan-10", "50 activities in parallel, 10 concurrent", "fan", 10, (ours,), warm_up=10),
        Scenario("apart-1", "worker in a second process, one at a time", "one", 1, (apart, ours)),
        Scenario("apart-50", "worker in a second process, 50 concurrent", "one", 50, (apart, ours)),
        Scenario("two-50", "two engine processes, 50 concurrent in each", "one", 50, (two, ours)),
        Scenario("open-50", "many open jobs in the tables, 50 concurrent", "one", 50, (open_jobs, empty)),
        Scenario(
            "finished-50",
            "many finished jobs in the tables, 50 concurrent",
            "one",
            50,
            (finished_jobs, empty),
        ),
    ]


def dbos(way: str) -> Process:
    return Process("side_dbos.py", (way,))


def _with_loop(process: Process, *, uvloop: bool) -> Process:
    return Process(process.script, (*process.arguments, "--uvloop")) if uvloop else process
