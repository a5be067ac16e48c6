"""Keys of objects: which are array indexes, and in which order they are listed."""

from __future__ import annotations

from typing import Any, Final

_HIGHEST_INDEX: Final = 4_294_967_294


def is_index(key: str) -> bool:
    """Whether a key is a canonical array index: `0`, `1`, `42`; not `01`, `-1` or `1.5`."""
    if not (key.isascii() and key.isdigit()):
        return False
    return key == "0" or (key[0] != "0" and len(key) <= 10 and int(key) <= _HIGHEST_INDEX)


def ordered_keys(keys: Any) -> list[str]:
    """Keys in their listing order: array indexes by value, then all others as they were added."""
    names = list(keys)
    indexes = [name for name in names if name[:1].isdigit() and is_index(name)]
    if not indexes:
        return names
    chosen = set(indexes)
    return sorted(indexes, key=int) + [name for name in names if name not in chosen]
