"""Maps, transitions and branches."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from hotmesh import HotMesh, Response, StreamData

pytestmark = pytest.mark.anyio

counted: Counter[str] = Counter()


async def echo(message: StreamData) -> dict[str, Any]:
    return dict(message.data)


async def append(message: StreamData) -> dict[str, str]:
    return {"text": message.data["text"] + " world"}


async def code(message: StreamData) -> Response:
    return Response({"done": True}, code=message.data["code"])


async def count(message: StreamData) -> None:
    counted[message.data["id"]] += 1


WORKERS = {"echo": echo, "append": append, "code": code, "count": count}


async def run(mesh: HotMesh, topic: str, data: Any = None) -> dict[str, Any]:
    output = await mesh.pubsub(topic, data, timeout=5)
    assert output.metadata.js == 0
    return dict(output.data)


@pytest.mark.row(69)
async def test_a_pipe_in_the_trigger(mesh: HotMesh) -> None:
    assert await run(mesh, "multiply", {"a": 6, "b": 7}) == {"product": 42}


@pytest.mark.row(70)
async def test_five_parallel_hooks(mesh: HotMesh) -> None:
    assert await run(mesh, "parallel.hooks", {"n": 1}) == dict.fromkeys("abcde", 1)


@pytest.mark.row(71)
async def test_five_hooks_in_sequence(mesh: HotMesh) -> None:
    assert await run(mesh, "sequential.hooks", {"n": 1}) == dict.fromkeys("abcde", 1)


@pytest.mark.row(72)
async def test_a_tree_of_hooks_and_workers(mesh: HotMesh) -> None:
    assert await run(mesh, "tree") == {"one": 1, "two": 2, "three": 3, "four": 4, "five": 4}


@pytest.mark.row(73)
async def test_one_activity_with_many_maps(mesh: HotMesh) -> None:
    data = await run(mesh, "many.maps", {"a": "x", "b": "y"})
    assert data == {
        "date": "2024-02-29T12:00:00.000Z", "day": 29, "text": "x-y", "sum": 6, "deep": {"er": {"est": "x"}}, "none": None,
    }  # fmt: skip


@pytest.mark.row(74)
async def test_five_parallel_workers_on_one_topic(mesh: HotMesh) -> None:
    data = await run(mesh, "parallel.workers", {"height": 180})
    assert data == {"height": 180, **{f"w{number}": 180 for number in range(1, 6)}}


@pytest.mark.row(75, 76, 79)
async def test_workers_in_parallel_and_in_a_chain(mesh: HotMesh) -> None:
    data = await run(mesh, "hello", {"text": "hello", "again": True})
    assert data == {"first": "hello world", "second": "hello world world", "third": "hello world"}


@pytest.mark.row(78)
async def test_a_second_step_whose_condition_is_not_met(mesh: HotMesh) -> None:
    assert await run(mesh, "hello", {"text": "hello"}) == {"first": "hello world", "third": "hello world"}


@pytest.mark.row(77, 80)
@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [(2, 2, {}), (1, 2, {"or": True}), (1, 1, {"and": True, "or": True}), ("1", 2, {"text": True})],
)
async def test_gates_and_strict_types(mesh: HotMesh, a: Any, b: Any, expected: dict[str, Any]) -> None:
    assert await run(mesh, "conditions", {"a": a, "b": b}) == expected


@pytest.mark.row(81)
@pytest.mark.parametrize(("price", "approved", "answer"), [(50, True, "yes"), (500, False, "no")])
async def test_a_branch_by_the_result_of_a_child(
    mesh: HotMesh, price: int, approved: bool, answer: str
) -> None:
    assert await run(mesh, "approve", {"price": price}) == {
        "approvals": {"price": approved},
        "answer": answer,
    }


@pytest.mark.row(82, 83, 84)
@pytest.mark.parametrize(
    ("code", "expected"),
    [(500, {"five", "any"}), (201, {"any"}), (404, {"list", "any"}), (200, {"nocode", "any"})],
)
async def test_codes_select_transitions(mesh: HotMesh, code: int, expected: set[str]) -> None:
    assert set(await run(mesh, "codes", {"code": code})) == expected


@pytest.mark.row(85)
async def test_slots_read_back_as_an_object(mesh: HotMesh) -> None:
    assert await run(mesh, "slots", {"list": ["a", "b"]}) == {"list": {"0": "a", "1": "b"}}
    assert await run(mesh, "slots", {"list": list("abc")}) == {"list": {"0": "a", "1": "b", "2": "c"}}


@pytest.mark.row(86)
async def test_a_whole_object_of_an_earlier_activity(mesh: HotMesh) -> None:
    assert await run(mesh, "whole") == {"all": {"a": 1, "b": {"c": [1, 2]}, "d": None}}


@pytest.mark.row(87)
@pytest.mark.parametrize("sleep", [None, 0.3])
async def test_two_parents_are_two_passes(mesh: HotMesh, sleep: float | None) -> None:
    output = await mesh.pubsub("meet", {"sleep": sleep}, timeout=5)
    assert (output.metadata.js, counted[output.metadata.jid]) == (0, 2)


@pytest.mark.row(88)
async def test_a_worker_topic_from_the_payload(mesh: HotMesh) -> None:
    assert await run(mesh, "dynamic", {"topic": "echo"}) == {"n": 7}
