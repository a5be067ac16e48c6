"""What a strand asked for and what is recorded of it: positions, the commands of a turn, and where the two differ."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Any, Final

from hotmesh.core.durable.commands import AT_ONCE, Asked, Command, Completion, Opened, Release
from hotmesh.durable_errors import NonDeterminismError

_NOTHING: Final[frozenset[int]] = frozenset()


class Ledger:
    """The operations of one strand, by position."""

    def __init__(self, recorded: Iterable[Completion], opened: Iterable[Opened]) -> None:
        self.position = 0
        """The last one that was given out."""
        self.history: deque[Completion] = deque()
        """Recorded, and not delivered yet; in order of delivery."""
        self.fresh = 0
        """How many of the last of them are news of this turn."""
        self.expected: dict[int, tuple[str, str]] = {}
        """Recorded or open, and not asked for yet: kind and name."""
        self.rows: set[int] = set()
        """Asked for, committed, without an outcome: something outside will end them."""
        self.answers: dict[int, Completion] = {}
        """Outcomes that are looked up at the call: of kinds that are answered at once, and early ones."""
        self.commands: dict[int, Command] = {}
        """New in this turn, in the order they were asked for; those that release are below 0."""
        self.differs: NonDeterminismError | None = None
        self.asked: dict[int, tuple[str, str]] | None = None
        """Kind and name of all that was asked for, by position, where somebody wants to compare it."""
        self._closed: AbstractSet[int] = _NOTHING
        self._released: AbstractSet[int] = _NOTHING
        """Given up according to the history, and not yet by the code."""
        if recorded or opened:
            self._read(recorded, opened)

    def _read(self, recorded: Iterable[Completion], opened: Iterable[Opened]) -> None:
        """What was there before."""
        delivered = []
        closed: set[int] = set()
        released: set[int] = set()
        self._closed, self._released = closed, released
        for record in recorded:
            if record.position > 0:
                self.expected[record.position] = (record.kind, record.name)
                closed.add(record.position)
                if record.status == "released":
                    released.add(record.position)
                    continue
                if record.kind in AT_ONCE:
                    self.answers[record.position] = record
                    continue
            delivered.append(record)
        self.history.extend(sorted(delivered, key=_order))
        for row in opened:
            self.expected[row.position] = (row.kind, row.name)
            self.rows.add(row.position)

    @property
    def replaying(self) -> bool:
        """Whether something was recorded before this turn that has not been delivered, or not been asked for, yet."""
        return len(self.history) > self.fresh or bool(self.expected)

    def ask(self, command: Asked) -> bool:
        """Note what the code asks for; False if it is not what is recorded at this position (`differs` says how)."""
        position = command.position
        expected = self.expected.pop(position, None)
        if self.asked is not None:
            self.asked[position] = command.kind, command.name
        if expected is not None:
            if expected != (command.kind, command.name):
                self.differ(position, _told(*expected), _told(command.kind, command.name))
                return False
        elif position not in self._closed:
            self.commands[position] = command
        return True

    def give_up(self, command: Asked, told: bool) -> None:
        """What was only asked for in this turn vanishes; what is out there is released."""
        position = command.position
        if self._released:
            self._released -= {position}
        self.commands.pop(-position, None)
        if self.commands.pop(position, None) is None and position in self.rows:
            if told:
                self.commands[-position] = Release(position, command.kind, command.name)
            self.rows.discard(position)

    def wind_down(self, command: Asked) -> None:
        """Have it asked to end. Also what is new in this turn is sent, or it would matter how completions are grouped."""
        position = command.position
        if position in self.rows or position in self.commands:
            self.commands[-position] = Release(position, command.kind, command.name, wait=True)

    def settled(self, completion: Completion) -> None:
        """It has an outcome: nothing will come of it any more, and it need not be asked for."""
        if completion.position < 0:
            return  # came unasked: those numbers are no positions of commands
        if self._closed:
            self._closed -= {completion.position}
        self.rows.discard(completion.position)
        self.commands.pop(completion.position, None)
        self.commands.pop(-completion.position, None)

    def fits(self, command: Asked, completion: Completion) -> bool:
        """Whether an outcome is that of what was asked for at its position; else `differs` says how it is not."""
        if completion.name == command.name and completion.kind == command.kind:
            return True
        self.differ(
            command.position, _told(completion.kind, completion.name), _told(command.kind, command.name)
        )
        return False

    def differ(self, position: int, expected: str, actual: str) -> None:
        if self.differs is None:
            self.differs = NonDeterminismError(position, expected, actual)

    def look_for_leftovers(self, blocked: str) -> None:
        """When the code has come to a halt, everything that is recorded must have been asked for."""
        for position, (kind, name) in sorted(self.expected.items()):
            self.differ(position, _told(kind, name), f"nothing: {blocked} after operation {self.position}")
            return
        for position, answer in sorted(self.answers.items()):
            self.differ(
                position,
                _told(answer.kind, answer.name),
                f"nothing: {blocked} after operation {self.position}",
            )
            return
        for position in sorted(self._released):
            self.differ(position, "it was given up", "it is still waited for, and no outcome will come")
            return

    def take(self) -> list[Command]:
        """The commands of the turn. They will be committed, or the strand is dropped."""
        commands = list(self.commands.values())
        self.commands.clear()
        for command in commands:
            position = getattr(command, "position", 0)
            if not isinstance(command, Release) and command.kind not in AT_ONCE:
                self.rows.add(position)
        return commands


def _order(record: Completion) -> int:
    return record.seq


def _told(kind: str, name: Any) -> str:
    return f"{kind} {name!r}"
