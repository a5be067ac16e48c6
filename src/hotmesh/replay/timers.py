"""What asyncio takes for a timer of its loop, and is an operation: it outlives the process."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Any, Final

from hotmesh.core.durable.commands import Completion, Sleep


class Timer(asyncio.TimerHandle):
    """The handle of `call_later`; cancelled, its row goes."""

    def __init__(
        self, strand: Any, seconds: float, callback: Any, args: Any, context: Context | None
    ) -> None:
        super().__init__(strand.time() + seconds, callback, args, strand, context)
        self._strand = strand
        self._call: Any = (callback, args, context)
        self.command: Final = Sleep(strand.reserve(), seconds, "timer")

    def cancel(self) -> None:
        """Give it up."""
        if not self.cancelled():
            self._strand.give_up(self.command)
            self._call = None
            super().cancel()

    def settle(self, _: Completion) -> None:
        """It is due."""
        if self._call is not None:
            (callback, args, context), self._call = self._call, None
            self._strand.call_soon(self._run_unless_cancelled, callback, args, context=context)

    def _run_unless_cancelled(self, callback: Any, args: Any) -> None:
        if not self.cancelled():
            callback(*args)
