"""The instances of `HotMesh` behind the static methods: one per target in a process, and more where they are asked for."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

import anyio
import anyio.to_thread

from hotmesh.core.arguments import checked_text
from hotmesh.core.duration import Duration, seconds
from hotmesh.core.state.retry import RetryPolicy
from hotmesh.errors import ConfigError
from hotmesh.mesh import HotMesh
from hotmesh.postgres.connect.options import ConnectionLike
from hotmesh.postgres.connect.source import LIBPQ, ConnectionSource
from hotmesh.runtime.messages import Response, StreamData
from hotmesh.runtime.telemetry.logs import level_number
from hotmesh.runtime.work.worker import Worker, is_asynchronous
from hotmesh.virtual.app import ensure_active
from hotmesh.virtual.context import serving, told

Callback = Callable[..., Any]

ENDLESS: Final = 2**31 - 1
"""Passes that the engine allows; a schedule counts its runs itself."""

RETRY: Final[Mapping[str, Any]] = {
    "maximum_attempts": 3,
    "backoff_coefficient": 2,
    "maximum_interval": 30,
}
"""How often a callback is tried, unless `retry` says otherwise."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where an app is."""

    connection: ConnectionLike
    namespace: str
    app_id: str
    log_level: str | int | None = None
    """Of the instance there: those that log differently are apart."""

    def __post_init__(self) -> None:
        checked_text(self.namespace, "namespace")
        checked_text(self.app_id, "app_id")
        if self.log_level is not None:
            level_number(self.log_level, "log_level=")

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for places that are the same."""
        if self.connection is not None:
            return (ConnectionSource(self.connection).key, self.namespace, self.app_id, self.log_level)
        # What it comes to depends on the environment, and takes a while to find out.
        found = tuple(os.environ.get(name) for name in ("HOTMESH_DATABASE_URL", *LIBPQ))
        return (found, self.namespace, self.app_id, self.log_level)


class Members:
    """All instances of one event loop that were made for calls and schedules."""

    def __init__(self) -> None:
        self._shared: dict[tuple[Any, ...], HotMesh] = {}
        self._starters: dict[tuple[Any, ...], HotMesh] = {}
        self._further: list[HotMesh] = []
        self._callbacks: dict[HotMesh, dict[str, Callback]] = {}
        self._lock = anyio.Lock()

    async def shared(self, target: Target) -> HotMesh:
        """The instance with an engine that all calls in this target go through."""
        return await self._known(self._shared, target)

    async def starter(self, target: Target) -> HotMesh:
        """An instance that can start jobs: the shared one if there is one, else one that processes nothing."""
        known = self._shared.get(target.key)
        if known is not None and not known.stopped:
            return known
        return await self._known(self._starters, target, readonly=True)

    async def serve(self, target: Target, worker: Worker, callback: Callback, guid: str | None) -> HotMesh:
        """Let a worker serve its topic from now on; the instance that it belongs to.

        The shared instance serves a topic for one callback. A further one gets an instance of its own, and so does a
        worker for which a `guid` is given.
        """
        if guid is None:
            mesh = await self.shared(target)
            callbacks = self._callbacks.setdefault(mesh, {})
            if worker.topic not in callbacks:
                mesh.add_worker(worker)
                callbacks[worker.topic] = callback
                return mesh
            if callbacks[worker.topic] == callback:
                return mesh
        mesh = await _begin(target, guid=guid, workers=[worker])
        self._further.append(mesh)
        return mesh

    async def stop(self) -> None:
        """Stop them all; those that are asked for afterwards are new."""
        found = [*self._shared.values(), *self._starters.values(), *self._further]
        self._shared.clear()
        self._starters.clear()
        self._further.clear()
        self._callbacks.clear()
        async with anyio.create_task_group() as tasks:
            for mesh in found:
                tasks.start_soon(mesh.stop)

    async def _known(
        self, known: dict[tuple[Any, ...], HotMesh], target: Target, *, readonly: bool = False
    ) -> HotMesh:
        key = target.key
        found = known.get(key)
        if found is not None and not found.stopped:
            return found
        async with self._lock:
            found = known.get(key)
            if found is None or found.stopped:
                if found is not None:
                    self._callbacks.pop(found, None)
                found = known[key] = await _begin(target, readonly=readonly)
            return found


async def _begin(
    target: Target, *, readonly: bool = False, guid: str | None = None, workers: list[Worker] | None = None
) -> HotMesh:
    mesh = await HotMesh.init(
        target.app_id,
        connection=target.connection,
        namespace=target.namespace,
        guid=guid,
        readonly=readonly,
        log_level=target.log_level,
        settings={"max_cycles": ENDLESS},
    )
    try:
        source = await anyio.to_thread.run_sync(partial(ConnectionSource.find, target.connection))
        await ensure_active(mesh, source)
        # Only now: until it is active, there is nothing to serve.
        for worker in workers or ():
            mesh.add_worker(worker)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await mesh.stop(grace=0)
        raise
    return mesh


def worker_for(
    topic: str,
    callback: Callback,
    retry: RetryPolicy | Mapping[str, Any] | None,
    timeout: Duration | None,
    max_concurrency: int | None,
) -> Worker:
    """A worker that calls `callback(*args)` and answers with what it returns."""
    if not callable(callback):
        raise ConfigError(f"the callback of {topic} is not callable: {callback!r}")
    policy = {**RETRY, **(retry or {})} if retry is None or isinstance(retry, Mapping) else retry
    limit = None if timeout is None else seconds(timeout, name="timeout")
    return Worker(topic, _answering(callback), max_concurrency, policy, limit)


def _answering(callback: Callback) -> Callable[[StreamData], Any]:
    if is_asynchronous(callback):

        async def answer(message: StreamData) -> Response:
            with serving(message), told(message):
                return Response({"response": await callback(*message.data["args"])})

        return answer

    def answer_in_thread(message: StreamData) -> Any:
        with serving(message), told(message):
            result = callback(*message.data["args"])
        return _awaited(message, result) if inspect.isawaitable(result) else Response({"response": result})

    return answer_in_thread


async def _awaited(message: StreamData, result: Awaitable[Any]) -> Response:
    """The answer of a plain function, such as a lambda, that has returned a coroutine."""
    with serving(message), told(message):
        return Response({"response": await result})


_members: WeakKeyDictionary[asyncio.AbstractEventLoop, Members] = WeakKeyDictionary()


def members() -> Members:
    """Those of the running event loop, to which instances belong."""
    loop = asyncio.get_running_loop()
    found = _members.get(loop)
    if found is None:
        found = _members[loop] = Members()
    return found
