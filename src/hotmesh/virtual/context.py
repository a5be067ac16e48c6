"""What a callback can learn about the call that it serves."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from hotmesh.errors import HotMeshError
from hotmesh.runtime.messages import StreamData


@dataclass(frozen=True, slots=True)
class VirtualContext:
    """The call or the run that a callback is serving.

    `workflow_id`: the id of the call or schedule. `workflow_name`: `hmsh.call` or `hmsh.cron`. `dimension`: which pass
    of a schedule, as an address. `attempt`: 1, and one more for each retry. `guid`: the same at every attempt, so
    that side effects can be made idempotent. `trace_id` and `span_id` are empty outside of a trace.
    """

    topic: str
    workflow_id: str
    workflow_name: str
    dimension: str
    attempt: int
    guid: str
    trace_id: str
    span_id: str


logger = logging.getLogger("hotmesh.virtual")

_current: ContextVar[VirtualContext] = ContextVar("hotmesh_virtual_context")


def current() -> VirtualContext:
    """The context of the callback that is running. Raises HotMeshError outside of one."""
    try:
        return _current.get()
    except LookupError:
        raise HotMeshError(
            "Virtual.getContext() called outside of a Virtual callback execution context"
        ) from None


@contextmanager
def told(message: StreamData) -> Iterator[None]:
    """For the length of the block, which is a run of a schedule: what it means for the schedule is logged."""
    run = message.data.get("run")
    if run is None:
        yield
        return
    facts = {
        "schedule_id": message.metadata["jid"],
        "topic": message.metadata["topic"],
        "run": run,
        "attempt": int(message.metadata.get("try", 0)) + 1,
    }
    try:
        yield
    except Exception as error:
        goes_on = message.data.get("on_error") == "continue" and run < message.data["last"]
        facts["error"] = f"{type(error).__name__}: {error}"
        if goes_on:
            logger.warning("run of a schedule failed, it goes on", extra=facts)
        else:
            logger.warning("run of a schedule failed", extra=facts)
        raise
    if run >= message.data["last"]:
        logger.info("schedule ends, it has had all its runs", extra=facts)


@contextmanager
def serving(message: StreamData) -> Iterator[None]:
    """For the length of the block, `current` tells about this message."""
    metadata = message.metadata
    context = VirtualContext(
        topic=metadata["topic"],
        workflow_id=metadata["jid"],
        workflow_name=metadata["wfn"],
        dimension=metadata["dad"],
        attempt=int(metadata.get("try", 0)) + 1,
        guid=metadata["guid"],
        trace_id=metadata.get("trc") or "",
        span_id=metadata.get("spn") or "",
    )
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)
