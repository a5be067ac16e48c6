"""Long histories, replayed in pieces: a workflow with 50,000 operations behind it holds nothing else up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from hotmesh.core.state.job import Job

AT_ONCE: Final = 1_000
"""Recorded outcomes that are delivered before other things have a turn."""


def is_long(job: Job) -> bool:
    """Whether its history was read, and is not replayed at once."""
    return job.history is not None and len(job.history.recorded) > AT_ONCE


async def in_pieces(replay: Callable[[int], bool], counts: Callable[[], bool]) -> bool:
    """Call `replay` until nothing is left, or until it does not count any more. False: it was cut off, as something blocks.

    Nothing is decided by it: what does not fit, or blocks, comes to light in the turn, which is watched, too.
    """
    while counts():
        try:
            if not replay(AT_ONCE):
                return True
        except Exception:  # noqa: BLE001 - what a guard makes of it
            return False
        await asyncio.sleep(0)
    return True


def unwatched(_: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """In the place of a guard, where there is none."""
    return function(*arguments)
