"""What one transaction of the engine stream has done so far, and what it may be told to do instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hotmesh.postgres.commits import AnsweredElsewhereError
from hotmesh.postgres.steps import Committed
from hotmesh.runtime.engine.ticket import Attempt, UncommittedStep


@dataclass(slots=True)
class DueTransaction:
    """What one transaction has written so far; it counts once the transaction has committed."""

    steps: list[tuple[UncommittedStep, Attempt, Committed]] = field(default_factory=list)
    attempts: list[tuple[Attempt, Sequence[UncommittedStep]]] = field(default_factory=list)
    taken: dict[str, frozenset[str]] = field(default_factory=dict)
    """Generation → ids of children that were found in other hands."""


@dataclass(frozen=True, slots=True)
class Failing:
    """The events of this job fail their activities with a message. `undo`: only to see whether that can be written."""

    generation: str
    message: str
    undo: bool = False


class SignalledError(AnsweredElsewhereError):
    """A wait whose time is over was given a signal meanwhile: that comes first, as soon as it is there."""

    def __init__(self, generation: str) -> None:
        super().__init__(generation)
        self.generation = generation


class UndoneError(Exception):
    """The step could be written; the transaction is to leave nothing."""
