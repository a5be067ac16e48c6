"""Errors, status codes and retries."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pytest

from harness import connected, eventually, owed
from hotmesh import (
    ConfigError,
    HotMesh,
    JobError,
    JobOutput,
    JobTimeoutError,
    Response,
    RetryPolicy,
    StreamData,
    Worker,
)
from hotmesh.postgres.rows import HeldWork
from hotmesh.runtime.work.worker import retry_delay, retry_policy

pytestmark = pytest.mark.anyio

requests: dict[str, StreamData] = {}
tries: defaultdict[str, list[float]] = defaultdict(list)
seen_tries: defaultdict[str, list[int | None]] = defaultdict(list)
progress: defaultdict[str, list[int]] = defaultdict(list)


class PaymentError(Exception):
    code = 422


async def answer(message: StreamData) -> Any:
    how = message.data["how"]
    requests[message.metadata.jid] = message
    match how:
        case "success":
            return Response({"value": 1})
        case "error":
            return Response({"message": "declined", "other": 1}, status="error", code=422)
        case "forbidden":
            return Response({"message": "not you"}, status="error", code=403)
        case "without code":
            return {"metadata": message.metadata, "status": "error", "data": {"message": "no code"}}
        case "raise":
            raise RuntimeError("boom")
        case "raise with code":
            raise PaymentError("no funds")
        case "not found":
            return Response({"value": 2}, code=404)
        case "error 404":
            return Response({"message": "gone"}, status="error", code=404)
        case "nothing":
            return None
        case "text":
            return "text"
        case "without metadata":
            return {"value": 3}
        case _:
            return Response({"percentage": 50}, status="pending", code=202)


async def note(message: StreamData) -> None:
    progress[message.data["id"]].append(message.data["percentage"])


async def add(message: StreamData) -> dict[str, Any]:
    job_id = message.data["id"]
    tries[job_id].append(time.monotonic())
    seen_tries[job_id].append(message.metadata.get("try"))
    if len(tries[job_id]) <= (message.data.get("fails") or 0):
        raise RuntimeError("not yet")
    return {"result": sum(message.data["values"])}


WORKERS = {"answer": answer, "progress": note, "add": add}


async def failing(mesh: HotMesh, topic: str, data: Mapping[str, Any], within: float = 5) -> JobError:
    with pytest.raises(JobError) as caught:
        await mesh.pubsub(topic, data, timeout=within)
    return caught.value


def gaps(job_id: str) -> list[float]:
    return [later - earlier for earlier, later in zip(tries[job_id], tries[job_id][1:], strict=False)]


@pytest.mark.row(89)
async def test_a_success(mesh: HotMesh) -> None:
    assert (await mesh.pubsub("status", {"how": "success"}, timeout=5)).data == {
        "status": "success",
        "value": 1,
    }


@pytest.mark.row(90)
async def test_an_error_that_nobody_handles(mesh: HotMesh) -> None:
    error = await failing(mesh, "status", {"how": "error"})
    assert (error.code, error.message) == (422, "declined")
    assert error.job_id
    state = await mesh.get_state("status", error.job_id)
    assert json.loads(state.metadata.err)["code"] == 422
    assert state.metadata.js == 0


@pytest.mark.row(91)
async def test_an_error_of_a_child_is_its_parents(mesh: HotMesh) -> None:
    error = await failing(mesh, "parent", {"how": "forbidden"})
    assert (error.code, error.message) == (403, "not you")
    assert error.job_id
    expected = '{"message":"not you","code":403,"is_stream_error":true}'
    assert (await mesh.get_state("parent", error.job_id)).metadata.err == expected
    child = next(job_id for job_id in reversed(requests) if requests[job_id].data["how"] == "forbidden")
    assert (await mesh.get_state("status", child)).metadata.err == expected


@pytest.mark.row(92)
async def test_a_pending_answer_and_a_later_one(mesh: HotMesh) -> None:
    waiting = asyncio.create_task(mesh.pubsub("status", {"how": "pending 92"}, timeout=5))
    message = await eventually(
        lambda: next((m for m in requests.values() if m.data["how"] == "pending 92"), None)
    )
    await eventually(lambda: progress[message.metadata.jid])
    await mesh.add({"metadata": message.metadata, "data": {"code": 200, "percentage": 99}})
    output = await waiting
    assert output.data == {"status": "success", "code": 200, "percentage": 99}


@pytest.mark.row(93)
async def test_each_pending_answer_is_a_pass(mesh: HotMesh) -> None:
    waiting = asyncio.create_task(mesh.pubsub("status", {"how": "pending 93"}, timeout=5))
    message = await eventually(
        lambda: next((m for m in requests.values() if m.data["how"] == "pending 93"), None)
    )
    job_id = message.metadata.jid
    await eventually(lambda: progress[job_id])
    for guid, percentage in (("a", 60), ("b", 70), ("b", 70)):
        metadata = {**message.metadata, "guid": f"{job_id}:{guid}"}
        await mesh.add(
            {"metadata": metadata, "status": "pending", "code": 202, "data": {"percentage": percentage}}
        )
    await eventually(lambda: len(progress[job_id]) == 3)
    await mesh.add({"metadata": {**message.metadata, "guid": "last"}, "data": {"percentage": 99}})
    assert (await waiting).data == {"status": "success", "percentage": 99}
    assert sorted(progress[job_id]) == [50, 60, 70]


@pytest.mark.row(94)
@pytest.mark.parametrize(
    ("how", "code", "text"), [("raise", 500, "boom"), ("raise with code", 422, "no funds")]
)
async def test_a_callback_that_raises(mesh: HotMesh, how: str, code: int, text: str) -> None:
    error = await failing(mesh, "status", {"how": how})
    assert (error.code, error.message) == (code, text)
    assert "Traceback" in error.error["stack"]


@pytest.mark.row(95)
async def test_an_unconditional_transition_handles_errors(mesh: HotMesh) -> None:
    output = await mesh.pubsub("handled", {"how": "error"}, timeout=5)
    assert output.data == {"why": "declined"}
    assert "err" not in output.metadata


@pytest.mark.row(96)
async def test_a_list_of_codes_handles_errors_and_successes(mesh: HotMesh) -> None:
    assert (await mesh.pubsub("listed", {"how": "error 404"}, timeout=5)).data == {"why": "gone"}
    assert (await mesh.pubsub("listed", {"how": "not found"}, timeout=5)).data == {"bound": 2}


@pytest.mark.row(97, 98)
@pytest.mark.parametrize("topic", ["sibling", "sibling.parent"])
async def test_an_error_is_told_once_while_siblings_go_on(
    mesh: HotMesh, module_database_url: str, topic: str
) -> None:
    told: list[JobOutput] = []
    await mesh.sub(f"{topic}.done", lambda _, output: told.append(output))
    started = time.monotonic()
    error = await failing(mesh, topic, {})
    assert error.code == 422
    assert time.monotonic() - started < 1.9  # the sibling sleeps for two seconds
    job_id = str(error.job_id)
    if topic == "sibling":
        assert await mesh.get_status(job_id) == 1

        async def complete() -> bool:
            return await mesh.get_status(job_id) == 0

        await eventually(complete)
        assert (await mesh.get_state(topic, job_id)).data == {"slept": True}
    else:
        async with connected(module_database_url) as connection:
            child = "select status = 0 from hotmesh.job where parent_job_id = $1"
            await eventually(lambda: connection.fetchval(child, job_id))
    await mesh.unsub(f"{topic}.done")
    assert [output.metadata.jid for output in told] == [job_id]


@pytest.mark.row(99)
async def test_an_error_without_a_code_has_500(mesh: HotMesh) -> None:
    error = await failing(mesh, "status", {"how": "without code"})
    assert (error.code, error.message) == (500, "no code")


@pytest.mark.row(100)
async def test_nothing_is_an_empty_answer_and_text_an_error(mesh: HotMesh) -> None:
    assert (await mesh.pubsub("status", {"how": "nothing"}, timeout=5)).data == {"status": "success"}
    assert (await failing(mesh, "status", {"how": "text"})).code == 500


@pytest.mark.row(101)
async def test_an_answer_needs_no_metadata(mesh: HotMesh) -> None:
    assert (await mesh.pubsub("status", {"how": "without metadata"}, timeout=5)).data["value"] == 3


# -- retries ---------------------------------------------------------------------------------------------


@pytest.mark.row(102, 122)
async def test_a_failure_is_tried_again_and_says_so(mesh: HotMesh) -> None:
    output = await mesh.pubsub("yaml.retry", {"values": [1, 2, 3, 4, 5], "fails": 1}, timeout=5)
    assert output.data == {"result": 15}
    assert seen_tries[output.metadata.jid] == [None, 1]


@pytest.mark.row(103)
async def test_the_third_execution_succeeds(mesh: HotMesh) -> None:
    output = await mesh.pubsub("yaml.retry.five", {"fails": 2}, timeout=5)
    assert output.data == {"result": 1}
    assert len(tries[output.metadata.jid]) == 3


@pytest.mark.row(104)
async def test_two_retries_are_three_executions(mesh: HotMesh) -> None:
    error = await failing(mesh, "yaml.retry.two", {})
    first, second = gaps(str(error.job_id))
    assert (error.code, error.message) == (500, "not yet")
    # Not seconds, and the second is the longer one; a busy machine makes them longer, never shorter.
    assert 0.009 <= first < 0.9
    assert 0.09 <= second < 0.9


@pytest.mark.row(105)
async def test_a_job_whose_retries_are_used_up_has_the_error(mesh: HotMesh, module_database_url: str) -> None:
    failed = asyncio.create_task(failing(mesh, "yaml.retry.five", {"fails": 99}, within=10))
    sooner = (
        "update hotmesh.worker_stream set visible_at = now() where topic = 'add' and reserved_by is null "
        "and visible_at > now() + interval '100 ms' returning hotmesh.wake(app_id, '{\"w\":[\"add\"]}')"
    )
    async with connected(module_database_url) as connection:

        async def over() -> bool:
            await connection.execute(sooner)
            return failed.done()

        await eventually(over)
    error = await failed
    assert (error.code, error.message, len(tries[str(error.job_id)])) == (500, "not yet", 6)


@pytest.mark.row(105)
def test_every_retry_of_a_high_count_is_made() -> None:
    def delay(attempt: int, code: int = 500) -> float | None:
        work = HeldWork("j", "g", "a", (0,), "t", {}, "go", attempt=attempt, retry={"500": [5, None]})
        return retry_delay(None, work, code)

    assert [delay(attempt) for attempt in range(6)] == [0.01, 0.1, 1.0, 10.0, 10.0, None]
    assert delay(0, code=404) is None


def delays_of(policy: Mapping[str, Any] | RetryPolicy | None, attempts: int) -> list[float | None]:
    found = retry_policy(policy)
    return [
        retry_delay(found, HeldWork("j", "g", "a", (0,), "t", {}, "go", attempt=attempt), 500)
        for attempt in range(attempts)
    ]


@pytest.mark.row(106, 108, 109, 110, 113, 114, 116)
def test_backoff() -> None:
    assert delays_of({"maximum_attempts": 5, "backoff_coefficient": 2}, 5) == [2, 4, 8, 16, None]
    assert delays_of({"maximum_attempts": 3, "backoff_coefficient": 1.5}, 3) == [1.5, 2.25, None]
    assert delays_of({"maximum_attempts": 3, "backoff_coefficient": 3}, 3) == [3, 9, None]
    assert delays_of({"maximum_attempts": 4, "backoff_coefficient": 10, "maximum_interval": "5s"}, 4) == [
        5,
        5,
        5,
        None,
    ]
    assert delays_of({"maximum_attempts": 6, "backoff_coefficient": 1.5}, 4) == [1.5, 2.25, 3.375, 5.0625]
    assert delays_of({"backoff_coefficient": 10, "maximum_interval": 3}, 1) == [3]
    assert delays_of({"maximumAttempts": 9, "maximumInterval": "5m"}, 4) == [10, 100, 300, 300]


@pytest.mark.row(106, 113)
@pytest.mark.parametrize(("fails", "retries", "executions"), [(3, 4, 4), (4, 5, 5)])
async def test_a_policy_tries_until_it_succeeds(
    mesh: HotMesh, fails: int, retries: int, executions: int
) -> None:
    output = await mesh.pubsub(
        "policy", {"fails": fails, "retries": retries, "coefficient": 2, "initial": 0.02}, timeout=5
    )
    found = gaps(output.metadata.jid)
    assert len(found) == executions - 1
    assert all(gap >= 0.02 * 2**number for number, gap in enumerate(found, 1))
    assert output.data == {"result": 1}


@pytest.mark.row(107, 111)
@pytest.mark.parametrize(("retries", "executions"), [(2, 3), (0, 1)])
async def test_a_policy_ends(mesh: HotMesh, retries: int, executions: int) -> None:
    error = await failing(
        mesh, "policy", {"fails": 99, "retries": retries, "coefficient": 1, "initial": 0.01}
    )
    assert len(tries[str(error.job_id)]) == executions
    assert error.code == 500


@pytest.mark.row(112)
async def test_a_policy_of_a_worker_in_real_time(module_database_url: str) -> None:
    graph = """
app:
  id: realtime
  version: '1'
  graphs:
    - subscribes: go
      activities:
        t: {type: trigger}
        w: {type: worker, topic: w, input: {maps: {id: '{$job.metadata.jid}', fails: 1, values: [1]}}}
      transitions: {t: [{to: w}]}
"""
    worker = Worker("w", add, retry={"maximum_attempts": 2, "backoff_coefficient": 2})
    async with HotMesh.init("realtime", connection=module_database_url, workers=[worker]) as mesh:
        await mesh.deploy(graph)
        await mesh.activate("1")
        output = await mesh.pubsub("go", {}, timeout=10)
    [gap] = gaps(output.metadata.jid)
    assert 2.0 <= gap < 4.0


@pytest.mark.row(115)
async def test_only_the_coefficient_is_given(mesh: HotMesh) -> None:
    output = await mesh.pubsub("policy", {"fails": 1, "coefficient": 1.0, "initial": 0.01}, timeout=5)
    assert len(tries[output.metadata.jid]) == 2


@pytest.mark.row(117, 118, 121)
async def test_policies_are_stored_with_the_work(mesh: HotMesh, module_database_url: str) -> None:
    job_id = await mesh.pub("unserved", {})
    async with connected(module_database_url) as connection:
        rows = await connection.fetch(
            "select activity_id, retry_policy from hotmesh.worker_stream where job_id = $1", job_id
        )
    found = {row["activity_id"]: row["retry_policy"] and json.loads(row["retry_policy"]) for row in rows}
    assert found == {
        "un_w": {
            "maximum_attempts": 7,
            "backoff_coefficient": 3,
            "maximum_interval": 600,
            "initial_interval": 1,
        },
        "un_d": None,
        "un_o": {
            "maximum_attempts": 2,
            "backoff_coefficient": 2,
            "maximum_interval": 300,
            "initial_interval": 0.5,
        },
    }
    await mesh.scrub(job_id)


@pytest.mark.row(124)
def test_policies_are_read_from_what_users_write() -> None:
    assert retry_policy({"maximum_interval": "5 minutes"}) == RetryPolicy(maximum_interval=300)
    assert retry_policy({"maximum_interval": 120}) == RetryPolicy()
    assert retry_policy({}) == RetryPolicy(3, 10, 120, 1)
    assert retry_policy(None) is None
    with pytest.raises(ConfigError, match="no key"):
        retry_policy({"maximum": 1})


@pytest.mark.row(128, 129)
async def test_poison_is_not_delivered(mesh: HotMesh, module_database_url: str) -> None:
    job_id = await mesh.pub("unserved", {})
    calls: list[str] = []
    async with connected(module_database_url) as connection:
        await connection.execute(
            "update hotmesh.worker_stream set delivery = 5 where job_id = $1 and activity_id = 'un_w'", job_id
        )
        worker = Worker("unserved", lambda message: calls.append(message.metadata.aid))
        async with HotMesh.init("errors", connection=module_database_url, workers=[worker]):

            async def complete() -> bool:
                return await mesh.get_status(job_id) == 0

            await eventually(complete)
    assert sorted(calls) == ["un_d", "un_o"]
    error = json.loads((await mesh.get_state("unserved", job_id)).metadata.err)
    assert error["code"] == 598
    assert error["message"].startswith("Poison message detected: ")
    [letter] = [letter for letter in await mesh.list_dead_letters() if letter.job_id == job_id]
    assert letter.activity_id == "un_w"


@pytest.mark.row(133)
@pytest.mark.parametrize(
    ("data", "code"),
    [({"what": "map", "x": "text"}, 500), ({"what": "signal", "topic": "nobody"}, 404)],
    ids=["map", "signal"],
)
async def test_what_an_engine_cannot_do_fails_the_job_and_leaves_nothing(
    mesh: HotMesh, module_database_url: str, data: dict[str, Any], code: int
) -> None:
    error = await failing(mesh, "broken", data)
    assert error.code == code
    async with connected(module_database_url) as connection:
        assert await owed(connection, "errors") == {}


@pytest.mark.row(133)
async def test_an_interrupt_of_nobody_changes_nothing(mesh: HotMesh) -> None:
    output = await mesh.pubsub("broken", {"what": "interrupt", "target": "nobody"}, timeout=5)
    assert output.data == {"next": True}


@pytest.mark.row(134)
async def test_no_answer_in_time(mesh: HotMesh) -> None:
    with pytest.raises(JobTimeoutError, match="has not ended within 0 s") as caught:
        await mesh.pubsub("slow", {"n": 1}, timeout=0)
    job_id = caught.value.job_id
    assert (caught.value.code, bool(job_id)) == (504, True)

    async def complete() -> bool:
        return await mesh.get_status(str(job_id)) == 0

    await eventually(complete)
    assert (await mesh.get_state("slow", str(job_id))).data == {"n": 1}


@pytest.mark.row(135)
async def test_parallel_callers_get_their_own_results(mesh: HotMesh) -> None:
    outputs = await asyncio.gather(*(mesh.pubsub("slow", {"n": n}, timeout=5) for n in range(20)))
    assert [output.data for output in outputs] == [{"n": n} for n in range(20)]
