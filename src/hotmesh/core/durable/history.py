"""What is recorded of a durable function, as its strand and its row want it."""

from __future__ import annotations

from typing import Final

from hotmesh.core.durable.commands import Completion
from hotmesh.core.durable.state import MAIN
from hotmesh.core.state.job import Job
from hotmesh.core.state.step import Operation
from hotmesh.core.values import UNDEFINED

PER_STEP: Final = 65_536
"""Outcomes that one step may record."""


def operations(job: Job, seq: int, completions: list[Completion]) -> tuple[Operation, ...]:
    """The rows of what a step records, which makes the job's version `seq`; the completions carry their order."""
    return tuple(
        [
            Operation(
                job.generation,
                MAIN,
                completion.position,
                completion.seq,
                completion.kind,
                completion.name,
                completion.status,
                completion.at,
                completion.value
                if completion.status == "done" and completion.value is not None
                else UNDEFINED,
                completion.error,
                completion.attempt if completion.attempt > 1 else None,
                completion.started_at,
            )
            for completion in completions
        ]
    )


def order(seq: int, place: int) -> int:
    """The order of the outcome at that place of the step that makes the job's version `seq`."""
    return seq * PER_STEP + place
