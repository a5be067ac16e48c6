"""Loads jobs with those of their records that their events may need."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from hotmesh.core.state.job import Event, Job, PassKey, WorkReceipt
from hotmesh.core.values import UNDEFINED
from hotmesh.errors import CodecError, DatabaseError, HotMeshError, VersionNotFoundError
from hotmesh.postgres import loading
from hotmesh.postgres.connect.failures import passing
from hotmesh.postgres.database import Connection
from hotmesh.postgres.durable import load_histories
from hotmesh.runtime.definitions.program import Program
from hotmesh.runtime.durable.pieces import is_long
from hotmesh.runtime.durable.turns import Turns
from hotmesh.runtime.engine.job_cache import CachedJob, JobCache
from hotmesh.runtime.service import Flag, forever
from hotmesh.runtime.surroundings import Surroundings
from hotmesh.runtime.wake import EVENTS
from hotmesh.runtime.work.slots import Slots

logger = logging.getLogger("hotmesh.engine")


class RecordLoader:
    """Reads what the activities of jobs left, as far as a step needs it."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._database = surroundings.database
        self._plans = surroundings.plans

    async def load(
        self,
        connection: Connection,
        wanted: Sequence[tuple[Job, Sequence[Event]]],
        *,
        histories: Turns | None = None,
    ) -> dict[str, Job]:
        """The jobs, by generation, with the records that their events may need; without those of unknown versions.

        `histories`: with those of the durable functions that are hosted here, read after their rows.
        """
        needed: list[tuple[str, str, tuple[int, ...]]] = []
        covered: dict[str, frozenset[PassKey]] = {}
        for job, events in wanted:
            program = await self.program(job)
            if program is None:
                continue
            for event in events:
                needed += [(job.generation, need, event.dimension) for need in program.needs(event)]
            covered[job.generation] = frozenset((event.activity_id, event.dimension) for event in events)
        functions = [job for job, _ in wanted if job.queue is not None]
        if functions:
            found = await self._functions(connection, functions, histories)
            wanted = [(job, events) for job, events in wanted if job.queue is None]
            return found | (await self.load(connection, wanted) if wanted else {})
        records = await loading.load_records(self._database, connection, needed)
        return {
            job.generation: replace(
                job, records=records.get(job.generation, {}), covered=covered[job.generation]
            )
            for job, _ in wanted
            if job.generation in covered
        }

    async def _functions(
        self, connection: Connection, jobs: Sequence[Job], histories: Turns | None
    ) -> dict[str, Job]:
        hosted = [job.generation for job in jobs if histories is not None and histories.wants_history(job)]
        read = await load_histories(self._database, connection, hosted)
        return {job.generation: replace(job, covered=None, history=read.get(job.generation)) for job in jobs}

    async def program(self, job: Job) -> Program | None:
        """The program of a job; None if its version is gone."""
        try:
            return self._plans.known_program(job) or await self._plans.program(job)
        except VersionNotFoundError:
            logger.error("job of an unknown version", extra={"job_id": job.job_id, "version": job.version})
            return None


class JobLoader:
    """Loads the jobs that have events but are not in memory, all that wait at once. `run` is its lifetime.

    `on_loaded` takes a job that can be advanced now; `recheck` is told, by generation, of one that has ended.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        slots: Slots,
        cache: JobCache,
        records: RecordLoader,
        recheck: Callable[[str], None],
        on_loaded: Callable[[CachedJob], None],
        turns: Turns,
    ) -> None:
        self._work = surroundings.work
        self._database = surroundings.database
        self._member = surroundings.member
        self._settings = surroundings.settings
        self._slots = slots
        self._cache = cache
        self._records = records
        self._recheck = recheck
        self._on_loaded = on_loaded
        self._turns = turns
        self._link = surroundings.database.link("load")
        self._wanted: list[CachedJob] = []
        self._news = Flag()
        self._in_load = 0
        """Jobs that are being loaded just now."""

    def add(self, cached: CachedJob) -> None:
        """Load a job."""
        self._wanted.append(cached)
        self._news.set()

    @property
    def waiting(self) -> int:
        """Jobs that wait to be loaded, or are being loaded."""
        return len(self._wanted) + self._in_load

    async def run(self) -> None:
        await forever(
            self.run_once,
            logger,
            lost=None,
            failed="job could not be loaded",
            longest_pause=self._settings.reconnect_max,
        )

    async def close(self) -> None:
        await self._link.close()

    async def run_once(self) -> None:
        """Wait until there are jobs to load, and load them."""
        if not self._wanted:
            self._news.clear()
            await self._news.wait()
        wanted, self._wanted = self._wanted, []
        self._in_load = len(wanted)
        try:
            await self._load(wanted)
        except Exception as error:
            # Not a CodecError: that is for the one job that cannot be decoded.
            if isinstance(error, DatabaseError) and passing(error):
                self._wanted = [
                    *(cached for cached in wanted if cached.busy and cached.events),
                    *self._wanted,
                ]
                raise
            logger.error("jobs could not be loaded, loading them one by one", exc_info=error)
            await self._load_singly(wanted)
        finally:
            self._in_load = 0

    async def _load(self, wanted: Sequence[CachedJob]) -> None:
        async with self._link.use() as connection:
            jobs = await loading.load_jobs(self._database, connection, {cached.job_id for cached in wanted})
            loaded = await self._records.load(
                connection,
                [(jobs[cached.generation], cached.events) for cached in wanted if cached.generation in jobs],
                histories=self._turns,
            )
        long: list[tuple[CachedJob, Job]] = []
        for cached in wanted:
            job = loaded.get(cached.generation)
            if job is None or not job.live:
                # Ended, scrubbed or replaced: the rows that these events came from went with it. If that was by a
                # commit of this process whose answer was lost, nobody here has been told yet.
                self._recheck(cached.generation)
                self._turns.gone(cached.generation)
                self._drop(cached)
                continue
            if job.queue is not None:
                cached.events = self._turns.kept(job, cached.events)
                if not cached.events:
                    self._drop(cached)
                    continue
                if is_long(job):
                    long.append((cached, job))
                    continue
            cached.job = job
            self._on_loaded(cached)
        for cached, job in long:
            await self._turns.prepare(job)
            cached.job = job
            self._on_loaded(cached)

    async def _load_singly(self, wanted: Sequence[CachedJob]) -> None:
        """Load jobs apart from each other; one that cannot be loaded is left to its rows, which come again.

        Raises what is in the way of those that are to be loaded later.
        """
        refusal: DatabaseError | None = None
        for cached in wanted:
            try:
                await self._load([cached])
            except CodecError as error:
                await self._leave(cached, error)
            except Exception as error:
                if isinstance(error, DatabaseError) and self._again(cached, error):
                    refusal = error
                    continue
                logger.error("job could not be loaded", extra={"job_id": cached.job_id}, exc_info=error)
                self._drop(cached)
        if refusal is not None:
            raise refusal

    def _again(self, cached: CachedJob, error: DatabaseError) -> bool:
        """Whether a job is to be loaded later: nothing is wrong with it, or that is not known yet."""
        if not passing(error):
            cached.failures += 1
            if cached.failures > self._settings.poison_threshold:
                return False
        self._wanted.append(cached)
        return True

    async def _leave(self, cached: CachedJob, error: CodecError) -> None:
        """A job that this process cannot decode is for another one; answers of workers here become rows for it."""
        logger.error("job cannot be decoded", extra={"job_id": cached.job_id, "error": str(error)})
        # What a worker elsewhere has told becomes a row without this process.
        answers = [
            event
            for event in cached.events
            if isinstance(event.receipt, WorkReceipt) and event.receipt.holder is None
        ]
        cached.events, cached.job = [], None
        self._cache.forget(cached)
        try:
            if answers:
                await self._hand_on(cached, answers)
        finally:
            self._slots.answers_committed(cached.generation, answers)
            self._cache.vacate(cached)

    async def _hand_on(self, cached: CachedJob, answers: Sequence[Event]) -> None:
        dumps = self._database.payload.dumps
        try:
            async with self._link.use() as connection:
                await self._work.answer(
                    connection,
                    self._member,
                    [
                        (cached.generation, e.activity_id, e.dimension, e.status, e.code, dumps(e.data))
                        for e in answers
                        if e.data is not UNDEFINED
                    ],
                    EVENTS,
                )
        except HotMeshError as failure:
            # Their leases lapse, and the work is done again.
            logger.error("answers not handed on", extra={"job_id": cached.job_id, "error": str(failure)})

    def _drop(self, cached: CachedJob) -> None:
        """There is nothing to advance: the events mean nothing any more, or come again from their rows."""
        self._slots.answers_committed(cached.generation, cached.events)
        cached.events, cached.job = [], None
        self._cache.vacate(cached)
