"""Whole flows, as people write them: old spellings, keys without an effect, and everything at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import Any

import pytest

from harness import eventually
from hotmesh import HotMesh, JobError, JobOutput, Response, StreamData

pytestmark = pytest.mark.anyio

polls: Counter[str] = Counter()
progress: list[StreamData] = []


async def reserve(message: StreamData) -> Response:
    if message.data["sku"] == "none":
        return Response({"message": "sold out"}, status="error", code=422)
    return Response({"reservation": f"{message.data['sku']}-{message.data['amount']}"})


async def poll(message: StreamData) -> Response:
    polls[message.data["id"]] += 1
    if polls[message.data["id"]] == 2:
        raise RuntimeError("hiccup")
    tries = message.data["tries"] + 1
    return Response(
        {"state": "ready" if tries == 3 else "busy", "tries": tries}, code=200 if tries == 3 else 202
    )


async def book(message: StreamData) -> Response:
    if message.data["what"] == message.data.get("fail"):
        return Response({"message": "full"}, status="error", code=410)
    return Response({"ok": True})


async def hang(_: StreamData) -> None:
    await asyncio.sleep(1)


async def begin(message: StreamData) -> Response:
    progress.append(message)
    return Response({"percent": 10}, status="pending")


WORKERS = {
    "flows.reserve": reserve,
    "flows.poll": poll,
    "flows.book": book,
    "flows.cancel": lambda _: {"ok": True},
    "flows.hang": hang,
    "flows.progress": begin,
    "mail": lambda _: {"ok": "mail"},
}


async def run(mesh: HotMesh, topic: str, data: Any) -> dict[str, Any]:
    output = await mesh.pubsub(topic, data, timeout=5)
    assert output.metadata.js == 0
    return dict(output.data)


@pytest.mark.parametrize(
    ("price", "sku", "expected"),
    [
        (50, "A1", {"approved": True, "reservation": "A1-1"}),
        (500, "A1", {"approved": False, "refused": True}),
        (50, "none", {"approved": True, "soldOut": "sold out"}),
    ],
)
async def test_an_order_is_approved_and_reserved(
    mesh: HotMesh, price: int, sku: str, expected: dict[str, Any]
) -> None:
    order = {"id": f"{price}{sku}", "object_type": "order", "price": price, "sku": sku}
    assert await run(mesh, "order.bulk", order) == expected


async def test_the_lines_of_an_invoice_are_summed_up(mesh: HotMesh) -> None:
    lines = [{"name": "a", "quantity": 2, "price": 3}, {"name": "b", "quantity": 1, "price": 4.5}]
    assert await run(mesh, "invoice.lines", {"lines": lines}) == {"total": 10.5, "names": ["a", "b"]}


@pytest.mark.parametrize(
    ("patience", "answer", "status"), [(60, True, "approved"), (60, False, "declined"), (0.05, None, "late")]
)
async def test_an_approval_is_given_refused_or_late(
    mesh: HotMesh, patience: float, answer: bool | None, status: str
) -> None:
    job_id = await mesh.pub("approval", {"patience": patience})
    if answer is not None:
        await mesh.signal("approval.given", {"id": job_id, "approved": answer, "by": "me"})

    async def complete() -> bool:
        return await mesh.get_status(job_id) == 0

    await eventually(complete)
    assert (await mesh.get_state("approval", job_id)).data["status"] == status


async def test_polling_until_something_is_ready(mesh: HotMesh) -> None:
    output = await mesh.pubsub("poll", {}, timeout=5)
    assert output.data == {"state": "ready", "tries": 3}
    assert polls[output.metadata.jid] == 4


async def test_a_saga_undoes_what_it_has_booked(mesh: HotMesh) -> None:
    assert await run(mesh, "saga", {}) == {"booked": {"flight": True, "hotel": True}}
    assert await run(mesh, "saga", {"fail": "hotel"}) == {
        "booked": {"flight": True},
        "cancelled": {"flight": True},
    }
    with pytest.raises(JobError, match=r"^full \(job "):
        await mesh.pubsub("saga", {"fail": "flight"}, timeout=5)


async def test_a_report_is_put_together_from_its_parts(mesh: HotMesh) -> None:
    assert await run(mesh, "report", {"n": 1}) == {"parts": {"0": "a1", "1": "b1"}, "done": True}


async def test_a_reminder_goes_to_the_channel_of_its_payload(mesh: HotMesh) -> None:
    assert await run(mesh, "reminder", {"ms": 50, "channel": "mail"}) == {"sent": "mail"}


async def test_a_flow_is_chosen_by_the_payload(mesh: HotMesh) -> None:
    data = await run(mesh, "dispatch", {"flow": "report", "payload": {"n": 2}})
    assert data == {"result": {"parts": {"0": "a2", "1": "b2"}, "done": True}}
    with pytest.raises(JobError, match="no subscription found for topic nothing"):
        await mesh.pubsub("dispatch", {"flow": "nothing"}, timeout=5)


async def test_a_watchdog_stops_what_takes_too_long(mesh: HotMesh) -> None:
    with pytest.raises(JobError, match=r"^took too long \(job ") as caught:
        await mesh.pubsub("watchdog", {}, timeout=5)
    assert caught.value.code == 408


async def test_a_flow_that_runs_by_itself_signals_back(mesh: HotMesh) -> None:
    assert await run(mesh, "chat", {}) == {"heard": "hello"}


async def test_dates_of_payload_and_job(mesh: HotMesh) -> None:
    output = await mesh.pubsub("dates", {"day": "2024-02-29"}, timeout=5)
    assert output.data == {
        "iso": "2024-02-29T00:00:00.000Z",
        "year": 2024,
        "created": output.metadata.jc[:8],
    }


def _announced(told: list[JobOutput], percent: int) -> bool:
    return bool(told[-1].data == {"percent": percent})


async def test_progress_is_announced_until_the_last_answer(mesh: HotMesh) -> None:
    told: list[JobOutput] = []
    await mesh.sub("progress.changed", lambda _, output: told.append(output))
    job_id = await mesh.pub("progress", {})
    message = await eventually(lambda: progress[0] if progress else None)
    await eventually(lambda: len(told) == 1)
    for percent in (50, 90):
        metadata = {**message.metadata, "guid": f"{job_id}{percent}"}
        await mesh.add({"metadata": metadata, "status": "pending", "data": {"percent": percent}})
        await eventually(partial(_announced, told, percent))
    await mesh.add({"metadata": {**message.metadata, "guid": "last"}, "data": {"percent": 100}})
    await eventually(lambda: told[-1].metadata.js == 0)
    await mesh.unsub("progress.changed")
    # The last answer is announced as well, and then the end.
    assert [output.data["percent"] for output in told] == [10, 50, 90, 100, 100]
