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

from collections.abc import Callable, Coroutine, Mapping, Sequence
from logging import Logger
from typing import Any, Literal, ParamSpec, Protocol, Required, TypedDict, TypeVar, TypeVarTuple

from hotmesh.core.codec import Codec
from hotmesh.core.durable.retry import RetryPolicy
from hotmesh.core.duration import Duration
from hotmesh.durable.convert import Converter
from hotmesh.durable.options import CancellationType, IdConflictPolicy, IdReusePolicy, OnNonDeterminism
from hotmesh.mesh import HotMesh
from hotmesh.postgres.connect.options import ConnectionLike
from hotmesh.postgres.logins.credentials import Credentials
from hotmesh.runtime.options import Migrate
from hotmesh.runtime.telemetry.events import EventSink
from hotmesh.runtime.telemetry.tracing import TelemetryOption

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Ts = TypeVarTuple("Ts")

Retry = RetryPolicy | Mapping[str, Any]
"""A policy, or a dict of its fields."""

WorkerFunctions = Callable[..., Any] | type | Sequence[Any] | Mapping[str, Any] | None
"""What a worker hosts: a function or class, several, or several by name."""


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


class CallKeywords(TypedDict, total=False):
    """Those of a call of an activity: of `ActivityOptions`, as they are written."""

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
    throw_on_error: bool | None


class NameKeyword(TypedDict, total=False):
    """The option that a definition has, and a call has not."""

    name: str | None


class ActivityKeywords(NameKeyword, CallKeywords, total=False):
    """Those of `ActivityOptions`, as they are written."""


class StepKeywords(TypedDict, total=False):
    """Those of `StepOptions`, as they are written."""

    name: str | None
    retry: Retry | None
    start_to_close_timeout: Duration | None
    schedule_to_close_timeout: Duration | None
    summary: str | None


class MeshKeywords(TypedDict, total=False):
    """What a Worker and a Client hand on to `HotMesh.init`."""

    direct_connection: ConnectionLike | Literal[False]
    guid: str | None
    engine: bool | Mapping[str, Any]
    readonly: bool
    pin_versions: bool
    migrate: Migrate
    secured: bool | None
    worker_credentials: Credentials | None
    name: str | None
    logger: Logger | None
    log_level: str | int | None
    lease: Duration | None
    max_concurrency: int | None
    max_payload: int | None
    retention: Duration | None
    events: EventSink | None
    telemetry: TelemetryOption
    tracer_provider: Any
    metrics: int | str | None
    codec: Codec | None
    settings: Mapping[str, Any] | None


class ClientKeywords(MeshKeywords, total=False):
    """Those of `Client`, as they are written."""

    namespace: str
    mesh: HotMesh | None
    converter: Converter
    retry: Retry | None
    default_retention: Duration


class WorkerKeywords(MeshKeywords, total=False):
    """Those of `Worker`, as they are written."""

    task_queue: Required[str]
    workflows: WorkerFunctions
    activities: WorkerFunctions
    namespace: str
    mesh: HotMesh | None
    retry: Retry | None
    converter: Converter
    max_concurrent_workflow_tasks: int | None
    max_concurrent_activities: int
    max_concurrent_local_activities: int | None
    unknown_activity_grace: Duration
    graceful_shutdown_timeout: Duration | None
