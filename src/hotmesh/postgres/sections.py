"""The arguments of `commit_steps`, declared once.

What a batch of steps writes comes in sections, one for each kind of row. The type of a section names its columns, in
order, with their types in Postgres. The text of the call, the number and order of its arguments, the rows that
`steps.Batch` fills and what `commit_steps.sql` reads at which place of a row follow from what stands here; a test
compares it with the file.

    before the sections   who writes, what, and for how long work is reserved
    sections              the rows as one JSON text, an array of arrays; and an array for each of the values that lie
                          beside them. All are null where there is nothing
    after them            what few steps have, and what is told to others

User values lie beside the rows: within the JSON they would be escaped, read and unescaped once more, which costs twice as
much from a kilobyte on, and what a jsonb can hold (255 MiB) would bound them all together. A text, and no jsonb, because
the driver's codec for that may be one of the user's.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Final, get_type_hints

from msgspec import Struct

Text = Annotated[str, "text"]
OptionalText = Annotated[str | None, "text"]
Uuid = Annotated[str, "uuid"]
OptionalUuid = Annotated[str | None, "uuid"]
Integer = Annotated[int, "integer"]
OptionalInteger = Annotated[int | None, "integer"]
Bigint = Annotated[int, "bigint"]
OptionalBigint = Annotated[int | None, "bigint"]
Seconds = Annotated[float | str, "double precision"]
"""As `steps.seconds` makes them."""
OptionalSeconds = Annotated[float | str | None, "double precision"]
Moment = Annotated[datetime, "timestamptz"]
OptionalMoment = Annotated[datetime | None, "timestamptz"]
Flag = Annotated[bool, "boolean"]
OptionalFlag = Annotated[bool | None, "boolean"]
Dimension = Annotated[str, "integer[]"]
"""As `arrays.array` makes them."""
Texts = Annotated[list[str] | None, "text[]"]


class Before(Struct, frozen=True, gc=False):
    app: Text
    member: Text
    epoch: Bigint
    token: Bigint
    lease: Annotated[float, "double precision"]


class Row(Struct, frozen=True, gc=False, array_like=True):
    """A row of a section. `beside`: the values that lie beside it, each the text of JSON or None."""

    beside: ClassVar[tuple[str, ...]] = ()


class CreatedJob(Row, frozen=True, gc=False, array_like=True):
    beside = ("input", "data", "error")

    step: Integer
    job_id: Text
    generation: Uuid
    version: Text
    topic: Text
    status: Integer
    ended: Flag
    expire: OptionalSeconds
    created: Moment
    extra: OptionalText
    """The columns that few jobs have, as one JSON object."""


class ChangedJob(Row, frozen=True, gc=False, array_like=True):
    """`data` None: as it was."""

    beside = ("data", "error", "open")

    step: Integer
    job_id: Text
    generation: Uuid
    seq: Bigint
    """The version that the step was computed from."""
    status: Integer
    ended: Flag
    expire: OptionalSeconds
    held: OptionalFlag


class OperationRow(Row, frozen=True, gc=False, array_like=True):
    """What became of an operation of a durable function."""

    beside = ("result", "error")

    step: Integer
    generation: Uuid
    strand: Integer
    position: Integer
    seq: Bigint
    kind: Text
    name: Text
    status: Text
    attempt: OptionalInteger
    started: OptionalMoment
    ended: Moment


class Record(Row, frozen=True, gc=False, array_like=True):
    beside = ("output", "hook", "error")

    step: Integer
    generation: Uuid
    activity: Text
    dimension: Dimension
    type: Text
    state: Text
    code: OptionalInteger
    seen: Annotated[str | None, "text[]"]
    started: OptionalMoment
    ended: OptionalMoment
    attempt: OptionalInteger


class QueuedWork(Row, frozen=True, gc=False, array_like=True):
    beside = ("data",)

    step: Integer
    job_id: Text
    generation: Uuid
    activity: Text
    dimension: Dimension
    topic: Text
    name: Text
    local: Flag
    """Reserved for this process at once."""
    extra: OptionalText


class InstanceRow(Row, frozen=True, gc=False, array_like=True):
    """What is done to a row that goes with an activity instance."""

    step: Integer
    generation: Uuid
    activity: Text
    dimension: Dimension


class AnsweredWork(InstanceRow, frozen=True, gc=False, array_like=True):
    """`holder`, `reservation`: whose it is, and by which reservation; None: held by who writes."""

    holder: OptionalText
    reservation: OptionalBigint


class FiredTimer(InstanceRow, frozen=True, gc=False, array_like=True):
    pass


class WorkToReserve(InstanceRow, frozen=True, gc=False, array_like=True):
    """Of no step: work that was queued before."""


class ReleasedInstance(InstanceRow, frozen=True, gc=False, array_like=True):
    """Whatever waits for it is removed. `awaited`: it has to wait still."""

    awaited: Flag


class ConsumedMessage(Row, frozen=True, gc=False, array_like=True):
    step: Integer
    generation: Uuid
    message: Text


class SentMessage(Row, frozen=True, gc=False, array_like=True):
    beside = ("data",)

    step: Integer
    job_id: Text
    generation: OptionalUuid
    message: Text
    kind: Text
    activity: Text
    dimension: Dimension
    status: Text
    code: Integer
    delay: Seconds


class SetTimer(Row, frozen=True, gc=False, array_like=True):
    step: Integer
    job_id: Text
    generation: Uuid
    activity: Text
    dimension: Dimension
    delay: Seconds


class RegisteredWait(Row, frozen=True, gc=False, array_like=True):
    step: Integer
    job_id: Text
    generation: Uuid
    activity: Text
    dimension: Dimension
    topic: Text
    key: Text
    alone: Flag


class SentSignal(Row, frozen=True, gc=False, array_like=True):
    beside = ("data",)

    step: Integer
    topic: Text
    key: Text
    status: Text
    code: Integer
    keep: OptionalSeconds


class DroppedJob(Row, frozen=True, gc=False, array_like=True):
    step: Integer
    generation: Uuid
    descend: Flag
    job_id: Text


class After(Struct, frozen=True, gc=False):
    named: OptionalFlag
    """Somebody chose the id of a job to create: it may be taken."""
    extras: OptionalText
    """See `commit_extras.sql`."""
    wake: OptionalText
    published: Texts
    reply_channel: OptionalText
    tenure: Annotated[int | None, "bigint"]


SECTIONS: Final[dict[str, type[Row]]] = {
    "c": CreatedJob,
    "u": ChangedJob,
    "a": Record,
    "q": OperationRow,
    "w": QueuedWork,
    "d": AnsweredWork,
    "f": FiredTimer,
    "k": WorkToReserve,
    "r": ReleasedInstance,
    "x": ConsumedMessage,
    "e": SentMessage,
    "t": SetTimer,
    "h": RegisteredWait,
    "s": SentSignal,
    "o": DroppedJob,
}
"""Letter → type of each section, in the order of the parameters."""


def columns(row: type[Struct]) -> list[tuple[str, str]]:
    """Name and type of each column of a row, in the order of their places."""
    hints = get_type_hints(row, include_extras=True)
    return [(name, hints[name].__metadata__[0]) for name in row.__struct_fields__]


PARAMETERS: Final = [
    *((f"p_{name}", type_) for name, type_ in columns(Before)),
    *(
        parameter
        for letter, row in SECTIONS.items()
        for parameter in (
            (f"{letter}_rows", "text"),
            *((f"{letter}_{name}", "text[]") for name in row.beside),
        )
    ),
    *((f"p_{name}", type_) for name, type_ in columns(After)),
]
"""Name and type of every parameter of `commit_steps`, in order."""

_PLACES: Final = ", ".join(f"${number}" for number in range(1, len(PARAMETERS) + 1))

COMMIT: Final = f"select * from mesh.commit_steps({_PLACES})"  # noqa: S608 - only numbers are put in
