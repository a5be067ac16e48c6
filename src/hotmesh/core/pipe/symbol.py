"""Values that a graph cannot write as a literal. Every function ignores its arguments."""

from __future__ import annotations

import math
from typing import Any, Final

from hotmesh.core.pipe.environment import Environment
from hotmesh.core.pipe.function import Functions
from hotmesh.core.pipe.instant import Date
from hotmesh.core.values import UNDEFINED, Undefined


def null() -> None:
    """Null.

    Example: () → null
    """


def undefined() -> Undefined:
    """Undefined: no value at all.

    Example: () → undefined
    """
    return UNDEFINED


def whitespace() -> str:
    """One blank.

    Example: () → " "
    """
    return " "


def object_() -> dict[str, Any]:
    """A new empty object.

    Example: () → {}
    """
    return {}


def array() -> list[Any]:
    """A new empty array.

    Example: () → []
    """
    return []


def positive_infinity() -> float:
    """Infinity.

    Example: () → Infinity
    """
    return math.inf


def negative_infinity() -> float:
    """Negative infinity.

    Example: () → -Infinity
    """
    return -math.inf


def nan() -> float:
    """The number that is none.

    Example: () → NaN
    """
    return math.nan


def date(environment: Environment) -> Date:
    """The current instant, as a date.

    Example: () → Date 2024-02-29T12:34:56.789Z
    """
    return Date(environment.now(), environment.tz)


FUNCTIONS: Final[Functions] = {
    "null": null,
    "undefined": undefined,
    "whitespace": whitespace,
    "object": object_,
    "array": array,
    "posInfinity": positive_infinity,
    "negInfinity": negative_infinity,
    "NaN": nan,
    "date": date,
}
