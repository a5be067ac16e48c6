"""Writes what callbacks have left: answers for engines elsewhere, retries, work that is given back or given up.

All that has come up goes in one statement of each kind, and stays here until it is written.

An answer is told to the engine that sent the work, if it can be (`told`), and written if that has not taken it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any

from hotmesh.core.state.step import WorkKey
from hotmesh.core.wire import dumps_text
from hotmesh.postgres import tokens
from hotmesh.postgres.connect.failures import StatementError, fault, passing, translated
from hotmesh.postgres.rows import HeldWork
from hotmesh.postgres.work import WorkQueue
from hotmesh.runtime.service import Flag, forever
from hotmesh.runtime.settings import Settings
from hotmesh.runtime.telemetry.metrics import Metrics, add
from hotmesh.runtime.wake import EVENTS, work_hint
from hotmesh.runtime.work.lease import LeaseKeeper
from hotmesh.runtime.work.served import Served
from hotmesh.runtime.work.told import Answer, Notice, ToldAnswers

logger = logging.getLogger("hotmesh.worker")

ANSWER_BATCH = 200

MOST_DOUBTS = 3
"""Refusals in a row after which it is found out whether they are for what is in an answer."""


def note_lost(metrics: Metrics, work: HeldWork) -> None:
    """Say that an answer does not count: its lease was lost."""
    add(metrics.lost_leases, work.topic)
    logger.warning(
        "the answer of worker %s for job %s came when others had its work, and does not count (activity %s)",
        work.topic,
        work.job_id,
        work.activity_id,
        extra={"event": "stream-lease-lost", "job_id": work.job_id, "activity_id": work.activity_id},
    )


class AnswerWriter:
    """What one process still has to write about work that it holds. `run` is its lifetime."""

    def __init__(
        self,
        work: WorkQueue,
        member: str,
        settings: Settings,
        metrics: Metrics,
        leases: LeaseKeeper,
        served: Served,
    ) -> None:
        self._work = work
        self._member = member
        self._settings = settings
        self._metrics = metrics
        self._leases = leases
        self._served = served
        self._link = work.database.link("answers")
        self._answers: list[Answer] = []
        """To be written."""
        self._to_tell: list[tuple[Answer, Notice]] = []
        self._told = ToldAnswers(work, member, served)
        self._maybe_taken: set[WorkKey] = set()
        """Of what is to be written, what was told before, so that an engine may be quicker."""
        self._most = ANSWER_BATCH
        """Answers that go into one statement."""
        self._doubts = 0
        """Refusals in a row of which it is not known whether they are for what is in the answers."""
        self._postponed: list[tuple[HeldWork, float, str | None]] = []
        self._buried: list[tuple[HeldWork, str, dict[str, Any]]] = []
        self._handed: list[tuple[HeldWork, tuple[float, str] | None]] = []
        self._wake = Flag()
        self._writing = False

    @property
    def busy(self) -> bool:
        """Whether anything is still to be written."""
        return bool(
            self._answers
            or self._to_tell
            or self._told
            or self._postponed
            or self._buried
            or self._handed
            or self._writing
        )

    @property
    def ahead(self) -> int:
        """Answers that are still to be told or written."""
        return len(self._answers) + len(self._to_tell)

    def answer(
        self, work: HeldWork, status: str, code: int, data: str | None, *, by_stream: bool = False
    ) -> None:
        """Answer work; `data` is encoded. `by_stream`: as a row for every engine, whether or not one can be told."""
        answer = (work, status, code, data)
        notice = None if by_stream else self._told.notice(answer, len(self._to_tell))
        if notice is None:
            self._answers.append(answer)
        else:
            self._to_tell.append((answer, notice))
        self._wake.set()

    def hasten(self) -> None:
        """The instance stops: what was told is not waited for."""
        self._wake.set()

    def postpone(self, work: HeldWork, delay: float, error: str | None = None) -> None:
        """Try the work again after some seconds; it has failed, with this error (`type: message`)."""
        kept = None if error is None else self._work.database.payload.kept_error(error)
        self._postponed.append((work, delay, kept))
        self._wake.set()

    def give_back(self, work: HeldWork) -> None:
        """The work was not begun, or not finished: it is for everybody at once."""
        self.postpone(work, -1.0)

    def bury(self, work: HeldWork, reason: str, error: dict[str, Any]) -> None:
        """Move the work to the dead letters, and answer its activity with the error."""
        self._buried.append((work, reason, error))
        self._wake.set()

    def hand_over(self, work: HeldWork, limit: tuple[float, str] | None) -> None:
        """The work is ended by its token, or by a limit in so many seconds."""
        self._handed.append((work, limit))
        self._wake.set()

    async def close(self) -> None:
        await self._link.close()

    async def run(self) -> None:
        """Write until cancelled; what could not be written is tried again."""
        await forever(
            self.run_once,
            logger,
            lost=None,
            failed="answers could not be written",
            longest_pause=self._settings.reconnect_max,
        )

    async def run_once(self) -> None:
        """Wait for something to write; write answers, retries and dead letters, in one statement of each kind."""
        waiting = self._answers or self._to_tell or self._postponed or self._buried or self._handed
        if not (waiting or self._told.due):
            self._writing = False
            if self._served.stopping:
                self._served.ended.set()
            self._wake.clear()
            await self._wake.wait(self._told.due_in)
        self._writing = True
        async with self._link.use() as connection:
            if self._to_tell:
                await self._tell(connection)
            if self._told.due:
                await self._look_after_told(connection)
            await self._write_answers(connection)
            await self._write_postponed(connection)
            await self._write_buried(connection)
            await self._write_handed(connection)

    async def _tell(self, connection: Any) -> None:
        """Tell engines answers. Where that fails, they are written."""
        telling, self._to_tell = self._to_tell, []
        try:
            await self._told.tell(connection, telling)
        except BaseException:
            self._write([answer for answer, _ in telling])
            raise

    async def _look_after_told(self, connection: Any) -> None:
        found = await self._told.look(connection)
        for work in found.taken:
            self._done(work, counts=True)
        for work in found.lost:
            self._done(work, counts=False)
        self._write(found.untaken)

    def _write(self, answers: Collection[Answer]) -> None:
        """Write answers of which it is not known whether an engine has heard them."""
        self._answers += answers
        self._maybe_taken.update(work.key for work, *_ in answers)

    async def _write_answers(self, connection: Any) -> None:
        if not self._answers:
            return
        try:
            await self._exchange(connection, self._answers[: self._most])
        except StatementError as refusal:
            if not passing(refusal):
                await self._isolate(connection, own=fault(refusal) == "values")
            raise
        self._most = min(self._most * 2, ANSWER_BATCH)
        self._doubts = 0

    async def _exchange(self, connection: Any, answers: Sequence[Answer]) -> None:
        held = await self._work.answer(
            connection,
            self._member,
            [_row(answer) for answer in answers],
            EVENTS,
        )
        del self._answers[: len(answers)]
        for (work, *_), kept in zip(answers, held, strict=True):
            self._done(work, counts=kept or work.key in self._maybe_taken)
            self._maybe_taken.discard(work.key)

    def _done(self, work: HeldWork, *, counts: bool) -> None:
        """The work need not be held any longer. `counts`: whether its answer does, as far as is known."""
        self._leases.release(work.key)
        if not counts:
            note_lost(self._metrics, work)

    async def _isolate(self, connection: Any, *, own: bool) -> None:
        """Postgres refuses an answer: they are written one by one, and one that is refused for what is in it becomes an error."""
        if self._most > 1:
            self._most = 1
            return
        refused = self._answers.pop(0)
        work = refused[0]
        error = {"message": f"the result of worker {work.topic} could not be stored", "code": 500}
        failure: Answer = (work, "error", 500, dumps_text(error))
        if own or await self._is_to_blame(connection, refused, failure):
            self._answers.insert(0, failure)
        else:
            self._answers.append(refused)  # the others first

    async def _is_to_blame(self, connection: Any, refused: Answer, other: Answer) -> bool:
        """Whether an answer is refused where another one to the same work is not; nothing is written by it."""
        self._doubts += 1
        if self._doubts <= MOST_DOUBTS:
            return False
        return await self._can_be_written(connection, other) and not await self._can_be_written(
            connection, refused
        )

    async def _can_be_written(self, connection: Any, answer: Answer) -> bool:
        transaction = connection.transaction()
        try:
            with translated():
                await transaction.start()
                try:
                    await self._work.answer(connection, self._member, [_row(answer)], EVENTS)
                finally:
                    await transaction.rollback()
        except StatementError:
            return False
        return True

    async def _write_postponed(self, connection: Any) -> None:
        postponed = self._postponed[:ANSWER_BATCH]
        if not postponed:
            return
        topics = {work.topic for work, delay, _ in postponed if delay <= 0}
        details = [self._leases.details_of(work.key) for work, *_ in postponed]
        for work, *_ in postponed:
            # Before it is written: it may be claimed here again before this hears that it is.
            self._leases.release(work.key)
        await self._work.postpone(
            connection,
            self._member,
            [
                (w.generation, w.activity_id, w.dimension, max(delay, 0.0), delay >= 0, error, said)
                for (w, delay, error), said in zip(postponed, details, strict=True)
            ],
            work_hint(topics) if topics else None,
        )
        del self._postponed[: len(postponed)]
        self._served.given_back([work for work, *_ in postponed])

    async def _write_handed(self, connection: Any) -> None:
        while self._handed:
            work, limit = self._handed[0]
            details = self._leases.details_of(work.key)
            await tokens.hand_over(self._work.database, connection, self._member, work.key, limit, details)
            self._handed.pop(0)
            self._leases.release(work.key)  # if it was not held any more, its token was quicker
            if limit is not None:
                self._served.given_back([work])  # it is due in a while

    async def _write_buried(self, connection: Any) -> None:
        while self._buried:
            work, reason, error = self._buried[0]
            letter = await self._work.bury(connection, self._member, work, reason, error, EVENTS)
            self._buried.pop(0)
            if letter is not None:
                _log_buried(work, letter)


def _log_buried(work: HeldWork, letter: str) -> None:
    """Say that work was given up. `letter`: which dead letter it is."""
    logger.error(
        "worker %s of job %s killed or lost its process %s times and was given up: %s (activity %s)",
        work.topic,
        work.job_id,
        work.delivery - 1,
        letter,
        work.activity_id,
        extra={
            "event": "stream-poison-message-detected",
            "job_id": work.job_id,
            "activity_id": work.activity_id,
            "deliveries": work.delivery - 1,
        },
    )


def _row(answer: Answer) -> tuple[str, str, tuple[int, ...], str, int, str | None]:
    work, status, code, data = answer
    return work.generation, work.activity_id, work.dimension, status, code, data
