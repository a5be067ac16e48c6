"""`HotMesh`: one point of presence. It connects a process to an app: an engine, any number of workers, a listener."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import anyio
import anyio.abc

from hotmesh.core.advance.limits import Limits
from hotmesh.core.arguments import checked_flag, checked_mapping, checked_text, checked_texts, is_storable
from hotmesh.core.codec import Codec
from hotmesh.core.definition.graph import App
from hotmesh.core.definition.manifest import app_to_json, manifest
from hotmesh.core.duration import Duration, seconds
from hotmesh.core.plan.compile import GraphPlan
from hotmesh.core.values import UNDEFINED
from hotmesh.core.wire import normalise
from hotmesh.enums import PAUSED, Code
from hotmesh.errors import (
    ConfigError,
    GetStateError,
    JobError,
    JobNotFoundError,
    NotAuthorizedError,
)
from hotmesh.observe import statistics
from hotmesh.observe.dead_letters import DeadLetter
from hotmesh.observe.explain.model import Explanation
from hotmesh.postgres import sql
from hotmesh.postgres.connect.connection import ConnectionLike, ConnectionSource
from hotmesh.postgres.connect.options import is_readonly
from hotmesh.postgres.logins import roles
from hotmesh.postgres.logins.secured import SecuredStore, WorkerLogin, find_login
from hotmesh.postgres.migrate import migrate, verify
from hotmesh.runtime import ids
from hotmesh.runtime.calls.broadcasts import signal_all
from hotmesh.runtime.calls.request import start_request
from hotmesh.runtime.calls.starting import start_within
from hotmesh.runtime.definitions.graph_files import load
from hotmesh.runtime.instance import Instance
from hotmesh.runtime.members.activation import ANSWER_DELAY
from hotmesh.runtime.members.bus import QuorumSubscriber
from hotmesh.runtime.members.messages import Scope
from hotmesh.runtime.members.outposts import Outposts, OutpostSpec, assign_workers, leading_worker, source_of
from hotmesh.runtime.members.profile import QuorumProfile
from hotmesh.runtime.messages import checked_code
from hotmesh.runtime.results.output import JobOutput
from hotmesh.runtime.results.subscribers import Subscriber
from hotmesh.runtime.settings import Settings
from hotmesh.runtime.telemetry import prometheus
from hotmesh.runtime.telemetry.events import EventSink, publisher
from hotmesh.runtime.telemetry.logs import LogContext, checked_logger, level_number, logging_as
from hotmesh.runtime.telemetry.tracing import TelemetryOption, find_telemetry
from hotmesh.runtime.wake import DEFINITIONS
from hotmesh.runtime.work.worker import Worker, check_task_queue, worker_from

if TYPE_CHECKING:
    from hotmesh.runtime.telemetry.tracing import Telemetry

logger = logging.getLogger("hotmesh")

_NAME = re.compile(r"[A-Za-z0-9-]+\Z")

LONGEST_NAMESPACE = 63

CONNECTIONS = 9
"""Connections that an instance has at most: one that listens, two that commit, one each for the stream, for jobs to be
loaded, for claims, for answers, for calls, and for an activation. See `docs/connections.md`."""

Migrate = Literal["auto", "verify"]


class HotMesh(Instance):
    """A connection of this process to an app. Make one with `HotMesh.init`.

    async with HotMesh.init(app_id="shop", workers=[Worker("charge", charge)]) as mesh:
        await mesh.deploy("shop.yaml")
        await mesh.activate("1")
        output = await mesh.pubsub("order.placed", {"sku": "A1"}, timeout=10)
    """

    # -- lifetime ----------------------------------------------------------------------------------------

    @classmethod
    def init(
        cls,
        app_id: str,
        *,
        connection: ConnectionLike = None,
        direct_connection: ConnectionLike | Literal[False] = None,
        namespace: str = "hotmesh",
        guid: str | None = None,
        task_queue: str | None = None,
        engine: bool | Mapping[str, Any] = True,
        workers: Iterable[Worker | Mapping[str, Any]] = (),
        readonly: bool = False,
        pin_versions: bool = True,
        migrate: Migrate = "auto",
        secured: bool | None = None,
        worker_credentials: roles.Credentials | None = None,
        name: str | None = None,
        logger: logging.Logger | None = None,
        log_level: str | int | None = None,
        lease: Duration | None = None,
        max_concurrency: int | None = None,
        max_payload: int | None = None,
        retention: Duration | None = None,
        events: EventSink | None = None,
        telemetry: TelemetryOption = None,
        tracer_provider: Any = None,
        metrics: int | str | None = None,
        codec: Codec | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Starting:
        """Connect this process to an app. Await the result, or use it as an async context manager.

        `connection`: a DSN, a dict of asyncpg options, an asyncpg pool, or a function that connects; omitted:
        `HOTMESH_DATABASE_URL`, else libpq's variables, else the embedded Postgres. `direct_connection`: a way past a
        pooler that keeps no sessions, `task_queue`: the name by which instances share a connection, see
        `docs/connections.md`. `namespace`: the Postgres schema. `guid`: id of this instance, generated; one that a
        live instance has is refused, see `docs/instances.md`. `name`: its label in `pg_stat_activity` and in logs;
        `logger`, `log_level`: where its records go, and the least that are logged; see `docs/observability.md`.
        `engine=False`: workers only. `readonly`: creates and reads jobs, processes none, and its workers take none
        (`engine={"readonly": True}`: they do).
        `pin_versions=False`: running jobs follow the active version instead of the one they started on.
        `migrate="verify"`: run no DDL, and refuse to start if the tables are not up to date. `lease`: how long
        reserved work is safe from others without a sign of life. `secured`: this is a worker with a worker
        login, which otherwise is found out; it goes with `engine=False`, as do `worker_credentials` (`user` and
        `password`, or what `provision_worker_role` returned), which replace the login of `connection`; see
        `docs/secured-workers.md`. `retention`: how long expired jobs stay in the tables
        before this instance, or another one that is set to do so, deletes them; see `docs/retention.md`. `events`: a
        function, or an object with `publish`, that is told of what this process has committed. `telemetry`: the spans to record with OpenTelemetry, `info`,
        `debug` or False; by default `info` if the program has registered a tracer provider by now (or gives one as
        `tracer_provider`). `metrics`: the port, or `host:port`, where Prometheus finds the metrics of this process. On
        all three see `docs/observability.md`. `codec`: encodes what is stored, instead of the one of
        `register_codec`; see `docs/encryption.md`. Further `settings`: see `docs/settings.md`.

        Raises ConfigError, ConnectionFailedError, SchemaError, NotAuthorizedError.
        """
        _check_name("appId", app_id)
        if app_id == "a":
            raise ConfigError("config.appId [a] is reserved")
        _check_name("namespace", namespace)
        if len(namespace) > LONGEST_NAMESPACE:
            raise ConfigError(
                f"config.namespace [{namespace}] is invalid: a schema's name has at most {LONGEST_NAMESPACE} characters"
            )
        checked_flag(readonly, "readonly")
        checked_flag(pin_versions, "pin_versions")
        given = checked_mapping(settings, "settings")
        if not isinstance(workers, Iterable):
            raise ConfigError(f"workers= takes workers and dicts of their options, not {workers!r}")
        serving = [worker_from(worker) for worker in workers]
        if readonly:
            serving = [replace(worker, readonly=True) for worker in serving]
        if isinstance(engine, Mapping):
            options = dict(engine)
            connection = options.pop("connection", connection)
            direct_connection = options.pop("direct_connection", direct_connection)
            readonly = checked_flag(options.pop("readonly", False), "engine's readonly") or readonly
            task_queue = task_queue or options.pop("task_queue", None)
            options.pop("task_queue", None)
            given |= options
            engine = True
        if not isinstance(engine, bool):
            raise ConfigError(f"engine= takes True, False or a dict of the engine's options, not {engine!r}")
        if migrate not in ("auto", "verify"):
            raise ConfigError(f"migrate= must be 'auto' or 'verify', not {migrate!r}")
        if secured is not None:
            checked_flag(secured, "secured")
        readonly = readonly or is_readonly(connection)
        check_task_queue(task_queue)
        if guid is not None and (
            not isinstance(guid, str) or not 0 < len(guid) <= 512 or not is_storable(guid)
        ):
            raise ConfigError(f"config.guid is a text of 1 to 512 characters, not {guid!r}")
        if lease is not None:
            given["lease"] = seconds(lease, name="lease")
        if retention is not None:
            given["retention"] = seconds(retention, name="retention")
        given |= {
            key: value
            for key, value in (("max_concurrency", max_concurrency), ("max_payload", max_payload))
            if value is not None
        }
        found = Settings.read(given)
        if engine and (secured or worker_credentials is not None):
            raise ConfigError(
                "a worker login cannot run an engine: pass engine=False, and run engines with the app's own login"
            )
        if worker_credentials is not None:
            roles.login_of(worker_credentials)
        if events is not None:
            publisher(events)
        _check_codec(codec)
        member = guid or ids.guid()
        log_context = LogContext(
            app_id,
            member,
            name,
            None if logger is None else checked_logger(logger),
            None if log_level is None else level_number(log_level, "log_level="),
        )
        spans = find_telemetry(app_id, telemetry, tracer_provider)
        if metrics is None and found.metrics_port:
            metrics = found.metrics_port
        if metrics is not None:
            prometheus.address(metrics)
        return Starting(
            lambda: cls._begin(
                app_id, connection, direct_connection, namespace, member, found, log_context, task_queue, engine=bool(engine), readonly=readonly,
                workers=serving, mode=migrate, name=name, pin_versions=pin_versions, events=events,
                telemetry=spans, metrics=metrics, codec=codec,
                secured=True if worker_credentials is not None else secured,
                credentials=worker_credentials,
            )
        )  # fmt: skip

    @classmethod
    async def _begin(
        cls,
        app_id: str,
        connection: ConnectionLike,
        direct_connection: ConnectionLike | Literal[False],
        namespace: str,
        guid: str,
        settings: Settings,
        log_context: LogContext,
        task_queue: str | None,
        *,
        engine: bool,
        readonly: bool,
        workers: list[Worker],
        mode: Migrate,
        name: str | None,
        pin_versions: bool,
        events: EventSink | None,
        telemetry: Telemetry | None,
        metrics: int | str | None,
        codec: Codec | None,
        secured: bool | None,
        credentials: roles.Credentials | None,
    ) -> HotMesh:
        given = connection is not None or direct_connection is not None
        first = None if engine or credentials is not None else leading_worker(workers, connected=given)
        if first is not None:
            connection = first.connection if connection is None else connection
            credentials = first.worker_credentials
            task_queue = task_queue or first.task_queue
            secured = secured if credentials is None else True
        source = await anyio.to_thread.run_sync(
            lambda: ConnectionSource.find(
                connection, direct=direct_connection, application_name=name or f"hotmesh {app_id}"
            )
        )
        if credentials is not None:
            source = source.logged_in(*roles.login_of(credentials))
        own, specs = assign_workers(workers, source, task_queue)
        begin = partial(
            cls._begin_on, app_id, namespace=namespace, name=name, pin_versions=pin_versions, telemetry=telemetry, codec=codec
        )  # fmt: skip

        async def start_outpost(spec: OutpostSpec, member: str) -> HotMesh:
            # It runs no DDL: the tables are those of its instance, or it leads elsewhere.
            return await begin(
                spec.source, guid=member, settings=replace(settings, retention=None), workers=spec.workers,
                secured=True if spec.secured else None, engine=False, readonly=False, mode="verify",
                outposts=Outposts((), start_outpost, member), log_context=replace(log_context, guid=member), task_queue=spec.task_queue,
            )  # fmt: skip

        mesh = await begin(
            source, guid=guid, settings=settings, workers=own, secured=secured, engine=engine, readonly=readonly, mode=mode,
            events=events, metrics=metrics, outposts=Outposts(specs, start_outpost, guid), log_context=log_context, task_queue=task_queue,
        )  # fmt: skip
        cls._live.add(mesh)
        return mesh

    @classmethod
    async def _begin_on(
        cls,
        app_id: str,
        source: ConnectionSource,
        *,
        namespace: str,
        guid: str,
        settings: Settings,
        workers: list[Worker],
        secured: bool | None,
        engine: bool,
        readonly: bool,
        mode: Migrate,
        name: str | None,
        pin_versions: bool,
        telemetry: Telemetry | None,
        codec: Codec | None,
        outposts: Outposts,
        log_context: LogContext,
        task_queue: str | None,
        events: EventSink | None = None,
        metrics: int | str | None = None,
    ) -> HotMesh:
        """One member."""
        source.check_room(CONNECTIONS)
        await source.check_sessions()
        place = source.key, namespace, app_id, guid
        if place in cls._places:
            raise ConfigError(
                f"config.guid [{guid}] is in use by another instance of app {app_id} in this process: "
                "leave it out, or stop that one first"
            )
        cls._places.add(place)
        created = False
        mesh: HotMesh | None = None
        try:
            login = None
            if not engine and secured is not False:
                login = await find_login(source, namespace, required=bool(secured))
            if login is not None:
                settings = _within(settings, login, app_id, workers)
            elif mode == "verify":
                await verify(source, namespace)
            else:
                created = bool((await migrate(source, namespace)).migrations)
            mesh = cls(
                app_id,
                source,
                namespace,
                guid,
                settings,
                engine=engine,
                readonly=readonly,
                pin_versions=pin_versions,
                events=events,
                telemetry=telemetry,
                metrics=metrics,
                codec=codec,
                login=login,
                outposts=outposts,
                log_context=log_context,
                task_queue=task_queue,
            )
            mesh._place = place
            for worker in workers:
                mesh._workers.add(worker)
            if login is None:
                await mesh._plans.refresh()
            await mesh._start()
        except BaseException:
            cls._places.discard(place)
            if mesh is not None:
                with anyio.CancelScope(shield=True):
                    await mesh._abandon()
            raise
        if mesh._events is not None:
            if created:
                mesh._events.engine("deployed")
            mesh._events.engine("started")
        with logging_as(log_context):
            logger.info("started")
        return mesh

    @staticmethod
    def register_codec(codec: Codec | None) -> None:
        """Encode what this process stores from now on, by all instances without a codec of their own; None: store it plain.

        `codec` has `encode(text) -> str` and `decode(text) -> str`, such as `AesGcmCodec`. What was stored before reads
        as it did, as long as the codec decodes it. Raises ConfigError.
        """
        _check_codec(codec)
        HotMesh._codec = codec

    @staticmethod
    def get_codec() -> Codec | None:
        """What was last registered for the process."""
        return HotMesh._codec

    def add_worker(self, worker: Worker | Mapping[str, Any]) -> None:
        """Serve a further topic from now on; a worker, or a dict of its options as in `init`.

        Raises ConfigError if this instance serves it already, and for a worker with a connection that neither the
        instance nor any worker of `init` has; NotAuthorizedError for a topic that a worker login may not serve.
        """
        self._running("add_worker")
        worker = worker_from(worker)
        if isinstance(self._store, SecuredStore):
            _check_topics(self._store.login, [worker])
        source = source_of(worker, self._source)
        outpost = (
            None
            if source is self._source
            else self._outposts.at(source, self._task_queue or worker.task_queue)
        )
        if outpost is not None:
            outpost.add_worker(replace(worker, connection=None, worker_credentials=None))
        elif source is self._source or worker.readonly:
            self._workers.add(worker)
        else:
            raise ConfigError(
                f"worker {worker.topic} has a connection that no other worker of this instance has: name it in workers= of "
                "init, or make an instance for it"
            )

    @classmethod
    async def stop_all(cls, grace: Duration | None = None) -> None:
        """Stop every instance of this process. A new `init` afterwards works as the first did."""
        async with anyio.create_task_group() as tasks:
            for mesh in list(cls._live):
                tasks.start_soon(mesh.stop, grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # -- worker logins -----------------------------------------------------------------------------------

    provision_worker_role = staticmethod(roles.provision_worker_role)
    rotate_worker_password = staticmethod(roles.rotate_worker_password)
    revoke_worker_role = staticmethod(roles.revoke_worker_role)
    list_worker_roles = staticmethod(roles.list_worker_roles)

    # -- definitions -------------------------------------------------------------------------------------

    async def plan(
        self, source: str | Path | Mapping[str, Any], *, base_path: str | Path | None = None
    ) -> dict[str, Any]:
        """Check a graph and return its manifest, storing nothing. Raises CompileError with all problems."""
        return manifest(await self._load(source, base_path))

    async def deploy(
        self, source: str | Path | Mapping[str, Any], *, base_path: str | Path | None = None
    ) -> dict[str, Any]:
        """Check and store a version; returns its manifest. What runs does not change before `activate`.

        `source` is YAML text, a path, or a dict. Raises CompileError with all problems; nothing is stored then.
        """
        app = await self._load(source, base_path)
        stored = json.dumps(app_to_json(app), separators=(",", ":"), ensure_ascii=False)
        checksum = sql.checksum(stored)
        await self._store.deploy(app.version, stored, checksum, DEFINITIONS)
        await self._plans.refresh()
        if self._events is not None:
            self._events.engine("deployed", version=app.version)
        return manifest(app)

    async def _load(self, source: str | Path | Mapping[str, Any], base_path: str | Path | None) -> App:
        def read() -> App:
            loaded = load(source, base_path=base_path, expected_app_id=self.app_id)
            for warning in loaded.warnings:
                logger.warning("graph: %s", warning)
            return loaded.app

        with logging_as(self._log_context):
            return await anyio.to_thread.run_sync(read)

    async def activate(self, version: str, delay: Duration | None = None) -> bool:
        """Make a deployed version the one that new jobs start on, in every process; newer or older than what runs.

        Every engine that is there loads it first; then all switch at once, and no job starts on another version once
        this has returned. `delay`: how long an engine may take to answer before it is asked again, up to three times
        and each time for twice as long; 0.25 seconds unless given. One that does not answer counts as away. Raises
        VersionNotFoundError, and ActivationError if an engine cannot load the version: nothing has changed then.
        """
        waiting = ANSWER_DELAY if delay is None else seconds(delay, name="delay")
        wanted = checked_text(str(version), "version")
        with logging_as(self._log_context):
            await self._quorum.activations.activate(wanted, waiting)
        return True

    # -- jobs --------------------------------------------------------------------------------------------

    async def pub(
        self,
        topic: str,
        data: Any = None,
        context: Mapping[str, Any] | None = None,
        extended: Mapping[str, Any] | None = None,
        *,
        connection: Any = None,
    ) -> str:
        """Start a job; returns its id once it is durable.

        `extended` may give `id`, `entity`, `search` (fields to query by), `marker` and `pending` (seconds to wait
        for `resume`). Raises AppNotFoundError, TopicNotFoundError, DuplicateJobError, MappingError, PayloadError.

        `connection`: a connection or session of your own (asyncpg, psycopg, SQLAlchemy) to the same database. The job
        then belongs to the transaction that is open there: it exists if and only if you commit, and starts at once
        after that. Works without an engine, too; see `docs/transactions.md`.
        """
        request = start_request(
            topic, data, context, extended, reply_to=None, max_payload=self.settings.max_payload
        )
        if connection is not None:
            if self._ended:
                raise self._over("pub")
            limits = Limits(max_cycles=self.settings.max_cycles, expire=self.settings.expire)
            if self._telemetry is not None:
                request = self._telemetry.carried(request)
            return await start_within(
                self._store, self._plans, self._environment, limits, connection, request
            )
        job = await self._engine_or_raise("pub").start(request)
        return job.job_id

    async def pubsub(
        self,
        topic: str,
        data: Any = None,
        context: Mapping[str, Any] | None = None,
        timeout: Duration | None = None,
        extended: Mapping[str, Any] | None = None,
    ) -> JobOutput:
        """Start a job and wait for its result (or its first interim emission).

        `timeout` is 1 second unless given; JobTimeoutError then, and the job goes on. Raises JobError with the job's
        error if it ends with one, and whatever `pub` raises.
        """
        limit = self.settings.pubsub_timeout if timeout is None else seconds(timeout, name="timeout")
        engine = self._engine_or_raise("pubsub")
        request = start_request(
            topic, data, context, extended, reply_to=self.guid_, max_payload=self.settings.max_payload
        )
        # The id is fixed only by the step, and its answer may come with the very commit that creates it.
        answered = self._callers.expect(request.generation)
        try:
            job = await engine.start(request)
            if not answered.done():
                self._callers.sent(request.generation, job.job_id, limit)
            return _result(await answered)
        finally:
            self._callers.forget(request.generation)

    async def signal(
        self,
        topic: str,
        data: Any,
        status: str = "success",
        code: int = Code.SUCCESS.value,
        *,
        pending: bool = True,
    ) -> str:
        """Send a signal to the job that waits for it; returns an id of the signal.

        Nobody waits yet: it is kept for 10 minutes (or `$expire` of the payload), unless `pending=False`. Raises
        SignalNotFoundError if no hook rule listens on the topic, MappingError if the payload has no key.
        """
        self._engine_or_raise("signal")
        checked_text(topic, "topic")
        return await self._messages.signal(topic, data, status, code, pending=pending)

    async def signal_all(
        self, topic: str, data: Mapping[str, Any], query: Mapping[str, Any], facets: Sequence[str] = ()
    ) -> list[str]:
        """Signal every job that an `index` measure lists under the facets (`color:red`); returns the index keys.

        `query` is that of `get_stats`; without start, end and range, jobs of any time. Each job gets `data` with its
        own `id`; all of them do, or none. Raises SignalNotFoundError, ConfigError.
        """
        self._engine_or_raise("signal_all")
        checked_text(topic, "topic")
        wanted, facets = checked_mapping(query, "query"), checked_texts(facets, "facets")
        given = checked_mapping(data, "data")
        payload = normalise(given, limit=self.settings.max_payload, what=f"data for signal {topic}")
        plan = await self._plans.active()
        async with self._store.connection() as connection, connection.transaction():
            found = await signal_all(
                self._store, connection, plan, topic, payload, wanted, facets, self._environment
            )
        self._wake_engine()
        return found

    async def get_stats(self, topic: str, query: Mapping[str, Any]) -> dict[str, Any]:
        """What the graph's `stats.measures` counted, in all and by time slice.

        `query`: `data` (from which `stats.key` is computed) and two of `start`, `end` (`"NOW"` or a date) and
        `range` (`"1h"`); `sparse` omits the slices. Raises ConfigError, TopicNotFoundError.
        """
        graph, resolved = await self._resolve(topic, query)
        return await statistics.get_stats(self._store, graph, resolved)

    async def get_ids(
        self, topic: str, query: Mapping[str, Any], facets: Sequence[str] = ()
    ) -> dict[str, Any]:
        """The jobs that `index` measures list, by facet and time slice; `query` as in `get_stats`."""
        wanted = checked_texts(facets, "facets")
        graph, resolved = await self._resolve(topic, query)
        return await statistics.get_ids(self._store, graph, resolved, wanted)

    async def resolve_query(self, topic: str, query: Mapping[str, Any]) -> dict[str, Any]:
        """The query with its key and times worked out: end, start, range, granularity, key, sparse."""
        return (await self._resolve(topic, query))[1].as_dict()

    async def _resolve(
        self, topic: str, query: Mapping[str, Any]
    ) -> tuple[GraphPlan, statistics.ResolvedQuery]:
        wanted = checked_mapping(query, "query")
        graph = statistics.graph_of(await self._plans.active(), checked_text(topic, "topic"))
        return graph, statistics.resolve_query(graph, wanted, datetime.now(UTC), self._environment)

    async def add(self, message: Mapping[str, Any]) -> str:
        """Add an answer to an open activity, as a worker that answered `pending` does.

        `message` carries the request's `metadata` (jid, gid, dad, aid and a guid of its own), `data`, `status`,
        `code`. A guid counts once. With a worker login: where this login answered `pending`, and nowhere else.
        Raises JobNotFoundError, JobCompletedError (the activity waits no more).
        """
        return await self._messages.add(message)

    async def interrupt(
        self,
        topic: str,
        job_id: str,
        *,
        reason: str | None = None,
        throw: bool = True,
        descend: bool = False,
        suppress: bool = False,
        expire: Duration | None = None,
        code: int = Code.INTERRUPTED.value,
        stack: str | None = None,
    ) -> str | None:
        """Stop a job; whoever waits for it gets error `code` (`throw=False`: its data so far).

        `descend`: the jobs that it awaits, too. Raises JobNotFoundError and JobCompletedError unless `suppress`.
        """
        del topic
        options: dict[str, Any] = {"code": checked_code(code)}
        options |= {"throw": checked_flag(throw, "throw"), "descend": checked_flag(descend, "descend")}
        for name, text in (("reason", reason), ("stack", stack)):
            if text is not None and not isinstance(text, str):
                raise ConfigError(f"{name} must be a text, not {text!r}")
            if text is not None:
                options[name] = text
        if expire is not None:
            options["expire"] = seconds(expire, name="expire")
        return await self._messages.interrupt(checked_text(job_id, "job_id"), options, suppress=suppress)

    @overload
    async def resume(self, job_id: str) -> bool: ...

    @overload
    async def resume(
        self, *, guid: str | None = None, topic: str | None = None, scope: Scope = "all"
    ) -> bool: ...

    async def resume(
        self,
        job_id: Any = UNDEFINED,
        *,
        guid: str | None = None,
        topic: str | None = None,
        scope: Scope = "all",
    ) -> bool:
        """Start a job that was created in pending mode; or, without a job id, lift a pause or any other throttle.

        `resume(job_id)` raises JobNotFoundError if the job's time is over. `resume()` takes what `pause` takes.
        """
        if job_id is UNDEFINED:  # and not None, by which somebody means one job
            return await self.throttle(0, guid=guid, topic=topic, scope=scope)
        if guid is not None or topic is not None or scope != "all":
            raise ConfigError(
                "resume takes either a job id, or guid=, topic= and scope= of what `pause` has paused"
            )
        await self._messages.resume(checked_text(job_id, "job_id"))
        return True

    # -- the mesh ----------------------------------------------------------------------------------------

    async def roll_call(self, delay: Duration = 0.25) -> list[QuorumProfile]:
        """Who is there: one profile for each engine and each worker of all members that answer within `delay`.

        Returns as soon as everybody has answered. What a profile says: `QuorumProfile`.
        """
        return await self._quorum.roll_calls.roll_call(seconds(delay, name="delay"))

    async def throttle(
        self, throttle: int, guid: str | None = None, topic: str | None = None, scope: Scope = "all"
    ) -> bool:
        """Let consumers start at most one message per `throttle` milliseconds; -1 pauses them, 0 is no limit.

        Of everybody; or `scope="engines"` or `"workers"`; or the workers of a `topic`; or one instance (`guid`). It
        holds within a second, also in processes that are yet to start, until it is changed; that of one instance as
        long as the instance. One of all workers replaces those of topics. Jobs that callers start are never slowed:
        what they need an engine for afterwards is. Raises ConfigError.
        """
        with logging_as(self._log_context):
            await self._quorum.throttles.throttle(throttle, guid, topic, scope)
        return True

    async def pause(self, guid: str | None = None, topic: str | None = None, scope: Scope = "all") -> bool:
        """Start nothing new until `resume()`; `throttle(-1)` in plain words. What runs is finished."""
        return await self.throttle(PAUSED, guid=guid, topic=topic, scope=scope)

    async def get_throttle(
        self, topic: str | None = None, scope: Literal["engines", "workers"] = "workers"
    ) -> int:
        """The stored rate of workers (of a topic), or of engines, in milliseconds; -1 is a pause, 0 no limit."""
        return await self._quorum.throttles.stored_rate(topic, scope)

    async def pub_quorum(self, message: Mapping[str, Any]) -> bool:
        """Send a message to the members: `{"type": "user", "topic": …, "message": …}` to all of them.

        Other types are those of the mesh itself, see `docs/mesh.md`; they go to the member of their `guid`, else to all.
        A message reaches who listens now. Raises ConfigError, and MessageTooLargeError over `max_payload` bytes.
        """
        await self._quorum.bus.publish(message)
        return True

    async def sub_quorum(self, callback: QuorumSubscriber) -> None:
        """Call `callback(channel, message)` for every message between members that reaches this one."""
        self._running("sub_quorum")
        if not callable(callback):
            raise ConfigError(f"the subscriber is not callable: {callback!r}")
        self._quorum.bus.subscribe(callback)

    async def unsub_quorum(self, callback: QuorumSubscriber) -> None:
        """End a subscription to the messages between members."""
        self._quorum.bus.unsubscribe(callback)

    # -- results -----------------------------------------------------------------------------------------

    async def sub(self, topic: str, callback: Subscriber) -> None:
        """Call `callback(topic, output)` for what is announced on a `publishes` topic, by any process.

        `<publishes>` gets every job, `<publishes>.<job id>` one. Any number of callbacks per topic; each is called for
        one message at a time, in order, a plain function in a thread. Messages are not durable: who is not there
        misses them. Raises ConfigError.
        """
        self._running("sub")
        await self._subscribers.add(topic, callback)

    async def unsub(self, topic: str, callback: Subscriber | None = None) -> None:
        """End one callback's subscription, or all of the topic."""
        checked_text(topic, "topic")
        if not self._ended:
            await self._subscribers.remove(topic, callback)

    async def psub(self, pattern: str, callback: Subscriber) -> None:
        """Like `sub`, for every topic that matches: `*` is any run of characters, dots included, or none.

        A pattern may match `<publishes>` or `<publishes>.<job id>`; each message comes once. Raises ConfigError.
        """
        self._running("psub")
        await self._subscribers.add(pattern, callback, pattern=True)

    async def punsub(self, pattern: str, callback: Subscriber | None = None) -> None:
        """End one callback's subscription by this pattern, or all of the pattern."""
        checked_text(pattern, "pattern")
        if not self._ended:
            await self._subscribers.remove(pattern, callback, pattern=True)

    # -- reading -----------------------------------------------------------------------------------------

    async def get_state(self, topic: str, job_id: str) -> JobOutput:
        """Metadata and data of a job. Raises GetStateError if there is none of this id."""
        del topic
        job = await self._store.job(checked_text(job_id, "job_id"))
        if job is None:
            raise GetStateError(job_id)
        return await self._output(job)

    async def get_status(self, job_id: str) -> int:
        """Open obligations: 0 complete, above 0 running, -1 pending, far below 0 interrupted.

        Raises JobNotFoundError.
        """
        status = await self._store.status(checked_text(job_id, "job_id"))
        if status is None:
            raise JobNotFoundError(job_id)
        return status

    async def get_raw(self, job_id: str) -> dict[str, Any]:
        """All that is stored of a job, flat.

        `:` is the status; each column of the job's row has its own name, as in `docs/sql.md`; search fields (`_sku`)
        and markers (`-done`) stand under theirs; `<activity>,<address>` (`charge,0,0`) is what one pass of an activity
        left; `-cancelled-` is `1` after `cancel`. Raises GetStateError.
        """
        return await self._reader.get_raw(checked_text(job_id, "job_id"))

    async def get_query_state(self, job_id: str, fields: Sequence[str]) -> dict[str, str | None]:
        """Search fields of a job as text; None for what it does not have, or if there is no such job.

        `sku` is the field that `extended={"search": {"sku": …}}` gave; a name in double quotes is taken literally, as
        `"-done"` for a marker, and comes back without them.
        """
        return await self._reader.get_query_state(checked_text(job_id, "job_id"), fields)

    async def export(
        self,
        job_id: str,
        *,
        enrich_inputs: bool = False,
        allow: Collection[str] | None = None,
        block: Collection[str] | None = None,
    ) -> dict[str, Any]:
        """A job as one document: `process` (what each activity left, nested by address), `status`, `dependencies`.

        `enrich_inputs` adds `activities`: each pass of a worker with its input, output, times and error. Work that was
        answered is not kept, so its input is worked out again from what is recorded by now. `allow` and `block` choose
        among the four members. Raises GetStateError.
        """
        checked_text(job_id, "job_id")
        return await self._reader.export(job_id, enrich_inputs=enrich_inputs, allow=allow, block=block)

    async def explain(self, job_id: str) -> Explanation:
        """Why a job does not move: each open branch, what it waits for, since when, and what would unblock it.

        `str()` of it is for people, `as_dict()` for programs. Raises JobNotFoundError.
        """
        return await self._reader.explain(checked_text(job_id, "job_id"))

    async def metrics(self, *, queues: bool = True) -> dict[str, Any]:
        """What this instance has counted since it began, and what waits in the queues of its app (one statement).

        The numbers of the endpoint for Prometheus, without `hotmesh_` before the names; by the values of their labels
        where they have any. `queues=False` asks the database nothing.
        """
        return await self._snapshot.as_dict(queues=queues)

    @property
    def metrics_address(self) -> str | None:
        """Where Prometheus finds the metrics of this process, `host:port`; None: nowhere."""
        return None if self._endpoint is None else self._endpoint.address

    # -- operating ---------------------------------------------------------------------------------------

    async def cancel(self, job_id: str) -> None:
        """Mark a job as cancelled, durably, for those who look at the mark; flows run on. No effect on no job."""
        await self._operations.cancel(checked_text(job_id, "job_id"))

    async def scrub(self, job_id: str) -> None:
        """Remove a job in any state, with everything that is stored or queued for it. No effect on no job."""
        await self._operations.scrub(checked_text(job_id, "job_id"))

    async def forget(self, job_id: str, generation: str) -> bool:
        """Remove a job that has ended before its time is over, so that its id can be used again; whether it was there.

        `generation` is `metadata.gid` of the job that is meant: a newer one of the same id stays.
        """
        checked_text(job_id, "job_id")
        return await self._operations.forget(job_id, generation)

    async def list_dead_letters(
        self, topic: str | None = None, job_id: str | None = None, limit: int = 100
    ) -> list[DeadLetter]:
        """What was given up: work that no worker answered, and jobs that no engine could go on with. Newest first."""
        for name, value in (("topic", topic), ("job_id", job_id)):
            if value is not None:
                checked_text(value, name)
        return await self._reader.list_dead_letters(topic, job_id, limit)

    async def requeue(self, dead_letter_id: int) -> None:
        """Put back what was given up, once: its failures are forgotten, and a job that ended by it is live again.

        Raises DeadLetterNotFoundError; JobCompletedError if the job has ended for another reason, or if a transition
        has taken the error, so that the flow has gone on. See `docs/reading.md`.
        """
        await self._operations.requeue(dead_letter_id)

    async def discard(self, dead_letter_id: int) -> None:
        """Remove a dead letter for good. Raises DeadLetterNotFoundError."""
        await self._operations.discard(dead_letter_id)

    @staticmethod
    def guid() -> str:
        """A new id: `H` and 22 url-safe characters."""
        return ids.guid()


class Starting(Awaitable[HotMesh]):
    """What `HotMesh.init` returns: await it, or use it as `async with HotMesh.init(…) as mesh`."""

    def __init__(self, begin: Callable[[], Awaitable[HotMesh]]) -> None:
        self._begin = begin
        self._mesh: HotMesh | None = None

    def __await__(self) -> Generator[Any, None, HotMesh]:
        return self._begin().__await__()

    async def __aenter__(self) -> HotMesh:
        self._mesh = await self._begin()
        return self._mesh

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._mesh is not None:
            await self._mesh.stop()


def _result(output: JobOutput) -> JobOutput:
    error = output.metadata.get("err")
    if error is not None:
        raise JobError(json.loads(error), output.metadata.get("jid"))
    return output


def _check_codec(codec: Any) -> None:
    if codec is not None and not all(callable(getattr(codec, name, None)) for name in ("encode", "decode")):
        raise ConfigError(f"a codec has the methods encode and decode; {codec!r} has not")


def _within(settings: Settings, login: WorkerLogin, app_id: str, workers: Sequence[Worker]) -> Settings:
    """The settings inside of the bounds of a worker login. Raises NotAuthorizedError for what it may not serve."""
    if login.app_id != app_id:
        raise NotAuthorizedError(f"this worker login is for app {login.app_id}, not for {app_id}")
    _check_topics(login, workers)
    return replace(
        settings,
        lease=max(1.0, min(settings.lease, login.longest_lease)),
        longest_callback=min(settings.longest_callback, login.longest_hold),
        max_payload=min(settings.max_payload, login.max_payload),
    )


def _check_topics(login: WorkerLogin, workers: Sequence[Worker]) -> None:
    """Raise NotAuthorizedError for topics that a worker login may not serve: it would get no work of any other, either."""
    beyond = sorted({worker.topic for worker in workers} - login.topics)
    if beyond:
        raise NotAuthorizedError(
            f"this worker login may not serve {', '.join(beyond)}; it may serve {', '.join(sorted(login.topics))}"
        )


def _check_name(option: str, value: str) -> None:
    if not isinstance(value, str) or not _NAME.match(value):
        raise ConfigError(f"config.{option} [{value}] is invalid")
