"""`hotmesh prune`: deletes what has been over for long enough."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from hotmesh.cli.common import connection_option, json_option, namespace_option, run
from hotmesh.cli.looking import looking
from hotmesh.runtime.upkeep.dba import DBA, PruneResult


@click.command()
@click.option("--app", "app_id", metavar="ID", required=True, help="The app whose rows are deleted.")
@click.option("--expire", default="7 days", show_default=True, help="Only what has been over for longer.")
@click.option("--jobs/--no-jobs", default=True, show_default=True, help="Expired jobs.")
@click.option("--streams/--no-streams", default=True, show_default=True, help="Dead letters.")
@click.option(
    "--signals/--no-signals", default=True, show_default=True, help="Early signals whose time is over."
)
@click.option("--attributes", is_flag=True, help="Also what the activities of complete jobs left.")
@click.option("--keep-hmark", is_flag=True, help="With --attributes: keep that they ran, when and how.")
@click.option("--entity", "entities", multiple=True, help="Only jobs of this entity; may be repeated.")
@click.option("--transient", is_flag=True, help="Also expired jobs without an entity.")
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=10_000,
    show_default=True,
    help="Rows of a kind in one transaction.",
)
@connection_option
@namespace_option
@json_option
def prune(
    app_id: str,
    expire: str,
    jobs: bool,
    streams: bool,
    signals: bool,
    attributes: bool,
    keep_hmark: bool,
    entities: tuple[str, ...],
    transient: bool,
    batch_size: int,
    connection: str | None,
    namespace: str,
    as_json: bool,
) -> None:
    """Delete what has been over for long enough; never a live job."""

    async def delete() -> PruneResult:
        async with looking(connection, namespace, app_id):
            pass
        return await DBA.prune(
            app_id,
            connection,
            namespace=namespace,
            expire=expire,
            jobs=jobs,
            streams=streams,
            signals=signals,
            attributes=attributes,
            keep_hmark=keep_hmark,
            entities=entities or None,
            prune_transient=transient,
            batch_size=batch_size,
        )

    found = asdict(run(delete))
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    gone = {name: count for name, count in found.items() if count and name != "streams"}
    words = [f"{count:,} {_WORDS[name]}" for name, count in gone.items()]
    click.echo(f"deleted {', '.join(words)}" if words else "nothing to delete")


_WORDS = {
    "jobs": "jobs",
    "engine_streams": "dead letters of engines",
    "worker_streams": "dead letters of workers",
    "attributes": "records of activities",
    "transient": "jobs without an entity",
    "marked": "jobs stripped",
    "signals": "early signals",
}
