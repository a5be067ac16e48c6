"""What an exception of users' code becomes when it is stored, and the exception that it comes back as.

    {"message": "no stock", "type": "OutOfStock", "code": 599, "module": "shop", "bases": ["shop.OrderError"], "stack": "…",
     "non_retryable": true, "next_retry_delay": 5.0, "details": …,                    where they are given
     "activity_name": "reserve", "activity_id": …, "attempt": 3, "retry_state": …,    of an ActivityError
     "workflow_id": …, "workflow_name": …,                                            of a ChildWorkflowError
     "errors": [{…}, …],                                                              of an exception group
     "causes": [{…}, {…}, …]}                                                         nearest first

The chain of causes lies flat, so that it may be of any depth. Going out, nothing that an exception says of itself is
trusted: it may raise, lie, or be of any size. Coming back, nothing is imported and no class is looked up: an error is one
of ours, by the fields it has, or an `ApplicationError` that knows the name of its class.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from hotmesh.core.durable.retry import RetryPolicy, class_name
from hotmesh.core.duration import seconds_with_unit
from hotmesh.core.wire import normalise
from hotmesh.durable_errors import (
    FATAL_CODE,
    MAXED_CODE,
    RETRY_CODE,
    TERMINATED_CODE,
    TIMEOUT_CODE,
    ActivityError,
    ActivityExhaustedError,
    ActivityFatalError,
    ActivityMaxedError,
    ActivityTimeoutError,
    ApplicationError,
    CancelledFailure,
    ChildWorkflowError,
    DurableError,
    DurableTimeoutError,
    FatalError,
    MaxedError,
    RetryableError,
    RetryState,
    TerminatedError,
    WorkflowCancelledError,
    WorkflowFailedError,
    WorkflowTerminatedError,
    WorkflowTimeoutError,
)
from hotmesh.errors import ConfigError, HotMeshError, PayloadError
from hotmesh.foreign_errors import kind_of, storable, words_of

Stored = dict[str, Any]
"""An error as plain JSON, as drawn above."""

LONGEST_MESSAGE: Final = 20_000
"""Characters of what an error says that are kept."""
LONGEST_STACK: Final = 20_000
"""Characters of a stack trace that are kept, the last ones."""
MOST_STACKS: Final = 100_000
"""Characters of all stack traces of one error together; those of later causes are left out."""
LONGEST_TYPE: Final = 200
"""Characters of the name of a class."""
LARGEST_DETAILS: Final = 256 * 1024
"""Bytes of JSON that `details` may have."""
MOST_CAUSES: Final = 100
"""Causes that are kept: the first half and the last half of a longer chain."""
MOST_MEMBERS: Final = 50
"""Members of an exception group that are kept, in all groups of an error together."""
_FURTHEST: Final = 100_000

CANCELLED: Final = "CancelledFailure"
"""The `type` of a cancellation that nobody has caught."""
TERMINATED: Final = "TerminatedError"

_BASE: Final[Any] = BaseException.__dict__
_MEMBERS: Final[Any] = BaseExceptionGroup.__dict__["exceptions"]
_OURS: Final = __file__.rpartition("core")[0]
_EXAMPLES: Final = f"{_OURS}demo"

Stack = Callable[[BaseException], str]
"""Prints one exception without its causes."""


def failure_of(error: BaseException, *, stack: Stack | None = None) -> Stored:
    """The exception, with all its causes, as it is stored. Never raises, whatever the exception does.

    `code` is 596 to 599 (or 410) by its class, and 599 for one that is not ours, whatever its own `code` is.
    """
    writer = _Writer(stack or stack_of)
    chain = list(_chain(error))
    found = writer.one(chain[0])
    rest, kept = chain[1:], []
    if len(rest) > MOST_CAUSES:
        half = MOST_CAUSES // 2
        kept = [writer.one(cause) for cause in rest[:half]]
        kept[-1]["omitted"] = len(rest) - MOST_CAUSES
        rest = rest[-half:]
    kept += [writer.one(cause) for cause in rest]
    return found | {"causes": kept} if kept else found


def simple_failure(message: str, *, type: str, code: int = FATAL_CODE) -> Stored:  # noqa: A002
    """An error that is no exception of anybody: a terminated or timed-out workflow, a lost activity."""
    return {"message": message, "type": type, "code": code}


def exception_of(stored: Mapping[str, Any]) -> BaseException:
    """The exception of a stored error, with its whole chain of causes. Also of errors of graphs, and of other languages."""
    found = _rebuilt(stored)
    effect = found
    causes = stored.get("causes")
    for cause in causes if isinstance(causes, list) else ():
        effect.__cause__ = _rebuilt(cause) if isinstance(cause, Mapping) else ApplicationError(str(cause))
        effect = effect.__cause__
    return found


def activity_error(
    stored: Mapping[str, Any],
    *,
    activity_name: str,
    activity_id: str | None = None,
    attempt: int = 1,
    retry_state: RetryState,
) -> ActivityError:
    """What a workflow gets for a step or an activity that has failed for good. Its cause is the stored error."""
    found = _activity_error(
        {
            "message": stored.get("message"),
            "type": stored.get("type"),
            "code": stored.get("code"),
            "activity_name": activity_name,
            "activity_id": activity_id,
            "attempt": attempt,
            "retry_state": retry_state,
        }
    )
    found.__cause__ = exception_of(stored)
    return found


def child_error(
    stored: Mapping[str, Any], *, workflow_id: str, workflow_name: str | None = None
) -> ChildWorkflowError:
    """What a parent gets for a child that has failed. Its cause is the stored error of the child."""
    message, code = _text(stored, "message"), _code(stored)
    found = ChildWorkflowError(message, workflow_id=workflow_id, workflow_name=workflow_name, code=code)
    found.__cause__ = exception_of(stored)
    return found


def workflow_error(stored: Mapping[str, Any], workflow_id: str) -> WorkflowFailedError:
    """What `handle.result()` raises for a workflow that ended with this error. Its cause is what was raised in it."""
    kind, code = stored.get("type"), _code(stored)
    made: type[WorkflowFailedError] = WorkflowFailedError
    if kind in (CANCELLED, "CancelledError"):
        made = WorkflowCancelledError
    elif code == TERMINATED_CODE:
        made = WorkflowTerminatedError
    elif kind == "WorkflowTimeoutError":
        made = WorkflowTimeoutError
    error = {"message": _text(stored, "message"), **stored, "code": code}
    found = made(error, workflow_id)
    found.__cause__ = (
        None if made in (WorkflowTerminatedError, WorkflowTimeoutError) else exception_of(stored)
    )
    return found


def is_final(stored: Mapping[str, Any], policy: RetryPolicy) -> bool:
    """Whether this error is not to be tried again, however many attempts are left."""
    code = stored.get("code")
    if code == TIMEOUT_CODE and policy.retry_on_timeout:
        return False
    return (
        code in (TIMEOUT_CODE, MAXED_CODE, FATAL_CODE, TERMINATED_CODE)
        or stored.get("non_retryable") is True
        or policy.forbids(names_of(stored))
    )


def retry_after(
    stored: Mapping[str, Any], policy: RetryPolicy, attempt: int, chance: float = 0.5
) -> float | RetryState:
    """Seconds until the next attempt after number `attempt` (from 1) has failed with this error; or why there is none."""
    if is_final(stored, policy):
        return _why_final(stored)
    delay = policy.delay(attempt, chance)
    if delay is None:
        return "timeout" if stored.get("code") == TIMEOUT_CODE else "exhausted"
    wanted = stored.get("next_retry_delay")
    return float(wanted) if isinstance(wanted, int | float) else delay


def as_exhausted(stored: Mapping[str, Any]) -> Stored:
    """The error of a workflow function whose attempts are used up: as it was raised, with code 597."""
    found = dict(stored)
    return found | {"code": MAXED_CODE} if found.get("code") == RETRY_CODE else found


def names_of(stored: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the class of the error and of its base classes, with their modules where they are known."""
    kind, module, bases = stored.get("type"), stored.get("module"), stored.get("bases")
    own = (f"{module}.{kind}" if module else str(kind),) if kind else ()
    return own + tuple(str(base) for base in (bases if isinstance(bases, list) else ()))


def stack_of(error: BaseException) -> str:
    """One exception as Python prints it, without its causes and without our frames; empty if it cannot be printed."""
    try:
        frames = traceback.StackSummary.extract(
            (frame, line) for frame, line in traceback.walk_tb(_BASE["__traceback__"].__get__(error))
            if _is_users(frame.f_code.co_filename)
        )  # fmt: skip
        head = "Traceback (most recent call last):\n" if frames else ""
        return head + "".join(frames.format())
    except BaseException:  # noqa: BLE001 - even that may be the users' code, as source that is read
        return ""


def _is_users(filename: str) -> bool:
    return not filename.startswith(_OURS) or filename.startswith(_EXAMPLES)


def _why_final(stored: Mapping[str, Any]) -> RetryState:
    if stored.get("type") in (CANCELLED, "CancelledError"):
        return "cancelled"
    return "timeout" if stored.get("code") == TIMEOUT_CODE else "non_retryable"


class _Writer:
    """Writes the exceptions of one error, within its limits."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._stacks = MOST_STACKS
        self._members = MOST_MEMBERS

    def one(self, error: BaseException) -> Stored:
        """The exception itself, and its members if it is a group."""
        kind = type.__dict__["__mro__"].__get__(type(error))
        found = self._written(error, kind)
        if BaseExceptionGroup in kind:
            found["errors"] = self._group(error)
        return found

    def _written(self, error: BaseException, bases: Sequence[type]) -> Stored:
        name = kind_of(error)[:LONGEST_TYPE]
        message = words_of(error, LONGEST_MESSAGE)
        if CancelledFailure in bases:
            found = {"message": message or "Workflow cancelled", "type": CANCELLED, "code": FATAL_CODE}
        elif DurableError in bases and isinstance(error, DurableError):
            found = _written_ours(error, message)
        else:
            code = FATAL_CODE if HotMeshError in bases and PayloadError in bases else RETRY_CODE
            found = {"message": message or name, "type": name, "code": code}
        if found["type"] == name:
            _add_names(found, bases)
        stack = storable(self._printed(error))[-min(LONGEST_STACK, self._stacks) :] if self._stacks else ""
        if stack:
            self._stacks -= len(stack)
            found["stack"] = stack
        elif isinstance(given := _own(error, "stack"), str) and given:
            found["stack"] = storable(given[-LONGEST_STACK:])
        return found

    def _printed(self, error: BaseException) -> str:
        text = self._stack(error)
        if not text:
            return ""
        words = words_of(error, LONGEST_STACK // 2)
        name = kind_of(error)
        return f"{text}{name}: {words}\n" if words else f"{text}{name}\n"

    def _group(self, error: BaseException) -> list[Stored]:
        members: Sequence[BaseException] = _MEMBERS.__get__(error)
        found = []
        for member in members:
            if self._members <= 0:
                break
            self._members -= 1
            chain = list(_chain(member))[: MOST_CAUSES // 10]
            one = self.one(chain[0])
            if len(chain) > 1:
                one["causes"] = [self.one(cause) for cause in chain[1:]]
            found.append(one)
        return found


def _add_names(found: Stored, bases: Sequence[type]) -> None:
    """Where the class is from, and the names of those it is derived from, but for what every exception is."""
    own, *others = [storable(class_name(base))[:LONGEST_TYPE] for base in bases if base not in _EVERY]
    if "." in own and own.endswith(f".{found['type']}"):
        found["module"] = own[: -len(found["type"]) - 1]
    others = [name for name in others if not name.startswith("hotmesh.")]
    if others:
        found["bases"] = others[:20]


_EVERY: Final = frozenset({BaseException, object})


def _written_ours(error: DurableError, message: str) -> Stored:
    """One of our own errors, with its fields."""
    kind = type.__getattribute__(type(error), "__name__")
    code = _own(error, "code")
    found: Stored = {
        "message": storable(str(_own(error, "message") or message or kind))[:LONGEST_MESSAGE],
        "type": kind,
        "code": code if type(code) is int else RETRY_CODE,
    }
    if isinstance(error, ActivityError):
        for name in ("activity_name", "activity_id", "attempt", "retry_state", "type"):
            found[name] = _own(error, name)
        found["code"] = code if type(code) is int else FATAL_CODE
    elif isinstance(error, ChildWorkflowError):
        found |= {"workflow_id": error.workflow_id, "workflow_name": error.workflow_name}
        found["code"] = code if type(code) is int else FATAL_CODE
    elif isinstance(error, WorkflowFailedError):
        found |= {"type": error.type or kind, "workflow_id": error.workflow_id}
    elif isinstance(error, ApplicationError):
        _add_application(found, error)
    return found


def _add_application(found: Stored, error: ApplicationError) -> None:
    given = _own(error, "type")
    if isinstance(given, str) and given:
        found["type"] = storable(given)[:LONGEST_TYPE]
    final = _own(error, "non_retryable") is True
    if final:
        found["non_retryable"] = True
        found["code"] = FATAL_CODE if found["code"] == RETRY_CODE else found["code"]
    elif found["code"] not in _CODES:
        found["app_code"], found["code"] = found["code"], RETRY_CODE
    if (delay := _own(error, "next_retry_delay")) is not None:
        try:
            found["next_retry_delay"] = seconds_with_unit(delay, name="next_retry_delay")
        except (ConfigError, TypeError, ValueError) as problem:
            found["problem"] = words_of(problem)
    if (details := _own(error, "details")) is not None:
        try:
            found["details"] = normalise(details, limit=LARGEST_DETAILS, what="details of the error")
        except PayloadError as problem:
            found["problem"] = words_of(problem)
    bases = _own(error, "bases")
    if bases and type(bases) is tuple:
        found["bases"] = [storable(str(base))[:LONGEST_TYPE] for base in bases[:20]]


_CODES: Final = frozenset({TIMEOUT_CODE, MAXED_CODE, FATAL_CODE, RETRY_CODE, TERMINATED_CODE})


def _own(error: BaseException, name: str) -> Any:
    """A field of one of our errors; a class of users' that is derived from it may have made anything of it."""
    try:
        return getattr(error, name, None)
    except BaseException:  # noqa: BLE001 - even that is the users' code
        return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and its causes, nearest first; what was being handled where no cause was named."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen and len(seen) < _FURTHEST:
        seen.add(id(found))
        yield found
        cause: BaseException | None = _BASE["__cause__"].__get__(found)
        if cause is None and not _BASE["__suppress_context__"].__get__(found):
            cause = _BASE["__context__"].__get__(found)
        found = cause


def _text(stored: Mapping[str, Any], name: str) -> str:
    value = stored.get(name)
    return value if isinstance(value, str) else "unknown" if value is None else str(value)


def _code(stored: Mapping[str, Any]) -> int:
    code = stored.get("code")
    return code if type(code) is int else FATAL_CODE


_KINDS: Final[Mapping[int, type[ApplicationError]]] = {
    FATAL_CODE: FatalError,
    MAXED_CODE: MaxedError,
    TIMEOUT_CODE: DurableTimeoutError,
}
"""What an error of a final code comes back as, so that handlers for these take it."""


def _rebuilt(stored: Mapping[str, Any]) -> BaseException:
    """One error of a chain."""
    kind, message = stored.get("type"), _text(stored, "message")
    members = stored.get("errors")
    if isinstance(members, list) and members:
        return _rebuilt_group(message, members, stored)
    if kind == CANCELLED:
        return CancelledFailure(message)
    if "activity_name" in stored and "retry_state" in stored:
        return _activity_error(stored)
    if "workflow_id" in stored:
        return ChildWorkflowError(
            message,
            workflow_id=_text(stored, "workflow_id"),
            workflow_name=None if stored.get("workflow_name") is None else _text(stored, "workflow_name"),
            code=_code(stored),
        )
    if kind == TERMINATED:
        return TerminatedError(message)
    return _application_error(stored)


def _application_error(stored: Mapping[str, Any]) -> ApplicationError:
    kind = stored.get("type")
    code = stored.get("app_code", stored.get("code"))
    made = RetryableError if kind == RetryableError.__name__ else _KINDS.get(_code(stored), ApplicationError)
    delay, stack = stored.get("next_retry_delay"), stored.get("stack")
    return made(
        _text(stored, "message"),
        type=str(kind) if kind else None,
        details=stored.get("details"),
        non_retryable=stored.get("non_retryable") is True,
        next_retry_delay=delay if isinstance(delay, int | float) else None,
        code=code if type(code) is int else None,
        stack=stack if isinstance(stack, str) else None,
        bases=[name for name in names_of(stored) if name != kind],
    )


def _rebuilt_group(message: str, members: list[Any], stored: Mapping[str, Any]) -> BaseException:
    """A group of its members. Its own text has lost the count that Python adds to it."""
    found = [
        exception_of(member) if isinstance(member, Mapping) else ApplicationError(str(member))
        for member in members
    ]
    return BaseExceptionGroup(message.rpartition(" (")[0] or message, found)


def _activity_error(stored: Mapping[str, Any]) -> ActivityError:
    """By its code and by why there was no further attempt: one that handlers for other errors take, too."""
    code, state = _code(stored), stored.get("retry_state")
    made: type[ActivityError] = ActivityError
    if code == TIMEOUT_CODE:
        made = ActivityTimeoutError
    elif state == "exhausted":
        made = ActivityExhaustedError
    elif code == MAXED_CODE:
        made = ActivityMaxedError
    elif state == "non_retryable":
        made = ActivityFatalError
    attempt = stored.get("attempt")
    return made(
        _text(stored, "message"),
        activity_name=_text(stored, "activity_name"),
        activity_id=None if stored.get("activity_id") is None else _text(stored, "activity_id"),
        attempt=attempt if type(attempt) is int else 1,
        retry_state=_state(state),
        code=FATAL_CODE if made is ActivityError else made.code,
        type=None if stored.get("type") is None else _text(stored, "type"),
    )


def _state(value: Any) -> RetryState:
    match value:
        case "exhausted" | "timeout" | "cancelled":
            return value  # type: ignore[no-any-return]
        case _:
            return "non_retryable"
