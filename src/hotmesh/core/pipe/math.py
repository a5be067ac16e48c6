"""Functions on numbers. Operands are converted to numbers; nothing raises for a number out of its domain.

Results outside the doubles are infinities, those without meaning NaN.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

from hotmesh.core.pipe.coercion import INFINITY, NAN, SAFE, double, tidy, to_int32, to_number, to_uint32
from hotmesh.core.pipe.environment import Environment
from hotmesh.core.pipe.function import BadArgumentError, Functions
from hotmesh.core.values import UNDEFINED


def add(*numbers: Any) -> float:
    """The sum, 0 without arguments; arrays are summed member by member.

    Example: (1, 2, 3) → 6
    Example: ("5", 3) → 8
    Example: ([1, [2, 3]], 4) → 10
    """
    total: float = 0
    for value in numbers:
        kind = type(value)
        if kind is int or kind is float:
            total += value
        else:
            total += add(*value) if isinstance(value, list) else to_number(value)
    if type(total) is int and not -SAFE <= total <= SAFE:
        return _in_doubles(numbers)
    return total


def subtract(first: Any, *numbers: Any) -> Any:
    """The first minus all the rest; arrays count as their members. One value is returned as it is.

    Example: (10, 3, 2) → 5
    Example: ([8, 2, 2]) → 4
    """
    values = _flat(first, numbers)
    if len(values) == 1:
        return values[0]
    result = to_number(values[0])
    for value in values[1:]:
        result = tidy(result - to_number(value))
    return result


def multiply(first: Any, *numbers: Any) -> float:
    """The product; arrays are multiplied member by member, an empty one is an error.

    Example: (2, 3, 4) → 24
    Example: ("3", [4, [5]]) → 60
    """
    result: float = 1
    for value in (first, *numbers):
        kind = type(value)
        if kind is float or kind is int:
            result *= value
        elif isinstance(value, list):
            if not value:
                raise BadArgumentError("there is nothing to multiply in an empty array", None)
            result *= multiply(*value)
        else:
            result *= to_number(value)
        if type(result) is int and not -SAFE <= result <= SAFE:
            result = double(result)
    return result


def divide(first: Any, *numbers: Any) -> Any:
    """The first divided by each of the rest in turn; arrays count as their members. Dividing by zero gives NaN.

    Example: (100, 5, 2) → 10
    Example: (7, 0) → NaN
    """
    values = _flat(first, numbers)
    if len(values) == 1:
        return values[0]
    result = to_number(values[0])
    for value in values[1:]:
        divisor = to_number(value)
        result = NAN if divisor == 0 else result / divisor
    return tidy(result)


def atan2(y: Any = UNDEFINED, x: Any = UNDEFINED) -> float:
    """The angle of the point (x, y), in radians.

    Example: (1, -1) → 2.356194490192345
    """
    return math.atan2(to_number(y), to_number(x))


def cbrt(x: Any = UNDEFINED) -> float:
    """The real cube root; exact for perfect cubes.

    Example: (-8) → -2
    """
    number = to_number(x)
    root = math.cbrt(number)
    nearest = round(root) if math.isfinite(root) else root
    return nearest if nearest**3 == number else root


def ceil(x: Any = UNDEFINED) -> float:
    """The nearest whole number that is not below.

    Example: (1.2) → 2
    """
    number = to_number(x)
    return tidy(float(math.ceil(number))) if math.isfinite(number) else number


def clz32(x: Any = UNDEFINED) -> int:
    """The leading zeros among the number's 32 bits.

    Example: (1) → 31
    """
    return 32 - to_uint32(x).bit_length()


def floor(x: Any = UNDEFINED) -> float:
    """The nearest whole number that is not above.

    Example: (-1.1) → -2
    """
    number = to_number(x)
    return tidy(float(math.floor(number))) if math.isfinite(number) else number


def fround(x: Any = UNDEFINED) -> float:
    """The nearest 32-bit floating-point number.

    Example: (1.1) → 1.100000023841858
    """
    number = float(to_number(x))
    try:
        return float(struct.unpack("<f", struct.pack("<f", number))[0])
    except OverflowError:
        return math.copysign(INFINITY, number)


def hypot(*numbers: Any) -> float:
    """The square root of the sum of squares; 0 without arguments.

    Example: (3, 4) → 5
    """
    return tidy(math.hypot(*map(to_number, numbers)))


def imul(a: Any = UNDEFINED, b: Any = UNDEFINED) -> int:
    """The product of two 32-bit numbers, wrapped to 32 bits.

    Example: (4294967295, 5) → -5
    """
    return to_int32((to_uint32(a) * to_uint32(b)) & 0xFFFFFFFF)


def maximum(*numbers: Any) -> float:
    """The largest; NaN if one is not a number, -Infinity without arguments. Arrays are not spread.

    Example: (1, 5, 3) → 5
    Example: () → -Infinity
    """
    result: float = -INFINITY
    for value in map(to_number, numbers):
        if value != value or result != result:
            result = NAN
        elif value > result:
            result = value
    return result


def minimum(*numbers: Any) -> float:
    """The smallest; NaN if one is not a number, Infinity without arguments. Arrays are not spread.

    Example: (1, 5, 3) → 1
    Example: () → Infinity
    """
    result: float = INFINITY
    for value in map(to_number, numbers):
        if value != value or result != result:
            result = NAN
        elif value < result:
            result = value
    return result


def pow_(base: Any = UNDEFINED, exponent: Any = UNDEFINED) -> float:
    """The power. Anything to the power 0 is 1; a negative base with a fraction for exponent gives NaN.

    Example: (2, 10) → 1024
    Example: (-8, 0.5) → NaN
    """
    left, right = float(to_number(base)), float(to_number(exponent))
    if right != right or (abs(left) == 1 and math.isinf(right)):
        return NAN
    odd = right.is_integer() and math.fmod(right, 2) != 0
    try:
        return tidy(math.pow(left, right))
    except OverflowError:
        return -INFINITY if left < 0 and odd else INFINITY
    except ValueError:  # zero to a negative power, or a root of a negative number
        if left == 0:
            return -INFINITY if odd and math.copysign(1, left) < 0 else INFINITY
        return NAN


def random(environment: Environment) -> float:
    """A random number from 0 up to, not including, 1.

    Example: () → 0.5
    """
    return environment.random()


def round_(x: Any = UNDEFINED) -> float:
    """The nearest whole number; halves go up, towards Infinity.

    Example: (2.5) → 3
    Example: (-2.5) → -2
    """
    number = to_number(x)
    if type(number) is int or not math.isfinite(number):
        return number
    below = math.floor(number)
    return tidy(float(below + 1 if number - below >= 0.5 else below))


def sign(x: Any = UNDEFINED) -> float:
    """-1, 0 or 1, or NaN.

    Example: (-3.2) → -1
    """
    number = to_number(x)
    return number if number != number else (number > 0) - (number < 0)


def trunc(x: Any = UNDEFINED) -> float:
    """The number without its fraction.

    Example: (-4.7) → -4
    """
    number = to_number(x)
    return tidy(float(math.trunc(number))) if math.isfinite(number) else number


def _one_argument(
    compute: Callable[[float], float],
    document: str,
    *,
    poles: tuple[tuple[float, float], ...] = (),
) -> Callable[..., float]:
    """A function of one number: NaN outside its domain, listed values at its poles."""

    def function(x: Any = UNDEFINED) -> float:
        number = to_number(x)
        try:
            return tidy(compute(number))
        except ValueError:
            return next((value for pole, value in poles if pole == number), NAN)
        except OverflowError:
            return INFINITY

    function.__doc__ = document
    return function


def _odd_overflow(compute: Callable[[float], float]) -> Callable[[float], float]:
    def function(number: float) -> float:
        try:
            return compute(number)
        except OverflowError:
            return math.copysign(INFINITY, number)

    return function


def _in_doubles(numbers: Any) -> float:
    """The sum as doubles add up: the whole numbers involved are past what they hold exactly."""
    total = 0.0
    for value in numbers:
        total += float(add(*value)) if isinstance(value, list) else float(to_number(value))
    return total


def _flat(first: Any, numbers: tuple[Any, ...]) -> list[Any]:
    def members() -> Iterator[Any]:
        for value in (first, *numbers):
            if isinstance(value, list):
                yield from value
            else:
                yield value

    values = list(members())
    if not values:
        raise BadArgumentError("there are no operands in empty arrays", None)
    return values


FUNCTIONS: Final[Functions] = {
    "add": add,
    "subtract": subtract,
    "multiply": multiply,
    "divide": divide,
    "abs": _one_argument(abs, "The number without its sign.\n\nExample: (-4) → 4"),
    "acos": _one_argument(
        math.acos, "The arc cosine, in radians; NaN outside [-1, 1].\n\nExample: (0.5) → 1.0471975511965979"
    ),
    "acosh": _one_argument(
        math.acosh, "The inverse hyperbolic cosine; NaN below 1.\n\nExample: (2) → 1.3169578969248166"
    ),
    "asin": _one_argument(
        math.asin, "The arc sine, in radians; NaN outside [-1, 1].\n\nExample: (0.5) → 0.5235987755982989"
    ),
    "asinh": _one_argument(math.asinh, "The inverse hyperbolic sine.\n\nExample: (1) → 0.881373587019543"),
    "atan": _one_argument(math.atan, "The arc tangent, in radians.\n\nExample: (1) → 0.7853981633974483"),
    "atan2": atan2,
    "atanh": _one_argument(
        math.atanh,
        "The inverse hyperbolic tangent; infinite at -1 and 1, NaN beyond.\n\nExample: (0.5) → 0.5493061443340548",
        poles=((1, INFINITY), (-1, -INFINITY)),
    ),
    "cbrt": cbrt,
    "ceil": ceil,
    "clz32": clz32,
    "cos": _one_argument(math.cos, "The cosine of an angle in radians.\n\nExample: (0) → 1"),
    "cosh": _one_argument(math.cosh, "The hyperbolic cosine.\n\nExample: (1000) → Infinity"),
    "exp": _one_argument(math.exp, "e to the power of the number.\n\nExample: (1) → 2.718281828459045"),
    "expm1": _one_argument(
        math.expm1,
        "e to the power of the number, minus 1, exact near 0.\n\nExample: (1e-10) → 1.00000000005e-10",
    ),
    "floor": floor,
    "fround": fround,
    "hypot": hypot,
    "imul": imul,
    "log": _one_argument(
        math.log,
        "The natural logarithm; -Infinity at 0, NaN below.\n\nExample: (1) → 0\nExample: (0) → -Infinity",
        poles=((0, -INFINITY),),
    ),
    "log10": _one_argument(
        math.log10, "The logarithm to base 10.\n\nExample: (1000) → 3", poles=((0, -INFINITY),)
    ),
    "log1p": _one_argument(
        math.log1p,
        "The natural logarithm of 1 plus the number, exact near 0.\n\nExample: (-1) → -Infinity",
        poles=((-1, -INFINITY),),
    ),
    "log2": _one_argument(math.log2, "The logarithm to base 2.\n\nExample: (8) → 3", poles=((0, -INFINITY),)),
    "max": maximum,
    "min": minimum,
    "pow": pow_,
    "random": random,
    "round": round_,
    "sign": sign,
    "sin": _one_argument(math.sin, "The sine of an angle in radians.\n\nExample: (1) → 0.8414709848078965"),
    "sinh": _one_argument(
        _odd_overflow(math.sinh), "The hyperbolic sine.\n\nExample: (1) → 1.1752011936438014"
    ),
    "sqrt": _one_argument(math.sqrt, "The square root; NaN below 0.\n\nExample: (9) → 3"),
    "tan": _one_argument(
        math.tan, "The tangent of an angle in radians.\n\nExample: (1) → 1.5574077246549023"
    ),
    "tanh": _one_argument(math.tanh, "The hyperbolic tangent.\n\nExample: (1) → 0.7615941559557649"),
    "trunc": trunc,
}
