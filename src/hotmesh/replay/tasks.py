"""Tasks and futures of a strand, and operations: the futures that outlive the process.

Sets inside asyncio iterate by hash, which for stock tasks is an address. Here it is the number of the object, in order of
creation, plus a salt of the strand: without the salt, the first tasks of all workflows would collide in the sets that
asyncio keeps of all tasks of the process.
"""

from __future__ import annotations

import asyncio
from asyncio import events
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Any, Final, TypeVar

from hotmesh.core.durable.commands import Asked, Cancellation, Completion

T = TypeVar("T")


class Future(asyncio.Future[T]):
    """A future that is hashed by its number."""

    def __init__(self, strand: Any) -> None:
        self.number: int = strand.number()
        super().__init__(loop=strand)

    def __hash__(self) -> int:
        return self.number


class Task(asyncio.Task[T]):
    """A task that is hashed by its number, and keeps a cancel back while it is in a shielded scope."""

    shields = 0
    kept: tuple[Any, ...] = ()
    late: tuple[Any, ...] = ()
    """Messages of cancels that were kept back, and of those on their way. Most tasks have none."""

    def __init__(self, coro: Coroutine[Any, Any, T], strand: Any, name: str | None, context: Context) -> None:
        self.number: int = strand.number()
        self.context = context
        super().__init__(coro, loop=strand, name=name or f"task-{self.number - strand.salt}", context=context)

    def __hash__(self) -> int:
        return self.number

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel it; in a shielded scope, when that ends."""
        if self.shields and not self.done():
            self.kept = (*self.kept, msg)
            return True
        waiter: Any = self._fut_waiter  # type: ignore[attr-defined]
        if waiter.done() if waiter is not None else asyncio.current_task(self.get_loop()) is self:
            # It runs, or will with what it has waited for, and is cancelled where it waits next. So a cancel that is taken back
            # meanwhile leaves nothing behind: before Python 3.13 a task would be cancelled later on, for no reason.
            self.late = (*self.late, msg)
            self.get_loop().call_soon(self._cancel_late)
            return True
        return super().cancel(msg)

    def _cancel_late(self) -> None:
        if self.late:
            msg, *rest = self.late
            self.late = tuple(rest)
            self.cancel(msg)

    def cancelling(self) -> int:
        """How many cancels it has been asked for, without those taken back."""
        return super().cancelling() + len(self.late)

    def uncancel(self) -> int:
        """Take a cancel back (`TaskGroup` and `timeout` do): one that was kept or is on its way, else one that arrived."""
        if self.kept and self.shields:
            self.kept = self.kept[:-1]
            return self.cancelling()
        if self.late:
            self.late = self.late[:-1]
            return self.cancelling()
        return super().uncancel() + len(self.late)


class Operation(Future[T]):
    """What a workflow asked for, and will be told of: awaited as often as one likes, by whom one likes, or cancelled."""

    def __init__(
        self,
        strand: Any,
        command: Asked,
        decode: Callable[[Completion], T] | None,
        cancellation: Cancellation,
    ) -> None:
        super().__init__(strand)
        self._strand = strand
        self._decode = decode
        self._cancellation: Final = cancellation
        self.command: Final = command

    def __repr__(self) -> str:
        is_now = "cancelled" if self.cancelled() else "done" if self.done() else "pending"
        return f"<{self.command.kind} {self.command.name!r}, operation {self.command.position}, {is_now}: await it for its result>"

    def cancel(self, msg: Any | None = None) -> bool:
        """Give it up: its row goes with the commit of this turn, and whoever awaits it gets `CancelledError`.

        With `wait_completed` it is only asked to end: who awaits it goes on doing so, and gets what comes of it.
        """
        if self.done():
            return False
        if self._cancellation == "wait_completed" and not self._strand.over:
            self._strand.wind_down(self.command)
            return True
        self._strand.give_up(self.command, told=self._cancellation != "abandon")
        return super().cancel(msg)

    def settle(self, completion: Completion) -> None:
        """Take what became of it. What decoding raises is the outcome: it is the users' code."""
        if self.done():
            return
        try:
            value = (self._decode or plain)(completion)
        except asyncio.CancelledError as error:
            super().cancel(*error.args[:1])
        except StopIteration as error:  # a future cannot hold it
            self.set_exception(
                _caused(RuntimeError("the outcome of the operation is a StopIteration"), error)
            )
        except BaseException as error:  # noqa: BLE001 - theirs, of any kind
            self.set_exception(error)
        else:
            self.set_result(value)


def plain(completion: Completion) -> Any:
    """The value as it is recorded; an error as it is, if it is an exception, else as text in one."""
    if completion.status == "done":
        return completion.value
    if completion.status == "cancelled":
        raise asyncio.CancelledError
    error = completion.error
    raise error if isinstance(error, BaseException) else RuntimeError(str(error))


def _caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def running_strand() -> Any:
    """The strand whose code is running now; None outside of workflows."""
    loop = events._get_running_loop()
    return loop if getattr(loop, "is_strand", False) else None


class _Step:
    """One way round through the loop."""

    def __await__(self) -> Generator[None, None, None]:
        yield


@asynccontextmanager
async def shielded() -> AsyncIterator[None]:
    """Keeps a cancel of the current task off until the end of the block, where it is raised."""
    task = asyncio.current_task()
    if not isinstance(task, Task):
        msg = "a shielded scope is for workflows"
        raise RuntimeError(msg)  # noqa: TRY004 - not the type of an argument
    task.shields += 1
    try:
        yield
    finally:
        task.shields -= 1
        if not task.shields and task.kept:
            kept, task.kept = task.kept, ()
            for msg in kept:
                task.cancel(msg)
            await _Step()
