"""Those in this process who wait for the result of a durable function, however many for one."""

from __future__ import annotations

import asyncio
from typing import Final

from hotmesh.runtime.results.output import JobOutput
from hotmesh.runtime.results.waiting import Caller, Callers

FOR_EVER: Final = 1e9


class Results:
    """Waits for ends of jobs, by generation."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers
        self._waiting: dict[str, tuple[Caller, int]] = {}

    def expect(self, generation: str, name: str) -> asyncio.Future[JobOutput]:
        """A future of the end; `release` it, whatever comes of it."""
        known = self._waiting.get(generation)
        if known is None:
            caller, count = self._callers.expect(generation, name, FOR_EVER), 0
        else:
            caller, count = known
        self._waiting[generation] = (caller, count + 1)
        return caller.answer

    def exists(self, generation: str, job_id: str) -> None:
        """The job is there: from now on it is read now and then, in case nothing is heard of it."""
        known = self._waiting.get(generation)
        if known is not None and known[0].job_id is None:
            known[0].job_id, known[0].since = job_id, asyncio.get_running_loop().time()

    def release(self, generation: str) -> None:
        """One who waited does so no more."""
        known = self._waiting.get(generation)
        if known is None:
            return
        caller, count = known
        if count > 1:
            self._waiting[generation] = (caller, count - 1)
        else:
            del self._waiting[generation]
            self._callers.forget(generation)
