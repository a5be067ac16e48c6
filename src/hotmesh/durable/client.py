"""`Client`: starts workflows, and finds them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Self, TypeVar, TypeVarTuple, Unpack, overload

import msgspec

from hotmesh.core.durable.failure import failure_of
from hotmesh.core.durable.retry import RetryPolicy
from hotmesh.core.duration import Duration, seconds_with_unit
from hotmesh.core.state.job import StartRequest
from hotmesh.core.wire import normalise
from hotmesh.durable.convert import DEFAULT_CONVERTER, Converter
from hotmesh.durable.definition import read_workflow
from hotmesh.durable.handle import WorkflowHandle
from hotmesh.durable.meshes import DEFAULT_NAMESPACE, checked_options, schema_of, shared, start_mesh
from hotmesh.durable.options import StartOptions, _retention
from hotmesh.durable.signature import Signature
from hotmesh.durable.typed import ClientKeywords, MeshKeywords, StartKeywords, WorkflowClass
from hotmesh.durable.waits import checked_signal
from hotmesh.durable.work_items import Escalations
from hotmesh.durable_errors import ApplicationError, NotAllowedInWorkflowError, WorkflowAlreadyStartedError
from hotmesh.errors import ConfigError, DuplicateJobError, JobCompletedError, JobNotFoundError
from hotmesh.mesh import HotMesh
from hotmesh.postgres.connect.options import ConnectionLike
from hotmesh.replay import running_strand
from hotmesh.replay.refusals import STEP
from hotmesh.runtime import ids
from hotmesh.runtime.durable import tokens
from hotmesh.runtime.durable.activities import MOST_DETAILS
from hotmesh.runtime.functions import Functions

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

MOST_TRIES: Final = 20
"""How often a start looks again whether its id is free, while others start and end workflows of it."""

DEFAULT_RETENTION: Final = 7 * 86_400.0

_OWN: Final = ("namespace", "mesh", "converter", "retry", "default_retention")

MOST_MEMO: Final = 256 * 1024
"""Bytes of JSON that a memo may have."""

_LIMITS: Final = ("execution_timeout", "run_timeout")
"""Options by which a workflow ends, whatever it does."""


class Client:
    """Starts workflows of a namespace, and finds them. Make one with `await Client.connect(…)`.

    handle = await client.start_workflow(order, "o-1", id="order o-1")
    receipt = await handle.result()
    """

    def __init__(
        self,
        connection: ConnectionLike = None,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        mesh: HotMesh | None = None,
        converter: Converter = DEFAULT_CONVERTER,
        retry: RetryPolicy | Mapping[str, Any] | None = None,
        default_retention: Duration = DEFAULT_RETENTION,
        **options: Unpack[MeshKeywords],
    ) -> None:
        """Connects when it is first used. `mesh`: an instance that runs, and is not stopped with the client.

        `converter`: for values of classes of your own; `retry`: for workflow functions, where nothing nearer says otherwise;
        `default_retention`: how long a workflow is kept after its end. Further `options` are those of `HotMesh.init`.
        """
        schema_of(namespace)
        self.namespace = namespace
        self._connection = connection
        self._options = checked_options(options, "Client", _OWN)
        self._given = mesh
        self._own: HotMesh | None = None
        self._met: tuple[asyncio.AbstractEventLoop, HotMesh, Functions] | None = None
        """What was used last; looked for again once it has stopped, or on another event loop."""
        self._converter = converter
        self._retry = RetryPolicy.read(retry)
        self._retention = _retention(default_retention, "default_retention")
        self._lock = asyncio.Lock()
        self.escalations = Escalations(self._functions, converter)
        """The work items that workflows wait for."""

    @classmethod
    async def connect(cls, connection: ConnectionLike = None, **options: Unpack[ClientKeywords]) -> Self:
        """A client that has connected. In a process with a worker of the same database it uses that one's instance."""
        client = cls(connection, **options)
        await client._functions()
        return client

    async def close(self) -> None:
        """Disconnect, if it has an instance of its own. It may be used again."""
        if self._own is not None:
            await self._own.stop()
            self._own = None

    async def __aenter__(self) -> Self:
        await self._functions()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @overload
    async def start_workflow(
        self,
        workflow: Callable[[Unpack[Ts]], Coroutine[Any, Any, R]],
        /,
        *args: *Ts,
        **options: Unpack[StartKeywords],
    ) -> WorkflowHandle[R]: ...
    @overload
    async def start_workflow(
        self, workflow: type[WorkflowClass[R]], /, *args: Any, **options: Unpack[StartKeywords]
    ) -> WorkflowHandle[R]: ...
    @overload
    async def start_workflow(
        self, workflow: str, /, *args: Any, **options: Unpack[StartKeywords]
    ) -> WorkflowHandle[Any]: ...
    async def start_workflow(self, workflow: Any, /, *args: Any, **options: Any) -> WorkflowHandle[Any]:  # type: ignore[misc]
        """Start a workflow; returns once that is durable. Options: `StartOptions`.

        Raises WorkflowAlreadyStartedError if its id is in use, and the policies do not say what then; ConfigError; PayloadError.
        """
        request, signature, given = self._request(workflow, args, options)
        return await self._start(request, signature, given)

    @overload
    async def execute_workflow(
        self,
        workflow: Callable[[Unpack[Ts]], Coroutine[Any, Any, R]],
        /,
        *args: *Ts,
        **options: Unpack[StartKeywords],
    ) -> R: ...
    @overload
    async def execute_workflow(
        self, workflow: type[WorkflowClass[R]], /, *args: Any, **options: Unpack[StartKeywords]
    ) -> R: ...
    @overload
    async def execute_workflow(
        self, workflow: str, /, *args: Any, **options: Unpack[StartKeywords]
    ) -> Any: ...
    async def execute_workflow(self, workflow: Any, /, *args: Any, **options: Any) -> Any:  # type: ignore[misc]
        """Start a workflow, and wait for what it returns; raises what `start_workflow` and `result` raise."""
        request, signature, given = self._request(workflow, args, options)
        functions = await self._functions()
        # Its end may be told with the very commit that creates it.
        functions.results.expect(request.generation, request.topic)
        try:
            handle = await self._start(request, signature, given)
            return await handle.result()
        finally:
            functions.results.release(request.generation)

    @overload
    def get_workflow_handle(self, workflow_id: str) -> WorkflowHandle[Any]: ...
    @overload
    def get_workflow_handle(self, workflow_id: str, *, result_type: type[R]) -> WorkflowHandle[R]: ...
    @overload
    def get_workflow_handle(self, workflow_id: str, *, result_type: Any) -> WorkflowHandle[Any]: ...
    def get_workflow_handle(self, workflow_id: str, *, result_type: Any = Any) -> WorkflowHandle[Any]:
        """A handle by an id; nothing is looked up before it is used. `result_type`: the annotation of what `result` returns."""
        shape = self._converter.shape(result_type, f"result of {workflow_id}")
        return WorkflowHandle(
            self._functions, self.namespace, workflow_id, None, shape, converter=self._converter
        )

    async def signal(self, signal_id: str, data: Any = None, *, expire: Duration = 600.0) -> None:
        """Send a signal to an id: to the workflow that waits for it by `workflow.condition`, else it is kept for `expire`.

        Several signals to one id keep their order. Returns once that is durable. Raises ConfigError, PayloadError.
        """
        name = checked_signal(signal_id, "signal_id")
        keep = seconds_with_unit(expire, name="expire of a signal")
        payload = self._converter.shape(Any, f"data for signal {name}").to_json(data)
        await (await self._functions()).signal(name, payload, keep)

    async def complete_activity(self, task_token: str, result: Any = None) -> bool:
        """End an activity whose function has called `activity.raise_complete_async()`, or still runs, with this result.

        False: that does not count, because that attempt has ended already, by another call, by a limit, or with its workflow. So it may be
        called again where it is not known whether it came through. Raises ConfigError for what is no token, PayloadError.
        """
        payload = self._converter.shape(Any, "the result of an activity").to_json(result)
        return await tokens.complete(*await (await self._functions()).by_token(task_token), payload)

    async def fail_activity(self, task_token: str, error: BaseException | str) -> bool:
        """Have such an attempt fail; it is tried again as if its function had raised the error. False: see `complete_activity`."""
        raised = ApplicationError(error) if isinstance(error, str) else error
        found = await (await self._functions()).by_token(task_token)
        return await tokens.fail(*found, failure_of(raised), random.random())  # noqa: S311 - no secret

    async def heartbeat_activity(self, task_token: str, *details: Any) -> bool:
        """Say that such an attempt goes on, like `activity.heartbeat`. False: it is to end, or has ended."""
        said = (
            normalise(list(details), limit=MOST_DETAILS, what="details of a heartbeat") if details else None
        )
        return await tokens.beat(*await (await self._functions()).by_token(task_token), said)

    # -- inside ------------------------------------------------------------------------------------------

    async def _functions(self) -> Functions:
        loop, met = asyncio.get_running_loop(), self._met
        if met is not None and met[0] is loop and not met[1].stopped:
            return met[2]
        _refuse_in_workflow()
        mesh = self._given or self._own
        if mesh is None or mesh.stopped:
            mesh = shared(self._connection, self.namespace)
        if mesh is None:
            async with self._lock:
                if self._own is None or self._own.stopped:
                    self._own = await start_mesh(self._connection, self.namespace, **self._options)
            mesh = self._own
        functions = mesh._member.functions
        if functions is None:
            raise ConfigError("a Client needs an engine in its process, and this instance has engine=False")
        self._met = loop, mesh, functions
        return functions

    def _request(
        self, workflow: Any, args: tuple[Any, ...], options: Mapping[str, Any]
    ) -> tuple[StartRequest, Signature, StartOptions]:
        _refuse_in_workflow()
        given = StartOptions.read(options, function=workflow)
        own = None
        retry, queue, retention = given.retry, given.task_queue, given.retention
        if isinstance(workflow, str):
            name, signature = workflow, Signature.untyped(workflow, self._converter)
            queue = queue or given.entity
        else:
            definition = read_workflow(workflow)
            name, signature = definition.name, definition.signature(self._converter)
            own = definition.options
            queue = queue or own.task_queue or given.entity or own.entity
            retry, retention = retry or own.retry, own.retention if retention is None else retention
        queue = queue or given.entity
        if queue is None:
            raise ConfigError(
                f"workflow {name} has no queue to run on: give start_workflow a task_queue=, or its @workflow.defn"
            )
        settings: dict[str, Any] = {
            option: limit
            for option in _LIMITS
            if (limit := getattr(given, option) or getattr(own, option, None)) is not None
        }
        retry = retry or self._retry
        if retry is not None:
            settings["retry"] = retry.to_json()
        if given.memo:
            settings["memo"] = normalise(given.memo, limit=MOST_MEMO, what="memo of start_workflow")
        if given.start_delay:
            settings["start_delay"] = given.start_delay
        payload: Any = msgspec.Raw(signature.pack(args))
        generation, default_id = ids.of_a_job()
        request = StartRequest(
            topic=given.workflow_name or name,
            data=payload,
            generation=generation,
            default_id=default_id,
            job_id=given.id,
            entity=given.entity,
            search={f"_{key}": value for key, value in given.search.items()} if given.search else None,
            queue=queue,
            settings=settings or None,
            expire=self._retention if retention is None else retention,
            delay=given.start_delay,
        )
        return request, signature, given

    async def _start(
        self, request: StartRequest, signature: Signature, given: StartOptions
    ) -> WorkflowHandle[Any]:
        functions = await self._functions()
        request = msgspec.structs.replace(request, reply_to=functions.guid)
        for _ in range(MOST_TRIES):
            try:
                job = await functions.start(request)
            except DuplicateJobError as error:
                found = await self._taken(functions, error.job_id or "", signature, given)
                if found is not None:
                    return found
                continue
            return WorkflowHandle(
                self._functions,
                self.namespace,
                job.job_id,
                job.generation,
                signature.result,
                converter=self._converter,
                was_started=True,
            )
        raise WorkflowAlreadyStartedError(request.job_id or "")

    async def _taken(
        self, functions: Functions, job_id: str, signature: Signature, given: StartOptions
    ) -> WorkflowHandle[Any] | None:
        """What to do about an id that is in use: an existing workflow, or None: try again. Raises WorkflowAlreadyStartedError."""
        job = await functions.load(job_id)
        if job is None:
            return None
        if job.queue is None:
            raise WorkflowAlreadyStartedError(job_id)
        if not job.live:
            if given.id_reuse_policy == "reject" or (
                given.id_reuse_policy == "allow_failed_only" and job.status == 0
            ):
                raise WorkflowAlreadyStartedError(job_id)
            await functions.set_aside(job_id, failed_only=given.id_reuse_policy == "allow_failed_only")
            return None
        if given.id_conflict_policy == "use_existing":
            return WorkflowHandle(
                self._functions,
                self.namespace,
                job_id,
                job.generation,
                signature.result,
                converter=self._converter,
            )
        if given.id_conflict_policy == "fail":
            raise WorkflowAlreadyStartedError(job_id)
        try:
            await functions.interrupt(
                job_id, job.generation, {"code": 410, "reason": "terminated by another start of its id"}
            )
        except (JobNotFoundError, JobCompletedError):
            return None
        await asyncio.sleep(0.02)
        return None


def _refuse_in_workflow() -> None:
    if running_strand() is not None:
        raise NotAllowedInWorkflowError("to use a Client or a WorkflowHandle", STEP)
