"""Values as JSON stores them."""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Any, Final

from hotmesh.core.pipe.instant import Date, as_date, iso_text
from hotmesh.core.values import UNDEFINED, Json
from hotmesh.errors import MappingError

_HALF: Final = re.compile("[\ud800-\udfff]")


def to_json_value(value: Any) -> Json:
    """The value as it is stored: plain JSON. The very same object, if nothing in it has to change.

    Undefined members of objects are left out, in arrays (and alone) they are null, as are NaN and infinities. Dates
    become ISO text in UTC, an invalid one null. A float stays one, and -0.0 what it is. Half of a surrogate
    pair, where a text was cut, is U+FFFD, the replacement character. Raises MappingError for hundreds of levels.
    """
    kind = type(value)
    if kind is str:
        return value if value.isascii() or _HALF.search(value) is None else whole_text(value)
    if kind is bool or value is None or kind is int:
        # A number that was only passed on stays what it was; what was computed is a double, or a whole number already.
        return value
    if kind is float:
        return _number(value)
    try:
        if isinstance(value, dict):
            return _object(value)
        if isinstance(value, (list, tuple)):
            return _array(value)
    except RecursionError:
        raise MappingError("the value is nested too deeply to be stored") from None
    return _other(value)


def whole_text(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair."""
    return _HALF.sub("\ufffd", text)


def _object(value: dict[str, Any]) -> Json:
    changed = type(value) is not dict
    result = {}
    for key, member in value.items():
        if member is UNDEFINED:
            changed = True
            continue
        stored = to_json_value(member)
        changed = changed or stored is not member
        if key.isascii() or _HALF.search(key) is None:
            result[key] = stored
        else:
            changed = True
            result[whole_text(key)] = stored
    return result if changed else value


def _array(value: list[Any] | tuple[Any, ...]) -> Json:
    result = [to_json_value(item) for item in value]
    same = type(value) is list and all(map(_same, result, value))
    return value if same else result


def _same(one: Any, other: Any) -> bool:
    return one is other


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _other(value: Any) -> Json:
    if value is UNDEFINED:
        return None
    if isinstance(value, (Date, datetime)):
        date = as_date(value)
        return None if date is None or date.milliseconds is None else iso_text(date.milliseconds)
    if isinstance(value, str):
        return whole_text(str(value))
    if isinstance(value, int):
        return to_json_value(int(value))
    return _number(float(value)) if isinstance(value, float) else value
