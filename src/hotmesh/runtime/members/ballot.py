"""A question to the members, and its ballot.

Who asks opens a ballot, and sends its number with a `ping`; each member answers that with one or more `pong`s under its
session, the one that listens, and says with each how many there are. So who asks knows when a member has answered in full,
and, because Postgres knows which sessions listen (`live_members`), when all who are there have. Of a member, who asks knows:

    asked      listens, and has not answered in full: waited for, as long as who asks will wait
    answered   all parts have come; a member that lost its connection meanwhile answers under its new session
    gone       its session listens no more: not waited for, once who asks has looked again (an activation does)

Nothing of a ballot is stored, but for answers to who hears nothing; it ends with the question, and what comes later is
nobody's. If the asking process dies, the others have answered in vain.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import anyio
from msgspec import UNSET
from msgspec.structs import replace

from hotmesh.runtime import ids
from hotmesh.runtime.members.bus import Bus
from hotmesh.runtime.members.listener import Listener
from hotmesh.runtime.members.messages import Ping, PingDetails, Pong
from hotmesh.runtime.service import Flag


class Ballot:
    """The answers to one question."""

    def __init__(self, question: str) -> None:
        self.question: Final = question
        self.profiles: list[dict[str, Any]] = []
        self.answers: dict[int, Pong] = {}
        """By session, of the members that have answered in full."""
        self._parts: dict[int, int] = {}
        self._changed = Flag()

    def count(self, pong: Pong) -> None:
        """Count an answer in. Raises ValueError if it does not say whose it is."""
        session = pong.session
        if session is UNSET:
            raise ValueError("an answer has to have a session")
        if pong.profile:
            self.profiles.append(pong.profile)
        self._parts[session] = self._parts.get(session, 0) + 1
        if self._parts[session] >= (1 if pong.parts is UNSET else pong.parts):
            self.answers[session] = pong
        self._changed.set()

    async def wait(self, sessions: Collection[int], limit: float) -> None:
        """Wait until all of these have answered, at most `limit` seconds."""
        with anyio.move_on_after(limit):
            while not self.answers.keys() >= set(sessions):
                self._changed.clear()
                await self._changed.wait()


class Ballots:
    """The questions of one member that are open, and how it answers those of others."""

    def __init__(self, bus: Bus, listener: Listener, guid: str) -> None:
        self._bus = bus
        self._listener = listener
        self._guid = guid
        self._open: dict[str | None, Ballot] = {}

    @contextmanager
    def open(self) -> Iterator[Ballot]:
        """A ballot that counts until the block ends."""
        ballot = Ballot(ids.guid())
        self._open[ballot.question] = ballot
        try:
            yield ballot
        finally:
            del self._open[ballot.question]

    async def ask(self, details: PingDetails) -> None:
        """Put a question to every member."""
        await self._bus.send("", [Ping(originator=self._guid, details=details)])

    def is_own(self, ping: Ping) -> bool:
        """Whether this member asks that itself."""
        return ping.question.ballot in self._open

    def count(self, pong: Pong) -> None:
        """Count an answer in, if it is one to an open question. Raises ValueError if it cannot be."""
        ballot = self._open.get(pong.ballot) if pong.ballot else None
        if ballot is not None:
            ballot.count(pong)

    async def answer(self, ping: Ping, answers: Sequence[Pong]) -> None:
        """Send these answers; one that says nothing, if there are none."""
        session = self._listener.session
        if session is None:
            return  # not a member at this moment; whoever asks knows that
        parts = [
            replace(
                answer,
                guid=self._guid,
                originator=ping.originator,
                session=session,
                parts=max(len(answers), 1),
                ballot=ping.question.ballot,
            )
            for answer in answers or [Pong()]
        ]
        # Who asks for that hears nothing.
        await self._bus.send(ping.originator, parts, stored=bool(ping.question.stored))
