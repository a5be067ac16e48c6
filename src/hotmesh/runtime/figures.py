"""The figures of one instance: what it has counted, what it has at hand, and what waits in its queues."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from hotmesh.runtime.metrics import Family, Label, Metrics, Value, as_dict, gauge, queue_families

if TYPE_CHECKING:
    from hotmesh.postgres.store import Store
    from hotmesh.runtime.engine import Engine
    from hotmesh.runtime.listener import Listener
    from hotmesh.runtime.workers import Workers


class Figures:
    """What an endpoint or a caller asks of an instance."""

    def __init__(
        self,
        store: Store,
        member: str,
        metrics: Metrics,
        workers: Workers,
        listener: Listener,
        engine: Engine | None,
    ) -> None:
        self.app_id = store.app_id
        self.namespace = store.schema
        self.database: Any = store.source.key
        self.loop = asyncio.get_running_loop()
        self._store = store
        self._member = member
        self._metrics = metrics
        self._workers = workers
        self._listener = listener
        self._engine = engine

    def counted(self) -> list[Family]:
        """Counters and histograms."""
        lost: dict[Label, Value] = {("listener",): self._listener.reconnects}
        for link in list(self._store.links):
            lost[(link.name,)] = link.reconnects
        text = "Connections to Postgres made again."
        return [*self._metrics.families(), Family("reconnects", "counter", text, ("connection",), lost)]

    def measured(self) -> list[Family]:
        """Gauges that cost nothing."""
        running: dict[Label, Value] = {
            (topic,): count for topic, count in Counter(self._workers.running_topics()).items()
        }
        found = [gauge("callbacks_running", "Callbacks that run now.", ("topic",), running)]
        rates: dict[Label, Value] = {
            (self._member, worker.worker.topic): worker.rate for worker in self._workers.figures()
        }
        if self._engine is not None:
            rates[self._member, ""] = self._engine.pace.rate
            jobs, size, waiting = self._engine.load
            found += [
                gauge("jobs_in_memory", "Jobs that this process keeps in memory.", (), {(): jobs}),
                gauge("memory_bytes", "About how many bytes of them.", (), {(): size}),
                gauge("steps_waiting", "Steps that wait for the next commit.", (), {(): waiting}),
            ]
        text = 'Least time between two messages of a worker, or of the engine (topic ""); -1: paused.'
        return [*found, gauge("throttle_milliseconds", text, ("member", "topic"), rates)]

    async def queued(self) -> list[Family]:
        """Gauges that cost one statement."""
        return queue_families(await self._store.queue_depth())

    async def as_dict(self, *, queues: bool) -> dict[str, Any]:
        """All of it, as plain data."""
        families = [*self.counted(), *self.measured()]
        return as_dict([*families, *await self.queued()] if queues else families)
