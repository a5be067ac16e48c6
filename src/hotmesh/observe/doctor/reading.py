"""Asks the database for the facts, as far as the login may see them. Nothing is changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from hotmesh.errors import NotAuthorizedError, SchemaError
from hotmesh.observe.doctor.facts import (
    AppState,
    Facts,
    Holder,
    ParkedJob,
    Server,
    Snapshot,
    StuckJob,
    TableState,
    TopicState,
)
from hotmesh.observe.doctor.findings import MOST_STUCK
from hotmesh.observe.observer import Observer
from hotmesh.postgres.migrate import FUNCTIONS, functions_checksum, migrations
from hotmesh.version import __version__


@dataclass(slots=True)
class _Reader:
    observer: Observer
    denied: list[str] = field(default_factory=list)

    async def rows(self, query: str, *arguments: object) -> list[dict[str, Any]]:
        """The rows, or none if the login may not ask this."""
        try:
            return [dict(row) for row in await self.observer.rows(query, *arguments)]
        except NotAuthorizedError:
            self.denied.append(query)
            return []


async def read(observer: Observer, namespace: str, app_id: str | None = None) -> Facts:
    """The facts of a namespace and of one app in it, or of all. Raises ConnectionFailedError, ConnectionLostError."""
    reader = _Reader(observer)
    before = datetime.now(UTC)
    (row,) = await observer.rows("doctor_server")
    after = datetime.now(UTC)
    given = dict(row)
    now: datetime = given.pop("now")
    server = Server(**given, clock_difference=_difference(now, before, after))
    (ledger,) = await observer.rows("has_ledger", namespace)
    problem = await _schema_problem(reader, namespace, there_are_tables=ledger["exists"])
    snapshots = [
        Snapshot(seconds=_seconds(now, row.pop("since")), asked=_seconds(now, row.pop("asked_at")), **row)
        for row in await reader.rows("doctor_snapshots")
    ]
    tables = [
        TableState(vacuumed=_seconds(now, row.pop("vacuumed_at")), **row)
        for row in await reader.rows("doctor_tables", namespace)
    ]
    missing = [
        row["missing"] for row in await reader.rows("doctor_rights", namespace) if row["missing"] is not None
    ]
    apps: list[AppState] = []
    if problem is None:
        wanted = [row["app_id"] for row in await reader.rows("list_apps")]
        apps = [
            found
            for name in wanted
            if app_id in (None, name) and (found := await _app(reader, name)) is not None
        ]
    return Facts(
        namespace,
        __version__,
        server,
        problem,
        not ledger["exists"],
        tuple(missing),
        tuple(snapshots),
        tuple(tables),
        tuple(apps),
        tuple(dict.fromkeys(reader.denied)),
        now,
    )


async def _app(reader: _Reader, app_id: str) -> AppState | None:
    rows = await reader.rows("doctor_app", app_id)
    if not rows:
        return None
    row = rows[0]
    now = row.pop("now")
    row["retention_late"] = _seconds(now, row.pop("retention_due_at"))
    row["paused"] = tuple(row["paused"])
    row["oldest_event"] = row["oldest_event"] or 0.0
    stuck = [
        StuckJob(job["job_id"], job["topic"], (now - job["updated_at"]).total_seconds())
        for job in await reader.rows("doctor_stuck", app_id, MOST_STUCK)
    ]
    return AppState(
        app_id,
        **row,
        topics=tuple(TopicState(**topic) for topic in await reader.rows("doctor_topics", app_id)),
        holders=tuple(Holder(**holder) for holder in await reader.rows("doctor_holders", app_id)),
        stuck=tuple(stuck),
        parked=tuple(
            ParkedJob(job["job_id"], job["topic"])
            for job in await reader.rows("doctor_parked", app_id, MOST_STUCK)
        ),
    )


async def _schema_problem(reader: _Reader, namespace: str, *, there_are_tables: bool) -> str | None:
    """Why the tables are not those of this release; None if they are, or if the login may not read the ledger."""
    if not there_are_tables:
        return f"there are no hotmesh tables in namespace {namespace}"
    try:
        applied = {row["version"]: row["checksum"] for row in await reader.rows("list_migrations")}
    except SchemaError as error:
        return str(error)
    if not applied:
        return None
    known = migrations(namespace)
    newest = max(applied)
    if newest > known[-1].version:
        return f"schema {namespace} is at version {newest}, this release knows up to {known[-1].version}"
    missing = [f"{one.version:04d}_{one.name}" for one in known if one.version not in applied]
    if missing:
        return f"schema {namespace} lacks {', '.join(missing)}"
    changed = [one.name for one in known if applied[one.version] != one.checksum]
    if changed:
        return f"schema {namespace} was made by another form of {', '.join(changed)}"
    if applied.get(FUNCTIONS) != functions_checksum():
        return f"the stored functions of schema {namespace} are those of another release"
    return None


def _difference(theirs: datetime, before: datetime, after: datetime) -> float:
    """Seconds by which their clock is ahead of ours, beyond what the question took."""
    if theirs > after:
        return (theirs - after).total_seconds()
    return (theirs - before).total_seconds() if theirs < before else 0.0


def _seconds(now: datetime, since: datetime | None) -> float | None:
    return None if since is None else (now - since).total_seconds()
