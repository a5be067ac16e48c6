"""One member of the mesh among the others: what it asks and tells them, and what it does about what they say."""

from __future__ import annotations

import logging
from typing import Any, Final, assert_never

from anyio.abc import TaskGroup

from hotmesh.errors import DatabaseError
from hotmesh.observe.apps import unused
from hotmesh.observe.observer import Observer
from hotmesh.postgres.database import Database
from hotmesh.runtime.definitions.plans import Plans
from hotmesh.runtime.engine.duress import Level
from hotmesh.runtime.engine.engine import Engine
from hotmesh.runtime.members.activation import ActivationLimits, Activations
from hotmesh.runtime.members.ballot import Ballots
from hotmesh.runtime.members.bus import Bus
from hotmesh.runtime.members.listener import Listener
from hotmesh.runtime.members.messages import DuressMessage, Heard, Ping, Pong, RollCall, Throttle
from hotmesh.runtime.members.profile import Profiles
from hotmesh.runtime.members.rates import Throttles
from hotmesh.runtime.members.roll_call import RollCalls
from hotmesh.runtime.settings import Settings
from hotmesh.runtime.work.workers import Workers

logger = logging.getLogger("hotmesh.quorum")

ANSWER_DELAY: Final = 1.0
"""Seconds for which the answer of a member is waited for that is given a rate of its own."""


class Quorum:
    """Puts the parts of a member's talk together. `run` starts their loops in the instance's task group."""

    def __init__(
        self,
        database: Database,
        guid: str,
        settings: Settings,
        plans: Plans,
        listener: Listener,
        engine: Engine | None,
        workers: Workers,
        limits: ActivationLimits,
    ) -> None:
        self._database = database
        self._guid = guid
        self._engine = engine
        self._workers = workers
        self.bus = Bus(database, guid, settings, listener, self._handle)
        self._ballots = Ballots(self.bus, listener, guid)
        profiles = Profiles(database.schema, database.app_id, guid, settings, engine, workers)
        self.roll_calls = RollCalls(
            database, guid, profiles, self._ballots, self.bus, listener, engine=engine is not None
        )
        self.activations = Activations(database, guid, plans, self._ballots, listener, limits)
        self.throttles = Throttles(database, guid, settings, self.bus, listener, engine, workers)
        if engine is not None:
            engine.duress.notify = self._tell_duress

    async def run(self, tasks: TaskGroup) -> None:
        """Read the rates, so that nothing is consumed before, and start the loops."""
        await self.bus.run(tasks)
        await self.throttles.run(tasks)

    async def throttle(self, rate: int, guid: str | None, topic: str | None, scope: str) -> bool:
        """Set a rate, as `Throttles.throttle`; whether the member that is meant is there. A topic that nothing uses is a warning."""
        await self.throttles.throttle(rate, guid, topic, scope)
        if guid is not None and guid != self._guid and not await self._is_there(guid):
            logger.warning(
                "a rate was set for a member that is not there", extra={"member": guid, "rate": rate}
            )
            return False
        if topic is not None and guid is None and topic not in self._workers.topics:
            await self._warn_of_unused(topic, rate)
        return True

    async def _is_there(self, guid: str) -> bool:
        return any(profile.engine_id == guid for profile in await self.roll_calls.roll_call(ANSWER_DELAY))

    async def _warn_of_unused(self, topic: str, rate: int) -> None:
        try:
            missing = await unused(Observer(self._database), self._database.app_id, "work", [topic])
        except DatabaseError:
            return  # a worker login may not look
        for _, near in missing:
            logger.warning(
                "a rate was set for a topic that no graph has a worker on",
                extra={"topic": topic, "rate": rate, "nearest": near or None},
            )

    def connected(self) -> None:
        """Listening (again): look at what may have changed meanwhile."""
        self.throttles.connected()

    def on_message(self, notice: dict[str, Any]) -> None:
        """A message has come from another member, or from this one."""
        self.bus.on_message(notice)

    def _handle(self, message: Heard) -> None:
        match message:
            case Ping():
                # Its own questions a member answers itself.
                if not self._ballots.is_own(message):
                    self.bus.start(self._answer, message)
            case Pong():
                self._ballots.count(message)
            case Throttle():
                self.throttles.on_message(message)
            case RollCall():
                self.roll_calls.on_message(message)
            case DuressMessage():
                if message.originator != self._guid and self._engine is not None:
                    self._engine.on_duress(message.level, message.throttle_ms)
            case _:
                assert_never(message)

    async def _answer(self, ping: Ping) -> None:
        version = ping.question.activate
        if version is None:
            await self._ballots.answer(ping, await self.roll_calls.answers())
        elif self._engine is not None:
            await self._ballots.answer(ping, [await self.activations.answer(version)])

    def _tell_duress(self, level: Level, score: float, floor: float) -> None:
        message = DuressMessage(
            originator=self._guid, duress_score_ms=round(score, 3), throttle_ms=round(floor), level=level
        )
        self.bus.start(self.bus.send, "", [message])
