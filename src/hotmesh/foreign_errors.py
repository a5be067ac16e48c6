"""What exceptions of users' code are and say, asked without running code of theirs that could raise.

An exception may be frozen, have properties where others have attributes, a text of a class of its own, or a metaclass.
"""

from __future__ import annotations

from typing import Any, Final

LONGEST_WORDS: Final = 2_000
"""Characters of what an exception says in the log."""

_NAME: Final[Any] = type.__dict__["__name__"]


def kind_of(error: BaseException) -> str:
    """The name of the exception's class, as text that can be stored."""
    name: str = _NAME.__get__(type(error))
    return storable(name)


def words_of(error: BaseException, most: int | None = LONGEST_WORDS) -> str:
    """What an exception says, as text that can be stored, cut off after `most` characters; empty if it says nothing, or cannot."""
    try:
        words = str.__str__(str(error))  # of no class of the users', with methods of its own
    except BaseException:  # noqa: BLE001 - even that is the users' code
        return ""
    return storable(words[:most])


def words_or_kind_of(error: BaseException, most: int | None = None) -> str:
    """What an exception says, likewise; if nothing, what it is."""
    return words_of(error, most) or kind_of(error)


def storable(text: str) -> str:
    """Halves of surrogate pairs cannot be stored; in what is said of an error they may as well be question marks."""
    return text.encode("utf-8", "replace").decode()
