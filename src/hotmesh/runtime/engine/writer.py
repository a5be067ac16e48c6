"""Writes steps: the one commit, for steps from memory and for those of the engine stream.

Work for a worker of this process is reserved as it is written, and a slot is held for it meanwhile (`work/slots.py`).
With the answer, the callback starts, or the slot is free again. As long as the answer is missing, it stays held.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence

from hotmesh.core.state.step import Step, Work, WorkKey
from hotmesh.errors import NoConnectionError
from hotmesh.postgres import commits
from hotmesh.postgres.connect.failures import translated
from hotmesh.postgres.database import Connection
from hotmesh.postgres.steps import Batch, Committed
from hotmesh.runtime.durable.turns import Turns
from hotmesh.runtime.engine.limits import EngineLimits
from hotmesh.runtime.engine.ticket import Attempt, UncommittedStep
from hotmesh.runtime.surroundings import Surroundings
from hotmesh.runtime.telemetry.events import touched
from hotmesh.runtime.telemetry.metrics import add
from hotmesh.runtime.wake import with_cut_off, with_ended, with_events
from hotmesh.runtime.work.slots import Slots


class BatchTooLargeError(Exception):
    """The steps are too much for one statement; nothing was sent. Fewer of them can be written."""


class CommitWriter:
    """Writes a batch of steps with one statement.

    `reply_channel` says where this process hears of answers by others (None: it does not); `send_delay`, by
    generation, for how long others leave a message that this process means to handle. `readonly`: it handles nothing,
    and tells the others.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        slots: Slots,
        reply_channel: Callable[[], str | None],
        send_delay: Callable[[str | None], float],
        limits: EngineLimits,
        *,
        readonly: bool,
        turns: Turns,
    ) -> None:
        self._database = surroundings.database
        self._plans = surroundings.plans
        self._member = surroundings.member
        self._lease = surroundings.settings.lease
        self._metrics = surroundings.metrics
        self._events = surroundings.events
        self._slots = slots
        self._reply_channel = reply_channel
        self._send_delay = send_delay
        self._limits = limits
        self._readonly = readonly
        self._turns = turns

    async def write(
        self, connection: Connection, steps: Sequence[UncommittedStep], attempt: Attempt
    ) -> Committed:
        """Write the steps, and reserve the rows of the attempt's overflow.

        Raises AnsweredElsewhereError, and BatchTooLargeError where there are several.

        After NoConnectionError it is not known whether they are written: the slots for their work are still held.
        """
        try:
            with translated():
                wake = self._encode(steps, attempt)
                return await commits.commit(
                    self._database,
                    connection,
                    attempt.arguments,
                    self._member,
                    attempt.epoch,
                    attempt.token,
                    self._lease,
                    wake,
                    watched=self.watched(steps),
                )
        except NoConnectionError:
            raise
        except BaseException as error:
            self.free_slots(steps)
            if getattr(error, "sqlstate", None) == commits.TENURE_OVER and self._turns.tenures is not None:
                self._turns.tenures.refused(attempt.arguments.holder)
            raise

    async def check_epoch(
        self, steps: Sequence[UncommittedStep], attempt: Attempt, committed: Committed
    ) -> bool:
        """Whether the steps were computed under the definitions that hold. If not, none was written.

        The definitions are then read again, and no slot is held any more.
        """
        if committed.epoch == attempt.epoch:
            self._metrics.committed(len(steps), time.monotonic() - attempt.since, committed.refused.values())
            return True
        self.free_slots(steps)
        self.return_overflow(attempt)
        add(self._metrics.refused, "definitions", len(steps))
        await self._plans.refresh()
        return False

    def watched(self, steps: Sequence[UncommittedStep]) -> Sequence[str]:
        """The jobs of whose work items somebody wants to hear; none without a sink."""
        return () if self._events is None else touched([item.step for item in steps])

    def free_slots(self, steps: Iterable[UncommittedStep]) -> None:
        """Free the slots that are held for steps that did not commit."""
        for item in steps:
            for work, local in zip(item.step.work, item.local, strict=False):
                if local:
                    self._slots.free_slot(work)
            item.local = []

    def free_slots_but(self, item: UncommittedStep, held: Collection[WorkKey]) -> None:
        """Free the slots of a step whose commit was not answered, but for the work that this process holds."""
        for index, (work, local) in enumerate(zip(item.step.work, item.local, strict=True)):
            if local and work.key not in held:
                self._slots.free_slot(work)
                item.local[index] = False

    def note_lost(self, steps: Iterable[UncommittedStep], attempt: Attempt) -> None:
        """Whether the attempt is committed stays unknown: what it may have reserved is looked for and given back."""
        if any(True in item.local for item in steps):
            self._slots.lost_reservations.add(attempt.token)

    def return_overflow(self, attempt: Attempt) -> None:
        """The rows of the attempt's overflow were not reserved."""
        self._slots.overflow_refused(attempt.overflow)
        attempt.overflow = []

    def _encode(self, steps: Sequence[UncommittedStep], attempt: Attempt) -> str | None:
        """Hold slots, and put everything into the attempt's arguments; the hint for work that is left to others."""
        arguments = attempt.arguments = Batch(self._reply_channel(), self._database.payload)
        arguments.holder = self._turns.tenure
        hold_slot = self._slots.hold_slot
        left: list[Work] = []
        for number, item in enumerate(steps):
            step = item.step
            # What is asked to end in the turn that asks for it must not be held, to be answered by the same statement.
            item.local = (
                [hold_slot(work) for work in step.work] if not step.cancels else [False] * len(step.work)
            )
            for work, local in zip(step.work, item.local, strict=True):
                if not local:
                    left.append(work)
            arguments.add(number, step, local=item.local, send_delay=self._send_delay)
            if number and arguments.size > self._limits.commit_size:
                raise BatchTooLargeError(
                    f"{number + 1} of {len(steps)} steps have {arguments.size:,} characters"
                )
        for held in attempt.overflow:
            arguments.reserve(held.generation, held.activity_id, held.dimension)
        wake = self._slots.wake_text(left)
        if self._readonly and any(_for_engines(item.step) for item in steps):
            wake = with_events(wake)
        ended = [
            change.job.generation for item in steps if self._turns.ends_elsewhere(change := item.step.jobs[0])
        ]
        if ended:
            wake = with_ended(wake, ended)
        elsewhere = [
            key
            for item in steps
            if (step := item.step).given_up or step.cancels
            for key in self._turns.activities.cut_off_elsewhere(step)
        ]
        return with_cut_off(wake, elsewhere) if elsewhere else wake


def _for_engines(step: Step) -> bool:
    """Whether a step leaves something that an engine has to handle; one that handles nothing has to tell the others."""
    return bool(step.messages or step.signals or step.timers or step.broadcasts)
