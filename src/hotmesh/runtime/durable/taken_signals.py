"""Signals that are in other hands (waits for them fail, in the turn that asks for them), and those that come too late."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from datetime import datetime

from msgspec.structs import replace

from hotmesh.core.durable.commands import Command, Completion, Wait
from hotmesh.core.durable.history import order
from hotmesh.core.durable.record import Recorded
from hotmesh.core.durable.state import BY_ID
from hotmesh.core.state.job import Event, Job
from hotmesh.replay import Strand

logger = logging.getLogger("hotmesh.durable")


def tell_late(job: Job, events: Sequence[Event]) -> None:
    """Say of signals that their workflow has ended: whoever sent them has heard that they are on their way."""
    for event in events:
        if event.kind == "signal":
            logger.warning(
                "signal %s came after workflow %s %s had ended: nobody has it",
                event.activity_id,
                job.topic,
                job.job_id,
                extra={"event": "signal-too-late", "job_id": job.job_id},
            )


class TakenSignals:
    """What commits have found, by generation: a hint for the turn that is taken again."""

    def __init__(self) -> None:
        self._marks: dict[str, set[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._marks)

    def note(self, generation: str, mark: str) -> None:
        """A commit was refused for what is in other hands. That may be the id of a job as well: then it is nothing to us."""
        if mark.startswith(f"{BY_ID}:"):
            self._marks.setdefault(generation, set()).add(mark)

    def of(self, generation: str) -> Collection[str]:
        return self._marks.get(generation, ())

    def forget(self, generation: str) -> None:
        if self._marks:
            self._marks.pop(generation, None)


def without_taken(
    strand: Strand,
    job: Job,
    recorded: Recorded,
    commands: Sequence[Command],
    taken: Collection[str],
    now: datetime,
) -> tuple[Recorded, Sequence[Command]]:
    """A turn in which these waits have failed, and what the code asks for then."""
    found = list(commands)
    completions = list(recorded.completions)
    failed: set[int] = set()
    for command in found:  # what the code asks for after a failure is added to it
        if (
            isinstance(command, Wait)
            and command.correlated
            and not command.shared
            and f"{BY_ID}:{command.name}" in taken
        ):
            error = {"type": "SignalIdInUseError", "message": command.name, "code": 409}
            seq = order(job.seq + 1, len(completions))
            completions.append(
                Completion(command.position, "wait", command.name, "failed", now, seq, error=error)
            )
            failed.add(command.position)
            found += strand.turn(completions[-1:])
    kept = [one for one in found if not isinstance(one, Wait) or one.position not in failed]
    return replace(recorded, completions=completions), kept
