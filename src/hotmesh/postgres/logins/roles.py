"""Logins for workers in untrusted places: made, changed, revoked and listed.

A worker login may use the procedures `worker_*` of one namespace and nothing else; which app and topics it serves stands
in `worker_credential`, which it cannot write. What was done to logins, when and by whom, is kept in
`worker_credential_audit`.

Revoking goes in this order, so that a login that holds locks cannot prevent it: it may not log in any more (committed),
its sessions are ended, and only then its row is changed. A crash in between leaves a login that cannot log in and is
still listed; revoking it again does the rest.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any

import anyio
import anyio.to_thread

from hotmesh.core.arguments import checked_text, is_storable
from hotmesh.core.duration import Duration, seconds
from hotmesh.errors import ConfigError, NotAuthorizedError, SchemaError, WorkerRoleNotFoundError
from hotmesh.postgres import sql
from hotmesh.postgres.connect.driver import Driver
from hotmesh.postgres.connect.failures import translated
from hotmesh.postgres.connect.options import ConnectionLike
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.logins.scram import verifier

PREFIX = "hmsh_wrk"

LONGEST_NAME = 63
"""Bytes that Postgres keeps of a name."""

LOCK_TIMEOUT = "10s"
"""A login that keeps a transaction open holds its row for so long; engines end its session before."""

SESSION_END = 10.0
"""Seconds within which sessions that were told to end have ended."""


@dataclass(frozen=True, slots=True)
class WorkerCredential:
    """A worker's login. The password is told this once, and kept nowhere."""

    role_name: str
    password: str = field(repr=False)


Credentials = Mapping[str, str] | WorkerCredential
"""What `provision_worker_role` returns, or a dict with `user` and `password`."""


def login_of(credentials: Credentials) -> tuple[str, str]:
    """User and password. Raises ConfigError for a dict with other keys or values."""
    if isinstance(credentials, WorkerCredential):
        return credentials.role_name, credentials.password
    if (
        not isinstance(credentials, Mapping)
        or set(credentials) != {"user", "password"}
        or not all(isinstance(value, str) for value in credentials.values())
    ):
        raise ConfigError("worker_credentials is a dict with user and password, and nothing else")
    return credentials["user"], credentials["password"]


@dataclass(frozen=True, slots=True)
class WorkerRole:
    """A worker login as it is recorded. `can_login` is what Postgres says; `sessions` are those open now."""

    id: int
    role_name: str
    app_id: str
    stream_names: tuple[str, ...]
    created_at: datetime
    revoked_at: datetime | None
    last_rotated_at: datetime | None
    can_login: bool
    sessions: int
    connection_limit: int | None


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
    topics = _topics(stream_names)
    for option, value in (("app_id", app_id), ("namespace", namespace)):
        if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9-]+", value):
            raise ConfigError(f"{option} {value!r}: letters, digits and hyphens only")
    bounds = [
        _whole("max_held", max_held),
        _positive("max_lease", max_lease),
        _positive("max_callback", max_callback),
        _positive("max_delay", max_delay),
        _whole("max_payload", max_payload),
    ]
    limit = -1 if connection_limit is None else _whole("connection_limit", connection_limit)
    secret = _password(password)
    async with _administrator(connection, namespace) as driver, driver.transaction():
        await driver.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
        await driver.execute(
            sql.bind("lock table mesh.worker_credential in share row exclusive mode", namespace)
        )
        database = str(await driver.fetchval("select current_database()"))
        name = (
            _role_name(role_name)
            if role_name is not None
            else default_role_name(database, namespace, app_id, topics)
        )
        known = await driver.fetchrow(
            sql.bind("select app_id, topics from mesh.worker_credential where role_name = $1", namespace),
            name,
        )
        if known is not None and not replace and (known["app_id"], list(known["topics"])) != (app_id, topics):
            raise ConfigError(
                f"role {name} serves {', '.join(known['topics'])} of app {known['app_id']}; "
                "pass replace=True to give it other topics, or another role_name"
            )
        await _make_login(driver, name, secret, limit, recorded=known is not None)
        await _grant_to_owner(driver, namespace, name)
        await driver.execute(sql.bind("select mesh.grant_worker($1)", namespace), name)
        await driver.execute(
            sql.bind(
                "insert into mesh.worker_credential (role_name, app_id, topics, most_held, longest_lease, longest_hold, "
                "longest_delay, max_payload) values ($1, $2, $3, $4, $5, $6, $7, $8) "
                "on conflict on constraint worker_credential_role do update set app_id = excluded.app_id, "
                "topics = excluded.topics, most_held = excluded.most_held, longest_lease = excluded.longest_lease, "
                "longest_hold = excluded.longest_hold, longest_delay = excluded.longest_delay, "
                "max_payload = excluded.max_payload, revoked_at = null, rotated_at = now()",
                namespace,
            ),
            name,
            app_id,
            topics,
            *bounds,
        )
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

    Sessions that are open go on, unless `end_sessions`: after a password has leaked, end them. Raises
    WorkerRoleNotFoundError, ConfigError if the login is revoked, NotAuthorizedError.
    """
    checked_text(role_name, "role_name")
    secret = _password(new_password)
    async with _administrator(connection, namespace) as driver:
        async with driver.transaction():
            await driver.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
            found = await _recorded(driver, namespace, role_name)
            if found["revoked_at"] is not None:
                raise ConfigError(f"role {role_name} is revoked; provision it again to make it valid")
            await driver.execute(
                f"alter role {sql.quote(role_name)} password {sql.literal(verifier(secret))}"
            )
            await driver.execute(
                sql.bind(
                    "update mesh.worker_credential set rotated_at = now() where role_name = $1", namespace
                ),
                role_name,
            )
            await _record(driver, namespace, role_name, "rotated")
        if end_sessions:
            await _end_sessions(driver, role_name)
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
        await _end_sessions(driver, role_name)
        async with driver.transaction():
            await driver.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
            await driver.execute(
                sql.bind(
                    "update mesh.worker_credential set revoked_at = coalesce(revoked_at, now()) "
                    "where role_name = $1",
                    namespace,
                ),
                role_name,
            )
            await _record(driver, namespace, role_name, "revoked")
        # One that was just logging in when it was forbidden.
        await _end_sessions(driver, role_name)


async def list_worker_roles(
    connection: ConnectionLike, *, namespace: str = "hotmesh", app_id: str | None = None
) -> list[WorkerRole]:
    """The worker logins of a namespace, or of one app of it, revoked ones included, oldest first."""
    async with _connected(connection) as driver:
        await _require_tables(driver, namespace)
        rows = await driver.fetch(
            sql.bind(
                "select c.id, c.role_name, c.app_id, c.topics, c.created_at, c.revoked_at, c.rotated_at, "
                "coalesce(r.rolcanlogin, false) as can_login, nullif(r.rolconnlimit, -1) as connection_limit, "
                "(select count(*) from pg_catalog.pg_stat_activity as a where a.usename = c.role_name) as sessions "
                "from mesh.worker_credential as c left join pg_catalog.pg_roles as r on r.rolname = c.role_name "
                "where $1::text is null or c.app_id = $1 order by c.created_at, c.id",
                namespace,
            ),
            app_id,
        )
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


def default_role_name(database: str, namespace: str, app_id: str, topics: Sequence[str]) -> str:
    """`hmsh_wrk_<namespace>_<app>_<topic>__<topic>_<hash>`, cut before the hash, which tells equal beginnings apart."""
    words = [re.sub(r"[^A-Za-z0-9]+", "_", word) for word in (namespace, app_id)]
    listed = "__".join(re.sub(r"[^A-Za-z0-9]+", "_", topic) for topic in topics)
    readable = "_".join([PREFIX, *words, listed])
    # Roles belong to the whole cluster: two databases in it may have the same namespace.
    digest = sha256("\0".join([database, namespace, app_id, *topics]).encode()).hexdigest()[:10]
    return f"{readable[: LONGEST_NAME - 11].rstrip('_')}_{digest}"


async def _make_login(driver: Driver, name: str, password: str, limit: int, *, recorded: bool) -> None:
    quoted, secret = sql.quote(name), sql.literal(verifier(password))
    role = await driver.fetchrow(
        "select rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls as mighty "
        "from pg_catalog.pg_roles where rolname = $1",
        name,
    )
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


async def _grant_to_owner(driver: Driver, namespace: str, name: str) -> None:
    """Let the owner of the schema see and end sessions of the login; `end_stalled_workers` runs with his rights."""
    row = await driver.fetchrow(
        "select r.rolname as owner, pg_catalog.pg_has_role(r.oid, $1::name, 'USAGE') as may "
        "from pg_catalog.pg_namespace as n join pg_catalog.pg_roles as r on r.oid = n.nspowner where n.nspname = $2",
        name,
        namespace,
    )
    if row is not None and not row["may"]:
        await driver.execute(f"grant {sql.quote(name)} to {sql.quote(row['owner'])}")


async def _end_sessions(driver: Driver, name: str) -> None:
    """End all sessions of a login, in every database, and wait until they are gone."""
    if not await driver.fetchval("select pg_catalog.pg_has_role($1::name, 'USAGE')", name):
        await driver.execute(f"grant {sql.quote(name)} to current_user")
    deadline = anyio.current_time() + SESSION_END
    while anyio.current_time() < deadline:
        ending = await driver.fetchval(
            "select count(pg_catalog.pg_terminate_backend(pid)) from pg_catalog.pg_stat_activity where usename = $1",
            name,
        )
        if not ending:
            return
        await anyio.sleep(0.02)
    raise NotAuthorizedError(
        f"role {name} may not log in any more, but sessions of it have not ended; end them with pg_terminate_backend"
    )


async def _record(driver: Driver, namespace: str, name: str, action: str) -> None:
    await driver.execute(
        sql.bind(
            "insert into mesh.worker_credential_audit (role_name, app_id, topics, action) "
            "select c.role_name, c.app_id, c.topics, $2 from mesh.worker_credential as c where c.role_name = $1",
            namespace,
        ),
        name,
        action,
    )


async def _recorded(driver: Driver, namespace: str, role_name: str) -> Any:
    found = await driver.fetchrow(
        sql.bind(
            "select c.revoked_at from mesh.worker_credential as c "
            "join pg_catalog.pg_roles as r on r.rolname = c.role_name where c.role_name = $1",
            namespace,
        ),
        role_name,
    )
    if found is None:
        raise WorkerRoleNotFoundError(role_name, namespace)
    return found


@asynccontextmanager
async def _administrator(connection: ConnectionLike, namespace: str) -> AsyncIterator[Driver]:
    """A connection whose login may create roles and owns the namespace. Raises NotAuthorizedError, SchemaError."""
    async with _connected(connection) as driver:
        may_create = await driver.fetchval(
            "select rolsuper or rolcreaterole from pg_catalog.pg_roles where rolname = current_user"
        )
        user = await driver.fetchval("select current_user")
        if not may_create:
            raise NotAuthorizedError(
                f"{user} may not create roles: connect as a superuser or a role with CREATEROLE that owns schema "
                f"{namespace}"
            )
        await _require_tables(driver, namespace)
        owns = await driver.fetchval(
            "select pg_catalog.pg_has_role(nspowner, 'USAGE') from pg_catalog.pg_namespace where nspname = $1",
            namespace,
        )
        if not owns:
            raise NotAuthorizedError(
                f"{user} does not own schema {namespace}, and cannot grant the use of it: connect as its owner"
            )
        yield driver


async def _require_tables(driver: Driver, namespace: str) -> None:
    exists = await driver.fetchval(
        "select exists (select from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n "
        "on n.oid = c.relnamespace where n.nspname = $1 and c.relname = 'worker_credential')",
        namespace,
    )
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


def _topics(names: Sequence[str]) -> list[str]:
    if isinstance(names, str) or not isinstance(names, Collection) or not names:
        raise ConfigError("stream_names is a list of at least one worker topic")
    for name in names:
        if not isinstance(name, str) or not name or not is_storable(name):
            raise ConfigError(f"a worker topic is a non-empty text, not {name!r}")
    return sorted(set(names))


def _role_name(name: str) -> str:
    if (
        not isinstance(name, str)
        or not is_storable(name)
        or not 0 < len(name.encode()) <= LONGEST_NAME
        or name.startswith("pg_")
    ):
        raise ConfigError(
            f"a role name has 1 to {LONGEST_NAME} bytes and does not begin with pg_, not {name!r}"
        )
    return name


def _password(given: str | None) -> str:
    if given is None:
        return secrets.token_urlsafe(32)
    if not isinstance(given, str) or not given or not is_storable(given):
        raise ConfigError("a password is a non-empty text without NUL characters")
    return given


def _whole(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
        raise ConfigError(f"{name} must be an integer of at least 1, not {value!r}")
    return value


def _positive(name: str, value: Duration) -> float:
    found = seconds(value, name=name)
    if found < 1:
        raise ConfigError(f"{name} must be at least 1 second, not {value!r}")
    return found
