"""The same flows on several versions of Postgres, in turns: what a flow costs each of them.

`python bench/versions.py BIN …` starts a cluster of its own for each directory of Postgres' programs, the newest last, and holds the
others against that one. CPU of Postgres for each flow is what counts: it must be at most 1.2 times that of the newest.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from contextlib import AsyncExitStack
from statistics import median

import fixtures
from cluster import open_cluster
from contender import Contender, versions
from measure import Measurement, Meter
from report import machine, markdown_of_pairs, now, say, table, write_results
from scenarios import OURS, PLAIN, Scenario

HOTMESH = Contender("hotmesh", PLAIN, (OURS,))
SCENARIOS = [
    Scenario("one-50", "one activity, 50 concurrent", "one", 50, (HOTMESH,)),
    Scenario("five-50", "five activities in a row, 50 concurrent", "five", 50, (HOTMESH,)),
]
VARIABLE = "HOTMESH_POSTGRES_BIN"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "programs", nargs="+", metavar="BIN", help="a directory with the programs of one version"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--name", help="name of the results' files (none)")
    asyncio.run(_compare(parser.parse_args()))


async def _compare(options: argparse.Namespace) -> None:
    found: dict[tuple[str, str], list[Measurement]] = {}
    facts = {"machine": machine(), "versions": versions()}
    async with AsyncExitStack() as stack:
        meters: dict[str, Meter] = {}
        for programs in options.programs:
            os.environ[VARIABLE] = programs
            cluster = await stack.enter_async_context(open_cluster(None))
            version = (await cluster.description())["version"]
            say(f"preparing {version}")
            await fixtures.prepare(cluster, PLAIN)
            meters[version] = Meter(cluster, options.seconds)
        facts["Postgres"] = await cluster.description()
        for scenario in SCENARIOS:
            for turn in range(1, options.rounds + 1):
                # The first of a round looks slower: everybody is that once.
                order = list(meters)[turn % len(meters) :] + list(meters)[: turn % len(meters)]
                for version in order:
                    measured = await meters[version].measure(scenario, HOTMESH)
                    found.setdefault((scenario.title, version), []).append(measured)
                    say(
                        f"{scenario.name:<8} {turn}/{options.rounds}  {version:<8} {measured.flows_per_second:>8,.0f} flows/s  "
                        f"{1000 * (measured.postgres_cpu_ms or 0):>6,.0f} µs of Postgres"
                    )
    markdown = _table(found, list(meters)) + "\n".join(markdown_of_pairs(*fact) for fact in facts.items())
    print(markdown)
    if options.name:
        data = [
            {"title": title, "version": version, "rounds": [vars_of(each) for each in rounds]}
            for (title, version), rounds in found.items()
        ]
        write_results(options.name, markdown, {"date": now(), **facts, "figures": data})


def vars_of(measured: Measurement) -> dict[str, float | None]:
    return {name: getattr(measured, name) for name in measured.__slots__}


def _table(found: dict[tuple[str, str], list[Measurement]], known: list[str]) -> str:
    heads = ["", "Postgres", "flows/s", "µs of the application", "µs of Postgres", "to the newest"]
    rows = []
    for scenario in SCENARIOS:
        newest = median(_micros(each) for each in found[scenario.title, known[-1]])
        for version in known:
            rounds = found[scenario.title, version]
            micros = [_micros(each) for each in rounds]
            rows.append(
                [
                    scenario.title if version == known[0] else "",
                    version,
                    f"{median(each.flows_per_second for each in rounds):,.0f}",
                    f"{1000 * median(each.application_cpu_ms for each in rounds):,.0f}",
                    f"{median(micros):,.0f} ({min(micros):,.0f}–{max(micros):,.0f})",
                    f"{median(micros) / newest:.2f}",
                ]
            )
    return table(heads, rows)


def _micros(measured: Measurement) -> float:
    return 1000 * (measured.postgres_cpu_ms or 0.0)


if __name__ == "__main__":
    main()
