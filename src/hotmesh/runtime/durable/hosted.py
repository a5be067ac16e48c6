"""What this process needs of users' durable functions; `hotmesh.durable` makes it."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Any, Protocol

from msgspec import Struct

from hotmesh.core.durable.commands import Completion, Opened
from hotmesh.core.durable.retry import RetryPolicy
from hotmesh.core.state.job import Job
from hotmesh.core.values import Json
from hotmesh.replay import Strand
from hotmesh.runtime.threads import Threads


class HostedFunction(Protocol):
    """A workflow function that this process runs."""

    @property
    def parks(self) -> bool:
        """Whether a job whose history does not fit the code waits for code that does; else it fails."""
        ...

    def policy(self, job: Job) -> RetryPolicy:
        """When the function is run again after it has failed."""
        ...

    def strand(self, job: Job, recorded: Iterable[Completion] = (), opened: Iterable[Opened] = ()) -> Strand:
        """Its execution for a job, from the beginning."""
        ...

    def encode(self, value: Any) -> Json:
        """What it has returned, as it is stored. Raises PayloadError."""
        ...


class StepInfo(Struct, frozen=True, gc=False):
    """What one attempt of a step is told of itself."""

    job_id: str
    generation: str
    queue: str
    workflow_name: str
    name: str
    position: int
    attempt: int

    @property
    def key(self) -> str:
        """The same for all attempts of the step, in whichever process, and for no other step."""
        return f"{self.generation}:{self.name}:0.{self.position}"


class StepCall(Protocol):
    """A function to be run as a step, with its arguments."""

    @property
    def policy(self) -> RetryPolicy:
        """When it is tried again."""
        ...

    @property
    def timeout(self) -> float | None:
        """Seconds for one attempt."""
        ...

    @property
    def limit(self) -> float | None:
        """Seconds for all of them."""
        ...

    def run(self, info: StepInfo, threads: Threads) -> Awaitable[tuple[Json, Any]]:
        """Run it once; what it returned, as it is stored, and the copy that the workflow goes on with."""
        ...
