"""`WorkflowHandle`: one execution of a workflow, for who started it or knows its id."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final, Generic, Literal, TypeVar, cast

from hotmesh.core.arguments import checked_text
from hotmesh.core.durable.failure import workflow_error
from hotmesh.core.durable.state import Parked, State
from hotmesh.core.duration import Duration, seconds
from hotmesh.core.state.job import Job
from hotmesh.core.wire import loads
from hotmesh.durable.convert import DEFAULT_CONVERTER, Converter, Shape
from hotmesh.durable.meshes import schema_of
from hotmesh.durable.waits import checked_signal
from hotmesh.durable_errors import TIMEOUT_CODE, WorkflowClosedError, WorkflowNotFoundError
from hotmesh.errors import JobCompletedError, JobNotFoundError
from hotmesh.runtime.functions import Functions, kept_id

R = TypeVar("R")

FIRST_LOOK: Final = 0.05
LONGEST_LOOK: Final = 1.0
"""Seconds between two looks at a workflow whose end may not be heard of here."""


PATIENCE: Final = 30.0
"""Seconds for which a pause waits to be in force."""


class WorkflowStatus(Enum):
    """What has become of a workflow."""

    PENDING = "pending"
    """The delay of its start is not over."""
    RUNNING = "running"
    PAUSED = "paused"
    """What happens to it is recorded; it goes on when it is resumed."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TERMINATED = "terminated"
    TIMED_OUT = "timed_out"
    """Its execution or run timeout was over."""


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
    cancel_requested: bool = False
    """Whether somebody has cancelled it; what it makes of that is its affair."""
    paused_since: datetime | None = None
    """Since when it is paused; None: it is not."""
    pause_reason: str | None = None


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
            state.cancelled,
            None if state.paused is None else datetime.fromisoformat(state.paused.since),
            None if state.paused is None else state.paused.reason,
        )

    async def signal(self, name: str, data: Any = None) -> None:
        """Send it a signal of that name: to its handler, or to who waits for it in it; else it is kept as long as it lives.

        Returns once that is durable. Raises WorkflowNotFoundError, WorkflowClosedError, PayloadError.
        """
        name = checked_signal(name, "the name of a signal")
        payload = self._converter.shape(Any, f"data for signal {name}").to_json(data)
        if await self._send("signal", name, payload) == "closed":
            raise WorkflowClosedError(self.workflow_id)

    async def cancel(self, reason: str | None = None) -> bool:
        """Ask it to end: `asyncio.CancelledError` is raised in it where it waits, once, and may be caught to clean up.

        Returns once that is durable; `result()` tells the outcome. False: it has ended, or has been asked before.
        One that is paused hears of it when it is resumed. Raises WorkflowNotFoundError.
        """
        return await self._send("cancel", "", _checked(reason, "cancel")) == "sent"

    async def pause(self, reason: str | None = None) -> None:
        """Let its code not go on until `resume()`: steps that run are finished, and what happens to it is recorded.

        Its timeouts and the timers that run go on counting, and it can be terminated. Returns once it is in force; a second pause changes
        nothing. Raises WorkflowNotFoundError, WorkflowClosedError.
        """
        await self._told("pause", _checked(reason, "pause"), lambda state: state.paused is not None)

    async def resume(self) -> None:
        """Let it go on: one that is paused, whose start is delayed, or that is parked. What has happened meanwhile reaches it now.

        Raises WorkflowNotFoundError, WorkflowClosedError.
        """
        await self._told("resume", None, lambda state: not state.waits)

    async def terminate(
        self,
        reason: str | None = None,
        *,
        throw: bool = True,
        suppress: bool = False,
    ) -> None:
        """End it at once: nothing of it goes on, its steps are cancelled, and its result is WorkflowTerminatedError.

        With `throw` False `result()` returns None instead; with `suppress` one that has ended is no error. None of its code runs:
        to let it clean up, `cancel()` it. Raises WorkflowNotFoundError, WorkflowClosedError.
        """
        functions = await self._functions()
        job = await self._load()
        options: dict[str, Any] = {"code": 410, "throw": throw}
        if reason is not None:
            options["reason"] = reason
        try:
            if job.live:
                await functions.interrupt(job.job_id, job.generation, options)
                return
        except JobNotFoundError:
            raise self._not_found() from None
        except JobCompletedError:
            pass
        if not suppress:
            raise WorkflowClosedError(self.workflow_id)

    # -- inside ------------------------------------------------------------------------------------------

    async def _send(self, kind: str, name: str, data: Any) -> str:
        """Send it a message: sent, duplicate or closed. Raises WorkflowNotFoundError."""
        functions = await self._functions()
        job = await self._load()
        if not job.live:
            return "closed"
        outcome = await functions.send(kind, job.job_id, job.generation, name, data)
        if outcome == "missing":
            await self._load()
            return "closed"
        return outcome

    async def _told(
        self, kind: Literal["pause", "resume"], reason: str | None, done: Callable[[State], bool]
    ) -> None:
        """Send it that, and wait until an engine has carried it out."""
        if await self._send(kind, "", reason) == "closed":
            raise WorkflowClosedError(self.workflow_id)
        pause = 0.005
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    job = await self._load()
                    if not job.live and kind == "pause":
                        raise WorkflowClosedError(self.workflow_id)
                    if not job.live or done(State.of(job.open)):
                        return
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, 0.2)
        except TimeoutError:
            raise TimeoutError(
                f"the {kind} of workflow {self.workflow_id} is recorded, and not carried out within {PATIENCE:g} s: "
                "the process that runs it does not answer; it will be as soon as another one has taken it over"
            ) from None

    async def _result(self) -> R:
        functions = await self._functions()
        generation = self.run_id
        if generation is None:
            generation = (await self._load()).generation
        ended = functions.results.expect(generation, self.workflow_id)
        # Who has started it is told of its end, and looks only in case that is lost.
        pause = LONGEST_LOOK if self.was_started else FIRST_LOOK
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
        if "response" not in data:  # terminated, without an error
            nothing: Any = None
            return cast("R", nothing)
        value: Any = data.get("response")
        return value if self._shape is None else self._shape.from_json(value)

    async def _load(self) -> Job:
        functions = await self._functions()
        job = await functions.load(self.workflow_id)
        if self.run_id is not None and (job is None or job.generation != self.run_id):
            # Another one has the id by now.
            job = await functions.load(kept_id(self.workflow_id, self.run_id))
        if job is None or job.queue is None or (self.run_id is not None and job.generation != self.run_id):
            raise self._not_found()
        return job

    def _not_found(self) -> WorkflowNotFoundError:
        return WorkflowNotFoundError(self.workflow_id, namespace=self._namespace)

    def __repr__(self) -> str:
        return f"WorkflowHandle({self.workflow_id!r}, run_id={self.run_id!r})"


def _checked(reason: str | None, what: str) -> str | None:
    return None if reason is None else checked_text(reason, f"reason of {what}")


def status_of(job: Job) -> WorkflowStatus:
    """What has become of it, by its row."""
    if job.live:
        state = State.of(job.open)
        if state.paused is not None:
            return WorkflowStatus.PAUSED
        return WorkflowStatus.PENDING if state.delayed else WorkflowStatus.RUNNING
    if job.status == 0:
        return WorkflowStatus.COMPLETED
    error = job.error if isinstance(job.error, dict) else {}
    if error.get("type") in ("CancelledFailure", "CancelledError"):
        return WorkflowStatus.CANCELLED
    if error.get("type") == "WorkflowTimeoutError" and error.get("code") == TIMEOUT_CODE:
        return WorkflowStatus.TIMED_OUT
    if error.get("code") == 410 or job.error is None:
        return WorkflowStatus.TERMINATED
    return WorkflowStatus.FAILED
