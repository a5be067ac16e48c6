"""`hotmesh jobs`, `hotmesh status` and `hotmesh timeline`: what is in the tables, for people and for scripts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final, get_args

import click
from rich import box
from rich.pretty import Pretty
from rich.table import Table
from rich.text import Text

from hotmesh.cli import drawing
from hotmesh.cli.common import (
    connection_option,
    json_option,
    listing,
    namespace_option,
    narrow,
    run,
)
from hotmesh.cli.looking import looking, warn_of_unused
from hotmesh.errors import ConfigError, JobNotFoundError, in_full
from hotmesh.observe.activities import ActivitySummary, list_activities
from hotmesh.observe.apps import list_apps
from hotmesh.observe.explain.text import shortened, times
from hotmesh.observe.fate import not_found
from hotmesh.observe.jobs import JobSummary, State, find_jobs, list_jobs
from hotmesh.observe.obligations import Obligation, list_obligations
from hotmesh.observe.observer import Observer

app_option = click.option("--app", "app_id", metavar="ID", help="The app; needed if several have such a job.")


@click.command()
@click.option("--app", "app_id", metavar="ID", help="Of this app only.")
@click.option("--state", type=click.Choice(get_args(State)), help="In this state only.")
@click.option("--topic", help="Of the graph that subscribes to this topic only.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many at most."
)
@click.option("--all", "expired", is_flag=True, help="Also jobs whose time is over, until they are pruned.")
@connection_option
@namespace_option
@json_option
def jobs(
    app_id: str | None,
    state: State | None,
    topic: str | None,
    limit: int,
    expired: bool,
    connection: str | None,
    namespace: str,
    as_json: bool,
) -> None:
    """List jobs, the newest first."""
    found = run(_jobs, connection, namespace, app_id, state, topic, limit, expired)
    if as_json:
        click.echo(json.dumps([_plain(asdict(job)) for job in found], indent=2))
        return
    listing().print(_listed(found) if found else "no jobs")


@click.command()
@click.argument("job_id", metavar="JOB")
@app_option
@connection_option
@namespace_option
@json_option
def status(job_id: str, app_id: str | None, connection: str | None, namespace: str, as_json: bool) -> None:
    """Show a job: its state, its data, and what it waits for."""
    job, _, obligations = run(_job, connection, namespace, job_id, app_id)
    if as_json:
        click.echo(
            json.dumps(_plain({**asdict(job), "open": [_shown(one) for one in obligations]}), indent=2)
        )
        return
    console = listing()
    console.print(drawing.headline(job))
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="dim")
    facts.add_column(overflow="fold")
    facts.add_row("app", f"{job.app_id}, version {job.version}")
    facts.add_row("topic", Text(job.topic))
    facts.add_row("status", f"{job.status}")
    facts.add_row("created", job.created_at.astimezone(UTC).isoformat(sep=" ", timespec="milliseconds"))
    for name, value in (("input", job.input), ("data", job.data)):
        if value is not None:
            facts.add_row(name, Pretty(value))
    if job.error is not None:
        facts.add_row("error", Text(in_full(job.error, job.job_id)))
        if job.error.get("stack"):
            # As it is, and not as a text within a dict: a traceback is to be read.
            facts.add_row("", Text(str(job.error["stack"]).rstrip()))
    console.print(facts)
    if obligations:
        console.print(_obligations(obligations))
        if narrow():
            # A column of a table would be too narrow for it.
            for one in obligations:
                if one.error:
                    console.print(Text(f"{one.activity_id}, last error: {shortened(one.error)}"))


@click.command()
@click.argument("job_id", metavar="JOB")
@app_option
@connection_option
@namespace_option
@json_option
def timeline(job_id: str, app_id: str | None, connection: str | None, namespace: str, as_json: bool) -> None:
    """Draw what a job did, and when."""
    job, recorded, obligations = run(_job, connection, namespace, job_id, app_id)
    activities = _with_open(recorded, obligations)
    if as_json:
        data = {"job": asdict(job), "activities": [asdict(activity) for activity in activities]}
        click.echo(json.dumps(_plain(data), indent=2))
        return
    console = listing()
    console.print(drawing.headline(job))
    console.print(drawing.timeline(job, activities, datetime.now(UTC)))


async def _jobs(
    connection: str | None,
    namespace: str,
    app_id: str | None,
    state: State | None,
    topic: str | None,
    limit: int,
    expired: bool,
) -> list[JobSummary]:
    async with looking(connection, namespace, app_id) as observer:
        if topic is not None:
            await warn_of_unused(observer, app_id, "graph", [topic])
        return await list_jobs(observer, app_id, state=state, topic=topic, limit=limit, expired=expired)


async def _job(
    connection: str | None, namespace: str, job_id: str, app_id: str | None
) -> tuple[JobSummary, list[ActivitySummary], list[Obligation]]:
    async with looking(connection, namespace, app_id) as observer:
        found = await find_jobs(observer, job_id, app_id)
        if not found:
            raise await _not_found(observer, app_id, job_id)
        if len(found) > 1:
            apps = ", ".join(job.app_id for job in found)
            raise ConfigError(f"several apps have a job {job_id}: say which with --app ({apps})")
        job = found[0]
        return (
            job,
            await list_activities(observer, job.generation),
            await list_obligations(observer, job.generation),
        )


async def _not_found(observer: Observer, app_id: str | None, job_id: str) -> JobNotFoundError:
    """The error that says of a job what is known of it, in whichever app."""
    apps = await list_apps(observer) if app_id is None else [app_id]
    told = [await not_found(observer, app, job_id) for app in apps]
    known = next((error for error in told if error.ended_at is not None), None)
    if known is None and len(told) == 1:
        known = told[0]
    where = f"any app here ({', '.join(apps)})" if apps else "this namespace, which has no apps"
    return known or JobNotFoundError(job_id, where=where)


def _listed(found: list[JobSummary]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    # An id is there to be copied; the names beside it give way where the terminal is narrow.
    table.add_column("job", no_wrap=True, min_width=max(len(job.job_id) for job in found))
    if len({job.app_id for job in found}) > 1:
        table.add_column("app", no_wrap=True)
    table.add_column("topic", no_wrap=True)
    table.add_column("state", no_wrap=True, min_width=8)
    table.add_column("created (UTC)", no_wrap=True, min_width=14)
    table.add_column("took", justify="right", no_wrap=True, min_width=6)
    for job in found:
        row = [
            Text(job.job_id),
            Text(job.app_id),
            Text(job.topic),
            Text(f"{job.state}, expired", "dim")
            if job.expired
            else Text(job.state, drawing.COLOURS[job.state]),
            Text(f"{job.created_at.astimezone(UTC):%m-%d %H:%M:%S}"),
            Text(
                ""
                if job.ended_at is None
                else drawing.duration((job.ended_at - job.created_at).total_seconds())
            ),
        ]
        if len(table.columns) < len(row):
            del row[1]
        table.add_row(*row)
    return table


def _with_open(activities: list[ActivitySummary], obligations: list[Obligation]) -> list[ActivitySummary]:
    """The activities, and those that have left no record yet: what they wait for says when they began."""
    recorded = {(activity.activity_id, activity.dimension) for activity in activities}
    types = {"work": "worker", "child": "await"}
    return activities + [
        ActivitySummary(
            one.activity_id,
            one.dimension,
            types[one.kind],
            "open",
            None,
            one.since,
            None,
            None,
            None,
            None if one.error is None else {"message": one.error},
            one.attempt,
        )
        for one in obligations
        if one.kind in types and (one.activity_id, one.dimension) not in recorded
    ]


def _obligations(obligations: list[Obligation]) -> Table:
    now = datetime.now(UTC)
    columns: dict[str, list[str]] = {
        "waits for": [one.kind for one in obligations],
        "activity": [one.activity_id for one in obligations],
        "what": [one.detail or "" for one in obligations],
        "since": [
            f"{drawing.duration(max((now - one.since).total_seconds(), 0))} ago" for one in obligations
        ],
        "until": [
            "" if one.until is None else _moment_of((one.until - now).total_seconds()) for one in obligations
        ],
        "held by": [one.held_by or "" for one in obligations],
        "failed": [times(one.attempt) if one.attempt else "" for one in obligations],
    }
    if not narrow():
        columns["last error"] = [" ".join((one.error or "").split()) for one in obligations]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    shown = {name: values for name, values in columns.items() if any(values)}
    for name, values in shown.items():
        fixed = name in ("since", "until", "failed")
        table.add_column(name, overflow="fold", no_wrap=fixed, min_width=_widest([name, *values]))
    for row in zip(*shown.values(), strict=True):
        table.add_row(*(Text(value) for value in row))
    return table


SHOWN: Final = ("kind", "activity_id", "dimension", "detail", "since", "until", "held_by", "attempt", "error")
"""What is shown of an obligation."""


def _shown(one: Obligation) -> dict[str, Any]:
    return {name: getattr(one, name) for name in SHOWN}


def _moment_of(seconds: float) -> str:
    """When something happens by itself; or for how long it could have, and nobody has come."""
    if seconds > 0:
        return f"in {drawing.duration(seconds)}"
    return "now" if seconds > -LATE else f"due since {drawing.duration(-seconds)}"


LATE: Final = 1.0
"""Seconds after which something is not said to be due now."""


def _widest(values: Iterable[str]) -> int:
    """The length of the longest word, so that a narrow column breaks between words; one that is very long is broken after all."""
    return min(max((len(word) for value in values for word in value.split()), default=1), LONGEST_WORD)


LONGEST_WORD: Final = 24
"""Characters of a word that is not broken on a narrow terminal."""


def _plain(value: Any) -> Any:
    """JSON has no times: they become ISO text."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
