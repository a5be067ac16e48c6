"""Watches over the event loop from a thread: code that blocks it holds up all work of the process, and must not do so in silence.

Callbacks, `async` steps and activities run on the loop, and so does everything of ours. One that blocks (`time.sleep`, a driver that
is not async, a computation) holds up heartbeats and leases, too: what this process has may be given to others meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import traceback
from collections.abc import Iterator
from contextvars import copy_context
from dataclasses import dataclass
from sys import _current_frames
from types import FrameType
from typing import Final
from weakref import WeakKeyDictionary

import anyio

from hotmesh.runtime.tracebacks import stack_text

logger = logging.getLogger("hotmesh")


@dataclass(frozen=True, slots=True)
class LoopLimits:
    """What counts as standing still."""

    tick: float = 0.5
    """Seconds between two looks. Only these count: a process that is suspended says nothing."""
    long: float = 3.0
    """Seconds after which it is told."""


_WATCHED: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, anyio.Event]] = WeakKeyDictionary()
"""Loops that have a watch, and its end: however many instances a loop has, one is enough."""

_DEBUGGERS: Final = frozenset(
    {"bdb", "pdb", "pydevd", "debugpy", "_pydevd_bundle", "_pydevd_sys_monitoring", "ipdb"}
)


class LoopWatch:
    """The watch of one event loop, by whichever member of it came first."""

    def __init__(self, limits: LoopLimits) -> None:
        self._limits = limits
        self._beats = 0
        self._thread_id = 0
        self._told_at: float | None = None
        self._end = threading.Event()

    async def run(self) -> None:
        """Watch the running loop, as soon as nobody else does, until this is cancelled."""
        loop = asyncio.get_running_loop()
        while (other := _WATCHED.get(loop)) is not None:
            await other.wait()
        end = _WATCHED[loop] = anyio.Event()
        self._thread_id = threading.get_ident()
        thread = threading.Thread(
            target=copy_context().run, args=(self._watch,), name="hotmesh event loop", daemon=True
        )
        thread.start()
        try:
            while True:
                await anyio.sleep(self._limits.tick)
                self._beats += 1
                if self._told_at is not None:
                    took, self._told_at = time.monotonic() - self._told_at + self._limits.long, None
                    logger.warning(
                        "the event loop goes on, after %s s", f"{took:.1f}", extra={"event": "loop-free"}
                    )
        finally:
            self._end.set()
            del _WATCHED[loop]
            end.set()

    def _watch(self) -> None:
        """In the thread."""
        last, still = -1, 0
        most = max(2, round(self._limits.long / self._limits.tick))
        while not self._end.wait(self._limits.tick):
            if self._beats != last:
                last, still = self._beats, 0
                continue
            still += 1
            if still == most:
                self._tell()

    def _tell(self) -> None:
        frame = _current_frames().get(self._thread_id)
        if frame is None or is_debugged(frame) or _in_step(frame):
            return
        self._told_at = time.monotonic()
        logger.warning(
            "the event loop has stood still for %s s, and with it all work of this process: code that blocks belongs in a "
            "thread (a plain function instead of an async one, or asyncio.to_thread). It stands at %s",
            f"{self._limits.long:g}",
            f"\n{stack_text(traceback.extract_stack(frame))}",
            extra={"event": "loop-blocked"},
        )


def is_debugged(frame: FrameType) -> bool:
    """Whether somebody stands here with a debugger: what takes long then is theirs."""
    return any(name.partition(".")[0] in _DEBUGGERS for name in _modules(frame))


def _in_step(frame: FrameType) -> bool:
    """Whether that is a step of an engine, which has a watch of its own."""
    return "hotmesh.runtime.engine.step_watch" in _modules(frame)


def _modules(frame: FrameType | None) -> Iterator[str]:
    """Those whose code stands here, the innermost first."""
    while frame is not None:
        yield str(frame.f_globals.get("__name__"))
        frame = frame.f_back
