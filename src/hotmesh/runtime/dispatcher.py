"""Hands what a member hears to whom it concerns, and looks at everything once where something may have been missed."""

from __future__ import annotations

import logging
from typing import Any, Final

import msgspec

from hotmesh.postgres.rows import AnswerNotice
from hotmesh.runtime.definitions.plans import Plans
from hotmesh.runtime.engine.engine import Engine
from hotmesh.runtime.members.quorum import Quorum
from hotmesh.runtime.results.receiver import ResultReceiver
from hotmesh.runtime.results.subscribers import Subscribers
from hotmesh.runtime.service import Flag, forever
from hotmesh.runtime.work.workers import Workers

logger = logging.getLogger("hotmesh")

LONGEST_PAUSE: Final = 5.0
"""Seconds between two attempts to read the definitions."""


class Dispatcher:
    """What one member does with the messages of its listener.

    `secured`: the member has a worker login. Whoever has that can send here, so nothing but the hints counts.
    """

    def __init__(
        self,
        plans: Plans,
        engine: Engine | None,
        workers: Workers,
        receiver: ResultReceiver,
        subscribers: Subscribers,
        quorum: Quorum,
        *,
        secured: bool,
    ) -> None:
        self._plans = plans
        self._engine = engine
        self._workers = workers
        self._receiver = receiver
        self._subscribers = subscribers
        self._quorum = quorum
        self._secured = secured
        self._definitions_changed = Flag()

    def on_message(self, message: dict[str, Any]) -> None:
        """A message has come: see `docs/mesh.md` and `runtime/wake.py` for what its keys say."""
        if self._secured:
            if "t" in message:
                self._quorum.connected()
            self._workers.wake_all()
            return
        if "j" in message:
            self._receiver.on_message(message)
        if self._engine is not None:
            if "a" in message:
                self._engine.answered(msgspec.convert(message["a"], AnswerNotice))
            if message.get("e"):
                self._engine.hint(0.0 if message["e"] == 1 else message["e"])
            for generation in message.get("g", ()):
                self._engine.ended_elsewhere(generation)
            if "c" in message:
                self._engine.turns.activities.cut_off_all(message["c"])
        if "w" in message:
            self._workers.hint(message["w"])
        if message.get("d"):
            self._definitions_changed.set()
        if "q" in message or "qr" in message:
            self._quorum.on_message(message)

    def connected(self) -> None:
        """Listening (again): look at everything once, so that nothing that was announced meanwhile is missed."""
        if self._engine is not None:
            self._engine.wake()
        self._workers.wake_all()
        self._subscribers.connected()
        self._definitions_changed.set()
        self._quorum.connected()

    def counted(self, engines: int, members: int) -> None:
        """So many engines and members hear the same hints."""
        if self._engine is not None:
            self._engine.stream_wake.crowd = engines
        self._workers.crowd(members)

    async def follow_definitions(self) -> None:
        """Read what is deployed whenever it has changed, until cancelled."""
        await forever(
            self._read_definitions,
            logger,
            lost="the definitions",
            failed="definitions could not be read",
            longest_pause=LONGEST_PAUSE,
        )

    async def _read_definitions(self) -> None:
        await self._definitions_changed.take()
        try:
            await self._plans.refresh()
        except BaseException:
            # The next commit is refused if anything changed, and reads it then; who only listens has to try again.
            self._definitions_changed.set()
            raise
