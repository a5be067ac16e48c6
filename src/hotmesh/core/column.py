"""Resolved values that become columns of their own, not JSON."""

from __future__ import annotations

from typing import Any

from hotmesh.core.mapping import to_text
from hotmesh.errors import MappingError


def column_text(value: Any, what: str, longest: int | None = None) -> str:
    """The value as text that a column can hold.

    Raises MappingError, naming `what` it is, for text with a NUL character, and for more than `longest` characters.
    """
    text = to_text(value)
    if "\0" in text:
        raise MappingError(f"{what} has a NUL character, which Postgres cannot store", expression=value)
    if longest is not None and len(text) > longest:
        raise MappingError(
            f"{what} has {len(text)} characters; it may have at most {longest}", expression=text[:80]
        )
    return text
