"""What members tell each other: JSON objects with a `type`, as they are decoded and encoded here.

    ping       who is there? `originator` says whom to answer; with `details.activate`, who can run that version? With
               `details.stored`, the answer is to be a row, because who asks hears nothing
    pong       an answer to a ping, with a `profile`; or, without an originator, part of a roll call that repeats
    throttle   a rate, see `rates`
    rollcall   tell your profile to everybody, again and again
    activate   a version has become the active one
    duress     an engine does badly, see `engine.duress`
    user       anything, for the callbacks of `sub_quorum`

Subscribers get every message as the dict that it is, with all its keys. A member itself reads those that have a class here,
and of them the fields that it knows: another release may send more types, and more fields. Absent (UNSET) and null are
told apart where they mean different things.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from msgspec import UNSET, Struct, UnsetType, convert

from hotmesh.core.arguments import checked_mapping
from hotmesh.core.duration import seconds
from hotmesh.enums import PAUSED
from hotmesh.errors import ConfigError
from hotmesh.runtime.engine.duress import Level

TYPES: Final = frozenset(
    {"ping", "pong", "activate", "throttle", "rollcall", "work", "cron", "job", "duress", "user"}
)

LARGEST_RATE: Final = 2_147_483_647
"""Milliseconds."""

Scope = Literal["all", "engines", "workers"]

SCOPES: Final[dict[str, tuple[str, ...]]] = {
    "all": ("engines", "workers"),
    "engines": ("engines",),
    "workers": ("workers",),
}

Text = str | None | UnsetType
"""A text, null, or nothing at all."""


class QuorumMessage(Struct, tag_field="type", frozen=True, kw_only=True):
    """What all messages between members have in common: a `type`."""


class PingDetails(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is asked, under which question (`ballot`), and whether the answer is to be stored."""

    ballot: str | None = None
    activate: str | None = None
    stored: bool | UnsetType = UNSET


NO_DETAILS: Final = PingDetails()


class Ping(QuorumMessage, frozen=True, kw_only=True, tag="ping"):
    originator: str
    details: PingDetails | None = None
    """None: nothing further."""

    @property
    def question(self) -> PingDetails:
        return self.details or NO_DETAILS


class Prepared(Struct, frozen=True, kw_only=True):
    """How it went to load a version: the checksum of what was compiled, or an error."""

    version: Text = UNSET
    checksum: Text = UNSET
    error: Text = UNSET


class Pong(QuorumMessage, frozen=True, kw_only=True, tag="pong"):
    """One of the `parts` of what a member answers, all of them under one `session`: that of its listening connection."""

    guid: Text = UNSET
    originator: Text = UNSET
    profile: dict[str, Any] | UnsetType | None = UNSET
    details: Prepared | UnsetType | None = UNSET
    session: int | UnsetType = UNSET
    parts: int | UnsetType = UNSET
    ballot: Text = UNSET


class Throttle(QuorumMessage, frozen=True, kw_only=True, tag="throttle"):
    """With `topic` null, it is for engines only; a `stored` one is a row, to be read."""

    throttle: int | None = None
    guid: Text = UNSET
    topic: Text = UNSET
    scope: Text = UNSET
    stored: bool | UnsetType = UNSET


class RollCall(QuorumMessage, frozen=True, kw_only=True, tag="rollcall"):
    """Without `topic` for engines and workers; with null for engines. `interval` in seconds."""

    interval: float | None = None
    max: int | None = None
    signature: bool | int | None = None
    guid: str | None = None
    topic: Text = UNSET


class Activate(QuorumMessage, frozen=True, kw_only=True, tag="activate"):
    cache_mode: str = "nocache"
    until_version: str
    originator: str


class DuressMessage(QuorumMessage, frozen=True, kw_only=True, tag="duress"):
    """Milliseconds: the average of the slowest kind of message, and the floor."""

    originator: Text = UNSET
    duress_score_ms: float = 0
    throttle_ms: float
    level: Level


Heard = Ping | Pong | Throttle | RollCall | DuressMessage
"""What a member does something about. It learns of an activation by the epoch."""

_HEARD: Final[dict[str, type[Heard]]] = {
    "ping": Ping,
    "pong": Pong,
    "throttle": Throttle,
    "rollcall": RollCall,
    "duress": DuressMessage,
}


def read_message(message: dict[str, Any]) -> Heard | None:
    """A message from outside; None if it says nothing to a member itself. Raises ValueError if it cannot be used."""
    kind = message.get("type")
    known = _HEARD.get(kind) if isinstance(kind, str) else None
    return None if known is None else convert(message, known)


def checked_message(message: Any) -> dict[str, Any]:
    """What a user wants to send to the members. Raises ConfigError."""
    found = checked_mapping(message, "message")
    kind = found.get("type")
    if not isinstance(kind, str) or kind not in TYPES:
        raise ConfigError(
            f"a quorum message needs a type, one of {', '.join(sorted(TYPES))}; it was {kind!r}"
        )
    if kind == "throttle":
        checked_rate(found.get("throttle"))
        checked_scope(found.get("scope", "all"))
    if kind == "rollcall":
        found["interval"] = seconds(found.get("interval") or 0, name="interval of a roll call")
        most = found.get("max")
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            raise ConfigError(f"max of a roll call must be an integer of at least 1, not {most!r}")
    return found


def checked_rate(rate: object) -> int:
    """The rate if it is one. Raises ConfigError."""
    if isinstance(rate, bool) or not isinstance(rate, int) or rate < PAUSED:
        raise ConfigError(
            f"Throttle must be -1 (pause) or a non-negative integer (ms delay); 0 = resume; it was {rate!r}"
        )
    if rate > LARGEST_RATE:
        raise ConfigError(
            "Throttle must be -1 (pause) or a non-negative integer (ms delay); 0 = resume"
            f"; {rate} is more than {LARGEST_RATE}"
        )
    return rate


def checked_scope(scope: object) -> str:
    """The scope of a rate if it is one. Raises ConfigError."""
    if not isinstance(scope, str) or scope not in SCOPES:
        raise ConfigError(f"scope must be one of {', '.join(SCOPES)}, not {scope!r}")
    return scope
