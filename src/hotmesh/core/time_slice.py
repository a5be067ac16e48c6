"""The slices of time in which statistics count jobs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

SLICE_MINUTES: Final[Mapping[str, int]] = {"5m": 5, "10m": 10, "15m": 15, "30m": 30, "1h": 60}
"""Minutes of a slice by granularity; `infinity` does not slice."""


def time_slice(moment: datetime, granularity: str) -> str:
    """The statistics slice a moment belongs to, `YYYYMMDDHHMM`; `0` where time is not sliced."""
    width = SLICE_MINUTES.get(granularity)
    if width is None:
        return "0"
    minute = moment.minute // width * width
    return f"{moment.year:04d}{moment.month:02d}{moment.day:02d}{moment.hour:02d}{minute:02d}"
