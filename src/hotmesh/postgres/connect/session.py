"""What a session has to be like, whatever a role, a database, a pool or a function that connects has made of it.

A transaction sees what others have committed while it waited for their locks: that is what read committed means, and
what waiters and signals, claims and bounds are made for. A session that somebody else shares, behind a pooler, is none of ours
to change: there the default has to be right.
"""

from __future__ import annotations

from typing import Final

from hotmesh.errors import ConfigError, SchemaError
from hotmesh.postgres.connect.driver import Driver

_SETTINGS: Final = """
set session characteristics as transaction isolation level read committed;
set standard_conforming_strings = on; set array_nulls = on; set extra_float_digits = 1
"""
"""How transactions see each other, and how texts, lists and numbers are read and written."""

_OTHER_ISOLATION: Final = (
    "select 1 where pg_catalog.current_setting('default_transaction_isolation') <> 'read committed'"
)

_TYPES: Final = {
    "bool": 16,
    "bytea": 17,
    "name": 19,
    "int8": 20,
    "int2": 21,
    "int4": 23,
    "text": 25,
    "oid": 26,
    "json": 114,
    "float4": 700,
    "float8": 701,
    "varchar": 1043,
    "date": 1082,
    "timestamp": 1114,
    "timestamptz": 1184,
    "interval": 1186,
    "numeric": 1700,
    "uuid": 2950,
    "jsonb": 3802,
}
"""The types that statements of hotmesh take and give, with their numbers, which are the same on every server."""


async def settle(connection: Driver, *, pooled: bool) -> None:
    """Let the session be one that hotmesh works on. Raises ConfigError if a pooler holds it and it is not."""
    if not pooled:
        await connection.execute(_SETTINGS)
    # Without a prepared statement: the pooler may lose it.
    elif await connection.execute(_OTHER_ISOLATION) != "SELECT 0":
        raise ConfigError(
            "the connections given lead through a pooler to sessions whose default_transaction_isolation is not read "
            "committed, which hotmesh needs and cannot set there, since others use the same sessions: run alter role … "
            "set default_transaction_isolation = 'read committed', and reconnect the pooler"
        )


def check_encoding(connection: Driver) -> None:
    """Raise SchemaError if the database cannot hold every text."""
    encoding = getattr(connection.get_settings(), "server_encoding", None)
    if encoding not in (None, "UTF8"):
        raise SchemaError(
            f"the database has the encoding {encoding}, in which not every text can be stored; hotmesh needs UTF8: "
            "create database … encoding 'UTF8' template template0"
        )


async def take_codecs_off(connection: Driver) -> bool:
    """Read and write values as the driver does by itself, and not as its owner has told it to; whether that differs.

    Costs no statement.
    """
    settings = connection.get_settings()
    find = getattr(settings, "get_data_codec", None)
    before = None if find is None else [find(number) for number in _TYPES.values()]
    for name in _TYPES:
        await connection.reset_type_codec(name, schema="pg_catalog")
    after = None if find is None else [find(number) for number in _TYPES.values()]
    if before is not None and after is not None and all(map(_same, before, after)):
        return False
    await connection.reload_schema_state()  # lists of these types, too
    return True


def _same(one: object, other: object) -> bool:
    return one is other
