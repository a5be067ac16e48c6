"""The side of a member that is turned to the user: reached from the event loop that the member belongs to, and no other."""

from __future__ import annotations

from hotmesh.postgres.connect.belonging import Home, running_loop
from hotmesh.runtime.member import Member


class Face:
    """What `HotMesh` is besides its methods."""

    def __init__(self, member: Member) -> None:
        self._running = member
        # It began in the loop that runs now, or (an outpost) with the instance that did.
        self._home = member.lifetime.home or Home()

    @property
    def _member(self) -> Member:
        """The member, for a call from the event loop that it belongs to. Raises ConfigError in any other."""
        if running_loop() is not self._home.loop:
            raise self._home.refusal()
        return self._running
