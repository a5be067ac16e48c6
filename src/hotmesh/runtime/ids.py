"""Ids that are invented, not derived: of instances, jobs and generations."""

from __future__ import annotations

import os
import secrets
import time
from base64 import urlsafe_b64encode
from uuid import UUID


def guid() -> str:
    """`H` and 22 url-safe random characters."""
    return "H" + urlsafe_b64encode(secrets.token_bytes(17)).decode()[:22]


def generation() -> str:
    """A UUID of version 7: it starts with the time, so that the rows of one time lie together in the indexes."""
    moment = time.time_ns() // 1_000_000
    value = (moment << 80) | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | (0x7 << 76)
    value = value & ~(0x3 << 62) | (0x2 << 62)
    return str(UUID(int=value))


def token() -> int:
    """Marks a commit."""
    return secrets.randbits(62)
