"""What this process has of hotmesh: the members that run, the ids that they have taken, and the codec for all of them."""

from __future__ import annotations

from typing import Any, Protocol

import anyio

from hotmesh.core.codec import Codec
from hotmesh.core.duration import Duration
from hotmesh.errors import ConfigError


class Stoppable(Protocol):
    """Something that runs until it is stopped."""

    async def stop(self, grace: Duration | None = None) -> None: ...


class StoppableFromAnywhere(Stoppable, Protocol):
    """The same, and from any event loop."""

    async def stop_from_anywhere(self, grace: Duration | None = None) -> None: ...


class Registry:
    """One per process: `PROCESS`."""

    def __init__(self) -> None:
        self.codec: Codec | None = None
        """For members that were given none."""
        self.live: set[StoppableFromAnywhere] = set()
        """What `stop_all` stops."""
        self._guids: set[tuple[Any, str, str, str]] = set()

    def take_guid(self, database: Any, namespace: str, app_id: str, guid: str) -> None:
        """A guid is that of one member. Raises ConfigError if another one of this process has it."""
        taken = database, namespace, app_id, guid
        if taken in self._guids:
            raise ConfigError(
                f"config.guid [{guid}] is in use by another instance of app {app_id} in this process: "
                "leave it out, or stop that one first"
            )
        self._guids.add(taken)

    def free_guid(self, database: Any, namespace: str, app_id: str, guid: str) -> None:
        """Its member has ended, or never began."""
        self._guids.discard((database, namespace, app_id, guid))


PROCESS = Registry()


async def stop_all(grace: Duration | None = None) -> None:
    """Stop every instance of this process, each in its own event loop. A new `init` afterwards works as the first did."""
    async with anyio.create_task_group() as tasks:
        for running in list(PROCESS.live):
            tasks.start_soon(running.stop_from_anywhere, grace)


def register_codec(codec: Codec | None) -> None:
    """Encode what this process stores from now on, by all instances without a codec of their own; None: store it plain.

    `codec` has `encode(text) -> str` and `decode(text) -> str`, such as `AesGcmCodec`. What was stored before reads
    as it did, as long as the codec decodes it. Raises ConfigError.
    """
    check_codec(codec)
    PROCESS.codec = codec


def get_codec() -> Codec | None:
    """What was last registered for the process."""
    return PROCESS.codec


def check_codec(codec: Any) -> None:
    """Raise ConfigError for what neither encodes nor is None."""
    if codec is not None and not all(callable(getattr(codec, name, None)) for name in ("encode", "decode")):
        raise ConfigError(f"a codec has the methods encode and decode; {codec!r} has not")
