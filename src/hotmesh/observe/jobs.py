"""Jobs as their rows have them: in short, whole, raw, and what they can be searched by."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from hotmesh.core.codec import CONCEALED, Payload
from hotmesh.core.mapping import to_text
from hotmesh.core.state.job import Job, dimension_text
from hotmesh.core.values import Json
from hotmesh.core.wire import dumps_text, loads
from hotmesh.errors import ConfigError
from hotmesh.observe.fate import not_found
from hotmesh.observe.observer import Observer
from hotmesh.postgres.rows import HeldWork, job_from, records_from, value, work_from

State = Literal["running", "pending", "complete", "failed", "interrupted"]
"""What the status and the error of a job amount to, as `mesh.job_state` says it."""

SPANS: Final = (60.0, 3_600.0, 86_400.0, 1_000 * 365 * 86_400.0)
"""Seconds to look back for the newest jobs, one after the other: a minute, an hour, a day, for ever."""


@dataclass(frozen=True, slots=True)
class JobSummary:
    """A job as its row has it. `seq` counts its steps. `expired`: its time is over, and it is gone for its callers."""

    app_id: str
    job_id: str
    generation: str
    version: str
    topic: str
    state: State
    status: int
    seq: int
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    input: Any
    data: Any
    error: Any
    expired: bool = False


@dataclass(frozen=True, slots=True)
class WholeJob:
    """A job with every record, and the work that is still queued for it."""

    job: Job
    work: tuple[HeldWork, ...]


@dataclass(frozen=True, slots=True)
class FieldCount:
    """How many jobs have these values, as text, in two fields of their data; None: no such field."""

    one: str | None
    other: str | None
    number: int


async def list_jobs(
    observer: Observer,
    app_id: str | None = None,
    *,
    state: State | None = None,
    topic: str | None = None,
    limit: int = 20,
    expired: bool = False,
) -> list[JobSummary]:
    """The newest jobs first, of one app or all; `expired`: also those whose time is over, while their rows are there.

    Looked for in the youngest part of the table first, and further back as long as there are too few.
    """
    rows: list[Any] = []
    for span in SPANS:
        rows = await observer.rows("list_jobs", app_id, state, topic, limit, span, expired)
        if len(rows) >= limit:
            break
    return [_summary(row, observer.payload) for row in rows]


async def find_jobs(observer: Observer, job_id: str, app_id: str | None = None) -> list[JobSummary]:
    """The job of this id, in each app that has one."""
    return [_summary(row, observer.payload) for row in await observer.rows("find_job", job_id, app_id)]


async def whole_job(
    observer: Observer, app_id: str, job_id: str, *, expired: bool = False
) -> WholeJob | None:
    """A job as it was at one moment; `expired`: also one whose time is over, while its row is there."""
    async with observer.at_one_moment() as then:
        row = await then.row("whole_job", app_id, job_id, expired)
        if row is None:
            return None
        records = await then.rows("job_records", row["generation"])
        work = await then.rows("job_work", row["generation"])
    payload = observer.payload
    job = job_from(row, payload)
    found = records_from(records, payload).get(job.generation, {})
    return WholeJob(
        msgspec.structs.replace(job, records=found, covered=None),
        tuple(work_from(one, payload) for one in work),
    )


async def raw_job(observer: Observer, app_id: str, job_id: str) -> dict[str, Any]:
    """All stored fields of a job as one flat dict. Raises JobNotFoundError, CodecError.

    `:` is the status; columns of the row, search fields and markers have their own names; `charge,0,0` is what one
    pass of an activity left; `-cancelled-` is there if the job is marked so.
    """
    row = await observer.row("raw_job", app_id, job_id)
    if row is None:
        raise await not_found(observer, app_id, job_id)
    columns = loads(row["job"])
    records = [] if row["records"] is None else loads(row["records"])
    for found in (columns, *records):
        for name in found.keys() & {"input", "data", "error", "output", "hook"}:
            found[name] = observer.payload.reveal(found[name])
    raw: dict[str, Any] = {":": columns["status"], **columns}
    raw |= columns["search"] or {}
    if columns["cancelled"]:
        raw["-cancelled-"] = "1"
    for record in records:
        del record["generation"]
        raw[record["activity_id"] + dimension_text(tuple(record["dimension"]))] = record
    return raw


async def search_fields(
    observer: Observer, app_id: str, job_id: str, fields: Sequence[str]
) -> dict[str, str | None]:
    """Search fields as text, by name; None for those that the job does not have, and if there is no such job.

    A name in double quotes is taken literally, as that of a marker. Raises ConfigError.
    """
    if isinstance(fields, str) or not isinstance(fields, Collection):
        raise ConfigError(f"fields is a list of names, not {fields!r}")
    for field in fields:
        if not isinstance(field, str):
            raise ConfigError(f"fields is a list of names, and {field!r} is none")
    row = await observer.row("search_fields", app_id, job_id)
    stored: dict[str, Any] = {} if row is None or row["search"] is None else loads(row["search"])
    found: dict[str, str | None] = {}
    for field in fields:
        literal = len(field) > 1 and field[0] == field[-1] == '"'
        name = field[1:-1] if literal else field
        value = stored.get(name if literal else f"_{name}")
        found[name] = None if value is None else _as_text(value)
    return found


async def named_descendants(observer: Observer, app_id: str, job_id: str) -> list[str]:
    """Jobs below this one whose ids begin with `-<job_id>-`."""
    return [row["job_id"] for row in await observer.rows("named_descendants", app_id, job_id)]


async def count_by_fields(
    observer: Observer, app_id: str, key: str, one: str, other: str
) -> list[FieldCount]:
    """How many jobs with a job key have finished, by two fields of their data."""
    return [FieldCount(**row) for row in await observer.rows("count_by_field", app_id, key, one, other)]


async def count_results(
    observer: Observer, app_id: str, entity: str, one: str, other: str
) -> list[FieldCount]:
    """How many workflows about an entity have completed, by two fields of what they returned."""
    return [FieldCount(**row) for row in await observer.rows("count_results", app_id, entity, one, other)]


def _summary(row: Any, payload: Payload) -> JobSummary:
    return JobSummary(
        row["app_id"],
        row["job_id"],
        str(row["generation"]),
        row["version"],
        row["topic"],
        row["state"],
        row["status"],
        row["seq"],
        row["created_at"],
        row["updated_at"],
        row["ended_at"],
        value(row["input"], payload),
        value(row["data"], payload),
        error(row["error"], payload),
        row["expired"],
    )


def error(text: str | None, payload: Payload) -> Any:
    """An error that a column holds; one that is encoded is an error still."""
    found = value(text, payload)
    return {"message": found} if found == CONCEALED else found


def _as_text(value: Json) -> str:
    return (
        value
        if isinstance(value, str)
        else to_text(value)
        if not isinstance(value, dict | list)
        else dumps_text(value)
    )
