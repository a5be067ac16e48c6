"""What instances and callers of one process share: connections of the same options, by the task queue that they name.

Something shared lives as long as anybody uses it. It belongs to the event loop it was made on, so that each loop has
its own. Without a task queue nothing is shared, but it is known all the same, so that all of it can be closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar


class Closable(Protocol):
    """Something to share."""

    def close(self) -> Awaitable[None]: ...


Thing = TypeVar("Thing", bound=Closable)


@dataclass(slots=True)
class _Shared:
    thing: Any
    task_queue: str | None
    loop: asyncio.AbstractEventLoop
    key: Any
    users: int = 1
    reused: int = 0


@dataclass(frozen=True, slots=True)
class ConnectionStatistics:
    """The connections of this process that can be shared.

    `connections`: how many there are, `users`: of how many instances and callers, `reused`: how often somebody got one
    that was there, `efficiency`: the part of all requests that this was, from 0 to 1. `by_task_queue`: the same for
    each task queue.
    """

    connections: int
    users: int
    reused: int
    efficiency: float
    by_task_queue: dict[str, ConnectionStatistics]


_known: list[_Shared] = []


def share(task_queue: str | None, key: Any, make: Callable[[], Thing]) -> Thing:
    """What was made for this task queue and key and is still in use, else what `make` makes. Call on an event loop."""
    loop = asyncio.get_running_loop()
    _known[:] = [shared for shared in _known if not shared.loop.is_closed()]
    if task_queue is not None:
        for shared in _known:
            if (shared.task_queue, shared.loop, shared.key) == (task_queue, loop, key):
                shared.users += 1
                shared.reused += 1
                found: Thing = shared.thing
                return found
    made = make()
    _known.append(_Shared(made, task_queue, loop, key))
    return made


async def give_back(thing: Closable) -> None:
    """One user less; the last one closes it."""
    for shared in _known:
        if shared.thing is thing:
            shared.users -= 1
            if shared.users > 0:
                return
            _known.remove(shared)
            break
    await thing.close()


async def close_all() -> None:
    """Close everything that belongs to this event loop, whoever uses it."""
    loop = asyncio.get_running_loop()
    found = [shared for shared in _known if shared.loop is loop]
    _known[:] = [shared for shared in _known if shared.loop is not loop]
    for shared in found:
        await shared.thing.close()


def statistics() -> ConnectionStatistics:
    """How many there are now, and how often they were shared."""
    known = [shared for shared in _known if not shared.loop.is_closed()]
    queues = dict.fromkeys(shared.task_queue for shared in known if shared.task_queue is not None)
    return _sum(
        known,
        {queue: _sum([shared for shared in known if shared.task_queue == queue], {}) for queue in queues},
    )


def _sum(known: list[_Shared], queues: dict[str, ConnectionStatistics]) -> ConnectionStatistics:
    reused = sum(shared.reused for shared in known)
    requests = len(known) + reused
    return ConnectionStatistics(
        len(known),
        sum(shared.users for shared in known),
        reused,
        reused / requests if requests else 0.0,
        queues,
    )
