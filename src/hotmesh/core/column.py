"""Resolved values that become columns of their own, or JSON that Postgres takes apart, and what these cannot hold."""

from __future__ import annotations

from typing import Any

from hotmesh.core.lengths import LONGEST_NAME, excess
from hotmesh.core.mapping import to_text
from hotmesh.core.pipe.stored import whole_text
from hotmesh.core.values import Json
from hotmesh.core.wire import dumps, dumps_text
from hotmesh.errors import MappingError

LEAST_CODE = -(2**31)
MOST_CODE = 2**31 - 1
"""The outcome codes that a column holds."""


def column_text(value: Any, what: str, longest: int | None = None, *, most: int | None = LONGEST_NAME) -> str:
    """The value as text that a column can hold, and an index, if it has at most `most` bytes; None: it is in no index.

    Raises MappingError, naming `what` it is, for text with a NUL character, for more than `longest` characters, and for more bytes.
    Half of a surrogate pair, where a text was cut, is U+FFFD, as in JSON.
    """
    text = to_text(value)
    if not text.isascii():
        text = whole_text(text)
    if "\0" in text:
        raise MappingError(f"{what} has a NUL character, which Postgres cannot store", expression=value)
    if longest is not None and len(text) > longest:
        raise MappingError(
            f"{what} has {len(text)} characters; it may have at most {longest}", expression=text[:80]
        )
    found = 0 if most is None else excess(text, most)
    if found:
        raise MappingError(f"{what} has {found} bytes; it may have at most {most}", expression=text[:80])
    return text


def size_of(value: Json) -> int:
    """Bytes of the value as JSON. Raises MappingError where it is nested too deeply to be written."""
    try:
        return len(dumps(value))
    except RecursionError:
        raise MappingError("the value is nested too deeply to be stored") from None


def check_size(size: int, most: int, what: str) -> None:
    """Raises MappingError, naming `what` it is, where it has more than `most` bytes."""
    if size > most:
        raise MappingError(
            f"{what} has {size:,} bytes of JSON, more than the limit of {most:,} (max_payload): map less of it, or pass on a "
            "reference that its reader follows"
        )


def column_json(value: Json, what: str) -> Json:
    """The value as it is, if it is JSON that can be queried: raises MappingError for a NUL character anywhere in it."""
    if has_nul(value):
        raise MappingError(f"{what} has a NUL character, which Postgres cannot query", expression=value)
    return value


def has_nul(value: Json) -> bool:
    """Whether a text in the value, or a key, has a NUL character."""
    # Text that spells out an escape looks alike; what decides is the value itself.
    return "\\u0000" in dumps_text(value) and value != without_nul(value)


def without_nul(value: Json) -> Json:
    """The value with U+FFFD, the replacement character, for each NUL character."""
    match value:
        case str():
            return value.replace("\0", "\ufffd")
        case list():
            return [without_nul(item) for item in value]
        case dict():
            return {key.replace("\0", "\ufffd"): without_nul(item) for key, item in value.items()}
        case _:
            return value
