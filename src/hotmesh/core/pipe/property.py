"""Own members of any value: keys of objects, indexes and lengths of arrays and text. Nothing is inherited."""

from __future__ import annotations

from typing import Any

from hotmesh.core.pipe.coercion import text_length, units
from hotmesh.core.pipe.guarded import GuardedArray, GuardedObject
from hotmesh.core.pipe.keys import is_index, ordered_keys
from hotmesh.core.pipe.meter import checked
from hotmesh.core.pipe.path import member
from hotmesh.core.values import UNDEFINED


def read(value: Any, name: str) -> Any:
    """The own member of that name; UNDEFINED where there is none."""
    if isinstance(value, str):
        if name == "length":
            return text_length(value)
        if is_index(name):
            text = units(value)
            index = int(name)
            return text[index] if index < len(text) else UNDEFINED
        return UNDEFINED
    return member(value, name)


def has(value: Any, name: str) -> bool:
    """Whether there is an own member of that name, hidden ones included."""
    if isinstance(value, GuardedObject):
        return value.has(name)
    if isinstance(value, dict):
        return name in value
    if isinstance(value, (list, str)):
        if name == "length":
            return True
        if is_index(name):
            return int(name) < (len(value) if isinstance(value, list) else text_length(value))
        return isinstance(value, GuardedArray) and name in value.named
    return False


def keys(value: Any) -> list[str]:
    """The visible own keys in listing order: indexes first. Empty for what has none."""
    if isinstance(value, dict):
        return ordered_keys(value)
    if isinstance(value, list):
        named = list(value.named) if isinstance(value, GuardedArray) else []
        return [*map(str, range(len(value))), *named]
    if isinstance(value, str):
        return [*map(str, range(len(checked(units(value)))))]
    return []


def values(value: Any) -> list[Any]:
    """The visible own members in listing order."""
    if isinstance(value, dict):
        return [value[name] for name in ordered_keys(value)]
    if isinstance(value, list):
        return [*value, *(value.named.values() if isinstance(value, GuardedArray) else ())]
    return [*checked(units(value))] if isinstance(value, str) else []
