"""From options to a member that runs: where it connects, what it finds there, and which workers are served elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Generator
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Final, Generic, NoReturn, TypeVar

import anyio
import anyio.to_thread

from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.logins.credentials import login_of
from hotmesh.postgres.logins.login import WorkerLogin, find_login
from hotmesh.postgres.migrate import migrate, verify
from hotmesh.runtime.limits import DEFAULT_LIMITS, MemberLimits
from hotmesh.runtime.member import Member
from hotmesh.runtime.members.outposts import Outposts, OutpostSpec, assign_workers, leading_worker
from hotmesh.runtime.options import Options
from hotmesh.runtime.registry import PROCESS, Stoppable
from hotmesh.runtime.telemetry.logs import logging_as

logger = logging.getLogger("hotmesh")

CONNECTIONS: Final = 9
"""Connections that a member has at most: one that listens, two that commit, one each for the stream, for jobs to be
loaded, for claims, for answers, for calls, and for an activation. See `docs/connections.md`."""


async def start_instance(options: Options, limits: MemberLimits = DEFAULT_LIMITS) -> Member:
    """The member that an instance is, with its outposts.

    Raises ConfigError, ConnectionFailedError, SchemaError, NotAuthorizedError; nothing is left then.
    """
    options = _led(options)
    source = await _find_source(options)
    own, specs = assign_workers(options.workers, source, options.task_queue)
    outposts = Outposts(specs, partial(_start_outpost, options, limits), options.guid)
    member = await _start(replace(options, workers=tuple(own)), source, outposts, limits)
    PROCESS.live.add(member.lifetime)
    return member


def _led(options: Options) -> Options:
    """With the connection of its first worker, if it has to have one and was given none."""
    given = options.connection is not None or options.direct_connection is not None
    if options.engine or options.worker_credentials is not None:
        return options
    first = leading_worker(options.workers, connected=given)
    if first is None:
        return options
    credentials = first.worker_credentials
    return replace(
        options,
        connection=first.connection if options.connection is None else options.connection,
        worker_credentials=credentials,
        task_queue=options.task_queue or first.task_queue,
        secured=options.secured if credentials is None else True,
    )


async def _find_source(options: Options) -> ConnectionSource:
    source = await anyio.to_thread.run_sync(
        lambda: ConnectionSource.find(
            options.connection,
            direct=options.direct_connection,
            application_name=options.name or f"hotmesh {options.app_id}",
        )
    )
    credentials = options.worker_credentials
    return source if credentials is None else source.logged_in(*login_of(credentials))


async def _start_outpost(options: Options, limits: MemberLimits, spec: OutpostSpec, guid: str) -> Member:
    """A member for the workers of a spec; everything else is as its instance has it."""
    # It runs no DDL: the tables are those of its instance, or it leads elsewhere.
    own = replace(
        options,
        guid=guid,
        settings=replace(options.settings, retention=None),
        workers=tuple(spec.workers),
        task_queue=spec.task_queue,
        secured=True if spec.secured else None,
        engine=False,
        readonly=False,
        migrate="verify",
        events=None,
        metrics=None,
    )
    return await _start(own, spec.source, Outposts((), partial(_start_outpost, own, limits), guid), limits)


async def _start(
    options: Options, source: ConnectionSource, outposts: Outposts[Member], limits: MemberLimits
) -> Member:
    """One member."""
    source.check_room(CONNECTIONS)
    await source.check_sessions()
    at = source.key, options.namespace, options.app_id, options.guid
    PROCESS.take_guid(*at)
    member: Member | None = None
    try:
        login, created = await _look_around(options, source)
        if login is not None:
            options = options.within(login)
        member = Member(options, source, login, outposts, limits)
        for worker in options.workers:
            member.workers.add(worker)
        if login is None:
            await member.plans.refresh()
        await member.lifetime.start()
    except BaseException:
        PROCESS.free_guid(*at)
        if member is not None:
            with anyio.CancelScope(shield=True):
                await member.lifetime.abandon()
        raise
    if member.events is not None:
        if created:
            member.events.engine("deployed")
        member.events.engine("started")
    with logging_as(options.log_context):
        logger.info("started")
    return member


async def _look_around(options: Options, source: ConnectionSource) -> tuple[WorkerLogin | None, bool]:
    """The worker login that this connection has, if it has one; else the tables are there, and whether they are new."""
    if not options.engine and options.secured is not False:
        login = await find_login(source, options.namespace, required=bool(options.secured))
        if login is not None:
            return login, False
    if options.migrate == "verify":
        await verify(source, options.namespace)
        return None, False
    return None, bool((await migrate(source, options.namespace)).migrations)


Started = TypeVar("Started", bound=Stoppable)


class Starting(Awaitable[Started], Generic[Started]):
    """What `HotMesh.init` returns: await it, or use it as `async with HotMesh.init(…) as mesh`."""

    def __init__(self, begin: Callable[[], Awaitable[Started]]) -> None:
        self._begin = begin
        self._started: Started | None = None

    def __await__(self) -> Generator[Any, None, Started]:
        return self._begin().__await__()

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"await HotMesh.init(…), or use it as `async with HotMesh.init(…) as mesh`, before calling {name}"
        )

    async def __aenter__(self) -> Started:
        self._started = await self._begin()
        return self._started

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started is not None:
            await self._started.stop()
