"""Dropping the coroutines of a strand: at once and here, not where and when the garbage collector runs.

A coroutine that is dropped gets `GeneratorExit` where it waits. It may await in `finally`, ask for operations (which never
complete, and are no commands), raise anything, or go on as if nothing had happened. What does not end after a few tries
is kept for ever, so that it never runs anywhere else.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import Any, Final

from hotmesh.foreign_errors import words_of
from hotmesh.replay.loop import Loop

TRIES: Final = 3

UNENDING: Final[list[Any]] = []
"""Coroutines and generators of this process that could not be closed."""


def close(loop: Loop) -> None:
    """Close what has not ended, youngest first, as code of this loop; then break the cycles."""
    pending = [task for task in loop.tasks if not task.done()]
    if pending or loop.generators:
        entered = loop.enter()
        try:
            while pending:
                task = pending.pop()
                coroutine: Any = task.get_coro()
                if not _closed(coroutine, task.context):
                    _keep(coroutine)
            for generator in reversed(loop.generators):
                if not _ends(lambda: _throw(generator)):  # noqa: B023 - called at once
                    _keep(generator)
            for task in loop.tasks:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                if not task.done():
                    coroutine = task.get_coro()
                    if getattr(coroutine, "cr_frame", None) is not None and not _started(coroutine):
                        coroutine.close()  # made while the others were closed
                    task.shields = 0
                    task.cancel()
        finally:
            loop.leave(entered)
    loop.ready.clear()
    loop.tasks.clear()
    loop.generators = ()


def _keep(unending: Any) -> None:
    """Keep it beyond the end of the interpreter, too, which else would close it, and never end."""
    UNENDING.append(unending)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(unending))


def _closed(coroutine: Any, context: Context) -> bool:
    """Close the innermost coroutine first: one that is closed by another and does not end would be left to the collector."""
    for _ in range(TRIES):
        for one in reversed(_chain(coroutine)):
            with suppress(BaseException):  # theirs, of any kind; or it goes on waiting, which is seen below
                context.run(one.close)
            if _frame(one) is not None:
                break
        if _frame(coroutine) is None:
            return True
    return False


def _chain(outermost: Any) -> list[Any]:
    """It, what it awaits, what that awaits …: as far as these are coroutines."""
    chain = []
    one = outermost
    while hasattr(one, "close") and (hasattr(one, "cr_frame") or hasattr(one, "gi_frame")):
        chain.append(one)
        one = getattr(one, "cr_await", None) or getattr(one, "gi_yieldfrom", None)
    return chain


def _frame(coroutine: Any) -> Any:
    return getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)


def _ends(end: Callable[[], Any]) -> bool:
    """Whether it ends, in so many tries. Whatever it raises, it has ended, unless it goes on waiting."""
    for _ in range(TRIES):
        try:
            end()
        except RuntimeError as error:
            if "ignored GeneratorExit" not in words_of(error):
                return True
        except BaseException:  # noqa: BLE001 - theirs, of any kind
            return True
        else:
            return True
    return False


def _throw(generator: Any) -> None:
    """Close an asynchronous generator that waits for nothing any more."""
    try:
        generator.aclose().send(None)
    except StopIteration:
        return
    msg = "ignored GeneratorExit"
    raise RuntimeError(msg)


def _started(coroutine: Any) -> bool:
    return inspect.getcoroutinestate(coroutine) != inspect.CORO_CREATED
