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
from typing import TYPE_CHECKING, Final

from hotmesh.core.wire import dumps_text
from hotmesh.errors import ActivationError, DatabaseError, VersionNotFoundError
from hotmesh.postgres.members import activating, switch

if TYPE_CHECKING:
    from hotmesh.postgres.store import Store
    from hotmesh.runtime.definitions.plans import Plans
    from hotmesh.runtime.members.quorum import Quorum

logger = logging.getLogger("hotmesh.quorum")

DELAY: Final = 0.25
"""Seconds in which the other engines should have answered."""

ROUNDS: Final = (1, 2, 4, 8)
"""How many times as long each further question waits."""

WAIT: Final = 30.0
"""Seconds to wait for another activation to end."""

GRACE: Final = 10.0
"""Seconds more than twice the time for all answers, after which an activation that says nothing has lost the right."""

ATTEMPTS: Final = 3
"""Times that the version may be deployed anew meanwhile."""


async def activate(store: Store, plans: Plans, quorum: Quorum, version: str, delay: float = DELAY) -> None:
    """Make a version the active one in every process.

    Raises VersionNotFoundError, and ActivationError if an engine cannot load it or another activation does not end.
    """
    for _ in range(ATTEMPTS):
        match await _attempt(store, plans, quorum, version, delay):
            case "activated":
                await plans.refresh()
                await plans.active()
                logger.info("version activated", extra={"version": version})
                return
            case "missing":
                raise VersionNotFoundError(store.app_id, version)
    raise _refusal(version, "it was deployed anew again and again meanwhile")


async def _attempt(store: Store, plans: Plans, quorum: Quorum, version: str, delay: float) -> str:
    """What became of it: `activated`, or `missing` or `changed`, as `switch` says."""
    wake = _activation_message(quorum.guid, version)
    checksum = await _load(plans, version)
    if not await quorum.other_engines():
        async with store.connection() as connection:
            outcome = await switch(store, connection, version, checksum, wake)
        if outcome != "busy":
            return outcome
    delays = [delay * times for times in ROUNDS]
    longest = 2 * sum(delays) + GRACE
    async with activating(store, max(WAIT, 2 * longest), longest) as connection:
        checksum = await _load(plans, version)
        for answer in await quorum.poll_engines(version, delays):
            details = answer["details"]
            if "error" in details:
                raise _refusal(version, f"Engine {answer['guid']} cannot load it: {details['error']}")
            if details["checksum"] != checksum:
                return "changed"
        return await switch(store, connection, version, checksum, wake)


async def _load(plans: Plans, version: str) -> str:
    try:
        return await plans.prepare(version)
    except (DatabaseError, VersionNotFoundError):
        raise
    except Exception as error:
        raise _refusal(version, f"This engine cannot load it: {type(error).__name__}: {error}") from error


def _refusal(version: str, reason: str) -> ActivationError:
    return ActivationError(f"Quorum not reached. Version {version} not activated. {reason}")


def _activation_message(guid: str, version: str) -> str:
    """Definitions have changed (`d`), and the message about it for those who listen to the quorum."""
    message = {
        "type": "activate",
        "cache_mode": "nocache",
        "until_version": version,
        "originator": guid,
    }
    return dumps_text({"d": 1, "q": message, "to": ""})
