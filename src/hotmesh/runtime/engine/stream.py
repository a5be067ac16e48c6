"""The engine stream: what is due is locked, loaded, advanced and committed in one transaction."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import anyio

from hotmesh.core.advance.endings import bury
from hotmesh.core.advance.limits import Limits
from hotmesh.core.plan.compile import Plan
from hotmesh.core.state.job import Event, Job
from hotmesh.errors import CodecError, DatabaseError, NoConnectionError, VersionNotFoundError
from hotmesh.postgres import commits, engine_stream
from hotmesh.postgres.commits import AnsweredElsewhereError
from hotmesh.postgres.connect.failures import backoff, fault, id_is_held, translated
from hotmesh.postgres.database import Connection, Database
from hotmesh.postgres.engine_stream import DueJob
from hotmesh.runtime.definitions.program import Program
from hotmesh.runtime.durable.turns import Turns
from hotmesh.runtime.engine.advances import DOUBTED, failed, not_stored
from hotmesh.runtime.engine.after_commit import AfterCommit
from hotmesh.runtime.engine.broadcasts import carry_out
from hotmesh.runtime.engine.crash_loop import CrashLoop, EnginesDiedError
from hotmesh.runtime.engine.due_events import DueEvents
from hotmesh.runtime.engine.due_transaction import DueTransaction, Failing, SignalledError, UndoneError
from hotmesh.runtime.engine.job_cache import JobCache
from hotmesh.runtime.engine.limits import EngineLimits
from hotmesh.runtime.engine.loader import RecordLoader
from hotmesh.runtime.engine.rate import EngineRate
from hotmesh.runtime.engine.step_watch import StepCutOffError, StepWatch
from hotmesh.runtime.engine.ticket import Attempt, UncommittedStep
from hotmesh.runtime.engine.writer import CommitWriter
from hotmesh.runtime.frontier import FrontierLimits
from hotmesh.runtime.pace import RELOOK
from hotmesh.runtime.service import forever
from hotmesh.runtime.surroundings import Surroundings
from hotmesh.runtime.telemetry.metrics import add
from hotmesh.runtime.wake import Wake

logger = logging.getLogger("hotmesh.engine")


SIGNALLED_PAUSE: Final = 0.05
"""Seconds after which it is looked again for that signal."""

MOST_REFUSED: Final = 1_000
"""Jobs of which it is remembered how often their steps were refused."""


class EngineStream:
    """Handles what is due on the engine stream of an app, beside other engines. `run` is its lifetime."""

    def __init__(
        self,
        surroundings: Surroundings,
        cache: JobCache,
        records: RecordLoader,
        writer: CommitWriter,
        after_commit: AfterCommit,
        rate: EngineRate,
        wake: Wake,
        watch: StepWatch,
        step_limits: Limits,
        limits: EngineLimits,
        frontier_limits: FrontierLimits,
        turns: Turns,
    ) -> None:
        self._turns = turns
        self._database = surroundings.database
        self._plans = surroundings.plans
        self._settings = surroundings.settings
        self._environment = surroundings.environment
        self._metrics = surroundings.metrics
        self._events = surroundings.events
        self._cache = cache
        self._records = records
        self._writer = writer
        self._after_commit = after_commit
        self._rate = rate
        self._wake = wake
        self._watch = watch
        self._step_limits = step_limits
        self._limits = limits
        self.failures = 0
        """Looks at the stream that have failed in a row."""
        self._link = surroundings.database.link("stream")
        self._due = DueEvents(
            surroundings.database, surroundings.settings.poll, frontier_limits, turns.own_tenures
        )
        self._refusals: OrderedDict[str, int] = OrderedDict()
        """Generation → how often in a row its step was refused for reasons that may be the database's own."""
        self._crash_loop = CrashLoop(self._database, self._settings.poison_threshold)
        self._stopping = False

    def stop(self) -> None:
        """Take no more."""
        self._stopping = True
        self._wake.set()
        self._rate.pace.wake()

    async def close(self) -> None:
        await self._link.close()

    async def run(self) -> None:
        """Handle what is due on the engine stream: at once when told, when the next is due, and by polling."""
        await forever(
            self._serve,
            logger,
            lost="the engine stream",
            failed="engine stream could not be read",
            longest_pause=self._settings.reconnect_max,
            on_failures=self._failed,
        )

    def _failed(self, failures: int) -> None:
        self.failures = failures

    async def _serve(self) -> None:
        """One look at the stream, and a wait for the next one if everything is handled."""
        if self._stopping:
            await anyio.sleep_forever()
        # A batch that takes longer than the server lets a transaction stand still would never come through.
        most = max(1, self._limits.due_jobs >> self.failures)
        pace = self._rate.pace
        while pace.delay or self._rate.slowed:
            if await self._turn():
                most = 1 if pace.rate else most
                break
            if self._stopping:
                return
        began = time.monotonic()
        handled = await self.run_once(most)
        self._wake.looked(found=handled > 0)
        self.failures = 0
        if handled:
            pace.started(began)
        while handled < most and not self._stopping and pace.left() <= 0:
            async with self._link.use() as connection:
                due, broadcasts = await self._due.next(connection)
                if broadcasts and await carry_out(
                    self._database, connection, await self._plans.active(), self._environment
                ):
                    break
            # What is due but was not handled is locked by another engine.
            if await self._wake.wait(None if due is None else self._wake.hesitant(max(due, 0.02))):
                break
            if due is not None and due <= self._settings.poll:
                break

    async def _turn(self) -> bool:
        """Wait, at most for a moment, until this engine may take a message; whether it may."""
        with anyio.move_on_after(RELOOK):
            await self._rate.pace.turn()
        self._rate.apply()
        return not self._stopping and self._rate.pace.left() <= 0

    async def run_once(self, most: int | None = None) -> int:
        """Lock, load, advance and commit what is due, of at most so many jobs; how many there were."""
        most = self._limits.due_jobs if most is None else most
        if self._wake.is_set():
            self._due.news()
        self._wake.clear()
        async with self._link.use() as connection:
            try:
                only = (
                    await self._counted(connection, most) if await self._crash_loop.look(connection) else None
                )
                return await self._handle_due(connection, most, only=only)
            except NoConnectionError:
                raise
            except AnsweredElsewhereError:
                # Somebody else handled one of the events meanwhile: look again.
                logger.debug("events were handled elsewhere")
            except Exception as error:
                logger.warning("batch of due jobs failed, handling them one by one", exc_info=error)
        handled = 0
        # Another use: each has its own time in which the database has to answer.
        async with self._link.use() as connection:
            for _ in range(most):
                found = await self._handle_one(connection)
                handled += found
                if not found:
                    break
        return handled

    # -- one batch ---------------------------------------------------------------------------------------

    async def _handle_due(
        self,
        connection: Connection,
        limit: int,
        found: list[DueJob] | None = None,
        failing: Failing | None = None,
        only: Sequence[str] | None = None,
    ) -> int:
        since = time.monotonic()
        async with self._transaction(connection) as transaction:
            due = await self._due.lock(connection, limit, only)
            if found is not None:
                found += due
            if failing is not None and [item.job.generation for item in due] != [failing.generation]:
                raise AnsweredElsewhereError  # another one is the next by now
            unreadable = [item for item in due if item.unreadable is not None]
            if unreadable:
                await self._leave(connection, unreadable)
            due = [item for item in due if item.events]
            if not due:
                return len(unreadable)
            jobs = {item.job.generation: item for item in due}
            loaded = await self._jobs_of(connection, due)
            todo = [generation for generation in jobs if generation in loaded]
            while todo:
                # What changes meanwhile counts from the next round on: the commit is refused, and all computed again.
                epoch = self._plans.epoch
                batch = [
                    await self._advance(loaded[generation], jobs[generation], transaction, failing)
                    for generation in todo
                ]
                steps = [item for item in batch if item is not None]
                todo = await self._write(connection, steps, epoch, transaction)
            if failing is not None and failing.undo:
                raise UndoneError
        self._rate.took([event.event for item in due for event in item.events], time.monotonic() - since)
        self._applied(transaction)
        if any(len(item.events) >= self._limits.events_per_step for item in due):
            self._wake.set()  # there is more of it
        return len(due)

    def _applied(self, transaction: DueTransaction) -> None:
        """What a transaction has written is committed."""
        for item, attempt, committed in transaction.steps:
            self._refusals.pop(item.step.jobs[0].job.generation, None)
            self._cache.adopt(item)
            self._after_commit.apply(item, attempt, committed)
            self._cache.evict()
            if committed.woken:
                self._wake.set()

    @asynccontextmanager
    async def _transaction(self, connection: Connection) -> AsyncIterator[DueTransaction]:
        """A transaction of steps. If it fails, the slots that were held for them are free again."""
        transaction = DueTransaction()
        try:
            with translated():
                async with connection.transaction():
                    yield transaction
        except BaseException as error:
            for attempt, steps in transaction.attempts:
                if isinstance(error, NoConnectionError):
                    self._writer.note_lost(steps, attempt)
                self._writer.free_slots(steps)
            raise

    async def _jobs_of(self, connection: Connection, due: Sequence[DueJob]) -> dict[str, Job]:
        """The locked jobs with what their events need: from memory where it is current, else loaded."""
        found: dict[str, Job] = {}
        wanted = []
        for item in due:
            cached = self._cache.get(item.job.generation)
            known = None if cached is None else cached.job
            current = known is not None and known.seq == item.job.seq
            if known is not None and current and all(known.covers(due.event) for due in item.events):
                found[item.job.generation] = known
            else:
                wanted.append((item.job, [event.event for event in item.events]))
        return {**found, **await self._records.load(connection, wanted)}

    async def _advance(
        self, job: Job, due: DueJob, transaction: DueTransaction, failing: Failing | None = None
    ) -> UncommittedStep | None:
        """The step of a job; None if its version is gone. `failing`: its events fail their activities."""
        events = [item.event for item in due.events]
        if failing is not None:
            events = [failed(event, failing.message) for event in events]
        program = await self._program(job, events)
        if program is None:
            return None
        step = self._watch.run(
            job.job_id,
            program.advance,
            job,
            events,
            datetime.now(UTC),
            self._environment,
            taken=transaction.taken.get(job.generation, frozenset()),
            limits=self._step_limits,
        )
        return UncommittedStep(step, events)

    async def _program(self, job: Job, events: Sequence[Event]) -> Program | None:
        """The job's program; one that is still to be started takes the active one, if that still serves its topic."""
        if any(event.kind == "start" for event in events):
            active = await self._plans.active_program()
            if active.serves(job.topic):
                return active
        return await self._records.program(job)

    async def _write(
        self,
        connection: Connection,
        steps: Sequence[UncommittedStep],
        epoch: int,
        transaction: DueTransaction,
    ) -> list[str]:
        """Write the steps of locked jobs; returns the generations whose steps have to be computed again."""
        attempt = Attempt(epoch)
        transaction.attempts.append((attempt, steps))
        committed = await self._writer.write(connection, steps, attempt)
        if not await self._writer.check_epoch(steps, attempt, committed):
            return [item.step.jobs[0].job.generation for item in steps]
        again = []
        for number, item in enumerate(steps):
            refusal = committed.refused.get(number)
            if refusal is None:
                transaction.steps.append((item, attempt, committed))
                continue
            self._writer.free_slots((item,))
            generation, (reason, taken) = item.step.jobs[0].job.generation, refusal
            if reason == "signalled":
                raise SignalledError(generation)
            self._turns.taken.note(generation, taken)
            if not await commits.free_expired_ids(self._database, [taken], connection=connection):
                known = transaction.taken.get(generation, frozenset())
                transaction.taken[generation] = known | {taken}
            again.append(generation)
        return again

    # -- what cannot be handled --------------------------------------------------------------------------

    async def _handle_one(self, connection: Connection) -> int:
        """One due job; if it fails, its events are put off, and given up after some tries."""
        due: list[DueJob] = []
        try:
            return await self._handle_due(connection, 1, due)
        except NoConnectionError:
            raise
        except SignalledError as error:
            await engine_stream.delay_events(self._database, connection, error.generation, SIGNALLED_PAUSE)
            return 1
        except AnsweredElsewhereError:
            return 0
        except Exception as error:
            logger.error(
                "events could not be handled",
                extra={"job_id": due[0].job.job_id if due else None},
                exc_info=error,
            )
            if not due:
                raise
            return await self._not_handled(connection, due[0], error)

    async def _not_handled(self, connection: Connection, due: DueJob, error: Exception) -> int:
        """The step of a job alone has failed: again later, or the failure of its activities; how many jobs it was."""
        generation = due.job.generation
        delay = self._pause_for(error, generation)
        if delay is not None and not await self._is_to_blame(connection, generation, error):
            # Nothing is wrong with it: the others go on meanwhile.
            await engine_stream.delay_events(self._database, connection, generation, delay)
            return 1
        attempt = max((event.attempt for event in due.events), default=0)
        # What Postgres refuses for its values is refused again; what could not be computed may be, by another release.
        refused = isinstance(error, DatabaseError)
        if refused and await self._fail(connection, Failing(generation, not_stored(error))):
            return 1
        cut_off = isinstance(error, StepCutOffError) and attempt + 1 >= self._limits.most_cuts
        if cut_off and await self._fail(connection, Failing(generation, str(error))):
            return 1
        try:
            outcome = await self._postpone(connection, due.job, attempt, error)
        except AnsweredElsewhereError:
            return 0
        if outcome == "buried":
            add(self._metrics.dead_letters, "engine")
        logger.warning("events postponed", extra={"job_id": due.job.job_id, "outcome": outcome})
        return 1

    async def _is_to_blame(self, connection: Connection, generation: str, error: Exception) -> bool:
        """Whether the step is refused where another one of its job is not, after some refusals that may be its fault."""
        if fault(error) != "either" or self._refusals.get(generation, 0) <= DOUBTED:
            return False
        other = Failing(generation, "the result could not be stored", undo=True)
        try:
            await self._handle_due(connection, 1, failing=other)
        except UndoneError:
            pass  # this one could be written
        except Exception:  # noqa: BLE001 - nothing can be written now, or nothing was found out
            return False
        try:
            await self._handle_due(connection, 1)
        except Exception as again:  # noqa: BLE001 - it is looked at
            return fault(again) == "either"
        return False

    async def _fail(self, connection: Connection, failing: Failing) -> bool:
        """Let the events of a job fail their activities; whether that could be written."""
        try:
            await self._handle_due(connection, 1, failing=failing)
        except (NoConnectionError, AnsweredElsewhereError):
            raise
        except Exception as error:
            logger.error("failure could not be stored", exc_info=error)
            return False
        return True

    def _pause_for(self, error: Exception, generation: str) -> float | None:
        """Seconds to leave the events of a job alone for, if it is not their own fault that they were not handled."""
        if isinstance(error, CodecError):
            return self._limits.unreadable_retry
        if id_is_held(error):
            return self._limits.id_held_retry
        if fault(error) == "values":
            return None
        self._refusals[generation] = refusals = self._refusals.get(generation, 0) + 1
        self._refusals.move_to_end(generation)
        if len(self._refusals) > MOST_REFUSED:
            self._refusals.popitem(last=False)
        return backoff(refusals, longest=self._settings.reconnect_max)

    async def _postpone(self, connection: Connection, job: Job, attempt: int, error: Exception) -> str:
        """Put the events of a job off, or bury it after the last try."""
        delay = min(0.1 * 4 ** min(attempt, 16), 60.0)
        async with self._transaction(connection) as transaction:
            outcome = await engine_stream.postpone_events(
                self._database, connection, job.generation, delay, self._settings.poison_threshold
            )
            if outcome == "last":
                await self._bury(connection, job, error, transaction)
                outcome = "buried"
        self._applied(transaction)
        return outcome

    async def _counted(self, connection: Connection, most: int) -> list[str]:
        """Engines die: which jobs are to be handled now. What they have died of is given up."""
        taken = await self._crash_loop.count(connection, most)
        for one in taken:
            if one.times > self._crash_loop.last:
                error = EnginesDiedError(
                    f"{one.times - 1} engines died with it, the last one of nothing else"
                )
                async with self._transaction(connection) as transaction:
                    for due in await engine_stream.lock_due_jobs(
                        self._database, connection, 1, [one.generation]
                    ):
                        await self._bury(connection, due.job, error, transaction)
                        add(self._metrics.dead_letters, "engine")
                self._applied(transaction)
        return [one.generation for one in taken if one.times <= self._crash_loop.last]

    async def _bury(
        self, connection: Connection, job: Job, error: Exception, transaction: DueTransaction
    ) -> None:
        """End a job that cannot go on; all that was open of it becomes a dead letter."""
        reason = f"Poison message detected: the engine could not handle it ({_words(error, self._database)})"
        await engine_stream.bury_events(self._database, connection, job.job_id, job.generation, reason)
        epoch = self._plans.epoch
        plan = await self._plan_or_none(job)
        step = bury(plan, job, reason, datetime.now(UTC), self._environment, self._step_limits)
        if await self._write(connection, [UncommittedStep(step)], epoch, transaction):
            # The job has moved on, or the definitions have changed: nothing of this counts.
            raise AnsweredElsewhereError

    async def _plan_or_none(self, job: Job) -> Plan | None:
        """The plan of the version that a job is on; None if it is gone."""
        try:
            return await self._plans.version(job.version)
        except VersionNotFoundError:
            return None

    async def _leave(self, connection: Connection, unreadable: Sequence[DueJob]) -> None:
        """These jobs are for a process that can decode them."""
        logger.error(
            "jobs cannot be decoded",
            extra={
                "job_id": unreadable[0].job.job_id,
                "jobs": len(unreadable),
                "error": str(unreadable[0].unreadable),
            },
        )
        for item in unreadable:
            await engine_stream.delay_events(
                self._database, connection, item.job.generation, self._limits.unreadable_retry
            )


def _words(error: BaseException, database: Database) -> str:
    """An error as a reason that is stored in clear: with a codec, without the values that it may quote."""
    return str(error) if database.payload.codec is None else type(error).__name__
