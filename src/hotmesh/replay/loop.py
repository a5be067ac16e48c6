"""The loop of a strand as asyncio sees it: what is ready runs, first in, first out, until nothing is; no clock, no selector."""

from __future__ import annotations

import asyncio
import sys
from asyncio import events
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextvars import Context, copy_context
from datetime import datetime
from typing import Any, Final

from hotmesh.replay import patching
from hotmesh.replay.refusals import Refusing
from hotmesh.replay.tasks import Future, Task

Tell = Callable[[str, BaseException | None], None]
"""Hears what the author of a workflow should see in a log, and the exception if there is one."""

_PER_THREAD: Final = sys.version_info >= (3, 14)
"""Newer Pythons keep one current task per thread; before, it was one per loop."""


class TurnBlocked(BaseException):
    """Set by a guard in a thread whose turn does not end. Nothing of that turn counts, whatever the code made of it."""


class Loop(Refusing):  # type: ignore[misc]
    """An event loop that runs until every task waits."""

    is_strand: Final = True

    def __init__(self, salt: int, started_at: datetime, tell: Tell | None) -> None:
        self.salt: Final = salt
        self.started_at: Final = started_at
        self.closed = False
        self.halted = False
        """The code does not fit the history: nothing runs any more."""
        self.tasks: list[Task[Any]] = []
        self.generators: tuple[AsyncGenerator[Any, Any], ...] = ()
        """Given up half-way by the code: when they would be closed is the garbage collector's choice, so they never are."""
        self.notices: tuple[tuple[str, BaseException | None], ...] = ()
        """What nobody was told: without `tell`."""
        self.ready: deque[Any] = deque()
        self._now = started_at
        self._number = salt
        self._prune_at = 64
        self._tell = tell
        self._blocked: TurnBlocked | None = None

    def run(self, until: Task[Any] | None) -> None:
        """Run what is ready until nothing is, or the task is done. Raises nothing of the users', but `TurnBlocked`."""
        ready = self.ready
        while ready and not self.halted:
            handle = ready.popleft()
            if handle._cancelled:
                continue
            try:
                handle._context.run(handle._callback, *handle._args)
            except BaseException as error:  # noqa: BLE001 - of a callback; or SystemExit, which tasks hold and raise
                self.blocked_by(error)
                if until is None or not until.done() or until.cancelled() or until.exception() is not error:
                    self.tell("a callback or task of a workflow raised", error)
            if until is not None and until.done():
                return

    def blocked_by(self, error: BaseException) -> None:
        """Raise it if it is a guard's; else it is the users' affair."""
        if isinstance(error, TurnBlocked):
            self._blocked = error
            raise error

    def enter(self) -> Any:
        """Become the running loop of this thread, inside whatever loop is running; `leave` takes what this returns."""
        outer = events._get_running_loop()
        current = None
        if _PER_THREAD and outer is not None:
            current = asyncio.tasks._swap_current_task(outer, None)  # type: ignore[attr-defined]
        events._set_running_loop(self)
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=None, finalizer=self._abandon)
        return outer, current, hooks

    def leave(self, entered: Any) -> None:
        """Give the thread back."""
        outer, current, hooks = entered
        sys.set_asyncgen_hooks(*hooks)
        events._set_running_loop(outer)
        if _PER_THREAD and outer is not None:
            asyncio.tasks._swap_current_task(outer, current)  # type: ignore[attr-defined]

    def _abandon(self, generator: AsyncGenerator[Any, Any]) -> None:
        if not self.closed:
            self.generators = (*self.generators, generator)

    def number(self) -> int:
        """The next number of a task or future."""
        self._number += 1
        return self._number

    def tell(self, words: str, error: BaseException | None = None) -> None:
        """Hand on something for the log; never raises."""
        if self._tell is None:
            self.notices = (*self.notices, (words, error))
            return
        try:
            self._tell(words, error)
        except BaseException:  # noqa: BLE001 - a log that fails ends no workflow
            self.notices = (*self.notices, (words, error))

    def task_of(self, coro: Any, name: str | None, context: Context) -> Task[Any]:
        """A task that is kept until it is done."""
        task = Task(coro, self, name, context)
        if len(self.tasks) >= self._prune_at:
            self.tasks = [one for one in self.tasks if not one.done()]
            self._prune_at = max(64, 2 * len(self.tasks))
        self.tasks.append(task)
        return task

    # What asyncio calls

    def time(self) -> float:
        """Seconds since the strand began."""
        return (self._now - self.started_at).total_seconds()

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return events._get_running_loop() is self

    def is_closed(self) -> bool:
        return self.closed

    def create_future(self) -> Future[Any]:
        return Future(self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Context | None = None, **_: Any
    ) -> Task[Any]:
        patching.refuse_unordered(sys._getframe(1))
        if isinstance(coro, Future):  # an operation: it looks like a coroutine to who calls an `async` step
            coro = _awaited(coro)
        return self.task_of(coro, name, context or copy_context())

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = events.Handle(callback, args, self, context)
        self.ready.append(handle)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Context | None = None) -> Any:
        raise NotImplementedError

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> Any:
        return self.call_later(when - self.time(), callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Its `cancel` has seen to it."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.tell(str(context.get("message")), context.get("exception"))


async def _awaited(future: Future[Any]) -> Any:
    return await future
