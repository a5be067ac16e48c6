"""What the services of one member have in common."""

from __future__ import annotations

from dataclasses import dataclass

from hotmesh.core.mapping import Environment
from hotmesh.postgres.database import Database
from hotmesh.postgres.work import WorkQueue
from hotmesh.runtime.definitions.plans import Plans
from hotmesh.runtime.settings import Settings
from hotmesh.runtime.telemetry.events import Events
from hotmesh.runtime.telemetry.metrics import Metrics
from hotmesh.runtime.telemetry.tracing import Telemetry


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a service works: its app's tables and definitions, who it belongs to, and who is told what it does."""

    database: Database
    work: WorkQueue
    plans: Plans
    member: str
    settings: Settings
    environment: Environment
    metrics: Metrics
    events: Events | None = None
    telemetry: Telemetry | None = None
