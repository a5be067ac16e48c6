"""Ids that are invented, not derived: of instances, jobs and generations."""

from __future__ import annotations

import os
import time
from base64 import urlsafe_b64encode


def guid() -> str:
    """`H` and 22 url-safe random characters."""
    return "H" + urlsafe_b64encode(os.urandom(17)).decode()[:22]


def generation() -> str:
    """A UUID of version 7: it starts with the time, so that the rows of one time lie together in the indexes."""
    moment = f"{time.time_ns() // 1_000_000:012x}"
    chance = os.urandom(10).hex()
    variant = "89ab"[int(chance[4], 16) & 3]
    return f"{moment[:8]}-{moment[8:]}-7{chance[1:4]}-{variant}{chance[5:8]}-{chance[8:20]}"


def token() -> int:
    """Marks a commit, or a claim: who did it, where its answer is lost. 62 bits."""
    return int.from_bytes(os.urandom(8)) >> 2
