"""Proves replay while tests run: with HOTMESH_REPLAY_EVERY=n each n-th turn lets go of its code once it is committed.

What comes next finds no code in memory: the history is read, the function is run from its beginning, and what it asks for on
the way is compared with what it had asked for when it was live. A difference ends the workflow with an error that shows both
side by side: such a function would not survive the death of its process.
"""

from __future__ import annotations

import os
from typing import Final

from hotmesh.durable_errors import NonDeterminismError
from hotmesh.errors import ConfigError
from hotmesh.replay import Strand
from hotmesh.replay.strand import asked_by

VARIABLE: Final = "HOTMESH_REPLAY_EVERY"

_SHOWN: Final = 10
"""Operations that are shown before the one that differs."""

Asked = dict[int, tuple[str, str]]
"""Position → kind and name."""


class ReplayDifferenceError(NonDeterminismError):
    """A replay did something else than the function did when it was live. Only with HOTMESH_REPLAY_EVERY."""

    def __init__(self, position: int, live: Asked, replayed: Asked) -> None:
        super().__init__(position, _told(live, position), _told(replayed, position))
        lines = [
            f"  {one:>6}  {_told(live, one):<40}  {_told(replayed, one)}"
            for one in range(max(1, position - _SHOWN), position + 1)
        ]
        words = f"  {'':>6}  {'when it was live':<40}  when it was replayed"
        text = "\n".join([f"a replay of this workflow differs at operation {position}:", words, *lines])
        super(NonDeterminismError, self).__init__(text)


class ReplayCheck:
    """What is kept of functions whose code was let go on purpose. Raises ConfigError for a variable that is no number."""

    def __init__(self) -> None:
        self.every = _every()
        """0: never."""
        self._turns = 0
        self._asked: dict[str, Asked] = {}

    def watch(self, strand: Strand) -> None:
        """Keep what it asks for, if that is ever compared."""
        if self.every:
            asked_by(strand)

    def is_due(self, generation: str, strand: Strand) -> bool:
        """Whether the code is to be let go of, now that its turn is committed; what it did is kept then."""
        self._turns += 1
        if self._turns % self.every:
            return False
        self._asked[generation] = dict(asked_by(strand))
        return True

    def forget(self, generation: str) -> None:
        """Nothing is compared any more: the function has ended, or begins again."""
        self._asked.pop(generation, None)

    def compare(self, generation: str, strand: Strand) -> None:
        """Replay what is recorded. Raises ReplayDifferenceError if it is not what was done before."""
        live = self._asked.pop(generation, None)
        if live is None:
            return
        replayed = asked_by(strand)
        strand.replay()
        for position in sorted(live):
            # More may be recorded by now than there was when it was let go of: that comes after these.
            if replayed.get(position) != live[position]:
                raise ReplayDifferenceError(position, live, replayed)


def _every() -> int:
    text = os.environ.get(VARIABLE, "")
    if not text:
        return 0
    if not text.isdecimal():
        raise ConfigError(f"{VARIABLE} is a number of turns (0: never), not {text!r}")
    return int(text)


def _told(asked: Asked, position: int) -> str:
    found = asked.get(position)
    return "nothing" if found is None else f"{found[0]} {found[1]!r}"
