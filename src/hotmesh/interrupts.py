"""Ctrl-C told apart from a KeyboardInterrupt that code of users has raised by itself."""

from __future__ import annotations

import signal
import threading
from types import CodeType, FrameType, TracebackType
from typing import Any


def is_interrupt(error: BaseException) -> bool:
    """Whether it is a Ctrl-C that came while users' code was running, and nothing that this code raised by itself."""
    if not isinstance(error, KeyboardInterrupt) or threading.current_thread() is not threading.main_thread():
        return False
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        return False
    code = _code_of(handler)
    return code is None or any(frame.f_code is code for frame in _frames(error.__traceback__))


def _code_of(handler: Any) -> CodeType | None:
    """Of what a handler consists; None of one that leaves no frame, as Python's own."""
    handler = getattr(handler, "func", handler)  # `asyncio.run` has a partial
    found = getattr(getattr(handler, "__func__", handler), "__code__", None)
    return found if isinstance(found, CodeType) else None


def _frames(found: TracebackType | None) -> list[FrameType]:
    frames = []
    while found is not None:
        frames.append(found.tb_frame)
        found = found.tb_next
    return frames
