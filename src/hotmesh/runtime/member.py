"""One member of a mesh: the parts that make it up, in which order they begin, drain and end."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from hotmesh.core.advance.metadata import job_metadata
from hotmesh.core.arguments import checked_text
from hotmesh.core.codec import Codec
from hotmesh.core.durable.metadata import metadata as function_metadata
from hotmesh.core.duration import Duration, seconds
from hotmesh.core.state.job import Job
from hotmesh.errors import ConfigError, EngineRequiredError, HotMeshError
from hotmesh.evaluate import system_environment
from hotmesh.observe.fate import not_found
from hotmesh.observe.observer import Observer
from hotmesh.observe.reader import JobReader
from hotmesh.postgres import loading
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.database import Database
from hotmesh.postgres.logins.login import WorkerLogin
from hotmesh.postgres.logins.work import work_queue
from hotmesh.runtime.calls.deployment import Deployment
from hotmesh.runtime.calls.job_statistics import JobStatistics
from hotmesh.runtime.calls.messages_for_jobs import JobMessages
from hotmesh.runtime.calls.operations import JobOperations
from hotmesh.runtime.calls.outbox import Outbox
from hotmesh.runtime.definitions.plans import Plans
from hotmesh.runtime.dispatcher import Dispatcher
from hotmesh.runtime.engine.engine import Engine
from hotmesh.runtime.engine.ticket import STOPPED
from hotmesh.runtime.functions import Functions
from hotmesh.runtime.lifetime import Lifetime
from hotmesh.runtime.limits import MemberLimits
from hotmesh.runtime.loop_watch import LoopWatch
from hotmesh.runtime.members.activation import ANSWER_DELAY
from hotmesh.runtime.members.listener import Listener
from hotmesh.runtime.members.outposts import Outposts, source_of
from hotmesh.runtime.members.quorum import Quorum
from hotmesh.runtime.metrics_snapshot import MetricsSnapshot
from hotmesh.runtime.options import Options, check_topics
from hotmesh.runtime.registry import PROCESS
from hotmesh.runtime.results.output import JobOutput
from hotmesh.runtime.results.publisher import ResultPublisher
from hotmesh.runtime.results.receiver import ResultReceiver
from hotmesh.runtime.results.subscribers import Subscribers
from hotmesh.runtime.results.waiting import Callers
from hotmesh.runtime.surroundings import Surroundings
from hotmesh.runtime.telemetry import prometheus
from hotmesh.runtime.telemetry.events import Events
from hotmesh.runtime.telemetry.logs import logging_as
from hotmesh.runtime.telemetry.metrics import Metrics
from hotmesh.runtime.upkeep.retention import Retention
from hotmesh.runtime.upkeep.stalled_logins import StalledLogins
from hotmesh.runtime.work.lease import LeaseKeeper
from hotmesh.runtime.work.worker import Worker
from hotmesh.runtime.work.workers import Workers


class Member:
    """What `HotMesh` holds, and what each of its outposts is. `lifetime` runs it."""

    def __init__(
        self,
        options: Options,
        source: ConnectionSource,
        login: WorkerLogin | None,
        outposts: Outposts[Member],
        limits: MemberLimits,
    ) -> None:
        """Wire the parts together; `lifetime.start` sets them going.

        `login`: what the worker login may do, if `source` has one. Of the options, those count that say what a member is:
        not its connections, and not whether there are tables.
        """
        settings, guid = options.settings, options.guid
        self.options = options
        self.source = source
        self.outposts = outposts
        self.secured = login is not None
        self.log_context = options.log_context
        self.database = self._make_database(login)
        self.work = work_queue(self.database)
        self.plans = Plans(self.database, pinned=options.pin_versions)
        self.events = (
            None
            if options.events is None
            else Events(
                options.events,
                options.namespace,
                options.app_id,
                guid,
                self.database,
                settings.cleaning_up,
            )
        )
        self.metrics = Metrics()
        self.surroundings = Surroundings(
            self.database,
            self.work,
            self.plans,
            guid,
            settings,
            system_environment(),
            self.metrics,
            self.events,
            options.telemetry,
        )
        environment = self.surroundings.environment

        self.listener = Listener(
            self.database,
            guid,
            # It comes last: it hands what is heard to all others.
            lambda message: self.dispatcher.on_message(message),  # noqa: PLW0108
            lambda: self.dispatcher.connected(),  # noqa: PLW0108
            counted=lambda engines, members: self.dispatcher.counted(engines, members),  # noqa: PLW0108
            engine=options.engine,
            longest_pause=settings.reconnect_max,
            limits=limits.listener,
        )
        self.subscribers = Subscribers(self.database, guid, limits.subscribers, settings.cleaning_up)
        self.callers = Callers(self.listener, self._output_or_none)
        self.publisher = ResultPublisher(
            self.database, guid, self.listener, settings.notify_limit, self.callers, self.subscribers
        )
        self.receiver = ResultReceiver(self.database, self.callers, self.subscribers, self._output_or_none)
        self.leases = LeaseKeeper(self.work, guid, settings.lease)
        self.retention = (
            None
            if settings.retention is None or options.readonly
            else Retention(
                self.database, guid, settings.retention, settings.retention_interval, limits.retention
            )
        )
        self.loop_watch = LoopWatch(limits.loop)
        self.stalled_logins = StalledLogins(self.database, limits.stalled_logins)
        self.workers = Workers(
            self.work,
            guid,
            settings,
            self.leases,
            self.metrics,
            options.telemetry,
            limits.trials,
            limits.frontier,
        )
        self.engine = self._make_engine(limits) if options.engine else None
        self.functions = None if self.engine is None else Functions(self, self.engine, limits.tenure)
        self.quorum = Quorum(
            self.database,
            guid,
            settings,
            self.plans,
            self.listener,
            self.engine,
            self.workers,
            limits.activations,
        )
        self.dispatcher: Dispatcher = Dispatcher(
            self.plans,
            self.engine,
            self.workers,
            self.receiver,
            self.subscribers,
            self.quorum,
            secured=self.secured,
        )

        self.deployment = Deployment(self.surroundings, self.log_context)
        self.outbox = Outbox(self.surroundings, self.engine, limits.engine)
        self.messages = JobMessages(self.work, self.plans, environment, settings, self.outbox)
        self.statistics = JobStatistics(self.surroundings, self._wake_engine)
        self.reader = JobReader(
            Observer(self.database), options.app_id, self.plans.version, environment, self.serves
        )
        self.operations = JobOperations(self.database, self.plans, environment, self.events)
        self.snapshot: MetricsSnapshot = MetricsSnapshot(
            self.database,
            guid,
            self.metrics,
            self.workers,
            self.listener,
            self.engine,
            lambda: [outpost.snapshot for outpost in outposts.members],
        )
        self._endpoint: prometheus.Endpoint | None = None
        self.lifetime = Lifetime(self, self.log_context, settings.grace)

    def _make_database(self, login: WorkerLogin | None) -> Database:
        options = self.options

        def codec() -> Codec | None:
            return PROCESS.codec if options.codec is None else options.codec

        at = self.source, options.namespace, options.app_id
        patience, task_queue = options.settings.connect_timeout, options.task_queue
        return Database(*at, codec, patience=patience, task_queue=task_queue, login=login)

    def _make_engine(self, limits: MemberLimits) -> Engine:
        readonly = self.options.readonly
        engine = Engine(
            self.surroundings,
            self.workers.slots,
            self.publisher.notify,
            self.callers.recheck,
            lambda: self.listener.own_channel,
            readonly=readonly,
            limits=limits.engine,
            frontier_limits=limits.frontier,
        )
        # An engine that processes nothing does not go on with answers, either: they go to the others.
        self.workers.deliver_to(None if readonly else engine.deliver, engine.slot_free, engine.behind)
        return engine

    # -- services, for the lifetime -----------------------------------------------------------------------

    async def begin(self, tasks: TaskGroup) -> None:
        """Start everything, each after what it depends on."""
        if self.engine is not None:
            await self.stalled_logins.look()
        await self.listener.run(tasks)
        await self.quorum.run(tasks)
        self.leases.start()
        if self.engine is not None and self.functions is not None:
            self.functions.run(tasks)
            await self.engine.run(tasks)
            await self.stalled_logins.run(tasks)
        await self.outbox.run(tasks)
        await self.workers.run(tasks)
        await self.publisher.run(tasks)
        await self.receiver.run(tasks)
        await self.callers.run(tasks)
        await self.subscribers.run(tasks)
        if self.events is not None:
            await self.events.run(tasks)
        if self.options.metrics is not None:
            where = prometheus.address(self.options.metrics)
            self._endpoint = prometheus.join(where, self.snapshot)
        if self.retention is not None and not self.secured:
            await self.retention.run(tasks)
        if not self.secured:
            tasks.start_soon(self.dispatcher.follow_definitions)
        tasks.start_soon(self.database.close_unused, name="close connections")
        tasks.start_soon(self.loop_watch.run, name="watch the event loop")
        await self.outposts.start()
        for outpost in self.outposts.members:
            self.quorum.throttles.followed_by(outpost.quorum.throttles)
            tasks.start_soon(outpost.lifetime.watch, name="watch an outpost")

    async def drain(self, grace: float) -> None:
        """Take nothing more; let callbacks finish, and commit what they answered."""
        async with anyio.create_task_group() as draining:
            draining.start_soon(self.outposts.stop, grace)
            draining.start_soon(self.workers.drain, grace)
            if self.functions is not None:
                draining.start_soon(self.functions.drain, grace)
        with anyio.move_on_after(grace):
            await self.outbox.drain()
        if self.engine is not None:
            with anyio.move_on_after(grace):
                await self.engine.drain()
            # What the last commits reserved is given back, too.
            await self.workers.drain(0)
        if self.functions is not None:
            with anyio.move_on_after(5):
                await self.functions.give_back()
        with anyio.move_on_after(1):
            await self.workers.give_back_held()
        with anyio.move_on_after(1):
            await self.publisher.drain()
            await self.subscribers.drain()
        if self.events is not None:
            self.events.engine("stopped")
            await self.events.drain(grace)

    async def end(self) -> None:
        """Leave nobody waiting, and close what is open."""
        self.callers.close(self.lifetime.over("this call"), HotMeshError(STOPPED))
        self.subscribers.close()
        if self.events is not None:
            self.events.close()
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(5):
                await self.outposts.stop(0)
            with anyio.move_on_after(5):
                await self.close()
        self.free_guid()

    async def close(self) -> None:
        """Close what is open already when nothing has begun."""
        if self._endpoint is not None:
            # It may be answering just now, and ask this loop for figures.
            await anyio.to_thread.run_sync(prometheus.leave, self._endpoint, self.snapshot)
        async with AsyncExitStack() as closing:
            # Last, and not on this loop: its thread may be waiting for a database that does not answer.
            closing.push_async_callback(anyio.to_thread.run_sync, self.leases.stop)
            closing.push_async_callback(self.database.close)
            closing.push_async_callback(self.workers.close)
            if self.engine is not None:
                closing.push_async_callback(self.engine.close)
            if self.functions is not None:
                closing.push_async_callback(self.functions.close)

    def free_guid(self) -> None:
        """From here on another member of this process may have its guid."""
        PROCESS.free_guid(self.source.key, self.options.namespace, self.options.app_id, self.options.guid)

    # -- what is asked of it ------------------------------------------------------------------------------

    def running_engine(self, method: str) -> Engine:
        """The engine, for a method that needs one. Raises EngineRequiredError, ConnectionLostError."""
        self.lifetime.check(method)
        if self.engine is None:
            raise EngineRequiredError(
                f"{method} needs an engine; this instance was started with engine=False"
            )
        return self.engine

    def add_worker(self, worker: Worker) -> None:
        """Serve a further topic, by this member or by the outpost that has the worker's connection.

        Raises ConfigError, NotAuthorizedError.
        """
        self.lifetime.check("add_worker")
        if self.database.login is not None:
            check_topics(self.database.login, worker)
        source = source_of(worker, self.source)
        outpost = (
            None
            if source is self.source
            else self.outposts.at(source, self.options.task_queue or worker.task_queue)
        )
        if outpost is not None:
            outpost.add_worker(replace(worker, connection=None, worker_credentials=None))
        elif source is self.source or worker.readonly:
            self.workers.add(worker)
        else:
            raise ConfigError(
                f"worker {worker.topic} has a connection that no other worker of this instance has: name it in workers= of "
                "init, or make an instance for it"
            )

    def serves(self, topic: str, workflow_name: str) -> bool:
        """Whether work of this name has a worker here or in an outpost."""
        served = [self.workers, *(outpost.workers for outpost in self.outposts.members)]
        return any(workers.serves(topic, workflow_name) for workers in served)

    @property
    def metrics_address(self) -> str | None:
        """Where Prometheus finds the metrics of this process; None: nowhere."""
        return None if self._endpoint is None else self._endpoint.address

    async def activate(self, version: str, delay: Duration | None) -> bool:
        """Make a version the active one. `delay`: how long an engine may take to answer at first; None: 0.25 seconds.

        Raises ConfigError, VersionNotFoundError, ActivationError.
        """
        waiting = ANSWER_DELAY if delay is None else seconds(delay, name="delay")
        checked_text(version, "version")
        with logging_as(self.log_context):
            await self.quorum.activations.activate(version, waiting)
        return True

    async def status(self, job_id: str) -> int:
        """The status of a job. Raises JobNotFoundError."""
        status = await loading.load_status(self.database, job_id)
        if status is None:
            raise await not_found(Observer(self.database), self.options.app_id, job_id)
        return status

    async def state(self, job_id: str) -> JobOutput:
        """Metadata and data of a job. Raises JobNotFoundError."""
        job = await loading.load_job(self.database, job_id)
        if job is None:
            raise await not_found(Observer(self.database), self.options.app_id, job_id)
        return await self._output(job)

    async def _output(self, job: Job) -> JobOutput:
        if job.queue is not None:
            return JobOutput(function_metadata(job, job.updated_at), job.data)
        plan = await self.plans.version(job.version)
        return JobOutput(job_metadata(job, plan.graphs[job.topic], job.updated_at), job.data)

    async def _output_or_none(self, job_id: str) -> tuple[JobOutput, int] | None:
        job = await loading.load_job(self.database, job_id)
        return None if job is None else (await self._output(job), job.seq)

    def _wake_engine(self) -> None:
        if self.engine is not None:
            self.engine.wake()
