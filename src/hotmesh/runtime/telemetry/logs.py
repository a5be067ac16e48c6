"""Log records: an event and facts (`extra`), on loggers `hotmesh.*`. The library sets up no handlers.

The message of a record says its facts, too, so that an ordinary formatter shows them: `events could not be handled (job H…,
activity charge): KeyError: 'x'`. The event alone stands in `event`. Every record of an instance's own tasks has its `app_id` and
`guid`, so that the lines of several instances in one process can be told apart. An instance may have a logger and a level of its own.

Handlers, filters and formatters are code of users: what they raise loses the record, and ends nothing of ours.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any, Final

from hotmesh.errors import ConfigError
from hotmesh.foreign_errors import storable, words_of
from hotmesh.interrupts import is_interrupt
from hotmesh.runtime.tracebacks import in_short

LOG_LEVEL_VARIABLE: Final = "HMSH_LOGLEVEL"

LOGGERS: Final = (
    "hotmesh", "hotmesh.durable", "hotmesh.engine", "hotmesh.events", "hotmesh.lease", "hotmesh.listener", "hotmesh.metrics",
    "hotmesh.postgres", "hotmesh.quorum", "hotmesh.results", "hotmesh.retention", "hotmesh.security", "hotmesh.telemetry",
    "hotmesh.virtual",
    "hotmesh.worker", "hotmesh.workflow",
)  # fmt: skip
"""Every logger of the library."""

EXTRA_LEVELS: Final = {"silly": 1, "silent": logging.CRITICAL + 1}
"""Names of levels that `logging` does not know: everything, and nothing."""


@dataclass(frozen=True, slots=True)
class LogContext:
    """How an instance logs: what its records are about, where they go instead, and the least level of them."""

    app_id: str
    guid: str
    name: str | None = None
    logger: logging.Logger | None = None
    level: int | None = None

    def prepare(self) -> None:
        """Let the loggers of the library pass on what this instance wants to have logged."""
        for name in LOGGERS:
            # Once per logger, however often: the same filter is not added twice.
            logging.getLogger(name).addFilter(_about)
        wanted = self.level
        if wanted is None and self.logger is not None:
            wanted = self.logger.getEffectiveLevel()
        top = logging.getLogger("hotmesh")
        if wanted is not None and top.getEffectiveLevel() > wanted:
            top.setLevel(wanted)


_instance: ContextVar[LogContext | None] = ContextVar("hotmesh_instance", default=None)


class _Guarded(logging.Logger):
    """A logger on which no call raises, whatever the handlers, filters and record factories of users do."""

    def makeRecord(  # noqa: N802 - as logging has it
        self,
        name: str,
        level: int,
        fn: str,
        lno: int,
        msg: object,
        args: Any,
        exc_info: Any,
        func: str | None = None,
        extra: Mapping[str, object] | None = None,
        sinfo: str | None = None,
    ) -> logging.LogRecord:
        facts = args, exc_info, func
        try:
            # The facts are added here: logging itself raises if a factory of the program's has attributes of these names.
            record = super().makeRecord(name, level, fn, lno, msg, *facts, None, sinfo)
        except BaseException as error:  # noqa: BLE001 - code of users may raise anything
            _lost(self.name, error)
            record = logging.LogRecord(name, level, fn, lno, msg, *facts, sinfo)
        record.__dict__.update(extra or {})
        try:
            tell_facts(record)
        except BaseException as error:  # noqa: BLE001 - facts may be objects of users
            _lost(self.name, error)
        return record

    def handle(self, record: logging.LogRecord) -> None:
        try:
            super().handle(record)
        except BaseException as error:  # noqa: BLE001 - code of users may raise anything
            _lost(self.name, error)


def _lost(name: str, error: BaseException) -> None:
    """Say, once for each kind of error, that code of users has raised instead of logging; a Ctrl-C goes on its way."""
    if is_interrupt(error):
        raise error
    kind = f"{name} {type(error).__name__}"
    if kind in _told or not logging.raiseExceptions or sys.stderr is None:
        return
    _told.add(kind)
    with suppress(Exception):
        print(
            f"hotmesh: a log record of {name} was lost, or is incomplete: a handler, filter or record factory raised "
            f"{in_short(error)}; this is said once",
            file=sys.stderr,
        )


_told: set[str] = set()
"""Logger and kind of error of what was said."""


def guard_loggers() -> None:
    """Let no log call of the library raise."""
    for found in map(logging.getLogger, LOGGERS):
        if not isinstance(found, _Guarded):
            # The program may have asked for it before, and have a class of its own for loggers.
            kind = type(found)
            found.__class__ = (
                _Guarded if kind is logging.Logger else type(kind.__name__, (_Guarded, kind), {})
            )


guard_loggers()


def log_as(log_context: LogContext) -> None:
    """What this task logs, and each task that it starts, is about this instance."""
    log_context.prepare()
    _instance.set(log_context)


@contextmanager
def logging_as(log_context: LogContext) -> Iterator[None]:
    """What is logged inside the block is about this instance."""
    log_context.prepare()
    token = _instance.set(log_context)
    try:
        yield
    finally:
        _instance.reset(token)


def _about(record: logging.LogRecord) -> bool:
    log_context = _instance.get()
    if log_context is None:
        return True
    record.__dict__.setdefault("app_id", log_context.app_id)
    record.__dict__.setdefault("guid", log_context.guid)
    if log_context.name is not None:
        record.__dict__.setdefault("app", log_context.name)
    if log_context.level is not None and record.levelno < log_context.level:
        return False
    if log_context.logger is None:
        return True
    if log_context.logger.isEnabledFor(record.levelno):
        log_context.logger.handle(record)
    return False


def tell_facts(record: logging.LogRecord) -> None:
    """Let the message of a record say the facts that it has; one with arguments says by itself what it wants to."""
    event = record.msg
    facts = {
        name: value for name, value in record.__dict__.items() if name not in _UNTOLD and value is not None
    }
    record.__dict__.setdefault("event", event)
    text = record.getMessage()
    if not record.args:
        error = facts.pop("error", None)
        if error is None and record.exc_info and record.exc_info[1] is not None:
            error = in_short(record.exc_info[1])
        told = [f"{_WORDS.get(name, name.replace('_', ' '))} {value}" for name, value in facts.items()]
        text += (f" ({', '.join(told)})" if told else "") + (f": {error}" if error else "")
    # As text and not as a format: what the facts say may have percent signs. Half of a surrogate pair could not be written.
    record.msg, record.args = "%s", (storable(text),)


_WORDS: Final = {"job_id": "job", "activity_id": "activity"}
"""How facts are called in a message."""


def checked_logger(logger: Any) -> logging.Logger:
    """The logger if it is one that can take the records of an instance. Raises ConfigError."""
    if not isinstance(logger, logging.Logger):
        raise ConfigError(f"logger= takes a logging.Logger, not {logger!r}")
    if logger.name in LOGGERS:
        raise ConfigError(f"logger= cannot be {logger.name}, from which the records come: leave it out")
    return logger


def level_number(level: str | int, what: str) -> int:
    """The number of a level: `silly`, `debug`, `info`, `warn`, `error`, `silent`, those of `logging`. Raises ConfigError."""
    number: object = level
    if isinstance(level, str):
        number = EXTRA_LEVELS.get(level.lower()) or logging.getLevelNamesMapping().get(level.upper(), level)
    if isinstance(number, bool) or not isinstance(number, int):
        raise ConfigError(f"{what} cannot be {level!r}")
    return number


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `ts`, `level`, `logger`, `message`, what `extra` says, and `error` with its stack.

    The message is the event alone, or a sentence whose event is its pattern.

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
        event = found.get("event")
        if isinstance(event, str) and "%" not in event:
            # Here the facts stand beside it.
            found["message"] = found.pop("event")
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            stack = "".join(traceback.format_exception(error))
            found["error"] = {"message": words_of(error) or type(error).__name__, "stack": stack}
        return json.dumps(found, default=str, ensure_ascii=False)


_STANDARD: Final = frozenset(
    {*logging.LogRecord("", 0, "", 0, "", None, None).__dict__, "message", "asctime", "taskName"}
)

_UNTOLD: Final = _STANDARD | {"app_id", "guid", "app", "event"}
"""What is no fact of the event."""


def log_json(stream: IO[str] | None = None, level: str | int | None = None) -> logging.Handler:
    """Write what hotmesh logs as JSON lines to `stream` (stderr); for programs without a set-up of their own.

    `level`: given, else `HMSH_LOGLEVEL`, else info. Returns the handler. Raises ConfigError.
    """
    if level is None:
        level = os.environ.get(LOG_LEVEL_VARIABLE) or "info"
    number = level_number(level, f"the log level (argument, or {LOG_LEVEL_VARIABLE})")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger("hotmesh")
    root.addHandler(handler)
    root.setLevel(number)
    return handler
