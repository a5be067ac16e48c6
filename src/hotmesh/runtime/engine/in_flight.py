"""What an engine has in memory and has not settled; at none, it can be stopped without leaving anything unsaid."""

from __future__ import annotations

from hotmesh.runtime.service import Flag


class InFlight:
    """Counts what has begun and not ended: starts whose caller waits, jobs with events, commits on their way."""

    __slots__ = ("_count", "_none")

    def __init__(self) -> None:
        self._count = 0
        self._none = Flag()

    def begin(self) -> None:
        self._count += 1

    def end(self) -> None:
        self._count -= 1
        if not self._count:
            self._none.set()

    async def none(self) -> None:
        """Wait until nothing is in flight."""
        while self._count:
            self._none.clear()
            await self._none.wait()
