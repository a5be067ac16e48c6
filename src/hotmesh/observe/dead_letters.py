"""What was given up, until somebody decides about it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from hotmesh.core.codec import Payload
from hotmesh.core.state.job import Dimension
from hotmesh.core.values import Json
from hotmesh.core.wire import loads
from hotmesh.errors import CodecError, ConfigError
from hotmesh.observe.observer import Observer

LARGEST_LIMIT: Final = 2**63 - 1
"""The largest number that Postgres takes for a limit."""


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


async def list_dead_letters(
    observer: Observer, app_id: str, topic: str | None = None, job_id: str | None = None, limit: int = 100
) -> list[DeadLetter]:
    """The newest first, of one worker topic or all, of one job or all. Raises ConfigError for a limit below 1."""
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ConfigError(f"limit must be an integer of at least 1, not {limit!r}")
    rows = await observer.rows("list_dead_letters", app_id, topic, job_id, min(limit, LARGEST_LIMIT))
    return [
        DeadLetter(
            row["id"],
            row["stream"],
            row["topic"],
            row["job_id"],
            row["activity_id"],
            tuple(row["dimension"]),
            _revealed(loads(row["message"]), observer.payload),
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
