"""`WorkflowHandle`: one execution of a workflow, for who started it or knows its id."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final, Generic, TypeVar

from hotmesh.core.arguments import checked_text
from hotmesh.core.durable.failure import workflow_error
from hotmesh.core.durable.state import Parked, State
from hotmesh.core.duration import Duration, seconds
from hotmesh.core.state.job import Job
from hotmesh.core.wire import loads
from hotmesh.durable.convert import DEFAULT_CONVERTER, Converter, Shape
from hotmesh.durable.meshes import schema_of
from hotmesh.durable.waits import checked_signal
from hotmesh.durable_errors import WorkflowClosedError, WorkflowNotFoundError
from hotmesh.errors import JobCompletedError, JobNotFoundError
from hotmesh.runtime.functions import Functions

R = TypeVar("R")

FIRST_LOOK: Final = 0.05
LONGEST_LOOK: Final = 1.0
"""Seconds between two looks at a workflow whose end may not be heard of here."""


class WorkflowStatus(Enum):
    """What has become of a workflow."""

    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TERMINATED = "terminated"
    TIMED_OUT = "timed_out"


@dataclass(frozen=True, slots=True)
class WorkflowDescription:
    """What there is to know about a workflow: `handle.describe()`."""

    workflow_id: str
    run_id: str
    workflow_name: str
    task_queue: str
    status: WorkflowStatus
    started_at: datetime
    closed_at: datetime | None
    attempt: int
    """Which attempt of the function is the next or the last one, from 1."""
    parked: Parked | None
    """Why it does not go on, if its code does not fit its history, or blocks."""
    entity: str | None
    memo: Mapping[str, Any]
    recoveries: int
    """How often in a row it was taken over from a process that had died."""


class WorkflowHandle(Generic[R]):
    """One execution of a workflow. `was_started`: whether the call that returned this has started it."""

    def __init__(
        self,
        functions: Callable[[], Awaitable[Functions]],
        namespace: str,
        workflow_id: str,
        run_id: str | None = None,
        shape: Shape[R] | None = None,
        *,
        converter: Converter = DEFAULT_CONVERTER,
        was_started: bool = False,
    ) -> None:
        self._converter = converter
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.was_started = was_started
        self._functions = functions
        self._namespace = namespace
        self._shape = shape

    async def result(self, *, timeout: Duration | None = None) -> R:
        """What the workflow returns, as soon as it has ended.

        Raises WorkflowFailedError (its cause is what was raised in the workflow), or one of its kinds if it was cancelled or
        terminated; WorkflowNotFoundError; TimeoutError after `timeout`, which changes nothing for the workflow.
        """
        if timeout is None:
            return await self._result()
        longest = seconds(timeout, name="timeout")
        waiting = asyncio.timeout(longest)
        try:
            async with waiting:
                return await self._result()
        except TimeoutError as error:
            if not waiting.expired():
                raise
            raise TimeoutError(
                f"workflow {self.workflow_id} has not ended within {longest:g} s, and runs on; "
                f"`hotmesh explain {self.workflow_id} --app {self._namespace} --namespace {schema_of(self._namespace)}` "
                f"says what it waits for"
            ) from error

    async def status(self) -> int:
        """0: completed; above: it runs; far below: failed, cancelled or terminated. Raises WorkflowNotFoundError."""
        return (await self._load()).status

    async def describe(self) -> WorkflowDescription:
        """All about it, as it is now. Raises WorkflowNotFoundError."""
        job = await self._load()
        state = State.of(job.open)
        return WorkflowDescription(
            job.job_id,
            job.generation,
            job.topic,
            job.queue or "",
            status_of(job),
            job.created_at,
            None if job.live else job.updated_at,
            state.attempt + 1,
            state.parked,
            job.entity,
            (job.settings or {}).get("memo", {}),
            job.recoveries,
        )

    async def signal(self, name: str, data: Any = None) -> None:
        """Send it a signal of that name: to its handler, or to who waits for it in it; else it is kept as long as it lives.

        Returns once that is durable. Raises WorkflowNotFoundError, WorkflowClosedError, PayloadError.
        """
        name = checked_signal(name, "the name of a signal")
        payload = self._converter.shape(Any, f"data for signal {name}").to_json(data)
        await self._send("signal", name, payload)

    async def cancel(self, reason: str | None = None) -> bool:
        """Ask it to end: where it waits, `asyncio.CancelledError` is raised, once, which it may catch to clean up.

        Returns once that is durable; False if the workflow has ended already. Raises WorkflowNotFoundError.
        """
        if reason is not None:
            checked_text(reason, "reason of cancel")
        return await self._send("cancel", "", reason, closed=False)

    async def pause(self) -> None:
        """Let it go no further until `resume`: what happens meanwhile is recorded. Steps that run now finish.

        Raises WorkflowNotFoundError, WorkflowClosedError.
        """
        await self._send("pause", "", None)

    async def resume(self) -> None:
        """Let it go on after `pause`. Raises WorkflowNotFoundError, WorkflowClosedError."""
        await self._send("resume", "", None)

    async def _send(self, kind: str, name: str, data: Any, *, closed: bool | None = None) -> bool:
        """`closed`: what to return for a workflow that has ended; None: that is an error."""
        functions = await self._functions()
        job = await self._load()
        outcome = (
            "closed"
            if not job.live
            else await functions.send(kind, self.workflow_id, job.generation, name, data)
        )
        if outcome == "missing":
            raise self._not_found()
        if outcome != "closed":
            return True
        if closed is None:
            raise WorkflowClosedError(self.workflow_id)
        return closed

    async def terminate(self, reason: str | None = None) -> None:
        """End it at once: nothing of it goes on, and its result is WorkflowTerminatedError.

        Raises WorkflowNotFoundError, WorkflowClosedError.
        """
        functions = await self._functions()
        await self._load()
        options = {"code": 410, **({} if reason is None else {"reason": reason})}
        try:
            await functions.interrupt(self.workflow_id, options)
        except JobNotFoundError:
            raise self._not_found() from None
        except JobCompletedError:
            raise WorkflowClosedError(self.workflow_id) from None

    async def _result(self) -> R:
        functions = await self._functions()
        generation = self.run_id
        if generation is None:
            generation = (await self._load()).generation
        ended = functions.results.expect(generation, self.workflow_id)
        pause = FIRST_LOOK
        try:
            while not ended.done():
                if functions.is_here(generation):
                    functions.results.exists(generation, self.workflow_id)
                    # It is told from memory; if that is lost, the row is read now and then, by `results`.
                    await asyncio.shield(ended)
                    break
                job = await self._load()
                if not job.live:
                    return self._of(job.error, job.data)
                functions.results.exists(generation, self.workflow_id)
                await asyncio.wait([ended], timeout=pause)
                pause = min(pause * 1.5, LONGEST_LOOK)
            output = ended.result()
        finally:
            functions.results.release(generation)
        error = output.metadata.get("err")
        return self._of(None if error is None else loads(error), output.data)

    def _of(self, error: Any, data: Mapping[str, Any]) -> R:
        if error is not None:
            raise workflow_error(error, self.workflow_id)
        value: Any = data.get("response")
        return value if self._shape is None else self._shape.from_json(value)

    async def _load(self) -> Job:
        functions = await self._functions()
        job = await functions.load(self.workflow_id)
        if job is None or job.queue is None or (self.run_id is not None and job.generation != self.run_id):
            raise self._not_found()
        return job

    def _not_found(self) -> WorkflowNotFoundError:
        return WorkflowNotFoundError(self.workflow_id, namespace=self._namespace)

    def __repr__(self) -> str:
        return f"WorkflowHandle({self.workflow_id!r}, run_id={self.run_id!r})"


def status_of(job: Job) -> WorkflowStatus:
    """What has become of it, by its row."""
    if job.live:
        return WorkflowStatus.PAUSED if State.of(job.open).paused else WorkflowStatus.RUNNING
    if job.status == 0:
        return WorkflowStatus.COMPLETED
    error = job.error if isinstance(job.error, dict) else {}
    if error.get("type") in ("CancelledFailure", "CancelledError"):
        return WorkflowStatus.CANCELLED
    if error.get("type") == "WorkflowTimeoutError":
        return WorkflowStatus.TIMED_OUT
    if error.get("code") == 410 or job.error is None:
        return WorkflowStatus.TERMINATED
    return WorkflowStatus.FAILED
