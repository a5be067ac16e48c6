"""What a worker login is: its name, its password, its bounds; and what is checked of them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256

from hotmesh.core.arguments import checked_text, is_storable
from hotmesh.core.duration import Duration, seconds
from hotmesh.core.lengths import LONGEST_TOPIC
from hotmesh.errors import ConfigError

PREFIX = "hmsh_wrk"

LONGEST_NAME = 63
"""Bytes that Postgres keeps of a name."""


@dataclass(frozen=True, slots=True)
class WorkerCredential:
    """A worker's login. The password is told this once, and kept nowhere."""

    role_name: str
    password: str = field(repr=False)


Credentials = Mapping[str, str] | WorkerCredential
"""What `provision_worker_role` returns, or a dict with `user` and `password`."""


def login_of(credentials: Credentials) -> tuple[str, str]:
    """User and password. Raises ConfigError for a dict with other keys or values."""
    if isinstance(credentials, WorkerCredential):
        return credentials.role_name, credentials.password
    if (
        not isinstance(credentials, Mapping)
        or set(credentials) != {"user", "password"}
        or not all(isinstance(value, str) for value in credentials.values())
    ):
        raise ConfigError("worker_credentials is a dict with user and password, and nothing else")
    return credentials["user"], credentials["password"]


@dataclass(frozen=True, slots=True)
class WorkerRole:
    """A worker login as it is recorded. `can_login` is what Postgres says; `sessions` are those open now."""

    id: int
    role_name: str
    app_id: str
    stream_names: tuple[str, ...]
    created_at: datetime
    revoked_at: datetime | None
    last_rotated_at: datetime | None
    can_login: bool
    sessions: int
    connection_limit: int | None


def default_role_name(database: str, namespace: str, app_id: str, topics: Sequence[str]) -> str:
    """`hmsh_wrk_<namespace>_<app>_<topic>__<topic>_<hash>`, cut before the hash, which tells equal beginnings apart."""
    words = [re.sub(r"[^A-Za-z0-9]+", "_", word) for word in (namespace, app_id)]
    listed = "__".join(re.sub(r"[^A-Za-z0-9]+", "_", topic) for topic in topics)
    readable = "_".join([PREFIX, *words, listed])
    # Roles belong to the whole cluster: two databases in it may have the same namespace.
    digest = sha256("\0".join([database, namespace, app_id, *topics]).encode()).hexdigest()[:10]
    return f"{readable[: LONGEST_NAME - 11].rstrip('_')}_{digest}"


def checked_topics(names: Sequence[str]) -> list[str]:
    if isinstance(names, str) or not isinstance(names, Collection) or not names:
        raise ConfigError("stream_names is a list of at least one worker topic")
    for name in names:
        if not isinstance(name, str) or not name or not is_storable(name):
            raise ConfigError(f"a worker topic is a non-empty text, not {name!r}")
        checked_text(name, "a worker topic", LONGEST_TOPIC)
    return sorted(set(names))


def checked_role_name(name: str) -> str:
    if (
        not isinstance(name, str)
        or not is_storable(name)
        or not 0 < len(name.encode()) <= LONGEST_NAME
        or name.startswith("pg_")
    ):
        raise ConfigError(
            f"a role name has 1 to {LONGEST_NAME} bytes and does not begin with pg_, not {name!r}"
        )
    return name


def checked_password(given: str | None) -> str:
    if given is None:
        return secrets.token_urlsafe(32)
    if not isinstance(given, str) or not given or not is_storable(given):
        raise ConfigError("a password is a non-empty text without NUL characters")
    return given


def checked_whole(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
        raise ConfigError(f"{name} must be an integer of at least 1, not {value!r}")
    return value


def checked_seconds(name: str, value: Duration) -> float:
    found = seconds(value, name=name)
    if found < 1:
        raise ConfigError(f"{name} must be at least 1 second, not {value!r}")
    return found
