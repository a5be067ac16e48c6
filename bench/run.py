"""Measure hotmesh beside DBOS on one Postgres: `make bench`, or `python bench/run.py --help`."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import contender
import fixtures
import scale
from cluster import open_cluster
from measure import Meter
from memory import MemoryCurve, markdown_of_memory, measure_memory
from report import Figures, machine, markdown_of_figures, markdown_of_pairs, now, say, write_results
from scenarios import BEFORE, DBOS, DBOS_WAYS, FUNCTIONS_BEFORE, Scenario, all_scenarios

if TYPE_CHECKING:
    from cluster import Cluster

QUICK_SCALE = 0.02  # of the jobs that fill the tables


def main() -> None:
    options = _options()
    if not options.only_scale:
        _measure(options)
    if options.only_scale or not (options.memory or options.only):
        scale.measure(
            options.dsn, ["*"], quick=options.quick, name=None if options.quick else options.name and "scale"
        )


def _measure(options: argparse.Namespace) -> None:
    scenarios = [] if options.memory else _chosen(options)
    if any(each.database == DBOS for scenario in scenarios for each in scenario.contenders):
        contender.install_dbos()
    report = asyncio.run(_run(options, scenarios))
    print(report["markdown"])
    if options.name:
        write_results(options.name, report["markdown"], report["json"])


async def _run(options: argparse.Namespace, scenarios: list[Scenario]) -> dict[str, Any]:
    facts = {"machine": machine(), "versions": contender.versions()}
    async with open_cluster(options.dsn) as cluster:
        facts["Postgres"] = await cluster.description()
        if options.memory:
            curve = await measure_memory(cluster, options.flows, say)
            body, data = markdown_of_memory(curve), _memory_json(curve)
        else:
            figures = await _compare(cluster, scenarios, options)
            body, data = markdown_of_figures(figures), {"scenarios": [each.as_json() for each in figures]}
    pairs = "\n".join(markdown_of_pairs(head, found) for head, found in facts.items())
    return {"json": {"date": now()} | facts | _settings(options) | data, "markdown": f"{body}\n{pairs}"}


async def _compare(cluster: Cluster, scenarios: list[Scenario], options: argparse.Namespace) -> list[Figures]:
    databases = dict.fromkeys(each.database for scenario in scenarios for each in scenario.contenders)
    for database in databases:
        say(f"preparing {database}")
        checkout = options.against if database in {BEFORE, FUNCTIONS_BEFORE} else None
        await fixtures.prepare(cluster, database, scale=options.scale, checkout=checkout)

    meter = Meter(cluster, options.seconds)
    compared = []
    for scenario in scenarios:
        figures = Figures(scenario)
        for turn in range(1, options.rounds + 1):
            for each in scenario.contenders:
                measured = await meter.measure(scenario, each)
                figures.add(each, measured)
                say(
                    f"{scenario.name:<12} {turn}/{options.rounds}  {each.label:<34} "
                    f"{measured.flows_per_second:>8,.0f} flows/s  p50 {measured.p50_ms:>8,.1f} ms  "
                    f"p99 {measured.p99_ms:>8,.1f} ms  {measured.commits_per_flow:>6.2f} commits, "
                    f"{measured.writes_per_flow:.2f} writing"
                )
        compared.append(figures)

    for database in databases:
        await cluster.drop(database)
    return compared


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one short round with small tables, to see that all works"
    )
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="only scenarios of this name; * and ? work"
    )
    parser.add_argument("--rounds", type=int, help="alternating rounds (3)")
    parser.add_argument("--seconds", type=float, help="seconds of load in each round (5)")
    parser.add_argument(
        "--memory", action="store_true", help="measure the engine's memory over many flows instead"
    )
    parser.add_argument(
        "--scale",
        dest="only_scale",
        action="store_true",
        help="only what must stay flat with many passes, children, sleepers",
    )
    parser.add_argument("--flows", type=int, help="flows of the memory run (200000)")
    parser.add_argument("--uvloop", action="store_true", help="our process on uvloop where it meets DBOS")
    parser.add_argument(
        "--dbos", action="append", metavar="WAY", help="how to drive DBOS (threads and async)"
    )
    parser.add_argument(
        "--against", type=Path, metavar="CHECKOUT", help="instead of DBOS, another checkout of this project"
    )
    parser.add_argument("--dsn", help="a Postgres to use, as superuser, instead of a fresh embedded one")
    parser.add_argument(
        "--name", help="name of the results' files (what is measured; with --quick or --only, none)"
    )
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    options = parser.parse_args()
    options.against = options.against and options.against.resolve()
    if options.list:
        for scenario in all_scenarios():
            print(f"{scenario.name:<12} {scenario.title}")
        sys.exit()
    options.dbos = options.dbos or list(DBOS_WAYS)
    options.scale = QUICK_SCALE if options.quick else 1.0
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.seconds = options.seconds or (1.0 if options.quick else 5.0)
    options.flows = options.flows or (40_000 if options.quick else 200_000)
    if options.name is None and not options.quick and not options.only:
        options.name = "memory" if options.memory else "comparison"
    return options


def _chosen(options: argparse.Namespace) -> list[Scenario]:
    known = all_scenarios(
        uvloop=options.uvloop, dbos_ways=options.dbos, scale=options.scale, against=options.against
    )
    if not options.only:
        return known
    chosen = [each for each in known if any(fnmatch(each.name, pattern) for pattern in options.only)]
    if not chosen:
        sys.exit(f"no scenario of that name; there are {', '.join(each.name for each in known)}")
    return chosen


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    return {"rounds": options.rounds, "seconds": options.seconds, "uvloop": options.uvloop}


def _memory_json(curve: MemoryCurve) -> dict[str, Any]:
    return {
        "samples": [dataclasses.asdict(sample) for sample in curve.samples],
        "growth": curve.growth,
        "growth_per_100k": curve.growth_per_100k,
    }


if __name__ == "__main__":
    main()
