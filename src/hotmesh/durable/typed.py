"""The types by which checkers see through a call to the function that it names.

What starts or calls something of the user's is written so, and a wrong argument, a wrong option and a wrong use of the
result are found by mypy and pyright alike; arguments with defaults may be left out:

    @overload
    def start_workflow(
        self, workflow: Callable[[Unpack[Ts]], Coroutine[Any, Any, R]], /, *args: *Ts, **options: Unpack[StartKeywords]
    ) -> WorkflowHandle[R]: ...
    @overload
    def start_workflow(
        self, workflow: type[WorkflowClass[R]], /, *args: Any, **options: Unpack[StartKeywords]
    ) -> WorkflowHandle[R]: ...
    @overload
    def start_workflow(self, workflow: str, /, *args: Any, **options: Unpack[StartKeywords]) -> WorkflowHandle[Any]: ...
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ParamSpec, Protocol, TypedDict, TypeVar, TypeVarTuple

from hotmesh.core.durable.retry import RetryPolicy
from hotmesh.core.duration import Duration
from hotmesh.durable.options import CancellationType, IdConflictPolicy, IdReusePolicy, OnNonDeterminism

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Ts = TypeVarTuple("Ts")

Retry = RetryPolicy | Mapping[str, Any]
"""A policy, or a dict of its fields."""


class WorkflowClass(Protocol[R_co]):
    """An object of a workflow class, whose method `run` runs it."""

    @property
    def run(self) -> Callable[..., Coroutine[Any, Any, R_co]]: ...


class WorkflowKeywords(TypedDict, total=False):
    """Those of `WorkflowOptions`, as they are written."""

    name: str | None
    task_queue: str | None
    entity: str | None
    retry: Retry | None
    execution_timeout: Duration | None
    run_timeout: Duration | None
    retention: Duration | None
    on_nondeterminism: OnNonDeterminism


class StartKeywords(TypedDict, total=False):
    """Those of `StartOptions`, as they are written."""

    id: str | None
    task_queue: str | None
    workflow_name: str | None
    entity: str | None
    search: Mapping[str, str] | None
    memo: Mapping[str, Any] | None
    retry: Retry | None
    retention: Duration | None
    id_conflict_policy: IdConflictPolicy
    id_reuse_policy: IdReusePolicy
    execution_timeout: Duration | None
    run_timeout: Duration | None
    start_delay: Duration


class ActivityKeywords(TypedDict, total=False):
    """Those of `ActivityOptions`, as they are written."""

    name: str | None
    task_queue: str | None
    retry: Retry | None
    start_to_close_timeout: Duration | None
    schedule_to_start_timeout: Duration | None
    schedule_to_close_timeout: Duration | None
    heartbeat_timeout: Duration | None
    retry_on_timeout: bool | None
    headers: Mapping[str, Any] | None
    cancellation_type: CancellationType
    summary: str | None


class StepKeywords(TypedDict, total=False):
    """Those of `StepOptions`, as they are written."""

    name: str | None
    retry: Retry | None
    start_to_close_timeout: Duration | None
    schedule_to_close_timeout: Duration | None
    summary: str | None
