"""What a workflow, a start, an activity or a step may be given: names, defaults, and what is refused.

Every option of every call is read here, so that a name that is misspelt or a value that cannot be meant is said where it
is written, and before anything is done. Durations become seconds, a retry policy a `RetryPolicy`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final, Literal, Self, cast, get_args

from hotmesh.core.arguments import checked_flag, checked_mapping, checked_text
from hotmesh.core.durable.retry import RetryPolicy
from hotmesh.core.duration import LONGEST_TIME, seconds_with_unit
from hotmesh.errors import ConfigError
from hotmesh.nearest import nearest

IdConflictPolicy = Literal["fail", "use_existing", "terminate_existing"]
"""What a start does if a live workflow has the id."""
IdReusePolicy = Literal["allow", "allow_failed_only", "reject"]
"""Whether a start may use the id of a workflow that has ended."""
CancellationType = Literal["try_cancel", "wait_completed", "abandon"]
"""What becomes of a running activity that the workflow gives up."""
OnNonDeterminism = Literal["park", "fail"]
"""What becomes of a workflow whose code asks for something else than what is recorded."""

_LONGEST_NAME: Final = 512
"""Bytes of a name, an id, a queue."""


class Options:
    """Options by name; `read` makes them. Each class says which there are."""

    where: ClassVar[str]
    """What they are options of."""

    @classmethod
    def read(cls, given: Mapping[str, Any], where: str | None = None, function: Any = None) -> Self:
        """Checked, in one form each. Raises TypeError for a name that there is not, ConfigError for what cannot be used.

        `function`: what is called with them, whose arguments somebody may have given by name.
        """
        if not given:
            found = _UNSAID.get(cls)
            if found is None:
                found = _UNSAID[cls] = cls()
            return cast("Self", found)
        place = where or cls.where
        known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        for name in given:
            if name not in known:
                raise TypeError(
                    f"{place} has no option {name}{_hint(name, known, function)} (there are: {', '.join(known)})"
                )
        checked = {name: _CHECKS[name](value, f"{name} of {place}") for name, value in given.items() if value is not None}  # fmt: skip
        found = cls(**checked)
        found.check(place)
        return found

    def check(self, place: str) -> None:
        """What only several options together can be wrong by."""

    def given(self) -> dict[str, Any]:
        """The options that are not as they are by themselves."""
        return {
            field.name: value
            for field in fields(self)  # type: ignore[arg-type]
            if (value := getattr(self, field.name)) != field.default
        }


_UNSAID: Final[dict[type[Options], Options]] = {}
"""By class, that where nothing is given, as for most calls. Options never change, so that one is enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowOptions(Options):
    """What `@workflow.defn` says of a workflow; a start may say otherwise."""

    where: ClassVar[str] = "@workflow.defn"

    name: str | None = None
    """By which it is started and recorded; None: the name of the function or class."""
    task_queue: str | None = None
    """Where it runs if the start does not say."""
    entity: str | None = None
    """What it is about, a label to find it by."""
    retry: RetryPolicy | None = None
    """For the function itself."""
    execution_timeout: float | None = None
    """Seconds for all of it, from its first turn on, with all retries; then it ends at once, as `timed_out`.

    This and the next two are read by the start; one that has only the name of the workflow says them itself.
    """
    run_timeout: float | None = None
    """Seconds for one run of it, with its retries."""
    retention: float | None = None
    """Seconds for which it is kept after its end; infinite: for ever. None: what the client says."""
    on_nondeterminism: OnNonDeterminism = "park"
    """`park`: it stays, and goes on when code that fits is deployed; `fail`: it fails."""

    def check(self, place: str) -> None:
        _check_limits(self, place)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOptions(Options):
    """What `client.start_workflow` may be given beside the function and its arguments."""

    where: ClassVar[str] = "start_workflow"

    id: str | None = None
    """Names it among the workflows of the namespace; None: generated."""
    task_queue: str | None = None
    """None: that of its definition, else the entity."""
    workflow_name: str | None = None
    """None: that of the function."""
    entity: str | None = None
    """What it is about, a label to find it by."""
    search: Mapping[str, str] | None = None
    """Texts to find it by."""
    memo: Mapping[str, Any] | None = None
    """What is to be kept with it, and is shown; no meaning to hotmesh."""
    retry: RetryPolicy | None = None
    """For the workflow function; and for its activities, where nothing nearer says otherwise."""
    retention: float | None = None
    """Seconds for which it is kept after its end; infinite: for ever."""
    id_conflict_policy: IdConflictPolicy = "fail"
    """If a live workflow has the id: `fail`, `use_existing` (a handle to that), `terminate_existing`."""
    id_reuse_policy: IdReusePolicy = "allow"
    """If one that has ended has it: `allow`, `allow_failed_only`, `reject`."""
    execution_timeout: float | None = None
    """Seconds for all of it, from its first turn on, with all retries; then it ends at once, as `timed_out`."""
    run_timeout: float | None = None
    """Seconds for one run of it, with its retries."""
    start_delay: float = 0.0
    """Seconds until its first turn; no timeout counts until then. `handle.resume()` and `cancel()` begin it sooner."""

    def check(self, place: str) -> None:
        _check_limits(self, place)
        if self.id is None and self.id_conflict_policy != "fail":
            raise ConfigError(f"id_conflict_policy of {place} means nothing without an id")
        if self.id_conflict_policy == "terminate_existing" and self.id_reuse_policy == "reject":
            raise ConfigError(
                f"{place} cannot terminate the workflow that has the id, and then reject the id because one has had it: "
                'leave out id_reuse_policy="reject"'
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityOptions(Options):
    """What `@activity.defn` says of an activity, and what a call of it may say otherwise."""

    where: ClassVar[str] = "an activity"

    name: str | None = None
    """By which it is found and recorded; None: the name of the function. Not of a call."""
    task_queue: str | None = None
    """Whose workers run it; None: that of the workflow."""
    retry: RetryPolicy | None = None
    """When it is tried again."""
    start_to_close_timeout: float | None = None
    """Seconds for one attempt."""
    schedule_to_start_timeout: float | None = None
    """Seconds until a worker has taken it."""
    schedule_to_close_timeout: float | None = None
    """Seconds for all attempts together."""
    heartbeat_timeout: float | None = None
    """Seconds between two heartbeats."""
    retry_on_timeout: bool | None = None
    """Whether an attempt that took too long is followed by another; None: what the retry policy says, else it is, but not of a
    call by `proxy_activities`."""
    headers: Mapping[str, Any] | None = None
    """Plain JSON for the activity to see in its context."""
    cancellation_type: CancellationType = "try_cancel"
    """If the workflow gives it up while it runs: `try_cancel` (it is cancelled, and the workflow goes on at once), `wait_completed`
    (it is cancelled, and the workflow waits for its end), or `abandon` (it runs on, and nobody cares)."""
    summary: str | None = None
    """A few words that tools show beside its name."""
    throw_on_error: bool | None = None
    """False: a failure is not raised, but returned as a dict with `message`, `code`, `type`, `stack`."""

    def check(self, place: str) -> None:
        one, every = self.start_to_close_timeout, self.schedule_to_close_timeout
        if one is not None and every is not None and one > every:
            raise ConfigError(
                f"start_to_close_timeout of {place} ({one:g} s, one attempt) is longer than schedule_to_close_timeout "
                f"({every:g} s, all of them)"
            )

    def over(self, below: ActivityOptions | None) -> ActivityOptions:
        """These, and where they say nothing those `below`: a call over its proxy over the definition."""
        if below is None:
            return self
        return type(self)(**(below.given() | self.given()))

    @property
    def policy(self) -> RetryPolicy | None:
        """The retry policy, with what `retry_on_timeout` says of it; None: none is given."""
        if self.retry is None or self.retry_on_timeout in (None, self.retry.retry_on_timeout):
            return self.retry
        return RetryPolicy.from_json(self.retry.to_json() | {"retry_on_timeout": self.retry_on_timeout})


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions(Options):
    """What `@activity.step` says of a step, and what `workflow.step` may be given beside the function and its arguments."""

    where: ClassVar[str] = "a step"

    name: str | None = None
    """By which it is recorded; None: the name of the function."""
    retry: RetryPolicy | None = None
    """When it is tried again."""
    start_to_close_timeout: float | None = None
    """Seconds for one attempt."""
    schedule_to_close_timeout: float | None = None
    """Seconds for all attempts together."""
    summary: str | None = None
    """A few words that tools show beside its name."""

    check = ActivityOptions.check


_ELSEWHERE: Final = {
    "workflow_id": "id",
    "job_id": "id",
    "queue": "task_queue",
    "queue_name": "task_queue",
    "retry_policy": "retry",
    "timeout": "start_to_close_timeout",
    "workflow_timeout": "execution_timeout",
    "start_to_close": "start_to_close_timeout",
}
"""What other tools call an option → what it is called here."""


def _hint(name: str, known: Collection[str], function: Any) -> str:
    """What may have been meant by a name that is no option."""
    if _is_parameter(function, name):
        called = getattr(function, "__name__", "it")
        return f": the arguments of {called} are given by position, after the function"
    found = _ELSEWHERE.get(name)
    near = found if found in known else nearest(name, known)
    return f"; did you mean {near}?" if near else ""


def _is_parameter(function: Any, name: str) -> bool:
    try:
        called = getattr(function, "run", function) if isinstance(function, type) else function
        return callable(called) and name in inspect.signature(called).parameters
    except (TypeError, ValueError):  # not a function, or one of C
        return False


def _check_limits(options: WorkflowOptions | StartOptions, place: str) -> None:
    one, every = options.run_timeout, options.execution_timeout
    if one is not None and every is not None and one > every:
        raise ConfigError(
            f"run_timeout of {place} ({one:g} s, one run) is longer than execution_timeout ({every:g} s, all of them)"
        )


def _duration(value: Any, name: str) -> float:
    found = seconds_with_unit(value, name=name)
    if found <= 0:
        raise ConfigError(f"{name} must be longer than 0; leave it out for no limit")
    return min(found, LONGEST_TIME)


def _delay(value: Any, name: str) -> float:
    return min(seconds_with_unit(value, name=name), LONGEST_TIME)


def _retention(value: Any, name: str) -> float:
    return math.inf if value == math.inf else _delay(value, name)


def _name(value: Any, name: str) -> str:
    found = checked_text(value, name, _LONGEST_NAME)
    if not found.strip():
        raise ConfigError(f"{name} is empty")
    return found


def _queue(value: Any, name: str) -> str:
    found = _name(value, name)
    if found.endswith("-activity"):
        raise ConfigError(
            f"{name} {found!r} ends with -activity, as the streams of activities do; write the queue itself, "
            f"{found.removesuffix('-activity')!r}"
        )
    return found


def _texts(value: Any, name: str) -> dict[str, str]:
    return {key: checked_text(item, f"{name}, {key}") for key, item in checked_mapping(value, name).items()}


def _one_of(choice: Any) -> Callable[[Any, str], Any]:
    allowed: Collection[str] = get_args(choice)

    def check(value: Any, name: str) -> Any:
        if value in allowed:
            return value
        near = nearest(value, allowed) if isinstance(value, str) else None
        hint = f"; did you mean {near!r}?" if near else ""
        raise ConfigError(f"{name} is one of {', '.join(map(repr, allowed))}, not {value!r}{hint}")

    return check


_CHECKS: Final[Mapping[str, Callable[[Any, str], Any]]] = {
    "cancellation_type": _one_of(CancellationType),
    "entity": _name,
    "execution_timeout": _duration,
    "headers": checked_mapping,
    "heartbeat_timeout": _duration,
    "id": _name,
    "id_conflict_policy": _one_of(IdConflictPolicy),
    "id_reuse_policy": _one_of(IdReusePolicy),
    "memo": checked_mapping,
    "name": _name,
    "on_nondeterminism": _one_of(OnNonDeterminism),
    "retention": _retention,
    "retry": RetryPolicy.read,
    "retry_on_timeout": checked_flag,
    "run_timeout": _duration,
    "schedule_to_close_timeout": _duration,
    "schedule_to_start_timeout": _duration,
    "search": _texts,
    "start_delay": _delay,
    "start_to_close_timeout": _duration,
    "summary": checked_text,
    "task_queue": _queue,
    "throw_on_error": checked_flag,
    "workflow_name": _name,
}
"""How each option is checked, whatever it is an option of."""
