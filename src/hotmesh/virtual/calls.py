"""Calls and schedules as jobs of one app: remembered results, single flight, and beginning again."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any, Final

import anyio

from hotmesh.core.schedule import Rhythm
from hotmesh.errors import (
    DuplicateJobError,
    JobCompletedError,
    JobError,
    JobNotFoundError,
    JobTimeoutError,
)
from hotmesh.mesh import HotMesh
from hotmesh.runtime.results.output import JobOutput

logger = logging.getLogger("hotmesh.virtual")

KEPT: Final = 1.0
"""Seconds that a result is kept if the call does not say."""


GIVE_WAY: Final = 5.0
"""Seconds within which an engine ends a schedule that is changed."""

_WAY: Final = ("cron", "interval", "max_cycles", "on_error")
"""What says how a schedule runs."""


class Calls:
    """What the static methods do, on one instance."""

    def __init__(self, mesh: HotMesh) -> None:
        self._mesh = mesh
        self._call = f"{mesh.app_id}.call"
        self._cron = f"{mesh.app_id}.cron"

    # -- calls -------------------------------------------------------------------------------------------

    async def call(self, topic: str, args: Sequence[Any], *, kept: float, timeout: float) -> Any:
        """Call a function once more, whatever was called before."""
        return await self._run(self._mesh.guid(), topic, args, kept, timeout)

    async def call_once(
        self, call_id: str, topic: str, args: Sequence[Any], *, kept: float, timeout: float
    ) -> Any:
        """What the call of this id returned, if that is still kept; or will return, if it is running; else call.

        A call that failed is not kept: it is made again. Raises DuplicateJobError if the id belongs to something else.
        """
        deadline = anyio.current_time() + timeout
        while True:
            found = await self._state(call_id)
            left = max(deadline - anyio.current_time(), 0.0)
            if found is None:
                try:
                    return await self._run(call_id, topic, args, kept, left)
                except DuplicateJobError:
                    # Somebody was faster.
                    continue
            self._check(found, self._call, topic)
            if _runs(found):
                found = await self._ended(found, left)
                if found is not None:
                    return _response(found)
            elif "err" in found.metadata:
                await self._mesh.forget(call_id, found.metadata["gid"])
            else:
                return _response(found)

    async def flush(self, call_id: str, topic: str) -> None:
        """Forget what the call of this id returned; if it is running, its answer will not count."""
        found = await self._state(call_id)
        if found is not None:
            self._check(found, self._call, topic)
            await self._mesh.scrub(call_id)

    async def _run(self, call_id: str, topic: str, args: Sequence[Any], kept: float, timeout: float) -> Any:
        payload = {"id": call_id, "topic": topic, "args": list(args), "expire": kept}
        return (await self._mesh.pubsub(self._call, payload, timeout=timeout)).data["response"]

    async def _ended(self, running: JobOutput, timeout: float) -> JobOutput | None:
        """A call that somebody else has made, once it has ended; None if it has been flushed. Raises JobTimeoutError."""
        metadata = running.metadata
        delay = FIRST_LOOK
        try:
            with anyio.fail_after(timeout):
                while True:
                    await anyio.sleep(delay)
                    delay = min(delay * 2, LAST_LOOK)
                    found = await self._state(metadata["jid"])
                    if found is None or found.metadata["gid"] != metadata["gid"]:
                        return None
                    if not _runs(found):
                        return found
        except TimeoutError:
            raise JobTimeoutError(metadata["jid"], topic=metadata["tpc"], seconds=timeout) from None

    # -- schedules ---------------------------------------------------------------------------------------

    async def start(
        self,
        schedule_id: str,
        topic: str,
        args: Sequence[Any],
        rhythm: Rhythm,
        *,
        max_cycles: int,
        on_error: str,
    ) -> bool:
        """Start a schedule; False if it is running as it is asked for. One that has ended begins again, and counts from 1.

        One that runs in another way is ended and started anew, an interval (or a tick) from now: it is not to run twice
        because somebody has asked.
        """
        payload = {
            "id": schedule_id,
            "topic": topic,
            "args": list(args),
            "cron": rhythm.cron,
            "interval": rhythm.interval,
            "first": rhythm.first,
            "max_cycles": max_cycles,
            "on_error": on_error,
        }
        while True:
            try:
                await self._mesh.pub(self._cron, payload)
                return True
            except DuplicateJobError:
                found = await self._state(schedule_id)
            if found is None:
                continue
            self._check(found, self._cron, topic)
            if _runs(found):
                if not await self._gives_way(found, payload):
                    return False
                if rhythm.interval is not None:
                    payload["first"] = rhythm.first or rhythm.interval
                continue
            await self._mesh.forget(schedule_id, found.metadata["gid"])

    async def _gives_way(self, running: JobOutput, wanted: dict[str, Any]) -> bool:
        """End a schedule that runs in another way than it is asked for; False if it runs so, or could not be ended."""
        before = {name: running.data.get(name) for name in _WAY}
        after = {name: wanted[name] for name in _WAY}
        facts = {"schedule_id": wanted["id"], "topic": wanted["topic"]}
        if before == after:
            if running.data.get("args") != wanted["args"]:
                logger.warning("schedule keeps its arguments", extra=facts)
            return False
        job_id = running.metadata["jid"]
        try:
            await self._mesh.interrupt(self._cron, job_id, reason="the schedule was changed")
            await self._ended(running, GIVE_WAY)
        except (JobNotFoundError, JobCompletedError):
            pass
        except JobTimeoutError:
            logger.warning("schedule not changed, no engine has ended it", extra=facts)
            return False
        logger.info("schedule changed", extra={**facts, "before": before, "after": after})
        return True

    async def interrupt(self, schedule_id: str, topic: str) -> bool:
        """End a schedule; False if none of this id was running."""
        found = await self._state(schedule_id)
        if found is None or not _runs(found):
            return False
        self._check(found, self._cron, topic)
        try:
            await self._mesh.interrupt(self._cron, schedule_id, reason="the schedule was stopped")
        except (JobNotFoundError, JobCompletedError):
            return False
        return True

    # -- jobs --------------------------------------------------------------------------------------------

    async def _state(self, job_id: str) -> JobOutput | None:
        try:
            return await self._mesh.get_state(self._call, job_id)
        except JobNotFoundError:
            return None

    def _check(self, found: JobOutput, graph: str, topic: str) -> None:
        """Raise DuplicateJobError if the id belongs to another topic, or to a schedule instead of a call."""
        metadata = found.metadata
        if (metadata["tpc"], metadata.get("key")) != (graph, topic):
            raise DuplicateJobError(metadata["jid"])


FIRST_LOOK: Final = 0.005
LAST_LOOK: Final = 0.2
"""Seconds between two looks at a call that another process has made."""


def _runs(found: JobOutput) -> bool:
    return bool(found.metadata["js"] > 0)


def _response(found: JobOutput) -> Any:
    """What a call has returned. Raises JobError with what it failed with."""
    error = found.metadata.get("err")
    if error is not None:
        raise JobError(json.loads(error), found.metadata["jid"])
    return found.data.get("response")
