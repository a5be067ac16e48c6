"""Commits steps, and finds out what became of those whose commit was not answered."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from hotmesh.core.state.job import MessageReceipt, TimerReceipt, WorkReceipt
from hotmesh.core.state.step import Consumed, WorkKey
from hotmesh.postgres import escalations
from hotmesh.postgres.arrays import array, columns
from hotmesh.postgres.database import Connection, Database
from hotmesh.postgres.sections import COMMIT
from hotmesh.postgres.steps import NOBODY, Batch, Committed


class AnsweredElsewhereError(Exception):
    """A row that a step answers is gone: its lease was lost, or another process was first."""


GONE = "MS002"
"""The SQLSTATE of that."""

TENURE_OVER = "MS003"
"""The SQLSTATE of a commit by which a process would hold jobs that has lost the right to."""


async def commit(
    database: Database,
    connection: Connection,
    batch: Batch,
    member: str,
    epoch: int,
    token: int,
    lease: float,
    wake: str | None,
    *,
    watched: Sequence[str] = (),
) -> Committed:
    """Write a batch of steps. Raises AnsweredElsewhereError if any of them answers a row that is gone.

    `watched`: jobs whose work items are to be reported as this commit leaves them, which makes it a transaction of
    several statements.
    """
    statement = database.bound(COMMIT)
    arguments = batch.arguments(database.app_id, member, epoch, token, lease, wake)
    if not watched:
        return await _commit(connection, statement, arguments)
    async with connection.transaction():
        committed = await _commit(connection, statement, arguments)
        found = await escalations.written_at(database, connection, watched, committed.committed_at)
    return msgspec.structs.replace(committed, escalations=found)


async def _commit(connection: Connection, statement: str, arguments: Sequence[Any]) -> Committed:
    try:
        row = await connection.fetchrow(statement, *arguments)
    except Exception as error:
        if getattr(error, "sqlstate", None) == GONE:
            raise AnsweredElsewhereError from error
        raise
    if row is None:
        raise AssertionError("commit_steps answers with one row")
    refused = {
        number: (reason, taken)
        for number, reason, taken in zip(row["refused"], row["reasons"], row["taken"], strict=True)
    }
    return Committed(
        refused,
        row["epoch"],
        row["woken"],
        _listeners(row["listeners"], row["heard"]) if row["listeners"] else NOBODY,
        row["committed_at"],
        frozenset(row["held"] or ()),
    )


def _listeners(members: Sequence[str], topics: Sequence[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for member, topic in zip(members, topics, strict=True):
        found.setdefault(topic, set()).add(member)
    return found


async def written(
    database: Database, connection: Connection, job_ids: Sequence[str]
) -> dict[str, tuple[str, int, int]]:
    """Job id → (generation, seq, token): what became of steps whose commit was not answered."""
    rows = await connection.fetch(database.query("written_steps"), database.app_id, list(job_ids))
    return {row["job_id"]: (str(row["generation"]), row["seq"], row["token"]) for row in rows}


async def reserved_by(
    database: Database, connection: Connection, member: str, reservation: int, works: Collection[WorkKey]
) -> set[WorkKey]:
    """Of these pieces of work, those that the member holds by this reservation."""
    rows = await connection.fetch(database.query("reserved_work"), *columns(works), member, reservation)
    return {(str(row["generation"]), row["activity_id"], tuple(row["dimension"])) for row in rows}


async def gone(
    database: Database, connection: Connection, member: str, rows: Sequence[Consumed]
) -> set[Consumed]:
    """Of the rows that steps were to delete, those that are not there, or are work that others hold by now."""
    wanted: list[tuple[str, str, str, str, str, str | None, int | None]] = []
    for row in rows:
        match row.receipt:
            case MessageReceipt(message_id):
                wanted.append(("message", row.generation, "", "{}", message_id, None, None))
            case WorkReceipt(activity_id, dimension, holder, reservation):
                wanted.append(
                    (
                        "work",
                        row.generation,
                        activity_id,
                        array(dimension),
                        "",
                        holder or member,
                        reservation,
                    )
                )
            case TimerReceipt(activity_id, dimension):
                wanted.append(("timer", row.generation, activity_id, array(dimension), "", None, None))
    found = await connection.fetch(
        database.query("gone_rows"), *(list(column) for column in zip(*wanted, strict=True))
    )
    return {rows[row["position"] - 1] for row in found}


async def free_expired_ids(
    database: Database, job_ids: Sequence[str], connection: Connection | None = None
) -> int:
    """Remove jobs of these ids whose time is over, in the caller's transaction if there is one; how many there were."""
    if connection is None:
        return int(await database.value("free_expired_ids", database.app_id, list(job_ids)))
    return int(await connection.fetchval(database.query("free_expired_ids"), database.app_id, list(job_ids)))
