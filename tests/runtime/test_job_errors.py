"""Errors of jobs as callers see them: what was raised, where, at which attempt, and by whose code."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
import pytest
from click.testing import CliRunner

import hotmesh
from harness import one_worker
from hotmesh import CallbackError, HotMesh, JobError, JobTimeoutError, Response, RetryPolicy, Worker
from hotmesh.cli import main

pytestmark = pytest.mark.anyio

PARENT = """
    - subscribes: parent
      expire: 3600
      activities:
        begin: {type: trigger}
        ask: {type: await, topic: one, input: {maps: {x: 1}}}
      transitions:
        begin: [{to: ask}]
"""
THRICE = RetryPolicy(maximum_attempts=3, initial_interval=0.01, backoff_coefficient=1)


def helper(message: Any) -> Any:
    return dict[str, int]()["sku"]


async def charge(message: Any) -> Any:
    return helper(message)


def charge_in_thread(message: Any) -> Any:
    return helper(message)


@asynccontextmanager
async def shop(url: str, worker: Worker, *, split: bool = False) -> AsyncIterator[HotMesh]:
    workers = () if split else (worker,)
    async with HotMesh.init("shop", connection=url, workers=workers) as mesh:
        await mesh.deploy(one_worker("shop", worker.topic, more=PARENT))
        await mesh.activate("1")
        if not split:
            yield mesh
            return
        async with HotMesh.init("shop", connection=url, workers=(worker,), engine=False):
            yield mesh


@pytest.mark.parametrize("callback", [charge, charge_in_thread])
@pytest.mark.parametrize("split", [False, True])
async def test_what_a_callback_raises_keeps_its_type(database_url: str, callback: Any, split: bool) -> None:
    async with shop(database_url, Worker("charge", callback, retry=THRICE), split=split) as mesh:
        with pytest.raises(JobError) as caught:
            await mesh.pubsub("one", {"x": 1}, timeout=20)

    error = caught.value
    assert (error.type, error.message, error.code) == ("KeyError", "'sku'", 500)
    assert (error.activity, error.topic, error.attempt, error.attempts) == ("call", "charge", 3, 3)
    for fact in (
        "KeyError: 'sku'",
        "activity call",
        "worker charge",
        f"job {error.job_id}",
        "attempt 3 of 3",
    ):
        assert fact in str(error)
    cause = error.__cause__
    assert isinstance(cause, CallbackError)
    assert (cause.type, cause.message) == ("KeyError", "'sku'")
    printed = "".join(traceback.format_exception(error))
    assert printed.index("in helper") < printed.index("The above exception was the direct cause")


@pytest.mark.parametrize("callback", [charge, charge_in_thread])
async def test_a_stack_has_the_frames_of_users_and_no_others(database_url: str, callback: Any) -> None:
    async with shop(database_url, Worker("charge", callback)) as mesh:
        with pytest.raises(JobError) as caught:
            await mesh.pubsub("one", {"x": 1}, timeout=20)

    lines = caught.value.error["stack"].splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert f", in {callback.__name__}" in lines[1]
    assert "anyio" not in caught.value.error["stack"]
    assert f"{hotmesh.__path__[0]}/" not in caught.value.error["stack"]
    assert lines[-1] == "KeyError: 'sku'"


async def test_an_error_of_an_awaited_job_says_where_it_arose(database_url: str) -> None:
    async with shop(database_url, Worker("charge", charge)) as mesh:
        with pytest.raises(JobError) as caught:
            await mesh.pubsub("parent", {}, timeout=20)

    error = caught.value
    child = error.error["job_id"]
    assert child != error.job_id
    assert (error.type, error.activity, error.topic) == ("KeyError", "call", "charge")
    for fact in ("KeyError: 'sku'", f"job {child}", f"job {error.job_id}"):
        assert fact in str(error)


async def test_a_returned_error_is_as_it_was_returned(database_url: str) -> None:
    async def decline(_: Any) -> Response:
        return Response({"message": "declined", "type": "not ours"}, status="error", code=402)

    async with shop(database_url, Worker("charge", decline)) as mesh:
        with pytest.raises(JobError) as caught:
            await mesh.pubsub("one", {"x": 1}, timeout=20)

    error = caught.value
    assert error.error == {"message": "declined", "code": 402, "is_stream_error": True}
    assert (error.type, error.activity, error.__cause__) == (None, None, None)
    assert "declined" in str(error)
    assert str(error.job_id) in str(error)


async def test_commands_show_a_traceback_as_text(database_url: str) -> None:
    async with shop(database_url, Worker("charge", charge)) as mesh:
        with pytest.raises(JobError) as caught:
            await mesh.pubsub("one", {"x": 1}, timeout=20)
        job_id = str(caught.value.job_id)
        command = ["status", job_id, "--app", "shop", "--connection", database_url]
        shown = (await anyio.to_thread.run_sync(CliRunner().invoke, main, command)).output
        explained = str(await mesh.explain(job_id))
        stored = json.loads((await mesh.get_state("one", job_id)).metadata.err)

    assert "KeyError: 'sku'" in " ".join(shown.split())
    assert "\\n" not in shown
    assert any(line.strip().startswith("Traceback (most recent") for line in shown.splitlines())
    assert "worker charge of activity call failed at attempt 1 of 1: KeyError: 'sku'" in explained
    assert (stored["type"], stored["activity"], stored["attempt"]) == ("KeyError", "call", 1)


async def test_a_time_out_says_what_was_waited_for(database_url: str) -> None:
    async def work(_: Any) -> None:
        await asyncio.sleep(60)

    async with shop(database_url, Worker("charge", work)) as mesh:
        with pytest.raises(TimeoutError) as caught:
            await mesh.pubsub("one", {"x": 1}, timeout=0.2)
        error = caught.value
        assert isinstance(error, JobTimeoutError)
        assert (error.code, error.message, error.topic, error.seconds) == (504, "timeout", "one", 0.2)
        for fact in (str(error.job_id), "one", "0.2 s", "get_state"):
            assert fact in str(error)
        await mesh.stop(grace=0)


async def test_a_callback_that_is_cut_off_has_failed_by_a_time_out(database_url: str) -> None:
    async def work(_: Any) -> None:
        await asyncio.sleep(60)

    async with shop(database_url, Worker("charge", work, timeout=0.1)) as mesh:
        with pytest.raises(JobError) as caught:
            await mesh.pubsub("one", {"x": 1}, timeout=20)

    assert (caught.value.type, caught.value.code, caught.value.attempt) == ("TimeoutError", 504, 1)
    assert "0.1 s" in str(caught.value)


class Odd(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def a_local_class() -> BaseException:
    class Local(Exception):
        pass

    return Local("b")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: KeyError("sku"), "KeyError: 'sku'"),
        (ValueError, "ValueError"),
        (lambda: SystemExit(3), "SystemExit: the callback raised SystemExit(3)"),
        (a_local_class, "Local: b"),
        (Odd, "Odd"),
        (lambda: ValueError("half \ud800"), "ValueError: half ?"),
    ],
)
async def test_log_and_error_say_the_same(
    database_url: str, caplog: pytest.LogCaptureFixture, make: Any, words: str
) -> None:
    async def fail(_: Any) -> None:
        raise make()

    async with shop(database_url, Worker("charge", fail)) as mesh:
        with pytest.raises(JobError) as caught:
            await mesh.pubsub("one", {"x": 1}, timeout=20)

    assert (
        str(caught.value)
        == f"{words} in worker charge of activity call (job {caught.value.job_id}, attempt 1 of 1)"
    )
    (record,) = (one for one in caplog.records if "failed, attempt" in str(one.__dict__.get("event")))
    assert record.getMessage().endswith(f"attempt 1 of 1, the last: {words} (activity call)")


async def test_an_error_that_is_returned_without_a_message_says_where_and_is_tried_again(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def decline(_: Any) -> Response:
        return Response(status="error", code=402)

    async with shop(database_url, Worker("charge", decline, retry=THRICE)) as mesh:
        with pytest.raises(JobError) as caught:
            await mesh.pubsub("one", {"x": 1}, timeout=20)

    error = caught.value
    assert (error.message, error.code, error.activity, error.topic) == ("unknown", 402, "call", "charge")
    words = "an error without a message, code 402"
    assert str(error) == f"{words} in worker charge of activity call (job {error.job_id})"
    logged = [one for one in caplog.records if "failed, attempt" in str(one.__dict__.get("event"))]
    assert [
        (one.levelname, f"attempt {number} of 3" in one.getMessage()) for number, one in enumerate(logged, 1)
    ] == [("WARNING", True)] * 3
    assert all(words in one.getMessage() and one.exc_info is None for one in logged)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("nested", [False, True])
async def test_a_coroutine_that_nobody_awaited_is_said_to_be_one(
    database_url: str, nested: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def later() -> dict[str, Any]:
        return {"y": 1}

    async def forgetful(_: Any) -> Any:
        return {"y": [later()]} if nested else later()

    async with shop(database_url, Worker("charge", forgetful)) as mesh:
        with pytest.raises(JobError) as caught:
            await mesh.pubsub("one", {"x": 1}, timeout=20)

    assert caught.value.type == "PayloadError"
    assert "coroutine that was not awaited" in caught.value.message
    assert ("$.y[0]" in caught.value.message) is nested


async def test_what_is_no_json_is_named_with_its_place_and_nothing_else(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def odd(_: Any) -> Any:
        return {"y": {"z": object()}}

    async with shop(database_url, Worker("charge", odd)) as mesh:
        with pytest.raises(JobError) as caught:
            await mesh.pubsub("one", {"x": 1}, timeout=20)

    assert "a value of type object at $.y.z" in caught.value.message
    assert "is not a JSON type" not in caught.value.error["stack"] + caplog.text
