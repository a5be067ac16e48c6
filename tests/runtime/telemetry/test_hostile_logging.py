"""Handlers, filters, formatters and record factories are code of users: whatever they raise ends nothing, and holds up no job."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness import one_worker
from hotmesh import HotMesh, JobError, JsonFormatter, StreamData, Worker
from hotmesh.runtime.telemetry import logs
from hotmesh.runtime.telemetry.logs import LOGGERS, guard_loggers

pytestmark = pytest.mark.anyio

APP = "logging"

ERRORS = (ValueError("full"), SystemExit(4), GeneratorExit(), asyncio.CancelledError())


class _Wordless(Exception):
    """It cannot even say what it is."""

    def __str__(self) -> str:
        raise SystemExit(5)

    __repr__ = __str__


class Raising(logging.Handler, logging.Filter):  # type: ignore[misc]  # a filter of a handler has the same method
    """A handler that raises in the method of this name, once it was asked often enough."""

    def __init__(self, where: str, error: BaseException) -> None:
        logging.Handler.__init__(self)
        self.asked = 0
        self._error = error
        setattr(self, where, self._raise)

    def _raise(self, *_: Any) -> Any:
        self.asked += 1
        raise self._error

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.format(record)
        except Exception:  # noqa: BLE001 - as all handlers of `logging` do
            self.handleError(record)


def in_a_handler(where: str) -> Callable[[BaseException, pytest.MonkeyPatch], Raising]:
    def install(error: BaseException, patch: pytest.MonkeyPatch) -> Raising:
        handler = Raising(where, error)
        top = logging.getLogger("hotmesh")
        patch.setattr(top, "handlers", [*top.handlers, handler])
        return handler

    return install


def in_a_filter_of_the_loggers(error: BaseException, patch: pytest.MonkeyPatch) -> Raising:
    found = Raising("filter", error)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        patch.setattr(logger, "filters", [found, *logger.filters])
    return found


def in_the_record_factory(error: BaseException, patch: pytest.MonkeyPatch) -> Raising:
    found = Raising("make", error)

    def make(name: str, *arguments: Any, **more: Any) -> logging.LogRecord:
        return found.make() if name.startswith("hotmesh") else logging.LogRecord(name, *arguments, **more)  # type: ignore[attr-defined]

    patch.setattr(logging, "_logRecordFactory", make)
    return found


PLACES: dict[str, Callable[[BaseException, pytest.MonkeyPatch], Raising]] = {
    "a handler": in_a_handler("emit"),
    "a handler's filter": in_a_handler("filter"),
    "its formatting": in_a_handler("format"),
    "a logger's filter": in_a_filter_of_the_loggers,
    "the record factory": in_the_record_factory,
}


@pytest.fixture(autouse=True)
def unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_told", set())


@pytest.mark.parametrize("error", [*ERRORS, _Wordless()], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", PLACES)
async def test_an_instance_outlives_what_is_raised_instead_of_logging(
    database_url: str, monkeypatch: pytest.MonkeyPatch, place: str, error: BaseException
) -> None:
    """A failure of a callback, of a subscriber and of a sink each leave a record; honest jobs go on beside them."""

    async def callback(message: StreamData) -> dict[str, Any]:
        if message.data["x"] == "hostile":
            raise ValueError("logged")
        return {"y": message.data["x"]}

    def raises(*_: Any) -> None:
        raise ValueError("logged, too")

    hostile = PLACES[place](error, monkeypatch)
    async with HotMesh.init(
        APP, connection=database_url, events=raises, workers=[Worker("w", callback, max_concurrency=1)]
    ) as mesh:
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        await mesh.sub("one.done", raises)
        await mesh.sub_quorum(raises)
        for number in range(2):
            before = hostile.asked
            with pytest.raises(JobError, match="logged"):
                await mesh.pubsub("one", {"x": "hostile"}, timeout=10)
            assert hostile.asked > before
            assert (await mesh.pubsub("one", {"x": number}, timeout=10)).data == {"y": number}
        assert not mesh.stopped
        await mesh.stop()
    await mesh.closed()


@pytest.mark.parametrize("name", LOGGERS)
def test_no_log_call_raises(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """The lost record has a word on stderr, once for each kind of error, as long as logging itself would have one."""
    for install in PLACES.values():
        for error in ERRORS:
            with pytest.MonkeyPatch.context() as patch:
                install(error, patch)
                for _ in range(3):
                    logging.getLogger(name).error("an event", extra={"job_id": "j"})
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hotmesh: ")]
    assert [line.partition("factory raised ")[2] for line in said] == [
        "ValueError: full; this is said once",
        "SystemExit: 4; this is said once",
        "GeneratorExit; this is said once",
        "CancelledError; this is said once",
    ]
    assert all(f"a log record of {name} was lost" in line for line in said)

    monkeypatch.setattr(logging, "raiseExceptions", False)
    monkeypatch.setattr(logs, "_told", set())
    with pytest.MonkeyPatch.context() as patch:
        PLACES["a handler"](ValueError("full"), patch)
        logging.getLogger(name).error("an event")
    assert capsys.readouterr().err == ""


def test_ctrl_c_in_the_middle_of_a_handler_goes_on_its_way() -> None:
    class Slow(logging.Handler):
        def emit(self, _record: logging.LogRecord) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)

    log, slow = logging.getLogger("hotmesh"), Slow()
    log.addHandler(slow)
    try:
        with pytest.raises(KeyboardInterrupt):
            log.error("an event")
    finally:
        log.removeHandler(slow)


def test_attributes_of_the_programs_own_records_may_have_the_names_of_facts(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`logging` refuses `extra` with an attribute that a record has by then."""

    class Record(logging.LogRecord):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            self.job_id, self.request = "of the program", "r-1"

    monkeypatch.setattr(logging, "_logRecordFactory", Record)
    logging.getLogger("hotmesh.worker").warning("an event", extra={"job_id": "j-1"})
    (record,) = caplog.records
    assert (record.__dict__["job_id"], record.__dict__["request"]) == ("j-1", "r-1")


def test_what_does_not_raise_is_lost_for_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """A facts' value is said by `str`, and an exception that cannot say anything still has its type and its stack."""
    try:
        raise _Wordless
    except _Wordless as error:
        logging.getLogger("hotmesh.worker").error("an event", exc_info=error)
    (record,) = caplog.records
    line = JsonFormatter().format(record)
    assert '"message": "_Wordless"' in line
    assert "test_hostile_logging" in line


def test_what_no_file_takes_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("hotmesh.results").error("an event", extra={"job_id": "half \ud800"})
    (record,) = caplog.records
    assert record.getMessage().encode() == b"an event (job half ?)"


@pytest.fixture
def own_class() -> Iterator[type[logging.Logger]]:
    """A class for loggers, as some programs have one, for a logger that was asked for before hotmesh was imported."""

    class Counting(logging.Logger):
        seen = 0

        def handle(self, record: logging.LogRecord) -> None:
            Counting.seen += 1
            super().handle(record)

    logger = logging.getLogger("hotmesh.virtual")
    before = logger.__class__
    logger.__class__ = Counting
    yield Counting
    logger.__class__ = before


def test_a_programs_own_class_of_loggers_is_kept(
    own_class: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    guard_loggers()
    logger = logging.getLogger("hotmesh.virtual")
    assert isinstance(logger, own_class)
    PLACES["a handler"](SystemExit(1), monkeypatch)
    logger.error("an event")
    assert own_class.seen == 1
