"""The executions of workflow functions: strands that know whose they are, and whose calls are the operations of a workflow."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from hotmesh.core.durable.commands import Completion, Opened, Step
from hotmesh.core.durable.failure import activity_error
from hotmesh.core.durable.retry import DEFAULT_RETRY, RetryPolicy, nearest_policy
from hotmesh.core.state.job import Job
from hotmesh.core.values import Json
from hotmesh.core.wire import dumps
from hotmesh.durable.context import begin
from hotmesh.durable.convert import Converter
from hotmesh.durable.definition import ActivityDefinition, SignalDefinition, WorkflowDefinition
from hotmesh.durable.options import StepOptions
from hotmesh.durable_errors import NotInWorkflowError
from hotmesh.replay import Operation, Strand, running_strand
from hotmesh.runtime.durable.hosted import StepInfo
from hotmesh.runtime.durable.turns import Live
from hotmesh.runtime.threads import Threads

logger = logging.getLogger("hotmesh.workflow")


@dataclass(frozen=True, slots=True)
class WorkflowInfo:
    """What a workflow knows of itself: `workflow.info()`."""

    workflow_id: str
    run_id: str
    workflow_name: str
    task_queue: str
    namespace: str
    attempt: int
    """Which attempt of the function this is, from 1, since it last got on: it says nothing of the past, so nothing should depend on it."""
    memo: Mapping[str, Any]


class WorkflowStrand(Strand):
    """One execution of a workflow function."""

    def __init__(
        self,
        hosted: Hosted,
        job: Job,
        recorded: Iterable[Completion],
        opened: Iterable[Opened],
    ) -> None:
        self.hosted: Final = hosted
        self.policy: Final = hosted.policy(job)
        self._job: Final = job if job.history is None else replace(job, history=None)
        super().__init__(
            self._called,
            seed=f"{job.generation}:0".encode(),
            started_at=_begins_at(job),
            recorded=recorded,
            opened=opened,
            tell=self._log,
        )

    @cached_property
    def info(self) -> WorkflowInfo:
        """What the workflow knows of itself. Most never ask."""
        job = self._job
        return WorkflowInfo(
            job.job_id,
            job.generation,
            job.topic,
            job.queue or "",
            job.app_id,
            (job.open or {}).get("attempt", 0) + 1,
            (job.settings or {}).get("memo", {}),
        )

    def call_step(
        self, definition: ActivityDefinition[Any, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Operation[Any]:
        """Ask for a step, at the next position."""
        return self.ask_step(definition, definition.step_options, args, kwargs)

    def ask_step(
        self,
        definition: ActivityDefinition[Any, Any],
        options: StepOptions,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Operation[Any]:
        """Ask for a step with these options."""
        call = StepRun(definition, options, self.hosted.converter, self.policy, args, kwargs)
        command = Step(self.reserve(), options.name or definition.name, call)
        return self.ask(command, call.decode)

    def _called(self) -> Coroutine[Any, Any, Any]:
        definition = self.hosted.definition
        stored = self._job.input
        payload = bytes(stored) if isinstance(stored, msgspec.Raw) else dumps(stored)
        args, kwargs = definition.signature(self.hosted.converter).unpack(payload)
        instance = definition.instance()
        for name, handler in definition.signals.items():
            self.handle("signal", name, partial(self._handle, handler, instance))
        return definition.begin(instance, args, kwargs)

    def _handle(self, handler: SignalDefinition[Any, Any], instance: Any, completion: Completion) -> Any:
        """Call the handler of a signal with its payload, if it takes one."""
        signature = handler.signature(self.hosted.converter)
        value = completion.value
        payload = "[]" if signature.takes_nothing else f"[{'null' if value is None else value}]"
        args, kwargs = signature.unpack(payload)
        return handler.function(instance, *args, **kwargs)

    def _log(self, words: str, error: BaseException | None) -> None:
        if not self.replaying:
            logger.warning(
                "workflow %s %s: %s",
                self.info.workflow_name,
                self.info.workflow_id,
                words,
                extra={"job_id": self.info.workflow_id},
                exc_info=error,
            )


def _begins_at(job: Job) -> datetime:
    delay = job.settings.get("start_delay") if job.settings else None
    return job.created_at + timedelta(seconds=delay) if delay else job.created_at


@dataclass(frozen=True, slots=True)
class Hosted:
    """A workflow function as a worker has it; a `HostedFunction` of the runtime."""

    definition: WorkflowDefinition[Any, Any]
    converter: Converter
    retry: RetryPolicy | None = None
    """That of the worker."""

    @property
    def parks(self) -> bool:
        return self.definition.options.on_nondeterminism == "park"

    def policy(self, job: Job) -> RetryPolicy:
        """That of the start, else of the definition, else of the worker."""
        stored = (job.settings or {}).get("retry")
        if stored is not None:
            return RetryPolicy.from_json(stored)
        return self.definition.options.retry or self.retry or DEFAULT_RETRY

    def strand(self, job: Job, recorded: Iterable[Completion] = (), opened: Iterable[Opened] = ()) -> Strand:
        return WorkflowStrand(self, job, recorded, opened)

    def encode(self, value: Any) -> Json:
        signature = self.definition.signature(self.converter)
        if signature.bare_result:
            signature.look(value, "result", "->")
        payload: Any = msgspec.Raw(signature.result.encode(value))
        return payload


class StepRun:
    """A function to be run as a step, with its arguments: a `StepCall` of the runtime."""

    __slots__ = ("_copies", "_definition", "_payload", "_shape", "_signature", "limit", "policy", "timeout")

    def __init__(
        self,
        definition: ActivityDefinition[Any, Any],
        options: StepOptions,
        converter: Converter,
        inherited: RetryPolicy,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        """Raises TypeError if the function cannot be called so, PayloadError for arguments that are not plain data."""
        self._definition = definition
        self._signature = definition.signature(converter)
        self._shape = self._signature.result
        self._payload, positional, named = self._signature.record(args, kwargs)
        self._copies: tuple[tuple[Any, ...], dict[str, Any]] | None = (positional, named)
        self.policy = nearest_policy(options.retry, inherited)
        self.timeout = options.start_to_close_timeout
        self.limit = options.schedule_to_close_timeout

    async def run(self, info: StepInfo, threads: Threads) -> tuple[Json, Any]:
        """Run it once, with arguments that nobody else has."""
        copies, self._copies = self._copies, None
        args, kwargs = copies if copies is not None else self._signature.unpack(self._payload)
        begin(info)
        if self._definition.is_async:
            value = await self._definition.function(*args, **kwargs)
        else:
            value = await threads.run(_keywords(self._definition.function, kwargs), *args)
            if inspect.isawaitable(value):
                value = await value
        if self._signature.bare_result:
            self._signature.look(value, "result", "->")
        payload, copy = self._shape.record(value)
        raw: Any = msgspec.Raw(payload)
        return raw, copy

    def decode(self, completion: Completion) -> Any:
        """What the workflow gets for its outcome."""
        if completion.status == "done":
            value = completion.value
            if type(value) is Live:
                return value.copy
            return self._shape.decode(b"null" if value is None else value)
        error = completion.error or {}
        raise activity_error(
            error,
            activity_name=completion.name,
            attempt=completion.attempt,
            retry_state=error.get("ended", "non_retryable"),
        )


def _keywords(function: Any, kwargs: Mapping[str, Any]) -> Any:
    if not kwargs:
        return function
    return lambda *args: function(*args, **kwargs)


def current(what: str) -> WorkflowStrand:
    """The execution whose code is running. Raises NotInWorkflowError."""
    found = running_strand()
    if not isinstance(found, WorkflowStrand):
        raise NotInWorkflowError(f"workflow.{what}")
    return found
