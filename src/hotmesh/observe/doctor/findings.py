"""What facts mean: one pure function for each thing that can be wrong. `examine` asks them all.

The page `docs/operations.md` says of each finding, by its code, what it means and what to do.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from hotmesh.observe.doctor.facts import AppState, Facts, Snapshot
from hotmesh.observe.explain.text import plural

Severity = Literal["warning", "error"]

OLDEST_POSTGRES: Final = 140000
MINUTE: Final = 60.0

MOST_STUCK: Final = 20
"""Stuck jobs, and parked ones, that are looked for."""

SUSPICIOUS: Final = 5_000
"""Transactions that have begun since a snapshot was taken whose age in time is not shown."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: a code to look it up by, how bad it is, what was seen, and what to do."""

    code: str
    severity: Severity
    what: str
    todo: str
    app_id: str | None = None


def examine(facts: Facts) -> list[Finding]:
    """Everything that is wrong, errors first."""
    found = [finding for check in CHECKS for finding in check(facts)]
    return sorted(found, key=lambda finding: finding.severity != "error")


def exit_code(findings: list[Finding]) -> int:
    """0: nothing is wrong, 1: there are warnings, 2: there are errors."""
    if any(finding.severity == "error" for finding in findings):
        return 2
    return 1 if findings else 0


# -- the server ----------------------------------------------------------------------------------------------


def old_postgres(facts: Facts) -> Iterator[Finding]:
    if facts.server.version_number < OLDEST_POSTGRES:
        what = f"Postgres {facts.server.version} is older than 14"
        yield Finding("old-postgres", "error", what, "upgrade Postgres to 14 or newer")


def clock_difference(facts: Facts) -> Iterator[Finding]:
    seconds = facts.server.clock_difference
    if abs(seconds) >= 1:
        side = "ahead of" if seconds > 0 else "behind"
        what = f"the clock of the database is {abs(seconds):.1f} s {side} that of this machine"
        yield Finding(
            "clock-difference",
            "error" if abs(seconds) >= 30 else "warning",
            what,
            "let both follow a time server (chrony, systemd-timesyncd); cron ticks and times in logs differ by it",
        )


def connection_budget(facts: Facts) -> Iterator[Finding]:
    server = facts.server
    for used, most, where, option in (
        (server.connections, server.most_connections, "the server", "max_connections"),
        (
            server.database_connections,
            server.database_limit,
            f"database {server.database}",
            "its connection limit",
        ),
        (server.role_connections, server.role_limit, f"role {server.role}", "its connection limit"),
    ):
        if most > 0 and used >= 0.8 * most:
            yield Finding(
                "connection-budget",
                "error" if used >= 0.95 * most else "warning",
                f"{used} of {most} connections of {where} are in use; an instance keeps up to 9",
                f"raise {option}, or let instances of a process share connections (task_queue)",
            )


def hidden_sessions(facts: Facts) -> Iterator[Finding]:
    # Every statement holds a snapshot for a moment; one that many transactions have overtaken may be an old one.
    hidden = any(
        one.kind == "session" and one.seconds is None and one.transactions >= SUSPICIOUS
        for one in facts.snapshots
    )
    if hidden and not facts.server.sees_all:
        yield Finding(
            "hidden-sessions",
            "warning",
            f"role {facts.server.role} is not shown since when other roles' sessions hold their snapshots",
            f"grant pg_read_all_stats to {facts.server.role}, or run the doctor as another role",
        )


# -- dead rows -----------------------------------------------------------------------------------------------


def held_snapshots(facts: Facts) -> Iterator[Finding]:
    for one in facts.snapshots:
        severity = _holding(one)
        if severity is None:
            continue
        since = "" if one.seconds is None else f" for {_length(one.seconds)}"
        whose = " ".join(
            part
            for part in (one.role and f"of {one.role}", one.application and f"({one.application})")
            if part
        )
        state = f", {one.state}" if one.state else ""
        asked = "" if one.asked is None else f", its last statement began {_length(one.asked)} ago"
        logical = one.kind == "logical replication slot"
        harm = (
            "no row of the catalog that was deleted since is removed, and the log grows"
            if logical
            else "no row that was deleted since is removed, and the tables grow"
        )
        yield Finding(
            "held-snapshot",
            severity,
            f"{one.kind} {one.name}{' ' + whose if whose else ''}{state} holds a snapshot{since}, "
            f"{plural(one.transactions, 'transaction')} old{asked}: {harm}",
            {
                "session": f"let it end its transaction, or end it: select pg_terminate_backend({one.name})",
                "prepared transaction": f"commit it, or roll it back: rollback prepared '{one.name}'",
                "replication slot": f"let its consumer catch up, or drop it: select pg_drop_replication_slot('{one.name}')",
            }.get(
                one.kind.removeprefix("logical "),
                "end the long query on the standby, or turn its hot_standby_feedback off",
            ),
        )


def _holding(one: Snapshot) -> Severity | None:
    if one.seconds is not None:
        if one.seconds >= 30 * MINUTE:
            return "error"
        return "warning" if one.seconds >= MINUTE else None
    if one.transactions >= 1_000_000:
        return "error"
    return "warning" if one.transactions >= 50_000 else None


def autovacuum_off(facts: Facts) -> Iterator[Finding]:
    if not facts.server.autovacuum:
        yield Finding(
            "autovacuum-off",
            "error",
            "autovacuum (or track_counts, which it needs) is off: the tables only grow, and get slow",
            "alter system set autovacuum = on; alter system set track_counts = on; select pg_reload_conf()",
        )
    for table in facts.tables:
        if table.never_vacuumed:
            yield Finding(
                "autovacuum-off",
                "error",
                f"autovacuum is off for table {table.name}",
                f"alter table {facts.namespace}.{table.name} reset (autovacuum_enabled)",
            )


def autovacuum_behind(facts: Facts) -> Iterator[Finding]:
    for table in facts.tables:
        if table.dead >= 100_000 and table.dead >= 2 * table.live:
            when = "never" if table.vacuumed is None else f"{_length(table.vacuumed)} ago"
            yield Finding(
                "autovacuum-behind",
                "warning",
                f"table {table.name} has {table.dead:,} dead rows beside {table.live:,}; vacuumed {when}",
                "look for held snapshots; else raise autovacuum_max_workers or autovacuum_vacuum_cost_limit, and run: "
                f"vacuum {facts.namespace}.{table.name}",
            )


def bloat(facts: Facts) -> Iterator[Finding]:
    for table in facts.tables:
        if table.bytes >= 256 * 2**20 and table.bytes >= 20_000 * max(table.live, 1) and table.dead < 100_000:
            yield Finding(
                "bloat",
                "warning",
                f"table {table.name} takes {table.bytes / 2**20:,.0f} MB for {plural(table.live, 'row')}",
                f"in a quiet hour: vacuum full {facts.namespace}.{table.name} (it locks the table), or pg_repack",
            )


# -- the namespace -------------------------------------------------------------------------------------------


def schema_state(facts: Facts) -> Iterator[Finding]:
    if facts.schema_problem is not None:
        todo = "run `hotmesh migrate` with a role that may"
        if not facts.no_tables:
            todo += ", or use the release that the schema is of"
        yield Finding("schema", "error", f"{facts.schema_problem} (hotmesh {facts.library})", todo)


def missing_grants(facts: Facts) -> Iterator[Finding]:
    if facts.missing_rights:
        some = ", ".join(facts.missing_rights[:5])
        more = f" and {len(facts.missing_rights) - 5} more" if len(facts.missing_rights) > 5 else ""
        yield Finding(
            "missing-grants",
            "error",
            f"role {facts.server.role} lacks {some}{more}",
            f"as the owner of the schema: `hotmesh migrate --grant {shlex.quote(facts.server.role)}`",
        )
    for query in facts.denied:
        what = f"role {facts.server.role} may not ask for {query}: what it would tell is not known"
        yield Finding("not-examined", "warning", what, "run the doctor with the login of the app")


# -- the apps ------------------------------------------------------------------------------------------------


def nothing_active(app: AppState) -> Iterator[Finding]:
    if app.active_version is None and app.has_versions:
        what = "no version is active: nothing can be started"
        yield Finding("nothing-active", "warning", what, "activate a version: mesh.activate(…)", app.app_id)


def no_engine(app: AppState) -> Iterator[Finding]:
    if app.engines == 0:
        waiting = app.has_open_jobs or app.due_events > 0
        if waiting:
            what = "no engine is there, and jobs are open: none of them goes on"
            todo = "start a process with HotMesh.init (engine=True)"
            yield Finding("no-engine", "error", what, todo, app.app_id)


def events_behind(app: AppState) -> Iterator[Finding]:
    if app.engines and app.oldest_event >= 30:
        events = _number(app.due_events, "event")
        yield Finding(
            "events-behind",
            "error" if app.oldest_event >= 5 * MINUTE else "warning",
            f"{events} {_wait(app.due_events)} for {plural(app.engines, 'engine')}, the oldest for {_length(app.oldest_event)}",
            "start more engines, and look at their logs (hotmesh.engine); `hotmesh members` shows rates and duress",
            app.app_id,
        )


def topics_without_workers(app: AppState) -> Iterator[Finding]:
    for topic in app.topics:
        stopped = "workers" in app.paused or f"workers of {topic.topic}" in app.paused
        if topic.ready and not topic.held and topic.oldest >= 10 and not stopped:
            yield Finding(
                "no-worker",
                "error" if topic.oldest >= 5 * MINUTE else "warning",
                f"{_work(topic.ready)} of topic {topic.topic} {_wait(topic.ready)}, for {_length(topic.oldest)}, and nobody takes any",
                f'start a worker: Worker("{topic.topic}", callback); `hotmesh members` shows those that are there',
                app.app_id,
            )


def dead_members(app: AppState) -> Iterator[Finding]:
    for holder in app.holders:
        if not holder.is_there:
            yield Finding(
                "dead-member",
                "warning",
                f"member {holder.member} is gone, or has lost its connection, and holds {_work(holder.held)} "
                f"for {_length(holder.seconds)} more",
                "an engine gives back what the dead hold within seconds; if this is still said then, start an engine, "
                "or wait until the lease is over",
                app.app_id,
            )


def stuck_jobs(app: AppState) -> Iterator[Finding]:
    if app.stuck:
        some = ", ".join(job.job_id for job in app.stuck[:5])
        jobs = _number(len(app.stuck), "job", most=MOST_STUCK)
        yield Finding(
            "stuck-job",
            "error",
            f"{jobs} {'runs' if len(app.stuck) == 1 else 'run'}, and nothing is waiting that could let {'it' if len(app.stuck) == 1 else 'them'} go on: {some}",
            f"`hotmesh explain {shlex.quote(app.stuck[0].job_id)} --app {app.app_id}`; interrupt what is stuck, and report it",
            app.app_id,
        )


def parked_jobs(app: AppState) -> Iterator[Finding]:
    if app.parked:
        first = app.parked[0]
        some = ", ".join(job.job_id for job in app.parked[:5])
        jobs = _number(len(app.parked), "workflow", most=MOST_STUCK)
        yield Finding(
            "parked",
            "error",
            f"{jobs} {'is' if len(app.parked) == 1 else 'are'} parked, because of {'its' if len(app.parked) == 1 else 'their'} code: {some}",
            f"`hotmesh explain {shlex.quote(first.job_id)} --app {app.app_id}` says what of {first.name} does not fit; "
            "it goes on by itself once a worker runs code that does",
            app.app_id,
        )


def given_up(app: AppState) -> Iterator[Finding]:
    if app.dead_letters:
        yield Finding(
            "dead-letters",
            "warning",
            f"{_number(app.dead_letters, 'dead letter')}: work or jobs that were given up",
            f"`hotmesh dead-letters list --app {app.app_id}`; requeue or discard them",
            app.app_id,
        )


def consumers_paused(app: AppState) -> Iterator[Finding]:
    for what in app.paused:
        yield Finding(
            "paused",
            "warning",
            f"{what} are paused",
            f"`hotmesh resume{_whom(what)} --app {app.app_id}`",
            app.app_id,
        )


def retention_off(app: AppState) -> Iterator[Finding]:
    alive = app.retention_late is not None and app.retention_late < 60 * MINUTE
    if app.expired_jobs >= 10_000 and not alive:
        yield Finding(
            "retention-off",
            "warning",
            f"{_number(app.expired_jobs, 'job')} are over since more than an hour, and nobody deletes them",
            f'HotMesh.init(retention="7 days") in one process or all, or: `hotmesh prune --app {app.app_id}`',
            app.app_id,
        )


MOST_COUNTED: Final = 100_000
"""Rows of a kind that are counted."""


def _number(count: int, noun: str, most: int = MOST_COUNTED) -> str:
    """`1 event`, `20 or more events`: only so many are counted."""
    return plural(count, noun) if count < most else f"{count:,} or more {noun}s"


def _work(count: int) -> str:
    return plural(count, "piece of work", "pieces of work")


def _wait(count: int) -> str:
    return "waits" if count == 1 else "wait"


def _whom(paused: str) -> str:
    """The options of `hotmesh resume` for what is paused: `engines`, `workers`, or `workers of charge`."""
    scope, _, topic = paused.partition(" of ")
    return f" --topic {shlex.quote(topic)}" if topic else f" --scope {scope}"


def _of_apps(check: Callable[[AppState], Iterator[Finding]]) -> Callable[[Facts], Iterator[Finding]]:
    def of_all(facts: Facts) -> Iterator[Finding]:
        for app in facts.apps:
            yield from check(app)

    return of_all


def _length(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


CHECKS: Final[tuple[Callable[[Facts], Iterator[Finding]], ...]] = (
    schema_state,
    missing_grants,
    old_postgres,
    held_snapshots,
    hidden_sessions,
    autovacuum_off,
    autovacuum_behind,
    bloat,
    clock_difference,
    connection_budget,
    *map(
        _of_apps,
        (
            nothing_active,
            no_engine,
            events_behind,
            topics_without_workers,
            dead_members,
            stuck_jobs,
            parked_jobs,
            given_up,
            consumers_paused,
            retention_off,
        ),
    ),
)
