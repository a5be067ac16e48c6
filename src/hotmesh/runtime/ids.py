"""Ids that are invented, not derived: of instances, jobs and generations."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from os import urandom
from time import time_ns


def guid() -> str:
    """`H` and 22 url-safe random characters."""
    return _guid(urandom(17))


def generation() -> str:
    """A UUID of version 7: it starts with the time, so that the rows of one time lie together in the indexes."""
    return _generation(urandom(10))


def of_a_job() -> tuple[str, str]:
    """A generation and a guid, by one call of the system, which is what they cost.

    Chance is not kept for later: a process that is forked, or restored from an image, would have the same as others.
    """
    chance = urandom(27)
    return _generation(chance[:10]), _guid(chance[10:])


def _guid(chance: bytes) -> str:
    return "H" + urlsafe_b64encode(chance).decode()[:22]


def _generation(some: bytes) -> str:
    moment = f"{time_ns() // 1_000_000:012x}"
    chance = some.hex()
    variant = "89ab"[int(chance[4], 16) & 3]
    return f"{moment[:8]}-{moment[8:]}-7{chance[1:4]}-{variant}{chance[5:8]}-{chance[8:20]}"


def token() -> int:
    """Marks a commit, or a claim: who did it, where its answer is lost. 62 bits."""
    return int.from_bytes(urandom(8)) >> 2
