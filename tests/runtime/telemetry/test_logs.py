"""Log records: every one is documented, and says what it is about."""

from __future__ import annotations

import ast
import asyncio
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import eventually, one_worker
from hotmesh import ConfigError, HotMesh, JsonFormatter, log_json
from hotmesh.runtime.telemetry.logs import LOGGERS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")


def logged() -> Iterator[tuple[str, str, str]]:
    """Logger, level and event of each call that logs, and of those that `forever` logs for a service."""
    for path in sorted((ROOT / "src" / "hotmesh").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            ast.unparse(node.targets[0]): ast.literal_eval(node.value.args[0])
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Call)
            and ast.unparse(node.value.func) == "logging.getLogger"
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                name = names.get(ast.unparse(node.func.value))
                if name is not None and node.func.attr in ("debug", "info", "warning", "error", "critical"):
                    yield name, node.func.attr, ast.literal_eval(node.args[0])
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "forever":
                name = names[ast.unparse(node.args[1])]
                for keyword in node.keywords:
                    level = {"failed": "error"}.get(str(keyword.arg))
                    if level is not None and (event := ast.literal_eval(keyword.value)) is not None:
                        yield name, level, event


def test_every_log_event_is_documented() -> None:
    rows = re.findall(r"^\| `(hotmesh[.a-z]*)` \| ([a-z, ]+) \| `([^`]+)` \|", PAGE, re.MULTILINE)
    documented = {(name, level, event) for name, levels, event in rows for level in levels.split(", ")}
    found = set(logged())

    assert sorted(found - documented) == [], "docs/observability.md lacks these"
    assert sorted(documented - found) == [], "docs/observability.md lists what is not logged"
    assert {name for name, _, _ in found} <= set(LOGGERS)


@pytest.mark.anyio
async def test_the_records_of_two_instances_can_be_told_apart(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    def refuses(event: Any) -> None:
        raise RuntimeError("no room")

    with caplog.at_level(logging.INFO, "hotmesh"):
        async with (
            HotMesh.init("one", connection=database_url, events=refuses) as one,
            HotMesh.init("two", connection=database_url, events=refuses) as two,
        ):
            await eventually(lambda: len(raised(caplog)) == 2)

    assert {(r.app_id, r.guid) for r in raised(caplog)} == {("one", one.guid_), ("two", two.guid_)}


def raised(caplog: pytest.LogCaptureFixture) -> list[Any]:
    records: list[Any] = caplog.records
    return [
        record
        for record in records
        if record.__dict__.get("event") == "event sink raised" and record.type.endswith(".started")
    ]


def test_records_as_json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    root = logging.getLogger("hotmesh")
    before = root.level
    monkeypatch.setenv("HMSH_LOGLEVEL", "warning")
    handler = log_json(stream)
    try:
        logging.getLogger("hotmesh.engine").info("not told")
        try:
            raise ValueError("wrong")
        except ValueError as error:
            logging.getLogger("hotmesh.engine").error(
                "step refused", extra={"job_id": "J1", "what": {1}}, exc_info=error
            )
    finally:
        root.removeHandler(handler)
        root.setLevel(before)

    assert isinstance(handler.formatter, JsonFormatter)
    (line,) = [json.loads(text) for text in stream.getvalue().splitlines()]
    assert line.pop("ts").endswith("+00:00")
    assert line.pop("error")["stack"].endswith("ValueError: wrong\n")
    assert line == {
        "level": "error",
        "logger": "hotmesh.engine",
        "message": "step refused",
        "job_id": "J1",
        "what": "{1}",
    }


def test_a_level_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="loud"):
        log_json(level="loud")


class Kept(logging.Handler):
    """What a logger has been given."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def loggers() -> Iterator[tuple[logging.Logger, Kept, Kept]]:
    """A logger of the program, what it is given, and what the loggers of the library pass on."""
    top, own = logging.getLogger("hotmesh"), logging.getLogger("shop.flows")
    before, own.propagate = top.level, False
    given, passed = Kept(), Kept()
    own.addHandler(given)
    top.addHandler(passed)
    top.setLevel(logging.WARNING)
    yield own, given, passed
    own.removeHandler(given)
    top.removeHandler(passed)
    top.setLevel(before)


@pytest.mark.anyio
async def test_an_instance_logs_to_its_own_logger_from_its_own_level_on(
    database_url: str, loggers: tuple[logging.Logger, Kept, Kept]
) -> None:
    own, given, passed = loggers
    own.setLevel(logging.INFO)
    async with (
        HotMesh.init("shop", connection=database_url, logger=own, name="front") as front,
        HotMesh.init("bank", connection=database_url, log_level="warn") as quiet,
        HotMesh.init("mute", connection=database_url, direct_connection=False, log_level="silent"),
        HotMesh.init("deaf", connection=database_url, direct_connection=False),
    ):
        await quiet.deploy(one_worker("bank"))
        await quiet.activate("1")
        for mesh in (front, quiet):
            await mesh.throttle(5)
    assert [(record.__dict__["event"], record.__dict__["app"]) for record in given.records] == [
        ("started", "front"),
        ("rate stored", "front"),
        ("stopped", "front"),
    ]
    assert {record.__dict__["app_id"] for record in passed.records} == {"deaf"}


@pytest.mark.anyio
async def test_a_level_lets_through_what_the_program_does_not_log_otherwise(
    database_url: str, loggers: tuple[logging.Logger, Kept, Kept]
) -> None:
    async with HotMesh.init("shop", connection=database_url, log_level="info"):
        pass
    assert [record.getMessage() for record in loggers[2].records] == ["started", "stopped"]


def test_what_is_no_logger_and_no_level() -> None:
    with pytest.raises(ConfigError, match=r"logger= takes a logging\.Logger, not 'x'"):
        HotMesh.init("shop", logger="x")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"logger= cannot be hotmesh\.engine"):
        HotMesh.init("shop", logger=logging.getLogger("hotmesh.engine"))
    for level in ("loud", True):
        with pytest.raises(ConfigError, match="log_level= cannot be"):
            HotMesh.init("shop", log_level=level)


def test_a_program_that_forgets_to_stop_is_told_so_without_a_traceback(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def forgetful() -> None:
        await HotMesh.init("shop", connection=database_url)

    asyncio.run(forgetful())

    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [(record.getMessage(), record.exc_info) for record in told] == [
        ("instance cancelled, nobody has stopped it", None)
    ]
