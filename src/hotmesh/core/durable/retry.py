"""When a function that has failed is tried again: pure, chance is handed in.

`RetryPolicy` is what users write, once for workflows, activities and steps. Of several that apply the nearest one counts,
as a whole: that of the call, of the proxy, of the definition, of the start of the workflow, of the worker, of the client,
and `DEFAULT_RETRY`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from hotmesh.core.duration import LONGEST_TIME, Duration, seconds_with_unit
from hotmesh.errors import ConfigError
from hotmesh.nearest import nearest

_MOST_ATTEMPTS: Final = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a function is tried, and how long to wait between.

    Before retry n (1, 2, …) it waits `min(initial_interval * backoff_coefficient ** (n - 1), maximum_interval)` seconds,
    give or take the fraction `jitter` of it. Durations are seconds, a timedelta or text such as "5 seconds".
    """

    initial_interval: Duration = 1.0
    """Before the first retry."""
    backoff_coefficient: float = 5.0
    """By how much each wait is longer than the one before it; 1: all are the same."""
    maximum_interval: Duration = 120.0
    """The longest wait."""
    maximum_attempts: int | None = 51
    """All attempts, with the first one. 1: it is never retried; 0 or None: without end."""
    non_retryable_errors: Collection[type[BaseException] | str] = ()
    """Classes, or their names: what is of such a class, or of one below it, is final. Kept as names."""
    retry_on_timeout: bool | None = None
    """Whether an attempt that took too long is followed by another one. None: of an activity or step, if it was ended by its
    `start_to_close_timeout`; not what raises a timeout error itself."""
    jitter: float = 0.1
    """The fraction by which a wait may be shorter or longer, from 0 to 1; 0 for exact times."""
    first_exponent: int = 0
    """The exponent at the first retry; 1 only for `compat`."""

    def __post_init__(self) -> None:
        for name in ("initial_interval", "maximum_interval"):
            found = seconds_with_unit(getattr(self, name), name=f"{name} of a RetryPolicy")
            _set(self, name, min(found, LONGEST_TIME))
        _set(self, "backoff_coefficient", _number(self.backoff_coefficient, "backoff_coefficient", 1))
        _set(self, "jitter", _number(self.jitter, "jitter", 0, 1))
        _set(self, "maximum_attempts", _attempts(self.maximum_attempts))
        _set(self, "non_retryable_errors", _error_names(self.non_retryable_errors))
        if not isinstance(self.retry_on_timeout, bool | None):
            raise ConfigError(f"retry_on_timeout must be True or False, not {self.retry_on_timeout!r}")
        if self.first_exponent not in (0, 1) or isinstance(self.first_exponent, bool):
            raise ConfigError(f"first_exponent must be 0 or 1, not {self.first_exponent!r}")

    @classmethod
    def compat(
        cls,
        *,
        maximum_attempts: int = 50,
        backoff_coefficient: float = 5.0,
        maximum_interval: Duration = 120.0,
        initial_interval: Duration = 1.0,
    ) -> RetryPolicy:
        """The policy of the reference: so many *re*tries, the first wait is already multiplied, exact times."""
        retries = _attempts(maximum_attempts)
        return cls(
            initial_interval=initial_interval,
            backoff_coefficient=backoff_coefficient,
            maximum_interval=maximum_interval,
            maximum_attempts=(retries or 0) + 1,
            jitter=0,
            first_exponent=1,
        )

    def delay(self, attempt: int, chance: float = 0.5) -> float | None:
        """Seconds to wait after attempt number `attempt` (1, 2, …) has failed; None: it was the last one.

        `chance` is a random number from 0 to 1, for the jitter; 0.5 is none.
        """
        if attempt < 1:
            raise ValueError(f"attempts count from 1, not {attempt}")
        if self.maximum_attempts is not None and attempt >= self.maximum_attempts:
            return None
        initial, longest = float(self.initial_interval), float(self.maximum_interval)  # type: ignore[arg-type]
        try:
            wait = initial * self.backoff_coefficient ** (attempt - 1 + self.first_exponent)
        except OverflowError:
            wait = longest if initial else 0.0
        return max(0.0, min(wait, longest) * (1 + self.jitter * (2 * chance - 1)))

    def forbids(self, names: Sequence[str]) -> bool:
        """Whether an error of a class of one of these names, its own and those of its bases, is final."""
        forbidden = self.non_retryable_errors
        return bool(forbidden) and any(
            found == name or found.endswith(f".{name}") for found in names for name in forbidden
        )

    def to_json(self) -> dict[str, Any]:
        """As plain data, to be stored: all of it, so that other defaults of another release change no stored policy."""
        found = {name: getattr(self, name) for name in _FIELDS}
        return found | {"non_retryable_errors": list(self.non_retryable_errors)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> RetryPolicy:
        """What `to_json` gave, also that of a newer release: unknown members are left out."""
        return cls(**{name: value for name, value in stored.items() if name in _FIELDS})

    @classmethod
    def read(cls, given: Any, name: str = "retry") -> RetryPolicy | None:
        """A policy as users write it: one of these, a dict of its fields, or None. Raises ConfigError."""
        if given is None or isinstance(given, RetryPolicy):
            return given
        if not isinstance(given, Mapping):
            raise ConfigError(f"{name} must be a RetryPolicy or a dict of its fields, not {given!r}")
        for key in given:
            if key not in _FIELDS:
                near = nearest(str(key), _FIELDS)
                hint = f"; did you mean {near}?" if near else ""
                raise ConfigError(f"{name} has no field {key!r}{hint} (there are: {', '.join(_FIELDS)})")
        return cls(**given)


def _set(policy: RetryPolicy, name: str, value: Any) -> None:
    object.__setattr__(policy, name, value)


def _number(value: Any, name: str, least: float, most: float = math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        between = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
        raise ConfigError(f"{name} of a RetryPolicy must be a number {between}, not {value!r}")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise ConfigError(f"{name} of a RetryPolicy must be finite, not {value!r}")
    return found


def _attempts(value: Any) -> int | None:
    if value is None or (value == 0 and not isinstance(value, bool)):
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _MOST_ATTEMPTS:
        raise ConfigError(
            f"maximum_attempts of a RetryPolicy counts all attempts: 1 for no retry, 0 or None for no end, not {value!r}"
        )
    return value


def _error_names(given: Any) -> tuple[str, ...]:
    if isinstance(given, str | type) or not isinstance(given, Collection):
        raise ConfigError(
            f"non_retryable_errors of a RetryPolicy is a list of exception classes or their names, not {given!r}"
        )
    return tuple(_error_name(item) for item in given)


def _error_name(item: Any) -> str:
    if isinstance(item, str) and item:
        return item
    if isinstance(item, type) and issubclass(item, BaseException):
        return class_name(item)
    raise ConfigError(
        f"non_retryable_errors of a RetryPolicy has {item!r}, which is neither an exception class nor the name of one"
    )


_NAME: Final[Any] = type.__dict__["__qualname__"]


def class_name(kind: type) -> str:
    """The name by which a class is stored: `app.orders.Declined`, or `ValueError` for one of Python's own.

    Asked past metaclasses, which may raise. Also without the parts of a name that only say in which function it was made.
    """
    name: str = _NAME.__get__(kind).rpartition("<locals>.")[2]
    module = type.__getattribute__(kind, "__dict__").get("__module__")
    return name if module == "builtins" or type(module) is not str else f"{module}.{name}"


_FIELDS: Final = tuple(RetryPolicy.__dataclass_fields__)

DEFAULT_RETRY: Final = RetryPolicy()
"""What counts where nobody has said anything: 51 attempts, 1 s, 5 s, 25 s, then 120 s apart."""

NO_RETRY: Final = RetryPolicy(maximum_attempts=1)
"""One attempt."""


def on_timeout(policy: RetryPolicy, wanted: bool | None = None) -> RetryPolicy:
    """The policy for an attempt that its own time limit has ended, which is tried again unless somebody says otherwise."""
    found = wanted if wanted is not None else policy.retry_on_timeout is not False
    return policy if found == policy.retry_on_timeout else replace(policy, retry_on_timeout=found)


def nearest_policy(*policies: RetryPolicy | None) -> RetryPolicy:
    """The first that is given, nearest first; `DEFAULT_RETRY` if none is."""
    for policy in policies:
        if policy is not None:
            return policy
    return DEFAULT_RETRY
