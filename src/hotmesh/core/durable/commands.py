"""What a turn of a strand asks for (commands), and what it is told (completions).

A command is performed after the commit of the turn that asked for it. Each has a `position`, a `kind` and a `name`: replay
compares kind and name with what was recorded at that position, and nothing else of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, Final, Literal

from msgspec import Struct

Status = Literal["done", "failed", "cancelled", "released"]
"""How an operation ended. `released`: the workflow gave it up itself, so nobody is told; it is only known to have been there."""

Cancellation = Literal["try_cancel", "wait_completed", "abandon"]
"""What giving up an operation does to it: it is released at once; it is asked to end, and its end awaited; nothing."""

AT_ONCE: Final = frozenset({"signal", "emit", "trace", "entity", "search", "patch", "terminate"})
"""Kinds that are answered at the call: their records are looked up by position, and are no part of the order of delivery."""


class Completion(Struct, frozen=True, gc=False):
    """What became of the operation at `position`; below 0 it came unasked (`kind` cancel, signal …, `name` of the handler).

    `at` is the instant of the turn that recorded it, `seq` its place in the order of delivery. `value` and `error` are as
    they are stored (or whatever else the operation's `decode` understands).
    """

    position: int
    kind: str
    name: str
    status: Status
    at: datetime
    seq: int = 0
    value: Any = None
    error: Any = None
    attempt: int = 0
    started_at: datetime | None = None
    """When a step began, an activity was asked for, a timer was set."""


class Opened(Struct, frozen=True, gc=False):
    """An operation that was committed and has no outcome yet: there is a row (work, timer, wait, child) that will end it."""

    position: int
    kind: str
    name: str


class Step(Struct, frozen=True, gc=False):
    """Run a function in this process, after the commit. `call` is what the runtime calls; it never leaves memory.

    A step that was running when its process died is asked for again, at the same position.
    """

    kind: ClassVar[str] = "step"
    position: int
    name: str
    call: Any = None
    input: Any = None
    options: Mapping[str, Any] = {}


class Activity(Struct, frozen=True, gc=False):
    """Run a function wherever its queue is served; None: the queue of the workflow."""

    kind: ClassVar[str] = "activity"
    position: int
    name: str
    queue: str | None = None
    input: Any = None
    options: Mapping[str, Any] = {}


class Sleep(Struct, frozen=True, gc=False):
    """Be told after so many seconds, of the database's clock. Named `sleep`, or `timer` where asyncio asked for it."""

    kind: ClassVar[str] = "sleep"
    position: int
    seconds: float
    name: str = "sleep"


class Wait(Struct, frozen=True, gc=False):
    """Be told of the signal `name`: of one sent to this workflow, or (`correlated`) of one sent to the id itself.

    `timeout` in seconds; `escalation` as it was given. Whichever of them comes first ends the operation.
    """

    kind: ClassVar[str] = "wait"
    position: int
    name: str
    correlated: bool = True
    shared: bool = False
    timeout: float | None = None
    escalation: Mapping[str, Any] | None = None


class Signal(Struct, frozen=True, gc=False):
    """Send a signal: to the id `name`, or to that name of the workflow `job_id`. Counts with the turn, exactly once."""

    kind: ClassVar[str] = "signal"
    position: int
    name: str
    data: Any = None
    job_id: str | None = None
    expire: float | None = None


class Patch(Struct, frozen=True, gc=False):
    """Note that a change of the code (`name`) holds for this workflow, with the version that it began with."""

    kind: ClassVar[str] = "patch"
    position: int
    name: str
    version: int = 1


class Child(Struct, frozen=True, gc=False):
    """Start a workflow; `awaited`: its end ends the operation, else its start does."""

    kind: ClassVar[str] = "child"
    position: int
    name: str
    queue: str | None = None
    job_id: str | None = None
    input: Any = None
    awaited: bool = True
    options: Mapping[str, Any] = {}


class Release(Struct, frozen=True, gc=False):
    """The operation at `position`, asked for in an earlier turn, is given up: its row goes, its running step is cancelled.

    `wait`: it is only asked to end, and its completion still counts.
    """

    kind: ClassVar[str] = "release"
    position: int
    of: str
    name: str
    wait: bool = False


class Finish(Struct, frozen=True, gc=False):
    """The function returned: the value itself, to be encoded. The last command of a turn, as are the next two."""

    kind: ClassVar[str] = "finish"
    value: Any = None


class Fail(Struct, frozen=True):
    """The function raised: the exception itself, of any kind and maybe hostile (`hotmesh.foreign_errors` asks it safely)."""

    kind: ClassVar[str] = "fail"
    error: BaseException


class Cancelled(Struct, frozen=True):
    """The function was cancelled and let it through."""

    kind: ClassVar[str] = "cancelled"
    error: BaseException


Asked = Step | Activity | Sleep | Wait | Signal | Patch | Child
"""Commands that take a position."""

Ended = Finish | Fail | Cancelled

Command = Asked | Release | Ended
