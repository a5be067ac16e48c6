"""Moves a namespace to another Postgres while it works.

Its rows are replicated by Postgres itself, logically: first all that there are, then what is written. When the copy is close behind,
`finish` forbids all writing at the old place, waits until the last row has arrived, and opens the new one. What replication leaves out
comes along by hand: sequences, and who may do what. Tables, functions and versions are there already, made by the same release.

Nothing is doubled, because there is no moment at which both places can be written: a trigger on each table refuses it, at the new
place until it is complete, and at the old one for good. What is written there tells by itself how far a move has come, so each step
may be done again after whoever did it has died.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from uuid import uuid4

import anyio

from hotmesh.errors import HotMeshError
from hotmesh.postgres import sql
from hotmesh.postgres.connect.driver import Driver
from hotmesh.postgres.connect.failures import StatementError, translated
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.migrate import migrate, verify

OWN: Final = ("schema_migration", "signal_lock")
"""Tables whose rows every namespace has from its beginning; they are not copied."""

TASK: Final = "moved"
"""The row of upkeep that is the last one to be written at the old place."""

CLOSE: Final = 16 * 1024 * 1024
"""Bytes of log that a copy may be behind when the old place is closed: less than a second."""

LOCKS: Final = ("900ms", "900ms", "900ms", "3s", "3s")
"""How long each try may wait until nobody writes; shorter than Postgres waits before it ends one of two that wait for each other."""

ARRIVAL: Final = 60.0
"""Seconds within which the last row has to arrive."""


class MoveError(HotMeshError):
    """A namespace cannot be moved, or not yet; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the copy is: tables whose first copy is complete, and bytes of the log that have not arrived. None: nothing runs."""

    copied: int
    tables: int
    behind: int | None

    @property
    def close(self) -> bool:
        """Whether it can be finished."""
        return 0 < self.tables == self.copied and self.behind is not None and self.behind <= CLOSE


@dataclass(frozen=True, slots=True)
class Move:
    """A namespace, where it is, and where it goes. Both connections need a role that owns the tables and may replicate."""

    source: ConnectionSource
    target: ConnectionSource
    schema: str

    @property
    def name(self) -> str:
        """Of the publication, the subscription and its slot; of any schema's name there is one that Postgres takes."""
        return f"hotmesh_move_{sha256(self.schema.encode()).hexdigest()[:12]}"

    async def begin(self, reach: str) -> None:
        """Start to copy. `reach`: the connection string by which the new server finds the old one. Raises MoveError."""
        await verify(self.source, self.schema)
        await migrate(self.target, self.schema)
        async with self._both() as (old, new):
            await self._check(old, new)
            tables = [name for name in await self._tables(old) if name not in OWN]
            await new.execute(self._bound("delete from mesh.secret"))
            await self._close(new, "it is being moved here: see `hotmesh move`")
            listed = ", ".join(f"mesh.{sql.quote(name)}" for name in tables)
            await old.execute(
                self._bound(
                    f"create publication {self.name} for table {listed} with (publish_via_partition_root = true)"
                )
            )
            try:
                await new.execute(
                    f"create subscription {self.name} connection {sql.literal(reach)} publication {self.name}"
                )
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await old.execute(f"drop publication {self.name}")
                    await new.execute(f"drop schema {sql.quote(self.schema)} cascade")
                raise

    async def progress(self) -> Progress:
        """How far the copy is."""
        async with self._both() as (old, new):
            return await self._progress(old, new)

    async def finish(self, switch: Callable[[], Awaitable[None]] | None = None) -> float:
        """Close the old place, wait for the last row, open the new one; returns for how many seconds neither could be written.

        `switch`: makes the address of the mesh lead to the new place; then sessions at the old one are ended, so that their
        processes connect again. Raises MoveError.
        """
        async with self._both() as (old, new):
            if not await self._is_closed(new):
                if not await self._is_closed(old):
                    raise MoveError(f"namespace {self.schema} is not being moved: run `hotmesh move begin`")
                stop = 0.0  # the new place is open, and only what follows was left undone
            else:
                if not await self._is_closed(old):
                    found = await self._progress(old, new)
                    if not found.close:
                        raise MoveError(
                            f"namespace {self.schema} is not copied yet: {found.copied} of {found.tables} tables, and "
                            f"{found.behind} bytes behind; wait until `hotmesh move status` says that it can be finished"
                        )
                    await new.execute("analyze")
                began = time.monotonic()
                await self._close_old(old)
                await self._arrival(old, new)
                await self._open_new(old, new)
                stop = time.monotonic() - began
            if switch is not None:
                await switch()
            await old.execute(_END_SESSIONS)
            await old.execute(f"drop publication if exists {self.name}")
            return stop

    async def cancel(self) -> None:
        """Give the move up: the old place goes on, the copy is dropped. Raises MoveError once the new place is open."""
        async with self._both() as (old, new):
            if not await self._is_closed(new):
                raise MoveError(
                    f"namespace {self.schema} is not being moved, or has been: it is open at the new place"
                )
            # The copy goes last: as long as it is there, closed, a move can be told from one that is over, and be given up again.
            await self._open(old)
            await old.execute(self._bound(_UNMARK), TASK)
            await self._drop_subscription(new)
            await old.execute(f"drop publication if exists {self.name}")
            await new.execute(f"drop schema {sql.quote(self.schema)} cascade")

    @asynccontextmanager
    async def _both(self) -> AsyncIterator[tuple[Driver, Driver]]:
        source, target = self.source.direct or self.source, self.target.direct or self.target
        old = await source.connect()
        try:
            new = await target.connect()
            try:
                with translated():
                    for connection in (old, new):
                        await connection.execute("set statement_timeout = 0")
                    yield old, new
            finally:
                await target.release(new)
        finally:
            await source.release(old)

    async def _check(self, old: Driver, new: Driver) -> None:
        if await old.fetchval("show wal_level") != "logical":
            raise MoveError(
                "the old server does not write a log that can be replicated: `alter system set wal_level = 'logical'`, "
                "and restart it once"
            )
        if await new.fetchval(self._bound("select exists (select from mesh.app)")) or await self._is_closed(
            new
        ):
            raise MoveError(
                f"namespace {self.schema} of the new server is not empty: move to where it is not used, or "
                "`hotmesh move cancel` what was begun before"
            )
        roles = [row["name"] for row in await old.fetch(self._bound(_ROLES))]
        there = {
            row["rolname"]
            for row in await new.fetch("select rolname from pg_roles where rolname = any ($1)", roles)
        }
        if missing := sorted(set(roles) - there):
            raise MoveError(
                f"the new server lacks the roles {', '.join(missing)}: make them first (`pg_dumpall --roles-only`)"
            )

    async def _tables(self, connection: Driver) -> list[str]:
        return [row["relname"] for row in await connection.fetch(_TABLES, self.schema)]

    async def _is_closed(self, connection: Driver) -> bool:
        return bool(await connection.fetchval(_IS_CLOSED, self.schema))

    async def _close(self, connection: Driver, why: str) -> None:
        message = sql.literal(f"nothing is written to namespace {self.schema} at this server: {why}")
        for name in await self._tables(connection):
            await connection.execute(
                self._bound(
                    "create or replace trigger hotmesh_moved before insert or update or delete or truncate "
                    f"on mesh.{sql.quote(name)} for each statement execute function mesh.refuse_moved({message})"
                )
            )

    async def _open(self, connection: Driver) -> None:
        for name in await self._tables(connection):
            await connection.execute(
                self._bound(f"drop trigger if exists hotmesh_moved on mesh.{sql.quote(name)}")
            )

    async def _progress(self, old: Driver, new: Driver) -> Progress:
        [row] = await new.fetch(_COPIED, self.name)
        behind = await old.fetchval(_BEHIND, self.name)
        return Progress(row["copied"], row["tables"], None if behind is None else int(behind))

    async def _close_old(self, old: Driver) -> None:
        """Let nobody write there: not one that has begun may be left when the last row is written."""
        tables = await self._tables(old)
        # Jobs first: almost whoever writes begins with them, and so waits while it holds nothing else.
        tables.sort(key=lambda name: name != "job")
        for number, longest in enumerate(LOCKS):
            if await self._is_closed(old):
                return
            try:
                with translated():
                    async with old.transaction():
                        await old.execute(f"set local lock_timeout = '{longest}'")
                        listed = ", ".join(f"mesh.{sql.quote(name)}" for name in tables)
                        await old.execute(self._bound(f"lock table {listed} in share row exclusive mode"))
                        await old.execute(self._bound(_MARK), TASK, str(uuid4()))
                        await self._close(old, "it has been moved to another one")
            except StatementError as error:
                if error.sqlstate not in ("55P03", "40P01"):
                    raise
                if number == len(LOCKS) - 1:
                    raise MoveError(
                        f"namespace {self.schema} could not be closed: a session keeps a transaction open that has "
                        "written to it (`hotmesh doctor`); nothing has changed, end it and finish again"
                    ) from error

    async def _arrival(self, old: Driver, new: Driver) -> None:
        mark = await old.fetchval(self._bound(_MARKED), TASK)
        until = time.monotonic() + ARRIVAL
        while await new.fetchval(self._bound(_MARKED), TASK) != mark:
            if time.monotonic() > until:
                raise MoveError(
                    f"the last rows of namespace {self.schema} have not arrived within {ARRIVAL:.0f} seconds, and it is "
                    "closed: see the log of the new server; then finish again, or `hotmesh move cancel` to go on as before"
                )
            await anyio.sleep(0.01)

    async def _open_new(self, old: Driver, new: Driver) -> None:
        await self._drop_subscription(new)
        roles = [row["name"] for row in await old.fetch(self._bound(_ROLES))]
        sequences = await old.fetch(_SEQUENCES, self.schema)
        values = [
            (row["name"], await old.fetch(self._bound(_VALUE.format(sql.quote(row["name"])))))
            for row in sequences
        ]
        async with new.transaction():
            await self._open(new)
            for name, [value] in values:
                quoted = f"mesh.{sql.quote(name)}"
                await new.execute(self._bound(f"create sequence if not exists {quoted} minvalue 0"))
                place = sql.bind(quoted, self.schema)
                await new.fetchval(
                    "select setval($1::text::regclass, $2, $3)",
                    place,
                    value["last_value"],
                    value["is_called"],
                )
            await new.execute(self._bound(_UNMARK), TASK)
            # Transactions of the other server.
            await new.execute(self._bound("update mesh.worker_mark set taken_by = null"))
            logins = {row["role_name"] for row in await new.fetch(sql.query("valid_logins", self.schema))}
            for role in roles:
                function = "grant_worker" if role in logins else "grant_app"
                await new.execute(self._bound(f"select mesh.{function}($1)"), role)

    async def _drop_subscription(self, new: Driver) -> None:
        await new.execute(f"drop subscription if exists {self.name}")

    def _bound(self, statement: str) -> str:
        return sql.bind(statement, self.schema)


_TABLES = """
select c.relname from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
 where n.nspname = $1 and c.relkind in ('r', 'p') and not c.relispartition order by c.relname
"""

_IS_CLOSED = """
select exists (select from pg_catalog.pg_trigger as t join pg_catalog.pg_class as c on c.oid = t.tgrelid
                 join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
                where n.nspname = $1 and c.relname = 'job' and t.tgname = 'hotmesh_moved')
"""

_SEQUENCES = """
select c.relname as name from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
 where n.nspname = $1 and c.relkind = 'S' order by c.relname
"""

_VALUE = "select last_value, is_called from mesh.{}"

_ROLES = """
select c.role_name as name from mesh.worker_credential as c where c.revoked_at is null
 union
select r.rolname from pg_catalog.pg_roles as r
 where r.oid in (select a.grantee from pg_catalog.pg_class as c cross join lateral pg_catalog.aclexplode(c.relacl) as a
                  where c.oid = 'mesh.job'::regclass and a.privilege_type = 'INSERT' and a.grantee <> c.relowner)
"""

_COPIED = """
select count(*) filter (where r.srsubstate in ('r', 's')) as copied, count(*) as tables
  from pg_catalog.pg_subscription as s join pg_catalog.pg_subscription_rel as r on r.srsubid = s.oid
 where s.subname = $1
"""

_BEHIND = """
select pg_wal_lsn_diff(pg_current_wal_lsn(), s.confirmed_flush_lsn)::bigint from pg_replication_slots as s where s.slot_name = $1
"""

_MARK = """
insert into mesh.upkeep (app_id, task, due_at, held_by) values ('', $1, now(), $2)
"""

_MARKED = "select u.held_by from mesh.upkeep as u where u.app_id = '' and u.task = $1"

_UNMARK = "delete from mesh.upkeep where app_id = '' and task = $1"

_END_SESSIONS = """
select pg_terminate_backend(a.pid) from pg_stat_activity as a
 where a.datname = current_database() and a.pid <> pg_backend_pid() and a.application_name like 'hotmesh%'
"""
