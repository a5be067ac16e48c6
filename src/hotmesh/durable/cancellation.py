"""Being cancelled, as workflow code sees it: `asyncio.CancelledError` where it waits, and scopes that keep it off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from hotmesh.core.durable.failure import CANCELLED
from hotmesh.durable.strands import current
from hotmesh.durable_errors import CancelledFailure, DurableError
from hotmesh.replay import shielded as _shielded

R = TypeVar("R")

__all__ = ["CancellationScope", "CancelledFailure", "cancellation_scope", "is_cancellation", "is_cancelled"]


@asynccontextmanager
async def cancellation_scope(*, shielded: bool = False) -> AsyncIterator[None]:
    """A block of workflow code; `shielded`: a cancel waits for its end, so that it can clean up.

    except asyncio.CancelledError:
        async with workflow.cancellation_scope(shielded=True):
            await refund(receipt)
        raise
    """
    current("cancellation_scope")
    if not shielded:
        yield
        return
    async with _shielded():
        yield


class CancellationScope:
    """The same for a function."""

    @staticmethod
    async def non_cancellable(function: Callable[[], Awaitable[R]]) -> R:
        """Call it in a shielded scope, and return what it returns."""
        async with cancellation_scope(shielded=True):
            return await function()


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
