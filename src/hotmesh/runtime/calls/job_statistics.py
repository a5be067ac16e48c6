"""What callers ask of the statistics of an app, and signals to all jobs that they list."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from hotmesh.core.arguments import checked_mapping, checked_text, checked_texts
from hotmesh.core.plan.compile import GraphPlan
from hotmesh.core.wire import normalise
from hotmesh.observe import statistics
from hotmesh.observe.statistics import ResolvedQuery
from hotmesh.runtime.engine.broadcasts import signal_all
from hotmesh.runtime.surroundings import Surroundings


class JobStatistics:
    """What is counted about the jobs of one app. `wake` tells the engine of this process of signals."""

    def __init__(self, surroundings: Surroundings, wake: Callable[[], None]) -> None:
        self._database = surroundings.database
        self._plans = surroundings.plans
        self._environment = surroundings.environment
        self._max_payload = surroundings.settings.max_payload
        self._wake = wake

    async def get_stats(self, topic: str, query: Mapping[str, Any]) -> dict[str, Any]:
        """What the graph's measures have counted. Raises ConfigError, TopicNotFoundError."""
        graph, resolved = await self.resolve(topic, query)
        return await statistics.get_stats(self._database, graph, resolved)

    async def get_ids(self, topic: str, query: Mapping[str, Any], facets: Sequence[str]) -> dict[str, Any]:
        """The jobs that its index measures list. Raises ConfigError, TopicNotFoundError."""
        wanted = checked_texts(facets, "facets")
        graph, resolved = await self.resolve(topic, query)
        return await statistics.get_ids(self._database, graph, resolved, wanted)

    async def resolve(self, topic: str, query: Mapping[str, Any]) -> tuple[GraphPlan, ResolvedQuery]:
        """The graph, and the query with its key and times worked out. Raises ConfigError, TopicNotFoundError."""
        wanted = checked_mapping(query, "query")
        graph = statistics.graph_of(await self._plans.active(), checked_text(topic, "topic"))
        return graph, statistics.resolve_query(graph, wanted, datetime.now(UTC), self._environment)

    async def signal_all(
        self, topic: str, data: Mapping[str, Any], query: Mapping[str, Any], facets: Sequence[str]
    ) -> list[str]:
        """Signal every job listed under the facets, in one transaction. Raises SignalNotFoundError, ConfigError."""
        checked_text(topic, "topic")
        wanted, facets = checked_mapping(query, "query"), checked_texts(facets, "facets")
        given = checked_mapping(data, "data")
        payload = normalise(given, limit=self._max_payload, what=f"data for signal {topic}")
        plan = await self._plans.active()
        async with self._database.connection() as connection, connection.transaction():
            found = await signal_all(
                self._database, connection, plan, topic, payload, wanted, facets, self._environment
            )
        self._wake()
        return found
