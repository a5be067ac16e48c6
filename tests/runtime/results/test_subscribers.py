"""Subscriptions: who gets what from which process, in which order, and what a bad subscriber does to the others."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from harness import connected, eventually, init_within, one_worker
from hotmesh import ConfigError, ConnectionLostError, HotMesh, JobError, JobOutput, JobTimeoutError, Worker
from hotmesh.core.state.step import Notice
from hotmesh.runtime.limits import MemberLimits
from hotmesh.runtime.results.subscribers import SubscriberLimits, matcher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hotmesh import StreamData

pytestmark = pytest.mark.anyio

APP = "listening"

MORE = """
    - subscribes: other
      publishes: other.ended
      expire: 3600
      activities:
        begin: {type: trigger, job: {maps: {z: '{$self.input.data.z}'}}}
    - subscribes: steps
      publishes: steps.done
      expire: 3600
      activities:
        s0: {type: trigger, emit: true}
        s1:
          type: worker
          topic: w
          emit: true
          input: {maps: {x: '{s0.output.data.x}'}}
          job: {maps: {first: '{$self.output.data.y}'}}
        s2:
          type: worker
          topic: w
          emit: true
          input: {maps: {x: '{s1.output.data.y}'}}
          job: {maps: {second: '{$self.output.data.y}'}}
        s3:
          type: worker
          topic: w
          input: {maps: {x: 1}}
          job: {maps: {third: 3, first: small}}
      transitions:
        s0: [{to: s1}]
        s1: [{to: s2}]
        s2: [{to: s3}]
"""


async def answer(message: StreamData) -> dict[str, Any]:
    return {"y": message.data["x"]}


Told = list[tuple[str, JobOutput]]


@asynccontextmanager
async def mesh_on(url: str, *workers: Worker, **options: Any) -> AsyncIterator[HotMesh]:
    async with HotMesh.init(APP, connection=url, workers=workers, **options) as mesh:
        yield mesh


@asynccontextmanager
async def apart(url: str) -> AsyncIterator[tuple[HotMesh, HotMesh, HotMesh]]:
    """An engine, a worker and a caller, each an instance of its own that shares nothing with the others."""
    async with (
        mesh_on(url) as engine,
        mesh_on(url, Worker("w", answer), engine=False) as worker,
        mesh_on(url, engine={"readonly": True}) as caller,
    ):
        await engine.deploy(one_worker(APP, more=MORE))
        await engine.activate("1")
        yield engine, worker, caller


def told_by(told: Told) -> Any:
    return lambda topic, output: told.append((topic, output))


# -- across processes ----------------------------------------------------------------------------------------


async def test_every_process_hears_of_every_job_and_one_of_its_own(database_url: str) -> None:
    every: Told = []
    one: Told = []
    here: Told = []
    async with apart(database_url) as (engine, worker, caller):
        await caller.sub("one.done", told_by(every))
        await worker.sub("one.done.mine", told_by(one))
        await engine.sub("one.done", told_by(here))
        for name in ("mine", "other"):
            await caller.pub("one", {"x": f"{name} Grüße ☕ 你好"}, extended={"id": name})
        await eventually(lambda: (len(every), len(one), len(here)) == (2, 1, 2))
    assert {topic for topic, _ in every + one + here} == {"one.done"}
    assert [output.metadata.jid for _, output in one] == ["mine"]
    assert {output.data["y"] for _, output in every} == {"mine Grüße ☕ 你好", "other Grüße ☕ 你好"}


async def test_another_process_of_the_system_hears_too(database_url: str) -> None:
    program = textwrap.dedent(
        """
        import asyncio, json, sys
        from hotmesh import HotMesh

        async def main():
            async with HotMesh.init("listening", connection=sys.argv[1], engine=False) as mesh:
                done = asyncio.Event()
                heard = []
                async def hear(topic, output):
                    heard.append([topic, output.metadata.jid, len(output.data["y"])])
                    if len(heard) == 3:
                        done.set()
                await mesh.sub("one.done.a", hear)
                await mesh.psub("*.done.b", hear)
                print("ready", flush=True)
                await asyncio.wait_for(done.wait(), 20)
                print(json.dumps(heard), flush=True)

        asyncio.run(main())
        """
    )
    async with apart(database_url) as (_, _, caller):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, database_url, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 30) == b"ready\n"
        for name, size in (("a", 3), ("b", 9_000), ("c", 3)):
            await caller.pubsub("one", {"x": "☕" * size}, timeout=10, extended={"id": name})
        await caller.pub("steps", {"x": 1}, extended={"id": "d"})
        for name in ("x", "a"):
            await caller.scrub("a")
            await caller.pubsub("one", {"x": "yz"}, timeout=10, extended={"id": name})
        heard = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
        assert await process.wait() == 0
    assert sorted(heard) == [["one.done", "a", 2], ["one.done", "a", 3], ["one.done", "b", 9_000]]


@pytest.mark.parametrize("size", [10, 7_000, 7_600, 200_000])
async def test_states_of_any_size_arrive_in_order(database_url: str, size: int) -> None:
    told: Told = []
    async with apart(database_url) as (_, _, caller):
        await caller.sub("steps.done", told_by(told))
        for _ in range(3):
            await caller.pub("steps", {"x": "ß" * (size // 2)})
        await eventually(lambda: sum(output.metadata.js == 0 for _, output in told) == 3)
    by_job: dict[str, list[JobOutput]] = {}
    for _, output in told:
        by_job.setdefault(output.metadata.jid, []).append(output)
    for states in by_job.values():
        grown = [len(state.data) for state in states]
        assert grown == sorted(grown)
        assert [state.metadata.js for state in states].count(0) == 1
        assert states[-1].data == {"first": "small", "second": "ß" * (size // 2), "third": 3}


async def test_an_older_state_is_not_told_after_a_newer_one(database_url: str) -> None:
    told: Told = []
    async with mesh_on(database_url) as mesh:
        await mesh.sub("t", told_by(told))

        def state(seq: int) -> dict[str, Any]:
            metadata = {"jid": "j", "gid": "g", "js": 1}
            return {"topic": "t", "seq": seq, "metadata": metadata, "data": {"seq": seq}}

        # Two engines advanced the job, and the messages of the first one are late.
        for sender, number, seq in (
            ("a", 1, 1),
            ("b", 1, 4),
            ("a", 2, 3),
            ("b", 1, 4),
            ("b", 2, 4),
            ("a", 3, 5),
        ):
            mesh._member.dispatcher.on_message({"f": sender, "n": number, "j": state(seq)})
        await eventually(lambda: len(told) == 4)
    assert [output.data["seq"] for _, output in told] == [1, 4, 4, 5]


async def test_what_is_told_of_a_job_that_is_gone(database_url: str) -> None:
    told: Told = []
    async with mesh_on(database_url) as mesh:
        await mesh.sub("t", told_by(told))
        metadata = {"jid": "j", "gid": "g", "js": 0, "err": "{}"}
        mesh._member.dispatcher.on_message(
            {"f": "a", "n": 1, "j": {"topic": "t", "seq": 1, "metadata": metadata, "ref": True}}
        )
        await eventually(lambda: told)
    assert told == [("t", JobOutput({**metadata, "_gone": True}, {}))]


async def test_a_result_that_cannot_be_sent_stops_no_other(database_url: str) -> None:
    async with mesh_on(database_url) as mesh, mesh_on(database_url) as other:
        told: Told = []
        await other.sub("t", told_by(told))
        for name, topic in (("a", "t"), ("b\ud800", "t"), ("c", "t")):
            metadata = {"jid": name, "gid": name, "js": 0}
            mesh._member.publisher.notify(
                Notice(name, None, topic, metadata, {}, seq=1), {"t": {other.guid_}}
            )
        await eventually(lambda: len(told) == 2)
    assert [output.metadata.jid for _, output in told] == ["a", "c"]


# -- patterns ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "hits", "misses"),
    [
        ("order.*", ["order.", "order.done", "order.done.H1"], ["orders", "border.x", "order"]),
        ("*.done", ["a.done", ".done", "a.b.done"], ["done", "a.done.H1"]),
        ("*", ["", "a", "a.b\nc"], []),
        ("a*b*c", ["abc", "a-b-c", "aXbYbc"], ["ab", "acb", "abcd"]),
        ("100%_\\[x]*", ["100%_\\[x]", "100%_\\[x]y"], ["100yy\\[x]", "100%_[x]", "100%_\\x"]),
        ("plain", ["plain"], ["plain.", "xplain"]),
    ],
)
async def test_a_pattern_means_the_same_here_and_in_the_database(
    module_database_url: str, pattern: str, hits: list[str], misses: list[str]
) -> None:
    async with connected(module_database_url) as connection:
        for topic in hits + misses:
            there = await connection.fetchval("select $1 like hotmesh.like_pattern($2)", topic, pattern)
            assert bool(matcher(pattern).match(topic)) == there == (topic in hits), topic


@pytest.mark.row(211)
async def test_subscriptions_by_pattern_work_across_processes(database_url: str) -> None:
    told: dict[str, Told] = {"one.*": [], "*": [], "*.done.mine": [], "*.nothing": [], "oth*d": []}
    twice: Told = []
    async with apart(database_url) as (_, worker, caller):
        for pattern, found in told.items():
            await worker.psub(pattern, told_by(found))
        await worker.psub("one.*", told_by(twice))
        for name in ("mine", "other"):
            await caller.pub("one", {"x": 1}, extended={"id": name})
        await caller.pub("other", {"z": 1}, extended={"id": "o"})
        await eventually(lambda: len(told["*"]) == 3 and len(twice) == 2)
        await eventually(lambda: len(told["*.done.mine"]) == 1 and len(told["oth*d"]) == 1)

        await worker.punsub("one.*")
        await caller.pubsub("one", {"x": 1}, timeout=10, extended={"id": "late"})
        await eventually(lambda: len(told["*"]) == 4)
        rows = await _rows(database_url)
    assert {name: sorted(output.metadata.jid for _, output in found) for name, found in told.items()} == {
        "one.*": ["mine", "other"],
        "*": ["late", "mine", "o", "other"],
        "*.done.mine": ["mine"],
        "*.nothing": [],
        "oth*d": ["o"],
    }
    assert sorted(output.metadata.jid for _, output in twice) == ["mine", "other"]
    assert [topic for topic, _ in told["oth*d"]] == ["other.ended"]
    assert sorted(row["topic"] for row in rows) == ["*", "*.done.mine", "*.nothing", "oth*d"]
    assert all(row["by_pattern"] for row in rows)


# -- coming and going ----------------------------------------------------------------------------------------


@pytest.mark.row(278, 279, 280)
async def test_subscribers_come_and_go_one_by_one(database_url: str) -> None:
    class Listener:
        def __init__(self) -> None:
            self.heard: list[str] = []

        async def hear(self, topic: str, output: JobOutput) -> None:
            self.heard.append(output.metadata.jid)

    first, second = Listener(), Listener()
    async with apart(database_url) as (_, worker, caller):
        await worker.sub("other.ended", first.hear)
        await worker.sub("other.ended", second.hear)
        await caller.pub("other", {}, extended={"id": "a"})
        await eventually(lambda: first.heard == second.heard == ["a"])
        await worker.unsub("other.ended", first.hear)
        await caller.pub("other", {}, extended={"id": "b"})
        await eventually(lambda: second.heard == ["a", "b"])
        await worker.unsub("other.ended")
        assert await _rows(database_url) == []
        await worker.unsub("other.ended")  # nothing to end is no error
        await caller.pub("other", {}, extended={"id": "c"})
        await worker.sub("other.ended.d", second.hear)
        await caller.pub("other", {}, extended={"id": "d"})
        await eventually(lambda: second.heard == ["a", "b", "d"])
    assert first.heard == ["a"]


async def test_rows_of_the_stopped_go_at_once_and_those_of_the_dead_when_they_have_lapsed(
    database_url: str,
) -> None:
    def nobody(topic: str, output: JobOutput) -> None: ...

    async with mesh_on(database_url) as mesh, connected(database_url) as connection:
        async with mesh_on(database_url) as other:
            await other.sub("t", nobody)
            assert len(await _rows(database_url)) == 1
        assert await _rows(database_url) == []

        await connection.execute(
            "insert into hotmesh.subscription (app_id, member, topic, expires_at) values "
            "('listening', 'dead', 't', now() - interval '1 hour'), ('elsewhere', 'dead', 't', now() - interval '1 day'),"
            "('listening', 'late', 't', now() - interval '1 second')"
        )
        await mesh.sub("u", nobody)
        assert sorted(row["member"] for row in await _rows(database_url)) == sorted(["late", mesh.guid_])


async def test_subscriptions_work_again_after_the_connections_broke(database_url: str) -> None:
    told: Told = []
    async with apart(database_url) as (_, worker, caller):
        await worker.sub("other.ended", told_by(told))
        async with connected(database_url) as connection:
            # As if it had been away for longer than the lease.
            await connection.execute("delete from hotmesh.subscription")
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
        await eventually(lambda: _rows(database_url))
        await eventually(lambda: worker._member.listener.channel)

        async def heard() -> bool:
            await caller.pub("other", {})
            return bool(told)

        await eventually(heard)


async def test_a_subscription_that_could_not_be_stored_is_none(database_url: str) -> None:
    told: Told = []
    async with mesh_on(database_url) as mesh:
        for topic in ("", "a\0b", "x" * 2_000, 5):
            with pytest.raises(ConfigError, match="a topic to subscribe to"):
                await mesh.sub(topic, told_by(told))  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="the subscriber of t is not callable"):
            await mesh.psub("t", None)  # type: ignore[arg-type]
        async with connected(database_url) as connection:
            await connection.execute("alter table hotmesh.subscription rename to gone")
            with pytest.raises(Exception, match="hotmesh migrate"):
                await mesh.sub("t", told_by(told))
            await connection.execute("alter table hotmesh.gone rename to subscription")
        assert not mesh._member.subscribers
    with pytest.raises(ConnectionLostError, match="sub cannot be served"):
        await mesh.sub("t", told_by(told))
    await mesh.unsub("t")


# -- bad subscribers -----------------------------------------------------------------------------------------


async def test_a_slow_or_failing_subscriber_holds_up_neither_results_nor_others(database_url: str) -> None:
    told: Told = []
    release, unblock = asyncio.Event(), threading.Event()

    async def slow(topic: str, output: JobOutput) -> None:
        await release.wait()

    def blocking(topic: str, output: JobOutput) -> None:
        unblock.wait(30)

    async def failing(topic: str, output: JobOutput) -> None:
        raise ValueError("no")

    def leaving(topic: str, output: JobOutput) -> None:
        raise SystemExit(3)

    async def cancelling(topic: str, output: JobOutput) -> None:
        raise asyncio.CancelledError

    async with apart(database_url) as (_, _, caller):
        for callback in (slow, blocking, failing, leaving, cancelling, told_by(told)):
            await caller.sub("one.done", callback)
        for number in range(5):
            output = await caller.pubsub("one", {"x": number}, timeout=10)
            assert output.data == {"y": number}
        await eventually(lambda: len(told) == 5)
        assert [output.data["y"] for _, output in told] == list(range(5))
        release.set()
        unblock.set()


async def test_a_subscriber_that_does_not_keep_up_loses_the_oldest(database_url: str) -> None:
    limits = MemberLimits(subscribers=SubscriberLimits(waiting=3))
    told: list[int] = []
    release = asyncio.Event()

    async def slow(topic: str, output: JobOutput) -> None:
        await release.wait()
        told.append(output.data["n"])

    async with init_within(limits, APP, connection=database_url) as mesh:
        await mesh.sub("t", slow)
        for number in range(10):
            mesh._member.subscribers.publish("t", 1, {"jid": "j", "gid": str(number)}, {"n": number})
            await asyncio.sleep(0)
        release.set()
        await eventually(lambda: len(told) == 4)
    assert told == [0, 7, 8, 9]


async def test_nobody_is_called_after_unsub_and_everybody_before_stop_returns(database_url: str) -> None:
    told: Told = []
    calls: list[int] = []
    release = asyncio.Event()

    async def slow(topic: str, output: JobOutput) -> None:
        calls.append(output.data["n"])
        await release.wait()

    async with mesh_on(database_url) as mesh:
        await mesh.sub("t", slow)
        await mesh.sub("t", told_by(told))
        for number in range(3):
            mesh._member.subscribers.publish("t", 1, {"jid": "j", "gid": str(number)}, {"n": number})
        await eventually(lambda: calls)
        await mesh.unsub("t", slow)
        release.set()
        mesh._member.subscribers.publish("t", 1, {"jid": "j", "gid": "last"}, {"n": 3})
    assert calls == [0]
    assert [output.data["n"] for _, output in told] == [0, 1, 2, 3]


# -- callers -------------------------------------------------------------------------------------------------


async def test_a_caller_is_answered_across_processes(database_url: str) -> None:
    async with apart(database_url) as (_, _, caller):
        found = await asyncio.gather(
            *(caller.pubsub("one", {"x": "ü" * size}, timeout=20) for size in (1, 4_000, 100_000))
        )
        assert [len(output.data["y"]) for output in found] == [1, 4_000, 100_000]
        assert caller._member.callers.waiting == 0


async def test_callers_that_leave_leave_nothing_behind(database_url: str) -> None:
    loop = asyncio.get_running_loop()
    async with mesh_on(database_url) as mesh:
        await mesh.deploy(one_worker(APP, more=MORE))
        await mesh.activate("1")
        complaints: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        try:
            for limit in (0, 0.05):
                with pytest.raises(JobTimeoutError) as caught:
                    await mesh.pubsub("one", {"x": 1}, timeout=limit)
                assert (caught.value.code, await mesh.get_status(str(caught.value.job_id))) == (504, 1)
            calls = [asyncio.create_task(mesh.pubsub("one", {"x": 1}, timeout=60)) for _ in range(5)]
            calls += [asyncio.create_task(mesh.pubsub("one", {"x": 1}, timeout=60))]
            waiting = mesh._member.callers._waiting
            await eventually(lambda: sum(caller.job_id is not None for caller in waiting.values()) == 6)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            early = asyncio.create_task(mesh.pubsub("one", {"x": 1}, timeout=60))
            await asyncio.sleep(0)
            early.cancel()  # before the job exists
            with pytest.raises(asyncio.CancelledError):
                await early
            with pytest.raises(JobError):
                await mesh.pubsub("one", {"x": 1}, timeout=60, extended={"id": caught.value.job_id})
        finally:
            loop.set_exception_handler(None)
        assert mesh._member.callers.waiting == 0
        assert await _rows(database_url) == []
        assert complaints == []


async def _rows(url: str) -> list[Any]:
    async with connected(url) as connection:
        return list(await connection.fetch("select * from hotmesh.subscription"))
