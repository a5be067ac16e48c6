"""Conversions and comparisons: what a value means as a boolean, a number or text, and when two are equal.

The rules are those of ECMAScript: numbers are doubles, text is a sequence of UTF-16 units, objects list their
index-like keys first. A Python `int` stands for the double of the same value.
"""

from __future__ import annotations

import math
import re
import sys
from datetime import datetime
from typing import Any, Final

from hotmesh.core.pipe.instant import Date, as_date, offset, parts, to_local
from hotmesh.core.values import UNDEFINED

SAFE: Final = 2**53
"""Integers up to here are exact as doubles."""

BLANKS: Final = (
    "\t\n\v\f\r \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\ufeff"
)
"""What trimming removes; not U+0085, U+001C to U+001F or U+200B."""

ASCII_BLANKS: Final = "\t\n\v\f\r "
"""Those of the blanks that are ASCII: trimming such text by these is quicker."""

NAN: Final = math.nan
INFINITY: Final = math.inf

# Each digit can be read in one way only: with an optional point in the middle, text without one would be tried at every cut.
_DECIMAL: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_SHORT_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,15}")
_PREFIXED: Final = re.compile(r"0(?:[xX][0-9a-fA-F]+|[oO][0-7]+|[bB][01]+)")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_UTF16: Final = "utf-16-le" if sys.byteorder == "little" else "utf-16-be"


def to_boolean(value: Any) -> bool:
    """False for undefined, null, false, 0, NaN and empty text; true for all else, empty containers included."""
    if value is True or value is False:
        return value
    kind = type(value)
    if kind is str or kind is int:
        return bool(value)
    if isinstance(value, (list, dict, Date)):
        return True
    if kind is float:
        return bool(value == value and value != 0)
    return bool(value)


def to_number(value: Any) -> float:
    """The value as a number: a double, or an `int` that a double can hold exactly; NaN if it is none."""
    kind = type(value)
    if kind is float:
        return value  # type: ignore[no-any-return]
    if kind is int:
        return value if -SAFE <= value <= SAFE else double(value)
    if isinstance(value, str):
        return _text_to_number(value)
    if value is None or value is False:
        return 0
    if value is True:
        return 1
    if isinstance(value, list):
        return _text_to_number(to_text(value))
    if isinstance(value, int):
        return to_number(int(value))
    if isinstance(value, float):
        return float(value)
    date = as_date(value)
    if date is not None:
        return NAN if date.milliseconds is None else date.milliseconds
    return NAN


def whole(value: float) -> float:
    """A double that was computed, as an `int` if it is whole and exact: what functions give has no fraction `.0`.

    What is only passed on never comes here, and stays the float or the integer that it was.
    """
    return (
        int(value)
        if value.is_integer() and -SAFE <= value <= SAFE and (value or not _is_minus(value))
        else value
    )


def _is_minus(zero: float) -> bool:
    return math.copysign(1.0, zero) < 0


def to_text(value: Any) -> str:
    """The value as text: `null`, `true`, numbers in their shortest form, arrays joined with commas."""
    kind = type(value)
    if kind is str:
        return value  # type: ignore[no-any-return]
    if kind is int:
        return str(value) if -SAFE <= value <= SAFE else number_text(double(value))
    if kind is float:
        return number_text(value)
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if value is UNDEFINED:
        return "undefined"
    if isinstance(value, list):
        return join(value, ",")
    if isinstance(value, dict):
        return "[object Object]"
    if isinstance(value, (Date, datetime)):
        date = as_date(value)
        return "Invalid Date" if date is None or date.milliseconds is None else date_text(date)
    return str(value)


def join(items: list[Any], separator: str) -> str:
    """The items as text with the separator between; null and undefined count as empty."""
    texts = ["" if item is None or item is UNDEFINED else to_text(item) for item in items]
    return from_units(separator.join(texts))


def number_text(value: float) -> str:
    """The shortest digits that read back as the same double, in plain notation from 1e-6 up to 1e21."""
    if value != value:
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    digits, point = decimal_digits(abs(value))
    count = len(digits)
    if count <= point <= 21:
        return sign + digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if count > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{point - 1:+d}"


def decimal_digits(value: float) -> tuple[str, int]:
    """The shortest digits of a positive number and where its point stands: 0.`digits` times 10 to that power."""
    mantissa, _, exponent = repr(float(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = whole + fraction
    point = len(whole) + (int(exponent) if exponent else 0)
    stripped = digits.lstrip("0")
    point -= len(digits) - len(stripped)
    return stripped.rstrip("0"), point


def date_text(date: Date) -> str:
    """A valid date in its own zone: `Thu Feb 29 2024 12:34:56 GMT+0000 (Coordinated Universal Time)`."""
    from hotmesh.core.pipe.zone import zone_name  # loads locale data: only when a date is written out

    milliseconds = date.milliseconds or 0
    found = parts(to_local(milliseconds, date.zone))
    minutes = int(offset(milliseconds, date.zone) / 60_000)
    sign = "-" if minutes < 0 else "+"
    hours, minutes = divmod(abs(minutes), 60)
    clock = f"{found.hour:02}:{found.minute:02}:{found.second:02}"
    return f"{day_text(date)} {clock} GMT{sign}{hours:02}{minutes:02} ({zone_name(milliseconds, date.zone)})"


def day_text(date: Date) -> str:
    """The day of a valid date in its own zone: `Thu Feb 29 2024`."""
    found = parts(to_local(date.milliseconds or 0, date.zone))
    weekday = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")[found.weekday]
    names = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    year = f"{found.year:04}" if found.year >= 0 else f"-{-found.year:04}"
    return f"{weekday} {names[found.month]} {found.day:02} {year}"


def double(value: int) -> float:
    """The nearest double; an infinity beyond their range."""
    try:
        return float(value)
    except OverflowError:
        return INFINITY if value > 0 else -INFINITY


def tidy(value: float) -> float:
    """A computed number as an `int` if it is a whole one that is exact, else as it is."""
    if type(value) is float and value.is_integer() and -SAFE <= value <= SAFE:
        return int(value)
    if type(value) is int and not -SAFE <= value <= SAFE:
        return double(value)
    return value


def to_integer(value: Any) -> float:
    """The number without its fraction: an `int` or an infinity; 0 for what is no number."""
    number = to_number(value)
    if type(number) is int:
        return number
    if number != number:
        return 0
    return number if math.isinf(number) else int(number)


def relative_index(value: Any, length: int, default: int) -> int:
    """A position within 0 … length; a negative one counts from the end, undefined means the default."""
    if value is UNDEFINED:
        return default
    index = to_integer(value)
    if index < 0:
        return int(max(length + index, 0))
    return int(min(index, length))


def clamped_index(value: Any, length: int, default: int) -> int:
    """A position within 0 … length; a negative one is 0, undefined means the default."""
    if value is UNDEFINED:
        return default
    return int(min(max(to_integer(value), 0), length))


def to_uint32(value: Any) -> int:
    """The number modulo 2^32, without its fraction; 0 for NaN and infinities."""
    number = to_number(value)
    if type(number) is float:
        if not math.isfinite(number):
            return 0
        number = int(number)
    return int(number) & 0xFFFFFFFF


def to_int32(value: Any) -> int:
    """As `to_uint32`, but results from 2^31 on are negative."""
    number = to_uint32(value)
    return number - 0x100000000 if number & 0x80000000 else number


def strict_equals(a: Any, b: Any) -> bool:
    """Same kind and same value, without conversion; containers and dates only if they are the same object."""
    kind = type(a)
    if kind is type(b) and (kind is str or kind is float):
        return bool(a == b)
    if is_number(a):
        return is_number(b) and to_number(a) == to_number(b)
    if isinstance(a, str):
        return isinstance(b, str) and a == b
    return a is b


def loose_equals(a: Any, b: Any) -> bool:
    """Equality after conversion: null equals undefined, text and booleans count as numbers, objects as text."""
    if a is None or a is UNDEFINED:
        return b is None or b is UNDEFINED
    if b is None or b is UNDEFINED:
        return False
    if a is True or a is False:
        return loose_equals(int(a), b)
    if b is True or b is False:
        return loose_equals(a, int(b))
    a_scalar, b_scalar = _is_scalar(a), _is_scalar(b)
    if a_scalar and b_scalar:
        if isinstance(a, str) and isinstance(b, str):
            return a == b
        return to_number(a) == to_number(b)
    if a_scalar:
        return loose_equals(a, to_text(b))
    if b_scalar:
        return loose_equals(to_text(a), b)
    return a is b


def less_than(a: Any, b: Any) -> bool | None:
    """Whether a < b; None when the two have no order (one of them is not a number)."""
    a_kind, b_kind = type(a), type(b)
    if not ((a_kind is int or a_kind is float) and (b_kind is int or b_kind is float)):
        if isinstance(a, (list, dict)):
            return less_than(to_text(a), b)
        if isinstance(b, (list, dict)):
            return less_than(a, to_text(b))
        if issubclass(a_kind, str) and issubclass(b_kind, str):
            if a.isascii() or b.isascii():
                return bool(a < b)
            return units(a) < units(b)
    left = a if a_kind is float or (a_kind is int and -SAFE <= a <= SAFE) else to_number(a)
    right = b if b_kind is float or (b_kind is int and -SAFE <= b <= SAFE) else to_number(b)
    if left != left or right != right:
        return None
    return left < right


def is_number(value: Any) -> bool:
    """Whether the value is of kind number (a boolean is not)."""
    kind = type(value)
    return kind is int or kind is float or (isinstance(value, (int, float)) and kind is not bool)


def is_basic(text: str) -> bool:
    """Whether every character is one UTF-16 unit, so that Python's positions are the language's."""
    return text.isascii() or not text or max(text) <= "\uffff"


def units(text: str) -> str:
    """The text with every UTF-16 unit as a character of its own."""
    if is_basic(text):
        return text
    data = text.encode(_UTF16, "surrogatepass")
    return "".join(map(chr, memoryview(data).cast("H")))


def from_units(text: str) -> str:
    """The inverse of `units`: surrogates that form a pair become one character again."""
    if text.isascii() or _SURROGATE.search(text) is None:
        return text
    return text.encode(_UTF16, "surrogatepass").decode(_UTF16, "surrogatepass")


def text_length(text: str) -> int:
    """The number of UTF-16 units."""
    return len(text) if is_basic(text) else len(units(text))


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str) or is_number(value)


def _text_to_number(text: str) -> float:
    trimmed = text.strip(BLANKS)
    if not trimmed:
        return 0
    if _SHORT_INTEGER.fullmatch(trimmed):
        return int(trimmed)
    if _DECIMAL.fullmatch(trimmed):
        return float(trimmed)
    if _PREFIXED.fullmatch(trimmed):
        return to_number(int(trimmed, 0))
    if trimmed in {"Infinity", "+Infinity"}:
        return INFINITY
    return -INFINITY if trimmed == "-Infinity" else NAN
