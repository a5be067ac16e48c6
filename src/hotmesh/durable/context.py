"""What the code of an activity or step may know of its call, and say: `activity.get_context()`, `activity.heartbeat()`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NoReturn

from hotmesh.runtime.durable.activities import Attempt, CompletedElsewhere
from hotmesh.runtime.durable.hosted import StepInfo


@dataclass(frozen=True, slots=True)
class ActivityContext:
    """One attempt of one call."""

    activity_name: str
    workflow_id: str
    run_id: str
    workflow_name: str
    task_queue: str
    """Of the activity; of a step that of its workflow."""
    attempt: int
    """From 1."""
    idempotency_key: str
    """The same in all attempts, and in no other call: hand it to services that know such keys."""
    namespace: str = ""
    args: tuple[Any, ...] = ()
    """As the function was called with."""
    headers: Mapping[str, Any] = field(default_factory=dict)
    """Those of the call."""
    scheduled_at: datetime | None = None
    """When the workflow asked for it; None for a step."""
    started_at: datetime | None = None
    """When this attempt began; None for a step."""
    deadline: datetime | None = None
    """When the attempt is cut off; None: never."""
    last_heartbeat_details: tuple[Any, ...] = ()
    """What the last heartbeat with details has said, in an attempt before this one."""
    _attempt: Attempt | None = field(default=None, repr=False)

    @classmethod
    def of(cls, info: StepInfo) -> ActivityContext:
        """That of a step."""
        return cls(
            info.name, info.job_id, info.generation, info.workflow_name, info.queue, info.attempt, info.key
        )

    @classmethod
    def of_attempt(cls, attempt: Attempt, args: tuple[Any, ...]) -> ActivityContext:
        """That of an activity."""
        work = attempt.work
        return cls(
            work.workflow_name,
            work.job_id,
            work.generation,
            attempt.workflow_name,
            work.topic.removesuffix("-activity"),
            attempt.number,
            attempt.key,
            attempt.namespace,
            args,
            attempt.options.get("headers") or {},
            attempt.scheduled_at,
            attempt.started_at,
            attempt.deadline,
            tuple(attempt.work.heartbeat) if isinstance(attempt.work.heartbeat, list) else (),
            attempt,
        )

    @property
    def activity_id(self) -> str:
        """The operation itself: the same as `idempotency_key`."""
        return self.idempotency_key

    def heartbeat(self, *details: Any) -> None:
        """Say that the activity is alive, from any thread: see `heartbeat_timeout`. Of a step it means nothing.

        `details`, plain values, are what a further attempt finds as `last_heartbeat_details`, also if this process dies. The first
        are written at once, then the latest every few seconds. Raises PayloadError for what cannot be stored.
        """
        if self._attempt is not None:
            self._attempt.heartbeat(details)

    def is_cancelled(self) -> bool:
        """Whether this attempt is to end: it was given up by the workflow, its time is over, or the process stops."""
        return self._attempt is not None and self._attempt.cancelled

    async def wait_cancelled(self) -> None:
        """Wait until this attempt is to end."""
        if self._attempt is None:
            await asyncio.Event().wait()
        else:
            await self._attempt.wait_cancelled()

    @property
    def task_token(self) -> str:
        """By which `client.complete_activity` ends this attempt, from anywhere. Raises RuntimeError in a step."""
        if self._attempt is None:
            raise RuntimeError(
                f"{self.activity_name} is a step, which runs where its workflow does: it has no token"
            )
        return self._attempt.token

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A log whose messages say whose call it is."""
        facts = {"job_id": self.workflow_id, "activity": self.activity_name, "attempt": self.attempt}
        return _Logger(logging.getLogger("hotmesh.activity"), facts)


class _Logger(logging.LoggerAdapter[logging.Logger]):
    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


_CONTEXT: Final[ContextVar[ActivityContext | StepInfo | None]] = ContextVar("hotmesh_activity", default=None)
"""Of a step its facts: most never ask."""


def begin(call: ActivityContext | StepInfo) -> None:
    """From here on the code of this task, whose context is its own, is that of a call."""
    _CONTEXT.set(call)


def get_context() -> ActivityContext:
    """That of the activity or step whose code is running. Raises RuntimeError elsewhere."""
    found = _CONTEXT.get()
    if isinstance(found, StepInfo):
        found = ActivityContext.of(found)
        _CONTEXT.set(found)
    if found is None:
        raise RuntimeError(
            "activity.get_context() is for code of an activity or a step, while a workflow runs it"
        )
    return found


def raise_complete_async() -> NoReturn:
    """Give up the result of the activity whose code is running: whoever has its `task_token` ends it, by a client, from anywhere.

        requests.post(url, json={"call back with": activity.get_context().task_token})
        activity.raise_complete_async()

    Its limits go on. Raises RuntimeError in a step, and outside of activities.
    """
    _token = get_context().task_token  # a step has none, and says so
    raise CompletedElsewhere


def heartbeat(*details: Any) -> None:
    """Say that the activity whose code is running is alive, from any thread. Raises RuntimeError elsewhere.

    With a `heartbeat_timeout`, an attempt of which nothing is heard for so long is cut off, and tried again.
    """
    get_context().heartbeat(*details)
