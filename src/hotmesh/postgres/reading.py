"""Reads jobs as a whole, and dead letters: what people ask for, off the paths that flows take."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from hotmesh.core.codec import CONCEALED, Payload
from hotmesh.core.state.job import Dimension, Job, RecordState
from hotmesh.core.values import Json
from hotmesh.core.wire import loads
from hotmesh.errors import CodecError
from hotmesh.postgres import sql
from hotmesh.postgres.rows import HeldWork, job_from, records_from, work_from
from hotmesh.postgres.store import Store

MOST_OF_A_KIND = 200
"""Rows of one kind that a situation holds; a job may have any number."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up.

    `stream` is `worker`: work that no worker answered, with its `topic`; or `engine`: what an engine could not handle,
    `topic` then names the kind of the message. `message` is what was stored: one row of work, or everything that was
    open of the job when it was given up.
    """

    id: int
    stream: str
    topic: str
    job_id: str
    activity_id: str
    dimension: Dimension
    message: Json
    reason: str
    dead_at: datetime


@dataclass(frozen=True, slots=True)
class FoundLetter:
    """What requeueing has to know about a dead letter; `seq` and `status` are those of its job, if it has one."""

    stream: str
    job_id: str
    activity_id: str
    dimension: Dimension
    seq: int | None
    status: int | None


@dataclass(frozen=True, slots=True)
class WholeJob:
    """A job with every record, and the work that is still queued for it."""

    job: Job
    work: tuple[HeldWork, ...]


class QueuedWork(Struct, frozen=True):
    """A row of worker_stream. Held: `reserved_by` is set and `visible_at` lies ahead."""

    activity_id: str
    dimension: Dimension
    topic: str
    workflow_name: str
    created_at: datetime
    visible_at: datetime
    reserved_by: str | None
    attempt: int
    delivery: int


class ServedTopic(Struct, frozen=True):
    """A worker topic and a workflow name of it; who holds such work now, and who other work of the topic."""

    topic: str
    workflow_name: str
    holders: tuple[str, ...]
    others: tuple[str, ...]


class QueuedMessage(Struct, frozen=True):
    """A row of engine_stream."""

    message_id: str
    kind: str
    activity_id: str
    dimension: Dimension
    created_at: datetime
    visible_at: datetime
    attempt: int


class SetTimer(Struct, frozen=True):
    """A row of timer."""

    activity_id: str
    dimension: Dimension
    due_at: datetime
    set_at: datetime
    attempt: int


class SignalWait(Struct, frozen=True):
    """A row of wait."""

    activity_id: str
    dimension: Dimension
    topic: str
    key: str
    created_at: datetime


class LiveChild(Struct, frozen=True):
    """A job that another one awaits."""

    job_id: str
    status: int
    activity_id: str
    dimension: Dimension
    created_at: datetime


class OpenRecord(Struct, frozen=True):
    """A record that is not closed."""

    activity_id: str
    dimension: Dimension
    type: str
    state: RecordState
    started_at: datetime | None


class BuriedMessage(Struct, frozen=True):
    """A dead letter of the job."""

    id: int
    stream: str
    topic: str
    activity_id: str
    dimension: Dimension
    reason: str
    dead_at: datetime


class StoredRate(Struct, frozen=True):
    """A row of throttle that concerns the job. `topic`: empty for all."""

    scope: str
    topic: str
    rate: int


@dataclass(frozen=True, slots=True)
class Situation:
    """A job and what it waits for, at one moment (`now`, by the database's clock).

    Of each kind at most MOST_OF_A_KIND, the oldest first; `number` counts work, messages and children in full.
    """

    job_id: str
    version: str
    topic: str
    status: int
    error: Json
    open: dict[str, Any] | None
    cancelled: bool
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    expires_at: datetime | None
    now: datetime
    number: int
    work: list[QueuedWork]
    topics: list[ServedTopic]
    messages: list[QueuedMessage]
    timers: list[SetTimer]
    waits: list[SignalWait]
    children: list[LiveChild]
    records: list[OpenRecord]
    dead_letters: list[BuriedMessage]
    rates: list[StoredRate]


_KINDS: dict[str, Any] = {
    "work": list[QueuedWork],
    "topics": list[ServedTopic],
    "messages": list[QueuedMessage],
    "timers": list[SetTimer],
    "waits": list[SignalWait],
    "children": list[LiveChild],
    "records": list[OpenRecord],
    "dead_letters": list[BuriedMessage],
    "rates": list[StoredRate],
}
_DECODERS = {name: msgspec.json.Decoder(kind) for name, kind in _KINDS.items()}


async def whole_job(store: Store, job_id: str, *, expired: bool = False) -> WholeJob | None:
    """A job as it was at one moment; `expired`: also one whose time is over, while its row is there."""
    async with (
        store.connection() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        row = await connection.fetchrow(
            store.bound(
                "select * from mesh.job where app_id = $1 and job_id = $2 "
                "and ($3 or expires_at is null or expires_at > mesh.clock())"
            ),
            store.app_id,
            job_id,
            expired,
        )
        if row is None:
            return None
        records = await connection.fetch(_query(store, "job_records"), row["generation"])
        work = await connection.fetch(_query(store, "job_work"), row["generation"])
    payload = store.payload
    job = job_from(row, payload)
    found = records_from(records, payload).get(job.generation, {})
    return WholeJob(
        msgspec.structs.replace(job, records=found, covered=None),
        tuple(work_from(one, payload) for one in work),
    )


async def raw_job(store: Store, job_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    """The job's row and its activities' rows, as JSON has them. Raises CodecError."""
    row = await _row(store, "raw_job", store.app_id, job_id)
    if row is None:
        return None
    job = loads(row["job"])
    records = [] if row["records"] is None else loads(row["records"])
    payload = store.payload
    for found in (job, *records):
        for name in found.keys() & {"input", "data", "error", "output", "hook"}:
            found[name] = payload.reveal(found[name])
    return job, records


async def search_fields(store: Store, job_id: str) -> dict[str, Any]:
    """Search fields and markers under their stored names; nothing if there is no such job."""
    row = await _row(store, "search_fields", store.app_id, job_id)
    if row is None:
        return {}
    found: dict[str, Any] = {} if row["search"] is None else loads(row["search"])
    return found


async def named_descendants(store: Store, job_id: str) -> list[str]:
    """Jobs below this one whose ids begin with `-<job_id>-`."""
    async with store.connection() as connection:
        rows = await connection.fetch(_query(store, "named_descendants"), store.app_id, job_id)
    return [row["job_id"] for row in rows]


async def situations(store: Store, job_ids: Collection[str]) -> dict[str, Situation]:
    """By id, the situations of those jobs that exist."""
    async with store.connection() as connection:
        rows = await connection.fetch(
            _query(store, "explain_jobs"), store.app_id, list(job_ids), MOST_OF_A_KIND
        )
    return {row["job_id"]: _situation(row, store.payload) for row in rows}


def _situation(row: Any, payload: Payload) -> Situation:
    values = dict(row)
    for name, decoder in _DECODERS.items():
        values[name] = [] if values[name] is None else decoder.decode(values[name])
    for name in ("error", "open"):
        values[name] = None if values[name] is None else loads(values[name])
    try:
        values["error"] = payload.reveal(values["error"])
    except CodecError:
        values["error"] = {"message": CONCEALED, "code": None}
    return Situation(**values)


async def list_dead_letters(
    store: Store, topic: str | None, job_id: str | None, limit: int
) -> list[DeadLetter]:
    """The newest first."""
    async with store.connection() as connection:
        rows = await connection.fetch(_query(store, "list_dead_letters"), store.app_id, topic, job_id, limit)
    return [
        DeadLetter(
            row["id"],
            row["stream"],
            row["topic"],
            row["job_id"],
            row["activity_id"],
            tuple(row["dimension"]),
            _revealed(loads(row["message"]), store.payload),
            row["reason"],
            row["dead_at"],
        )
        for row in rows
    ]


def _revealed(message: Json, payload: Payload) -> Json:
    """What a dead letter holds, decoded as far as this process can."""
    if isinstance(message, list):
        return [_revealed(one, payload) for one in message]
    if not isinstance(message, dict):
        return message
    found = {
        name: _revealed(one, payload) if name in ("messages", "work") else one
        for name, one in message.items()
    }
    for name in found.keys() & {"data", "query", "error"}:
        with suppress(CodecError):
            found[name] = payload.reveal(found[name])
    return found


async def find_dead_letter(store: Store, dead_letter_id: int) -> FoundLetter | None:
    row = await _row(store, "find_dead_letter", store.app_id, dead_letter_id)
    if row is None:
        return None
    return FoundLetter(
        row["stream"], row["job_id"], row["activity_id"], tuple(row["dimension"]), row["seq"], row["status"]
    )


async def requeue_dead_letter(
    store: Store,
    dead_letter_id: int,
    seq: int | None,
    *,
    reopen: bool,
    error: str | None,
    open_: str | None,
    wake: str,
) -> str:
    """requeued, missing, changed, ended or closed; see the function's own comment."""
    async with store.connection() as connection:
        return str(
            await connection.fetchval(
                store.bound("select mesh.requeue_dead_letter($1, $2, $3, $4, $5, $6, $7)"),
                store.app_id,
                dead_letter_id,
                seq,
                reopen,
                error,
                open_,
                wake,
            )
        )


async def discard_dead_letter(store: Store, dead_letter_id: int) -> bool:
    """Whether there was one of this id."""
    return await _row(store, "discard_dead_letter", store.app_id, dead_letter_id) is not None


async def cancel_job(store: Store, job_id: str) -> None:
    async with store.connection() as connection:
        await connection.execute(_query(store, "cancel_job"), store.app_id, job_id)


async def forget_job(store: Store, job_id: str, generation: str) -> bool:
    """Remove a job that has ended, unless its id has been used again since; whether there was one."""
    row = await _row(store, "forget_job", store.app_id, job_id, generation)
    return bool(row["count"])


async def scrub_job(store: Store, job_id: str) -> list[dict[str, Any]]:
    """Remove the job if there is one; its work items that were cancelled by that."""
    async with store.connection() as connection, connection.transaction():
        found = await connection.fetchval(store.bound("select mesh.scrub_job($1, $2)"), store.app_id, job_id)
        return await store.cancelled_here(connection, job_id) if found else []


async def _row(store: Store, query: str, *arguments: object) -> Any:
    async with store.connection() as connection:
        return await connection.fetchrow(_query(store, query), *arguments)


def _query(store: Store, name: str) -> str:
    return store.bound(sql.read("queries")[name])
