"""Logins for workers in untrusted places: made, changed, revoked and listed.

A worker login may use the procedures `worker_*` of one namespace and nothing else; which app and topics it serves stands
in `worker_credential`, which it cannot write. What was done to logins, when and by whom, is kept in
`worker_credential_audit`.

Revoking goes in this order, so that a login that holds locks cannot prevent it: it may not log in any more (committed),
its sessions are ended, and only then its row is changed. A crash in between leaves a login that cannot log in and is
still listed; revoking it again does the rest.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread

from hotmesh.core.arguments import checked_text, unusable_name
from hotmesh.core.duration import Duration
from hotmesh.errors import ConfigError, NotAuthorizedError, SchemaError, WorkerRoleNotFoundError
from hotmesh.postgres import sql
from hotmesh.postgres.connect.driver import Driver
from hotmesh.postgres.connect.failures import translated
from hotmesh.postgres.connect.options import ConnectionLike
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.logins.credentials import (
    WorkerCredential,
    WorkerRole,
    checked_password,
    checked_role_name,
    checked_seconds,
    checked_topics,
    checked_whole,
    default_role_name,
)
from hotmesh.postgres.logins.scram import verifier

LOCK_TIMEOUT = "10s"
"""A login that keeps a transaction open holds its row for so long; engines end its session before."""

SESSION_END = 10.0
"""Seconds within which sessions that were told to end have ended."""


async def provision_worker_role(
    connection: ConnectionLike,
    stream_names: Sequence[str],
    *,
    app_id: str,
    namespace: str = "hotmesh",
    password: str | None = None,
    role_name: str | None = None,
    replace: bool = False,
    connection_limit: int | None = None,
    max_held: int = 1000,
    max_lease: Duration = 300,
    max_callback: Duration = 1800,
    max_delay: Duration = "7 days",
    max_payload: int = 1_048_576,
) -> WorkerCredential:
    """Make a login that may only take and answer work of these worker topics (`stream_names`) of an app.

    `connection` is that of the owner of the schema, who may create roles. Without `password` a random one is made.
    The name follows from database, namespace, app and topics; doing it again gives the same login, a new password, and
    makes a revoked one valid again. With a `role_name` of your own, other topics than those recorded are refused unless
    `replace=True`. `connection_limit`: sessions at once. A login may hold `max_held` messages at once, each for
    `max_lease` without a sign of life and `max_callback` in all, put off a retry by `max_delay`, and answer with
    `max_payload` bytes.

    Raises ConfigError, SchemaError, NotAuthorizedError.
    """
    topics = checked_topics(stream_names)
    for option, value in (("app_id", app_id), ("namespace", namespace)):
        why = unusable_name(option, value)
        if why is not None:
            raise ConfigError(why)
    bounds = [
        checked_whole("max_held", max_held),
        checked_seconds("max_lease", max_lease),
        checked_seconds("max_callback", max_callback),
        checked_seconds("max_delay", max_delay),
        checked_whole("max_payload", max_payload),
    ]
    limit = -1 if connection_limit is None else checked_whole("connection_limit", connection_limit)
    secret = checked_password(password)
    async with _administrator(connection, namespace) as driver, driver.transaction():
        await driver.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
        await driver.execute(sql.query("lock_logins", namespace))
        database = str(await driver.fetchval("select current_database()"))
        name = (
            checked_role_name(role_name)
            if role_name is not None
            else default_role_name(database, namespace, app_id, topics)
        )
        known = await driver.fetchrow(sql.query("find_login", namespace), name)
        if known is not None and not replace and (known["app_id"], list(known["topics"])) != (app_id, topics):
            raise ConfigError(
                f"role {name} serves {', '.join(known['topics'])} of app {known['app_id']}; "
                "pass replace=True to give it other topics, or another role_name"
            )
        await _make_login(driver, namespace, name, secret, limit, recorded=known is not None)
        await _grant_to_owner(driver, namespace, name)
        await driver.execute(sql.query("grant_worker", namespace), name)
        await driver.execute(sql.query("record_login", namespace), name, app_id, topics, *bounds)
        await driver.execute(sql.query("make_worker_mark", namespace), name)
        await _record(driver, namespace, name, "provisioned" if known is None else "changed")
    return WorkerCredential(name, secret)


async def rotate_worker_password(
    connection: ConnectionLike,
    role_name: str,
    *,
    namespace: str = "hotmesh",
    new_password: str | None = None,
    end_sessions: bool = False,
) -> WorkerCredential:
    """Give a worker login another password, the given or a random one; the old one opens no session any more.

    Settings of the role (`alter role … set`) are reset, because whoever has the login may have made them. Sessions that are open go on, unless `end_sessions`: after a password has leaked, end them. Raises
    WorkerRoleNotFoundError, ConfigError if the login is revoked, NotAuthorizedError.
    """
    checked_text(role_name, "role_name")
    secret = checked_password(new_password)
    async with _administrator(connection, namespace) as driver:
        async with driver.transaction():
            await driver.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
            found = await _recorded(driver, namespace, role_name)
            if found["revoked_at"] is not None:
                raise ConfigError(f"role {role_name} is revoked; provision it again to make it valid")
            await driver.execute(
                f"alter role {sql.quote(role_name)} password {sql.literal(verifier(secret))}"
            )
            await _reset(driver, namespace, role_name)
            await driver.execute(sql.query("record_rotation", namespace), role_name)
            await _record(driver, namespace, role_name, "rotated")
        if end_sessions:
            await _end_sessions(driver, namespace, role_name)
    return WorkerCredential(role_name, secret)


async def revoke_worker_role(
    connection: ConnectionLike, role_name: str, *, namespace: str = "hotmesh"
) -> None:
    """End a worker login for good: it may not log in, its sessions are ended, and nothing of it counts any more.

    What it holds becomes visible to others when its leases lapse. The role is kept, and can be provisioned again.
    Raises WorkerRoleNotFoundError, NotAuthorizedError.
    """
    checked_text(role_name, "role_name")
    async with _administrator(connection, namespace) as driver:
        await _recorded(driver, namespace, role_name)
        await driver.execute(f"alter role {sql.quote(role_name)} nologin")
        await _end_sessions(driver, namespace, role_name)
        async with driver.transaction():
            await driver.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
            await driver.execute(sql.query("record_revocation", namespace), role_name)
            await _record(driver, namespace, role_name, "revoked")
        # One that was just logging in when it was forbidden.
        await _end_sessions(driver, namespace, role_name)


async def list_worker_roles(
    connection: ConnectionLike, *, namespace: str = "hotmesh", app_id: str | None = None
) -> list[WorkerRole]:
    """The worker logins of a namespace, or of one app of it, revoked ones included, oldest first."""
    async with _connected(connection) as driver:
        await _require_tables(driver, namespace)
        rows = await driver.fetch(sql.query("list_logins", namespace), app_id)
    return [
        WorkerRole(
            row["id"],
            row["role_name"],
            row["app_id"],
            tuple(row["topics"]),
            row["created_at"],
            row["revoked_at"],
            row["rotated_at"],
            row["can_login"],
            row["sessions"],
            row["connection_limit"],
        )
        for row in rows
    ]


async def _make_login(
    driver: Driver, namespace: str, name: str, password: str, limit: int, *, recorded: bool
) -> None:
    quoted, secret = sql.quote(name), sql.literal(verifier(password))
    role = await driver.fetchrow(sql.query("find_role", namespace), name)
    if role is None:
        await driver.execute(
            f"create role {quoted} with login noinherit nosuperuser nocreatedb nocreaterole "
            f"connection limit {limit} password {secret}"
        )
    elif not recorded:
        raise ConfigError(
            f"there is a role {name} that was not made by provisioning in this namespace; pass another role_name"
        )
    elif role["mighty"]:
        raise ConfigError(f"role {name} was given rights that no worker login may have; revoke them first")
    else:
        await driver.execute(f"alter role {quoted} with login connection limit {limit} password {secret}")
        await _reset(driver, namespace, name)


async def _reset(driver: Driver, namespace: str, name: str) -> None:
    """Undo what the login has set for its sessions to come, in whatever database: every login may do that to itself."""
    quoted = sql.quote(name)
    await driver.execute(f"alter role {quoted} reset all")
    for row in await driver.fetch(sql.query("databases_with_settings", namespace), name):
        await driver.execute(f"alter role {quoted} in database {sql.quote(row['datname'])} reset all")


async def _grant_to_owner(driver: Driver, namespace: str, name: str) -> None:
    """Let the owner of the schema see and end sessions of the login; `end_stalled_workers` runs with his rights."""
    row = await driver.fetchrow(sql.query("find_owner", namespace), name, namespace)
    if row is not None and not row["may"]:
        await driver.execute(f"grant {sql.quote(name)} to {sql.quote(row['owner'])}")


async def _end_sessions(driver: Driver, namespace: str, name: str) -> None:
    """End all sessions of a login, in every database, and wait until they are gone."""
    if not await driver.fetchval(sql.query("has_rights_of", namespace), name):
        await driver.execute(f"grant {sql.quote(name)} to current_user")
    deadline = anyio.current_time() + SESSION_END
    while anyio.current_time() < deadline:
        if not await driver.fetchval(sql.query("end_sessions", namespace), name):
            return
        await anyio.sleep(0.02)
    raise NotAuthorizedError(
        f"role {name} may not log in any more, but sessions of it have not ended; end them with pg_terminate_backend"
    )


async def _record(driver: Driver, namespace: str, name: str, action: str) -> None:
    await driver.execute(sql.query("record_action", namespace), name, action)


async def _recorded(driver: Driver, namespace: str, role_name: str) -> Any:
    found = await driver.fetchrow(sql.query("find_valid_login", namespace), role_name)
    if found is None:
        raise WorkerRoleNotFoundError(role_name, namespace)
    return found


@asynccontextmanager
async def _administrator(connection: ConnectionLike, namespace: str) -> AsyncIterator[Driver]:
    """A connection whose login may create roles and owns the namespace. Raises NotAuthorizedError, SchemaError."""
    async with _connected(connection) as driver:
        may_create = await driver.fetchval(sql.query("may_create_roles", namespace))
        user = await driver.fetchval("select current_user")
        if not may_create:
            raise NotAuthorizedError(
                f"{user} may not create roles: connect as a superuser or a role with CREATEROLE that owns schema "
                f"{namespace}"
            )
        await _require_tables(driver, namespace)
        owns = await driver.fetchval(sql.query("owns_schema", namespace), namespace)
        if not owns:
            raise NotAuthorizedError(
                f"{user} does not own schema {namespace}, and cannot grant the use of it: connect as its owner"
            )
        yield driver


async def _require_tables(driver: Driver, namespace: str) -> None:
    exists = await driver.fetchval(sql.query("has_logins", namespace), namespace)
    if not exists:
        raise SchemaError(
            f"schema {namespace} has no tables yet: start an engine once, or run `hotmesh migrate`"
        )


@asynccontextmanager
async def _connected(connection: ConnectionLike) -> AsyncIterator[Driver]:
    source = await anyio.to_thread.run_sync(
        lambda: ConnectionSource.find(connection, application_name="hotmesh roles")
    )
    driver = await source.connect()
    try:
        with translated():
            yield driver
    finally:
        await source.release(driver)
