"""What a run of the demo has shown, for people and for programs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table

from hotmesh.cli import drawing
from hotmesh.demo.run import Run
from hotmesh.observe.activities import ActivitySummary
from hotmesh.observe.jobs import JobSummary

ORDER = ("shipped", "shipped after review", "card declined", "out of stock", "refused in review", "invalid")
"""The outcomes, as the table lists them; any other one is below."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a run has shown: what the callers saw, what Postgres holds, and what both have to be."""

    run: Run
    expected: Counter[str]
    stored: Counter[str]
    open: int
    """Unfinished orders, and rows that still ask for something to be done."""
    postgres: str
    job: JobSummary
    activities: list[ActivitySummary]
    sql: str
    killed: int | None = None
    """Processes that were killed meanwhile; None: none was to be."""

    @property
    def accounted_for(self) -> bool:
        return self.run.outcomes == self.expected == self.stored and self.open == 0


def show(console: Console, report: Report, concurrency: int) -> None:
    """Print it for people."""
    run = report.run
    total = sum(run.outcomes.values())
    console.print(_outcomes(report))
    console.print(
        f"[bold]{total / run.seconds:,.0f} orders/s[/bold]: {total:,} in {run.seconds:.2f} s, "
        f"{concurrency} at a time; latencies in milliseconds, from placing an order to its result"
    )
    if report.accounted_for:
        console.print(
            f"[green]all {total:,} orders accounted for[/green]: callers, Postgres and the file of orders agree, "
            "and nothing is left to do"
        )
    else:
        console.print(
            f"[red]not all orders are accounted for[/red]: stored {dict(report.stored)}, still open {report.open}"
        )
    if report.killed is not None:
        console.print(
            f"[bold]{report.killed} processes were killed[/bold] meanwhile, with all that they were doing"
        )
    console.print()
    console.print(drawing.headline(report.job))
    if report.activities:
        console.print(drawing.timeline(report.job, report.activities, datetime.now(UTC)))
    console.print("The same in SQL, for [bold]hotmesh db psql[/bold] or any other client:\n")
    console.print(Syntax(report.sql, "sql", theme="ansi_dark", background_color="default", word_wrap=True))


def _outcomes(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("outcome")
    for name in ("orders", "expected", "p50", "p95", "p99"):
        table.add_column(name, justify="right")
    for name in _names(report):
        latencies = report.run.latencies.get(name, [])
        right = len(latencies) == report.expected[name]
        table.add_row(
            name,
            f"{len(latencies):,}",
            f"[{'dim' if right else 'red'}]{report.expected[name]:,}[/]",
            *_milliseconds(latencies),
        )
    everything = [latency for latencies in report.run.latencies.values() for latency in latencies]
    table.add_section()
    table.add_row(
        "all", f"{len(everything):,}", f"[dim]{report.expected.total():,}[/]", *_milliseconds(everything)
    )
    return table


def _names(report: Report) -> list[str]:
    found = report.run.outcomes.keys() | report.expected.keys()
    return [*(name for name in ORDER if name in found), *sorted(found - set(ORDER))]


def _milliseconds(latencies: Sequence[float]) -> list[str]:
    return [f"{percentile(latencies, share) * 1_000:.1f}" if latencies else "" for share in (0.5, 0.95, 0.99)]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    return sorted(values)[max(math.ceil(len(values) * share), 1) - 1]


def as_data(report: Report, concurrency: int) -> dict[str, Any]:
    """It as plain data, for programs."""
    everything = [latency for latencies in report.run.latencies.values() for latency in latencies]

    def described(latencies: Sequence[float]) -> dict[str, Any]:
        if not latencies:
            return {"orders": 0}
        return {
            "orders": len(latencies),
            **{
                f"p{share}_ms": round(percentile(latencies, share / 100) * 1_000, 3) for share in (50, 95, 99)
            },
        }

    return {
        "accounted_for": report.accounted_for,
        "postgres": report.postgres,
        "concurrency": concurrency,
        "seconds": round(report.run.seconds, 4),
        "orders_per_second": round(len(everything) / report.run.seconds, 1),
        "all": described(everything),
        "outcomes": {
            name: {**described(report.run.latencies.get(name, [])), "expected": report.expected[name]}
            for name in _names(report)
        },
        "stored": dict(report.stored),
        "open": report.open,
        **({} if report.killed is None else {"killed": report.killed}),
        "job_id": report.job.job_id,
        "sql": report.sql,
    }
