"""What the code of an activity or step may know of its call: `activity.get_context()`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from hotmesh.runtime.durable.hosted import StepInfo


@dataclass(frozen=True, slots=True)
class ActivityContext:
    """One attempt of one call."""

    activity_name: str
    workflow_id: str
    run_id: str
    workflow_name: str
    task_queue: str
    attempt: int
    """From 1."""
    idempotency_key: str
    """The same in all attempts, and in no other call: hand it to services that know such keys."""

    @classmethod
    def of(cls, info: StepInfo) -> ActivityContext:
        """That of a step."""
        return cls(
            info.name, info.job_id, info.generation, info.workflow_name, info.queue, info.attempt, info.key
        )


_CONTEXT: Final[ContextVar[ActivityContext | None]] = ContextVar("hotmesh_activity", default=None)


@contextmanager
def inside(context: ActivityContext) -> Iterator[None]:
    """Run the block as the code of that call."""
    token = _CONTEXT.set(context)
    try:
        yield
    finally:
        _CONTEXT.reset(token)


def get_context() -> ActivityContext:
    """That of the activity or step whose code is running. Raises RuntimeError elsewhere."""
    found = _CONTEXT.get()
    if found is None:
        raise RuntimeError(
            "activity.get_context() is for code of an activity or a step, while a workflow runs it"
        )
    return found
