"""The forms in which users write where their database is, and what the driver takes instead of them."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from typing import Any

import asyncpg

from hotmesh.errors import ConfigError

Factory = Callable[[], Awaitable[asyncpg.Connection]]
"""Makes a new connection each time it is called."""

ConnectionLike = str | Mapping[str, Any] | asyncpg.Pool | Factory | None

LONG_FORM = ("store", "stream", "sub")
"""One connection for each purpose; ours are two: statements (`store`, `stream`), and what needs a session (`sub`)."""

_FURTHER = ("pub", "search")
"""Purposes that other engines have connections for; ours go by one of the two."""

_MARKS = ("class", "provider", "readonly", "retry")
"""Keys that tell other drivers something, and ours nothing."""


def split(connection: ConnectionLike, direct: ConnectionLike | bool) -> tuple[ConnectionLike, Any]:
    """The connection for statements and the direct one, out of the long form if it is one; `{}` is as `store`.

    Raises ConfigError if the long form lacks a part, or if its parts cannot be one database.
    """
    if not is_long_form(connection) or not isinstance(connection, Mapping):
        return connection, direct
    missing = [name for name in LONG_FORM if connection.get(name) is None]
    if missing:
        raise ConfigError(
            f"engine must include `store`, `stream`, and `sub` fields; connection= lacks {', '.join(missing)}"
        )
    unknown = connection.keys() - {*LONG_FORM, *_FURTHER, "readonly"}
    if unknown:
        raise ConfigError(
            f"connection= has {min(unknown)!r} beside `store`, `stream` and `sub`; further are {', '.join(_FURTHER)}, readonly"
        )
    for name in _FURTHER:
        if connection.get(name) not in (None, {}, connection["store"], connection["sub"]):
            raise ConfigError(
                f"connection= has a `{name}` that differs from its `store` and its `sub`; there are no more than these two: "
                "leave it out"
            )
    if connection["stream"] not in ({}, connection["store"]):
        raise ConfigError(
            "connection= has a `stream` that differs from its `store`: one transaction writes to both, so they "
            "must be the same; only `sub`, the direct connection for notifications, may differ"
        )
    if direct is None and connection["sub"] not in ({}, connection["store"]):
        direct = connection["sub"]
    return connection["store"], direct


def is_long_form(connection: ConnectionLike) -> bool:
    """Whether it has a connection for each purpose."""
    return isinstance(connection, Mapping) and any(name in connection for name in LONG_FORM)


def is_readonly(connection: ConnectionLike) -> bool:
    """Whether the connection is marked as one that consumes nothing."""
    if not isinstance(connection, Mapping):
        return False
    return bool(connection.get("readonly")) or is_readonly(connection.get("store"))


def pool_in(connection: Mapping[str, Any]) -> asyncpg.Pool | None:
    """The ready pool that the short form names as its `class`."""
    found = connection.get("class")
    return found if isinstance(found, asyncpg.Pool) else None


def driver_dsn(dsn: str) -> str:
    """Drops the driver part of SQLAlchemy-style URLs (`postgresql+asyncpg://`). Raises ConfigError."""
    scheme, separator, rest = dsn.partition("://")
    if not separator:
        raise ConfigError(
            f"connection= is not a Postgres URL: {_without_password(dsn)!r}; write postgresql://…"
        )
    base = scheme.partition("+")[0]
    if base not in ("postgresql", "postgres"):
        raise ConfigError(f"connection= must start with postgresql://, not {scheme}://")
    return f"{base}://{rest}"


def flatten(connection: Mapping[str, Any]) -> dict[str, Any]:
    """Driver options out of the forms users write: plain options, {"dsn": …} or {"options": {…}}. Raises ConfigError."""
    _check_provider(connection)
    found = dict(connection)
    options = found.pop("options", None)
    if isinstance(options, Mapping):
        found = {**options, **found}
    for name in _MARKS:
        found.pop(name, None)
    if "connectionString" in found:
        found["dsn"] = found.pop("connectionString")
    if found.get("dsn") is not None:
        if not isinstance(found["dsn"], str):
            raise ConfigError(f"connection= has a dsn that is no text: {found['dsn']!r}")
        found["dsn"] = driver_dsn(found["dsn"])
    unknown = found.keys() - _known()
    if unknown:
        raise ConfigError(
            f"connection= has no option {min(unknown)!r}; known are {', '.join(sorted(_known()))}"
        )
    return found


def _check_provider(connection: Mapping[str, Any]) -> None:
    """Raise ConfigError if `provider` or `class` name anything but Postgres."""
    provider, driver = connection.get("provider"), connection.get("class")
    if provider is not None and not str(provider).lower().startswith(("postgres", "pg")):
        raise ConfigError(
            f"Unable to identify provider type {provider!r}: there is postgres, and nothing else"
        )
    if driver is None:
        return
    name = (
        getattr(driver, "__module__", None) if isinstance(driver, type) else getattr(driver, "__name__", None)
    )
    if str(name).partition(".")[0] not in _DRIVERS:
        raise ConfigError(
            f"Unable to identify provider type of class {driver!r}: it may be an asyncpg pool, which is used, or a driver "
            "of Postgres, which says no more than provider='postgres'; leave it out"
        )


_DRIVERS = ("asyncpg", "psycopg", "psycopg2", "psycopg_pool", "pg8000", "sqlalchemy")


@cache
def _known() -> frozenset[str]:
    return frozenset(inspect.signature(asyncpg.connect).parameters) - {"loop"}


def _without_password(dsn: str) -> str:
    head, separator, tail = dsn.rpartition("@")
    return f"…@{tail}" if separator and head else dsn
