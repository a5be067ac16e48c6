"""One instance, from the inside: the parts that make it up, how it starts and ends, and what it does with what it hears."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, ClassVar

import anyio
import anyio.abc
import msgspec

from hotmesh.core.advance.metadata import job_metadata
from hotmesh.core.codec import Codec
from hotmesh.core.duration import Duration, seconds
from hotmesh.core.state.job import Job
from hotmesh.errors import (
    ConnectionLostError,
    DatabaseError,
    EngineRequiredError,
)
from hotmesh.evaluate import system_environment
from hotmesh.observe.observer import Observer
from hotmesh.observe.reader import JobReader
from hotmesh.postgres.connect.connection import ConnectionSource
from hotmesh.postgres.logins.secured import SecuredStore, WorkerLogin
from hotmesh.postgres.rows import AnswerNotice
from hotmesh.postgres.store import Store
from hotmesh.runtime.calls.messages_for_jobs import JobMessages
from hotmesh.runtime.calls.operations import JobOperations
from hotmesh.runtime.definitions.plans import Plans
from hotmesh.runtime.engine.engine import Engine
from hotmesh.runtime.members.listener import Listener
from hotmesh.runtime.members.outposts import Outposts
from hotmesh.runtime.members.quorum import Quorum
from hotmesh.runtime.metrics_snapshot import MetricsSnapshot
from hotmesh.runtime.results.output import JobOutput
from hotmesh.runtime.results.publisher import ResultPublisher
from hotmesh.runtime.results.receiver import ResultReceiver
from hotmesh.runtime.results.subscribers import Subscribers
from hotmesh.runtime.results.waiting import Callers
from hotmesh.runtime.settings import Settings
from hotmesh.runtime.telemetry import prometheus
from hotmesh.runtime.telemetry.events import Events, EventSink
from hotmesh.runtime.telemetry.logs import LogContext, log_as, logging_as
from hotmesh.runtime.telemetry.metrics import Metrics
from hotmesh.runtime.upkeep.retention import Retention
from hotmesh.runtime.upkeep.stalled_logins import StalledLogins
from hotmesh.runtime.work.lease import LeaseKeeper
from hotmesh.runtime.work.workers import Workers

if TYPE_CHECKING:
    from hotmesh.runtime.mesh import HotMesh
    from hotmesh.runtime.telemetry.tracing import Telemetry

logger = logging.getLogger("hotmesh")


class Instance:
    """What `HotMesh` is made of. Its public face adds what callers do with it."""

    _live: ClassVar[set[HotMesh]] = set()
    _places: ClassVar[set[Any]] = set()
    """Database, namespace, app and guid of each instance that runs here: a guid is that of one instance."""
    _codec: ClassVar[Codec | None] = None
    """For instances that were given none."""

    def __init__(
        self,
        app_id: str,
        source: ConnectionSource,
        schema: str,
        guid: str,
        settings: Settings,
        *,
        engine: bool,
        readonly: bool,
        pin_versions: bool = True,
        events: EventSink | None = None,
        telemetry: Telemetry | None = None,
        metrics: int | str | None = None,
        codec: Codec | None = None,
        login: WorkerLogin | None = None,
        outposts: Outposts,
        log_context: LogContext,
        task_queue: str | None = None,
    ) -> None:
        """Wire the parts together; `_start` sets them going."""
        self.app_id = app_id
        self.namespace = schema
        self.guid_ = guid
        self.settings = settings
        self._readonly = readonly
        self._secured = login is not None
        self._source = source
        self._outposts = outposts
        self._log_context = log_context
        self._task_queue = task_queue

        def current_codec() -> Codec | None:
            return self._codec if codec is None else codec

        patience = settings.connect_timeout
        self._store = (
            Store(source, schema, app_id, current_codec, patience=patience, task_queue=task_queue)
            if login is None
            else SecuredStore(
                source, schema, app_id, login, current_codec, patience=patience, task_queue=task_queue
            )
        )
        self._plans = Plans(self._store, pinned=pin_versions)
        self._environment = system_environment()
        self._listener = Listener(
            self._store,
            guid,
            self._on_message,
            self._connected,
            engine=engine,
            longest_pause=settings.reconnect_max,
        )
        self._subscribers = Subscribers(self._store, guid)
        self._callers = Callers(self._listener, self._output_or_none)
        self._publisher = ResultPublisher(
            self._store, guid, self._listener, settings.notify_limit, self._callers, self._subscribers
        )
        self._receiver = ResultReceiver(self._store, self._callers, self._subscribers, self._output_or_none)
        self._leases = LeaseKeeper(self._store, guid, settings.lease)
        self._events = None if events is None else Events(events, schema, app_id, guid, self._store)
        self._retention = (
            None
            if settings.retention is None or readonly
            else Retention(self._store, guid, settings.retention, settings.retention_interval)
        )
        self._stalled_logins = StalledLogins(self._store)
        self._engine: Engine | None = None
        self._metrics = Metrics()
        self._telemetry = telemetry
        self._workers = Workers(self._store, guid, settings, self._leases, self._metrics, telemetry)
        self._reader = JobReader(
            Observer(self._store), app_id, self._plans.version, self._environment, self._serves
        )
        self._operations = JobOperations(self._store, self._plans, self._environment, self._events)
        self._messages = JobMessages(self._store, self._plans, self._environment, settings, self._wake_engine)
        if engine:
            self._engine = Engine(
                self._store,
                self._plans,
                guid,
                settings,
                self._environment,
                self._workers.slots,
                self._publisher.notify,
                self._callers.recheck,
                lambda: self._listener.own_channel,
                readonly=readonly,
                metrics=self._metrics,
                events=self._events,
                telemetry=telemetry,
            )
            # An engine that processes nothing does not go on with answers, either: they go to the others.
            self._workers.deliver_to(
                None if readonly else self._engine.deliver, self._engine.slot_free, self._engine.behind
            )
        self._quorum = Quorum(
            self._store, guid, settings, self._plans, self._listener, self._engine, self._workers
        )
        self._snapshot = MetricsSnapshot(
            self._store, guid, self._metrics, self._workers, self._listener, self._engine,
            lambda: [outpost._snapshot for outpost in self.outposts],
        )  # fmt: skip
        self._metrics_at = metrics
        self._endpoint: prometheus.Endpoint | None = None
        self._runner: asyncio.Task[None] | None = None
        self._started: asyncio.Future[None] | None = None
        self._stop_requested = anyio.Event()
        self._definitions_changed = anyio.Event()
        self._grace = settings.grace
        self._ended = False
        self._place: Any = None
        self._failure: BaseException | None = None

    # -- lifetime -----------------------------------------------------------------------------------------

    async def _start(self) -> None:
        """Run the services in a task that belongs to this instance; `stop` ends it."""
        loop = asyncio.get_running_loop()
        self._started = loop.create_future()
        self._runner = loop.create_task(self._serve(), name=f"hotmesh {self.app_id} {self.guid_}")
        try:
            await self._started
        except asyncio.CancelledError:
            self._runner.cancel()
            await asyncio.wait([self._runner])
            raise

    async def _abandon(self) -> None:
        """The start failed, or was cancelled: leave nothing of it."""
        runner, self._runner = self._runner, None
        if runner is None:
            await self._close()
        else:
            if not self._ended:  # else it closes everything by itself, and must not be disturbed
                runner.cancel()
            await asyncio.wait([runner])

    async def _serve(self) -> None:
        log_as(self._log_context)
        try:
            async with anyio.create_task_group() as tasks:
                if self._engine is not None:
                    await self._stalled_logins.look()
                await self._listener.run(tasks)
                await self._quorum.run(tasks)
                self._leases.start()
                if self._engine is not None:
                    await self._engine.run(tasks)
                    await self._stalled_logins.run(tasks)
                await self._workers.run(tasks)
                await self._publisher.run(tasks)
                await self._receiver.run(tasks)
                await self._callers.run(tasks)
                await self._subscribers.run(tasks)
                if self._events is not None:
                    await self._events.run(tasks)
                if self._metrics_at is not None:
                    where = prometheus.address(self._metrics_at)
                    self._endpoint = prometheus.join(where, self._snapshot)
                if self._retention is not None and not self._secured:
                    await self._retention.run(tasks)
                if not self._secured:
                    tasks.start_soon(self._follow_definitions)
                tasks.start_soon(self._store.close_unused, name="close connections")
                await self._outposts.start()
                for outpost in self.outposts:
                    self._quorum.throttles.followed_by(outpost._quorum.throttles)
                    tasks.start_soon(outpost._watch, name="watch an outpost")
                if self._started is not None and not self._started.done():
                    self._started.set_result(None)
                await self._stop_requested.wait()
                await self._drain()
                tasks.cancel_scope.cancel()
        except BaseException as error:
            if self._started is not None and not self._started.done():
                self._started.set_exception(_only(error))
                return
            if self._started is not None and self._started.cancelled():
                raise  # whoever started it has gone
            self._failure = _only(error)
            member = {"app_id": self.app_id, "guid": self.guid_}
            if isinstance(self._failure, asyncio.CancelledError):
                # As `asyncio.run` does at the end to what is left of a program.
                logger.warning("instance cancelled, nobody has stopped it", extra=member)
            else:
                logger.critical("instance failed", extra=member, exc_info=error)
            raise
        finally:
            self._ended = True
            self._callers.close(self._over("this call"))
            self._subscribers.close()
            with anyio.CancelScope(shield=True):
                with anyio.move_on_after(5):
                    await self._outposts.stop(0)
                with anyio.move_on_after(5):
                    await self._close()
            self._places.discard(self._place)

    async def _watch(self) -> None:
        """Wait for the end of this outpost, and raise the failure that has ended it: its instance fails, too."""
        if self._runner is not None:
            await asyncio.wait([self._runner])
        if self._failure is not None:
            raise self._over("work of an outpost")

    async def _drain(self) -> None:
        async with anyio.create_task_group() as draining:
            draining.start_soon(self._outposts.stop, self._grace)
            await self._workers.drain(self._grace)
        if self._engine is not None:
            with anyio.move_on_after(self._grace):
                await self._engine.drain()
            # What the last commits reserved is given back, too.
            await self._workers.drain(0)
        with anyio.move_on_after(1):
            await self._workers.give_back_held()
        with anyio.move_on_after(1):
            await self._publisher.drain()
            await self._subscribers.drain()
        if self._events is not None:
            self._events.engine("stopped")
            await self._events.drain(self._grace)

    async def _close(self) -> None:
        if self._endpoint is not None:
            # It may be answering just now, and ask this loop for figures.
            await anyio.to_thread.run_sync(prometheus.leave, self._endpoint, self._snapshot)
        async with AsyncExitStack() as closing:
            # Last, and not on this loop: its thread may be waiting for a database that does not answer.
            closing.push_async_callback(anyio.to_thread.run_sync, self._leases.stop)
            closing.push_async_callback(self._store.close)
            closing.push_async_callback(self._workers.close)
            if self._engine is not None:
                closing.push_async_callback(self._engine.close)

    async def stop(self, grace: Duration | None = None) -> None:
        """Stop taking work, let running callbacks finish (at most `grace`), give back the rest, disconnect.

        Idempotent. Other instances are not affected.
        """
        runner = self._runner
        if runner is None or runner.done():
            self._live.discard(self)
            return
        if grace is not None:
            self._grace = seconds(grace, name="grace")
        self._stop_requested.set()
        self._live.discard(self)
        await asyncio.wait([runner])
        with logging_as(self._log_context):
            if not runner.cancelled() and runner.exception() is not None:
                logger.error("stopped with an error", exc_info=runner.exception())
            logger.info("stopped")

    @property
    def stopped(self) -> bool:
        """Whether `stop` has been called, or a failure has ended this instance."""
        return self._ended or self._runner is None

    @property
    def outposts(self) -> tuple[HotMesh, ...]:
        """The members, each with a guid of its own, that serve the workers with a connection of their own."""
        return self._outposts.members

    def _over(self, what: str) -> ConnectionLostError:
        error = ConnectionLostError(
            f"{what} cannot be served: this instance of app {self.app_id} has stopped"
        )
        error.__cause__ = self._failure
        return error

    def _running(self, method: str) -> None:
        if self._ended:
            raise self._over(method)

    def _engine_or_raise(self, method: str) -> Engine:
        self._running(method)
        if self._engine is None:
            raise EngineRequiredError(
                f"{method} needs an engine; this instance was started with engine=False"
            )
        return self._engine

    # -- hearing ------------------------------------------------------------------------------------------

    def _on_message(self, message: dict[str, Any]) -> None:
        if self._secured:
            # Whoever has this login can send here: nothing but the hints counts.
            if "t" in message:
                self._quorum.connected()
            self._workers.wake_all()
            return
        if "j" in message:
            self._receiver.on_message(message)
        if self._engine is not None:
            if "a" in message:
                self._engine.answered(msgspec.convert(message["a"], AnswerNotice))
            if message.get("e"):
                self._engine.wake(0.0 if message["e"] == 1 else message["e"])
        if "w" in message:
            self._workers.wake(message["w"])
        if message.get("d"):
            self._definitions_changed.set()
        if "q" in message or "qr" in message:
            self._quorum.on_message(message)

    def _connected(self) -> None:
        """Listening (again): look at everything once, so that nothing that was announced meanwhile is missed."""
        self._wake_engine()
        self._workers.wake_all()
        self._subscribers.connected()
        self._definitions_changed.set()
        self._quorum.connected()

    def _wake_engine(self) -> None:
        if self._engine is not None:
            self._engine.wake()

    async def _follow_definitions(self) -> None:
        while True:
            await self._definitions_changed.wait()
            self._definitions_changed = anyio.Event()
            try:
                await self._plans.refresh()
            except DatabaseError as error:
                # The next commit is refused if anything changed, and reads it then.
                logger.warning("definitions could not be read", extra={"error": str(error)})

    def _serves(self, topic: str, workflow_name: str) -> bool:
        served = [self._workers, *(outpost._workers for outpost in self.outposts)]
        return any(workers.serves(topic, workflow_name) for workers in served)

    # -- jobs, for whoever waits or asks ------------------------------------------------------------------

    async def _output(self, job: Job) -> JobOutput:
        plan = await self._plans.version(job.version)
        return JobOutput(job_metadata(job, plan.graphs[job.topic], job.updated_at), job.data)

    async def _output_or_none(self, job_id: str) -> tuple[JobOutput, int] | None:
        job = await self._store.job(job_id)
        return None if job is None else (await self._output(job), job.seq)


def _only(error: BaseException) -> BaseException:
    """The one error inside nested groups of one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
