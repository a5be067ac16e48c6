"""The engine stream: what is due is locked, loaded, advanced and committed in one transaction."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import anyio

from hotmesh.core.advance.advance import advance
from hotmesh.core.advance.limits import Limits
from hotmesh.core.mapping import Environment
from hotmesh.core.plan.compile import Plan
from hotmesh.core.state.job import Event, Job
from hotmesh.errors import CodecError, NoConnectionError
from hotmesh.postgres.connect.connection import backoff, id_is_held, passing, translated
from hotmesh.postgres.steps import Batch, Committed
from hotmesh.postgres.store import AnsweredElsewhereError, DueJob, Store
from hotmesh.runtime import ids
from hotmesh.runtime.calls.broadcasts import carry_out
from hotmesh.runtime.engine.cell import Pending
from hotmesh.runtime.pace import RELOOK
from hotmesh.runtime.telemetry.metrics import add

if TYPE_CHECKING:
    from hotmesh.postgres.connect.connection import Driver
    from hotmesh.runtime.definitions.plans import Plans
    from hotmesh.runtime.engine.duress import Duress
    from hotmesh.runtime.engine.job_cache import JobCache
    from hotmesh.runtime.engine.loader import Loader
    from hotmesh.runtime.pace import Pace
    from hotmesh.runtime.settings import Settings
    from hotmesh.runtime.telemetry.events import Events
    from hotmesh.runtime.telemetry.metrics import Metrics
    from hotmesh.runtime.wake import Wake

logger = logging.getLogger("hotmesh.engine")

EVENT_LIMIT: Final = 500
"""Events of one job that one step handles, also of those that `lock_due_jobs` hands out: no step is unbounded."""

CLAIM_LIMIT: Final = 100

UNREADABLE_RETRY: Final = 1.0
"""Seconds for which a process leaves alone what it cannot decode, so that one with the right codec gets it."""

ID_HELD_RETRY: Final = 0.5
"""Seconds between two tries to create a job whose id is taken by a transaction that is still open."""


class EngineStream:
    """Handles what is due on the engine stream of an app, beside other engines. `run` is its lifetime."""

    def __init__(
        self,
        store: Store,
        plans: Plans,
        member: str,
        settings: Settings,
        environment: Environment,
        memory: JobCache,
        records: Loader,
        wake: Wake,
        limits: Limits,
        metrics: Metrics,
        events: Events | None,
        pace: Pace,
        duress: Duress,
        apply_rates: Callable[[], None],
    ) -> None:
        self._store = store
        self._plans = plans
        self._member = member
        self._settings = settings
        self._environment = environment
        self._cache = memory
        self._loader = records
        self._wake = wake
        self._limits = limits
        self._metrics = metrics
        self._events = events
        self._pace = pace
        self._duress = duress
        self._apply_rates = apply_rates
        self.failures = 0
        """Looks at the stream that have failed in a row."""
        self._link = store.link("stream")
        self._stopping = False

    def stop(self) -> None:
        """Take no more."""
        self._stopping = True
        self._wake.set()
        self._pace.wake()

    async def close(self) -> None:
        await self._link.close()

    async def run(self) -> None:
        """Handle what is due on the engine stream: at once when told, when the next is due, and by polling."""
        failures = 0
        while not self._stopping:
            try:
                # A batch that takes longer than the server lets a transaction stand still would never come through.
                most = max(1, CLAIM_LIMIT >> failures)
                if self._pace.delay or self._cache.slowed:
                    if not await self._turn():
                        continue
                    most = 1 if self._pace.rate else most
                began = time.monotonic()
                handled = await self.run_once(most)
                failures = self.failures = 0
                if handled:
                    self._pace.started(began)
                while handled < most and not self._stopping and self._pace.left() <= 0:
                    async with self._link.use() as connection:
                        due, broadcasts = await self._store.next_event_at(connection)
                        if broadcasts and await carry_out(
                            self._store, connection, await self._plans.active(), self._environment
                        ):
                            break
                    # What is due but was not handled is locked by another engine.
                    if await self._wake.wait(None if due is None else max(due, 0.02)):
                        break
                    if due is not None and due <= self._settings.poll:
                        break
            except NoConnectionError as error:
                failures = self.failures = failures + 1
                logger.warning("engine stream: no connection", extra={"error": str(error)})
                await anyio.sleep(backoff(failures, longest=self._settings.reconnect_max))
            except Exception as error:
                failures = self.failures = failures + 1
                logger.error("engine stream could not be read", exc_info=error)
                await anyio.sleep(backoff(failures, longest=self._settings.reconnect_max))

    async def _turn(self) -> bool:
        """Wait, at most for a moment, until this engine may take a message; whether it may."""
        with anyio.move_on_after(RELOOK):
            await self._pace.turn()
        self._apply_rates()
        return not self._stopping and self._pace.left() <= 0

    async def run_once(self, most: int = CLAIM_LIMIT) -> int:
        """Lock, load, advance and commit what is due, of at most so many jobs; how many there were."""
        self._wake.clear()
        async with self._link.use() as connection:
            try:
                return await self._handle_due(connection, most)
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

    async def _handle_one(self, connection: Driver) -> int:
        """One due job; if it fails, its events are put off, and given up after some tries."""
        due: list[DueJob] = []
        try:
            return await self._handle_due(connection, 1, due)
        except NoConnectionError:
            raise
        except AnsweredElsewhereError:
            return 0
        except Exception as error:
            logger.error(
                "events could not be handled",
                extra={"job_id": due[0].job.job_id if due else None},
                exc_info=error,
            )
            if due and (id_is_held(error) or isinstance(error, CodecError)):
                delay = UNREADABLE_RETRY if isinstance(error, CodecError) else ID_HELD_RETRY
                await self._store.delay_events(connection, due[0].job.generation, delay)
                return 1
            if not due or passing(error):
                raise
            attempt = max((event.attempt for event in due[0].events), default=0)
            outcome = await self._postpone(connection, due[0].job, attempt, error)
            if outcome == "buried":
                add(self._metrics.dead_letters, "engine")
            logger.warning("events postponed", extra={"job_id": due[0].job.job_id, "outcome": outcome})
            return 1

    async def _postpone(self, connection: Driver, job: Job, attempt: int, error: Exception) -> str:
        arguments = (
            job.generation,
            min(0.1 * 4 ** min(attempt, 16), 60.0),
            f"Poison message detected: the engine could not handle it ({self._words(error)})",
            self._settings.poison_threshold,
        )
        if self._events is None:
            return await self._store.postpone_events(connection, *arguments)
        async with connection.transaction():
            outcome = await self._store.postpone_events(connection, *arguments)
            cancelled = await self._store.cancelled_here(connection, job.job_id)
        self._events.escalations(cancelled)
        return outcome

    async def _handle_due(self, connection: Driver, limit: int, found: list[DueJob] | None = None) -> int:
        results: list[tuple[Pending, Committed, Batch]] = []
        reservations: list[int] = []
        since = time.monotonic()
        async with self._transaction(connection, results, reservations):
            due = await self._store.lock_due_jobs(connection, limit)
            if found is not None:
                found += due
            unreadable = [item for item in due if item.unreadable is not None]
            if unreadable:
                await self._leave(connection, unreadable)
            due = [item for item in due if item.events]
            if not due:
                return len(unreadable)
            jobs = {item.job.generation: item for item in due}
            loaded = await self._jobs_of(connection, due)
            taken: dict[str, frozenset[str]] = {}
            todo = [generation for generation in jobs if generation in loaded]
            while todo:
                batch = []
                for generation in todo:
                    job = loaded[generation]
                    events = [item.event for item in jobs[generation].events]
                    plan = await self._plan_of(job, events)
                    if plan is None:
                        continue
                    step = advance(
                        plan,
                        job,
                        events,
                        _now(),
                        self._environment,
                        taken=taken.get(generation, frozenset()),
                        limits=self._limits,
                    )
                    batch.append(Pending(step, self._plans.epoch, events=events))
                todo = await self._commit_locked(connection, batch, taken, results, reservations)
        self._duress.took([event.event for item in due for event in item.events], time.monotonic() - since)
        self._apply_rates()
        for pending, committed, arguments in results:
            self._cache.adopt(pending)
            self._cache.applied(pending, committed, arguments)
            if committed.woken:
                self._wake.set()
        if any(len(item.events) >= EVENT_LIMIT for item in due):
            self._wake.set()  # there is more of it
        return len(due)

    async def _leave(self, connection: Driver, unreadable: Sequence[DueJob]) -> None:
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
            await self._store.delay_events(connection, item.job.generation, UNREADABLE_RETRY)

    def _words(self, error: BaseException) -> str:
        """An error as a reason that is stored in clear: with a codec, without the values that it may quote."""
        return str(error) if self._store.payload.codec is None else type(error).__name__

    async def _plan_of(self, job: Job, events: Sequence[Event]) -> Plan | None:
        """The job's plan; one that is still to be started takes the active one, if that still has its graph."""
        if any(event.kind == "start" for event in events):
            active = await self._plans.active()
            if job.topic in active.graphs:
                return active
        return await self._loader.plan_of(job)

    @asynccontextmanager
    async def _transaction(
        self,
        connection: Driver,
        results: list[tuple[Pending, Committed, Batch]],
        reservations: list[int],
    ) -> AsyncIterator[None]:
        """A transaction of steps. If it fails, the slots that local workers kept for them are free again."""
        try:
            with translated():
                async with connection.transaction():
                    yield
        except BaseException as error:
            self._cache.free_slots(*(pending for pending, _, _ in results))
            if isinstance(error, NoConnectionError):
                self._cache.unanswered(reservations)
            raise

    async def _commit_locked(
        self,
        connection: Driver,
        batch: list[Pending],
        taken: dict[str, frozenset[str]],
        results: list[tuple[Pending, Committed, Batch]],
        reservations: list[int],
    ) -> list[str]:
        """Commit steps of locked jobs; returns the generations whose steps have to be computed again."""
        arguments, wake = self._cache.encode(batch)
        epoch = self._plans.epoch
        since = time.monotonic()
        token = ids.token()
        if any(True in pending.local for pending in batch):
            reservations.append(token)
        try:
            committed = await self._store.commit(
                connection,
                arguments,
                self._member,
                epoch,
                token,
                self._settings.lease,
                wake,
                watched=self._cache.watched(batch),
            )
        except BaseException:
            self._cache.free_slots(*batch)
            raise
        if committed.epoch != epoch:
            self._cache.free_slots(*batch)
            add(self._metrics.refused, "definitions", len(batch))
            await self._plans.refresh()
            return [pending.step.jobs[0].job.generation for pending in batch]
        self._metrics.committed(len(batch), time.monotonic() - since, committed.refused.values())
        again = []
        for number, pending in enumerate(batch):
            refusal = committed.refused.get(number)
            if refusal is None:
                results.append((pending, committed, arguments))
                continue
            self._cache.free_slots(pending)
            generation = pending.step.jobs[0].job.generation
            if not await connection.fetchval(
                self._store.bound("select mesh.free_expired_ids($1, $2)"), self._store.app_id, [refusal[1]]
            ):
                taken[generation] = taken.get(generation, frozenset()) | {refusal[1]}
            again.append(generation)
        return again

    async def _jobs_of(self, connection: Driver, due: Sequence[DueJob]) -> dict[str, Job]:
        """The locked jobs with what their events need: from memory where it is current, else loaded."""
        found: dict[str, Job] = {}
        wanted = []
        for item in due:
            cell = self._cache.cells.get(item.job.generation)
            known = None if cell is None else cell.job
            current = known is not None and known.seq == item.job.seq
            if known is not None and current and all(known.covers(due.event) for due in item.events):
                found[item.job.generation] = known
            else:
                wanted.append((item.job, [event.event for event in item.events]))
        return {**found, **await self._loader.load(connection, wanted)}


def _now() -> datetime:
    return datetime.now(UTC)
