"""Options by name: what is refused, and what counts where several say something."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from hotmesh.core.durable.retry import RetryPolicy
from hotmesh.durable.definition import read_activity
from hotmesh.durable.options import ActivityOptions, Options, StartOptions, StepOptions, WorkflowOptions
from hotmesh.errors import ConfigError

ALL = [WorkflowOptions, StartOptions, ActivityOptions, StepOptions]


@pytest.mark.parametrize("kind", ALL)
def test_nothing_given_is_the_defaults(kind: type[Options]) -> None:
    assert kind.read({}) == kind()
    assert kind.read({"retry": None}) == kind()
    assert kind().given() == {}


@pytest.mark.parametrize("kind", ALL)
def test_a_misspelt_name_is_said_with_the_one_that_is_meant(kind: type[Options]) -> None:
    with pytest.raises(
        TypeError, match=rf"^{kind.where} has no option retr; did you mean retry\? \(there are: "
    ):
        kind.read({"retr": {}})


def test_durations_become_seconds() -> None:
    found = StartOptions.read(
        {
            "execution_timeout": "1.5 hours",
            "run_timeout": timedelta(minutes=1),
            "start_delay": 5,
            "retention": "7 days",
        }
    )

    assert (found.execution_timeout, found.run_timeout, found.start_delay, found.retention) == (
        5400,
        60,
        5,
        604_800,
    )
    assert StartOptions.read({"retention": math.inf}).retention == math.inf


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        (StartOptions, {"id_conflict_policy": "use_exsting", "id": "a"}, "did you mean 'use_existing'?"),
        (StartOptions, {"id_conflict_policy": "use_existing"}, "means nothing without an id"),
        (StartOptions, {"id_reuse_policy": 5}, "is one of 'allow', 'allow_failed_only', 'reject', not 5"),
        (StartOptions, {"id": ""}, "id of start_workflow is empty"),
        (StartOptions, {"id": "a\0"}, "has a NUL character"),
        (StartOptions, {"id": "x" * 513}, "has 513 bytes; it may have at most 512"),
        (StartOptions, {"id": 7}, "id of start_workflow must be a text, not 7"),
        (StartOptions, {"task_queue": "orders-activity"}, "write the queue itself, 'orders'"),
        (StartOptions, {"execution_timeout": 0}, "must be longer than 0; leave it out for no limit"),
        (StartOptions, {"execution_timeout": "60"}, "has no unit"),
        (StartOptions, {"start_delay": -1}, "start_delay of start_workflow must be"),
        (StartOptions, {"search": {"a": 1}}, "search of start_workflow, a must be a text"),
        (StartOptions, {"memo": [1]}, "memo of start_workflow must be a dict"),
        (ActivityOptions, {"retry_on_timeout": "yes"}, "must be True or False"),
        (
            ActivityOptions,
            {"cancellation_type": "try"},
            "is one of 'try_cancel', 'wait_completed', 'abandon', not 'try'",
        ),
        (
            ActivityOptions,
            {"start_to_close_timeout": 9, "schedule_to_close_timeout": 5},
            "start_to_close_timeout of an activity (9 s, one attempt) is longer than schedule_to_close_timeout (5 s",
        ),
        (StepOptions, {"start_to_close_timeout": 9, "schedule_to_close_timeout": 5}, "is longer than"),
        (WorkflowOptions, {"on_nondeterminism": "stop"}, "is one of 'park', 'fail'"),
    ],
)
def test_what_cannot_be_meant_is_refused(kind: type[Options], given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        kind.read(given)

    assert words in str(caught.value)


def test_a_call_counts_over_its_proxy_and_that_over_the_definition() -> None:
    definition = ActivityOptions(
        start_to_close_timeout=30.0, summary="pays", retry=RetryPolicy(maximum_attempts=2)
    )
    proxy = ActivityOptions(task_queue="payments", start_to_close_timeout=10.0)
    call = ActivityOptions.read({"start_to_close_timeout": 5})

    found = call.over(proxy.over(definition))

    assert (found.task_queue, found.start_to_close_timeout, found.summary) == ("payments", 5.0, "pays")
    assert found.retry == RetryPolicy(maximum_attempts=2)


def test_a_call_may_say_whether_timeouts_are_retried() -> None:
    policy = RetryPolicy(maximum_attempts=2)

    assert ActivityOptions(retry=policy).policy is policy
    assert ActivityOptions(retry_on_timeout=True).policy is None
    assert ActivityOptions(retry=policy, retry_on_timeout=True).policy == RetryPolicy(
        maximum_attempts=2, retry_on_timeout=True
    )


def test_of_an_activity_that_runs_as_a_step_what_a_step_has_counts() -> None:
    async def charge() -> None: ...

    options = ActivityOptions(task_queue="q", start_to_close_timeout=3.0, heartbeat_timeout=1.0)

    assert read_activity(charge, options).step_options == StepOptions(start_to_close_timeout=3.0)
