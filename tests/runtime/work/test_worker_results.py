"""What callbacks may do wrong: each ends its own job with a clear error, and no other job notices."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import anyio
import msgspec
import pytest

from harness import connected, eventually, one_worker, settled
from hotmesh import HotMesh, JobError, Response, StreamData, Worker

pytestmark = pytest.mark.anyio

HEALTHY = """
    - subscribes: healthy
      expire: 3600
      activities:
        begin: {type: trigger}
        answer:
          type: worker
          topic: healthy
          input: {maps: {x: '{begin.output.data.x}'}}
          job: {maps: {y: '{$self.output.data.y}'}}
      transitions:
        begin: [{to: answer}]
"""


async def double(message: StreamData) -> dict[str, Any]:
    return {"y": message.data["x"] * 2}


@asynccontextmanager
async def serving(url: str, *workers: Worker, split: bool = False, **options: Any) -> AsyncIterator[HotMesh]:
    """A mesh with these workers and a healthy one beside them; `split`: in an instance without an engine."""
    workers = (*workers, Worker("healthy", double))
    async with HotMesh.init(
        app_id="results", connection=url, workers=() if split else workers, **options
    ) as mesh:
        await mesh.deploy(one_worker("results", more=HEALTHY))
        await mesh.activate("1")
        if not split:
            yield mesh
            return
        async with HotMesh.init(app_id="results", connection=url, engine=False, workers=workers, **options):
            yield mesh


async def outcome(mesh: HotMesh, url: str, x: Any = 1, *, within: float = 10.0) -> JobError:
    """The error of a job on `one`, while healthy jobs before, beside and after it complete."""
    before = await mesh.pubsub("healthy", {"x": 1}, timeout=within)
    healthy = [asyncio.create_task(mesh.pubsub("healthy", {"x": x}, timeout=within)) for x in range(2, 6)]
    with pytest.raises(JobError) as caught:
        await mesh.pubsub("one", {"x": x}, timeout=within)
    beside = [output.data["y"] for output in await asyncio.gather(*healthy)]
    after = await mesh.pubsub("healthy", {"x": 9}, timeout=within)
    assert (before.data["y"], beside, after.data["y"]) == (2, [4, 6, 8, 10], 18)
    async with connected(url) as connection:
        await settled(connection, "results")
    return caught.value


class _Opaque:
    pass


def _nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"y": value}
    return value


UNSTORABLE: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "NaN": (lambda: {"y": float("nan")}, ["the number nan", "$.y"]),
    "infinity": (lambda: {"y": [1, float("-inf")]}, ["the number -inf", "$.y[1]"]),
    "raw": (lambda: {"y": msgspec.Raw(b"{nope")}, ["a msgspec.Raw that is not JSON at $.y"]),
    "200 MB": (lambda: {"y": "x" * 200_000_000}, ["200,000,008 bytes", "limit of 1,048,576"]),
    "a type that is not JSON": (lambda: {"y": _Opaque()}, ["type _Opaque", "$.y"]),
    "a function": (lambda: {"y": {1, 2}, "z": lambda: 0}, ["type function", "$.z"]),
    "a lone surrogate": (lambda: {"y": "half \ud800"}, ["half of a surrogate pair", "$.y"]),
    "a lone surrogate in a key": (lambda: {"\udfff": 1}, ["surrogate"]),
    "a key that is no text": (lambda: {("a", 1): 1}, ["a key of type tuple", "$"]),
    "nested too deep to encode": (lambda: _nested(5_000), ["nested more than 200 levels"]),
    "nested too deep for mappings": (lambda: _nested(250), ["nested more than 200 levels"]),
}


@pytest.mark.parametrize("split", [False, True], ids=["with an engine", "without an engine"])
async def test_a_result_that_cannot_be_stored_fails_its_job_alone(database_url: str, split: bool) -> None:
    async def callback(message: StreamData) -> Any:
        return UNSTORABLE[message.data["x"]][0]()

    async with serving(database_url, Worker("w", callback), split=split) as mesh:
        for name, (_, words) in UNSTORABLE.items():
            error = await outcome(mesh, database_url, name)
            assert error.code == 500, name
            for word in ("the result of worker w", *words):
                assert word in error.message, name


@pytest.mark.parametrize("split", [False, True], ids=["with an engine", "without an engine"])
async def test_what_is_odd_but_json_comes_through_whole(database_url: str, split: bool) -> None:
    odd = [
        "before\0after",
        {"\0": 1},
        "\U0001f600",
        -0.0,
        2**63,
        "x" * 1_000_000,
        _nested(150),
        {"": ""},
        [[]],
    ]

    async def callback(message: StreamData) -> Any:
        return {"y": message.data["x"]}

    async with serving(database_url, Worker("w", callback), split=split) as mesh:
        for value in odd:
            output = await mesh.pubsub("one", {"x": value}, timeout=10)
            stored = await mesh.get_state("one", output.metadata.jid)
            assert output.data == stored.data == {"y": value}
            assert repr(output.data) == repr(stored.data) == repr({"y": value}), "-0.0 equals 0.0"


class _Coded(Exception):
    def __init__(self, code: Any) -> None:
        super().__init__("declined")
        self.code = code


class _Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


RAISED: dict[str, tuple[Callable[[], BaseException], int, str]] = {
    "an exception": (lambda: RuntimeError("boom"), 500, "boom"),
    "one with a code": (lambda: _Coded(422), 422, "declined"),
    "a code that is no number": (lambda: _Coded("E42"), 500, "declined"),
    "a code too large to store": (lambda: _Coded(10**12), 500, "declined"),
    "no message": (KeyError, 500, "KeyError"),
    "a message that cannot be stored": (lambda: ValueError("half \ud800"), 500, "half ?"),
    "no words": (_Unspeakable, 500, "_Unspeakable"),
    "a very long message": (lambda: RuntimeError("x" * 3_000_000), 500, "x" * 20_000),
    "recursion": (lambda: RecursionError("deep"), 500, "deep"),
    "StopIteration": (lambda: StopIteration("over"), 500, "StopIteration"),
    "SystemExit": (lambda: SystemExit(3), 500, "SystemExit(3)"),
    "CancelledError": (asyncio.CancelledError, 500, "CancelledError"),
    "a group": (lambda: BaseExceptionGroup("two", [SystemExit(1)]), 500, "two"),
}


@pytest.mark.parametrize("split", [False, True], ids=["with an engine", "without an engine"])
@pytest.mark.parametrize("threaded", [False, True], ids=["coroutine", "thread"])
async def test_what_a_callback_raises_fails_its_job_alone(
    database_url: str, threaded: bool, split: bool
) -> None:
    async def in_the_loop(message: StreamData) -> Any:
        make = RAISED[message.data["x"]][0]
        raise make()

    def in_a_thread(message: StreamData) -> Any:
        make = RAISED[message.data["x"]][0]
        raise make()

    worker = Worker("w", in_a_thread if threaded else in_the_loop)
    async with serving(database_url, worker, split=split) as mesh:
        for name, (_, code, word) in RAISED.items():
            error = await outcome(mesh, database_url, name)
            assert error.code == code, name
            assert word in error.message, name


@dataclass
class _Plain:
    y: int


NONSENSE: dict[str, tuple[Any, str]] = {
    "str": ("text", "returned str"),
    "int": (7, "returned int"),
    "list": ([1], "returned list"),
    "bool": (True, "returned bool"),
    "a class": (_Plain, "returned type"),
    "an unknown status": ({"metadata": ..., "status": "odd"}, "returned status 'odd'"),
    "a code that is none": ({"metadata": ..., "code": "4x2"}, "returned code '4x2'"),
}


async def test_a_callback_that_returns_nonsense_fails_its_job_alone(database_url: str) -> None:
    async def callback(message: StreamData) -> Any:
        result = NONSENSE[message.data["x"]][0]
        return result | {"metadata": message.metadata} if isinstance(result, dict) else result

    async with serving(database_url, Worker("w", callback)) as mesh:
        for name, (_, word) in NONSENSE.items():
            error = await outcome(mesh, database_url, name)
            assert error.code == 500, name
            assert f"the callback {word}" in error.message, name


@pytest.mark.parametrize("split", [False, True], ids=["with an engine", "without an engine"])
async def test_a_response_whose_code_cannot_be_stored_fails_its_job_alone(
    database_url: str, split: bool
) -> None:
    async def callback(message: StreamData) -> Any:
        return {"metadata": message.metadata, "data": {"y": 1}, "code": 10**30}

    async with serving(database_url, Worker("w", callback), split=split) as mesh:
        error = await outcome(mesh, database_url)

    assert error.code == 500


@pytest.mark.parametrize("wrap", ["coroutine", "thread"])
async def test_a_callback_that_never_returns_is_cut_off_at_its_timeout(database_url: str, wrap: str) -> None:
    released = threading.Event()

    async def forever(_: StreamData) -> None:
        await asyncio.get_running_loop().create_future()

    def blocked(_: StreamData) -> None:
        released.wait(30)

    worker = Worker("w", forever if wrap == "coroutine" else blocked, timeout=0.3)
    try:
        async with serving(database_url, worker) as mesh:
            began = time.monotonic()
            error = await outcome(mesh, database_url)
            assert time.monotonic() - began < 5
    finally:
        released.set()

    assert error.code == 504
    assert "worker w did not return within 0.3 s" in error.message


async def test_a_timed_out_callback_is_retried_by_its_policy(database_url: str) -> None:
    calls: list[int] = []

    async def callback(message: StreamData) -> dict[str, Any]:
        calls.append(message.metadata.get("try", 0))
        if len(calls) == 1:
            await asyncio.get_running_loop().create_future()
        return {"y": 5}

    retry = {"maximum_attempts": 3, "initial_interval": 0.05, "backoff_coefficient": 1}
    async with serving(database_url, Worker("w", callback, timeout=0.2, retry=retry)) as mesh:
        output = await mesh.pubsub("one", {"x": 1}, timeout=10)

    assert (output.data, calls) == ({"y": 5}, [0, 1])


@pytest.mark.parametrize("split", [False, True], ids=["with an engine", "without an engine"])
@pytest.mark.parametrize("pool", [False, True], ids=["own connections", "a pool"])
async def test_a_callback_that_blocks_the_event_loop_keeps_its_lease(
    database_url: str, split: bool, pool: bool
) -> None:
    """Another process is there to take the work as soon as its lease lapses, and gets none of it."""
    ran: list[str] = []

    async def blocks(message: StreamData) -> dict[str, Any]:
        ran.append(message.metadata.guid)
        time.sleep(2.2)  # noqa: ASYNC251 - the point
        return {"y": message.data["x"]}

    import asyncpg

    async with asyncpg.create_pool(database_url, min_size=1, max_size=20) as connections:
        connection: Any = connections if pool else database_url
        async with HotMesh.init(app_id="results", connection=connection, engine=True, lease=1) as mesh:
            await mesh.deploy(one_worker("results"))
            await mesh.activate("1")
            with Rival(database_url) as rival:
                async with HotMesh.init(
                    app_id="results",
                    connection=connection,
                    engine=not split,
                    lease=1,
                    workers=[Worker("w", blocks, max_concurrency=1)],
                ) as worker:
                    job = await (mesh if split else worker).pub("one", {"x": 7})
                    await eventually(lambda: ran, what="the callback")
                    async with connected(database_url) as own:
                        await settled(own, "results")
                    output = await mesh.get_state("one", job)

    assert output.data == {"y": 7}
    assert len(ran) == 1
    assert rival.claimed == 0


class Rival:
    """Another consumer of the worker topic, in a thread of its own, as long as the block lasts.

    It only starts once the block's own worker may be expected to hold the work.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self.claimed = 0

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: anyio.run(self._claim))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    async def _claim(self) -> None:
        async with connected(self._url) as connection:
            while not self._stop.is_set():
                held = await connection.fetchval(
                    "select count(*) from hotmesh.worker_stream where delivery > 0"
                )
                if held:
                    rows = await connection.fetch(
                        "select * from hotmesh.claim_work('results', 'rival', '{w}', '{10}', 60)"
                    )
                    self.claimed += len(rows)
                await asyncio.sleep(0.02)


async def test_plain_functions_run_in_threads_side_by_side(database_url: str) -> None:
    together = threading.Barrier(3, timeout=10)
    main = threading.get_ident()
    threads: list[int] = []

    def callback(message: StreamData) -> dict[str, Any]:
        threads.append(threading.get_ident())
        together.wait()
        return {"y": message.data["x"]}

    async with serving(database_url, Worker("w", callback, max_concurrency=3)) as mesh:
        outputs = await asyncio.gather(*(mesh.pubsub("one", {"x": x}, timeout=10) for x in range(3)))

    assert [output.data["y"] for output in outputs] == [0, 1, 2]
    assert main not in threads
    assert len(set(threads)) == 3


async def test_an_answer_with_a_code_of_its_own_ends_the_job_with_it(database_url: str) -> None:
    async def callback(_: StreamData) -> Response:
        return Response({"message": "card declined"}, status="error", code=402)

    async with serving(database_url, Worker("w", callback)) as mesh:
        error = await outcome(mesh, database_url)

    assert (error.code, error.message) == (402, "card declined")
