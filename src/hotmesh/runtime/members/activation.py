"""Activating a version: every engine that is there agrees first, then one row switches them all.

The member that activates loads and compiles the version itself, takes the right to activate (one at a time; it belongs to a
connection and ends with it), and asks the other engines to load and compile it, too. If one cannot, nothing is switched.
Who is there, and has to agree, is known by the locks that listening connections hold; who does not answer in time is
away. The switch is one update on the connection that holds the right, so whoever has lost that cannot switch any more.

Correctness does not hang on the answers: the update raises the epoch, and no step of an older epoch is committed. A member
that was away, or joins meanwhile, finds the version that is active. A crash at any point leaves the old version active,
or the new one.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import anyio

from hotmesh.core.wire import dumps_text, loads
from hotmesh.errors import ActivationError, DatabaseError, VersionNotFoundError
from hotmesh.postgres import definitions
from hotmesh.postgres.activation import activating, switch
from hotmesh.postgres.database import Database
from hotmesh.postgres.members import live_members, stored_answers
from hotmesh.runtime.definitions.plans import Plans
from hotmesh.runtime.members.ballot import Ballot, Ballots
from hotmesh.runtime.members.bus import envelope
from hotmesh.runtime.members.listener import Listener
from hotmesh.runtime.members.messages import Activate, PingDetails, Pong, Prepared, read_message

logger = logging.getLogger("hotmesh.quorum")

ANSWER_DELAY: Final = 0.25
"""Seconds in which the other engines should have answered."""

DELAY_FACTORS: Final = (1, 2, 4, 8)
"""How many times as long each further question waits."""


@dataclass(frozen=True, slots=True)
class ActivationLimits:
    """Times in seconds."""

    turn_wait: float = 30.0
    """For another activation to end."""
    silence_grace: float = 10.0
    """More than twice the time for all answers, after which an activation that says nothing has lost the right."""
    attempts: int = 3
    """Times that the version may be deployed anew meanwhile."""
    recount_period: float = 0.25
    """After which who waits for answers looks again who is there."""


class Activations:
    """Those that one member carries out, and its agreement to those of others."""

    def __init__(
        self,
        database: Database,
        guid: str,
        plans: Plans,
        ballots: Ballots,
        listener: Listener,
        limits: ActivationLimits,
    ) -> None:
        self._database = database
        self._guid = guid
        self._plans = plans
        self._ballots = ballots
        self._listener = listener
        self._limits = limits

    # -- of its own --------------------------------------------------------------------------------------

    async def activate(self, version: str, delay: float = ANSWER_DELAY) -> None:
        """Make a version the active one in every process.

        Raises VersionNotFoundError, and ActivationError if an engine cannot load it or another activation does not end.
        """
        for _ in range(self._limits.attempts):
            match await self._attempt(version, delay):
                case "activated":
                    await self._plans.refresh()
                    await self._plans.active()
                    logger.info("version activated", extra={"version": version})
                    return
                case "missing":
                    there = await definitions.checksums(self._database)
                    raise VersionNotFoundError(self._database.app_id, version, there)
        raise _refusal(version, "it was deployed anew again and again meanwhile")

    async def _attempt(self, version: str, delay: float) -> str:
        """What became of it: `activated`, or `missing` or `changed`, as `switch` says."""
        wake = _activation_message(self._guid, version)
        checksum = await self._load(version)
        if not await self._other_engines():
            async with self._database.connection() as connection:
                outcome = await switch(self._database, connection, version, checksum, wake)
            if outcome != "busy":
                return outcome
        delays = [delay * times for times in DELAY_FACTORS]
        longest = 2 * sum(delays) + self._limits.silence_grace
        turn = max(self._limits.turn_wait, 2 * longest)
        async with activating(self._database, turn, longest) as connection:
            checksum = await self._load(version)
            for answer in await self._poll_engines(version, delays):
                prepared = answer.details or Prepared()
                if prepared.error:
                    raise _refusal(version, f"Engine {answer.guid} cannot load it: {prepared.error}")
                if prepared.checksum != checksum:
                    return "changed"
            return await switch(self._database, connection, version, checksum, wake)

    async def _load(self, version: str) -> str:
        try:
            return await self._plans.prepare(version)
        except (DatabaseError, VersionNotFoundError):
            raise
        except Exception as error:
            raise _refusal(version, f"This engine cannot load it: {type(error).__name__}: {error}") from error

    async def _other_engines(self) -> frozenset[int]:
        """The sessions of the other engines that listen now."""
        return (await live_members(self._database)).engines - {self._listener.session or 0}

    async def _poll_engines(self, version: str, delays: Collection[float]) -> list[Pong]:
        """Ask every other engine to load a version; the answers of those that gave one.

        Asks again after each delay, also those that have come meanwhile, until all who are there have answered. Who is
        there but does not answer in all that time is away, and sees the epoch when it comes back. A member that hears
        nothing asks for answers that are stored, and looks for them.
        """
        missing: frozenset[int] = frozenset()
        with self._ballots.open() as ballot:
            for delay in delays:
                stored = self._listener.session is None
                await self._ballots.ask(PingDetails(ballot=ballot.question, activate=version, stored=stored))
                until = anyio.current_time() + delay
                while True:
                    if stored:
                        await self._count_stored(ballot)
                    missing = await self._other_engines() - ballot.answers.keys()
                    if not missing:
                        return list(ballot.answers.values())
                    left = until - anyio.current_time()
                    if left <= 0:
                        break
                    # Not all of the time at once: one of them may be gone by now.
                    await ballot.wait(missing, min(left, self._limits.recount_period))
        logger.warning(
            "members did not answer before an activation",
            extra={"app_id": self._database.app_id, "version": version, "sessions": sorted(missing)},
        )
        return list(ballot.answers.values())

    async def _count_stored(self, ballot: Ballot) -> None:
        for text in await stored_answers(self._database, ballot.question):
            answer = read_message(loads(text)["q"])
            if isinstance(answer, Pong):
                ballot.count(answer)

    # -- of others ---------------------------------------------------------------------------------------

    async def answer(self, version: str) -> Pong:
        """Load and compile a version that is to be activated; an answer that says how that went."""
        try:
            return Pong(details=Prepared(version=version, checksum=await self._plans.prepare(version)))
        except DatabaseError:
            raise
        except Exception as error:
            logger.error("version cannot be loaded", extra={"version": version}, exc_info=error)
            reason = f"{type(error).__name__}: {error}"[:2_000]
            return Pong(details=Prepared(version=version, error=reason))


def _refusal(version: str, reason: str) -> ActivationError:
    return ActivationError(f"Quorum not reached. Version {version} not activated. {reason}")


def _activation_message(guid: str, version: str) -> str:
    """Definitions have changed (`d`), and the message about it for those who listen to the quorum."""
    return dumps_text({"d": 1, **envelope("", Activate(until_version=version, originator=guid))})
