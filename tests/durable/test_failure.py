"""What users' code raises, stored and back: nothing of it is lost that anybody decides on, and nothing of it can hurt."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotmesh import JobError
from hotmesh.core.durable.failure import (
    MOST_CAUSES,
    Stored,
    activity_error,
    as_exhausted,
    child_error,
    exception_of,
    failure_of,
    names_of,
    retry_after,
    simple_failure,
    workflow_error,
)
from hotmesh.core.durable.retry import DEFAULT_RETRY, RetryPolicy
from hotmesh.durable import errors
from hotmesh.errors import PayloadError
from odd_errors import ODD_ERRORS


class DeclinedError(ValueError):
    """Cannot be made from its text alone, and has a code that is no business of ours."""

    def __init__(self, card: str, reason: str) -> None:
        super().__init__(f"card {card}: {reason}")
        self.code = "23505"


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    if cause is not None:
        error.__cause__ = cause
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001
        return caught


def through_json(stored: Stored) -> Stored:
    found: Stored = json.loads(json.dumps(stored))
    return found


def chain(error: BaseException | None) -> list[BaseException]:
    found = []
    while error is not None:
        found.append(error)
        error = error.__cause__
    return found


@pytest.mark.row("RT-27", "RT-31")
def test_an_exception_becomes_an_application_error_that_knows_what_it_was() -> None:
    stored = through_json(failure_of(raised(DeclinedError("4711", "no funds"))))

    found = exception_of(stored)

    assert type(found) is errors.ApplicationError
    assert (found.message, found.type, found.code, found.retryable) == (
        "card 4711: no funds", "DeclinedError", 599, True,
    )  # fmt: skip
    assert found.is_a("DeclinedError")
    assert found.is_a("ValueError")
    assert not found.is_a("Error")
    assert found.stack is not None
    assert "in raised\n    raise error\nDeclinedError: card 4711: no funds\n" in found.stack


@pytest.mark.row("RT-17")
def test_a_text_arrives_unchanged_through_activity_child_parent_and_client() -> None:
    words = 'no stock: "ä" \n of 5'
    stored = through_json(failure_of(raised(DeclinedError("1", words), KeyError("sku"))))
    in_child = activity_error(
        stored, activity_name="charge", activity_id="a.1", attempt=3, retry_state="exhausted"
    )
    of_child = through_json(as_exhausted(failure_of(raised(in_child))))
    in_parent = child_error(of_child, workflow_id="child-1", workflow_name="ship")
    of_parent = through_json(failure_of(raised(in_parent)))

    told = workflow_error(of_parent, "order-1")

    assert told.message == f"card 1: {words}"
    assert [type(error) for error in chain(told)] == [
        errors.WorkflowFailedError,
        errors.ChildWorkflowError,
        errors.ActivityExhaustedError,
        errors.ApplicationError,
        errors.ApplicationError,
    ]
    _, child, activity, application, cause = chain(told)
    assert isinstance(child, errors.ChildWorkflowError)
    assert (child.workflow_id, child.workflow_name, child.code) == ("child-1", "ship", 597)
    assert isinstance(activity, errors.ActivityError)
    assert (activity.activity_name, activity.activity_id, activity.attempt, activity.retry_state) == (
        "charge", "a.1", 3, "exhausted",
    )  # fmt: skip
    assert isinstance(application, errors.ApplicationError)
    assert (application.type, application.message) == ("DeclinedError", f"card 1: {words}")
    assert application.is_a("ValueError")
    assert isinstance(cause, errors.ApplicationError)
    assert cause.type == "KeyError"
    assert isinstance(told, JobError)
    assert (told.job_id, told.code) == ("order-1", 597)


@given(st.lists(st.text(max_size=20), min_size=1, max_size=40))
def test_a_chain_comes_back_whole(words: list[str]) -> None:
    error: BaseException | None = None
    for text in reversed(words):
        error = raised(RuntimeError(text), error)
    assert error is not None

    found = chain(exception_of(through_json(failure_of(error))))

    assert [str(one) for one in found] == [text or "RuntimeError" for text in words]


def test_a_chain_of_any_depth_keeps_its_beginning_and_its_root() -> None:
    error: BaseException | None = None
    for number in range(5_000):
        error = raised(ValueError(number), error)
    assert error is not None

    found = chain(exception_of(through_json(failure_of(error))))

    assert len(found) == MOST_CAUSES + 1
    assert (str(found[0]), str(found[-1])) == ("4999", "0")
    assert failure_of(error)["causes"][MOST_CAUSES // 2 - 1]["omitted"] == 4_999 - MOST_CAUSES


def test_a_chain_that_ends_in_itself_ends() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one

    assert [str(error) for error in chain(exception_of(failure_of(one)))] == ["one", "two"]


def test_what_was_handled_is_the_cause_unless_none_was_said() -> None:
    def failing(*, said: bool) -> BaseException:
        try:
            try:
                raise KeyError("first")
            except KeyError:
                if said:
                    raise ValueError("second") from None
                raise ValueError("second")  # noqa: B904
        except ValueError as error:
            return error

    assert [error["type"] for error in failure_of(failing(said=False))["causes"]] == ["KeyError"]
    assert "causes" not in failure_of(failing(said=True))


def test_a_group_comes_back_with_its_members() -> None:
    first_error: Exception = ValueError("a")
    raised(first_error, KeyError("k"))
    group = ExceptionGroup("unhandled errors", [first_error, ExceptionGroup("in", [OSError(5)])])

    found = exception_of(through_json(failure_of(raised(group))))

    assert isinstance(found, ExceptionGroup)
    assert found.message == "unhandled errors"
    first, second = found.exceptions
    assert isinstance(first, errors.ApplicationError)
    assert (first.type, str(first.__cause__)) == ("ValueError", "'k'")
    assert isinstance(second, ExceptionGroup)


def test_a_cancellation_comes_back_as_one() -> None:
    stored = through_json(failure_of(asyncio.CancelledError("by the customer")))

    assert (stored["type"], stored["code"]) == ("CancelledFailure", 598)
    assert isinstance(exception_of(stored), errors.CancelledFailure)
    told = workflow_error(stored, "order-1")
    assert type(told) is errors.WorkflowCancelledError
    assert (told.code, told.type) == (598, "CancelledFailure")


def test_what_ended_from_outside_says_so() -> None:
    terminated = workflow_error(simple_failure("too slow", type="TerminatedError", code=410), "order-1")
    timed_out = workflow_error(simple_failure("after 5 s", type="WorkflowTimeoutError", code=596), "order-1")

    assert (type(terminated), terminated.message, terminated.code) == (
        errors.WorkflowTerminatedError, "too slow", 410,
    )  # fmt: skip
    assert (type(timed_out), timed_out.__cause__) == (errors.WorkflowTimeoutError, None)
    assert str(timed_out) == "workflow order-1 took too long: WorkflowTimeoutError: after 5 s"
    child = child_error(simple_failure("too slow", type="TerminatedError", code=410), workflow_id="c")
    assert isinstance(child.__cause__, errors.TerminatedError)


OURS: list[tuple[BaseException, type[BaseException], int, str | float]] = [
    (errors.FatalError("no"), errors.FatalError, 598, "non_retryable"),
    (errors.MaxedError("no"), errors.MaxedError, 597, "non_retryable"),
    (errors.DurableTimeoutError("no"), errors.DurableTimeoutError, 596, "timeout"),
    (errors.RetryableError("no"), errors.RetryableError, 599, 1.0),
    (errors.ApplicationError("no", non_retryable=True), errors.FatalError, 598, "non_retryable"),
    (
        errors.ApplicationError("no", next_retry_delay=timedelta(minutes=1)),
        errors.ApplicationError,
        599,
        60.0,
    ),
    (errors.ApplicationError("no", type="Nope"), errors.ApplicationError, 599, 1.0),
    (ValueError("no"), errors.ApplicationError, 599, 1.0),
    (TimeoutError("no"), errors.ApplicationError, 599, 1.0),
    (PayloadError("no"), errors.FatalError, 598, "non_retryable"),
    (asyncio.CancelledError("no"), errors.CancelledFailure, 598, "cancelled"),
]


@pytest.mark.parametrize(("error", "kind", "code", "next_attempt"), OURS)
def test_each_error_comes_back_as_what_it_was_and_is_retried_or_not(
    error: BaseException, kind: type[BaseException], code: int, next_attempt: str | float
) -> None:
    stored = through_json(failure_of(raised(error)))

    assert stored["code"] == code
    assert type(exception_of(stored)) is kind
    assert stored["message"] == "no"
    assert retry_after(stored, DEFAULT_RETRY, 1) == next_attempt


@pytest.mark.row("RT-09", "RT-10")
@pytest.mark.parametrize(
    ("error", "state", "kinds", "code"),
    [
        (ValueError("x"), "exhausted", (errors.FatalError, errors.MaxedError), 597),
        (errors.FatalError("x"), "non_retryable", (errors.FatalError,), 598),
        (errors.MaxedError("x"), "non_retryable", (errors.MaxedError,), 597),
        (errors.DurableTimeoutError("x"), "timeout", (errors.DurableTimeoutError, TimeoutError), 596),
        (ValueError("x"), "cancelled", (errors.ActivityError,), 598),
    ],
)
def test_handlers_for_the_errors_of_users_take_those_of_activities(
    error: BaseException, state: Any, kinds: tuple[type[BaseException], ...], code: int
) -> None:
    found = activity_error(failure_of(error), activity_name="charge", attempt=2, retry_state=state)

    assert all(isinstance(found, kind) for kind in (*kinds, errors.ActivityError))
    assert (found.code, found.message, found.type, found.retryable) == (
        code,
        "x",
        type(error).__name__,
        False,
    )
    assert found.to_dict()["retry_state"] == state
    again = exception_of(through_json(failure_of(raised(found))))
    assert (type(again), str(again)) == (type(found), str(found))


@pytest.mark.row("RT-21")
def test_errors_that_a_policy_names_are_final_by_their_bases_too() -> None:
    stored = through_json(failure_of(DeclinedError("1", "x")))

    final: list[type[BaseException] | str] = [DeclinedError, ValueError, "DeclinedError", "ValueError"]
    others: list[type[BaseException] | str] = [KeyError, "Declined", "Error"]
    for name in final:
        assert retry_after(stored, RetryPolicy(non_retryable_errors=[name]), 1) == "non_retryable"
    for name in others:
        assert retry_after(stored, RetryPolicy(non_retryable_errors=[name]), 1) == 1.0
    assert f"{__name__}.DeclinedError" in names_of(stored)


def test_a_timeout_is_retried_if_the_policy_says_so() -> None:
    stored = failure_of(errors.DurableTimeoutError("x"))

    assert retry_after(stored, RetryPolicy(retry_on_timeout=True), 1) == 1.0
    assert retry_after(stored, RetryPolicy(retry_on_timeout=True, maximum_attempts=1), 1) == "timeout"


@pytest.mark.row("RT-08")
def test_a_workflow_whose_attempts_are_used_up_says_what_it_raised() -> None:
    told = workflow_error(as_exhausted(failure_of(raised(RuntimeError("recurring-test-error")))), "w")

    assert (told.message, told.code, told.type) == ("recurring-test-error", 597, "RuntimeError")
    assert told.stack is not None
    assert told.to_dict() == {"job_id": "w", **told.error}


def test_details_come_along_and_what_of_them_cannot_be_stored_is_said() -> None:
    good = through_json(
        failure_of(errors.ApplicationError("x", type="Declined", details={"limit": 5}, code=7))
    )
    bad = through_json(failure_of(errors.ApplicationError("x", details=object(), next_retry_delay="5")))

    found = exception_of(good)
    assert isinstance(found, errors.ApplicationError)
    assert (found.type, found.details, found.code, good["code"]) == ("Declined", {"limit": 5}, 7, 599)
    assert "details of the error cannot be stored" in bad["problem"]
    assert "details" not in bad


@pytest.mark.parametrize("name", ODD_ERRORS)
def test_an_odd_exception_is_stored_like_any_other(name: str) -> None:
    error = raised(ODD_ERRORS[name]())

    stored = failure_of(error)

    assert stored["code"] == 599
    assert len(json.dumps(stored)) < 100_000
    assert isinstance(exception_of(through_json(stored)), Exception)


class Liar(errors.ApplicationError):
    @property
    def details(self) -> Any:
        raise SystemExit(1)

    @details.setter
    def details(self, value: Any) -> None: ...

    code = property(lambda self: 1 / 0)


def test_a_class_below_ours_that_raises_when_asked_is_stored_all_the_same() -> None:
    assert failure_of(Liar("x", type="Liar"))["code"] == 599


STRANGE: list[Any] = [
    {},
    {"message": None},
    {"message": 5, "type": 7, "code": "x", "causes": 3},
    {"type": "os.system", "module": "os", "message": "rm"},
    {"activity_name": None, "retry_state": "never", "attempt": "two"},
    {"workflow_id": 3},
    {"errors": ["x", {"message": "y"}], "message": "(z"},
    {"causes": ["x", {"causes": [1]}], "bases": 3, "stack": 4, "next_retry_delay": "soon"},
]


@pytest.mark.parametrize("stored", STRANGE, ids=str)
def test_whatever_is_stored_comes_back_as_an_exception(stored: Any) -> None:
    assert isinstance(exception_of(stored), BaseException)
    assert isinstance(workflow_error(stored, "w"), errors.WorkflowFailedError)
    assert isinstance(
        activity_error(stored, activity_name="a", retry_state="exhausted"), errors.ActivityError
    )
    retry_after(stored, DEFAULT_RETRY, 1)


def test_no_module_is_imported_for_an_error() -> None:
    program = (
        "import sys\n"
        "from hotmesh.core.durable.failure import exception_of\n"
        "before = set(sys.modules)\n"
        "exception_of({'type': 'JSONDecodeError', 'module': 'wsgiref.headers', 'message': 'x', 'bases': ['cgitb.Hook']})\n"
        "assert set(sys.modules) == before, set(sys.modules) - before\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
