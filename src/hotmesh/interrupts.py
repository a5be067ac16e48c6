"""Ctrl-C told apart from a KeyboardInterrupt that code of users has raised by itself."""

from __future__ import annotations

import signal
import threading
from opcode import opname
from types import CodeType, FrameType, TracebackType
from typing import Any, Final


def is_interrupt(error: BaseException) -> bool:
    """Whether it is a Ctrl-C that came while users' code was running, and nothing that this code raised by itself."""
    if not isinstance(error, KeyboardInterrupt) or threading.current_thread() is not threading.main_thread():
        return False
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        return False
    places = _places(error.__traceback__)
    code = _code_of(handler)
    if code is None:
        # Python's own handler, which leaves no frame: it acts between two instructions, or inside of a call.
        return not places or _instruction(*places[-1]) not in _RAISING
    return any(frame.f_code is code for frame, _ in places)


def _code_of(handler: Any) -> CodeType | None:
    """Of what a handler consists; None of one that leaves no frame."""
    handler = getattr(handler, "func", handler)  # `asyncio.run` has a partial
    found = getattr(getattr(handler, "__func__", handler), "__code__", None)
    return found if isinstance(found, CodeType) else None


def _places(found: TracebackType | None) -> list[tuple[FrameType, int]]:
    """The frames of a traceback, the innermost last, each with the position of its instruction."""
    places = []
    while found is not None:
        places.append((found.tb_frame, found.tb_lasti))
        found = found.tb_next
    return places


def _instruction(frame: FrameType, position: int) -> str:
    return opname[frame.f_code.co_code[position]]


_RAISING: Final = frozenset({"RAISE_VARARGS", "RERAISE", "SEND", "YIELD_VALUE"})
"""What raises an exception that a program has made: `raise`, and waiting for something that ends in one."""
