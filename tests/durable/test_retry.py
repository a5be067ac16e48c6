"""When a function that has failed is tried again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotmesh.core.durable.retry import DEFAULT_RETRY, NO_RETRY, RetryPolicy, nearest_policy
from hotmesh.errors import ConfigError


class DeclinedError(Exception):
    pass


def delays(policy: RetryPolicy, most: int = 8) -> list[float | None]:
    return [policy.delay(attempt) for attempt in range(1, most + 1)]


def test_each_wait_is_longer_up_to_the_longest() -> None:
    policy = RetryPolicy(
        initial_interval="2s",
        backoff_coefficient=3,
        maximum_interval=timedelta(seconds=30),
        maximum_attempts=6,
    )

    assert delays(policy) == [2, 6, 18, 30, 30, None, None, None]


@pytest.mark.row("RT-20")
def test_one_attempt_is_no_retry() -> None:
    assert delays(RetryPolicy(maximum_attempts=1), 1) == [None]
    assert delays(NO_RETRY, 1) == [None]


@pytest.mark.parametrize("given", [0, None])
def test_none_is_without_end(given: Any) -> None:
    policy = RetryPolicy(maximum_attempts=given)

    assert policy.delay(10**9) == 120.0
    assert RetryPolicy.from_json(policy.to_json()) == policy


def test_the_defaults_are_those_of_the_documentation() -> None:
    assert delays(DEFAULT_RETRY, 5) == [1, 5, 25, 120, 120]
    assert (DEFAULT_RETRY.delay(50), DEFAULT_RETRY.delay(51)) == (120, None)


# The reference counts retries, and multiplies before the first.
@pytest.mark.row("RT-02", "RT-32")
def test_the_formula_of_the_reference() -> None:
    assert delays(RetryPolicy.compat(maximum_attempts=2, backoff_coefficient=2), 3) == [2.0, 4.0, None]
    assert delays(RetryPolicy.compat(maximum_attempts=0), 1) == [None]
    assert delays(RetryPolicy.compat(maximum_attempts=4, backoff_coefficient=10), 5) == [
        10,
        100,
        120,
        120,
        None,
    ]


@pytest.mark.row("RT-23")
@given(st.integers(1, 2000), st.floats(0, 1), st.floats(0, 1))
def test_jitter_stays_within_its_fraction(attempt: int, chance: float, jitter: float) -> None:
    exact = RetryPolicy(jitter=0, maximum_attempts=None).delay(attempt)
    found = RetryPolicy(jitter=jitter, maximum_attempts=None).delay(attempt, chance)

    assert exact is not None
    assert found is not None
    assert exact * (1 - jitter) - 1e-9 <= found <= exact * (1 + jitter) + 1e-9


def test_a_policy_is_stored_whole() -> None:
    policy = RetryPolicy(
        initial_interval=0.5, backoff_coefficient=2, maximum_attempts=None, jitter=0, retry_on_timeout=True,
        non_retryable_errors=[DeclinedError, KeyError, "Gone"],
    )  # fmt: skip

    assert RetryPolicy.from_json(policy.to_json()) == policy
    assert RetryPolicy.from_json({**policy.to_json(), "of_a_newer_release": 1}) == policy
    assert policy.non_retryable_errors == (f"{__name__}.DeclinedError", "KeyError", "Gone")


def test_the_nearest_policy_counts_as_a_whole() -> None:
    call, worker = RetryPolicy(maximum_attempts=2), RetryPolicy(maximum_attempts=9, jitter=0)

    assert nearest_policy(None, call, worker) is call
    assert nearest_policy(None, None) is DEFAULT_RETRY


@pytest.mark.row("PX-24")
def test_durations_are_seconds_a_timedelta_or_text() -> None:
    found = {
        RetryPolicy(initial_interval=given).initial_interval
        for given in ("5 seconds", "5s", 5, 5.0, timedelta(seconds=5))
    }

    assert found == {5.0}
    with pytest.raises(ConfigError, match=r"'5000' has no unit; write 5000 .* or text such as '5000s'"):
        RetryPolicy(initial_interval="5000")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"maximum_attempts": -1}, "counts all attempts"),
        ({"maximum_attempts": True}, "counts all attempts"),
        ({"maximum_attempts": 2.5}, "counts all attempts"),
        ({"backoff_coefficient": 0.5}, "a number of at least 1"),
        ({"backoff_coefficient": float("nan")}, "a number of at least 1"),
        ({"jitter": 1.5}, "from 0 to 1"),
        ({"initial_interval": -1}, "initial_interval of a RetryPolicy must be"),
        ({"maximum_interval": "soon"}, "maximum_interval of a RetryPolicy 'soon' is not a duration"),
        ({"non_retryable_errors": ValueError}, "a list of exception classes"),
        ({"non_retryable_errors": "ValueError"}, "a list of exception classes"),
        ({"non_retryable_errors": [5]}, "neither an exception class nor the name"),
        ({"retry_on_timeout": 1}, "must be True or False"),
        ({"maximumAttempts": 3}, "did you mean maximum_attempts?"),
        ({"attempts": 3}, "retry has no field 'attempts'"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RetryPolicy.read(given)

    assert words in str(caught.value)


def test_a_policy_is_one_or_a_dict_of_its_fields() -> None:
    assert RetryPolicy.read({"maximum_attempts": 3}) == RetryPolicy(maximum_attempts=3)
    assert RetryPolicy.read(NO_RETRY) is NO_RETRY
    with pytest.raises(ConfigError, match="must be a RetryPolicy or a dict"):
        RetryPolicy.read(3)
