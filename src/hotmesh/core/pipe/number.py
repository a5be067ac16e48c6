"""Functions that test, parse and write numbers."""

from __future__ import annotations

import math
import re
from decimal import MAX_PREC, ROUND_HALF_UP, Context, Decimal
from typing import Any, Final

from hotmesh.core.pipe.coercion import (
    BLANKS,
    INFINITY,
    NAN,
    decimal_digits,
    is_number,
    less_than,
    number_text,
    tidy,
    to_int32,
    to_integer,
    to_number,
    to_text,
)
from hotmesh.core.pipe.function import BadArgumentError, Functions, kind
from hotmesh.core.pipe.math import maximum, minimum, pow_, round_
from hotmesh.core.values import UNDEFINED

_FLOAT_PREFIX: Final = re.compile(r"[+-]?(?:Infinity|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)")
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_EXACT: Final = Context(prec=2000, rounding=ROUND_HALF_UP, Emax=MAX_PREC, Emin=-MAX_PREC)


def is_finite(x: Any = UNDEFINED) -> bool:
    """Whether it is a finite number; text never is.

    Example: (42) → true
    Example: ("42") → false
    """
    return is_number(x) and math.isfinite(to_number(x))


def is_even(x: Any = UNDEFINED) -> bool:
    """Whether the value, as a number, can be divided by 2 without rest.

    Example: ("4") → true
    Example: (2.5) → false
    """
    number = to_number(x)
    return math.isfinite(number) and math.fmod(number, 2) == 0


def is_odd(x: Any = UNDEFINED) -> bool:
    """Whether the value, as a number, leaves a rest when divided by 2; so fractions count as odd.

    Example: (7) → true
    Example: ("x") → false
    """
    number = to_number(x)
    if number != number:
        return False
    return math.isinf(number) or math.fmod(number, 2) != 0


def is_integer(x: Any = UNDEFINED) -> bool:
    """Whether it is a number without fraction.

    Example: (5) → true
    Example: ("5") → false
    """
    return is_number(x) and float(to_number(x)).is_integer()


def is_nan(x: Any = UNDEFINED) -> bool:
    """Whether it is NaN itself.

    Example: (NaN) → true
    Example: ("abc") → false
    """
    return isinstance(x, float) and math.isnan(x)


def parse_float(text: Any = UNDEFINED) -> float:
    """The decimal number at the start of the text; NaN if there is none.

    Example: ("3.14abc") → 3.14
    Example: ("1,234.5") → 1
    """
    found = _FLOAT_PREFIX.match(to_text(text).lstrip(BLANKS))
    if found is None:
        return NAN
    return tidy(float(found[0]))


def parse_int(text: Any = UNDEFINED, radix: Any = UNDEFINED) -> float:
    """The whole number at the start of the text, in base `radix`: 10, or 16 after `0x`; NaN if there is none.

    Example: ("42px") → 42
    Example: ("0x1f") → 31
    Example: ("101", 2) → 5
    """
    rest = to_text(text).lstrip(BLANKS)
    negative = rest.startswith("-")
    if rest[:1] in {"+", "-"}:
        rest = rest[1:]
    base = to_int32(radix)
    if base in {0, 16} and rest[:2] in {"0x", "0X"}:
        rest, base = rest[2:], 16
    base = base or 10
    if not 2 <= base <= 36:
        return NAN
    count = 0
    allowed = _DIGITS[:base]
    while count < len(rest) and rest[count].isascii() and rest[count].lower() in allowed:
        count += 1
    if count == 0:
        return NAN
    # Up to 1024 digits can matter to a double; beyond that the number is infinite in every base.
    value = int(rest[:count], base) if count <= 1100 else _long_number(rest[:count], base)
    return tidy(-value if negative else value)


def to_fixed(x: Any, digits: Any = UNDEFINED) -> str:
    """The number with exactly that many digits (0 to 100, none by default) after the point; ties away from zero.

    Example: (3.14159, 2) → "3.14"
    Example: (1.005, 2) → "1.00"
    """
    number = _number(x)
    places = _places(digits, 0, 100)
    if not math.isfinite(number) or abs(number) >= 1e21:
        return number_text(number)
    halves = number * 2.0 ** (places + 1)
    if not (halves.is_integer() and halves % 2 == 1):  # no tie: Python rounds the exact value as well
        return f"{number:.{places}f}" if number else f"{0:.{places}f}"
    rounded = Decimal(number).quantize(Decimal(1).scaleb(-places), context=_EXACT)
    text = f"{rounded.copy_abs():f}"
    return f"-{text}" if number < 0 else text


def to_exponential(x: Any, digits: Any = UNDEFINED) -> str:
    """The number in exponent form, with that many digits (0 to 100, by default as needed) after the point.

    Example: (123456, 2) → "1.23e+5"
    Example: (0.00015, 1) → "1.5e-4"
    """
    number = _number(x)
    places = to_integer(digits)
    if not math.isfinite(number):
        return number_text(number)
    if not 0 <= places <= 100:
        raise BadArgumentError(f"must be from 0 to 100, not {kind(digits)}", 2)
    if digits is UNDEFINED:
        found, point = decimal_digits(abs(number)) if number else ("0", 1)
    else:
        found, point = _significant(abs(number), int(places) + 1)
    return ("-" if number < 0 else "") + _exponent_form(found, point - 1)


def to_precision(x: Any, digits: Any = UNDEFINED) -> str:
    """The number with that many significant digits (1 to 100); exponent form where that would not show them.

    Example: (123.456, 4) → "123.5"
    Example: (123456, 2) → "1.2e+5"
    """
    number = _number(x)
    if digits is UNDEFINED or not math.isfinite(number):
        return number_text(number)
    count = _places(digits, 1, 100)
    found, point = _significant(abs(number), count)
    sign = "-" if number < 0 else ""
    exponent = point - 1
    if exponent < -6 or exponent >= count:
        return sign + _exponent_form(found, exponent)
    if point <= 0:
        return f"{sign}0.{'0' * -point}{found}"
    return f"{sign}{found[:point]}.{found[point:]}" if point < count else sign + found


def gte(a: Any = UNDEFINED, b: Any = UNDEFINED) -> bool:
    """Whether a >= b: two texts by their UTF-16 units, all else as numbers.

    Example: (5, 5) → true
    """
    return less_than(a, b) is False


def lte(a: Any = UNDEFINED, b: Any = UNDEFINED) -> bool:
    """Whether a <= b, compared as by `gte`.

    Example: ("10", "9") → true
    """
    return less_than(b, a) is False


def gt(a: Any = UNDEFINED, b: Any = UNDEFINED) -> bool:
    """Whether a > b, compared as by `gte`.

    Example: ("10", 9) → true
    """
    return less_than(b, a) is True


def lt(a: Any = UNDEFINED, b: Any = UNDEFINED) -> bool:
    """Whether a < b, compared as by `gte`.

    Example: (4, 5) → true
    """
    return less_than(a, b) is True


def _number(x: Any) -> float:
    if type(x) is float:
        return x
    if not is_number(x):
        raise BadArgumentError(f"must be a number, not {kind(x)}")
    return float(to_number(x))


def _places(digits: Any, least: int, most: int) -> int:
    if type(digits) is int and least <= digits <= most:
        return digits
    places = to_integer(digits)
    if not least <= places <= most:
        raise BadArgumentError(f"must be from {least} to {most}, not {kind(digits)}", 2)
    return int(places)


def _significant(number: float, count: int) -> tuple[str, int]:
    """The number rounded to `count` digits, and where its point stands; see `decimal_digits`."""
    if number == 0:
        return "0" * count, 1
    rounded = Context(prec=count, rounding=ROUND_HALF_UP, Emax=MAX_PREC, Emin=-MAX_PREC).create_decimal(
        Decimal(number)
    )
    _, digits, exponent = rounded.as_tuple()
    text = "".join(map(str, digits))
    point = len(text) + int(exponent)
    return text.ljust(count, "0"), point


def _exponent_form(digits: str, exponent: int) -> str:
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{fraction}e{exponent:+d}"


def _long_number(digits: str, base: int) -> float:
    significant = digits.lstrip("0")
    return INFINITY if len(significant) > 1100 else int(significant or "0", base)


FUNCTIONS: Final[Functions] = {
    "isFinite": is_finite,
    "isEven": is_even,
    "isOdd": is_odd,
    "isInteger": is_integer,
    "isNaN": is_nan,
    "parseFloat": parse_float,
    "parseInt": parse_int,
    "toFixed": to_fixed,
    "toExponential": to_exponential,
    "toPrecision": to_precision,
    "gte": gte,
    "lte": lte,
    "gt": gt,
    "lt": lt,
    "max": maximum,
    "min": minimum,
    "pow": pow_,
    "round": round_,
}
