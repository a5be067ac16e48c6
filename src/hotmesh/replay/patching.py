"""What of asyncio would differ between two replays, or between two versions of Python: replaced, on strands only.

`as_completed` puts bare coroutines into a set, ordered by address. `wait_for` makes a task on Python 3.11, and none later.
The future that `gather` returns is hashed by its address. A `TaskGroup` that fails while it is cancelled forgets the cancel before 3.13.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator
from types import CodeType, FrameType
from typing import Any, Final

from hotmesh.durable_errors import NotAllowedInWorkflowError
from hotmesh.replay.tasks import running_strand

_original_as_completed: Final = asyncio.as_completed
_original_exit: Final = asyncio.TaskGroup.__aexit__
_original_wait_for: Final = asyncio.wait_for

_ENSURE: Final = {
    function.__code__
    for name in ("ensure_future", "_ensure_future")
    if (function := getattr(asyncio.tasks, name, None)) is not None
}
_FILE: Final = _original_as_completed.__code__.co_filename


def patch() -> None:
    """Replace them in asyncio, once; outside of workflows they do what they did."""
    if asyncio.as_completed is as_completed:
        return
    modules: tuple[Any, ...] = (asyncio, asyncio.tasks)
    for module in modules:
        module.as_completed = as_completed
        module.wait_for = wait_for
    if sys.version_info < (3, 13):
        group: Any = asyncio.TaskGroup
        group.__aexit__ = _exit_of_group
    gathering: Any = asyncio.tasks._GatheringFuture  # type: ignore[attr-defined]
    gathering.__hash__ = _hash_of_gathering


async def _exit_of_group(group: Any, *raised: Any) -> Any:
    """A group that fails while its task is cancelled from outside: the task is still cancelled, as from Python 3.13 on.

    And the cancel with which the group itself woke its task is taken back, also if a member failed after the block.
    """
    own = group._parent_cancel_requested
    try:
        return await _original_exit(group, *raised)
    except BaseException as error:
        task = asyncio.current_task()
        if running_strand() is not None and task is not None:
            if group._parent_cancel_requested and not own:
                task.uncancel()
            if isinstance(error, BaseExceptionGroup) and task.cancelling():
                task.uncancel()
                task.cancel()
        raise


def _hash_of_gathering(future: Any) -> int:
    loop = future.get_loop()
    if not getattr(loop, "is_strand", False):
        return object.__hash__(future)
    number = getattr(future, "number", None)
    if number is None:  # in the order in which they are first put into a set
        number = future.number = loop.number()
    return int(number)


def refuse_unordered(caller: FrameType) -> None:
    """Raise if a task is asked for by the stock `as_completed`, for somebody who took it before it was replaced."""
    if caller.f_code not in _ENSURE:
        return
    frame: FrameType | None = caller
    for _ in range(5):
        frame = frame.f_back if frame is not None else None
        if frame is None or frame.f_code.co_filename != _FILE:
            return
        code: CodeType = frame.f_code
        if (
            "as_completed" in code.co_name
            or "_AsCompletedIterator" in code.co_qualname
            or "as_completed" in code.co_qualname
        ):
            raise NotAllowedInWorkflowError(
                "`as_completed`, imported from asyncio before hotmesh.durable, with coroutines",
                "Call `asyncio.as_completed` by that name, or give it tasks.",
            )


class _AsCompleted:
    """Futures as they are done, for `for` and for `async for`."""

    def __init__(self, awaitables: Iterable[Awaitable[Any]], timeout: float | None) -> None:
        if isinstance(awaitables, Awaitable):
            raise TypeError(f"expected an iterable of awaitables, not {type(awaitables).__name__}")
        self._done: deque[asyncio.Future[Any] | None] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._todo: dict[asyncio.Future[Any], None] = dict.fromkeys(
            asyncio.ensure_future(one) for one in dict.fromkeys(awaitables)
        )
        self._left = len(self._todo)
        self._timer = None
        if self._todo and timeout is not None:
            self._timer = asyncio.get_running_loop().call_later(timeout, self._late)
        for future in self._todo:
            future.add_done_callback(self._one)

    def _one(self, future: asyncio.Future[Any]) -> None:
        if self._todo.pop(future, 0) is None:
            self._tell(future)
            if not self._todo and self._timer is not None:
                self._timer.cancel()

    def _late(self) -> None:
        for future in self._todo:
            future.remove_done_callback(self._one)
            self._tell(None)
        self._todo.clear()

    def _tell(self, future: asyncio.Future[Any] | None) -> None:
        self._done.append(future)
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def _next(self) -> asyncio.Future[Any]:
        while not self._done:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        future = self._done.popleft()
        if future is None:
            raise TimeoutError
        return future

    async def _result(self) -> Any:
        return (await self._next()).result()

    def __iter__(self) -> Iterator[Any]:
        while self._left:
            self._left -= 1
            yield self._result()

    async def __aiter__(self) -> AsyncIterator[Any]:
        while self._left:
            self._left -= 1
            yield await self._next()


def as_completed(fs: Iterable[Any], *, timeout: float | None = None) -> Any:
    """`asyncio.as_completed`; in a workflow, tasks are made in the order given."""
    if running_strand() is None:
        return _original_as_completed(fs, timeout=timeout)
    return _AsCompleted(fs, timeout)


async def wait_for(fut: Any, timeout: float | None) -> Any:
    """`asyncio.wait_for`; in a workflow, that of Python 3.12 and newer."""
    if running_strand() is None:
        return await _original_wait_for(fut, timeout)
    if not asyncio.isfuture(fut) and not asyncio.iscoroutine(fut):
        fut = asyncio.ensure_future(fut)
    if timeout is not None and timeout <= 0:
        fut = asyncio.ensure_future(fut)
        if fut.done():
            return fut.result()
        fut.cancel()
        await asyncio.wait([fut])
        try:
            return fut.result()
        except asyncio.CancelledError as error:
            raise TimeoutError from error
    async with asyncio.timeout(timeout):
        return await fut
