"""Worker logins for tests: with passwords that the server asks for, and gone after each test."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from harness import connected
from hotmesh import WorkerCredential, provision_worker_role

GUARDED = "hotmesh_test_guarded"
"""Members of this role are asked for a password; the servers of the tests ask nobody else."""


async def provision(url: str, topics: list[str], app_id: str = "shop", **options: Any) -> WorkerCredential:
    """A worker login that the server asks for its password."""
    made = await provision_worker_role(url, topics, app_id=app_id, **options)
    async with connected(url) as owner:
        await owner.execute(f'grant {GUARDED} to "{made.role_name}"')
    return made


def login(url: str, credential: WorkerCredential) -> str:
    """The URL of the database with a worker's login."""
    head, _, tail = url.partition("://hotmesh@")
    return f"{head}://{quote(credential.role_name, safe='')}:{quote(credential.password, safe='')}@{tail}"


async def remove_logins(url: str) -> None:
    """Drop all worker logins of a database, with the sessions they have."""
    async with connected(url) as owner:
        for row in await owner.fetch("delete from hotmesh.worker_credential returning role_name"):
            name = '"' + row["role_name"].replace('"', '""') + '"'
            await owner.execute(f"alter role {name} nologin")
            await owner.fetch(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = $1",
                row["role_name"],
            )
            await owner.execute(f"drop owned by {name}; drop role {name}")
