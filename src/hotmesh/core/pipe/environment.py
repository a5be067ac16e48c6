"""What impure functions need from the world: passed in with the context, never looked up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import Any, Final, final

from hotmesh.errors import MappingError


@final
class _EnvironmentKey:
    __slots__ = ()

    def __repr__(self) -> str:
        return "ENVIRONMENT"


ENVIRONMENT: Final = _EnvironmentKey()
"""The key under which a context carries its `Environment`. It is no text, so no path reaches it."""


@dataclass(frozen=True, slots=True)
class Environment:
    """The world as functions see it.

    `now` gives ms after 1970, `random` a number in [0, 1), `tz` is the zone of the process, and `fidelity` the
    shortest delay in seconds that `{@cron.nextDelay}` answers.
    """

    now: Callable[[], float]
    random: Callable[[], float]
    tz: tzinfo = UTC
    fidelity: float = 5.0


def environment_of(context: Mapping[Any, Any]) -> Environment:
    """The environment that the context carries. Raises MappingError if it carries none."""
    try:
        found: Environment = context[ENVIRONMENT]
    except KeyError:
        raise MappingError(
            "this expression depends on the clock, on chance or on the time zone, and the context has no "
            "environment: add one under the key ENVIRONMENT"
        ) from None
    return found
