"""Tokens, by which an activity is ended from elsewhere, after its function has given up its result.

A token is one attempt of one activity: signed, so that who has one cannot make another. It is good for one answer, as long as
that attempt is neither over by a limit nor given up; after that it does nothing. The row itself decides that, in one statement.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from hashlib import blake2b
from hmac import compare_digest
from typing import Any, Final, NamedTuple

from hotmesh.core.durable.activities import policy_of
from hotmesh.core.durable.failure import retry_after
from hotmesh.core.state.step import WorkKey
from hotmesh.core.values import Json
from hotmesh.errors import ConfigError
from hotmesh.postgres import tokens as rows
from hotmesh.postgres.database import Database

_SIGNATURE: Final = 12
"""Bytes."""


class Token(NamedTuple):
    """One attempt."""

    key: WorkKey
    attempt: int
    """Attempts that failed before it."""
    every: float | None
    """Seconds between two heartbeats."""
    until: datetime | None
    """When it is cut off."""


class Tokens:
    """Makes and takes tokens of one app. `begin` comes before everything."""

    def __init__(self) -> None:
        self._key = b""

    async def begin(self, database: Database) -> None:
        """Get to know the key."""
        if not self._key:
            self._key = await rows.token_key(database)

    def text(self, token: Token) -> str:
        """For whoever ends the attempt."""
        (generation, name, dimension), attempt, every, until = token
        told = [generation, name, dimension[-1], attempt, every, None if until is None else until.timestamp()]
        payload = json.dumps(told, separators=(",", ":")).encode()
        return urlsafe_b64encode(self._signature(payload) + payload).decode().rstrip("=")

    def read(self, text: str) -> Token:
        """Raises ConfigError for what is no token of this namespace."""
        try:
            found = urlsafe_b64decode(text + "=" * (-len(text) % 4))
            signature, payload = found[:_SIGNATURE], found[_SIGNATURE:]
            if not compare_digest(signature, self._signature(payload)):
                raise ValueError
            generation, name, position, attempt, every, until = json.loads(payload)
        except (ValueError, TypeError, AttributeError):
            raise ConfigError(
                f"{text!r:.100} is no token of an activity of this namespace: see task_token of activity.get_context()"
            ) from None
        end = None if until is None else datetime.fromtimestamp(until, UTC)
        return Token((generation, name, (0, position)), attempt, every, end)

    def _signature(self, payload: bytes) -> bytes:
        return blake2b(payload, key=self._key, digest_size=_SIGNATURE).digest()


async def complete(database: Database, token: Token, value: Json) -> bool:
    """The activity has come to this value; whether that counts."""
    return await rows.answer(database, token.key, token.attempt, "success", 200, value)


async def fail(database: Database, token: Token, stored: dict[str, Any], chance: float) -> bool:
    """The attempt has failed with this error, which is tried again as the call has said; whether that counts."""
    options = await rows.options_of(database, token.key, token.attempt)
    if options is None:
        return False
    found = retry_after(stored, policy_of(options), token.attempt + 1, chance)
    if isinstance(found, float):
        said = database.payload.kept_error(str(stored["message"]))
        return await rows.try_again(database, token.key, token.attempt, found, said)
    code = int(stored["code"])
    return await rows.answer(database, token.key, token.attempt, "error", code, stored | {"ended": found})


async def beat(database: Database, token: Token, details: Json) -> bool:
    """The attempt goes on; whether it is still wanted."""
    return bool(await rows.beat(database, token.key, token.attempt, token.every, token.until, details))
