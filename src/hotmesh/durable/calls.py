"""What workflow code calls; users know these functions as `workflow.step` and so on.

Operations take their position when they are called, not when they are awaited: they can be awaited later, more than once,
by `gather`, or given up by `.cancel()`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, MutableMapping
from datetime import datetime
from random import Random
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack, overload
from uuid import UUID

from hotmesh.durable.definition import read_activity
from hotmesh.durable.options import StepOptions
from hotmesh.durable.strands import WorkflowInfo, current
from hotmesh.durable.typed import StepKeywords
from hotmesh.replay import Operation, running_strand

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


@overload
def step(
    function: Callable[[Unpack[Ts]], Coroutine[Any, Any, R]],
    /,
    *args: *Ts,
    **options: Unpack[StepKeywords],
) -> Operation[R]: ...
@overload
def step(
    function: Callable[[Unpack[Ts]], R], /, *args: *Ts, **options: Unpack[StepKeywords]
) -> Operation[R]: ...
def step(function: Callable[..., Any], /, *args: Any, **options: Any) -> Operation[Any]:  # type: ignore[misc]
    """Run a function in this process, once, and record what it returns. Options: `StepOptions`.

    receipt = await workflow.step(charge, order_id, amount, retry=RetryPolicy(maximum_attempts=3))

    It may be async or not; one that is not runs in a thread. It runs after what the workflow has asked for so far is committed;
    if the process dies meanwhile, another one runs it again, with the same `activity.get_context().idempotency_key`.
    Raises ActivityError when it is awaited, if the step has failed for good.
    """
    strand = current("step")
    given = StepOptions.read(options, "workflow.step", function)
    definition = read_activity(function, what="a step")
    below = definition.step_options
    if given.given():
        below = StepOptions(**(below.given() | given.given()))
    return strand.ask_step(definition, below, args, {})


local_activity = step


def now() -> datetime:
    """The time, the same in every replay: when what the workflow goes on from was recorded. In UTC."""
    return current("now").now()


def random() -> float:
    """A random number from 0 to 1, the same in every replay. Other kinds: `random_generator()`."""
    return random_generator().random()


def random_generator() -> Random:
    """Random numbers that are the same in every replay; each call takes a position."""
    strand = current("random")
    strand.reserve()
    return strand.random()


def uuid4() -> UUID:
    """A random UUID, the same in every replay."""
    strand = current("uuid4")
    strand.reserve()
    return strand.uuid4()


def info() -> WorkflowInfo:
    """What the workflow knows of itself."""
    return current("info").info


def in_workflow() -> bool:
    """Whether the code that calls this is that of a workflow."""
    return running_strand() is not None


def is_replaying() -> bool:
    """Whether the code is where it has been before. Nothing should depend on it but what is only told, as a log."""
    return current("is_replaying").replaying


class _Logger(logging.LoggerAdapter[logging.Logger]):
    """A log of workflow code: silent where it has been before, and says whose it is."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name that logging has for it
        strand = running_strand()
        if strand is not None and strand.replaying:
            return False
        return super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        strand = running_strand()
        if strand is not None:
            about = current("logger").info
            extra = {"job_id": about.workflow_id, "workflow_name": about.workflow_name}
            kwargs["extra"] = extra | dict(kwargs.get("extra") or {})
        return msg, kwargs


logger: Final = _Logger(logging.getLogger("hotmesh.workflow"), {})
"""For messages of workflow code: each is told once, not again at replays."""
