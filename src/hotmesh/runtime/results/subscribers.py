"""The subscribers of this process: who wants which topics, and the tasks that call them.

A subscription is a callback here, and a row (`mesh.subscription`) that tells engines elsewhere where to send what they
announce. Rows are leases: renewed while this process lives, written again as soon as it is connected again, and
removed by whoever subscribes next once their process is long gone.

Each subscription has a queue and calls one callback at a time, in order. A slow one delays itself alone. Each call is apart from
ours and from the others (`runtime/apart`): in a task and a context of its own, a plain function in a thread.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Final

from anyio.abc import TaskGroup

from hotmesh.core.arguments import is_storable
from hotmesh.core.wire import dumps_text, loads
from hotmesh.errors import ConfigError, DatabaseError
from hotmesh.postgres import subscriptions
from hotmesh.postgres.database import Database
from hotmesh.runtime.apart import call_apart
from hotmesh.runtime.results.output import JobOutput
from hotmesh.runtime.service import Flag
from hotmesh.runtime.threads import Threads
from hotmesh.runtime.tracebacks import loggable

logger = logging.getLogger("hotmesh.results")

Subscriber = Callable[[str, JobOutput], Awaitable[None] | None]

LONGEST_TOPIC: Final = 1_024
"""Bytes of a topic or pattern; it is part of an index."""


@dataclass(frozen=True, slots=True)
class SubscriberLimits:
    """Times in seconds."""

    lease: float = 60.0
    """For which a subscription holds for other processes without a sign of life."""
    lease_retry: float = 2.0
    """After which a renewal that failed is tried again."""
    waiting: int = 10_000
    """Messages that wait for a slow subscriber; of more, the oldest are dropped."""
    jobs: int = 10_000
    """Jobs of which it is remembered how far their subscribers have been told."""
    threads: int = 40
    """Plain functions of subscribers that run at once in an instance."""


class Subscription:
    """One callback on one topic or pattern, with the messages that wait for it."""

    __slots__ = ("active", "callback", "calling", "dropping", "matches", "queue", "topic")

    def __init__(self, topic: str, callback: Subscriber, *, pattern: bool) -> None:
        self.topic = topic
        self.callback = callback
        self.matches: re.Pattern[str] | None = matcher(topic) if pattern else None
        self.queue: deque[tuple[str, dict[str, Any], str]] = deque()
        """Topic, metadata, and data as JSON: each subscriber gets data of its own."""
        self.active = True
        self.calling = False
        self.dropping = False


class Subscribers:
    """All subscriptions of an instance. `run` keeps their rows alive."""

    def __init__(self, database: Database, member: str, limits: SubscriberLimits, cleaning_up: float) -> None:
        """`cleaning_up`: seconds that a callback may take when it was cancelled."""
        self._database = database
        self._member = member
        self._limits = limits
        self._cleaning_up = cleaning_up
        self._exact: dict[str, list[Subscription]] = {}
        self._patterns: dict[str, list[Subscription]] = {}
        self._told: OrderedDict[str, int] = OrderedDict()
        """Generation → the version of the job that its subscribers here have been told last."""
        self._renew = Flag()
        self._tasks: TaskGroup | None = None
        self._threads = Threads(limits.threads, "subscriber")
        self._idle = Flag()

    def __bool__(self) -> bool:
        return bool(self._exact or self._patterns)

    # -- coming and going --------------------------------------------------------------------------------

    async def add(self, topic: str, callback: Subscriber, *, pattern: bool = False) -> None:
        """Subscribe; once this has returned, nothing that any process announces is missed."""
        _check(topic, callback)
        subscription = Subscription(topic, callback, pattern=pattern)
        group = self._patterns if pattern else self._exact
        group.setdefault(topic, []).append(subscription)
        try:
            await subscriptions.subscribe(
                self._database, self._member, [(topic, pattern)], self._limits.lease
            )
        except BaseException:
            self._drop(group, subscription)
            raise

    async def remove(self, topic: str, callback: Subscriber | None, *, pattern: bool = False) -> None:
        """End the subscriptions of a callback, or all of the topic; a call that is under way ends by itself."""
        group = self._patterns if pattern else self._exact
        for subscription in list(group.get(topic, ())):
            # Not by identity: each look at a method makes another object of it.
            if callback is None or subscription.callback == callback:
                self._drop(group, subscription)
        if topic not in group:
            await subscriptions.unsubscribe(self._database, self._member, [(topic, pattern)])

    def _drop(self, group: dict[str, list[Subscription]], subscription: Subscription) -> None:
        subscription.active = False
        subscription.queue.clear()
        found = group.get(subscription.topic, [])
        if subscription in found:
            found.remove(subscription)
        if not found:
            group.pop(subscription.topic, None)

    def _all(self) -> Iterator[Subscription]:
        for group in (self._exact, self._patterns):
            for found in group.values():
                yield from found

    def _wanting(self, topic: str, job_id: str) -> list[Subscription]:
        whole = f"{topic}.{job_id}"
        wanted = [*self._exact.get(topic, ()), *self._exact.get(whole, ())]
        for found in self._patterns.values():
            if found[0].matches is not None and (
                found[0].matches.match(topic) or found[0].matches.match(whole)
            ):
                wanted += found
        return wanted

    # -- telling -----------------------------------------------------------------------------------------

    def publish(
        self,
        topic: str,
        seq: int,
        metadata: dict[str, Any],
        data: dict[str, Any],
        *,
        upto: int | None = None,
    ) -> None:
        """Tell those who want it the state of a job at its version `seq`, unless they know a later one.

        `upto`: the state is that of this later version; what was announced of those between has nothing to add.
        """
        wanted = self._wanting(topic, metadata["jid"])
        if not wanted:
            return
        generation = metadata["gid"]
        if seq < self._told.get(generation, 0):
            # Announced by another process, and overtaken on the way.
            logger.debug("older state not told", extra={"job_id": metadata["jid"], "topic": topic})
            return
        self._told[generation] = seq if upto is None or upto <= seq else upto + 1
        self._told.move_to_end(generation)
        if len(self._told) > self._limits.jobs:
            self._told.popitem(last=False)
        text = dumps_text(data)
        for subscription in wanted:
            self._queue(subscription, topic, metadata, text)

    def _queue(self, subscription: Subscription, topic: str, metadata: dict[str, Any], text: str) -> None:
        queue = subscription.queue
        queue.append((topic, metadata, text))
        if len(queue) > self._limits.waiting:
            queue.popleft()
            if not subscription.dropping:
                subscription.dropping = True
                logger.warning(
                    "subscriber too slow, messages dropped",
                    extra={"topic": subscription.topic, "waiting": self._limits.waiting},
                )
        if not subscription.calling and self._tasks is not None:
            subscription.calling = True
            self._tasks.start_soon(self._call, subscription, name=f"subscriber {subscription.topic}")

    async def _call(self, subscription: Subscription) -> None:
        """Call the callback for all that waits; the task ends when nothing does."""
        try:
            while subscription.queue and subscription.active:
                await self._tell(subscription)
                subscription.dropping = False
        finally:
            subscription.calling = False
            self._idle.set()

    async def _tell(self, subscription: Subscription) -> None:
        what = f"the subscriber of {subscription.topic}"
        if inspect.iscoroutinefunction(subscription.callback):
            topic, metadata, text = subscription.queue.popleft()
            output = JobOutput(dict(metadata), loads(text))
            error = await call_apart(
                subscription.callback, topic, output, what=what, cleaning_up=self._cleaning_up
            )
            if error is not None:
                _raised(topic, error)
            return
        told = _ToldInThread(subscription, asyncio.get_running_loop(), what, self._cleaning_up)
        error = await call_apart(told.tell, what=what, cleaning_up=self._cleaning_up, threads=self._threads)
        if error is not None:
            _raised(subscription.topic, error)

    # -- lifetime ----------------------------------------------------------------------------------------

    async def run(self, tasks: TaskGroup) -> None:
        """Start to renew; from now on, callbacks are called."""
        self._tasks = tasks
        tasks.start_soon(self._keep, name="keep subscriptions")

    def connected(self) -> None:
        """The listening connection is there (again): rows may have lapsed meanwhile."""
        self._renew.set()

    async def _keep(self) -> None:
        pause = self._limits.lease / 3
        while True:
            await self._renew.wait(pause)
            self._renew.clear()
            pause = self._limits.lease / 3
            topics = [(topic, False) for topic in self._exact] + [(topic, True) for topic in self._patterns]
            if not topics:
                continue
            try:
                await subscriptions.subscribe(self._database, self._member, topics, self._limits.lease)
            except Exception as error:  # noqa: BLE001 - nothing may end this loop
                logger.warning("subscriptions could not be renewed", extra={"error": str(error)})
                pause = self._limits.lease_retry

    async def drain(self) -> None:
        """Let other processes send no more, and wait until everything that came has been told."""
        if self:
            try:
                await subscriptions.unsubscribe(self._database, self._member, None)
            except DatabaseError as error:
                # They lapse.
                logger.warning("subscriptions could not be removed", extra={"error": str(error)})
        while any(one.calling for one in self._all()):
            self._idle.clear()
            await self._idle.wait()

    def close(self) -> None:
        """Call nobody any more, not even from a thread that is still at it."""
        for subscription in self._all():
            subscription.active = False
        self._exact.clear()
        self._patterns.clear()
        self._threads.close()


def matcher(pattern: str) -> re.Pattern[str]:
    """A pattern of topics: `*` is any run of characters, dots and none at all included."""
    return re.compile(".*".join(map(re.escape, pattern.split("*"))) + r"\Z", re.DOTALL)


def _check(topic: str, callback: Subscriber) -> None:
    if not isinstance(topic, str) or not topic or not is_storable(topic):
        raise ConfigError(f"a topic to subscribe to must be a non-empty text without NUL, not {topic!r}")
    if len(topic.encode("utf-8", "replace")) > LONGEST_TOPIC:
        raise ConfigError(f"a topic to subscribe to may have {LONGEST_TOPIC:,} bytes: {topic[:80]}…")
    if not callable(callback):
        raise ConfigError(f"the subscriber of {topic} is not callable: {callback!r}")


class _ToldInThread:
    """A plain function, told in a thread all that waits by then, so that a busy topic does not change threads for each message."""

    def __init__(
        self, subscription: Subscription, loop: asyncio.AbstractEventLoop, what: str, cleaning_up: float
    ) -> None:
        self._subscription = subscription
        self._loop = loop
        self._what = what
        self._cleaning_up = cleaning_up

    def tell(self) -> None:
        """In the thread."""
        subscription = self._subscription
        while subscription.queue and subscription.active:
            try:
                topic, metadata, text = subscription.queue.popleft()
            except IndexError:
                return  # unsubscribed at this very moment
            try:
                # Of each message its own context, too.
                copy_context().run(self._call, topic, JobOutput(dict(metadata), loads(text)))
            except BaseException as error:  # noqa: BLE001 - the users' code may raise anything, `SystemExit` too
                _raised(topic, error)

    def _call(self, topic: str, output: JobOutput) -> None:
        result = self._subscription.callback(topic, output)
        if result is not None and inspect.isawaitable(result):
            waits = call_apart(_awaited, result, what=self._what, cleaning_up=self._cleaning_up)
            error = asyncio.run_coroutine_threadsafe(waits, self._loop).result()
            if error is not None:
                _raised(topic, error)


async def _awaited(found: Awaitable[None]) -> None:
    await found


def _raised(topic: str, error: BaseException) -> None:
    """A subscriber that raises harms nobody but itself."""
    logger.error("subscriber raised", extra={"topic": topic}, exc_info=loggable(error))
