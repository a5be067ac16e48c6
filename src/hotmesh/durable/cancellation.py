"""Being cancelled, as workflow code sees it: `asyncio.CancelledError` where it waits, and scopes that keep it off."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from hotmesh.core.durable.failure import CANCELLED
from hotmesh.durable.strands import current
from hotmesh.durable_errors import CancelledFailure, DurableError
from hotmesh.errors import ConfigError
from hotmesh.replay import shielded as _shielded

R = TypeVar("R")

__all__ = ["CancellationScope", "CancelledFailure", "cancellation_scope", "is_cancellation", "is_cancelled"]


class CancellationScope:
    """A part of a workflow: `async with workflow.cancellation_scope() as scope`. Of one task, and where it began.

    `scope.cancel()` cancels what the task does in it, and the code goes on after the block. With `shielded` no cancel of the task
    reaches what is in it, not even that of the workflow: it is raised where the block ends.
    """

    def __init__(self, *, shielded: bool = False) -> None:
        self.shielded: Final = shielded
        self.cancelled_caught = False
        """Whether the block was left because of `cancel()`."""
        self._task: asyncio.Task[Any] | None = None
        self._before = 0
        self._called = False
        self._shield: AbstractAsyncContextManager[None] | None = None

    @classmethod
    async def non_cancellable(cls, function: Callable[[], Awaitable[R]]) -> R:
        """What the function returns, called and awaited in a shielded scope."""
        async with cls(shielded=True):
            return await function()

    def cancel(self) -> None:
        """Cancel what is in it. Raises ConfigError for a shielded one."""
        if self.shielded:
            raise ConfigError(
                "a shielded cancellation_scope cannot be cancelled: put one that is not inside it"
            )
        if self._called:
            return
        self._called = True
        if self._task is not None:
            self._task.cancel()

    async def __aenter__(self) -> Self:
        current("cancellation_scope")
        if self._task is not None:
            raise ConfigError("a cancellation_scope can be entered once: make another one")
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("no task is running")
        self._task = task
        self._before = task.cancelling()
        if self.shielded:
            self._shield = _shielded()
            await self._shield.__aenter__()
        elif self._called:
            task.cancel()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if self._shield is not None:
            return await self._shield.__aexit__(kind, error, trace)
        task, self._task = self._task, None
        if task is None or not self._called:
            return None
        # One that was cancelled by somebody else, too, goes on being cancelled.
        if task.uncancel() <= self._before and kind is not None and issubclass(kind, asyncio.CancelledError):
            self.cancelled_caught = True
            return True
        return None


def cancellation_scope(*, shielded: bool = False) -> CancellationScope:
    """A block of workflow code, `async with`: with `shielded` a cancel waits for its end, so that it can clean up.

    except asyncio.CancelledError:
        async with workflow.cancellation_scope(shielded=True):
            await refund(receipt)
        raise
    """
    return CancellationScope(shielded=shielded)


def is_cancellation(error: BaseException | None) -> bool:
    """Whether an error is a cancellation, or that of an activity or a child by which it was raised."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, asyncio.CancelledError) or getattr(error, "type", None) == CANCELLED:
            return True
        error = error.__cause__ if isinstance(error, DurableError) else None
    return False


def is_cancelled() -> bool:
    """Whether this workflow has been asked to end: also where the code has caught that."""
    return current("is_cancelled").cancelled
