"""What a member says about itself in a roll call: one profile for its engine, and one for each of its workers."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import anyio.to_thread

from hotmesh.core.state.job import timestamp
from hotmesh.runtime.engine.engine import Engine
from hotmesh.runtime.messages import Attributes
from hotmesh.runtime.settings import Settings
from hotmesh.runtime.work.workers import Workers


class QuorumProfile(Attributes):
    """An engine or a worker as it describes itself; `profile.engine_id` is `profile["engine_id"]`.

    `namespace`, `app_id`, `engine_id` (the guid of the instance), `worker_topic` (workers only), `stream` and
    `stream_depth` (messages there, waiting or reserved), `counts` (handled or answered so far, by code), `error_count`
    (failures in a row), `inited` and `timestamp` (`YYYYMMDDHHMMSS.mmm`, UTC), `throttle` (milliseconds, -1 paused),
    `reclaimDelay` (the lease, in milliseconds), `reclaimCount` (deliveries before a message is given up), `is_scout`
    (engines; always false, every member looks for itself), `system` (the host), `duress_level`, `duress_score_ms`
    and `duress_per_type` (engines), `signature` (workers, in the messages of a roll call that asked for it).
    """

    __slots__ = ()


class Profiles:
    """The profiles of one instance."""

    def __init__(
        self,
        namespace: str,
        app_id: str,
        guid: str,
        settings: Settings,
        engine: Engine | None,
        workers: Workers,
    ) -> None:
        self._namespace = namespace
        self._app_id = app_id
        self._guid = guid
        self._settings = settings
        self._engine = engine
        self._workers = workers
        self._inited = timestamp(datetime.now(UTC))
        self._host = Host()

    async def all(self) -> list[QuorumProfile]:
        """The profile of the engine, if there is one, and of each worker, without the depth of their streams."""
        system = await self._host.figures()
        found = [] if self._engine is None else [self._of_engine(self._engine, system)]
        return found + [profile for profile, _ in self._of_workers(system)]

    async def of_engine(self) -> list[QuorumProfile]:
        """The profile of the engine, if there is one."""
        return [] if self._engine is None else [self._of_engine(self._engine, await self._host.figures())]

    async def of_workers(self, topic: str | None, *, signature: bool) -> list[QuorumProfile]:
        """The profiles of the workers, or of those of a topic; with the signatures of their callbacks if asked for."""
        found = []
        for profile, callback in self._of_workers(await self._host.figures()):
            if topic is None or profile["worker_topic"] == topic:
                if signature:
                    profile["signature"] = await anyio.to_thread.run_sync(signature_of, callback)
                found.append(profile)
        return found

    def _of_engine(self, engine: Engine, system: dict[str, Any]) -> QuorumProfile:
        duress = engine.duress.reading()
        delay = engine.pace.delay
        return self._profile(
            None,
            counts=engine.counts,
            error_count=engine.error_count,
            throttle=round(delay),
            system=system,
            is_scout=False,
            duress_level=duress.level,
            duress_score_ms=duress.score,
            duress_per_type=duress.per_type,
        )

    def _of_workers(self, system: dict[str, Any]) -> list[tuple[QuorumProfile, Callable[..., Any]]]:
        return [
            (
                self._profile(
                    figures.worker.topic,
                    counts=figures.counts,
                    error_count=figures.error_count,
                    throttle=figures.rate,
                    system=system,
                ),
                figures.worker.callback,
            )
            for figures in self._workers.figures()
        ]

    def _profile(self, topic: str | None, *, counts: dict[int, int], **more: Any) -> QuorumProfile:
        stream = f"{self._namespace}:{self._app_id}:x:"
        found: dict[str, Any] = {
            "namespace": self._namespace,
            "app_id": self._app_id,
            "engine_id": self._guid,
        }
        if topic is not None:
            found["worker_topic"] = topic
            stream += topic
        return QuorumProfile(
            found
            | {
                "stream": stream,
                "stream_depth": 0,
                "counts": {str(code): count for code, count in sorted(counts.items())},
                "inited": self._inited,
                "timestamp": timestamp(datetime.now(UTC)),
                "reclaimDelay": round(self._settings.lease * 1_000),
                "reclaimCount": self._settings.poison_threshold,
            }
            | more
        )


class Host:
    """What the machine has left, at most a second old."""

    def __init__(self) -> None:
        self._read_at = float("-inf")
        self._snapshot: dict[str, Any] = {}

    async def figures(self) -> dict[str, Any]:
        """Read in a thread, because it may have to wait."""
        if time.monotonic() - self._read_at >= FRESH:
            self._snapshot = await anyio.to_thread.run_sync(_read_host, not self._snapshot)
            self._read_at = time.monotonic()
        return self._snapshot


def _read_host(first: bool) -> dict[str, Any]:
    import psutil

    memory = psutil.virtual_memory()
    return {
        "TotalMemoryGB": f"{memory.total / GIB:.2f} GB",
        "FreeMemoryGB": f"{memory.available / GIB:.2f} GB",
        "UsedMemoryGB": f"{(memory.total - memory.available) / GIB:.2f} GB",
        # Since it was last asked for; there has to have been such a time.
        "CPULoad": psutil.cpu_percent(interval=0.05 if first else None, percpu=True),
        "NetworkStats": [
            {
                "iface": name,
                "bytes_sent": counted.bytes_sent,
                "bytes_recv": counted.bytes_recv,
                "errors": counted.errin + counted.errout,
                "dropped": counted.dropin + counted.dropout,
            }
            for name, counted in sorted(psutil.net_io_counters(pernic=True).items())[:MOST_INTERFACES]
        ],
    }


def signature_of(callback: Callable[..., Any]) -> str:
    """The qualified name of a callback, and its source where there is one."""
    target = inspect.unwrap(getattr(callback, "func", callback))
    if not inspect.isroutine(target):
        target = type(target)
    name = f"{target.__module__}.{target.__qualname__}"
    try:
        return f"{name}\n{inspect.getsource(target)}"
    except (OSError, TypeError):
        return name


FRESH: Final = 1.0
"""Seconds for which the figures of the host are good."""

GIB: Final = 1024**3

MOST_INTERFACES: Final = 8
"""A machine with containers has hundreds."""
