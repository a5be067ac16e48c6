"""Where an outcome goes: to the engine of this process, to the stream for the others, or to a later try."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from hotmesh.core.advance.advance import LOST
from hotmesh.core.state.job import Event, WorkReceipt
from hotmesh.core.wire import normalise
from hotmesh.errors import CodecError, PayloadError, in_short
from hotmesh.foreign_errors import LONGEST_WORDS
from hotmesh.postgres.database import Database
from hotmesh.postgres.rows import HeldWork
from hotmesh.runtime.messages import Decided, Response
from hotmesh.runtime.settings import Settings
from hotmesh.runtime.telemetry.metrics import Metrics, add
from hotmesh.runtime.tracebacks import loggable
from hotmesh.runtime.work.answer_writer import AnswerWriter
from hotmesh.runtime.work.outcome import Failure, error_object
from hotmesh.runtime.work.served import ServedWorker
from hotmesh.runtime.work.worker import most_attempts, retry_delay

logger = logging.getLogger("hotmesh.worker")

Deliver = Callable[[str, str, Event], None]
"""Takes an event of a job, by id and generation."""


class Answers:
    """Decides where the outcomes of one process's callbacks go."""

    def __init__(
        self, database: Database, settings: Settings, metrics: Metrics, writer: AnswerWriter
    ) -> None:
        self._database = database
        self._settings = settings
        self._metrics = metrics
        self._writer = writer
        self.deliver: Deliver | None = None
        """The engine of this process; None: answers go to the engine stream."""
        self.by_stream = False
        """Answers go to the stream all the same."""

    def answer(
        self,
        served: ServedWorker,
        work: HeldWork,
        response: Response | Decided,
        error: BaseException | None = None,
    ) -> None:
        """The callback is done: what it returned is its answer, what it raised (`error`) is one unless it is tried again.

        What was returned is stored as it is: it has been normalised.
        """
        if isinstance(response, Decided):
            self._decided(served, work, response)
            return
        data = response.data
        if error is not None:
            # Its words are the users', too, and may be as long as they like.
            try:
                what = f"the result of worker {work.topic}"
                data = normalise(data, limit=self._settings.max_payload, what=what)
            except PayloadError as refusal:
                response = Failure(str(refusal), 500, type(refusal).__name__)
                data = response.data
        status, code = response.status, response.code
        if status == "error":
            data = error_object(response, data, work, served.retry)
            code = data["code"]
            delay = retry_delay(served.retry, work, code)
            if delay is not None:
                add(self._metrics.retries, work.topic)
                self._writer.postpone(work, delay, in_short(data))
            else:
                self._answer(served, work, status, code, data)
            _log_failure(data, error, work, most_attempts(served.retry, work, code), delay)
        else:
            self._answer(served, work, status, code, data)

    def _decided(self, served: ServedWorker, work: HeldWork, decided: Decided) -> None:
        """The answer of an activity, whose judge has said what becomes of it, and has told of it."""
        if decided.status == "pending":
            self._writer.hand_over(work, decided.data)
        elif decided.retry_after is None:
            self._answer(served, work, decided.status, decided.code, decided.data)
        else:
            add(self._metrics.retries, work.topic)
            self._writer.postpone(work, decided.retry_after, in_short(decided.data))

    def _answer(self, served: ServedWorker, work: HeldWork, status: str, code: int, data: Any) -> None:
        served.counts[code] = served.counts.get(code, 0) + 1
        if self.deliver is None or self.by_stream:
            self._write(work, status, code, data)
        else:
            self.deliver(work.job_id, work.generation, _event(work, status, code, data))

    def _write(self, work: HeldWork, status: str, code: int, data: Any) -> None:
        try:
            encoded = self._database.payload.dumps(data)
            self._writer.answer(work, status, code, encoded, by_stream=self.by_stream)
        except CodecError as error:
            logger.error("answer cannot be encoded", extra={"job_id": work.job_id, "error": str(error)})
            self._writer.postpone(work, ENCODE_RETRY, str(error))

    def bury(self, work: HeldWork, kind: str | None = None) -> None:
        """Give up work whose holders have died of it: nobody has answered it in many deliveries. `kind`: the type of its error."""
        add(self._metrics.dead_letters, "worker")
        message = f"Poison message detected: delivered {work.delivery - 1} times to workers of {work.topic} and never answered"
        if work.beside is False:
            message += ", the last time with nothing beside it"
        told = {"message": f"{message} (dead letter {{dead_letter}})", "code": LOST}
        self._writer.bury(work, message, told if kind is None else told | {"type": kind})


def _log_failure(
    told: dict[str, Any], error: BaseException | None, work: HeldWork, most: int, delay: float | None
) -> None:
    """Say that an attempt has failed, by what, as the job's error has it, and what follows.

    What was returned (no `error`) is an answer, which transitions may be meant for: never more than a warning.
    """
    attempt = work.attempt + 1
    most = max(most, attempt)
    facts = {
        "job_id": work.job_id,
        "activity_id": work.activity_id,
        "topic": work.topic,
        "attempt": attempt,
        "attempts": most,
    }
    words = in_short(told)[:LONGEST_WORDS]
    cause = None if error is None else loggable(error)
    if delay is None:
        said = (work.topic, work.job_id, attempt, most, words, work.activity_id)
        if error is None:
            # Returned, and maybe meant for a transition.
            logger.warning(
                "worker %s of job %s failed, attempt %s of %s, the last: %s (activity %s)", *said, extra=facts
            )
        else:
            logger.error(
                "worker %s of job %s failed, attempt %s of %s, the last: %s (activity %s)",
                *said,
                extra=facts,
                exc_info=cause,
            )
    else:
        logger.warning(
            "worker %s of job %s failed, attempt %s of %s, next in %s s: %s (activity %s)",
            work.topic,
            work.job_id,
            attempt,
            most,
            f"{delay:g}",
            words,
            work.activity_id,
            extra={**facts, "delay": delay},
            exc_info=cause,
        )


def _event(work: HeldWork, status: str, code: int, data: Any) -> Event:
    return Event(
        "answer",
        work.activity_id,
        work.dimension,
        status,
        code,
        data,
        receipt=WorkReceipt(work.activity_id, work.dimension),
        started_at=work.created_at,
        attempt=work.attempt,
    )


ENCODE_RETRY = 1.0
"""Seconds after which work is tried again whose answer could not be encoded."""
