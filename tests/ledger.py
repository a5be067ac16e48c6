"""What processes of a test do in the world: a file that outlives them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Ledger:
    """A file to which any number of processes append entries, as JSON text sequences (RFC 7464).

    The system writes page by page: an entry may be seen, or stay, cut where its writer was killed. What tells is
    the end of its line.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def append(self, **entry: Any) -> None:
        os.write(self._file, b"\x1e" + json.dumps(entry | {"at": time.time()}).encode() + b"\n")


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """What has been appended whole, in order."""
    for text in path.read_bytes().split(b"\x1e"):
        if text.endswith(b"\n"):
            yield json.loads(text)
