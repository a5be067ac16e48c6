"""The arguments of `commit_steps`, declared once.

What a batch of steps writes comes in sections, one for each kind of row. The type of a section names its columns with
their types in Postgres; together with the letter of the section, they are the parameters of `commit_steps.sql`. The text
of the call, the number and order of its arguments and the rows that `steps.Batch` fills follow from what stands here,
and a test compares it with the file.

    before the sections   who writes, what, and for how long work is reserved
    sections              an array for each column
    after them            what few steps have, and what is told to others
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, get_type_hints

from msgspec import Struct

Text = Annotated[str, "text"]
OptionalText = Annotated[str | None, "text"]
Uuid = Annotated[str, "uuid"]
OptionalUuid = Annotated[str | None, "uuid"]
Integer = Annotated[int, "integer"]
OptionalInteger = Annotated[int | None, "integer"]
Bigint = Annotated[int, "bigint"]
Seconds = Annotated[float, "double precision"]
OptionalSeconds = Annotated[float | None, "double precision"]
Moment = Annotated[datetime, "timestamptz"]
OptionalMoment = Annotated[datetime | None, "timestamptz"]
Flag = Annotated[bool, "boolean"]
OptionalFlag = Annotated[bool | None, "boolean"]


class Before(Struct, frozen=True, gc=False):
    app: Text
    member: Text
    epoch: Bigint
    token: Bigint
    lease: Seconds


class CreatedJob(Struct, frozen=True, gc=False):
    step: Integer
    job_id: Text
    generation: Uuid
    version: Text
    topic: Text
    status: Integer
    input: Text
    data: OptionalText
    error: OptionalText
    ended: Flag
    expire: OptionalSeconds
    created: Moment
    extra: OptionalText
    """The columns that few jobs have, as one JSON object."""
    named: OptionalFlag
    """Somebody chose the id: it may be taken."""


class ChangedJob(Struct, frozen=True, gc=False):
    step: Integer
    job_id: Text
    generation: Uuid
    seq: Bigint
    """The version that the step was computed from."""
    status: Integer
    data: OptionalText
    """None: as it was."""
    error: OptionalText
    open: OptionalText
    ended: Flag
    expire: OptionalSeconds


class Record(Struct, frozen=True, gc=False):
    step: Integer
    generation: Uuid
    activity: Text
    dimension: Text
    type: Text
    state: Text
    code: OptionalInteger
    output: OptionalText
    hook: OptionalText
    error: OptionalText
    seen: OptionalText
    started: OptionalMoment
    ended: OptionalMoment
    attempt: OptionalInteger


class QueuedWork(Struct, frozen=True, gc=False):
    step: Integer
    job_id: Text
    generation: Uuid
    activity: Text
    dimension: Text
    topic: Text
    data: Text
    name: Text
    local: Flag
    """Reserved for this process at once."""
    extra: OptionalText


class InstanceRow(Struct, frozen=True, gc=False):
    """What is done to the rows that go with an activity instance."""

    step: Integer
    what: Text
    """answered, timer, release or reserve."""
    generation: Uuid
    activity: Text
    dimension: Text


class ConsumedMessage(Struct, frozen=True, gc=False):
    step: Integer
    generation: Uuid
    message: Text


class SentMessage(Struct, frozen=True, gc=False):
    step: Integer
    job_id: Text
    generation: OptionalUuid
    message: Text
    kind: Text
    activity: Text
    dimension: Text
    status: Text
    code: Integer
    data: Text
    delay: Seconds


class SetTimer(Struct, frozen=True, gc=False):
    step: Integer
    job_id: Text
    generation: Uuid
    activity: Text
    dimension: Text
    delay: Seconds


class RegisteredWait(Struct, frozen=True, gc=False):
    step: Integer
    job_id: Text
    generation: Uuid
    activity: Text
    dimension: Text
    topic: Text
    key: Text


class SentSignal(Struct, frozen=True, gc=False):
    step: Integer
    topic: Text
    key: Text
    data: Text
    status: Text
    code: Integer
    keep: OptionalSeconds


class DroppedJob(Struct, frozen=True, gc=False):
    step: Integer
    generation: Uuid
    descend: Flag
    job_id: Text


class After(Struct, frozen=True, gc=False):
    extras: OptionalText
    """See `commit_extras.sql`."""
    wake: OptionalText
    published: Annotated[list[str] | None, "text[]"]
    reply_channel: OptionalText


SECTIONS: Final[dict[str, type[Struct]]] = {
    "c": CreatedJob,
    "u": ChangedJob,
    "a": Record,
    "w": QueuedWork,
    "d": InstanceRow,
    "x": ConsumedMessage,
    "e": SentMessage,
    "t": SetTimer,
    "h": RegisteredWait,
    "s": SentSignal,
    "o": DroppedJob,
}
"""Letter → type of each section, in the order of the parameters."""


def _columns(row: type[Struct]) -> list[tuple[str, str]]:
    return [(name, hint.__metadata__[0]) for name, hint in get_type_hints(row, include_extras=True).items()]


PARAMETERS: Final = [
    *((f"p_{name}", type_) for name, type_ in _columns(Before)),
    *(
        (f"{letter}_{name}", f"{type_}[]")
        for letter, row in SECTIONS.items()
        for name, type_ in _columns(row)
    ),
    *((f"p_{name}", type_) for name, type_ in _columns(After)),
]
"""Name and type of every parameter of `commit_steps`, in order."""

_PLACES: Final = ", ".join(f"${number}" for number in range(1, len(PARAMETERS) + 1))

COMMIT: Final = f"select * from mesh.commit_steps({_PLACES})"  # noqa: S608 - only numbers are put in
