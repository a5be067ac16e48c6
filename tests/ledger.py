"""What processes of a test do in the world: a file that outlives them."""

from __future__ import annotations

import json
import os
import time
from typing import Any


class Ledger:
    """A file to which any number of processes append lines of JSON; a line is there whole or not at all."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def append(self, **entry: Any) -> None:
        os.write(self._file, json.dumps(entry | {"at": time.time()}).encode() + b"\n")
