"""`HotMesh`: what users call. Behind it stands a `Member`, in whose rooms the work is done."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, overload

from hotmesh import compat
from hotmesh.core.arguments import checked_flag, checked_text
from hotmesh.core.codec import Codec
from hotmesh.core.duration import Duration, seconds
from hotmesh.core.values import UNDEFINED
from hotmesh.enums import PAUSED, Code
from hotmesh.errors import ConfigError
from hotmesh.observe.dead_letters import DeadLetter
from hotmesh.observe.explain.model import Explanation
from hotmesh.postgres.connect.options import ConnectionLike
from hotmesh.postgres.logins import roles
from hotmesh.postgres.logins.credentials import Credentials
from hotmesh.runtime import ids, registry
from hotmesh.runtime.calls.deployment import GraphLike
from hotmesh.runtime.calls.messages_for_jobs import SignalOutcome
from hotmesh.runtime.calls.request import answer, interrupt_options, start_request
from hotmesh.runtime.calls.starting import start_within
from hotmesh.runtime.face import Face
from hotmesh.runtime.member import Member
from hotmesh.runtime.members.bus import QuorumSubscriber
from hotmesh.runtime.members.messages import Scope
from hotmesh.runtime.members.profile import QuorumProfile
from hotmesh.runtime.options import Migrate, Options
from hotmesh.runtime.results.output import JobOutput
from hotmesh.runtime.results.subscribers import Subscriber
from hotmesh.runtime.startup import Starting, start_instance
from hotmesh.runtime.telemetry.events import EventSink
from hotmesh.runtime.telemetry.logs import logging_as
from hotmesh.runtime.telemetry.tracing import TelemetryOption
from hotmesh.runtime.work.worker import Worker


class HotMesh(Face):
    """A connection of this process to an app. Make one with `HotMesh.init`.

    async with HotMesh.init(app_id="shop", workers=[Worker("charge", charge)]) as mesh:
        await mesh.deploy("shop.yaml")
        await mesh.activate("1")
        output = await mesh.pubsub("order.placed", {"sku": "A1"}, timeout=10)
    """

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
        worker_credentials: Credentials | None = None,
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
    ) -> Starting[Self]:
        """Connect this process to an app. Await the result, or use it as an async context manager.

        What each option means is said at `hotmesh.types.Options`, and what there is in `settings`, with
        `lease`, `max_concurrency`, `max_payload` and `retention`, at `hotmesh.types.Settings`. `readonly` holds for
        the workers, too; `engine={"readonly": True}` does not.
        Raises ConfigError, ConnectionFailedError, SchemaError, NotAuthorizedError.
        """
        given = {**locals()}
        del given["cls"]
        return Starting(partial(cls._start, Options.read(**compat.normal_form(given))))

    @classmethod
    async def _start(cls, options: Options) -> Self:
        return cls(await start_instance(options))

    def __init__(self, member: Member) -> None:
        """The face of a member that runs. `init` makes both."""
        super().__init__(member)
        self.app_id = member.options.app_id
        self.namespace = member.options.namespace
        self.guid_ = member.options.guid
        self.settings = member.options.settings
        self._faces: dict[str, HotMesh] = {}

    register_codec = staticmethod(registry.register_codec)
    get_codec = staticmethod(registry.get_codec)
    stop_all = staticmethod(registry.stop_all)
    guid = staticmethod(ids.guid)
    provision_worker_role = staticmethod(roles.provision_worker_role)
    rotate_worker_password = staticmethod(roles.rotate_worker_password)
    revoke_worker_role = staticmethod(roles.revoke_worker_role)
    list_worker_roles = staticmethod(roles.list_worker_roles)

    def add_worker(self, worker: Worker | Mapping[str, Any]) -> None:
        """Serve a further topic from now on; a worker, or a dict of its options as in `init`.

        Raises ConfigError if this instance serves it already, and for a worker with a connection that neither the
        instance nor any worker of `init` has; NotAuthorizedError for a topic that a worker login may not serve.
        """
        self._member.add_worker(compat.worker_from(worker))

    async def stop(self, grace: Duration | None = None) -> None:
        """Stop taking work, let running callbacks finish (at most `grace`), give back the rest, disconnect. Idempotent."""
        await self._running.lifetime.stop(grace)

    async def closed(self) -> None:
        """Wait for the end, whoever brings it about. Raises InstanceFailedError if it is a fault, and not `stop`."""
        await self._member.lifetime.closed()

    @property
    def stopped(self) -> bool:
        """Whether `stop` has been called, or a failure has ended this instance."""
        return self._running.lifetime.stopped

    @property
    def outposts(self) -> tuple[HotMesh, ...]:
        """The members, each with a guid of its own, that serve the workers with a connection of their own."""
        return tuple(
            self._faces.setdefault(member.options.guid, HotMesh(member))
            for member in self._running.outposts.members
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def plan(self, source: GraphLike, *, base_path: str | Path | None = None) -> dict[str, Any]:
        """Check a graph and return its manifest, storing nothing. Raises CompileError with all problems."""
        return await self._member.deployment.plan(source, base_path)

    async def deploy(self, source: GraphLike, *, base_path: str | Path | None = None) -> dict[str, Any]:
        """Check and store a version; returns its manifest. What runs does not change before `activate`.

        `source` is YAML text, a path, or a dict. Raises CompileError with all problems; nothing is stored then.
        """
        return await self._member.deployment.deploy(source, base_path)

    async def activate(self, version: str, delay: Duration | None = None) -> bool:
        """Make a deployed version the one that new jobs start on, in every process; newer or older than what runs.

        Every engine that is there loads it first; then all switch at once, and no job starts on another version once
        this has returned. `delay`: how long an engine may take to answer before it is asked again, up to three times
        and each time for twice as long; 0.25 seconds unless given. One that does not answer counts as away. Raises
        VersionNotFoundError, and ActivationError if an engine cannot load the version: nothing has changed then.
        """
        return await self._member.activate(str(version), delay)

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
            self._member.lifetime.check("pub")
            return await start_within(self._member.surroundings, connection, request)
        return (await self._member.running_engine("pub").start(request)).job_id

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
        engine, callers = self._member.running_engine("pubsub"), self._member.callers
        request = start_request(
            topic, data, context, extended, reply_to=self.guid_, max_payload=self.settings.max_payload
        )
        # The id is fixed only by the step, and its answer may come with the very commit that creates it.
        caller = callers.expect(request.generation, topic, limit)
        try:
            await engine.begin(request, caller)
            return answer(await caller.answer)
        finally:
            callers.forget(request.generation)

    async def signal(
        self,
        topic: str,
        data: Any,
        status: str = "success",
        code: int = Code.SUCCESS.value,
        *,
        pending: bool = True,
        required: bool = False,
    ) -> SignalOutcome:
        """Send a signal to the job that waits for it: `delivered`, or nobody waits yet, and it is `kept` or `dropped`.

        It is kept for 10 minutes (or `$expire` of the payload), and dropped with `pending=False`. `required=True`: a job
        has to wait for it now; else it is dropped, and SignalNotDeliveredError raised. Raises SignalNotFoundError if no
        hook rule listens on the topic, MappingError if the payload has no key.
        """
        self._member.running_engine("signal")
        checked_text(topic, "topic")
        return await self._member.messages.signal(
            topic, data, status, code, pending=pending, required=checked_flag(required, "required")
        )

    async def signal_all(
        self, topic: str, data: Mapping[str, Any], query: Mapping[str, Any], facets: Sequence[str] = ()
    ) -> list[str]:
        """Signal every job that an `index` measure lists under the facets (`color:red`); returns the index keys.

        `query` is that of `get_stats`; without start, end and range, jobs of any time. Each job gets `data` with its
        own `id`; all of them do, or none. Raises SignalNotFoundError, ConfigError.
        """
        self._member.running_engine("signal_all")
        return await self._member.statistics.signal_all(topic, data, query, facets)

    async def get_stats(self, topic: str, query: Mapping[str, Any]) -> dict[str, Any]:
        """What the graph's `stats.measures` counted, in all and by time slice.

        `query`: `data` (from which `stats.key` is computed) and two of `start`, `end` (`"NOW"` or a date) and
        `range` (`"1h"`); `sparse` omits the slices. Raises ConfigError, TopicNotFoundError.
        """
        return await self._member.statistics.get_stats(topic, query)

    async def get_ids(
        self, topic: str, query: Mapping[str, Any], facets: Sequence[str] = ()
    ) -> dict[str, Any]:
        """The jobs that `index` measures list, by facet and time slice; `query` as in `get_stats`."""
        return await self._member.statistics.get_ids(topic, query, facets)

    async def resolve_query(self, topic: str, query: Mapping[str, Any]) -> dict[str, Any]:
        """The query with its key and times worked out: end, start, range, granularity, key, sparse."""
        return (await self._member.statistics.resolve(topic, query))[1].as_dict()

    async def add(self, message: Mapping[str, Any]) -> str:
        """Add an answer to an open activity, as a worker that answered `pending` does.

        `message` carries the request's `metadata` (jid, gid, dad, aid and a guid of its own), `data`, `status`,
        `code`. A guid counts once. With a worker login: where this login answered `pending`, and nowhere else.
        Raises JobNotFoundError, JobCompletedError (the activity waits no more).
        """
        return await self._member.messages.add(message)

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
        options = interrupt_options(reason, expire, code, stack, throw=throw, descend=descend)
        checked_text(job_id, "job_id")
        return await self._member.messages.interrupt(job_id, options, suppress=suppress)

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
        await self._member.messages.resume(checked_text(job_id, "job_id"))
        return True

    async def roll_call(self, delay: Duration = 0.25) -> list[QuorumProfile]:
        """Who is there: one profile for each engine and each worker of all members that answer within `delay`.

        Returns as soon as everybody has answered. What a profile says: `QuorumProfile`.
        """
        return await self._member.quorum.roll_calls.roll_call(seconds(delay, name="delay"))

    async def throttle(
        self, throttle: int, guid: str | None = None, topic: str | None = None, scope: Scope = "all"
    ) -> bool:
        """Let consumers start at most one message per `throttle` milliseconds; -1 pauses them, 0 is no limit.

        Of everybody; or `scope="engines"` or `"workers"`; or the workers of a `topic`; or one instance (`guid`). It
        holds within a second, also in processes that are yet to start, until it is changed; that of one instance as
        long as the instance. One of all workers replaces those of topics. Jobs that callers start are never slowed:
        what they need an engine for afterwards is. False, and a warning, if no member has the `guid`; a `topic` that no graph has a
        worker on is a warning, and its rate is stored. Raises ConfigError.
        """
        with logging_as(self._member.log_context):
            return await self._member.quorum.throttle(throttle, guid, topic, scope)

    async def pause(self, guid: str | None = None, topic: str | None = None, scope: Scope = "all") -> bool:
        """Start nothing new until `resume()`; `throttle(-1)` in plain words. What runs is finished."""
        return await self.throttle(PAUSED, guid=guid, topic=topic, scope=scope)

    async def get_throttle(
        self, topic: str | None = None, scope: Literal["engines", "workers"] = "workers"
    ) -> int:
        """The stored rate of workers (of a topic), or of engines, in milliseconds; -1 is a pause, 0 no limit."""
        return await self._member.quorum.throttles.stored_rate(topic, scope)

    async def pub_quorum(self, message: Mapping[str, Any]) -> bool:
        """Send a message to the members: `{"type": "user", "topic": …, "message": …}` to all of them.

        Other types are those of the mesh itself, see `docs/mesh.md`; they go to the member of their `guid`, else to all.
        A message reaches who listens now. Raises ConfigError, and MessageTooLargeError over `max_payload` bytes.
        """
        await self._member.quorum.bus.publish(message)
        return True

    async def sub_quorum(self, callback: QuorumSubscriber) -> None:
        """Call `callback(channel, message)` for every message between members that reaches this one."""
        self._member.lifetime.check("sub_quorum")
        if not callable(callback):
            raise ConfigError(f"the subscriber is not callable: {callback!r}")
        self._member.quorum.bus.subscribe(callback)

    async def unsub_quorum(self, callback: QuorumSubscriber) -> None:
        """End a subscription to the messages between members."""
        self._member.quorum.bus.unsubscribe(callback)

    async def sub(self, topic: str, callback: Subscriber) -> None:
        """Call `callback(topic, output)` for what is announced on a `publishes` topic, by any process.

        `<publishes>` gets every job, `<publishes>.<job id>` one. Any number of callbacks per topic; each is called for
        one message at a time, in order, a plain function in a thread. Messages are not durable: who is not there
        misses them. Raises ConfigError.
        """
        self._member.lifetime.check("sub")
        await self._member.subscribers.add(topic, callback)

    async def unsub(self, topic: str, callback: Subscriber | None = None) -> None:
        """End one callback's subscription, or all of the topic."""
        checked_text(topic, "topic")
        if not self._member.lifetime.ended:
            await self._member.subscribers.remove(topic, callback)

    async def psub(self, pattern: str, callback: Subscriber) -> None:
        """Like `sub`, for every topic that matches: `*` is any run of characters, dots included, or none.

        A pattern may match `<publishes>` or `<publishes>.<job id>`; each message comes once. Raises ConfigError.
        """
        self._member.lifetime.check("psub")
        await self._member.subscribers.add(pattern, callback, pattern=True)

    async def punsub(self, pattern: str, callback: Subscriber | None = None) -> None:
        """End one callback's subscription by this pattern, or all of the pattern."""
        checked_text(pattern, "pattern")
        if not self._member.lifetime.ended:
            await self._member.subscribers.remove(pattern, callback, pattern=True)

    async def get_state(self, topic: str, job_id: str) -> JobOutput:
        """Metadata and data of a job. Raises JobNotFoundError if there is none of this id."""
        del topic
        return await self._member.state(checked_text(job_id, "job_id"))

    async def get_status(self, job_id: str) -> int:
        """Open obligations: 0 complete, above 0 running, -1 pending, far below 0 interrupted. Raises JobNotFoundError."""
        return await self._member.status(checked_text(job_id, "job_id"))

    async def get_raw(self, job_id: str) -> dict[str, Any]:
        """All that is stored of a job, flat.

        `:` is the status; each column of the job's row has its own name, as in `docs/sql.md`; search fields (`_sku`)
        and markers (`-done`) stand under theirs; `<activity>,<address>` (`charge,0,0`) is what one pass of an activity
        left; `-cancelled-` is `1` after `cancel`. Raises JobNotFoundError.
        """
        return await self._member.reader.get_raw(checked_text(job_id, "job_id"))

    async def get_query_state(self, job_id: str, fields: Sequence[str]) -> dict[str, str | None]:
        """Search fields of a job as text; None for what it does not have, or if there is no such job.

        `sku` is the field that `extended={"search": {"sku": …}}` gave; a name in double quotes is taken literally, as
        `"-done"` for a marker, and comes back without them.
        """
        return await self._member.reader.get_query_state(checked_text(job_id, "job_id"), fields)

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
        among the four members. Durable functions cannot be exported yet. Raises JobNotFoundError, ConfigError.
        """
        checked_text(job_id, "job_id")
        return await self._member.reader.export(job_id, enrich_inputs=enrich_inputs, allow=allow, block=block)

    async def explain(self, job_id: str) -> Explanation:
        """Why a job does not move: each open branch, what it waits for, since when, and what would unblock it.

        `str()` of it is for people, `as_dict()` for programs. Raises JobNotFoundError.
        """
        return await self._member.reader.explain(checked_text(job_id, "job_id"))

    async def metrics(self, *, queues: bool = True) -> dict[str, Any]:
        """What this instance has counted since it began, and what waits in the queues of its app (one statement).

        The numbers of the endpoint for Prometheus, without `hotmesh_` before the names; by the values of their labels
        where they have any. `queues=False` asks the database nothing.
        """
        return await self._member.snapshot.as_dict(queues=queues)

    @property
    def metrics_address(self) -> str | None:
        """Where Prometheus finds the metrics of this process, `host:port`; None: nowhere."""
        return self._running.metrics_address

    async def cancel(self, job_id: str) -> None:
        """Mark a job as cancelled, durably, for those who look at the mark; flows run on. No effect on no job."""
        await self._member.operations.cancel(checked_text(job_id, "job_id"))

    async def scrub(self, job_id: str) -> None:
        """Remove a job in any state, with everything that is stored or queued for it. No effect on no job."""
        await self._member.operations.scrub(checked_text(job_id, "job_id"))

    async def forget(self, job_id: str, generation: str) -> bool:
        """Remove a job that has ended before its time is over, so that its id can be used again; whether it was there.

        `generation` is `metadata.gid` of the job that is meant: a newer one of the same id stays.
        """
        return await self._member.operations.forget(checked_text(job_id, "job_id"), generation)

    async def list_dead_letters(
        self, topic: str | None = None, job_id: str | None = None, limit: int = 100
    ) -> list[DeadLetter]:
        """What was given up: work that no worker answered, and jobs that no engine could go on with. Newest first."""
        return await self._member.reader.list_dead_letters(topic, job_id, limit)

    async def requeue(self, dead_letter_id: int) -> None:
        """Put back what was given up, once: its failures are forgotten, and a job that ended by it is live again.

        Raises DeadLetterNotFoundError; JobCompletedError if the job has ended for another reason, or if a transition
        has taken the error, so that the flow has gone on. See `docs/reading.md`.
        """
        await self._member.operations.requeue(dead_letter_id)

    async def discard(self, dead_letter_id: int) -> None:
        """Remove a dead letter for good. Raises DeadLetterNotFoundError."""
        await self._member.operations.discard(dead_letter_id)
