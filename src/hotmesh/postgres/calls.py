"""Sends what callers ask of jobs: messages and signals, any number in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from hotmesh.core.state.job import Dimension
from hotmesh.core.values import Json
from hotmesh.core.wire import dumps_rows
from hotmesh.postgres.arrays import array
from hotmesh.postgres.database import Connection, Database
from hotmesh.postgres.steps import seconds


class MessageCall(Struct, frozen=True):
    """A message for a live job. `text`: its data as they are stored; `generation` None: whichever is live."""

    kind: str
    job_id: str
    message_id: str
    data: Json
    text: str
    generation: str | None = None
    activity_id: str = ""
    dimension: Dimension = ()
    status: str = "success"
    code: int = 200


class SignalCall(Struct, frozen=True):
    """A signal for who waits under the first of the keys that somebody waits under; `keep` None: else it is dropped."""

    topic: str
    keys: Sequence[str]
    data: Json
    text: str
    status: str
    code: int
    keep: float | None


Call = MessageCall | SignalCall


class Sent(Struct, frozen=True):
    """What became of a call. `generation` and what follows: of the job that it is for, if it was sent.

    `message_id` None: what was sent before has to be handled before it.
    """

    outcome: str
    job_id: str
    generation: str
    activity_id: str
    dimension: Dimension
    message_id: str | None
    at: datetime


async def send_calls(
    database: Database, connection: Connection, calls: Sequence[Call], delays: Sequence[float], wake: str
) -> list[Sent]:
    """Send calls; what became of each. `delays`: for how many seconds others leave each of them to this process.

    Messages: sent, duplicate, missing, closed; signals: delivered, kept, dropped. Either is busy if somebody holds the row
    that it is about, and a signal is to be sent again if it has the key of one before it: nothing was done.
    """
    messages: list[_Message] = []
    signals: list[_Signal] = []
    for number, (call, delay) in enumerate(zip(calls, delays, strict=True)):
        if isinstance(call, SignalCall):
            signals.append(
                _Signal(number, call.topic, call.keys, call.status, call.code, seconds(call.keep), delay)
            )
        else:
            messages.append(
                _Message(
                    number,
                    call.job_id,
                    call.generation,
                    call.message_id,
                    call.kind,
                    call.activity_id,
                    array(call.dimension),
                    call.status,
                    call.code,
                    delay,
                )
            )
    rows = await connection.fetch(
        database.query("send_calls"),
        database.app_id,
        *_section(messages, calls),
        *_section(signals, calls),
        wake,
    )
    found = {row["number"]: row for row in rows}
    return [
        Sent(
            row["outcome"],
            row["job_id"] or "",
            str(row["generation"] or ""),
            row["activity_id"] or "",
            tuple(row["dimension"] or ()),
            row["message_id"],
            row["sent_at"],
        )
        for row in (found[number] for number in range(len(calls)))
    ]


class _Message(Struct, frozen=True, array_like=True):
    number: int
    job_id: str
    generation: str | None
    message_id: str
    kind: str
    activity_id: str
    dimension: str
    status: str
    code: int
    delay: float


class _Signal(Struct, frozen=True, array_like=True):
    number: int
    topic: str
    keys: Sequence[str]
    status: str
    code: int
    keep: float | str | None
    delay: float


def _section(
    rows: Sequence[_Message] | Sequence[_Signal], calls: Sequence[Call]
) -> tuple[str | None, list[str] | None]:
    """Rows as one JSON text, and beside it the texts that they carry; nothing is null."""
    if not rows:
        return None, None
    return dumps_rows(rows), [calls[row.number].text for row in rows]
