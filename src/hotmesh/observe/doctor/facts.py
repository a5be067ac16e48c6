"""What the doctor knows: plain values, read at one moment. None where the login may not see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Server:
    """The server. Limits are -1 where there is none; `clock_difference`: seconds by which its clock is ahead of ours."""

    version_number: int = 180000
    version: str = "18"
    role: str = ""
    database: str = ""
    autovacuum: bool = True
    sees_all: bool = True
    most_connections: int = 100
    connections: int = 1
    database_limit: int = -1
    database_connections: int = 1
    role_limit: int = -1
    role_connections: int = 1
    clock_difference: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Something that keeps dead rows from being removed; `seconds`: for how long, None where that is not shown.

    `asked`: seconds since its last statement began.
    """

    kind: str
    name: str
    role: str
    application: str
    state: str
    seconds: float | None
    transactions: int
    asked: float | None = None


@dataclass(frozen=True, slots=True)
class TableState:
    """A table: rows that live and that are dead, its size with indexes, seconds since it was vacuumed."""

    name: str
    live: int
    dead: int
    bytes: int
    vacuumed: float | None = None
    never_vacuumed: bool = False


@dataclass(frozen=True, slots=True)
class TopicState:
    """The work of a topic: how much can be taken, how much is held, for how many seconds the oldest has been ready."""

    topic: str
    ready: int
    held: int
    oldest: float


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds work: how much, for how many seconds more, and whether it is still there."""

    member: str
    held: int
    seconds: float
    is_there: bool


@dataclass(frozen=True, slots=True)
class StuckJob:
    job_id: str
    topic: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ParkedJob:
    """A durable function that does not go on, because of its code."""

    job_id: str
    name: str


@dataclass(frozen=True, slots=True)
class AppState:
    """An app. `retention_late`: seconds for which nobody has taken the turn of retention; None: nobody ever did."""

    app_id: str
    active_version: str | None = "1"
    has_versions: bool = True
    """Else there are durable functions only, which need none."""
    engines: int = 1
    others: int = 0
    has_open_jobs: bool = False
    due_events: int = 0
    oldest_event: float = 0.0
    dead_letters: int = 0
    expired_jobs: int = 0
    retention_late: float | None = None
    paused: tuple[str, ...] = ()
    topics: tuple[TopicState, ...] = ()
    holders: tuple[Holder, ...] = ()
    stuck: tuple[StuckJob, ...] = ()
    parked: tuple[ParkedJob, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it. `schema_problem`: why the tables do not fit this release, or that there are none (`no_tables`); `denied`: what could not be asked."""

    namespace: str = "hotmesh"
    library: str = ""
    server: Server = field(default_factory=Server)
    schema_problem: str | None = None
    no_tables: bool = False
    missing_rights: tuple[str, ...] = ()
    snapshots: tuple[Snapshot, ...] = ()
    tables: tuple[TableState, ...] = ()
    apps: tuple[AppState, ...] = ()
    denied: tuple[str, ...] = ()
    at: datetime | None = None
