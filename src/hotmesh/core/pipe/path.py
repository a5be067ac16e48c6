"""Paths as closures: `{a.output.data.x}` becomes one function from the context to the value there, or UNDEFINED."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hotmesh.core.pipe.guarded import GuardedArray, GuardedObject
from hotmesh.core.pipe.keys import is_index
from hotmesh.core.values import UNDEFINED

Evaluate = Callable[[Mapping[Any, Any]], Any]
"""From a context to a value. It never changes the context, and its result may share structure with it."""


def compile_path(root: Any, names: list[str]) -> Evaluate:
    """The closure for the member `names[0]`, `names[1]` … of `context[root]`. It never raises."""
    walk = _walking(root, names)
    special = [name == "length" or is_index(name) for name in names]
    if any(special):
        if special.index(True) == len(names) - 1 and names[-1] != "length":
            return _element(compile_path(root, names[:-1]), int(names[-1]), names[-1])
        return walk
    match names:
        case []:
            return _one(root)
        case [a]:
            return _two(root, a)
        case [a, b]:
            return _three(root, a, b, walk)
        case [a, b, c]:
            return _four(root, a, b, c, walk)
        case [a, b, c, d]:
            return _five(root, a, b, c, d, walk)
        case _:
            return walk


def member(value: Any, name: str) -> Any:
    """The own member of that name: a key of an object, an index or the length of an array; else UNDEFINED."""
    if isinstance(value, dict):
        if isinstance(value, GuardedObject):
            return value.own(name)
        return value.get(name, UNDEFINED)
    if isinstance(value, list):
        if name == "length":
            return len(value)
        if is_index(name):
            index = int(name)
            return value[index] if index < len(value) else UNDEFINED
        return value.named.get(name, UNDEFINED) if isinstance(value, GuardedArray) else UNDEFINED
    if isinstance(value, Mapping):
        return value.get(name, UNDEFINED)
    return UNDEFINED


# The fast closures subscript straight through objects. A missing key ends the path; anything but an object takes no
# text for a subscript, and the careful walk then decides, so nothing but own members can be reached. The last member
# is the one that is often not there, so it is asked for and not tried.


def _one(root: Any) -> Evaluate:
    def evaluate(context: Mapping[Any, Any]) -> Any:
        try:
            return context[root]
        except KeyError:
            return UNDEFINED

    return evaluate


def _two(root: Any, a: str) -> Evaluate:
    def evaluate(context: Mapping[Any, Any]) -> Any:
        try:
            holder = context[root]
        except KeyError:
            return UNDEFINED
        return holder.get(a, UNDEFINED) if type(holder) is dict else member(holder, a)

    return evaluate


def _three(root: Any, a: str, b: str, walk: Evaluate) -> Evaluate:
    def evaluate(context: Mapping[Any, Any]) -> Any:
        try:
            holder = context[root][a]
        except KeyError:
            return UNDEFINED
        except TypeError:
            return walk(context)
        return holder.get(b, UNDEFINED) if type(holder) is dict else member(holder, b)

    return evaluate


def _four(root: Any, a: str, b: str, c: str, walk: Evaluate) -> Evaluate:
    def evaluate(context: Mapping[Any, Any]) -> Any:
        try:
            holder = context[root][a][b]
        except KeyError:
            return UNDEFINED
        except TypeError:
            return walk(context)
        return holder.get(c, UNDEFINED) if type(holder) is dict else member(holder, c)

    return evaluate


def _five(root: Any, a: str, b: str, c: str, d: str, walk: Evaluate) -> Evaluate:
    def evaluate(context: Mapping[Any, Any]) -> Any:
        try:
            holder = context[root][a][b][c]
        except KeyError:
            return UNDEFINED
        except TypeError:
            return walk(context)
        return holder.get(d, UNDEFINED) if type(holder) is dict else member(holder, d)

    return evaluate


def _element(array: Evaluate, index: int, name: str) -> Evaluate:
    def evaluate(context: Mapping[Any, Any]) -> Any:
        value = array(context)
        if type(value) is list:
            return value[index] if index < len(value) else UNDEFINED
        return member(value, name)

    return evaluate


def _walking(root: Any, names: list[str]) -> Evaluate:
    steps = [(name, int(name) if is_index(name) else -1) for name in names]

    def evaluate(context: Mapping[Any, Any]) -> Any:
        try:
            value = context[root]
        except KeyError:
            return UNDEFINED
        for name, index in steps:
            kind = type(value)
            if kind is dict:
                if name not in value:
                    return UNDEFINED
                value = value[name]
            elif kind is list and index >= 0:
                if index >= len(value):
                    return UNDEFINED
                value = value[index]
            else:
                value = member(value, name)
                if value is UNDEFINED:
                    return UNDEFINED
        return value

    return evaluate
