"""What belongs to an event loop: an instance, a pool, a connection. Whoever calls from elsewhere is told so at once.

Nothing of asyncio may be used from another thread or loop: at best it hangs, at worst the driver writes into freed memory.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Final

from hotmesh.errors import ConfigError

running_loop = asyncio._get_running_loop
"""The loop that runs in this thread, or None; quicker than `get_running_loop`, and no exception outside of one."""

_WAYS: Final = "make one there, or use asyncio.run_coroutine_threadsafe(…, loop); a plain callback uses anyio.from_thread.run(…)"


class Home:
    """The loop that something was made in, and its thread."""

    __slots__ = ("loop", "thread")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.thread = threading.current_thread().name

    def refusal(self, what: str = "this instance") -> ConfigError:
        """The error for whoever is not there."""
        over = ", which has ended" if self.loop.is_closed() else ""
        return ConfigError(f"{what} belongs to another event loop (thread {self.thread}){over}; {_WAYS}")

    def check(self, what: str = "this instance") -> None:
        """Raise that error unless its loop is the one that runs here."""
        if running_loop() is not self.loop:
            raise self.refusal(what)


def check_driver(thing: Any, what: str) -> None:
    """Raise ConfigError for a pool or connection of asyncpg that was made in another loop."""
    loop = getattr(thing, "_loop", None)
    if loop is None:
        loop = getattr(getattr(thing, "_con", None), "_loop", None)
    if isinstance(loop, asyncio.AbstractEventLoop) and loop is not running_loop():
        over = ", which has ended" if loop.is_closed() else ""
        raise ConfigError(
            f"{what} belongs to another event loop{over}; make one in this loop, or call where it belongs"
        )
