"""Functions that write and read JSON text."""

from __future__ import annotations

import json
import math
import re
from datetime import datetime
from typing import Any, Final

from hotmesh.core.pipe.coercion import SAFE, from_units, is_number, to_integer, to_text, units, whole
from hotmesh.core.pipe.function import BadArgumentError, Functions
from hotmesh.core.pipe.instant import Date, as_date, iso_text
from hotmesh.core.pipe.keys import ordered_keys
from hotmesh.core.pipe.path import member
from hotmesh.core.values import UNDEFINED

_SPECIAL: Final = re.compile('["\\\\\x00-\x1f\ud800-\udfff]')
_SHORT: Final = {
    '"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"
}  # fmt: skip


def stringify(value: Any = UNDEFINED, only: Any = UNDEFINED, space: Any = UNDEFINED) -> Any:
    """The value as JSON text, compact unless `space` gives an indent: a count of blanks, or text, up to 10.

    `only` may list the keys to keep, in that order, at every level. Undefined gives undefined.

    Example: ({"b": 1, "a": [true, null]}) → "{\\"b\\":1,\\"a\\":[true,null]}"
    Example: ({"a": 1, "b": 2}, ["b"]) → "{\\"b\\":2}"
    """
    text = _Writer(_only(only), _indent(space)).write(value, "")
    return UNDEFINED if text is None else text


def parse(text: Any) -> Any:
    """The value that JSON text stands for; an error if it is not strict JSON.

    Example: ("[1, 2.50, -3e2]") → [1, 2.5, -300]
    Example: (null) → null
    """
    try:
        return json.loads(to_text(text), parse_int=_whole, parse_float=_double, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise BadArgumentError(f"is not JSON: {error}") from None


class _Writer:
    """Writes values with the keys and the indent asked for."""

    def __init__(self, only: list[str] | None, indent: str) -> None:
        self.only = only
        self.places = {key: place for place, key in enumerate(only or ())}
        self.indent = indent
        self.colon = ": " if indent else ":"

    def write(self, value: Any, margin: str) -> str | None:
        """The text, or None for what has none."""
        if value is UNDEFINED:
            return None
        if isinstance(value, str):
            return _quoted(value)
        if isinstance(value, dict):
            return self._object(value, margin)
        if isinstance(value, list):
            return self._array(value, margin)
        if isinstance(value, (Date, datetime)):
            date = as_date(value)
            valid = date is not None and date.milliseconds is not None
            return _quoted(iso_text(date.milliseconds or 0)) if date is not None and valid else "null"
        if is_number(value):
            return to_text(value) if type(value) is int or math.isfinite(value) else "null"
        return to_text(value)

    def _object(self, value: dict[str, Any], margin: str) -> str:
        inner = margin + self.indent
        members = []
        for key in self._keys(value):
            text = self.write(member(value, key), inner)
            if text is not None:
                members.append(f"{_quoted(key)}{self.colon}{text}")
        return self._enclosed("{", members, "}", margin)

    def _keys(self, value: dict[str, Any]) -> list[str]:
        only = self.only
        if only is None:
            return ordered_keys(value)
        if type(value) is dict and len(value) < len(only):  # many objects, and many keys to keep
            return sorted(self.places.keys() & value.keys(), key=self.places.__getitem__)
        return only

    def _array(self, value: list[Any], margin: str) -> str:
        inner = margin + self.indent
        return self._enclosed("[", [self.write(item, inner) or "null" for item in value], "]", margin)

    def _enclosed(self, start: str, parts: list[str], end: str, margin: str) -> str:
        if not parts or not self.indent:
            return f"{start}{','.join(parts)}{end}"
        inner = f"\n{margin}{self.indent}"
        return f"{start}{inner}{f',{inner}'.join(parts)}\n{margin}{end}"


def _quoted(text: str) -> str:
    return f'"{_SPECIAL.sub(_escaped, text)}"'


def _escaped(found: re.Match[str]) -> str:
    return _SHORT.get(found[0]) or f"\\u{ord(found[0]):04x}"


def _only(only: Any) -> list[str] | None:
    if not isinstance(only, list):
        return None
    return list(dict.fromkeys(to_text(key) for key in only if isinstance(key, str) or is_number(key)))


def _indent(space: Any) -> str:
    if isinstance(space, str):
        return from_units(units(space)[:10])
    return " " * int(min(max(to_integer(space), 0), 10)) if is_number(space) else ""


def _double(digits: str) -> float:
    return whole(float(digits))


def _whole(digits: str) -> float:
    if len(digits) < 16:
        return int(digits)
    number = float(digits)
    return int(digits) if abs(number) < SAFE else number


def _refuse(name: str) -> float:
    raise BadArgumentError(f"is not JSON: {name}")


FUNCTIONS: Final[Functions] = {"stringify": stringify, "parse": parse}
