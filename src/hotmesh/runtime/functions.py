"""The durable functions of one member: hosted, started, waited for, and given up with it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup

from hotmesh.core.durable.activities import activity_topic
from hotmesh.core.durable.build import KEEP
from hotmesh.core.durable.state import BY_ID
from hotmesh.core.state.job import Job, StartRequest
from hotmesh.core.values import Json
from hotmesh.errors import ConfigError
from hotmesh.nearest import nearest
from hotmesh.postgres import durable, escalations, loading
from hotmesh.postgres.calls import MessageCall, SignalCall
from hotmesh.postgres.database import Database
from hotmesh.postgres.escalations import EscalationRow
from hotmesh.runtime import ids
from hotmesh.runtime.calls.messages_for_jobs import JobMessages
from hotmesh.runtime.calls.outbox import Outbox
from hotmesh.runtime.definitions.plans import Plans
from hotmesh.runtime.durable.activities import ActivityCall
from hotmesh.runtime.durable.hosted import HostedFunction
from hotmesh.runtime.durable.tenure import TenureLimits, Tenures
from hotmesh.runtime.durable.tokens import Token
from hotmesh.runtime.durable.turns import Turns, leave
from hotmesh.runtime.durable.unknown import UnknownActivities
from hotmesh.runtime.messages import StreamData
from hotmesh.runtime.options import Options
from hotmesh.runtime.results.function_results import Results
from hotmesh.runtime.results.waiting import Callers
from hotmesh.runtime.telemetry.events import Events
from hotmesh.runtime.wake import EVENTS
from hotmesh.runtime.work.served import ActivityWorker, Share
from hotmesh.runtime.work.worker import Worker
from hotmesh.runtime.work.workers import Workers

logger = logging.getLogger("hotmesh.durable")


class Home(Protocol):
    """The member, as far as it is needed here."""

    database: Database
    plans: Plans
    callers: Callers
    messages: JobMessages
    outbox: Outbox
    events: Events | None
    workers: Workers

    options: Options

    def add_worker(self, worker: Worker) -> None: ...


class Starter(Protocol):
    """The engine, as far as it is needed here."""

    turns: Turns

    async def start(self, request: StartRequest) -> Job: ...


class Functions:
    """What `hotmesh.durable` asks of a member. `run` comes before everything."""

    def __init__(self, member: Home, engine: Starter, limits: TenureLimits) -> None:
        self._member = member
        self._engine = engine
        self._limits = limits
        self._turns = engine.turns
        self._tasks: TaskGroup | None = None
        self._lock = anyio.Lock()
        self._marked = False
        self._missed: set[tuple[str | None, str]] = set()
        self._unknown = UnknownActivities(member.database, member.options.guid)
        self.results = Results(member.callers)

    # -- lifetime ----------------------------------------------------------------------------------------

    def run(self, tasks: TaskGroup) -> None:
        """From here on functions can be hosted."""
        self._tasks = tasks

    async def drain(self, grace: float) -> None:
        """Let the steps that run here finish."""
        with anyio.move_on_after(grace):
            await self._turns.steps.idle.wait()

    async def give_back(self) -> None:
        """Let others have what is held here still, at once."""
        self._turns.steps.close()
        if self._turns.tenures is not None:
            await self._turns.tenures.end()

    async def close(self) -> None:
        if self._turns.tenures is not None:
            await self._turns.tenures.close()

    @property
    def guid(self) -> str:
        """Of the member, which is told of the ends of jobs that it waits for."""
        return self._member.options.guid

    # -- hosting -----------------------------------------------------------------------------------------

    async def host(
        self, queue: str, functions: Mapping[str, HostedFunction], most: int | None, most_steps: int | None
    ) -> None:
        """Run these functions, by name, for a queue. Raises ConfigError for one that is hosted already.

        `most`: their turns, `most_steps`: steps of all workflows of the queue at once; None: as many as the instance runs.
        """
        for name in functions:
            if (queue, name) in self._turns.hosted:
                raise ConfigError(f"workflow {name} of queue {queue} is hosted by this instance already")
        await self._begin()
        if most_steps is not None:
            self._turns.steps.limit(queue, most_steps)
        for name, function in functions.items():
            self._turns.hosted[queue, name] = function
            self._member.add_worker(Worker(queue, _take_turn, workflow_name=name, max_concurrency=most))

    async def host_activities(
        self, queue: str, functions: Mapping[str, ActivityCall], most: int, grace: float
    ) -> None:
        """Run these activities, by name, for a queue: `most` at once, all together. Raises ConfigError as `host` does.

        `grace`: seconds after which those fail that wait there, and that nobody has.
        """
        await self.prepare()
        topic = activity_topic(queue)
        for name in functions:
            if self._member.workers.serves(topic, name):
                raise ConfigError(f"activity {name} of queue {queue} is run by this instance already")
        activities = self._turns.activities
        await activities.tokens.begin(self._member.database)
        activities.note = self._member.workers.note_heartbeat
        share, threads = Share(most, activities), activities.threads(most)
        for name, function in functions.items():
            callback = activities.callback(function, threads)
            worker = ActivityWorker(
                topic, callback, workflow_name=name, max_concurrency=most, share=share, in_thread=function.in_thread
            )  # fmt: skip
            self._member.add_worker(worker)
        self._unknown.serve(topic, list(functions), grace, self._tasks)

    async def leave(
        self,
        queue: str,
        workflows: Collection[str],
        activities: Collection[str],
        most_steps: int | None,
        grace: float | None,
    ) -> None:
        """Run these functions no more: let what runs finish, for `grace` seconds at most, and others have the rest.

        `most_steps`: as it was said to `host`.
        """
        patience = self._member.options.settings.grace if grace is None else grace
        topic, turns = activity_topic(queue), self._turns
        self._unknown.leave(topic, activities)
        leave(turns, queue, workflows)
        async with anyio.create_task_group() as leaving:
            leaving.start_soon(self._member.workers.retire, topic, activities, patience)
            leaving.start_soon(self._member.workers.retire, queue, workflows, patience)
            with anyio.move_on_after(patience):
                while turns.steps.of(queue, workflows):  # noqa: ASYNC110 - they may end in many ways
                    await anyio.sleep(0.01)
        for generation, job_id in turns.steps.of(queue, workflows).items():
            turns.gone(generation)
            turns.wake(job_id, generation)  # it is recorded that nobody has it
        if most_steps is not None and workflows:
            turns.steps.limit(queue, -most_steps)

    async def _begin(self) -> None:
        async with self._lock:
            if self._turns.tenures is not None or self._tasks is None:
                return
            await self.prepare()
            tenures = Tenures(
                self._member.database,
                self._member.options.guid,
                self._member.options.settings.lease,
                self._turns.drop_all,
                self._turns.known,
                self._turns.wake,
                lambda: self._turns.steps.generations,
                self._turns.gone,
                self._limits,
            )
            await tenures.begin(self._tasks)
            self._turns.tenures = tenures

    # -- what clients ask --------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """The app has to be there, with or without a version."""
        if not self._marked:
            await durable.mark_app(self._member.database)
            await self._member.plans.refresh()
            self._marked = True

    async def start(self, request: StartRequest) -> Job:
        """Create a job; returns once it is durable. Raises DuplicateJobError, ConnectionLostError."""
        if not self._marked:
            await self.prepare()
        if (request.queue, request.topic) not in self._turns.hosted:
            self._warn(request)
        try:
            return await self._engine.start(request)
        except BaseException:
            self._turns.forget(request.generation)
            raise

    def _warn(self, request: StartRequest) -> None:
        """Say so, once, if this process serves the queue, and not this function: mostly it was forgotten, or misspelt."""
        here = sorted(name for queue, name in self._turns.hosted if queue == request.queue)
        if here and (request.queue, request.topic) not in self._missed:
            self._missed.add((request.queue, request.topic))
            near = nearest(request.topic, here)
            logger.warning(
                "workflow %s is started on queue %s, and the workers of it in this process have only %s%s; it waits until a "
                "worker has it: workflows=[...]",
                request.topic,
                request.queue,
                ", ".join(here),
                f" (is {near} meant?)" if near else "",
                extra={"event": "workflow-unknown", "job_id": request.job_id},
            )

    def is_here(self, generation: str) -> bool:
        """Whether the job goes on in this process, so that its end is heard of here."""
        return self._turns.known(generation)

    async def load(self, job_id: str) -> Job | None:
        """A job of any kind, as it is now."""
        return await loading.load_job(self._member.database, job_id)

    async def set_aside(self, job_id: str, *, failed_only: bool) -> bool:
        """Let the id of a job that has ended be free; whether there was such a one. It is kept as `id~run`."""
        return await durable.set_aside(self._member.database, job_id, failed_only=failed_only)

    async def send(self, kind: str, job_id: str, generation: str | None, name: str, data: Json) -> str:
        """Send a `signal` of this name to a job, or have it `cancel`, `pause` or `resume`; `sent`, `duplicate`, `missing` or `closed`."""
        # To ask twice to end is to ask once; the others each count, in their order.
        message = kind if kind == "cancel" else f"{kind}:{ids.guid()}"
        text = self._member.database.payload.dumps(data)
        return await self._member.outbox.send(
            MessageCall(kind, job_id, message, data, text, generation, name)
        )

    async def signal(self, signal_id: str, data: Json, keep: float) -> None:
        """Send a signal to an id, whoever waits for it; for one to come it is kept for so many seconds."""
        if not self._marked:
            await self.prepare()
        text = self._member.database.payload.dumps(data)
        await self._member.outbox.send(SignalCall(BY_ID, [signal_id], data, text, "success", 200, keep))

    async def work_items(self, *filters: object) -> list[EscalationRow]:
        """Work items, as `escalations.found` takes the filters."""
        return await escalations.found(self._member.database, *filters)

    async def settle_work_item(
        self, item_id: str, status: str, payload: Json
    ) -> tuple[str, EscalationRow | None]:
        """Have a work item be `resolved`, with this payload, or `cancelled`; what became of it, and its row."""
        outcome, row = await escalations.settle(self._member.database, item_id, status, payload, KEEP, EVENTS)
        if outcome == "ok" and row is not None and self._member.events is not None:
            self._member.events.escalations([row])
        return outcome, row

    async def by_token(self, text: str) -> tuple[Database, Token]:
        """The attempt that a token is for, and where it is. Raises ConfigError for what is no token."""
        tokens = self._turns.activities.tokens
        await tokens.begin(self._member.database)
        return self._member.database, tokens.read(text)

    async def interrupt(self, job_id: str, generation: str, options: dict[str, Any]) -> str | None:
        """End a job from outside. Raises JobNotFoundError, JobCompletedError."""
        return await self._member.messages.interrupt(job_id, options, suppress=False, generation=generation)


def kept_id(job_id: str, generation: str) -> str:
    """Under which id a run is kept whose id another one has taken: see set_aside_job."""
    return f"{job_id[:470]}~{generation}"


async def _take_turn(message: StreamData) -> dict[str, Any]:
    """A turn row is held: the engine takes the turn, and answers the row by it."""
    return {}
