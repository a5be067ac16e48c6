"""Who runs work in this process, so that one of them can have it for itself.

A process dies as a whole: with the work of all its instances and outposts, in whatever thread or event loop each of them lives. So
this is the process's own, and none of theirs. Who asks to be alone closes all of them: they go on with what they have, and start nothing
more. Several who ask take turns. Once nobody asks any more, all are open again.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import anyio

from hotmesh.runtime.work.served import Served

LOOK: Final = 0.01
"""Seconds between two looks whether it is quiet, while somebody waits for it."""


@dataclass(eq=False)
class Resident:
    """The workers of one instance or outpost. `changed`: it is open again; it is called in its own event loop."""

    served: Served
    changed: Callable[[], None]
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    @property
    def over(self) -> bool:
        """Whether nothing of it can run any more."""
        return self.loop.is_closed()


class Company:
    """All residents of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._residents: list[Resident] = []
        self._asking: list[Resident] = []
        """Who asks to be alone; it is the turn of the first."""

    def join(self, resident: Resident) -> None:
        with self._lock:
            self._residents.append(resident)
            resident.served.closed = bool(self._asking)

    def leave(self, resident: Resident) -> None:
        self.end(resident)
        with self._lock:
            if resident in self._residents:
                self._residents.remove(resident)

    def clear(self) -> None:
        """Forget them all: a process that was copied runs nothing of what the other one does."""
        self._lock = threading.Lock()
        self._residents = []
        self._asking = []

    def ask(self, resident: Resident) -> None:
        """Have its turn to be alone, after those who have asked before. `end` ends it."""
        with self._lock:
            if resident not in self._asking:
                self._asking.append(resident)
            for one in self._residents:
                one.served.closed = True

    def end(self, resident: Resident) -> None:
        """It need not be alone any more."""
        with self._lock:
            if resident not in self._asking:
                return
            self._asking.remove(resident)
            if self._asking:
                return
            for one in self._residents:
                one.served.closed = False
                with suppress(RuntimeError):  # its event loop is closed
                    one.loop.call_soon_threadsafe(one.changed)

    async def quiet(self, resident: Resident) -> None:
        """Wait until it is its turn, and nothing runs in this process; or until it stops."""
        looks = 0
        while looks < 2 and not resident.served.stopping:
            # Twice: what another thread was about to start when it was closed runs by now.
            looks = looks + 1 if self._is_quiet(resident) else 0
            await anyio.sleep(LOOK)

    def running(self) -> int:
        """How much runs in this process, or is about to."""
        return sum(one.served.in_flight for one in self._residents if not one.over)

    def _is_quiet(self, resident: Resident) -> bool:
        with self._lock:
            # An event loop that was closed under a resident has ended all that it ran.
            self._residents = [one for one in self._residents if not one.over]
            self._asking = [one for one in self._asking if not one.over]
            return self._asking[:1] == [resident] and not self.running()


COMPANY: Final = Company()
"""That of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=COMPANY.clear)
