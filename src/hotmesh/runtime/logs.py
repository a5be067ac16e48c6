"""Log records: an event name and facts (`extra`), on loggers `hotmesh.*`. The library sets up no handlers.

Every record of an instance's own tasks has its `app_id` and `guid`, so that the lines of several instances in one
process can be told apart.
"""

from __future__ import annotations

import json
import logging
import os
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import IO, Any, Final

from hotmesh.errors import ConfigError

VARIABLE: Final = "HMSH_LOGLEVEL"

LOGGERS: Final = (
    "hotmesh", "hotmesh.engine", "hotmesh.events", "hotmesh.lease", "hotmesh.listener", "hotmesh.metrics",
    "hotmesh.postgres", "hotmesh.quorum", "hotmesh.results", "hotmesh.retention", "hotmesh.security", "hotmesh.telemetry",
    "hotmesh.worker",
)  # fmt: skip
"""Every logger of the library."""

_instance: ContextVar[tuple[str, str] | None] = ContextVar("hotmesh_instance", default=None)


def speak_for(app_id: str, guid: str) -> None:
    """What this task logs, and each task that it starts, is about this instance."""
    _instance.set((app_id, guid))
    for name in LOGGERS:
        # Once per logger, however often: the same filter is not added twice.
        logging.getLogger(name).addFilter(_about)


def _about(record: logging.LogRecord) -> bool:
    known = _instance.get()
    if known is not None:
        record.__dict__.setdefault("app_id", known[0])
        record.__dict__.setdefault("guid", known[1])
    return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `ts`, `level`, `logger`, `message`, what `extra` says, and `error` with its stack.

    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    """

    def format(self, record: logging.LogRecord) -> str:
        found: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        found |= {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            stack = "".join(traceback.format_exception(error))
            found["error"] = {"message": str(error) or type(error).__name__, "stack": stack}
        return json.dumps(found, default=str, ensure_ascii=False)


_STANDARD: Final = frozenset(
    {*logging.LogRecord("", 0, "", 0, "", None, None).__dict__, "message", "asctime", "taskName"}
)


def log_json(stream: IO[str] | None = None, level: str | int | None = None) -> logging.Handler:
    """Write what hotmesh logs as JSON lines to `stream` (stderr); for programs without a set-up of their own.

    `level`: given, else `HMSH_LOGLEVEL`, else info. Returns the handler. Raises ConfigError.
    """
    if level is None:
        level = os.environ.get(VARIABLE) or "info"
    number = logging.getLevelNamesMapping().get(level.upper()) if isinstance(level, str) else level
    if not isinstance(number, int):
        raise ConfigError(f"the log level (argument, or {VARIABLE}) cannot be {level!r}")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger("hotmesh")
    root.addHandler(handler)
    root.setLevel(number)
    return handler
