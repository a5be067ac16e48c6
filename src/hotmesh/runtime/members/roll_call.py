"""Roll calls: who is there, and what everybody says about himself; once, or again and again.

A roll call asks everybody, and waits for those whose connections listen at that moment: who is not in it is away, or did not
answer in time. What it says holds for the moment at which each member looked. One that repeats asks nobody to answer: members
tell their profiles to all, on their own, at random moments and a number of times. A later one takes the place of an earlier
one, and it ends with the process; nothing of it is stored.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Final

import anyio
from msgspec import UNSET

from hotmesh.observe.observer import Observer
from hotmesh.observe.queues import stream_depths
from hotmesh.postgres.database import Database
from hotmesh.postgres.members import live_members
from hotmesh.runtime.members.ballot import Ballots
from hotmesh.runtime.members.bus import Bus
from hotmesh.runtime.members.listener import Listener
from hotmesh.runtime.members.messages import PingDetails, Pong, RollCall
from hotmesh.runtime.members.profile import Profiles, QuorumProfile

ROLL_CALL_CYCLES: Final = 12
"""How often a member repeats its profile for a roll call that does not say."""


class RollCalls:
    """Those that one member asks for, and its part in those of others."""

    def __init__(
        self,
        database: Database,
        guid: str,
        profiles: Profiles,
        ballots: Ballots,
        bus: Bus,
        listener: Listener,
        *,
        engine: bool,
    ) -> None:
        self._database = database
        self._guid = guid
        self._profiles = profiles
        self._ballots = ballots
        self._bus = bus
        self._listener = listener
        self._engine = engine
        self._repeating: dict[str | None, anyio.CancelScope] = {}
        """Topic of workers (empty: all of them), or None for the engine → what tells their profiles."""

    # -- once --------------------------------------------------------------------------------------------

    async def roll_call(self, delay: float) -> list[QuorumProfile]:
        """The profiles of all members that answer within `delay` seconds; sooner if all who are there have."""
        own = await self._profiles.all()
        with self._ballots.open() as ballot:
            live = await live_members(self._database)
            await self._ballots.ask(PingDetails(ballot=ballot.question))
            await ballot.wait(live.all - {self._listener.session}, delay)
        others = map(QuorumProfile, ballot.profiles)
        found = own + [profile for profile in others if profile["engine_id"] != self._guid]
        await self._add_depths(found)
        return found

    async def answers(self) -> list[Pong]:
        """What this member says about itself: an answer for its engine, and one for each worker."""
        return [Pong(profile=profile) for profile in await self._profiles.all()]

    async def _add_depths(self, profiles: Iterable[QuorumProfile]) -> None:
        topics = {profile["worker_topic"] for profile in profiles if "worker_topic" in profile}
        events, work = await stream_depths(Observer(self._database), self._database.app_id, topics)
        for profile in profiles:
            topic = profile.get("worker_topic")
            profile["stream_depth"] = events if topic is None else work.get(topic, 0)

    # -- again and again ---------------------------------------------------------------------------------

    @property
    def repeating(self) -> bool:
        """Whether this member still has profiles to tell for a roll call that repeats."""
        return bool(self._repeating)

    def on_message(self, message: RollCall) -> None:
        """Somebody wants to hear the profiles of engines, of workers, or of both."""
        if message.guid is not None and message.guid != self._guid:
            return
        interval = message.interval or 0.0
        most = (message.max or ROLL_CALL_CYCLES) if interval > 0 else 1
        topic = None if message.topic is UNSET else message.topic
        if topic is None and self._engine:
            self._bus.start(self._repeat, None, self._profiles.of_engine, interval, most)
        if topic is not None or message.topic is UNSET:
            profiles = partial(self._profiles.of_workers, topic, signature=bool(message.signature))
            self._bus.start(self._repeat, topic or "", profiles, interval, most)

    async def _repeat(
        self,
        who: str | None,
        profiles: Callable[[], Awaitable[list[QuorumProfile]]],
        interval: float,
        most: int,
    ) -> None:
        """Tell profiles to everybody, at random moments, so that not all members speak at once."""
        earlier = self._repeating.pop(who, None)
        if earlier is not None:
            earlier.cancel()
        with anyio.CancelScope() as scope:
            self._repeating[who] = scope
            try:
                await anyio.sleep(random.random())  # noqa: S311 - no secret
                for cycle in range(most):
                    if cycle:
                        await anyio.sleep(random.uniform(interval / 2, interval))  # noqa: S311 - no secret
                    await self._tell(await profiles())
            finally:
                if self._repeating.get(who) is scope:
                    del self._repeating[who]

    async def _tell(self, profiles: list[QuorumProfile]) -> None:
        await self._add_depths(profiles)
        for profile in profiles:
            await self._bus.send("", [Pong(guid=self._guid, originator=None, profile=profile)])
