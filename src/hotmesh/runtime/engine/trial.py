"""Finds out whether a step is itself the reason why Postgres refuses it, where the SQLSTATE does not tell.

A value over a limit and a server at its limit have the same code (54000). So the step is compared with another of the same
job, in transactions that are undone: where the other one can be written, and the step, right after it, can not, it is the
step. Anything else says that the database refuses at the moment, and that passes.
"""

from __future__ import annotations

from hotmesh.core.state.step import Step
from hotmesh.errors import NoConnectionError
from hotmesh.postgres.commits import AnsweredElsewhereError
from hotmesh.postgres.connect.link import Link
from hotmesh.runtime.engine.ticket import Attempt, Ticket, UncommittedStep
from hotmesh.runtime.engine.writer import CommitWriter


class _UndoneError(Exception):
    """The step could be written; the transaction is to leave nothing."""


async def is_to_blame(writer: CommitWriter, link: Link, ticket: Ticket, other: Step) -> bool:
    """Whether the step of a ticket is refused where `other`, of the same job, is not. Nothing is written by it."""
    try:
        return await _can_be_written(writer, link, other, ticket.epoch) and not await _can_be_written(
            writer, link, ticket.step, ticket.epoch
        )
    except (NoConnectionError, AnsweredElsewhereError):
        return False  # nothing was found out


async def _can_be_written(writer: CommitWriter, link: Link, step: Step, epoch: int) -> bool:
    item = UncommittedStep(step)
    try:
        async with link.use() as connection, connection.transaction():
            committed = await writer.write(connection, (item,), Attempt(epoch))
            if committed.epoch != epoch or committed.refused:
                # The job has moved on meanwhile: neither of the two is the step that counts.
                raise AnsweredElsewhereError
            raise _UndoneError
    except _UndoneError:
        return True
    except (NoConnectionError, AnsweredElsewhereError):
        raise
    except Exception:  # noqa: BLE001 - refused, for whatever reason
        return False
    finally:
        writer.free_slots((item,))
