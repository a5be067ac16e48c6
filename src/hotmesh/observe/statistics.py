"""What is counted about jobs: queries over `stats.measures`, in all and by slice of time."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from hotmesh.core.mapping import ENVIRONMENT, Environment, to_text
from hotmesh.core.plan.compile import GraphPlan, Plan
from hotmesh.core.time_slice import SLICE_MINUTES, time_slice
from hotmesh.core.values import UNDEFINED
from hotmesh.errors import ConfigError, TopicNotFoundError
from hotmesh.postgres.database import Database
from hotmesh.postgres.measures import read_measures

MOST_SLICES: Final = 10_000
"""Slices that one query may span."""

_RANGE = re.compile(r"(\d+)([mhd])\Z")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True)
class ResolvedQuery:
    """A query with its key and its time made plain. `slices` is None where time is not sliced."""

    key: str
    granularity: str
    range: str | None
    start: datetime | None
    end: datetime | None
    sparse: bool
    slices: tuple[datetime, ...] | None

    @property
    def slice_names(self) -> list[str] | None:
        """The slices as they are stored; None: at any time."""
        return None if self.slices is None else [_name(moment, self) for moment in self.slices]

    def as_dict(self) -> dict[str, Any]:
        return {
            "end": _iso(self.end),
            "start": _iso(self.start),
            "range": self.range,
            "granularity": self.granularity,
            "key": self.key,
            "sparse": self.sparse,
        }


def graph_of(plan: Plan, topic: str) -> GraphPlan:
    """The graph that a topic starts. Raises TopicNotFoundError."""
    graph = plan.graphs.get(topic)
    if graph is None:
        raise TopicNotFoundError(topic, plan.app_id, plan.version, plan.graphs)
    return graph


def resolve_query(
    graph: GraphPlan, query: Mapping[str, Any], now: datetime, environment: Environment
) -> ResolvedQuery:
    """Work out key and time of a query `{data, range?, start?, end?, sparse?, granularity?}`.

    Two of start, end and range are wanted, `end: "NOW"` or a date; the start is rounded down to the slice, and both
    ends belong to it. Raises ConfigError.
    """
    statistics = graph.statistics
    granularity = str(query.get("granularity") or statistics.granularity)
    if granularity != "infinity" and granularity not in SLICE_MINUTES:
        raise ConfigError(
            f"Invalid granularity value. {granularity!r} is none of {', '.join(SLICE_MINUTES)}, infinity"
        )
    data = query.get("data") or {}
    view = {"input": {"data": data}, "output": {"data": data}}
    context = {"$self": view, graph.trigger.id: view, ENVIRONMENT: environment}
    value = UNDEFINED if statistics.key is None else statistics.key.evaluate(context)
    key = "" if value in (None, UNDEFINED) else to_text(value)
    sparse = bool(query.get("sparse"))
    if granularity == "infinity":
        return ResolvedQuery(key, granularity, None, None, None, sparse, None)
    start, end = _times(query, now)
    minutes = SLICE_MINUTES[granularity]
    first = start.replace(minute=start.minute // minutes * minutes, second=0, microsecond=0)
    slices = []
    moment = first
    while moment <= end:
        slices.append(moment)
        if len(slices) > MOST_SLICES:
            raise ConfigError(
                f"Invalid range value. It spans more than {MOST_SLICES} slices of {granularity}"
            )
        moment += timedelta(minutes=minutes)
    return ResolvedQuery(key, granularity, query.get("range"), first, end, sparse, tuple(slices))


def _times(query: Mapping[str, Any], now: datetime) -> tuple[datetime, datetime]:
    given = [name for name in ("start", "end", "range") if query.get(name) is not None]
    if len(given) != 2:
        raise ConfigError(
            "Invalid combination of start, end, and range values. Give exactly two of them, not "
            + (", ".join(given) or "none")
        )
    width = _range(query["range"]) if "range" in given else timedelta()
    start = _moment(query["start"], now) if "start" in given else None
    end = _moment(query["end"], now) if "end" in given else None
    try:
        if start is None and end is not None:
            start = end - width
        if end is None and start is not None:
            end = start + width
    except OverflowError:
        raise ConfigError(
            f"Invalid range value. {query['range']!r} leads out of the years 1 to 9999"
        ) from None
    if start is None or end is None:
        raise AssertionError("two of three are given")
    return start, end


def _range(text: Any) -> timedelta:
    found = _RANGE.match(str(text))
    if found is None:
        raise ConfigError(f"Invalid range value. {text!r} is not a number followed by m, h or d")
    try:
        return timedelta(**{_UNITS[found[2]]: int(found[1])})
    except OverflowError:
        raise ConfigError(f"Invalid range value. {text!r} is too long") from None


def _moment(value: Any, now: datetime) -> datetime:
    if isinstance(value, str) and value.upper() == "NOW":
        return now
    try:
        found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError as error:
        raise ConfigError(f"{value!r} is not a date; write NOW or ISO text") from error
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


async def get_stats(database: Database, graph: GraphPlan, query: ResolvedQuery) -> dict[str, Any]:
    """Counts, sums, averages, medians, minima and maxima, in all and by slice."""
    rows = await read_measures(database, graph.topic, query.key, query.slice_names)
    measures, count = _summary(rows)
    found: dict[str, Any] = {
        "key": query.key,
        "granularity": query.granularity,
        "range": query.range,
        "end": _iso(query.end),
        "count": count,
        "measures": measures,
    }
    if not query.sparse and query.slices is not None:
        by_slice: dict[str, list[Any]] = {}
        for row in rows:
            by_slice.setdefault(row["slice"], []).append(row)
        segments = []
        for moment in query.slices:
            inside, here = _summary(by_slice.get(_name(moment, query), []))
            segments.append({"time": _segment(moment), "count": here, "measures": inside})
        found["segments"] = segments
    return found


def _summary(rows: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Measures over some rows, and how many jobs they are about."""
    counted: dict[tuple[str, str], float] = {}
    numbers: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row["measure"] == "count":
            target = (f"{row['facet']}:{row['value']}", "count")
            counted[target] = counted.get(target, 0) + 1
        elif row["measure"] != "index" and row["number"] is not None:
            numbers.setdefault((row["facet"], row["measure"]), []).append(row["number"])
    found = [
        {"target": target, "type": kind, "value": int(value)} for (target, kind), value in counted.items()
    ]
    found += [
        {"target": facet, "type": measure, "value": _AGGREGATES[measure](values)}
        for (facet, measure), values in numbers.items()
    ]
    return found, len({row["generation"] for row in rows})


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


_AGGREGATES: dict[str, Callable[[list[float]], float]] = {
    "sum": sum,
    "avg": lambda values: sum(values) / len(values),
    "mdn": _median,
    "min": min,
    "max": max,
}


async def get_ids(
    database: Database, graph: GraphPlan, query: ResolvedQuery, facets: Sequence[str]
) -> dict[str, Any]:
    """The ids of jobs by facet (`color:red`) and slice; all facets that were indexed, unless some are named."""
    rows = [
        row
        for row in await read_measures(database, graph.topic, query.key, query.slice_names)
        if row["measure"] == "index"
    ]
    listed: dict[tuple[str, str], list[str]] = {}
    counts: dict[str, int] = {}
    for row in rows:
        facet = f"{row['facet']}:{row['value']}"
        if facets and facet not in facets:
            continue
        listed.setdefault((row["slice"], facet), []).append(row["job_id"])
        counts[facet] = counts.get(facet, 0) + 1
    found = {
        "key": query.key,
        "facets": list(facets) or list(counts),
        "granularity": query.granularity,
        "range": query.range,
        "start": _iso(query.start),
        "counts": [
            {"facet": facet, "count": counts.get(facet, 0)} for facet in (list(facets) or list(counts))
        ],
    }
    names = (
        [("0", None)] if query.slices is None else [(_name(moment, query), moment) for moment in query.slices]
    )
    segments = []
    for name, moment in names:
        time = _segment(moment) if moment is not None else "0"
        measures = [
            {"type": "ids", "target": facet, "time": time, "count": len(ids), "ids": ids}
            for (slice_name, facet), ids in listed.items()
            if slice_name == name
        ]
        if measures or not query.sparse:
            segments.append({"time": time, "measures": measures})
    return {**found, "segments": segments}


def _name(moment: datetime, query: ResolvedQuery) -> str:
    return time_slice(moment, query.granularity)


def _segment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%MZ}"


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
