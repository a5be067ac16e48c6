"""Changes of workflow code beside workflows that began before them: `workflow.patched`, `deprecate_patch`, `version`.

What a workflow has been answered once it is answered for ever: it is noted in its history, at the place where it was asked first.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from hotmesh.core.arguments import checked_text
from hotmesh.durable.strands import current
from hotmesh.errors import ConfigError
from hotmesh.replay.patches import differ, version_of

MOST: Final = 512
"""Bytes of a change_id."""


class Version(int):
    """A version of a change; it may be awaited, as other calls of a workflow are, and need not be."""

    def __await__(self) -> Generator[None, None, int]:
        yield from ()
        return int(self)


class Patched(int):
    """Whether a change holds; it may be awaited, as other calls of a workflow are, and need not be."""

    def __await__(self) -> Generator[None, None, bool]:
        yield from ()
        return bool(self)

    def __repr__(self) -> str:
        return repr(bool(self))


def patched(change_id: str) -> Patched:
    """Whether this workflow goes by a change of the code: True unless it was beyond this place before there was the change.

    if await workflow.patched("check-first"):
        await check(order)

    All calls of a workflow with one `change_id` have one answer. Raises ConfigError, NotInWorkflowError.
    """
    strand = current("patched")
    return Patched(version_of(strand, _checked(change_id), 1) > 0)


def deprecate_patch(change_id: str) -> None:
    """In the place of `patched` once no workflow from before the change is left: takes histories with the note, and without.

    Raises ConfigError, NotInWorkflowError.
    """
    strand = current("deprecate_patch")
    version_of(strand, _checked(change_id), 1, known=False)


def version(change_id: str, lowest: int, highest: int) -> Version:
    """The version of a piece of code that changes more than once: `highest` where the workflow comes new to it, else what it had.

    0 is the code from before the change. A workflow whose version is not from `lowest` to `highest` does not fit the code any
    more: it is parked. Raises ConfigError, NotInWorkflowError.
    """
    strand = current("version")
    name = _checked(change_id)
    for what, number in (("lowest", lowest), ("highest", highest)):
        if type(number) is not int or number < 0:
            raise ConfigError(f"{what} of version {name} must be a whole number from 0 on, not {number!r}")
    if lowest > highest or highest < 1:
        raise ConfigError(
            f"version {name}: lowest {lowest} to highest {highest} is no range; the first change is 1"
        )
    found = version_of(strand, name, highest)
    if not lowest <= found <= highest:
        differ(strand, f"version {found} of {name!r}", f"versions {lowest} to {highest} of it")
    return Version(found)


def _checked(change_id: str) -> str:
    return checked_text(change_id, "change_id", MOST)
