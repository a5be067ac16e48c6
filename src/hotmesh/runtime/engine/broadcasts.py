"""Signals to every job that an index lists under a facet: called for, or sent by a flow as a broadcast."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from hotmesh.core.advance.activities.signal import make_signal
from hotmesh.core.mapping import Environment
from hotmesh.core.plan.compile import GraphPlan, Plan
from hotmesh.errors import CodecError, ConfigError, MappingError, SignalNotFoundError
from hotmesh.observe.statistics import resolve_query
from hotmesh.postgres import measures, signals
from hotmesh.postgres.database import Connection, Database
from hotmesh.runtime.wake import EVENTS

logger = logging.getLogger("hotmesh.engine")


async def signal_all(
    database: Database,
    connection: Connection,
    plan: Plan,
    topic: str,
    data: Mapping[str, Any],
    query: Mapping[str, Any],
    facets: Sequence[str],
    environment: Environment,
    *,
    broadcast: int | None = None,
) -> list[str]:
    """Signal every job listed under the facets; returns the index keys, one per slice and facet with members.

    All signals go in one statement, together with the end of the `broadcast` they came from.
    """
    graph = target_graph(plan, topic)
    now = datetime.now(UTC)
    timed = any(query.get(name) is not None for name in ("start", "end", "range"))
    resolved = resolve_query(
        graph, query if timed else {**query, "granularity": "infinity"}, now, environment
    )
    names = resolved.slice_names if timed else None
    rows = await measures.read_index(database, connection, graph.topic, resolved.key, names, list(facets))
    keys: list[str] = []
    payloads: list[str] = []
    found: dict[str, None] = {}
    for row in rows:
        payload = {**data, "id": row["job_id"]}
        signal = make_signal(plan, topic, payload, "success", 200, environment)
        keys.append(signal.key)
        payloads.append(database.payload.dumps(payload))
        found[f"{database.schema}:{database.app_id}:s:{resolved.key}:{row['slice']}:index:{row['facet']}"] = (
            None
        )
    await signals.send_signals(database, connection, topic, keys, payloads, broadcast, EVENTS)
    if query.get("scrub"):
        await measures.scrub_index(database, connection, graph.topic, resolved.key, names, list(facets))
    return list(found)


async def carry_out(database: Database, connection: Connection, plan: Plan, environment: Environment) -> bool:
    """Carry out one broadcast of a flow, in a transaction of its own; whether there was one."""
    async with connection.transaction():
        try:
            row = await signals.next_broadcast(database, connection)
        except CodecError as error:
            # For a process that can decode it.
            logger.error("broadcast cannot be decoded", extra={"error": str(error)})
            return False
        if row is None:
            return False
        try:
            await signal_all(
                database,
                connection,
                plan,
                row["topic"],
                row["data"] if isinstance(row["data"], Mapping) else {},
                row["query"],
                [row["facet"]],
                environment,
                broadcast=row["id"],
            )
        except (ConfigError, MappingError, SignalNotFoundError) as error:
            # It can never be carried out: kept as a dead letter, where somebody can see why.
            await signals.bury_broadcast(database, connection, row["id"], str(error))
    return True


def target_graph(plan: Plan, hook_topic: str) -> GraphPlan:
    """The graph whose hooks listen on the topic. Raises SignalNotFoundError."""
    for graph in plan.graphs.values():
        if hook_topic in graph.spec.hooks:
            return graph
    raise SignalNotFoundError(hook_topic)
