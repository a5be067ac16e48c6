"""The decorators of durable functions; users know them as `@workflow.defn` and so on.

They read what they decorate, so that mistakes are said where they are made, and leave it as it is: with its signature, its
types and its docstring, callable as ever. Steps and activities are wrapped: called in a workflow a step becomes an operation of
that, and an activity is refused; called elsewhere they just run.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, ParamSpec, Protocol, TypeVar, Unpack, overload

from hotmesh.durable.definition import (
    ACTIVITY,
    RUN,
    SIGNAL,
    WORKFLOW,
    ActivityDefinition,
    OfMethod,
    is_method,
    read_activity,
    read_workflow,
)
from hotmesh.durable.options import ActivityOptions, StepOptions, WorkflowOptions
from hotmesh.durable.typed import ActivityKeywords, StepKeywords, WorkflowKeywords
from hotmesh.durable_errors import NotAllowedInWorkflowError
from hotmesh.errors import ConfigError
from hotmesh.replay import running_strand

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])
W = TypeVar("W", bound=type | Callable[..., Coroutine[Any, Any, Any]])


class StepCaller(Protocol):
    """What the event loop of a workflow is to a step that is called in it: an object whose class has `call_step`."""

    def call_step(
        self, definition: ActivityDefinition[Any, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Awaitable[Any]:
        """Asks for the step as an operation of the workflow whose code is running."""
        ...


CALL_STEP: Final = "call_step"


@overload
def workflow_defn(given: W, /) -> W: ...
@overload
def workflow_defn(**options: Unpack[WorkflowKeywords]) -> Callable[[W], W]: ...
def workflow_defn(given: Any = None, /, **options: Any) -> Any:
    """Make an `async` function, or a class with a method `@workflow.run`, a workflow. Options: `WorkflowOptions`.

    @workflow.defn(task_queue="orders", retry=RetryPolicy(maximum_attempts=3))
    async def order(order_id: str, amount: Decimal) -> Receipt: ...
    """
    local = _names_of_caller()

    def decorate(function: Any) -> Any:
        setattr(function, WORKFLOW, read_workflow(function, read, local=local))
        return function

    read = WorkflowOptions.read(options)
    return _decorated(given, decorate, "@workflow.defn")


@overload
def workflow_run(given: F, /) -> F: ...
@overload
def workflow_run() -> Callable[[F], F]: ...
def workflow_run(given: Any = None, /) -> Any:
    """Mark the method of a workflow class that runs it: an `async def`, whose parameters are those of the workflow."""

    def decorate(function: Any) -> Any:
        if not inspect.iscoroutinefunction(function):
            raise ConfigError(
                f"@workflow.run needs an `async def`, and {getattr(function, '__qualname__', function)} is none"
            )
        setattr(function, RUN, True)
        return function

    return _decorated(given, decorate, "@workflow.run")


@overload
def workflow_signal(given: F, /) -> F: ...
@overload
def workflow_signal(*, name: str | None = None) -> Callable[[F], F]: ...
def workflow_signal(given: Any = None, /, *, name: str | None = None) -> Any:
    """Mark the method of a workflow class that takes the signals of its name, async or not; in the order in which they came.

    What it raises is logged, and the workflow goes on. One that still runs when the workflow returns is cancelled, with a warning.
    """

    def decorate(function: Any) -> Any:
        setattr(function, SIGNAL, name)
        return function

    return _decorated(given, decorate, "@workflow.signal")


@overload
def activity_defn(given: F, /) -> F: ...
@overload
def activity_defn(**options: Unpack[ActivityKeywords]) -> Callable[[F], F]: ...
def activity_defn(given: Any = None, /, **options: Any) -> Any:
    """Make a function, async or not, an activity. Options: `ActivityOptions`, the defaults of its calls.

    @activity.defn(start_to_close_timeout="30s")
    async def charge(order_id: str, amount: Decimal) -> Receipt: ...
    """
    local = _names_of_caller()

    def decorate(function: Any) -> Any:
        definition = read_activity(function, read, local=local)

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            if running_strand() is not None:
                raise NotAllowedInWorkflowError(
                    f"to call activity {definition.name} directly",
                    f"Write `await workflow.step({function.__name__}, …)`, or `workflow.execute_activity` for another process.",
                    "it would run as a part of the workflow, and nothing of it be recorded",
                )
            return function(*args, **kwargs)

        setattr(called, ACTIVITY, definition)
        return _MARK(called) if definition.is_async else called

    read = ActivityOptions.read(options, "@activity.defn")
    return _decorated(given, decorate, "@activity.defn")


@overload
def activity_step(given: Callable[P, Coroutine[Any, Any, R]], /) -> Callable[P, Coroutine[Any, Any, R]]: ...
@overload
def activity_step(
    **options: Unpack[StepKeywords],
) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Callable[P, Coroutine[Any, Any, R]]]: ...
def activity_step(given: Any = None, /, **options: Any) -> Any:
    """Make an `async` function a step: called in a workflow, its result is recorded there. Options: `StepOptions`.

    @activity.step
    async def reserve(sku: str) -> str: ...
    """
    local = _names_of_caller()

    def decorate(function: Any) -> Any:
        definition = read_activity(function, ActivityOptions(**read.given()), is_step=True, local=local)
        of_method = OfMethod(definition) if is_method(function) else None

        @functools.wraps(function)
        def step(*args: Any, **kwargs: Any) -> Any:
            call = getattr(type(loop := asyncio._get_running_loop()), CALL_STEP, None)
            if call is None:
                return function(*args, **kwargs)
            if of_method is not None and args:
                return call(loop, of_method.bound_to(args[0]), args[1:], kwargs)
            return call(loop, definition, args, kwargs)

        setattr(step, ACTIVITY, definition)
        return _MARK(step)

    read = StepOptions.read(options, "@activity.step")
    return _decorated(given, decorate, "@activity.step")


_MARK: Final[Callable[[Any], Any]] = getattr(inspect, "markcoroutinefunction", lambda function: function)
"""Lets `iscoroutinefunction` say of a wrapper what it says of the function in it; from Python 3.12 on."""


def _decorated(given: Any, decorate: Callable[[Any], Any], name: str) -> Any:
    """`@defn` and `@defn(…)` alike."""
    if given is None:
        return decorate
    if not callable(given) and not isinstance(given, staticmethod | classmethod):
        raise ConfigError(f"{name} decorates a function; its options have names: {name}(name={given!r})")
    return decorate(given)


def _names_of_caller() -> Mapping[str, Any] | None:
    """The names in the function where something is decorated, for its annotations; None at the top of a module."""
    frame = sys._getframe(2)
    return None if frame.f_locals is frame.f_globals else dict(frame.f_locals)
