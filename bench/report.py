"""The figures of a run as JSON and as Markdown, and where they are kept."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from contender import Contender
    from measure import Measurement
    from scenarios import Scenario


RESULTS = Path(__file__).resolve().parent / "results"


def now() -> str:
    return dt.datetime.now(tz=dt.UTC).isoformat(timespec="seconds")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def write_results(name: str, markdown: str, data: Mapping[str, Any]) -> None:
    """Keep the figures of today under this name."""
    day = now()[:10]
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / f"{day}-{name}"
    stem.with_suffix(".json").write_text(json.dumps(data, indent=2) + "\n")
    stem.with_suffix(".md").write_text(f"# {name}, {day}\n\n{markdown}")
    say(f"written to {stem}.json and .md")


@dataclass(frozen=True, slots=True)
class Ratio:
    """The subject's median over that of the contender it is held against."""

    scenario: str
    subject: str
    against: str
    flows_per_second: float
    p50: float


class Figures:
    """All rounds of all contenders of one scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.rounds: dict[Contender, list[Measurement]] = {contender: [] for contender in scenario.contenders}

    def add(self, contender: Contender, measurement: Measurement) -> None:
        self.rounds[contender].append(measurement)

    def ratios(self) -> list[Ratio]:
        """The subject against each of the others; of two ways to drive the same, the better one."""
        subject, *others = self.scenario.contenders
        ways: dict[str, list[Contender]] = {}
        for other in others:
            ways.setdefault(other.product, []).append(other)
        return [self._ratio(subject, found) for found in ways.values()]

    def _ratio(self, subject: Contender, others: Sequence[Contender]) -> Ratio:
        """To the best of them: the fastest, or when alone the quickest."""
        if self.scenario.one_at_a_time:
            best = min(others, key=lambda other: self._median(other, "p50_ms"))
        else:
            best = max(others, key=lambda other: self._median(other, "flows_per_second"))
        return Ratio(
            scenario=self.scenario.name,
            subject=subject.label,
            against=best.label,
            flows_per_second=self._median(subject, "flows_per_second")
            / self._median(best, "flows_per_second"),
            p50=self._median(subject, "p50_ms") / self._median(best, "p50_ms"),
        )

    def as_json(self) -> dict[str, Any]:
        ratios = [dataclasses.asdict(ratio) for ratio in self.ratios()]
        return {
            "name": self.scenario.name,
            "title": self.scenario.title,
            "concurrency": self.scenario.concurrency,
            "ratios": ratios,
            "contenders": [
                {"label": contender.label, "rounds": [dataclasses.asdict(measured) for measured in rounds]}
                for contender, rounds in self.rounds.items()
            ],
        }

    def _median(self, contender: Contender, figure: str) -> float:
        return median(getattr(measured, figure) for measured in self.rounds[contender])


def machine() -> dict[str, str]:
    return {
        "CPU": _cpu_model(),
        "cores": str(psutil.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "load before the run": f"{os.getloadavg()[0]:.2f}",
    }


def markdown_of_figures(all_figures: Sequence[Figures]) -> str:
    rows = [
        [
            figures.scenario.title if place == 0 else "",
            contender.label,
            _spread(rounds, lambda measured: measured.flows_per_second, "{:,.0f}"),
            _spread(rounds, lambda measured: measured.p50_ms, "{:,.1f}"),
            _spread(rounds, lambda measured: measured.p99_ms, "{:,.1f}"),
            f"{median(measured.commits_per_flow for measured in rounds):.2f}",
            f"{median(measured.writes_per_flow for measured in rounds):.2f}",
            _cpu(rounds),
        ]
        for figures in all_figures
        for place, (contender, rounds) in enumerate(figures.rounds.items())
    ]
    heads = [
        "",
        "",
        "flows/s",
        "p50 ms",
        "p99 ms",
        "commits per flow",
        "of them writing",
        "CPU ms per flow: application + Postgres",
    ]
    parts = [table(heads, rows)]
    if ratios := [ratio for figures in all_figures for ratio in figures.ratios()]:
        rows = [
            [
                ratio.scenario,
                ratio.subject,
                ratio.against,
                f"{ratio.flows_per_second:.2f}",
                f"{ratio.p50:.3f}",
            ]
            for ratio in ratios
        ]
        parts.append(table(["ratio", "of", "to", "flows/s", "p50"], rows))
    return "\n".join(parts)


def markdown_of_pairs(head: str, pairs: Mapping[str, str]) -> str:
    return table([head, ""], [[name, value] for name, value in pairs.items()])


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [heads, ["-" * width for width in widths], *rows]
    ]
    return "\n".join(lines) + "\n"


def _spread(rounds: Sequence[Measurement], figure: Callable[[Measurement], float], form: str) -> str:
    values = [figure(measured) for measured in rounds]
    middle = form.format(median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({form.format(min(values))}–{form.format(max(values))})"


def _cpu(rounds: Sequence[Measurement]) -> str:
    application = f"{median(measured.application_cpu_ms for measured in rounds):.2f}"
    server = [measured.postgres_cpu_ms for measured in rounds if measured.postgres_cpu_ms is not None]
    return f"{application} + {median(server):.2f}" if server else application


def _cpu_model() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
