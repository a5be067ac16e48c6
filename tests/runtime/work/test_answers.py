"""Answers of a worker without an engine, when Postgres refuses some of them."""

from __future__ import annotations

from typing import Any

import pytest

from harness import one_worker
from hotmesh import HotMesh, JobError, StreamData, Worker
from hotmesh.postgres.connect.failures import StatementError
from interception import work_of

pytestmark = pytest.mark.anyio

GRAPH = one_worker("answers")


class Refusal(StatementError):
    def __init__(self, sqlstate: str) -> None:
        Exception.__init__(self, f"refused with {sqlstate}")
        self.sqlstate = sqlstate


async def serve(message: StreamData) -> dict[str, Any]:
    return {"y": message.data["x"]}


@pytest.mark.parametrize(
    ("sqlstate", "codes"), [("22P05", {7: 500}), ("40P01", {})], ids=["poison", "deadlock"]
)
async def test_a_refusal_harms_no_other_answer(
    database_url: str, monkeypatch: pytest.MonkeyPatch, sqlstate: str, codes: dict[int, int]
) -> None:
    """One that can never be stored becomes an error, alone; one that came at a bad moment is written later."""
    async with (
        HotMesh.init("answers", connection=database_url) as mesh,
        HotMesh.init(
            "answers", connection=database_url, engine=False, workers=[Worker("w", serve)]
        ) as worker,
    ):
        await mesh.deploy(GRAPH)
        await mesh.activate("1")
        honest = work_of(worker).answer
        refusals = 0

        async def answer_work(connection: Any, member: str, answers: Any, wake: str) -> list[bool]:
            nonlocal refusals
            poisoned = any('"y":7}' in (data or "") for *_, data in answers)
            if poisoned and (sqlstate == "22P05" or refusals < 3):
                refusals += 1
                raise Refusal(sqlstate)
            return await honest(connection, member, answers, wake)

        monkeypatch.setattr(work_of(worker), "notice", lambda *_: None)  # as if no engine could be told
        monkeypatch.setattr(work_of(worker), "answer", answer_work)
        found: dict[int, int | None] = {}
        for x in range(10):
            await mesh.pub("one", {"x": x}, extended={"id": f"job-{x}"})
        for x in range(10):
            try:
                output = await mesh.pubsub("one", {"x": x}, timeout=20)
                assert output.data == {"y": x}
            except JobError as error:
                found[x] = error.code
    assert found == codes
    assert refusals >= 2
