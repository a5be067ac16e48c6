"""While work is retried, what its last attempt raised is to be seen: in its row, the views, `status`, `timeline`, `explain`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
import pytest
from click.testing import CliRunner

from harness import connected, eventually, one_worker
from hotmesh import HotMesh, RetryPolicy, Worker
from hotmesh.cli import main
from hotmesh.core.codec import LONGEST_ERROR

pytestmark = pytest.mark.anyio

LATER = RetryPolicy(maximum_attempts=3, initial_interval=100, backoff_coefficient=1)
SOON = RetryPolicy(maximum_attempts=3, initial_interval=0.01, backoff_coefficient=1)


class Reversed:
    """A codec whose output shows nothing of what it was given."""

    def encode(self, text: str, /) -> str:
        return text.encode().hex()

    def decode(self, text: str, /) -> str:
        return bytes.fromhex(text).decode()


@asynccontextmanager
async def failing(url: str, error: Exception, **options: Any) -> AsyncIterator[tuple[HotMesh, str]]:
    """A mesh with a job whose only work has failed once, and waits for its next attempt."""

    async def work(_: Any) -> None:
        raise error

    async with HotMesh.init(
        "shop", connection=url, workers=[Worker("mail", work, retry=LATER)], **options
    ) as mesh:
        await mesh.deploy(one_worker("shop", "mail"))
        await mesh.activate("1")
        job_id = await mesh.pub("one", {})
        async with connected(url) as connection:

            async def failed() -> bool:
                return bool(await connection.fetchval("select attempt from hotmesh.worker_stream"))

            await eventually(failed)
        yield mesh, job_id


async def command(url: str, *arguments: str) -> str:
    found = await anyio.to_thread.run_sync(
        CliRunner().invoke, main, [*arguments, "--app", "shop", "--connection", url]
    )
    assert found.exit_code == 0, found.output
    return found.output


async def test_the_error_of_work_that_is_retried_is_shown(database_url: str) -> None:
    async with failing(database_url, ConnectionError("smtp is down")) as (mesh, job_id):
        said = "ConnectionError: smtp is down"
        async with connected(database_url) as connection:
            row = await connection.fetchrow("select * from hotmesh.retrying")
            timeline = await connection.fetchrow(
                "select * from hotmesh.job_timeline where job_id = $1 and state = 'queued'", job_id
            )
        assert row is not None
        assert timeline is not None
        assert (row["job_id"], row["topic"], row["failures"], row["last_error"]) == (
            job_id,
            "mail",
            1,
            said,
        )
        assert row["next_at"] is not None
        assert (json.loads(timeline["error"]), timeline["failures"]) == (said, 1)

        (reason,) = (await mesh.explain(job_id)).branches[0].reasons
        assert (reason.kind, reason.attempt, reason.error) == ("retry", 1, said)
        assert said in str(await mesh.explain(job_id))

        (one,) = json.loads(await command(database_url, "status", job_id, "--json"))["open"]
        assert (one["attempt"], one["error"]) == (1, said)
        status = " ".join((await command(database_url, "status", job_id)).split())
        assert "once" in status
        assert "smtp" in status
        activities = json.loads(await command(database_url, "timeline", job_id, "--json"))["activities"]
        assert [(one["failures"], one["error"]) for one in activities] == [(1, {"message": said})]
        assert "1 failed" in await command(database_url, "timeline", job_id)


async def test_attempts_stay_in_the_timeline(database_url: str) -> None:
    tries = 0

    async def work(_: Any) -> dict[str, Any]:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise ValueError(f"boom {tries}")
        return {}

    async with HotMesh.init(
        "shop", connection=database_url, workers=[Worker("mail", work, retry=SOON)]
    ) as mesh:
        await mesh.deploy(one_worker("shop", "mail"))
        await mesh.activate("1")
        output = await mesh.pubsub("one", {}, timeout=20)
        found = json.loads(await command(database_url, "timeline", output.metadata.jid, "--json"))

    assert [one["failures"] for one in found["activities"] if one["type"] == "worker"] == [2]


async def test_an_error_is_kept_bounded_and_as_it_can_be_stored(database_url: str) -> None:
    async with failing(database_url, ValueError("\0 \ud800 " + "x" * 10_000)) as (mesh, job_id):
        (reason,) = (await mesh.explain(job_id)).branches[0].reasons

    assert reason.error is not None
    assert reason.error.startswith("ValueError: \ufffd ? xxx")
    assert len(reason.error) == LONGEST_ERROR


async def test_an_error_is_encoded_as_other_values_are(database_url: str) -> None:
    async with failing(database_url, ValueError("my secret"), codec=Reversed()) as (mesh, job_id):
        async with connected(database_url) as connection:
            stored = await connection.fetchval("select last_error from hotmesh.worker_stream")
        (reason,) = (await mesh.explain(job_id)).branches[0].reasons
        (one,) = json.loads(await command(database_url, "status", job_id, "--json"))["open"]

    assert "secret" not in stored
    assert reason.error == "ValueError: my secret"
    assert one["error"] == "(encoded)"


async def test_work_that_is_given_back_keeps_its_error(database_url: str) -> None:
    started = asyncio.Event()
    tries = 0

    async def work(_: Any) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ValueError("first")
        started.set()
        await asyncio.sleep(60)

    async with HotMesh.init(
        "shop", connection=database_url, workers=[Worker("mail", work, retry=SOON)]
    ) as mesh:
        await mesh.deploy(one_worker("shop", "mail"))
        await mesh.activate("1")
        await mesh.pub("one", {})
        await asyncio.wait_for(started.wait(), 20)
        await mesh.stop(grace=0)
    async with connected(database_url) as connection:
        row = await connection.fetchrow("select attempt, reserved_by, last_error from hotmesh.worker_stream")

    assert row is not None
    assert tuple(row) == (1, None, "ValueError: first")
