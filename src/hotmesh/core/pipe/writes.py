"""What a `job.maps` block writes: one path and value for each leaf, so that activities never overwrite each other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hotmesh.core.pipe.compiler import Compiler, escape
from hotmesh.core.pipe.function import kind, short
from hotmesh.core.pipe.keys import is_index
from hotmesh.core.pipe.nodes import Site
from hotmesh.core.pipe.path import Evaluate, member
from hotmesh.core.values import UNDEFINED
from hotmesh.errors import MappingError

Writes = list[tuple[tuple[str, ...], Any]]
"""Pairs of path and value: `[(("order", "total"), 9.5), (("-done",), True)]`."""

_Writer = Callable[[Any], Iterator[tuple[tuple[str, ...], Any]]]

_SLOTS = re.compile(r"(.+)\[([0-9]+)\]", re.DOTALL)
_MARKER = re.compile(r".*\[[-_]\]", re.DOTALL)


def compile_writes(compiler: Compiler, value: Any) -> Callable[[Mapping[Any, Any]], Writes]:
    """The closure that lists the writes of a `job.maps` tree; a pipe at its root writes each member it returns."""
    if value is None:
        return lambda context: []
    if not isinstance(value, dict) or "@pipe" in value:
        leaves: list[tuple[Evaluate, _Writer]] = [(compiler.tree(value).emit(), _members)]
    else:
        leaves = list(_leaves(compiler, value))

    def evaluate(context: Mapping[Any, Any]) -> Writes:
        return [
            write for leaf, writer in leaves for write in writer(leaf(context)) if write[1] is not UNDEFINED
        ]

    return evaluate


def apply_writes(data: Mapping[str, Any], writes: Writes) -> dict[str, Any]:
    """The data with the leaves set. A new object: the given one, and all it holds, stay as they are.

    What stands in the way of a path gives way to an object; an array becomes one with its indexes as keys.
    """
    result = dict(data)
    fresh: set[int] = set()
    for path, value in writes:
        level = result
        for name in path[:-1]:
            below: Any = level.get(name)
            if id(below) not in fresh:
                below = _opened(below)
                fresh.add(id(below))
                level[name] = below
            level = below
        # A value written as a whole is not ours: a later, deeper write must copy it first.
        level[path[-1]] = value
    return result


def _opened(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list):
        return {str(index): item for index, item in enumerate(value)}
    return {}


def _leaves(compiler: Compiler, tree: dict[str, Any]) -> Iterator[tuple[Evaluate, _Writer]]:
    for key, value in tree.items():
        slots = _SLOTS.fullmatch(key)
        if slots:
            yield (
                compiler.tree(value, f"/{escape(key)}").emit(),
                _slots(compiler.site, slots[1], int(slots[2])),
            )
        elif _MARKER.fullmatch(key):
            yield compiler.tree(value, f"/{escape(key)}").emit(), _markers
        else:
            yield from _branch(compiler, value, (key,))


def _branch(compiler: Compiler, value: Any, path: tuple[str, ...]) -> Iterator[tuple[Evaluate, _Writer]]:
    if isinstance(value, dict) and value and "@pipe" not in value:
        for key, below in value.items():
            yield from _branch(compiler, below, (*path, key))
    else:
        pointer = "".join(f"/{escape(name)}" for name in path)
        yield compiler.tree(value, pointer).emit(), lambda leaf: iter([(path, leaf)])


def _slots(site: Site, name: str, count: int) -> _Writer:
    """Each member under its own index. One that has no slot is an error: it would be lost without a word."""

    def refusal(what: str) -> MappingError:
        last = f"0 to {count - 1}" if count else "nothing at all"
        return site.error(f"{name}[{count}] has slots for {last}, {what}")

    def write(value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
        if isinstance(value, list):
            if len(value) > count:
                raise refusal(f"and the list has {len(value)} items: write {name}[{len(value)}] or more")
            yield from (((name, str(index)), item) for index, item in enumerate(value))
        elif isinstance(value, dict):
            for key in value:
                if not is_index(key):
                    raise refusal(f"and the member {short(key)} is no index")
                if int(key) >= count:
                    raise refusal(f"and the value has the member {key}: write {name}[{int(key) + 1}] or more")
                yield (name, key), member(value, key)
        elif value is not None and value is not UNDEFINED:
            raise refusal(f"and gets {kind(value)}, which is neither a list nor an object")

    return write


def _markers(value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    for path, item in _members(value):
        if path[0].startswith(("-", "_")):
            yield path, item


def _members(value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        yield from (((key,), item) for key, item in value.items())
