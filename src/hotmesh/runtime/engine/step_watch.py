"""Watches over steps from a thread: one that takes long is named, is not made longer, and is cut off in the end.

A step is a function that waits for nothing, so while one runs the whole engine stands still. Expressions have limits of their
own (`core/pipe/meter.py`); this is for what those do not count.

A cut comes as an exception between two bytecodes of the step. Who ends the step and who cuts it off agree by a lock: an exception that
was sent and has not arrived by the end of the step is taken back.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import traceback
from collections.abc import Callable
from contextvars import copy_context
from sys import _current_frames
from typing import Final, ParamSpec, TypeVar

from hotmesh.errors import MappingError
from hotmesh.replay.loop import TurnBlocked
from hotmesh.runtime.loop_watch import is_debugged

logger = logging.getLogger("hotmesh.engine")

P = ParamSpec("P")
T = TypeVar("T")

TICK: Final = 0.1
"""Seconds between two looks. Only these count: a process that stands still, or is suspended, cuts nothing off."""


class StepCutOffError(MappingError):
    """A step took so long that it was cut off."""


class _CutError(TurnBlocked):
    """What arrives in the step; nothing that handles errors may handle it."""


class StepWatch:
    """The watch of one engine. `start` starts its thread, and `close` ends it."""

    def __init__(self, long: float, longest: float) -> None:
        self._long = max(1, round(long / TICK))
        self._longest = max(2, round(longest / TICK))
        self._seconds = longest
        self._lock = threading.Lock()
        self._job: str | None = None
        self._thread_id = 0
        self._ticks = 0
        self._sent = False
        self._long_enough = False
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        watch = copy_context().run
        self._thread = threading.Thread(target=watch, args=(self._watch,), name="hotmesh steps", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._end.set()

    def enough(self) -> bool:
        """Whether the step that runs has taken so long that the rest of it is for a later one."""
        return self._long_enough

    def run(self, job_id: str, decide: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """What a program decides about a job. Raises StepCutOffError."""
        self._thread_id = threading.get_ident()
        self._ticks = 0
        self._job = job_id
        try:
            try:
                found = decide(*arguments, **options)
            except BaseException:
                self._over()
                raise
            if self._ticks:
                self._over()
            else:
                # Nobody has looked, so nothing was sent: no lock for what takes microseconds.
                self._job = None
            return found
        except _CutError:
            self._over()
            raise StepCutOffError(
                f"the step took longer than {self._seconds:g} s and was cut off: its expressions take too much work, which a "
                "worker could do"
            ) from None

    def _over(self) -> None:
        with self._lock:
            self._job = None
            self._long_enough = False
            if self._sent:
                self._sent = False
                # Not arrived: nobody must meet it outside of the step.
                _interrupt(self._thread_id, None)

    def _watch(self) -> None:
        while not self._end.wait(TICK):
            if self._job is not None:
                self._look()

    def _look(self) -> None:
        if self._ticks + 1 in (self._long, self._longest):
            frame = _current_frames().get(self._thread_id)
            if frame is not None and is_debugged(frame):
                return
        self._ticks += 1
        job_id = self._job
        if self._ticks == self._long and job_id is not None:
            self._long_enough = True
            frame = _current_frames().get(self._thread_id)
            stack = "".join(traceback.format_stack(frame)[-8:]) if frame is not None else ""
            logger.warning(
                "a step of job %s takes long, and nothing else goes on meanwhile; it stands at %s",
                job_id,
                stack,
                extra={"event": "step-takes-long", "job_id": job_id},
            )
        if self._ticks < self._longest:
            return
        with self._lock:
            if self._job is None or self._sent or self._ticks < self._longest:
                return
            self._sent = True
            _interrupt(self._thread_id, _CutError)
        logger.error(
            "a step of job %s took longer than %s s and was cut off",
            job_id,
            self._seconds,
            extra={"event": "step-cut-off", "job_id": job_id},
        )


def _interrupt(thread_id: int, error: type[BaseException] | None) -> None:
    """Raise an exception in a thread, as soon as it runs Python again; None: take back one that has not arrived."""
    argument = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), argument)
