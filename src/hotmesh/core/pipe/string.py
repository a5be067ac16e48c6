"""Functions on text. Positions and lengths count UTF-16 units; what is not text is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

from hotmesh.core.pipe.coercion import (
    ASCII_BLANKS,
    BLANKS,
    clamped_index,
    from_units,
    is_basic,
    join,
    relative_index,
    to_integer,
    to_number,
    to_text,
    units,
)
from hotmesh.core.pipe.function import BadArgumentError, Functions, kind
from hotmesh.core.pipe.meter import LONGEST, MOST_ELEMENTS, checked
from hotmesh.core.pipe.pattern import find
from hotmesh.core.values import UNDEFINED


def split(text: Any, delimiter: Any = UNDEFINED) -> list[str]:
    """The parts between occurrences of `delimiter`, which is plain text; without one, the whole text.

    An empty delimiter gives one part for each UTF-16 unit.

    Example: ("a,b,,c", ",") → ["a", "b", "", "c"]
    Example: ("abc", "") → ["a", "b", "c"]
    """
    whole = _text(text)
    if delimiter is UNDEFINED:
        return [whole]
    separator = to_text(delimiter)
    if separator:
        # One more than may be, if there are so many: enough to tell.
        return checked([from_units(part) for part in units(whole).split(units(separator), MOST_ELEMENTS)])
    return [*checked(units(whole))]


def char_at(text: Any, index: Any = UNDEFINED) -> str:
    """The UTF-16 unit at `index`, 0 by default; empty outside the text.

    Example: ("orchid", 2) → "c"
    Example: ("orchid", -1) → ""
    """
    found = units(_text(text))
    position = to_integer(index)
    return found[int(position)] if 0 <= position < len(found) else ""


def concat(*values: Any) -> str:
    """All values as text, with nothing between; null and undefined are empty.

    Example: (1, "-", 0.1) → "1-0.1"
    Example: ([1, [2, 3]], "!") → "1,2,3!"
    """
    try:
        return from_units("".join(values))
    except TypeError:
        return join(list(values), "")


def includes(text: Any, search: Any = UNDEFINED, position: Any = UNDEFINED) -> bool:
    """Whether `search` occurs at or after `position`.

    Example: ("the fox", "fox") → true
    Example: ("the fox", "the", 1) → false
    """
    found = units(_text(text))
    return found.find(units(to_text(search)), clamped_index(position, len(found), 0)) >= 0


def index_of(text: Any, search: Any = UNDEFINED, start: Any = UNDEFINED) -> int:
    """The first position of `search` at or after `start`; -1 if it does not occur.

    Example: ("banana", "an", 2) → 3
    """
    found = units(_text(text))
    return found.find(units(to_text(search)), clamped_index(start, len(found), 0))


def last_index_of(text: Any, search: Any = UNDEFINED, start: Any = UNDEFINED) -> int:
    """The last position of `search` at or before `start` (the end by default); -1 if it does not occur.

    Example: ("banana", "an") → 3
    Example: ("banana", "an", 2) → 1
    """
    found = units(_text(text))
    part = units(to_text(search))
    number = to_number(start)
    last = len(found) if number != number else clamped_index(start, len(found), 0)
    return found.rfind(part, 0, last + len(part))


def slice_(text: Any, start: Any = UNDEFINED, end: Any = UNDEFINED) -> str:
    """The part from `start` up to, not including, `end`; negative positions count from the end.

    Example: ("orchid", 1, 3) → "rc"
    Example: ("orchid", -3) → "hid"
    """
    whole = _text(text)
    if is_basic(whole):
        if type(start) is int and type(end) is int:
            return whole[start:end]
        size = len(whole)
        return whole[relative_index(start, size, 0) : relative_index(end, size, size)]
    found = units(whole)
    size = len(found)
    return from_units(found[relative_index(start, size, 0) : relative_index(end, size, size)])


def to_lower_case(text: Any) -> str:
    """The text in lower case, by the full Unicode mapping.

    Example: ("ABC") → "abc"
    """
    return text.lower() if type(text) is str else _text(text).lower()


def to_upper_case(text: Any) -> str:
    """The text in upper case, by the full Unicode mapping.

    Example: ("straße") → "STRASSE"
    """
    return text.upper() if type(text) is str else _text(text).upper()


def trim(text: Any) -> str:
    """The text without blanks and line ends on either side.

    Example: ("  a b\\t\\n") → "a b"
    """
    whole = _text(text)
    return whole.strip(ASCII_BLANKS if whole.isascii() else BLANKS)


def trim_start(text: Any) -> str:
    """The text without blanks and line ends before it.

    Example: ("  a ") → "a "
    """
    return _text(text).lstrip(BLANKS)


def trim_end(text: Any) -> str:
    """The text without blanks and line ends after it.

    Example: ("  a ") → "  a"
    """
    return _text(text).rstrip(BLANKS)


def pad_start(text: Any, length: Any = UNDEFINED, pad: Any = UNDEFINED) -> str:
    """The text brought to `length` with `pad` (blanks by default) before it; unchanged if it is long enough.

    Example: ("7", 3, "0") → "007"
    """
    whole = _text(text)
    return from_units(_padding(whole, length, pad) + whole)


def pad_end(text: Any, length: Any = UNDEFINED, pad: Any = UNDEFINED) -> str:
    """The text brought to `length` with `pad` (blanks by default) after it; unchanged if it is long enough.

    Example: ("x", 6, "ab") → "xababa"
    """
    whole = _text(text)
    return from_units(whole + _padding(whole, length, pad))


def replace(text: Any, search: Any = UNDEFINED, replacement: Any = UNDEFINED) -> str:
    """The text with the first occurrence of `search`, which is plain text, replaced.

    In the replacement `$$` is a dollar sign, `$&` what was found, and a dollar sign with a back-tick or an
    apostrophe the text before or after it.

    Example: ("a-b-c", "-", "+") → "a+b-c"
    Example: ("cost", "cost", "$&$&") → "costcost"
    """
    whole = units(_text(text))
    part = units(to_text(search))
    at = whole.find(part)
    if at < 0:
        return from_units(whole)
    before, after = whole[:at], whole[at + len(part) :]
    template = units(to_text(replacement))
    if len(whole) + len(template) + template.count("$") * len(whole) > LONGEST:
        raise BadArgumentError("makes the text too long", 3)
    inserted = "".join(_expanded(template, before, part, after))
    return from_units(before + inserted + after)


def search(text: Any, pattern: Any = UNDEFINED) -> int:
    """The position of the first match of a regular expression; -1 if there is none.

    The pattern is the source alone, without slashes or flags.

    Example: ("abc123", "\\\\d+") → 3
    Example: ("AbC", "abc") → -1
    """
    whole = units(_text(text))
    return find("" if pattern is UNDEFINED else to_text(pattern), whole)


def substring(text: Any, start: Any = UNDEFINED, end: Any = UNDEFINED) -> str:
    """The part between two positions, in either order; negative ones count as 0.

    Example: ("orchid", 3, 1) → "rc"
    Example: ("orchid", -3, 2) → "or"
    """
    found = units(_text(text))
    first = clamped_index(start, len(found), 0)
    last = clamped_index(end, len(found), len(found))
    return from_units(found[min(first, last) : max(first, last)])


def starts_with(text: Any, search: Any = UNDEFINED, position: Any = UNDEFINED) -> bool:
    """Whether `search` stands at `position`, 0 by default.

    Example: ("the fox", "fox", 4) → true
    """
    found = units(_text(text))
    return found.startswith(units(to_text(search)), clamped_index(position, len(found), 0))


def ends_with(text: Any, search: Any = UNDEFINED, length: Any = UNDEFINED) -> bool:
    """Whether the text, or its first `length` units, ends with `search`.

    Example: ("the fox", "the", 3) → true
    """
    found = units(_text(text))
    return found[: clamped_index(length, len(found), len(found))].endswith(units(to_text(search)))


def repeat(text: Any, count: Any = UNDEFINED) -> str:
    """The text `count` times over; a negative or infinite count is an error.

    Example: ("ab", 3) → "ababab"
    """
    whole = _text(text)
    times = to_integer(count)
    if times < 0 or math.isinf(times):
        raise BadArgumentError(f"must be a count from 0 on, not {kind(count)}", 2)
    if len(whole) * times > LONGEST:
        raise BadArgumentError("makes the text too long", 2)
    return from_units(whole * int(times))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise BadArgumentError(f"must be text, not {kind(value)}")
    return value


def _padding(text: str, length: Any, pad: Any) -> str:
    wanted = to_integer(length)
    missing = wanted - len(units(text))
    filler = " " if pad is UNDEFINED else units(to_text(pad))
    if missing <= 0 or not filler:
        return ""
    if wanted > LONGEST:
        raise BadArgumentError("makes the text too long", 2)
    return (filler * (int(missing) // len(filler) + 1))[: int(missing)]


def _expanded(template: str, before: str, found: str, after: str) -> Iterator[str]:
    meaning = {"$": "$", "&": found, "`": before, "'": after}
    position = 0
    while position < len(template):
        following = template[position + 1 : position + 2]
        if template[position] == "$" and following in meaning:
            yield meaning[following]
            position += 2
        else:
            yield template[position]
            position += 1


FUNCTIONS: Final[Functions] = {
    "split": split,
    "charAt": char_at,
    "concat": concat,
    "includes": includes,
    "indexOf": index_of,
    "lastIndexOf": last_index_of,
    "slice": slice_,
    "toLowerCase": to_lower_case,
    "toUpperCase": to_upper_case,
    "trim": trim,
    "trimStart": trim_start,
    "trimEnd": trim_end,
    "padStart": pad_start,
    "padEnd": pad_end,
    "replace": replace,
    "search": search,
    "substring": substring,
    "startsWith": starts_with,
    "endsWith": ends_with,
    "repeat": repeat,
}
