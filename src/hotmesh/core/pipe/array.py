"""Functions on arrays. None changes its argument: those that add, remove or reorder answer with a new array."""

from __future__ import annotations

from functools import cmp_to_key
from typing import Any, Final

from hotmesh.core.pipe import coercion
from hotmesh.core.pipe.coercion import (
    from_units,
    less_than,
    relative_index,
    strict_equals,
    to_boolean,
    to_integer,
    to_text,
    units,
)
from hotmesh.core.pipe.collation import Order, text_order
from hotmesh.core.pipe.function import BadArgumentError, Functions, kind
from hotmesh.core.pipe.meter import LONGEST, checked
from hotmesh.core.pipe.property import read
from hotmesh.core.values import UNDEFINED

_Sorted = tuple[Any, Any, Order | None]
"""An element, what it compares as, and as a text by what order."""

MOST_MIXED: Final = 20_000
"""Elements of several kinds that are put in order; each comparison of two takes a while."""


def get(items: Any = UNDEFINED, index: Any = UNDEFINED) -> Any:
    """The element at `index`, 0 by default; undefined where there is none.

    Any false index counts as 0. Also takes text (one UTF-16 unit) and objects (the member of that key).

    Example: (["kiwi", "fig"], 1) → "fig"
    Example: ("orchid", 3) → "h"
    Example: (["kiwi", "fig"], -1) → undefined
    """
    if type(index) is int and type(items) is list:
        return items[index] if 0 <= index < len(items) else UNDEFINED
    return read(items, to_text(index) if to_boolean(index) else "0")


def length(items: Any = UNDEFINED) -> Any:
    """The number of elements, or of UTF-16 units of text; for an object its `length` member; else undefined.

    Example: (["a", "b"]) → 2
    Example: (null) → undefined
    """
    if type(items) is list:
        return len(items)
    return read(items, "length")


def concat(items: Any, other: Any = UNDEFINED) -> Any:
    """The array with the elements of `other` after its own; an `other` that is no array is one element.

    Two texts are joined. Further arguments are ignored.

    Example: ([1], [2, [3]]) → [1, 2, [3]]
    Example: ([1], "x") → [1, "x"]
    """
    if isinstance(items, str):
        return from_units(items + to_text(other))
    return checked([*_array(items), *(other if isinstance(other, list) else [other])])


def index_of(items: Any, value: Any = UNDEFINED, start: Any = UNDEFINED) -> int:
    """The first position of `value` at or after `start`, by strict equality; -1 if it is not there.

    A negative start counts from the end. In text, the position of a part.

    Example: ([1, 2, 1], 1, 1) → 2
    Example: ([1, 2], "1") → -1
    """
    if isinstance(items, str):
        found = units(items)
        first = coercion.clamped_index(start, len(found), 0)
        return found.find(units(to_text(value)), first)
    array = _array(items)
    for index in range(relative_index(start, len(array), 0), len(array)):
        if strict_equals(array[index], value):
            return index
    return -1


def join(items: Any, separator: Any = UNDEFINED) -> str:
    """The elements as text with `separator` (a comma by default) between; null and undefined are empty.

    Example: (["a", "b"], ", ") → "a, b"
    Example: ([1.5, null, [2, 3]], "-") → "1.5--2,3"
    """
    array, between = _array(items), "," if separator is UNDEFINED else to_text(separator)
    if len(between) > 1 and len(array) * len(between) > LONGEST:
        raise BadArgumentError("makes the text too long", 2)
    return coercion.join(array, between)


def last_index_of(items: Any, value: Any = UNDEFINED, start: Any = UNDEFINED) -> int:
    """The last position of `value` at or before `start` (the last one by default); -1 if it is not there.

    Example: ([1, 2, 1], 1) → 2
    Example: ([1, 2, 1], 1, -2) → 0
    """
    if isinstance(items, str):
        text = units(items)
        number = coercion.to_number(start)
        last = len(text) if number != number else min(max(to_integer(start), 0), len(text))
        part = units(to_text(value))
        return text.rfind(part, 0, int(last) + len(part))
    array = _array(items)
    position = len(array) - 1 if start is UNDEFINED else to_integer(start)
    position = len(array) + position if position < 0 else min(position, len(array) - 1)
    for index in range(int(max(position, -1)), -1, -1):
        if strict_equals(array[index], value):
            return index
    return -1


def pop(items: Any) -> Any:
    """The last element; undefined if the array is empty.

    Example: (["a", "b"]) → "b"
    """
    array = _open(items)
    return array[-1] if array else UNDEFINED


def push(items: Any, *values: Any) -> list[Any]:
    """The array with every value added at its end, each as one element.

    Example: (["a"], "b", ["c"]) → ["a", "b", ["c"]]
    """
    return [*(_open(items) if values else _array(items)), *values]


def reverse(items: Any) -> list[Any]:
    """The array in reverse order.

    Example: ([1, [2], 3]) → [3, [2], 1]
    """
    return _open(items)[::-1]


def shift(items: Any) -> Any:
    """The first element; undefined if the array is empty.

    Example: (["a", "b"]) → "a"
    """
    array = _open(items)
    return array[0] if array else UNDEFINED


def slice_(items: Any, start: Any = UNDEFINED, end: Any = UNDEFINED) -> Any:
    """The part from `start` up to, not including, `end`; negative positions count from the end. Also takes text.

    Example: ([1, 2, 3, 4], 1, 3) → [2, 3]
    Example: ([1, 2, 3, 4], -2) → [3, 4]
    """
    if isinstance(items, str):
        text = units(items)
        size = len(text)
        return from_units(text[relative_index(start, size, 0) : relative_index(end, size, size)])
    array = _array(items)
    size = len(array)
    return array[relative_index(start, size, 0) : relative_index(end, size, size)]


def sort(items: Any, order: Any = UNDEFINED) -> list[Any]:
    """The array in order: numbers by value, texts by the default Unicode order, undefined always last.

    `order` is "ASCENDING" (the default, in any case) or anything else for descending. Null comes first ascending.

    Example: ([10, 9, 1, 100]) → [1, 9, 10, 100]
    Example: (["b", "A", "a", "B"]) → ["a", "A", "b", "B"]
    Example: ([3, null, 1], "DESCENDING") → [3, 1, null]
    """
    array = _open(items)
    up = order is UNDEFINED or order is None or (isinstance(order, str) and order.upper() == "ASCENDING")
    if all(map(_is_plain_number, array)):
        return sorted(array, reverse=not up)
    if all(isinstance(item, str) for item in array):
        return sorted(array, key=text_order, reverse=not up)
    if len(array) > MOST_MIXED:
        raise BadArgumentError(
            f"has more than {MOST_MIXED:,} elements that are not all numbers or all texts", 1
        )
    present = [
        # What holds others compares as its text, which is written once and not for each comparison.
        (
            item,
            to_text(item) if isinstance(item, (list, dict)) else item,
            text_order(item) if isinstance(item, str) else None,
        )
        for item in array
        if item is not UNDEFINED
    ]
    sign = 1 if up else -1

    def compare(one: _Sorted, two: _Sorted) -> int:
        return sign * _compare(one, two)

    present.sort(key=cmp_to_key(compare))
    return [item for item, _, _ in present] + [UNDEFINED] * (len(array) - len(present))


def splice(items: Any, start: Any = UNDEFINED, count: Any = UNDEFINED, *values: Any) -> list[Any]:
    """The elements that would be removed: `count` of them from `start`; all to the end if `count` is missing.

    Example: ([1, 2, 3, 4], 1, 2) → [2, 3]
    Example: ([1, 2, 3, 4], 1) → [2, 3, 4]
    Example: ([1, 2, 3], -1, 1) → [3]
    """
    array = _open(items)
    first = relative_index(start, len(array), 0)
    rest = len(array) - first
    removed = rest if count is UNDEFINED else int(min(max(to_integer(count), 0), rest))
    return array[first : first + removed]


def unshift(items: Any, *values: Any) -> int:
    """The length of the array with the values added at its start: a number, not the array.

    Example: (["b"], "a") → 2
    """
    return len(_open(items) if values else _array(items)) + len(values)


def _array(items: Any) -> list[Any]:
    if not isinstance(items, list):
        raise BadArgumentError(f"must be an array, not {kind(items)}")
    return items


def _open(items: Any) -> list[Any]:
    array = _array(items)
    if getattr(array, "extensible", True) is False:
        raise BadArgumentError("is frozen, sealed or closed, and cannot change")
    return array


def _is_plain_number(item: Any) -> bool:
    kind = type(item)
    return kind is int or (kind is float and item == item)


def _compare(one: _Sorted, two: _Sorted) -> int:
    (_, a, a_order), (_, b, b_order) = one, two
    if a is None or b is None:
        return (a is not None) - (b is not None)
    if a_order is not None and b_order is not None:
        return int(a_order > b_order) - int(a_order < b_order)
    return bool(less_than(b, a)) - bool(less_than(a, b))


FUNCTIONS: Final[Functions] = {
    "get": get,
    "length": length,
    "concat": concat,
    "indexOf": index_of,
    "join": join,
    "lastIndexOf": last_index_of,
    "pop": pop,
    "push": push,
    "reverse": reverse,
    "shift": shift,
    "slice": slice_,
    "sort": sort,
    "splice": splice,
    "unshift": unshift,
}
