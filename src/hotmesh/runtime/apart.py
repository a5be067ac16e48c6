"""Runs code of users apart from ours: each call in a task and a copied context of its own, and its outcome is a value.

Whatever such code raises, cancels or leaves behind in its task is the outcome of that call: none of our tasks ever runs a line of
it, so none can be cancelled or ended by it. What it sets in its context (tenants, spans) is gone with the task.

    runs ── it returns or raises ──────────────────────────────────────► over
    runs ── `cut_off`: one cancel ──► cleans up ── it returns or raises ► over
                                      cleans up ── `cleaning_up` passed ► left: it is on its own, and nobody waits for it

What is left may end later, or never. It is among the tasks of the event loop only until it begins, so that the end of a program
(`asyncio.run`), which cancels all of them and waits for each, neither disturbs nor waits for it: its owner does, who is one of them.
"""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import logging
import traceback
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from functools import partial
from types import FrameType
from typing import Any, Final

import anyio

from hotmesh.interrupts import is_interrupt
from hotmesh.runtime.threads import Abandoned, ThreadCall, Threads
from hotmesh.runtime.tracebacks import is_users, stack_text

logger = logging.getLogger("hotmesh")

AsyncFunction = Callable[..., Awaitable[Any]]

UNSET: Final = object()
"""It has returned nothing (yet)."""


class Apart:
    """One call of users' code. `value` or `error` is its outcome as soon as it is `over` or `left`."""

    __slots__ = (
        "_cleaning_up",
        "_patience",
        "_task",
        "_waiting",
        "cut",
        "error",
        "interrupted",
        "left",
        "over",
        "thread",
        "value",
    )

    def __init__(self, cleaning_up: float) -> None:
        """`cleaning_up`: seconds that it may take, once it was cancelled, for what it does in `finally`; then it is left."""
        self._cleaning_up = cleaning_up
        self.value: Any = UNSET
        self.error: BaseException | None = None
        self.cut = False
        """It was cancelled by us; what it raises after that says nothing."""
        self.left = False
        self.over = False
        """Its code has returned or raised."""
        self.interrupted = False
        """The program was, by Ctrl-C, in the middle of it."""
        self.thread: ThreadCall | None = None
        """What goes on in a thread, although the task is over."""
        self._task: asyncio.Task[None] | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._waiting: list[asyncio.Future[None]] = []

    # -- what its owner does ------------------------------------------------------------------------------

    def start(self, name: str, owners: Context, function: AsyncFunction, *arguments: Any) -> None:
        """Call a coroutine function in a copy of the owner's context, in which `on_end` and `on_left` are called."""
        # Not by `create_task`: a task factory of the users' might run it at once, or in a context of its own.
        loop = asyncio.get_running_loop()
        performance = self._perform(owners, function, arguments)
        task = asyncio.Task(performance, loop=loop, name=name, context=owners.copy())
        self._task = task
        task.add_done_callback(self._ended, context=owners)

    def cut_off(self) -> None:
        """Cancel it, once; it may clean up for a while."""
        task = self._task
        if task is None or self.cut or self.over:
            return
        self.cut = True
        task.cancel()
        self._patience = asyncio.get_running_loop().call_later(self._cleaning_up, self.leave)

    async def wait(self) -> None:
        """Wait until it is over or left. If whoever waits is cancelled, it is cut off, and may clean up before that goes on."""
        try:
            await self._until_over()
        except asyncio.CancelledError:
            self.cut_off()
            with anyio.CancelScope(shield=True):
                await self._until_over()
            raise

    def leave(self) -> None:
        """It was cut off, and there is no time for it to clean up: nobody waits for it from here on."""
        task = self._task
        if task is None or self.left or self.over:
            return
        self.left = True
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        _keep(task)
        self._tell_waiting()
        self.on_left()

    @property
    def goes_on(self) -> bool:
        """Whether something of it still runs, here or in a thread."""
        return (self._task is not None and not self.over) or (
            self.thread is not None and not self.thread.ended
        )

    def stack(self) -> str:
        """Where it stands, as text."""
        if self.thread is not None and not self.thread.ended:
            return self.thread.stack()
        return "" if self._task is None else _stack_of(self._task)

    # -- what its owner may want to know --------------------------------------------------------------------

    def on_end(self) -> None:
        """It is over; also some time after it was left."""

    def on_left(self) -> None:
        """It did not end in time after it was cut off."""

    # -- inside ---------------------------------------------------------------------------------------------

    async def _perform(self, owners: Context, function: AsyncFunction, arguments: tuple[Any, ...]) -> None:
        # Whoever cancels all tasks there are shall not meet it, nor wait for it: one that swallows that would never let go.
        asyncio.tasks._unregister_task(self._task)  # type: ignore[arg-type]
        try:
            self.value = await function(*arguments)
        except BaseException as error:
            self.error = error
            if isinstance(error, Abandoned):
                self.thread = error.call
            elif is_interrupt(error):
                self.interrupted = True
                owners.run(self._end)
                raise
            elif isinstance(error, asyncio.CancelledError):
                # Maybe all tasks of the program are: whoever watches over this one has heard of that a turn later.
                return
        if self.error is None and self._task is not None:
            # Nothing is left to be heard from the task, so that its end costs no turn of the event loop.
            self._task.remove_done_callback(self._ended)
        # Here, and not once the task is done: that would be a turn of the event loop later, and the answer miss the commit that
        # those of its neighbours go into. Nothing is awaited any more, so that whatever was done to the task has no effect.
        owners.run(self._end)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # looked at: an interrupt has reached the program by itself
        if not self.over:
            if self.error is None:
                # Cancelled before its first step, by somebody who cancels whatever there is.
                self.error = asyncio.CancelledError()
            self._end()

    def _end(self) -> None:
        self.over = True
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if self.left and self._task is not None:
            _let_go(self._task)
        self._tell_waiting()
        self.on_end()

    async def _until_over(self) -> None:
        if self._task is None or self.left or self.over:
            return
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(over)
        await over

    def _tell_waiting(self) -> None:
        while self._waiting:
            over = self._waiting.pop()
            if not over.done():
                over.set_result(None)


class _Left(Apart):
    """A call that says so when it is left."""

    __slots__ = ("what",)

    def __init__(self, what: str, cleaning_up: float) -> None:
        super().__init__(cleaning_up)
        self.what = what

    def on_left(self) -> None:
        log_left(self.what, self)

    def on_end(self) -> None:
        if self.goes_on:
            log_left(self.what, self)  # its thread, that is


def _keep(task: asyncio.Task[None]) -> None:
    """Never throw a task away, not even with the interpreter.

    Whatever is thrown away in the middle is asked to end once more, by GeneratorExit; code that swallows everything would never do so,
    and keep the process alive. So there is a reference that nobody holds.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(task))


def _let_go(task: asyncio.Task[None]) -> None:
    """It has ended after all."""
    ctypes.pythonapi.Py_DecRef(ctypes.py_object(task))


async def call_apart(
    function: Callable[..., Any],
    *arguments: Any,
    what: str,
    cleaning_up: float,
    threads: Threads | None = None,
) -> BaseException | None:
    """Call users' code, and wait for it; what it raised, if it did. `threads`: call it in one of these.

    Cancelled, it cancels the call, and gives it `cleaning_up` seconds to end; what does not is logged as `what`.
    """
    call = _Left(what, cleaning_up)
    call.start(what, copy_context(), partial(called, threads=threads), function, *arguments)
    await call.wait()
    return call.error


async def called(function: Callable[..., Any], *arguments: Any, threads: Threads | None = None) -> Any:
    """What the function returns, or what it returns gives when awaited."""
    result = function(*arguments) if threads is None else await threads.run(function, *arguments)
    return await result if inspect.isawaitable(result) else result


def log_left(what: str, call: Apart, **facts: Any) -> None:
    """Say that a call does not end, and where it stands."""
    stack = call.stack()
    logger.error(
        "%s does not end, although it was cancelled; nobody waits for it any more, and it stands at %s",
        what,
        f"\n{stack}" if stack else "a place that cannot be seen",
        extra={**facts, "stack": stack},
    )


def _stack_of(task: asyncio.Task[Any]) -> str:
    """The frames of a task that waits, through all that it awaits; without ours."""
    lines: list[tuple[FrameType, int]] = []
    waits: Any = task.get_coro()
    while waits is not None:
        frame = (
            getattr(waits, "cr_frame", None)
            or getattr(waits, "gi_frame", None)
            or getattr(waits, "ag_frame", None)
        )
        if frame is not None and is_users(frame.f_code.co_filename):
            lines.append((frame, frame.f_lineno))
        waits = (
            getattr(waits, "cr_await", None)
            or getattr(waits, "gi_yieldfrom", None)
            or getattr(waits, "ag_await", None)
        )
    return stack_text(traceback.StackSummary.extract(iter(lines)))
