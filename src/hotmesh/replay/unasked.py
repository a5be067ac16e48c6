"""What reaches a strand without having been asked for: who takes it, and what nobody has taken yet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextvars import Context
from inspect import isawaitable
from typing import Any

from hotmesh.core.durable.commands import Completion, Wait
from hotmesh.replay.loop import Loop
from hotmesh.replay.tasks import Operation

Handler = Callable[[Completion], Any]


class Unasked:
    """Handlers by kind and name, and, in order, what came before there was one."""

    def __init__(self) -> None:
        self._handlers: dict[tuple[str, str], Handler] = {}
        self._kept: list[Completion] = []

    def handle(self, kind: str, name: str, handler: Handler) -> list[Completion]:
        """From now on it is for this handler; what was kept, which may be for it."""
        self._handlers[kind, name] = handler
        kept, self._kept = self._kept, []
        return kept

    def unhandle(self, kind: str, name: str) -> None:
        self._handlers.pop((kind, name), None)

    def handler(self, kind: str, name: str) -> Handler | None:
        return self._handlers.get((kind, name))

    def keep(self, completion: Completion) -> None:
        self._kept.append(completion)

    def take(self, kind: str, name: str) -> Completion | None:
        """The first one that is kept of this kind and name; it is not kept any more."""
        for completion in self._kept:
            if completion.kind == kind and completion.name == name:
                self._kept.remove(completion)
                return completion
        return None

    def clear(self) -> None:
        self._handlers.clear()
        self._kept.clear()


def hand_to(handler: Handler, completion: Completion, strand: Loop, context: Context) -> None:
    """Call a handler; what is to be awaited becomes a task. What it raises is told at once, and ends nobody else."""
    what = f"{completion.kind} {completion.name}"

    def failed(error: BaseException) -> None:
        strand.blocked_by(error)
        strand.tell(f"the handler of {completion.kind} {completion.name!r} failed", error)

    async def handled(found: Awaitable[Any]) -> None:
        try:
            await found
        except (asyncio.CancelledError, GeneratorExit):  # given up; its coroutine is dropped
            raise
        except BaseException as error:  # noqa: BLE001 - theirs, of any kind
            failed(error)

    try:
        found = context.copy().run(handler, completion)
        if isawaitable(found):
            strand.task_of(handled(found), what, context.copy())
    except BaseException as error:  # noqa: BLE001 - theirs, of any kind
        failed(error)


def waiting_for(signal: str, operations: Iterable[Any]) -> Operation[Any] | None:
    """Of open operations that which has waited longest for signals of this name."""
    found = [
        one
        for one in operations
        if isinstance(one, Operation) and isinstance(one.command, Wait) and one.command.name == signal
    ]
    return min(found, key=_position, default=None)


def _position(operation: Operation[Any]) -> int:
    return operation.command.position
