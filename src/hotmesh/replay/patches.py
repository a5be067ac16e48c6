"""Changes of the code beside strands that began before them: what one has been answered, it is answered in every replay."""

from __future__ import annotations

from hotmesh.core.durable.commands import Patch
from hotmesh.replay.ledger import Ledger
from hotmesh.replay.strand import Strand


def version_of(strand: Strand, name: str, newest: int, *, known: bool = True) -> int:
    """The version of a change of the code that a strand goes by: 0 if it had been here before there was the change.

    It is the `newest` where the code has never been before, and what was noted then where it has. Without `known`, only what
    was noted counts: nothing is noted afresh.
    """
    answered = strand.patches.get(name)
    if answered is not None:
        return answered
    ledger: Ledger = strand._ledger
    position = ledger.position + 1
    version = 0
    if ledger.expected.get(position) == (Patch.kind, name):
        version = int(ledger.answers[position].value or 1)
    elif known and not strand.replaying:
        version = newest
    strand.patches = {**strand.patches, name: version}
    if version:
        strand.perform(Patch(strand.reserve(), name, version))
    return version


def differ(strand: Strand, expected: str, actual: str) -> None:
    """The code does not fit the history, in another way than by what it asks for: nothing of it runs any more."""
    ledger: Ledger = strand._ledger
    ledger.differ(ledger.position, expected, actual)
    strand.halted = True
