"""Outposts: members that serve those workers of an instance that have a connection of their own.

An outpost is a member without an engine: it has a guid, connections, leases and a place in roll calls of its own, and gets
its work from the stream, as a worker in another process does. In everything else it is a part of its instance, with which it
starts, is slowed, stops and fails. Workers with the same connection and login share one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import anyio

from hotmesh.errors import ConfigError, ConnectionFailedError, NotAuthorizedError, SchemaError
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.logins.credentials import login_of
from hotmesh.runtime.lifetime import Lifetime
from hotmesh.runtime.work.worker import Worker


@dataclass(frozen=True, slots=True)
class OutpostSpec:
    """A connection, and the workers that have it."""

    source: ConnectionSource
    secured: bool
    """Whether it has to be a worker login."""
    task_queue: str | None
    workers: list[Worker] = field(default_factory=list)

    @property
    def target(self) -> tuple[Any, str | None]:
        """Workers of the same place share a spec."""
        return self.source.ways, self.task_queue

    @property
    def topics(self) -> str:
        return ", ".join(dict.fromkeys(worker.topic for worker in self.workers))


class Outpost(Protocol):
    """A member that serves the workers of a spec."""

    lifetime: Lifetime


AnOutpost = TypeVar("AnOutpost", bound=Outpost)


class Outposts(Generic[AnOutpost]):
    """The outposts of one instance. `start` and `stop` are called within its lifetime.

    `begin` starts the member for a spec, with a guid.
    """

    def __init__(
        self,
        specs: Sequence[OutpostSpec],
        begin: Callable[[OutpostSpec, str], Awaitable[AnOutpost]],
        guid: str,
    ) -> None:
        self._specs = specs
        self._begin = begin
        self._guid = guid
        self._started: list[tuple[OutpostSpec, AnOutpost]] = []

    @property
    def members(self) -> tuple[AnOutpost, ...]:
        """Those that have been started."""
        return tuple(outpost for _, outpost in self._started)

    def at(self, source: ConnectionSource, task_queue: str | None) -> AnOutpost | None:
        """The outpost that has this connection."""
        target = source.ways, task_queue
        return next((outpost for spec, outpost in self._started if spec.target == target), None)

    async def start(self) -> None:
        """Start them all. Raises what `HotMesh.init` raises, and then says of which worker it is."""
        for number, spec in enumerate(self._specs, start=1):
            try:
                outpost = await self._begin(spec, f"{self._guid}.{number}")
            except ConnectionFailedError as error:
                raise ConnectionFailedError(f"worker {spec.topics}: {error.reason}") from error
            except (ConfigError, NotAuthorizedError, SchemaError) as error:
                raise type(error)(f"worker {spec.topics}: {error}") from error
            self._started.append((spec, outpost))

    async def stop(self, grace: float) -> None:
        """Stop them all at once, as `HotMesh.stop` does."""
        async with anyio.create_task_group() as tasks:
            for outpost in self.members:
                tasks.start_soon(outpost.lifetime.stop, grace)


def assign_workers(
    workers: Iterable[Worker], source: ConnectionSource, task_queue: str | None
) -> tuple[list[Worker], list[OutpostSpec]]:
    """The workers that an instance serves by its own connection, and the specs of the others.

    The instance's task queue, if it has one, is that of all its workers. Raises ConfigError.
    """
    own: list[Worker] = []
    specs: list[OutpostSpec] = []
    for worker in workers:
        found = source_of(worker, source)
        if found is source or worker.readonly:
            own.append(worker)
            continue
        queue = task_queue or worker.task_queue
        spec = next((spec for spec in specs if spec.target == (found.ways, queue)), None)
        if spec is None:
            spec = OutpostSpec(found, secured=worker.worker_credentials is not None, task_queue=queue)
            specs.append(spec)
        spec.workers.append(worker)
    return own, specs


def source_of(worker: Worker, source: ConnectionSource) -> ConnectionSource:
    """Where the connections of a worker come from; `source` itself if it is the instance's. Raises ConfigError."""
    try:
        found = source if worker.connection is None else source.given(worker.connection)
        if worker.worker_credentials is not None:
            found = found.logged_in(*login_of(worker.worker_credentials))
    except ConfigError as error:
        raise ConfigError(f"worker {worker.topic}: {error}") from None
    return source if found.ways == source.ways else found


def leading_worker(workers: Sequence[Worker], *, connected: bool) -> Worker | None:
    """The worker whose connection an instance without an engine takes for its own; None if it has to have another one.

    That is the first, if each of them has one of its own, and no connection was given that would be in vain.
    """
    serving = [worker for worker in workers if not worker.readonly]
    if not serving or not all(worker.is_apart for worker in serving):
        return None
    if connected and any(worker.connection is not None for worker in serving):
        return None
    return serving[0]
