"""How jobs look in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich import box
from rich.bar import Bar
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from hotmesh.observe.activities import ActivitySummary
from hotmesh.observe.jobs import JobSummary

COLOURS = {
    "running": "yellow",
    "pending": "yellow",
    "complete": "green",
    "failed": "red",
    "interrupted": "magenta",
}


def headline(job: JobSummary) -> Text:
    """One line about a job."""
    text = Text.assemble((job.job_id, "bold"), "  ", (job.state, COLOURS[job.state]))
    if job.ended_at is not None:
        text.append(f" after {duration((job.ended_at - job.created_at).total_seconds())}")
    return text.append(f", {job.seq} {'step' if job.seq == 1 else 'steps'}", "dim")


def timeline(job: JobSummary, activities: Sequence[ActivitySummary], now: datetime) -> Table:
    """The activities of a job as bars over time; one that is still open reaches to `now`."""
    end = max([job.ended_at or now, *(activity.ended_at or now for activity in activities)])
    whole = max((end - job.created_at).total_seconds(), 1e-6)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    tried = any(activity.failures for activity in activities)
    columns: tuple[tuple[str, JustifyMethod], ...] = (
        ("activity", "left"),
        ("type", "left"),
        ("at", "right"),
        ("took", "right"),
        ("code", "right"),
        ("tries", "right"),
    )
    for name, justify in columns if tried else columns[:-1]:
        table.add_column(name, justify=justify, no_wrap=True)
    table.add_column("", ratio=1, min_width=20)
    for activity in activities:
        begun = max(((activity.started_at or job.created_at) - job.created_at).total_seconds(), 0.0)
        ended = max(((activity.ended_at or now) - job.created_at).total_seconds(), begun)
        table.add_row(
            _name(activity, activities),
            Text(activity.type, "dim"),
            duration(begun),
            "open" if activity.ended_at is None else duration(ended - begun),
            "" if activity.code is None else str(activity.code),
            *((_tries(activity),) if tried else ()),
            # At least a sliver: what takes no time must be seen, too.
            Bar(whole, begun, max(ended, begun + whole / 100), color=_colour(activity)),
        )
    return table


def duration(seconds: float) -> str:
    """Such as `0.4 ms`, `12 ms`, `3.20 s`, `4 min 10 s`, `2 h 5 min`."""
    if seconds < 0.01:
        return f"{seconds * 1_000:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1_000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _name(activity: ActivitySummary, activities: Sequence[ActivitySummary]) -> str:
    """The activity's id, with its address where there was more than one pass."""
    if sum(other.activity_id == activity.activity_id for other in activities) == 1:
        return activity.activity_id
    return f"{activity.activity_id} {'.'.join(map(str, activity.dimension))}"


def _tries(activity: ActivitySummary) -> str:
    """How often its callback has run, as far as that is known."""
    if activity.type != "worker":
        return ""
    if activity.ended_at is None:
        return f"{activity.failures} failed" if activity.failures else ""
    return str(activity.failures + 1)


def _colour(activity: ActivitySummary) -> str:
    if activity.ended_at is None:
        return "yellow"
    if activity.error is not None:
        return "red"
    return "cyan" if activity.code in (200, None) else "magenta"
