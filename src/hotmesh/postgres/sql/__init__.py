"""The SQL files, read once and bound to a schema."""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha256
from importlib.resources import files

_SCHEMA = re.compile(r"\bmesh\.")


def bind(sql: str, schema: str) -> str:
    """Put the schema's quoted name where the files say `mesh.`; the word stands for nothing else in them."""
    quoted = quote(schema)
    return _SCHEMA.sub(lambda _: f"{quoted}.", sql)


def quote(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """For statements that take no parameters."""
    return "'" + text.replace("'", "''") + "'"


@cache
def read(folder: str) -> dict[str, str]:
    """Name (without .sql) → text of every file in `migrations`, `functions` or `queries`, sorted by name."""
    found = files(__name__).joinpath(folder).iterdir()
    return {
        entry.name.removesuffix(".sql"): entry.read_text(encoding="utf-8")
        for entry in sorted(found, key=lambda entry: entry.name)
        if entry.name.endswith(".sql")
    }


def checksum(*texts: str) -> str:
    return sha256("\0".join(texts).encode()).hexdigest()
