"""System events: what this process has committed, told to a sink of the user's.

An event is published once, by the process that performed the transition, after its commit. The engine does not wait
for the sink; what the sink raises is logged and harms nothing. Events are not durable: the rows they speak of are, and
a process that dies between its commit and the sink has told nobody.
"""

from __future__ import annotations

import inspect
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup
from msgspec import Struct, to_builtins
from msgspec.structs import asdict, replace

from hotmesh.core.codec import CONCEALED
from hotmesh.core.state.step import Step
from hotmesh.errors import CodecError, ConfigError
from hotmesh.postgres.database import Database
from hotmesh.runtime.apart import call_apart
from hotmesh.runtime.service import Flag
from hotmesh.runtime.threads import Threads
from hotmesh.runtime.tracebacks import loggable

logger = logging.getLogger("hotmesh.events")

QUEUE_LIMIT: Final = 10_000
"""Events that wait for a slow sink; beyond, new ones are dropped, and a warning says how many."""


class SystemEvent(Struct, frozen=True, kw_only=True):
    """One committed transition. `ts` is when it was told, an ISO 8601 text in UTC.

    `type` is `system.engine.<app id>.started`, `.stopped` or `.deployed`, or `system.escalation.<id>.created`,
    `.resolved`, `.expired` or `.cancelled`; `data` of the latter is the whole row. `event_id` is the same for the same
    transition, so that who stores events can tell repetitions.
    """

    event_id: str
    type: str
    ts: str
    namespace: str
    app_id: str
    data: dict[str, Any]
    workflow_id: str | None = None
    topic: str | None = None
    origin_id: str | None = None
    parent_id: str | None = None
    trace_id: str | None = None
    span_id: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The event as plain JSON data, without what it does not have."""
        return {name: value for name, value in asdict(self).items() if value is not None}


EventSink = Callable[[SystemEvent], Any] | Mapping[str, Any] | Any
"""A function, sync or async; an object with a method `publish`; or a dict `{"publish": function}`."""


def publisher(sink: EventSink) -> Callable[[SystemEvent], Any]:
    """The function to call. Raises ConfigError if there is none."""
    found = sink.get("publish") if isinstance(sink, Mapping) else getattr(sink, "publish", sink)
    if not callable(found):
        raise ConfigError(
            "events= takes a function, an object with a method `publish`, or a dict with a function `publish`, "
            f"not {sink!r}"
        )
    return found


class Events:
    """The events of one instance, on their way to its sink. `run` starts what calls it, one event after the other.

    Coroutine functions are called on the event loop, plain ones in a thread, so that one that blocks holds up nothing.
    """

    def __init__(
        self,
        sink: EventSink,
        namespace: str,
        app_id: str,
        guid: str,
        database: Database,
        cleaning_up: float,
    ) -> None:
        """`cleaning_up`: seconds that the sink may take when it was cancelled."""
        self._publish = publisher(sink)
        self._threads = None if _is_asynchronous(self._publish) else Threads(1, "event sink")
        self._namespace = namespace
        self._app_id = app_id
        self._guid = guid
        self._database = database
        self._cleaning_up = cleaning_up
        self._queue: deque[SystemEvent] = deque()
        self._dropped = 0
        self._wake = Flag()
        self._idle = Flag()

    # -- what happened -----------------------------------------------------------------------------------

    def engine(self, verb: str, **data: Any) -> None:
        """The instance itself: `started`, `stopped` or `deployed`."""
        now = _now()
        told = {"appId": self._app_id, **({} if verb == "deployed" else {"guid": self._guid}), **data}
        self.put(
            SystemEvent(
                event_id=f"{self._app_id}:{verb}:{now}",
                type=f"system.engine.{self._app_id}.{verb}",
                ts=now,
                namespace=self._namespace,
                app_id=self._app_id,
                data=told,
            )
        )

    def escalations(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Work items that a commit has written, each as the row it is after that."""
        for row in rows:
            verb = "created" if row["status"] == "pending" else row["status"]
            data = {name: _utc(value) if name in _MOMENTS else value for name, value in row.items()}
            for name in _ENCODED:
                data[name] = self._revealed(data[name])
            self.put(
                SystemEvent(
                    event_id=f"{row['id']}:{verb}:{data['updated_at']}",
                    type=f"system.escalation.{row['id']}.{verb}",
                    ts=_now(),
                    namespace=row["namespace"],
                    app_id=row["app_id"],
                    workflow_id=row["workflow_id"],
                    topic=row["topic"],
                    origin_id=row["origin_id"],
                    parent_id=row["parent_id"],
                    trace_id=row["trace_id"],
                    span_id=row["span_id"],
                    data=data,
                )
            )

    def _revealed(self, value: Any) -> Any:
        """A value that a codec may have written; what this process cannot decode is told as such."""
        try:
            return self._database.payload.reveal(value)
        except CodecError:
            return CONCEALED

    def put(self, event: SystemEvent) -> None:
        """Tell the sink, soon."""
        if len(self._queue) >= QUEUE_LIMIT:
            if not self._dropped:
                logger.warning("events dropped, the sink is too slow", extra={"app_id": self._app_id})
            self._dropped += 1
            return
        self._queue.append(event)
        self._wake.set()

    # -- lifetime ----------------------------------------------------------------------------------------

    async def run(self, tasks: TaskGroup) -> None:
        """Start the loop in the instance's task group."""
        tasks.start_soon(self._loop, name="publish events")

    async def drain(self, grace: float) -> None:
        """Wait until the sink has had everything, at most `grace` seconds; what is left then is dropped."""
        with anyio.move_on_after(grace):
            while self._queue:
                self._idle.clear()
                await self._idle.wait()
        left = len(self._queue) + self._dropped
        if left:
            logger.warning("events not published", extra={"app_id": self._app_id, "count": left})

    async def _loop(self) -> None:
        while True:
            while self._queue:
                await self._tell(self._queue[0])
                self._queue.popleft()
            if self._dropped:
                logger.warning("events were dropped", extra={"app_id": self._app_id, "count": self._dropped})
                self._dropped = 0
            self._idle.set()
            self._wake.clear()
            await self._wake.wait()

    async def _tell(self, event: SystemEvent) -> None:
        own = replace(event, data=to_builtins(event.data))
        # A thread that hangs is left behind when the instance stops.
        error = await call_apart(
            self._publish,
            own,
            what="the event sink",
            cleaning_up=self._cleaning_up,
            threads=self._threads,
        )
        if error is not None:
            logger.error(
                "event sink raised",
                extra={"event_id": event.event_id, "type": event.type},
                exc_info=loggable(error),
            )

    def close(self) -> None:
        """Nobody is told anything any more."""
        if self._threads is not None:
            self._threads.close()


def touched(steps: Sequence[Step]) -> list[str]:
    """The jobs whose work items these steps may write."""
    return [
        change.job.job_id
        for step in steps
        for change in step.jobs
        if change.dropped or step.escalations or step.escalation_ends
    ]


_ENCODED: Final = ("escalation_payload", "resolver_payload", "envelope")

_MOMENTS: Final = frozenset(
    {
        "assigned_until", "claimed_at", "claim_expires_at", "resolved_at", "expires_at", "created_at", "updated_at",
    }
)  # fmt: skip


def _utc(text: str | None) -> str | None:
    """A moment in the one form that events have: ISO 8601 in UTC, with microseconds."""
    if text is None:
        return None
    return datetime.fromisoformat(text).astimezone(UTC).isoformat(timespec="microseconds")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _is_asynchronous(function: Callable[..., Any]) -> bool:
    call = getattr(function, "__call__", None)  # noqa: B004 - an object may be callable by a coroutine function
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)
