"""Functions that choose one of two operands by its truth. The answer is the operand, not a boolean."""

from __future__ import annotations

from typing import Any, Final

from hotmesh.core.pipe.coercion import to_boolean
from hotmesh.core.pipe.function import Functions
from hotmesh.core.values import UNDEFINED


def and_(a: Any = UNDEFINED, b: Any = UNDEFINED) -> Any:
    """The first operand if it is false, else the second.

    Example: (1, "x") → "x"
    Example: (0, "x") → 0
    """
    return b if to_boolean(a) else a


def or_(a: Any = UNDEFINED, b: Any = UNDEFINED) -> Any:
    """The first operand if it is true, else the second; empty arrays and objects are true.

    Example: (0, "x") → "x"
    Example: ([], 1) → []
    """
    return a if to_boolean(a) else b


FUNCTIONS: Final[Functions] = {"and": and_, "or": or_}
