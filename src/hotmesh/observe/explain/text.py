"""The words of explanations: spans of time, counts and addresses."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from hotmesh.core.state.job import Dimension


def ago(span: timedelta) -> str:
    """`12 s ago`."""
    return f"{length(span)} ago"


def length(span: timedelta) -> str:
    """`250 ms`, `12 s`, `3 min`, `2.5 h`, `4 days`."""
    seconds = max(span.total_seconds(), 0.0)
    for limit, size, unit in ((1, 0.001, "ms"), (120, 1, "s"), (7_200, 60, "min"), (172_800, 3_600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def times(count: int) -> str:
    """`once`, `3 times`."""
    return "once" if count == 1 else f"{count} times"


def listed(names: Collection[str]) -> str:
    """`a4, b4`, or `none`."""
    return ", ".join(names) if names else "none"


def address(dimension: Dimension) -> str:
    """`0/0/1`."""
    return "/".join(map(str, dimension))


def plural(count: int, noun: str, many: str | None = None) -> str:
    """`1 obligation`, `2,000 obligations`; `many`: the noun where it takes more than an s."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def shortened(text: str) -> str:
    """One line of at most 200 characters."""
    line = " ".join(text.split())
    return line if len(line) <= MOST_OF_A_LINE else f"{line[: MOST_OF_A_LINE - 1]}…"


MOST_OF_A_LINE = 200
