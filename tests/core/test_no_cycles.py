"""What the engine keeps of a flow is freed by counting references: it is out of the garbage collector's sight (`gc=False`).

That is right for structs that can be part of no cycle, and for no others: those would never be freed.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

import pytest
from msgspec import Struct

import hotmesh.core.state as rooms
from hotmesh.core.advance import builder
from hotmesh.postgres import rows, sections, steps
from hotmesh.runtime.engine import job_cache

MODULES = [import_module(f"{rooms.__name__}.{found.name}") for found in iter_modules(rooms.__path__)]
MODULES += [builder, rows, sections, steps, job_cache]

FREE = sorted(
    {
        found
        for module in MODULES
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, Struct) and not found.__struct_config__.gc
    },
    key=lambda found: found.__name__,
)


def held(hint: Any) -> Iterator[Any]:
    """The classes of what a field of this type may hold. `Json` is containers, texts and numbers, and nothing of ours."""
    origin = get_origin(hint)
    if origin is None:
        yield hint
    elif origin is Annotated:
        yield from held(get_args(hint)[0])
    else:
        for part in get_args(hint):
            if part is not Ellipsis and not isinstance(part, str | list):
                yield from held(part)


def reached(struct: type[Struct]) -> set[type[Struct]]:
    """The structs that one of this type may hold, directly."""
    found = set()
    for name, hint in get_type_hints(struct, include_extras=True).items():
        if name not in struct.__struct_fields__ or get_origin(hint) is ClassVar:
            continue
        for part in held(hint):
            if isinstance(part, type) and issubclass(part, Struct):
                found.add(part)
                found |= {each for each in FREE if issubclass(each, part)}
    return found


def test_what_a_flow_is_made_of_is_out_of_sight() -> None:
    assert {"Job", "ActivityRecord", "Event", "HandedEvent", "Step", "JobChange", "Work", "HeldWork"} <= {
        found.__name__ for found in FREE
    }


@pytest.mark.parametrize("struct", FREE, ids=lambda struct: struct.__name__)
def test_no_struct_out_of_sight_can_reach_itself(struct: type[Struct]) -> None:
    seen: set[type[Struct]] = set()
    todo = list(reached(struct))
    while todo:
        found = todo.pop()
        itself = found is struct or issubclass(struct, found)
        assert not itself, f"{struct.__name__} can hold one of its own"
        assert not found.__struct_config__.gc, f"{struct.__name__} holds {found.__name__}, which is in sight"
        if found not in seen:
            seen.add(found)
            todo += reached(found)
