"""`hotmesh explain`: why a job does not move."""

from __future__ import annotations

import json

import anyio.to_thread
import click

from hotmesh.cli.common import connection_option, json_option, namespace_option, run
from hotmesh.evaluate import system_environment
from hotmesh.postgres.connect.connection import ConnectionSource
from hotmesh.postgres.store import Store
from hotmesh.runtime.definitions.plans import Plans
from hotmesh.runtime.explain import Explanation
from hotmesh.runtime.reading import JobReader


@click.command()
@click.argument("job_id", metavar="JOB")
@click.option("--app", "app_id", metavar="ID", required=True, help="The app that the job belongs to.")
@connection_option
@namespace_option
@json_option
def explain(job_id: str, app_id: str, connection: str | None, namespace: str, as_json: bool) -> None:
    """Say what a job waits for, since when, and what would unblock it."""
    found = run(_explain, connection, namespace, app_id, job_id)
    click.echo(json.dumps(found.as_dict(), indent=2, ensure_ascii=False) if as_json else str(found))


async def _explain(connection: str | None, namespace: str, app_id: str, job_id: str) -> Explanation:
    source = await anyio.to_thread.run_sync(
        lambda: ConnectionSource.find(connection, application_name="hotmesh explain")
    )
    store = Store(source, namespace, app_id)
    try:
        return await JobReader(store, Plans(store), system_environment()).explain(job_id)
    finally:
        await store.close()
