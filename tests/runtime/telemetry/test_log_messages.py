"""Log messages say their facts to an ordinary formatter, and a lost connection is said once."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from harness import connected, eventually, one_worker
from hotmesh import HotMesh, JsonFormatter
from hotmesh.errors import NoConnectionError
from hotmesh.runtime.outage import Outage, begin
from hotmesh.runtime.service import forever
from hotmesh.runtime.telemetry.logs import LogContext, logging_as

pytestmark = pytest.mark.anyio

CONTEXT = LogContext("shop", "g1")
logger = logging.getLogger("hotmesh.engine")


@pytest.fixture
def lines() -> Iterator[Any]:
    """What an ordinary formatter, and the one for JSON, write of what is logged."""
    plain, as_json = io.StringIO(), io.StringIO()
    handlers = [logging.StreamHandler(plain), logging.StreamHandler(as_json)]
    handlers[1].setFormatter(JsonFormatter())
    for handler in handlers:
        logging.getLogger("hotmesh").addHandler(handler)
    yield lambda: (
        plain.getvalue().splitlines(),
        [json.loads(line) for line in as_json.getvalue().splitlines()],
    )
    for handler in handlers:
        logging.getLogger("hotmesh").removeHandler(handler)


async def test_a_message_says_its_facts(lines: Any) -> None:
    with logging_as(CONTEXT):
        facts = {"job_id": "J1", "activity_id": "charge", "held_by": "100%s", "error": "no room"}
        logger.warning("events postponed", extra=facts)
        logger.error("step could not be stored", extra={"job_id": "J2"}, exc_info=KeyError("sku"))
        logger.info("nothing more to say")

    plain, as_json = lines()
    assert plain[0] == "events postponed (job J1, activity charge, held by 100%s): no room"
    assert plain[1] == "step could not be stored (job J2): KeyError: 'sku'"
    assert (as_json[0]["message"], as_json[0]["job_id"], as_json[0]["error"]) == (
        "events postponed",
        "J1",
        "no room",
    )
    assert "event" not in as_json[0]


async def test_a_record_is_told_apart_by_its_event(caplog: pytest.LogCaptureFixture) -> None:
    with logging_as(CONTEXT):
        logger.warning("events postponed", extra={"job_id": "J1"})
        logger.warning("worker %s is %s", "w", "slow", extra={"job_id": "J1"})

    assert [record.__dict__["event"] for record in caplog.records] == ["events postponed", "worker %s is %s"]
    assert [record.getMessage() for record in caplog.records] == [
        "events postponed (job J1)",
        "worker w is slow",
    ]


async def test_an_instance_with_a_logger_of_its_own_says_facts_once(lines: Any) -> None:
    own = logging.getLogger("hotmesh.engine.mine")
    with logging_as(LogContext("shop", "g1", logger=own)):
        logger.warning("events postponed", extra={"job_id": "J1"})

    assert lines()[0] == ["events postponed (job J1)"]


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "hotmesh.postgres"]


async def test_a_lost_connection_is_said_once_and_once_that_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken, tries = True, 0

    async def run_once() -> None:
        nonlocal tries
        tries += 1
        if broken:
            raise NoConnectionError("connection refused")
        await anyio.sleep(0.001)

    begin()
    async with anyio.create_task_group() as tasks:
        for name in ("the stream", "the claims", "the listener"):
            tasks.start_soon(
                lambda name: forever(run_once, logger, lost=name, failed="failed", longest_pause=0.01), name
            )
        await eventually(lambda: tries > 20)
        broken = False
        since = tries
        await eventually(lambda: tries > since + 20)
        broken, since = True, tries
        await eventually(lambda: tries > since + 10)
        tasks.cancel_scope.cancel()

    first, back, second = told(caplog)
    for fact in ("connection refused", "next try in", " s"):
        assert fact in first
        assert fact in second
    assert back.startswith("connected to Postgres again after ")


async def test_who_had_not_lost_it_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage()
    outage.back("the stream")
    assert told(caplog) == []


async def test_sessions_that_end_are_one_line_and_one_more(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with HotMesh.init("shop", connection=database_url) as mesh:
        await mesh.deploy(one_worker("shop", "w"))
        await mesh.activate("1")
        async with connected(database_url) as connection:
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
        await eventually(lambda: any("again" in message for message in told(caplog)), within=20)
        await anyio.sleep(0.5)

    messages = told(caplog)
    assert len([message for message in messages if message.startswith("no connection")]) == 1
    assert len([message for message in messages if "again" in message]) == 1
