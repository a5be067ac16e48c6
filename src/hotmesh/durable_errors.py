"""Every exception of durable functions, as one tree; users import it as `hotmesh.durable.errors`.

HotMeshError
└── DurableError                     .message, .code, .retryable, .to_dict()
    ├── ApplicationError             what users' code raised: .type, .details, .non_retryable, .next_retry_delay
    │   ├── RetryableError           599: please try again
    │   ├── FatalError               598: do not try again
    │   ├── MaxedError               597: tried often enough
    │   └── DurableTimeoutError      596: took too long; a TimeoutError, too
    ├── ActivityError                a step or an activity has failed for good; __cause__ is the application's error
    │   ├── ActivityExhaustedError   its attempts are used up; a MaxedError and a FatalError, too
    │   ├── ActivityFatalError       it must not be tried again; a FatalError, too
    │   ├── ActivityMaxedError       it has raised a MaxedError; one itself, too
    │   └── ActivityTimeoutError     it took too long; a DurableTimeoutError, too
    ├── ActivityNotRegisteredError   nobody has a function of this name
    ├── ChildWorkflowError           a child has failed; __cause__ is its error
    ├── TerminatedError              was ended from outside: the cause of a ChildWorkflowError
    ├── WorkflowFailedError          .result() of a workflow that failed; a JobError, too
    │   ├── WorkflowCancelledError   it was cancelled, and did not catch that
    │   ├── WorkflowTerminatedError  it was ended from outside
    │   └── WorkflowTimeoutError     its own time was over
    ├── WorkflowAlreadyStartedError  a live workflow has this id; a DuplicateJobError, too
    ├── WorkflowClosedError          it has ended; an InactiveJobError, too
    ├── WorkflowNotFoundError        there is none of this id; a JobNotFoundError, too
    ├── SignalIdInUseError           another workflow waits for a signal of this id
    ├── EscalationError          a work item could not be resolved or cancelled; .reason
    ├── MaxRecoveryAttemptsError     whoever ran it died, again and again
    ├── NotInWorkflowError           a function of `workflow` was called elsewhere
    ├── NotAllowedInWorkflowError    what cannot be repeated was called in a workflow; says what to use instead
    └── NonDeterminismError          the code asks for something else than what is recorded

`CancelledFailure` is `asyncio.CancelledError` itself. What cannot be stored is a `PayloadError`, a wrong argument a `ConfigError`.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Literal

from hotmesh.enums import Code
from hotmesh.errors import DuplicateJobError, HotMeshError, InactiveJobError, JobError, JobNotFoundError
from hotmesh.nearest import nearest

CancelledFailure = CancelledError
"""What a cancelled workflow gets: asyncio raises that class itself."""

TIMEOUT_CODE: Final = 596
MAXED_CODE: Final = 597
FATAL_CODE: Final = 598
RETRY_CODE: Final = 599
TERMINATED_CODE: Final = Code.INTERRUPTED.value

RetryState = Literal["exhausted", "non_retryable", "timeout", "cancelled"]
"""Why an activity is not tried again."""


class DurableError(HotMeshError):
    """Base of all. `code` is 596 to 599 as the tree says, or None; `retryable`: whether trying again may help.

    `message` is what it is about, without the ids and places that the text of the exception may add.
    """

    message: str = ""
    retryable: bool = False

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message

    def to_dict(self) -> dict[str, Any]:
        """What it is, as plain data: `type`, `message` and `code`."""
        return {"type": type(self).__name__, "message": self.message, "code": self.code}


class ApplicationError(DurableError):
    """What users' code raises to say more than an exception can; and what any exception of theirs has become elsewhere.

    `type` is the name of the exception (of yours: any word to decide on), `details` any JSON. `non_retryable`: it is
    final. `next_retry_delay`: wait that long this time, instead of what the retry policy says.

    An error that was raised elsewhere is rebuilt as one of these, whatever its class was: `type` has the name, `bases`
    those of its base classes, `stack` the traceback as text. No class is looked up by a name that came from outside.
    """

    retryable = True

    def __init__(
        self,
        message: str = "",
        *,
        type: str | None = None,  # noqa: A002 - the name that the field has
        details: Any = None,
        non_retryable: bool = False,
        next_retry_delay: float | str | timedelta | None = None,
        code: int | None = None,
        stack: str | None = None,
        bases: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.type = type or self.__class__.__name__
        self.details = details
        self.non_retryable = non_retryable
        self.next_retry_delay = next_retry_delay
        self.stack = stack
        self.bases = tuple(bases)
        if code is not None:
            self.code = code
        if non_retryable:
            self.retryable = False

    def is_a(self, name: str) -> bool:
        """Whether the error was of the class of this name, or of one below it: `error.is_a("OSError")`."""
        return any(_names(found, name) for found in (self.type, *self.bases))

    def to_dict(self) -> dict[str, Any]:
        found = super().to_dict() | {"type": self.type, "details": self.details}
        return found | ({"stack": self.stack} if self.stack else {})


def _names(whole: str, name: str) -> bool:
    return whole == name or whole.endswith(f".{name}")


class RetryableError(ApplicationError):
    """Try again, please: as any exception, in a word of its own."""

    code = RETRY_CODE


class FatalError(ApplicationError):
    """Do not try again: what has raised it fails at once."""

    code = FATAL_CODE
    retryable = False


class MaxedError(ApplicationError):
    """It was tried often enough."""

    code = MAXED_CODE
    retryable = False


class DurableTimeoutError(ApplicationError, TimeoutError):
    """Something took longer than it may."""

    code = TIMEOUT_CODE
    retryable = False


class ActivityError(DurableError):
    """A step or an activity has failed for good. `__cause__` is what it raised, as an ApplicationError.

    `message` and `type` are those of the cause, unchanged; `attempt` is the number of the last attempt, from 1;
    `retry_state` says why there is no further one.
    """

    def __init__(
        self,
        message: str,
        *,
        activity_name: str,
        activity_id: str | None = None,
        attempt: int = 1,
        retry_state: RetryState = "exhausted",
        code: int | None = None,
        type: str | None = None,  # noqa: A002 - as that of an ApplicationError
    ) -> None:
        DurableError.__init__(self, message)
        self.type = type or self.__class__.__name__
        self.activity_name = activity_name
        self.activity_id = activity_id
        self.attempt = attempt
        self.retry_state: RetryState = retry_state
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        why = _WHY.get(self.retry_state, self.retry_state)
        return f"{self.activity_name} failed at attempt {self.attempt} ({why}): {self.message}"

    def to_dict(self) -> dict[str, Any]:
        return DurableError.to_dict(self) | {
            "type": self.type,
            "activity_name": self.activity_name,
            "activity_id": self.activity_id,
            "attempt": self.attempt,
            "retry_state": self.retry_state,
        }


_WHY: Final[Mapping[str, str]] = {
    "exhausted": "the last one",
    "non_retryable": "not to be retried",
    "timeout": "its time was over",
    "cancelled": "it was cancelled",
}


class _OfActivity(ActivityError, ApplicationError):  # noqa: N818
    """Also one of the errors that users' code raises, so that handlers for those take it."""

    def __init__(self, message: str, **given: Any) -> None:
        ApplicationError.__init__(self, message, non_retryable=True)
        ActivityError.__init__(self, message, **given)


class ActivityFatalError(_OfActivity, FatalError):
    """It has raised something that must not be tried again."""

    code = FATAL_CODE


class ActivityMaxedError(_OfActivity, MaxedError):
    """It has raised a MaxedError."""

    code = MAXED_CODE


class ActivityExhaustedError(_OfActivity, MaxedError, FatalError):
    """All attempts of its retry policy have failed."""

    code = MAXED_CODE


class ActivityTimeoutError(_OfActivity, DurableTimeoutError):
    """It took longer than one of its timeouts."""

    code = TIMEOUT_CODE


class ActivityNotRegisteredError(DurableError):
    """No worker of the queue has a function of this name. `known` are the names that there are."""

    code = FATAL_CODE

    def __init__(self, activity_name: str, task_queue: str | None = None, known: Sequence[str] = ()) -> None:
        where = "" if task_queue is None else f" of queue {task_queue}"
        near = nearest(activity_name, known)
        there = f"; there are: {', '.join(sorted(known))}" if known else ""
        super().__init__(
            f"no worker{where} has an activity {activity_name}: pass it in activities=[...] of one"
            + (f" (did you mean {near}?)" if near else "")
            + there
        )
        self.activity_name = activity_name
        self.task_queue = task_queue


class ChildWorkflowError(DurableError):
    """A child workflow has failed. `__cause__` is its error, `code` that of the child, `message` that of the cause."""

    def __init__(
        self, message: str, *, workflow_id: str, workflow_name: str | None = None, code: int | None = None
    ) -> None:
        super().__init__(message)
        self.workflow_id = workflow_id
        self.workflow_name = workflow_name
        self.job_id = workflow_id
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        name = "" if self.workflow_name is None else f"{self.workflow_name} "
        return f"child workflow {name}{self.workflow_id} failed: {self.message}"

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"workflow_id": self.workflow_id, "workflow_name": self.workflow_name}


class TerminatedError(DurableError):
    """A workflow was ended from outside; `message` is the reason that was given."""

    code = TERMINATED_CODE


def told(error: Mapping[str, Any]) -> str:
    """What a stored error says in a line; a group, with what the first of its members is and says."""
    words = str(error.get("message", ""))
    for _ in range(MOST_GROUPS):
        members = error.get("errors")
        if not isinstance(members, Sequence) or not members or not isinstance(members[0], Mapping):
            return words
        error = members[0]
        words = f"{words}: {error.get('type')}: {error.get('message')}"
    return words


MOST_GROUPS: Final = 10
"""Groups in groups that are told of."""


class WorkflowFailedError(DurableError, JobError):
    """A workflow has failed. `message` is what was raised, unchanged, `type` its class, `stack` its traceback.

    `__cause__` is what was raised, rebuilt with all its own causes: an ActivityError, a ChildWorkflowError, an ApplicationError.
    `error` is all of it as plain data.
    """

    def __init__(self, error: Mapping[str, Any], workflow_id: str, *, words: str | None = None) -> None:
        JobError.__init__(self, error, workflow_id, words=words or f"workflow {workflow_id} {self._fate}")
        self.workflow_id = workflow_id
        self.stack: str | None = error.get("stack")
        self.__cause__ = None
        message = told(error) if error.get("errors") else self.message
        text = f"{self.type}: {message}" if self.type and self.type != self.message else message
        self.args = (words or f"workflow {workflow_id} {self._fate}: {text}",)

    _fate = "failed"

    def to_dict(self) -> dict[str, Any]:
        """The error as the reference gives it: `message`, `code`, `type`, `stack`, `job_id` and more."""
        return {"job_id": self.workflow_id, **self.error}


class WorkflowCancelledError(WorkflowFailedError):
    """It was cancelled, and did not catch that."""

    _fate = "was cancelled"


class WorkflowTerminatedError(WorkflowFailedError):
    """It was ended from outside; `message` is the reason."""

    _fate = "was terminated"


class WorkflowTimeoutError(WorkflowFailedError):
    """Its execution or run timeout was over. (That `result(timeout=…)` has waited long enough is a TimeoutError.)"""

    _fate = "took too long"


class WorkflowAlreadyStartedError(DurableError, DuplicateJobError):
    """A live workflow has this id, or a closed one, and `id_reuse_policy` forbids another."""

    def __init__(self, workflow_id: str) -> None:
        DuplicateJobError.__init__(self, workflow_id)
        self.workflow_id = workflow_id
        way_out = 'a workflow has this id; choose another, or start with id_conflict_policy="use_existing"'
        self.args = (f"{self.message}: {way_out}",)


class WorkflowClosedError(DurableError, InactiveJobError):
    """The workflow has ended: it takes no signals, updates or hooks any more."""

    def __init__(self, workflow_id: str, status: int | None = None) -> None:
        InactiveJobError.__init__(self, workflow_id, status=status)
        self.workflow_id = workflow_id
        self.args = (
            f"{self.message}: workflow already completed, or ended in another way: it takes nothing any more",
        )


class WorkflowNotFoundError(DurableError, JobNotFoundError):
    """There is no workflow of this id: it never existed, or its retention is over."""

    def __init__(self, workflow_id: str, *, namespace: str | None = None) -> None:
        where = "" if namespace is None else f"namespace {namespace}"
        JobNotFoundError.__init__(
            self,
            workflow_id,
            f"{workflow_id} Not Found",
            where=where,
            fate="it never existed, or its retention is over",
        )
        self.workflow_id = workflow_id


class SignalIdInUseError(DurableError):
    """Another live workflow waits for a signal of this id."""

    def __init__(self, signal_id: str, workflow_id: str | None = None) -> None:
        who = "another workflow" if workflow_id is None else f"workflow {workflow_id}"
        super().__init__(
            f"{who} waits for signal {signal_id} already: choose an id that names what it is about, or wait with shared=True"
        )
        self.signal_id = signal_id


class EscalationError(DurableError):
    """A work item could not be resolved or cancelled; `reason`: `not-found`, `already-resolved`, and so on."""

    def __init__(self, reason: str, escalation_id: str | None = None) -> None:
        which = "the work item" if escalation_id is None else f"work item {escalation_id}"
        super().__init__(f"{which} could not be settled: {reason}")
        self.reason = reason
        self.escalation_id = escalation_id


class MaxRecoveryAttemptsError(DurableError):
    """The process that ran it died, again and again: it is suspended, and can be resumed."""

    code = Code.UNKNOWN.value

    def __init__(self, workflow_id: str, attempts: int) -> None:
        super().__init__(
            f"workflow {workflow_id} was taken over {attempts} times from processes that died while they ran it; "
            f"it is suspended: mend the function that kills them, then resume() it"
        )
        self.workflow_id = workflow_id
        self.job_id = workflow_id
        self.attempts = attempts


class NotInWorkflowError(DurableError):
    """A function of `hotmesh.durable.workflow` was called where no workflow runs."""

    def __init__(self, call: str) -> None:
        super().__init__(
            f"{call} works only inside a workflow function, and on its own event loop: "
            f"start it with client.start_workflow(...), and do not call it from threads or activities"
        )
        self.call = call


class NotAllowedInWorkflowError(DurableError):
    """A workflow cannot be replayed with this call in it, or must not wait in it; the message and `use` say what to write instead."""

    def __init__(self, what: str, use: str, why: str = "replayed, it would not do the same again") -> None:
        super().__init__(f"{what} is not allowed in a workflow: {why}. {use}")
        self.what = what
        self.use = use


class NonDeterminismError(DurableError):
    """The code asks for something else than what is recorded at this `position`: it was changed, or is not deterministic.

    `expected` is what the history has, `actual` what the code did. Nothing is lost: the code that fits goes on from here.
    """

    def __init__(self, position: int, expected: str, actual: str) -> None:
        super().__init__(
            f"operation {position} of this workflow is not the one that is recorded:\n"
            f"  expected (history): {expected}\n"
            f"  actual (code):      {actual}\n"
            "Deploy code that asks for the same operations in the same order; what is new in it belongs after them."
        )
        self.position = position
        self.expected = expected
        self.actual = actual


# The names by which programs for the reference know them.
DurableFatalError = FatalError
DurableMaxedError = MaxedError
DurableRetryError = RetryableError
