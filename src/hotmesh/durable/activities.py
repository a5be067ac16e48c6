"""Activities on queues: what workflow code calls them by, and what a worker runs for them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack, overload

import msgspec

from hotmesh.core.durable.commands import Activity, Completion
from hotmesh.core.durable.failure import activity_error
from hotmesh.core.durable.retry import DEFAULT_RETRY
from hotmesh.core.values import Json
from hotmesh.core.wire import dumps, loads
from hotmesh.durable.context import ActivityContext, begin
from hotmesh.durable.convert import Converter
from hotmesh.durable.definition import ActivityDefinition, activities_by_name, read_activity
from hotmesh.durable.options import ActivityOptions
from hotmesh.durable.signature import Signature
from hotmesh.durable.strands import WorkflowStrand, current
from hotmesh.durable.typed import CallKeywords
from hotmesh.durable_errors import ActivityError, CancelledFailure
from hotmesh.errors import ConfigError
from hotmesh.replay import Operation
from hotmesh.runtime.durable.activities import Attempt
from hotmesh.runtime.threads import Threads

R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class HostedActivity:
    """A function that a worker runs as an activity: an `ActivityCall` of the runtime."""

    __slots__ = ("definition", "signature")

    def __init__(self, definition: ActivityDefinition[Any, Any], converter: Converter) -> None:
        """Raises ConfigError for an annotation whose values cannot be stored."""
        self.definition = definition
        self.signature = definition.signature(converter)

    @property
    def in_thread(self) -> bool:
        """Whether it is a plain function."""
        return not self.definition.is_async

    async def run(self, attempt: Attempt, threads: Threads) -> Json:
        """Run it once; what it returned, as it is stored. Raises PayloadError, and whatever the function raises."""
        args, kwargs = self.signature.unpack(dumps(attempt.args))
        function = self.definition.function
        begin(ActivityContext.of_attempt(attempt, args))
        if self.definition.is_async:
            value = await function(*args, **kwargs)
        else:
            value = await threads.run(_named(function, kwargs), *args)
            if inspect.isawaitable(value):
                value = await value
        payload = self.signature.result.encode(value)
        if payload.startswith(b'"hotmesh.'):
            text: Json = loads(payload)  # told from what a codec has made
            return text
        raw: Any = msgspec.Raw(payload)
        return raw


def _named(function: Any, kwargs: Mapping[str, Any]) -> Any:
    if not kwargs:
        return function
    return lambda *args: function(*args, **kwargs)


@overload
def execute_activity(
    activity: Callable[[Unpack[Ts]], Coroutine[Any, Any, R]],
    /,
    *args: *Ts,
    **options: Unpack[CallKeywords],
) -> Operation[R]: ...
@overload
def execute_activity(
    activity: Callable[[Unpack[Ts]], R], /, *args: *Ts, **options: Unpack[CallKeywords]
) -> Operation[R]: ...
@overload
def execute_activity(
    activity: str, /, *args: Any, result_type: type[T], **options: Unpack[CallKeywords]
) -> Operation[T]: ...
@overload
def execute_activity(activity: str, /, *args: Any, **options: Unpack[CallKeywords]) -> Operation[Any]: ...
def execute_activity(  # type: ignore[misc]
    activity: Any, /, *args: Any, result_type: Any = Any, **options: Any
) -> Operation[Any]:
    """Have an activity run by a worker of its queue, in whichever process. Options: `ActivityOptions`.

    receipt = await workflow.execute_activity(charge, order_id, amount, start_to_close_timeout="30s")
    label = await workflow.execute_activity("print_label", order_id, task_queue="printers", result_type=Label)

    It is asked for in the commit of this turn, and retried by its queue: the workflow hears of the end only. A name is
    all that has to be known of one that another program has.
    Raises ActivityError when it is awaited, if the activity has failed for good; `.cancel()` gives it up.
    """
    return _ask(
        "execute_activity",
        activity,
        args,
        {},
        ActivityOptions.read(options, "workflow.execute_activity"),
        result_type,
    )


start_activity = execute_activity


def _ask(
    call: str,
    activity: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    given: ActivityOptions,
    result_type: Any = Any,
) -> Operation[Any]:
    strand = current(call)
    converter = strand.hosted.converter
    if isinstance(activity, str):
        if not activity:
            raise ConfigError(f"workflow.{call} needs the name of an activity, not an empty text")
        name, options, signature = activity, given, Signature.untyped(activity, converter)
        shape = converter.shape(result_type, f"result of {activity}")
    else:
        definition = read_activity(activity)
        name, options = definition.name, given.over(definition.options)
        signature = definition.signature(converter)
        shape = signature.result if result_type is Any else converter.shape(result_type, f"result of {name}")
    payload: Any = msgspec.Raw(signature.pack(args, kwargs))
    stored = _stored(strand, options, is_proxy=call == _BY_PROXY)
    command = Activity(strand.reserve(), name, options.task_queue, payload, stored)

    def decode(completion: Completion) -> Any:
        if completion.status == "done":
            return shape.decode("null" if completion.value is None else completion.value)
        error = completion.error or {}
        if error.get("asked") is True:
            raise CancelledFailure(error.get("message"))
        failed = activity_error(
            error,
            activity_name=name,
            activity_id=f"{strand.info.run_id}:{name}:0.{completion.position}",
            attempt=completion.attempt,
            retry_state=error.get("ended", "non_retryable"),
        )
        if options.throw_on_error is False:
            return _told(failed, error)
        raise failed

    return strand.ask(command, decode, options.cancellation_type)


def _stored(strand: WorkflowStrand, options: ActivityOptions, *, is_proxy: bool) -> dict[str, Any]:
    """What of the options goes with the work."""
    found: dict[str, Any] = {}
    for name, key in _LIMITS:
        seconds = getattr(options, name)
        if seconds is not None:
            found[key] = seconds
    if options.headers:
        found["headers"] = dict(options.headers)
    if options.summary is not None:
        found["summary"] = options.summary
    policy = options.retry or strand.policy
    if options.retry_on_timeout is not None and options.retry_on_timeout != policy.retry_on_timeout:
        policy = replace(policy, retry_on_timeout=options.retry_on_timeout)
    elif is_proxy and options.start_to_close_timeout is not None:
        # As the reference has it, of which the proxy is.
        found["retry_on_timeout"] = policy.retry_on_timeout is True
    if policy != DEFAULT_RETRY:
        found["retry"] = policy.to_json()
    return found


_BY_PROXY: Final = "proxy_activities"

_LIMITS = (
    ("start_to_close_timeout", "start_to_close"),
    ("schedule_to_start_timeout", "schedule_to_start"),
    ("schedule_to_close_timeout", "schedule_to_close"),
    ("heartbeat_timeout", "heartbeat"),
)


def _told(failed: ActivityError, stored: Mapping[str, Any]) -> dict[str, Any]:
    """An error as a value, for who asked not to have it raised."""
    found = failed.to_dict() | {"message": failed.message, "code": failed.code}
    return found | ({"stack": stored["stack"]} if "stack" in stored else {})


class ActivityProxy:
    """Activities as attributes: `await acts.charge(order)`. A name that it does not know is one of another program."""

    def __init__(self, known: Mapping[str, ActivityDefinition[Any, Any]], options: ActivityOptions) -> None:
        self._known = known
        self._options = options

    def __getattr__(self, name: str) -> Callable[..., Operation[Any]]:
        if name.startswith("_"):
            raise AttributeError(name)
        activity = self._known[name].function if name in self._known else name
        definition = self._known.get(name)

        def call(*args: Any, **kwargs: Any) -> Operation[Any]:
            options = self._options if definition is None else self._options.over(definition.options)
            return _ask(_BY_PROXY, activity, args, kwargs, options)

        call.__name__ = name
        return call


@overload
def proxy_activities(
    protocol: type[T], /, *, activities: Any = None, **options: Unpack[CallKeywords]
) -> T: ...
@overload
def proxy_activities(*, activities: Any = None, **options: Unpack[CallKeywords]) -> Any: ...
def proxy_activities(protocol: Any = None, /, *, activities: Any = None, **options: Any) -> Any:
    """An object whose attributes are activities, called with these options.

        acts = workflow.proxy_activities(task_queue="payments", retry=RetryPolicy(maximum_attempts=5))
        receipt = await acts.charge(order_id, amount)

    Any name can be called: it is found where the queue is served. `activities`, as a worker takes them, says what is
    known of them here: their options, and how their values are stored. `protocol`, a class with their signatures, is for
    type checkers. It may stand in a module or in a workflow. Options: `ActivityOptions`, which those of `@activity.defn` are below.
    """
    if protocol is not None and not isinstance(protocol, type):
        raise ConfigError(
            f"workflow.proxy_activities takes a Protocol class, and functions by name: activities=[...], not {protocol!r}"
        )
    return ActivityProxy(
        activities_by_name(activities), ActivityOptions.read(options, "workflow.proxy_activities")
    )
