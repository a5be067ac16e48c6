"""The figures of one instance: what it has counted, what it has at hand, and what waits in its queues."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from hotmesh.observe.queues import queue_depths
from hotmesh.postgres.database import Database
from hotmesh.runtime.engine.engine import Engine
from hotmesh.runtime.members.listener import Listener
from hotmesh.runtime.telemetry.metrics import Family, Label, Metrics, Value, as_dict, gauge, queue_families
from hotmesh.runtime.work.workers import Workers


class MetricsSnapshot:
    """What an endpoint or a caller asks of an instance."""

    def __init__(
        self,
        database: Database,
        member: str,
        metrics: Metrics,
        workers: Workers,
        listener: Listener,
        engine: Engine | None,
        outposts: Callable[[], Iterable[MetricsSnapshot]] = tuple,
    ) -> None:
        self.app_id = database.app_id
        self.namespace = database.schema
        self.database: Any = database.source.key
        self.loop = asyncio.get_running_loop()
        self._database = database
        self._member = member
        self._metrics = metrics
        self._workers = workers
        self._listener = listener
        self._engine = engine
        self._outposts = outposts

    def counted(self) -> list[Family]:
        """Counters and histograms, those of its outposts included."""
        return _sums([self._counted(), *(outpost.counted() for outpost in self._outposts())])

    def measured(self) -> list[Family]:
        """Gauges that cost nothing, those of its outposts included."""
        return _sums([self._measured(), *(outpost.measured() for outpost in self._outposts())])

    def _counted(self) -> list[Family]:
        lost: dict[Label, Value] = {("listener",): self._listener.reconnects}
        for link in list(self._database.links):
            lost[(link.name,)] = link.reconnects
        text = "Connections to Postgres made again."
        found = self._metrics.families()
        if self._engine is not None:
            text_of_replays = "How often the code of a durable function was run again from its beginning."
            found.append(
                Family("workflow_replays", "counter", text_of_replays, (), {(): self._engine.turns.replays})
            )
        return [*found, Family("reconnects", "counter", text, ("connection",), lost)]

    def _measured(self) -> list[Family]:
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
            turns = self._engine.turns
            suspended, steps = len(turns.suspended), turns.steps.running
            found += [
                gauge("jobs_in_memory", "Jobs that this process keeps in memory.", (), {(): jobs}),
                gauge("memory_bytes", "About how many bytes of them.", (), {(): size}),
                gauge(
                    "workflows_in_memory",
                    "Durable functions whose code this process keeps suspended.",
                    (),
                    {(): suspended},
                ),
                gauge(
                    "local_steps_running", "Steps of durable functions that run here now.", (), {(): steps}
                ),
                gauge("steps_waiting", "Steps that wait for the next commit.", (), {(): waiting}),
            ]
        text = 'Least time between two messages of a worker, or of the engine (topic ""); -1: paused.'
        return [*found, gauge("throttle_milliseconds", text, ("member", "topic"), rates)]

    async def queued(self) -> list[Family]:
        """Gauges that cost one statement."""
        return queue_families(await queue_depths(self._database))

    async def as_dict(self, *, queues: bool) -> dict[str, Any]:
        """All of it, as plain data."""
        families = [*self.counted(), *self.measured()]
        return as_dict([*families, *await self.queued()] if queues else families)


def _sums(figures: Iterable[Iterable[Family]]) -> list[Family]:
    """The same metrics of several members together."""
    found: dict[str, Family] = {}
    for families in figures:
        for family in families:
            known = found.get(family.name)
            found[family.name] = family if known is None else known.plus(family)
    return list(found.values())
