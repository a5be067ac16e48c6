"""Threads for plain functions of users: daemons, so that one which never returns keeps no process alive.

There are never more than `most`, those included that run a function which nobody waits for any more: a place is free when
its function has returned, and not before. Threads are started when they are needed, and kept for the next function.

Inside of them `anyio.from_thread` works as in the threads of anyio: `run`, `run_sync`, and `check_cancelled`, by which a
long function can learn that it was cut off.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from queue import SimpleQueue
from typing import Any

import anyio

from hotmesh.runtime.anyio_threads import belonging_to, cut_off_with
from hotmesh.runtime.tracebacks import stack_text


class ThreadCall:
    """One function in a thread. All but `perform` belongs to the event loop."""

    __slots__ = (
        "_arguments",
        "_context",
        "_function",
        "ended",
        "error",
        "on_end",
        "scope",
        "thread",
        "value",
        "waiter",
    )

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], context: Context) -> None:
        self._function = function
        self._arguments = arguments
        self._context = context
        self.scope = anyio.CancelScope()
        """What `anyio.from_thread.check_cancelled` looks at; nobody is ever inside."""
        self.waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.thread: threading.Thread | None = None
        self.value: Any = None
        self.error: BaseException | None = None
        self.ended = False
        self.on_end: Callable[[], None] | None = None
        """Called when the function has returned after all."""

    def perform(self) -> None:
        """In the thread: call the function."""
        with cut_off_with(self.scope):
            try:
                self.value = self._context.run(self._function, *self._arguments)
            except BaseException as error:  # noqa: BLE001 - the users' code may raise anything
                self.error = error

    def stack(self) -> str:
        """Where the thread stands, as text."""
        ident = None if self.thread is None else self.thread.ident
        frame = None if ident is None else sys._current_frames().get(ident)
        return "" if frame is None else stack_text(traceback.extract_stack(frame))


class Abandoned(asyncio.CancelledError):
    """Whoever waited for a function was cancelled; the function goes on in its thread."""

    def __init__(self, call: ThreadCall) -> None:
        super().__init__()
        self.call = call


class Threads:
    """Threads of one kind, on one event loop."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._idle: list[_Thread] = []
        self._count = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed = False

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function returns or raises. Raises Abandoned if this is cancelled while the function runs."""
        thread = await self._take()
        call = ThreadCall(function, arguments, copy_context())
        thread.run(call)
        try:
            await call.waiter
        except asyncio.CancelledError:
            call.scope.cancel()
            if call.ended:
                raise
            raise Abandoned(call) from None
        if call.error is not None:
            raise call.error
        return call.value

    async def _take(self) -> _Thread:
        while True:
            await self._turn()
            if self._idle:
                return self._idle.pop()
            self._count += 1
            try:
                return _Thread(self, self._name)
            except BaseException as error:
                self._count -= 1
                if not isinstance(error, RuntimeError) or not self._count:
                    raise
                # The system has no room for a further thread, which is nobody's fault here: there will be one of ours.
                await self._one_free()

    async def _turn(self) -> None:
        while not self._idle and self._count >= self._most:
            await self._one_free()

    async def _one_free(self) -> None:
        free: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(free)
        try:
            await free
        except asyncio.CancelledError:
            if free.done() and not free.cancelled():
                self._wake()  # it was this one's turn
            raise

    def returned(self, thread: _Thread, call: ThreadCall) -> None:
        """The thread has nothing to do any more."""
        call.ended = True
        if self._closed:
            thread.end()
            self._count -= 1
        else:
            self._idle.append(thread)
        self._wake()
        if not call.waiter.done():
            call.waiter.set_result(None)
        if call.on_end is not None:
            call.on_end()

    def _wake(self) -> None:
        while self._waiting:
            free = self._waiting.popleft()
            if not free.done():
                free.set_result(None)
                return

    def close(self) -> None:
        """End the threads: those that are idle at once, the others when their function has returned."""
        self._closed = True
        self._count -= len(self._idle)
        while self._idle:
            self._idle.pop().end()


class _Thread:
    """One thread, which runs function after function."""

    def __init__(self, owner: Threads, name: str) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._calls: SimpleQueue[ThreadCall | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def run(self, call: ThreadCall) -> None:
        call.thread = self._thread
        self._calls.put(call)

    def end(self) -> None:
        self._calls.put(None)

    def _serve(self) -> None:
        with belonging_to(self._loop):
            while (call := self._calls.get()) is not None:
                call.perform()
                try:
                    self._loop.call_soon_threadsafe(self._owner.returned, self, call)
                except RuntimeError:
                    return  # the event loop is closed: there is nobody to return to
                del call
