"""`Worker`: hosts workflow functions, and their steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self, Unpack

from hotmesh.core.arguments import checked_text
from hotmesh.core.durable.retry import RetryPolicy
from hotmesh.core.duration import Duration, seconds
from hotmesh.durable.activities import HostedActivity
from hotmesh.durable.convert import DEFAULT_CONVERTER, Converter
from hotmesh.durable.definition import activities_by_name, workflows_by_name
from hotmesh.durable.meshes import DEFAULT_NAMESPACE, checked_options, share, start_mesh
from hotmesh.durable.options import _duration as checked_duration
from hotmesh.durable.options import _queue as checked_queue
from hotmesh.durable.strands import Hosted
from hotmesh.durable.typed import MeshKeywords, WorkerFunctions, WorkerKeywords
from hotmesh.errors import ConfigError
from hotmesh.mesh import HotMesh
from hotmesh.postgres.connect.options import ConnectionLike
from hotmesh.replay import guard, patch

_OWN: Final = (
    "task_queue", "workflows", "activities", "namespace", "mesh", "retry", "converter", "max_concurrent_workflow_tasks",
    "max_concurrent_activities", "max_concurrent_local_activities", "unknown_activity_grace",
    "graceful_shutdown_timeout",
)  # fmt: skip


class Worker:
    """Hosts workflows of a queue. Use it as an async context manager, or `start` and `stop` it, or `run` it.

    async with Worker(DSN, task_queue="orders", workflows=[order]):
        ...

    `connection` is what `HotMesh.init` takes; or `mesh`: an instance that runs, and is not stopped with the worker.
    """

    def __init__(
        self,
        connection: ConnectionLike = None,
        *,
        task_queue: str,
        workflows: WorkerFunctions = (),
        activities: WorkerFunctions = (),
        namespace: str = DEFAULT_NAMESPACE,
        mesh: HotMesh | None = None,
        retry: RetryPolicy | Mapping[str, Any] | None = None,
        converter: Converter = DEFAULT_CONVERTER,
        max_concurrent_workflow_tasks: int | None = None,
        max_concurrent_activities: int = 100,
        max_concurrent_local_activities: int | None = None,
        unknown_activity_grace: Duration = 60.0,
        graceful_shutdown_timeout: Duration | None = None,
        **options: Unpack[MeshKeywords],
    ) -> None:
        """Raises ConfigError for functions that cannot be hosted; `options` are further ones of `HotMesh.init`."""
        if mesh is not None and (connection is not None or options):
            raise ConfigError("a Worker is given either a mesh, or a connection and options for one")
        self.task_queue = checked_queue(checked_text(task_queue, "task_queue"), "task_queue")
        self.namespace = namespace
        self._connection = connection
        self._options = checked_options(options, "Worker", _OWN)
        self._given = mesh
        self._mesh: HotMesh | None = None
        self._most = max_concurrent_workflow_tasks
        self._grace = graceful_shutdown_timeout
        policy = RetryPolicy.read(retry)
        self._hosted = {
            name: Hosted(definition, converter, policy)
            for name, definition in workflows_by_name(workflows).items()
        }
        self._activities = {
            name: HostedActivity(definition, converter)
            for name, definition in activities_by_name(activities).items()
        }
        self._most_activities = checked_limit(max_concurrent_activities, "max_concurrent_activities")
        self._most_steps = max_concurrent_local_activities
        if max_concurrent_local_activities is not None:
            checked_limit(max_concurrent_local_activities, "max_concurrent_local_activities")
        self._unknown_grace = checked_duration(unknown_activity_grace, "unknown_activity_grace of a Worker")
        if not self._hosted and not self._activities:
            raise ConfigError(
                "a Worker needs workflows=[function, ...], or activities=[function, ...], or both"
            )
        for hosted in self._hosted.values():
            hosted.definition.signature(converter)  # what cannot be stored is said here

    @classmethod
    async def create(cls, connection: ConnectionLike = None, **options: Unpack[WorkerKeywords]) -> Self:
        """A worker that has started."""
        worker = cls(connection, **options)
        await worker.start()
        return worker

    @property
    def mesh(self) -> HotMesh:
        """The instance that it runs on. Raises ConfigError before its start."""
        if self._mesh is None:
            raise ConfigError(
                "this Worker has not been started: `async with worker`, or `await worker.start()`"
            )
        return self._mesh

    async def start(self) -> None:
        """Host the functions from now on."""
        if self._mesh is not None and not self._mesh.stopped:
            return
        patch()
        guard()
        mesh = self._given
        if mesh is None:
            mesh = await start_mesh(self._connection, self.namespace, **self._options)
        try:
            functions = mesh._member.functions
            if functions is None:
                raise ConfigError(
                    "a Worker needs an engine in its process, and this instance has engine=False"
                )
            if self._hosted:
                await functions.host(self.task_queue, self._hosted, self._most, self._most_steps)
            if self._activities:
                await functions.host_activities(
                    self.task_queue, self._activities, self._most_activities, self._unknown_grace
                )
        except BaseException:
            if mesh is not self._given:
                await mesh.stop(0)
            raise
        self._mesh = mesh
        if self._given is None:
            share(self._connection, self.namespace, mesh)

    async def stop(self, grace: Duration | None = None) -> None:
        """Take nothing more, let running steps finish (at most `grace`), let others have the rest at once.

        Of a `mesh` that was given only the functions of this worker: the instance runs on.
        """
        patience = self._grace if grace is None else grace
        mesh, given = self._mesh, self._given
        if mesh is None:
            return
        if given is None:
            await mesh.stop(patience)
        elif not mesh.stopped:
            self._mesh = None
            functions = mesh._member.functions
            if functions is not None:
                longest = None if patience is None else seconds(patience, name="grace")
                await functions.leave(
                    self.task_queue, list(self._hosted), list(self._activities), self._most_steps, longest
                )

    async def run(self) -> None:
        """Start, and stay until `stop`, or until this is cancelled. Raises InstanceFailedError if a fault ends it."""
        await self.start()
        try:
            await self.mesh.closed()
        finally:
            await self.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def checked_limit(value: Any, name: str) -> int:
    """How many of something may run at once. Raises ConfigError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} of a Worker must be an integer of at least 1, not {value!r}")
    return value
