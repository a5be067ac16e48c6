"""`hotmesh explain`: why a job does not move."""

from __future__ import annotations

import json

import click

from hotmesh.cli.common import connection_option, json_option, namespace_option, run
from hotmesh.cli.looking import looking
from hotmesh.observe.apps import deployed
from hotmesh.observe.explain.explain import explain as explain_job
from hotmesh.observe.explain.model import Explanation


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
    async with looking(connection, namespace, app_id, application_name="hotmesh explain") as observer:
        return await explain_job(observer, app_id, job_id, deployed(observer, app_id))
