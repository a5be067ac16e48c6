"""Tracebacks for the authors of callbacks: their frames, without those of ours and of anyio through which they were called."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType
from typing import Final

import anyio

_OURS: Final = f"{Path(__file__).parents[1]}/"
_NOT_USERS: Final = (_OURS, f"{Path(anyio.__file__).parent}/")
_EXAMPLES: Final = _OURS + "demo/"
"""Callbacks that come with the package are written as those of users are."""

LONGEST_CHAIN: Final = 50
"""Causes of causes that are looked at."""


def is_users(filename: str) -> bool:
    """Whether code of this file is neither ours nor anyio's."""
    return not filename.startswith(_NOT_USERS) or filename.startswith(_EXAMPLES)


def users_only(error: BaseException) -> BaseException:
    """The exception itself, and its causes, with the frames of users in their tracebacks and no others."""
    for found in _chain(error):
        found.__traceback__ = _without_ours(found.__traceback__)
    return error


def loggable(error: BaseException) -> BaseException:
    """What can be logged for an exception of users' code: the same, `users_only`, if every handler can write it.

    Otherwise (it cannot say what it is; half of a surrogate pair, which no file takes; megabytes) one like it, which can.
    """
    users_only(error)
    if all(_can_be_written(found) for found in _chain(error)):
        return error
    likeness = type(type(error).__name__, (Exception,), {"__module__": type(error).__module__})
    found: BaseException = likeness(words_of(error))
    return found.with_traceback(error.__traceback__)


def words_of(error: BaseException) -> str:
    """What an exception says, as text that can be stored; empty if it says nothing, or cannot."""
    try:
        words = str(error)
    except BaseException:  # noqa: BLE001 - even that is the users' code
        return ""
    return words[:LONGEST_WORDS].encode("utf-8", "replace").decode()


def in_words(error: BaseException) -> str:
    """What an exception is and says, as one line: `KeyError: 'sku'`."""
    name, words = type(error).__name__, words_of(error)
    return f"{name}: {words}" if words else name


LONGEST_WORDS = 2_000
"""Characters of what an exception says in the log."""


def _can_be_written(error: BaseException) -> bool:
    try:
        words = str(error)
        words.encode()
        notes = getattr(error, "__notes__", ())
        for note in notes:
            note.encode()
    except BaseException:  # noqa: BLE001 - even that is the users' code
        return False
    return len(words) <= LONGEST_WORDS


def _chain(error: BaseException) -> list[BaseException]:
    """The exception, its causes, and those of its group."""
    waiting, found, seen = [error], list[BaseException](), set[int]()
    while waiting and len(found) < LONGEST_CHAIN:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        found.append(one)
        waiting += [cause for cause in (one.__cause__, one.__context__) if cause is not None]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
    return found


def _without_ours(found: TracebackType | None) -> TracebackType | None:
    kept = []
    while found is not None:
        if is_users(found.tb_frame.f_code.co_filename):
            kept.append(found)
        found = found.tb_next
    rest: TracebackType | None = None
    for one in reversed(kept):
        rest = TracebackType(rest, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return rest


def stack_text(stack: traceback.StackSummary) -> str:
    """Frames as text, those of users only; all of them if there are no others."""
    own = traceback.StackSummary.from_list([frame for frame in stack if is_users(frame.filename)])
    return "".join((own or stack).format()).rstrip()
