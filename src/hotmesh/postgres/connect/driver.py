"""The driver's connection, and what is asked of it beside statements: is it open, end it, look after its line."""

from __future__ import annotations

import socket
from contextlib import suppress

import asyncpg

Driver = asyncpg.Connection
"""The driver's connection. `hotmesh.postgres` runs statements on it; others pass it on, and open transactions on it."""


def is_closed(connection: Driver) -> bool:
    """Whether a connection has ended. One of a pool went back there when it did, and says so by an error."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True


def terminate(connection: Driver) -> None:
    """End a connection at once, whatever it is doing."""
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


def statement_cache(connection: Driver) -> int:
    """How many prepared statements the driver keeps on a connection."""
    return int(getattr(getattr(connection, "_config", None), "statement_cache_size", 0))


def keep_alive(connection: Driver) -> None:
    """Let the system look after the peer of a TCP connection: one that is silent for half a minute has gone."""
    transport = getattr(connection, "_transport", None)
    found = None if transport is None else transport.get_extra_info("socket")
    if found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):
            found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


_KEEPALIVE = (
    ("TCP_KEEPIDLE", 15),
    ("TCP_KEEPINTVL", 5),
    ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", 30_000),
)
"""Seconds, but for the last: milliseconds that sent bytes may stay unacknowledged."""
