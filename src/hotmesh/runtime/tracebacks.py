"""Tracebacks for the authors of callbacks: their frames, without those of ours and of anyio through which they were called.

What an exception of theirs has is looked at and changed by the descriptors of its base classes, as in `foreign_errors`.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import anyio

from hotmesh.errors import in_short as error_in_short
from hotmesh.foreign_errors import LONGEST_WORDS, kind_of, words_of

_OURS: Final = f"{Path(__file__).parents[1]}/"
_NOT_USERS: Final = (_OURS, f"{Path(anyio.__file__).parent}/")
_EXAMPLES: Final = _OURS + "demo/"
"""Callbacks that come with the package are written as those of users are."""

LONGEST_CHAIN: Final = 50
"""Causes of causes that are looked at."""


def is_users(filename: str) -> bool:
    """Whether code of this file is neither ours nor anyio's."""
    return not filename.startswith(_NOT_USERS) or filename.startswith(_EXAMPLES)


_BASE: Final[Any] = BaseException.__dict__
_EXCEPTIONS: Final[Any] = BaseExceptionGroup.__dict__["exceptions"]


def users_only(error: BaseException) -> BaseException:
    """The exception itself, and its causes, with the frames of users in their tracebacks and no others."""
    for found in _chain(error):
        _BASE["__traceback__"].__set__(found, _without_ours(traceback_of(found)))
    return error


def traceback_of(error: BaseException) -> TracebackType | None:
    found: TracebackType | None = _BASE["__traceback__"].__get__(error)
    return found


def loggable(error: BaseException) -> BaseException:
    """What can be logged for an exception of users' code: the same, `users_only`, if every handler can write it.

    Otherwise (it cannot say what it is; half of a surrogate pair, which no file takes; megabytes) one like it, which can.
    """
    users_only(error)
    if all(_can_be_written(found) for found in _chain(error)) and stack_of(error):
        return error
    found: BaseException = type(kind_of(error), (Exception,), {"__module__": None})(words_of(error))
    return found.with_traceback(traceback_of(error))


def stack_of(error: BaseException) -> str:
    """The exception with its causes and their tracebacks, as Python prints them; empty if it does not let itself be printed."""
    try:
        return "".join(traceback.format_exception(error))
    except BaseException:  # noqa: BLE001 - even that is the users' code
        return ""


def in_short(error: BaseException) -> str:
    """What an exception is and says, as one line: `KeyError: 'sku'`; that of its error object."""
    return error_in_short({"type": kind_of(error), "message": words_of(error)})


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
        causes = (_BASE[name].__get__(one) for name in ("__cause__", "__context__"))
        waiting += [cause for cause in causes if cause is not None]
        if BaseExceptionGroup in type.__dict__["__mro__"].__get__(type(one)):
            waiting += _EXCEPTIONS.__get__(one)
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
