"""One execution of a durable function: an event loop without clock, selector or threads, that runs until all is blocked.

    strand = Strand(main, seed=…, started_at=…, recorded=[…], opened=[…])     history as of the job's version
    commands = strand.turn([completion, …])                                   to be committed, else `close()` it
    strand.close()                                                            whenever it is not used any more

Completions are delivered one by one; after each, the code runs until every task waits. So what it does is a function of
the code, its arguments and the completions in their order: not of how they are grouped into turns, of addresses or hash seeds.

Calls of a workflow find it by `running_strand()`, take a position with `reserve()` when they are called, and `ask(command)`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextvars import Context, copy_context
from datetime import datetime
from hashlib import blake2b
from random import Random
from types import MappingProxyType
from typing import Any, Final, TypeVar
from uuid import UUID

from hotmesh.core.durable.commands import (
    AT_ONCE,
    Asked,
    Cancellation,
    Cancelled,
    Command,
    Completion,
    Fail,
    Finish,
    Opened,
    Wait,
)
from hotmesh.core.wire import loads
from hotmesh.replay import closing
from hotmesh.replay.ledger import Ledger
from hotmesh.replay.loop import Loop, Tell
from hotmesh.replay.refusals import explained
from hotmesh.replay.tasks import Future, Operation, Task
from hotmesh.replay.timers import Timer
from hotmesh.replay.unasked import Unasked, hand_to, waiting_for

T = TypeVar("T")

_NO_PATCHES: Final[Mapping[str, int]] = MappingProxyType({})


class Strand(Loop):
    """One execution of `main`, which is called at the first turn, inside the strand, and gives its coroutine.

    `seed` (generation and number of the strand, say) decides random numbers and the order of sets of tasks: the same for all
    replays. `recorded` are all outcomes so far, in any order; `opened` what is still open. `context` is what its tasks
    see of context variables; `tell` hears what a workflow's author should see in a log, and the exception if there is one.
    """

    def __init__(
        self,
        main: Callable[[], Coroutine[Any, Any, Any]],
        *,
        seed: bytes,
        started_at: datetime,
        recorded: Iterable[Completion] = (),
        opened: Iterable[Opened] = (),
        context: Context | None = None,
        tell: Tell | None = None,
    ) -> None:
        digest = blake2b(seed, digest_size=16).digest()
        super().__init__(int.from_bytes(digest[:7], "big"), started_at, tell)
        self.ended = False
        self.cancelled = False
        """It was asked to end."""
        self.missed_cancel = False
        """It had ended before that could reach it."""
        self.cancel_reason: str | None = None
        """Why it was asked to end, if that was said."""
        self._seed = digest
        self._random: Random | None = None
        self._main: Callable[[], Coroutine[Any, Any, Any]] | None = main
        self._task: Task[Any] | None = None
        self._context = context or copy_context()
        self._open: dict[int, Operation[Any] | Timer] = {}
        self._conditions: list[tuple[Callable[[], Any], Future[None], Context]] = []
        self._unasked = Unasked()
        self.patches: Mapping[str, int] = _NO_PATCHES
        """Versions of changes of the code, as they were answered: see `patches`."""
        self._ledger = Ledger(recorded, opened)

    # A turn, as the runtime sees it

    def turn(self, completions: Sequence[Completion] = ()) -> list[Command]:
        """Deliver what is left of the history, then `completions`, and return what the code asks for: commit it, or `close()`.

        The last command is `Finish`, `Fail` or `Cancelled` if the function has ended. Raises `NonDeterminismError` if the
        code does not fit the history (nothing of the turn counts), `TurnBlocked` if a guard ended it; then it is of no more use.
        """
        self._ledger.history.extend(completions)
        self._ledger.fresh = len(completions)
        self.replay()
        ledger = self._ledger
        if self.ended:
            while ledger.history:  # came with the turn, and nobody is there any more
                missed = ledger.history.popleft()
                if missed.kind == "cancel":
                    self.missed_cancel, self.cancel_reason = True, _reason(missed)
                ledger.settled(missed)
        else:
            ledger.look_for_leftovers("every task waits")
        if ledger.differs is not None:
            raise ledger.differs
        return ledger.take()

    def replay(self, most: int | None = None) -> bool:
        """Deliver at most so many recorded completions; True while more are left. `turn` does what is left to do.

        Between two calls the caller may let other things run; the result is the same.
        """
        if self.closed:
            raise RuntimeError("this strand is closed")
        history = self._ledger.history
        hooks = self.enter()
        try:
            if self._task is None:
                self._begin()
            while history and not self.ended and not self.halted and most != 0:
                self._deliver(history.popleft())
                self._settle()
                most = None if most is None else most - 1
        finally:
            self.leave(hooks)
        return bool(history) and not self.ended and not self.halted

    def close(self) -> None:
        """Drop the coroutines: each gets `GeneratorExit` where it stands. Nothing they do about it has any effect."""
        if not self.closed:
            self.closed = True
            closing.close(self)
            for ends in (self._open, self._conditions, self._unasked):
                ends.clear()
            # With these the last cycles go, so that nothing is left to the garbage collector.
            self._task = self._main = self._tell = None

    @property
    def over(self) -> bool:
        """Whether nothing that is asked for counts any more."""
        return self.closed or self.ended

    @property
    def replaying(self) -> bool:
        """Whether the code is where it has been before: something recorded is undelivered, or not asked for yet."""
        return self._ledger.replaying

    # What the calls of a workflow are made of; inside a turn only

    def reserve(self) -> int:
        """The next position."""
        self._ledger.position += 1
        return self._ledger.position

    def ask(
        self,
        command: Asked,
        decode: Callable[[Completion], T] | None = None,
        cancellation: Cancellation = "try_cancel",
    ) -> Operation[T]:
        """Ask for an operation at the position that was reserved for it. `decode` makes its value of the completion, or raises."""
        operation: Operation[T] = Operation(self, command, decode, cancellation)
        if self._accept(command):
            early = self._ledger.answers.pop(command.position, None)
            if (
                isinstance(command, Wait)
                and (signal := self._unasked.take("signal", command.name)) is not None
            ):
                self._ledger.give_up(command, told=True)
                operation.settle(signal)
            elif early is None:
                self._open[command.position] = operation
            else:
                self._ledger.settled(early)
                operation.settle(early)
        return operation

    def perform(self, command: Asked, value: Any = None) -> Any:
        """Ask for something that is answered at the call (see `AT_ONCE`): what was recorded, else `value`."""
        if self._accept(command):
            answer = self._ledger.answers.pop(command.position, None)
            if answer is not None:
                return answer.value
        return value

    def now(self) -> datetime:
        """The instant of the turn that recorded the completion that the code goes on from."""
        return self._now

    def random(self) -> Random:
        """Random numbers that are the same in every replay. Who draws also reserves a position."""
        if self._random is None:
            self._random = Random(self._seed)  # noqa: S311 - must be the same again
        return self._random

    def uuid4(self) -> UUID:
        """A version 4 UUID that is the same in every replay."""
        return UUID(int=self.random().getrandbits(128), version=4)

    def condition(self, predicate: Callable[[], Any]) -> asyncio.Future[None]:
        """Done when `predicate` says so: asked now, and whenever all tasks wait after a completion; what it raises is raised."""
        future: Future[None] = Future(self)
        self._conditions.append((predicate, future, copy_context()))
        self.call_soon(_nothing, context=self._context)  # so that it is looked at
        return future

    def handle(self, kind: str, name: str, handler: Callable[[Completion], Any]) -> None:
        """Have `handler` called with what comes unasked of this kind and name, also with what came before.

        It is called in the order of delivery; if it returns a coroutine, that becomes a task. Name "": of any name.
        """
        for completion in self._unasked.handle(kind, name, handler):
            self._deliver_unasked(completion)

    def unhandle(self, kind: str, name: str) -> None:
        """Keep what comes of this kind and name again."""
        self._unasked.unhandle(kind, name)

    def give_up(self, command: Asked, told: bool = True) -> None:
        """Have the row of an operation go; with `told` False it stays, and nobody cares."""
        self._open.pop(command.position, None)
        if not self.closed:
            self._ledger.give_up(command, told)

    def wind_down(self, command: Asked) -> None:
        """Have an operation asked to end."""
        if not self.closed:
            self._ledger.wind_down(command)

    # Inside

    def _begin(self) -> None:
        self._task = self.task_of(_called(self._main), "main", self._context)
        self._settle()

    def _accept(self, command: Asked) -> bool:
        """Whether it counts: nothing does when the function has ended, but what is answered at once while its tasks unwind."""
        if self.closed or (self.ended and command.kind not in AT_ONCE):
            return False
        if self._ledger.ask(command):
            return True
        self.halted = True
        return False

    def call_later(self, delay: float, callback: Any, *args: Any, context: Context | None = None) -> Any:
        """A durable timer."""
        if delay <= 0:
            return self.call_soon(callback, *args, context=context)
        timer = Timer(self, round(delay, 6), callback, args, context)
        if self._accept(timer.command):
            early = self._ledger.answers.pop(timer.command.position, None)
            if early is None:
                self._open[timer.command.position] = timer
            else:
                self._ledger.settled(early)
                timer.settle(early)
        return timer

    def _deliver(self, completion: Completion) -> None:
        self._now = max(self._now, completion.at)
        position = completion.position
        if position < 0:
            self._deliver_unasked(completion)
            return
        operation = self._open.pop(position, None)
        ledger = self._ledger
        if operation is not None:
            if ledger.fits(operation.command, completion):
                ledger.settled(completion)
                operation.settle(completion)
            else:
                self.halted = True
        elif position in ledger.expected or position > ledger.position:
            ledger.answers[position] = completion
        else:  # it was given up
            ledger.settled(completion)

    def _deliver_unasked(self, completion: Completion) -> None:
        if completion.kind == "cancel":
            self.cancelled = True
            main: Any = self._task
            self.cancel_reason = _reason(completion)
            main.cancel(self.cancel_reason)
            return
        handler = self._unasked.handler(completion.kind, completion.name)
        if handler is None and completion.kind == "signal":
            waiter = waiting_for(completion.name, self._open.values())
            if waiter is not None:
                self._open.pop(waiter.command.position)
                self._ledger.give_up(waiter.command, told=True)
                waiter.settle(completion)
                return
        handler = handler or self._unasked.handler(completion.kind, "")
        if handler is None:
            self._unasked.keep(completion)
            return
        hand_to(handler, completion, self, self._context)

    def _settle(self) -> None:
        """Run until every task waits, and no condition has become true."""
        task: Any = self._task
        while True:
            self.run(task)
            if task.done():
                self._end(task)
                return
            if self.halted or not self._look_at_conditions():
                return

    def _look_at_conditions(self) -> bool:
        changed = False
        for one in list(self._conditions):
            predicate, future, context = one
            try:
                true = future.done() or bool(context.copy().run(predicate))
            except StopIteration as error:
                future.set_exception(RuntimeError(f"the condition raised {error!r}"))
            except BaseException as error:  # noqa: BLE001 - theirs, of any kind
                self.blocked_by(error)
                future.set_exception(error)
            else:
                if not true:
                    continue
                if not future.done():
                    future.set_result(None)
            self._conditions.remove(one)
            changed = True
        return changed

    def _end(self, task: Task[Any]) -> None:
        """The function has ended: tasks that still run are cancelled, what is open is given up."""
        self.ended = True
        ended: Command
        if task.cancelled():
            ended = Cancelled(_error_of(task))
        elif (error := task.exception()) is not None:
            self.blocked_by(error)
            ended = Fail(explained(error))
        else:
            ended = Finish(task.result())
        for other in [one for one in self.tasks if not one.done()]:
            self.tell(f"task {other.get_name()!r} was still running when the function ended: it is cancelled")
            other.cancel()
        self.run(None)
        for operation in list(self._open.values()):
            command = operation.command
            if not isinstance(operation, Timer):
                self.tell(
                    f"{command.kind} {command.name!r} (operation {command.position}) was open when the function ended: "
                    "it is given up. Was an `await` forgotten?"
                )
            operation.cancel()
        if self._ledger.expected:
            self._ledger.look_for_leftovers("the function ended")
        self._ledger.commands[_LAST] = ended


def asked_by(strand: Strand) -> dict[int, tuple[str, str]]:
    """What a strand asks for from here on: kind and name, by position; this very mapping grows."""
    ledger = strand._ledger
    if ledger.asked is None:
        ledger.asked = {}
    return ledger.asked


_LAST: Final = 1 << 62
"""No position is as high."""


def _reason(cancel: Completion) -> str | None:
    found = None if cancel.value is None else loads(cancel.value)
    return found if isinstance(found, str) else None


def _error_of(task: Task[Any]) -> BaseException:
    try:
        task.result()
    except BaseException as error:  # noqa: BLE001 - it was cancelled, this says how
        return error
    return asyncio.CancelledError()


async def _called(main: Any) -> Any:
    return await main()


def _nothing() -> None:
    """For the loop to go round once."""
