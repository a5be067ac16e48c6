"""The lifetime of one member: a task of its own, started once, watched by whoever depends on it, and stopped once.

start    the services begin, in a task that is nobody's child; what goes wrong is raised to whoever starts
serve    until `stop`, or until a service fails, which ends them all
drain    no more is taken, and what runs may finish
end      connections are closed; who still waits is told that this member has stopped
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from hotmesh.core.duration import Duration, seconds
from hotmesh.errors import ConnectionLostError, InstanceFailedError
from hotmesh.postgres.connect.belonging import Home
from hotmesh.runtime import outage
from hotmesh.runtime.registry import PROCESS
from hotmesh.runtime.telemetry.logs import LogContext, log_as, logging_as

logger = logging.getLogger("hotmesh")


class Services(Protocol):
    """What is alive meanwhile."""

    async def begin(self, tasks: TaskGroup) -> None:
        """Start everything, each after what it depends on; return once all of it is ready."""

    async def drain(self, grace: float) -> None:
        """Take nothing more, and let what runs finish for `grace` seconds."""

    async def end(self) -> None:
        """Leave nobody waiting, and close what is open. Whatever happened before."""

    async def close(self) -> None:
        """Close what is open already when nothing has begun."""


class Lifetime:
    """Runs the services of one member from `start` to `stop`."""

    def __init__(self, services: Services, log_context: LogContext, grace: float) -> None:
        self._services = services
        self._log_context = log_context
        self._grace = grace
        self._started: asyncio.Future[None] | None = None
        self._stop_requested = anyio.Event()
        self.runner: asyncio.Task[None] | None = None
        """The task in which the services run."""
        self.home: Home | None = None
        """The event loop it was started in: nothing may be asked of it from another."""
        self.ended = False
        """Nothing can be asked of it any more."""
        self.failure: BaseException | None = None
        """What has ended it, if that was not `stop`."""

    @property
    def stopped(self) -> bool:
        """Whether `stop` has been called, or a failure has ended this instance."""
        return self.ended or self.runner is None

    async def start(self) -> None:
        """Run the services in a task that belongs to this instance; `stop` ends it."""
        self.home = Home()
        loop = self.home.loop
        self._started = loop.create_future()
        name = f"hotmesh {self._log_context.app_id} {self._log_context.guid}"
        self.runner = loop.create_task(self._serve(), name=name)
        try:
            await self._started
        except asyncio.CancelledError:
            self.runner.cancel()
            await asyncio.wait([self.runner])
            raise

    async def abandon(self) -> None:
        """The start failed, or was cancelled: leave nothing of it."""
        runner, self.runner = self.runner, None
        if runner is None:
            await self._services.close()
        else:
            if not self.ended:  # else it closes everything by itself, and must not be disturbed
                runner.cancel()
            await asyncio.wait([runner])

    async def stop(self, grace: Duration | None = None) -> None:
        """Stop taking work, let running callbacks finish (at most `grace`), give back the rest, disconnect.

        Idempotent. Other instances are not affected. Raises ConfigError if it belongs to another event loop.
        """
        runner = self.runner
        if runner is None or runner.done():
            PROCESS.live.discard(self)
            return
        if self.home is not None:
            self.home.check()
        if grace is not None:
            self._grace = seconds(grace, name="grace")
        self._stop_requested.set()
        PROCESS.live.discard(self)
        await asyncio.wait([runner])
        with logging_as(self._log_context):
            if not runner.cancelled() and runner.exception() is not None:
                logger.error("stopped with an error", exc_info=runner.exception())
            logger.info("stopped")

    async def stop_from_anywhere(self, grace: Duration | None = None) -> None:
        """As `stop`, in the loop that it belongs to. Raises ConfigError if that one does not run and has not ended."""
        if self.home is None or self.home.loop is asyncio.get_running_loop():
            await self.stop(grace)
        elif self.home.loop.is_closed():
            PROCESS.live.discard(self)
        elif self.home.loop.is_running():
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self.stop(grace), self.home.loop))
        else:
            raise self.home.refusal()

    async def closed(self) -> None:
        """Wait for the end of this member, whoever brings it about. Raises InstanceFailedError if that is not `stop`."""
        if self.runner is not None:
            await asyncio.wait([self.runner])
        if self.failure is not None:
            app_id, guid = self._log_context.app_id, self._log_context.guid
            raise InstanceFailedError(app_id, guid, self.failure) from self.failure

    async def watch(self) -> None:
        """Wait for the end of this outpost, and raise the failure that has ended it: its instance fails, too."""
        if self.runner is not None:
            await asyncio.wait([self.runner])
        if self.failure is not None:
            raise self.over("work of an outpost")

    def over(self, what: str) -> ConnectionLostError:
        """The error for whoever wants something of a member that has ended."""
        error = ConnectionLostError(
            f"{what} cannot be served: this instance of app {self._log_context.app_id} has stopped"
        )
        error.__cause__ = self.failure
        return error

    def check(self, what: str) -> None:
        """Raise that error if the member has ended."""
        if self.ended:
            raise self.over(what)

    async def _serve(self) -> None:
        log_as(self._log_context)
        outage.begin()
        try:
            async with anyio.create_task_group() as tasks:
                await self._services.begin(tasks)
                if self._started is not None and not self._started.done():
                    self._started.set_result(None)
                await self._stop_requested.wait()
                await self._services.drain(self._grace)
                tasks.cancel_scope.cancel()
        except BaseException as error:
            if self._started is not None and not self._started.done():
                self._started.set_exception(_only(error))
                return
            if self._started is not None and self._started.cancelled():
                raise  # whoever started it has gone
            self.failure = _only(error)
            member = {"app_id": self._log_context.app_id, "guid": self._log_context.guid}
            if isinstance(self.failure, asyncio.CancelledError):
                # As `asyncio.run` does at the end to what is left of a program.
                logger.warning("instance cancelled, nobody has stopped it", extra=member)
            else:
                logger.critical("instance failed", extra=member, exc_info=error)
            raise
        finally:
            self.ended = True
            await self._services.end()


def _only(error: BaseException) -> BaseException:
    """The one error inside nested groups of one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
