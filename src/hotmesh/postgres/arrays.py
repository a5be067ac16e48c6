"""Arrays as text: arrays of arrays cannot be unnested by row, so each travels as one text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from hotmesh.core.state.job import Dimension


@lru_cache(maxsize=4096)  # the same few addresses come again and again
def array(dimension: Dimension) -> str:
    """An address as the text of an integer[]."""
    return "{" + ",".join(map(str, dimension)) + "}"


def text_array(values: Sequence[str]) -> str:
    """Texts as the text of a text[]."""
    quoted = ('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values)
    return "{" + ",".join(quoted) + "}"


def columns(rows: Iterable[tuple[str, str, Dimension, *tuple[Any, ...]]]) -> list[Any]:
    """Rows of a generation, an activity, an address and what else there is as columns: the arrays of a statement."""
    generations, activities, dimensions, *others = zip(*rows, strict=True)
    return [generations, activities, [array(dimension) for dimension in dimensions], *others]
