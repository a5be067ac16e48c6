"""The life of one pass of an activity, as a table.

A pass is `absent` until a transition leads to it. It is `open` while it waits for its first answer, `pending` after an
answer that says more are to come (202), and `closed` when it takes nothing any more. Most passes that wait are not
written down before they are answered (`ActivityPlan.records_entry`): one that is answered without being on record is
open.

Whatever decides about a pass looks up here what becomes of it; an outcome is then recorded, mapped, and leads on to what
follows (`outcomes.py`). A pass that `statusThreshold` leaves out stays absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct

from hotmesh.core.state.job import RecordState

State = Literal["absent", "open", "pending", "closed"]

Happening = Literal["waits", "passes", "more", "answered", "repeated", "fails", "stopped", "lost"]
"""What can happen to a pass; `HAPPENINGS` says what each means."""


class Move(Struct, frozen=True):
    """What becomes of a pass. `outcome`: it has one now; `further`: but that is recorded as a pass of its own."""

    to: RecordState
    outcome: bool = False
    further: bool = False


LIFE: Final[Mapping[State, Mapping[Happening, Move]]] = {
    "absent": {
        "waits": Move("open"),
        "passes": Move("closed", outcome=True),
        "fails": Move("closed", outcome=True),
    },
    "open": {
        "more": Move("pending", outcome=True),
        "answered": Move("closed", outcome=True),
        "repeated": Move("open"),
        "fails": Move("closed", outcome=True),
        "lost": Move("closed", outcome=True),
    },
    "pending": {
        "more": Move("pending", outcome=True, further=True),
        "answered": Move("closed", outcome=True, further=True),
        "repeated": Move("pending"),
        "fails": Move("closed", outcome=True),
        "stopped": Move("closed"),
        "lost": Move("closed", outcome=True),
    },
    "closed": {
        "more": Move("closed"),
        "answered": Move("closed"),
        "repeated": Move("closed"),
        "fails": Move("closed", outcome=True),
        "lost": Move("closed"),
    },
}
"""State → what happens → what becomes of it. What is not here cannot happen."""

HAPPENINGS: Final[Mapping[Happening, str]] = {
    "waits": "it is entered, and asks for something outside",
    "passes": "it is entered, or a cycle begins it again, and has all that it has to do done in this step",
    "more": "an answer with 202: more are to come",
    "answered": "its last answer: of a worker, of a child, a signal, or its timer",
    "repeated": "an answer that it has had before",
    "fails": "it cannot do its part, or its maps and conditions find nothing to work on",
    "stopped": "an outcome that was added to it has failed",
    "lost": "something comes for it, and the version has no such activity (any more)",
}
