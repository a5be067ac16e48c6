"""How long the names are that rows are found by, in bytes of UTF-8.

An entry of an index has at most a third of a page of Postgres, 2,704 bytes, for all its columns together. These bounds leave room
for every index that the tables have, so that what is too long is refused where it is handed in, by name.
"""

from __future__ import annotations

from typing import Final

LONGEST_APP: Final = 100
"""The id of an app, a part of most indexes."""

LONGEST_VERSION: Final = 255

LONGEST_TOPIC: Final = 500
"""Topics of graphs, workers and signals; ids of activities."""

LONGEST_NAME: Final = 1_000
"""What else things are found by: entities, roles, workflow names, job keys."""

LONGEST_ID: Final = 2_048
"""Keys of signals, and ids of jobs, which have 512 characters at most."""

LONGEST_MEMBER: Final = 512
"""The guid of an instance."""


def excess(text: str, most: int) -> int:
    """The bytes of a text if they are more than `most`; 0 if it fits."""
    if len(text) * 4 <= most or (text.isascii() and len(text) <= most):
        return 0
    found = len(text.encode("utf-8", "surrogatepass"))
    return found if found > most else 0
