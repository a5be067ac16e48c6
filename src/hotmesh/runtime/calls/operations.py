"""What operators do to jobs: cancel and scrub them, and decide about what was given up."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from hotmesh.core.advance.reopen import Reopening, reopen
from hotmesh.core.arguments import is_generation
from hotmesh.core.mapping import Environment
from hotmesh.core.wire import dumps_text
from hotmesh.errors import (
    ConfigError,
    DeadLetterNotFoundError,
    JobCompletedError,
    JobError,
    VersionNotFoundError,
)
from hotmesh.observe.fate import completed
from hotmesh.observe.jobs import whole_job
from hotmesh.observe.observer import Observer
from hotmesh.postgres import operations
from hotmesh.postgres.database import Database
from hotmesh.postgres.operations import FoundLetter
from hotmesh.runtime.definitions.plans import Plans
from hotmesh.runtime.telemetry.events import Events

EVERYTHING: Final = '{"e":1,"w":["*"]}'
"""The hint that there is something for engines and for workers."""

LARGEST_ID: Final = 2**63 - 1
"""The largest id that a column holds."""

OPERATION_TRIES: Final = 50
"""How often requeueing looks again at a job that moves meanwhile."""


class JobOperations:
    """Changes to jobs and dead letters of one app, each one statement."""

    def __init__(
        self, database: Database, plans: Plans, environment: Environment, events: Events | None = None
    ) -> None:
        self._database = database
        self._plans = plans
        self._environment = environment
        self._events = events

    async def cancel(self, job_id: str) -> None:
        """Set the job's mark `cancelled`; a job that does not exist is left at that."""
        await operations.cancel_job(self._database, job_id)

    async def scrub(self, job_id: str) -> None:
        """Remove the job with everything of it; a job that does not exist is left at that."""
        cancelled = await operations.scrub_job(self._database, job_id)
        if self._events is not None:
            self._events.escalations(cancelled)

    async def forget(self, job_id: str, generation: str) -> bool:
        """Remove a job that has ended, with everything of it; whether there was one."""
        return is_generation(generation) and await operations.forget_job(self._database, job_id, generation)

    async def discard(self, dead_letter_id: int) -> None:
        """Remove a dead letter for good. Raises DeadLetterNotFoundError."""
        _check_id(dead_letter_id)
        if not await operations.discard_dead_letter(self._database, dead_letter_id):
            raise DeadLetterNotFoundError(dead_letter_id)

    async def requeue(self, dead_letter_id: int) -> None:
        """Put back what was given up, and bring back its job. Raises DeadLetterNotFoundError, JobCompletedError."""
        _check_id(dead_letter_id)
        for _ in range(OPERATION_TRIES):
            letter = await operations.find_dead_letter(self._database, dead_letter_id)
            if letter is None:
                break
            match await self._try_to_requeue(dead_letter_id, letter):
                case "requeued":
                    return
                case "missing":
                    break
                case "ended":
                    raise await completed(Observer(self._database), self._database.app_id, letter.job_id)
                case "closed":
                    raise JobCompletedError(
                        letter.job_id,
                        f"Job {letter.job_id} has gone on: activity {letter.activity_id} was answered with the error, "
                        "and a transition took it",
                    )
        else:
            error = {
                "message": f"the job of dead letter {dead_letter_id} moved at every try; try again",
                "code": 409,
            }
            raise JobError(error)
        raise DeadLetterNotFoundError(dead_letter_id)

    async def _try_to_requeue(self, dead_letter_id: int, letter: FoundLetter) -> str:
        seq, reopening = letter.seq, None
        if letter.stream == "worker" and letter.seq is not None:
            seq, reopening = await self._reopening(letter)
        return await operations.requeue_dead_letter(
            self._database,
            dead_letter_id,
            seq,
            reopen=reopening is not None,
            error=None
            if reopening is None or reopening.error is None
            else self._database.payload.dumps(reopening.error),
            open_=None if reopening is None or reopening.open is None else dumps_text(reopening.open),
            wake=EVERYTHING,
        )

    async def _reopening(self, letter: FoundLetter) -> tuple[int | None, Reopening | None]:
        """What becomes of the job if the letter's activity is opened again, and the version this was decided on."""
        whole = await whole_job(Observer(self._database), self._database.app_id, letter.job_id, expired=True)
        if whole is None:
            return letter.seq, None
        try:
            plan = await self._plans.version(whole.job.version)
        except VersionNotFoundError:
            return whole.job.seq, None
        now = datetime.now(UTC)
        found = reopen(plan, whole.job, letter.activity_id, letter.dimension, now, self._environment)
        return whole.job.seq, found


def _check_id(dead_letter_id: int) -> None:
    """Raises ConfigError for what is no id, and DeadLetterNotFoundError for one that no row can have."""
    if isinstance(dead_letter_id, bool) or not isinstance(dead_letter_id, int):
        raise ConfigError(f"the id of a dead letter must be an integer, not {dead_letter_id!r}")
    if not 0 < dead_letter_id <= LARGEST_ID:
        raise DeadLetterNotFoundError(dead_letter_id)
