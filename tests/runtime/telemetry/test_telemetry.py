"""Spans: one trace from the caller through processes, callbacks and children, and every parent is a span that exists."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from harness import connected, eventually, settled
from hotmesh import ConfigError, HotMesh, JobError, Response, Worker

pytestmark = pytest.mark.anyio

GRAPH = """
app:
  id: traced
  version: '1'
  graphs:
    - subscribes: parent
      expire: 3600
      activities:
        t1: {type: trigger, telemetry: {order: '{$self.output.data.order}', deep: {not: exported}}}
        w1:
          type: worker
          topic: first
          input: {maps: {order: '{t1.output.data.order}'}}
          telemetry: {done: '{$self.output.data.done}', order: '{t1.output.data.order}'}
        h1: {type: hook}
        h2: {type: hook, telemetry: {order: '{t1.output.data.order}'}}
        a1:
          type: await
          topic: child
          job: {maps: {answer: '{$self.output.data.answer}'}}
      transitions:
        t1: [{to: w1}]
        w1: [{to: h1}]
        h1: [{to: h2}]
        h2: [{to: a1}]
    - subscribes: child
      expire: 3600
      activities:
        t2: {type: trigger}
        w2: {type: worker, topic: second, input: {maps: {how: '{t2.output.data.how}'}}, job: {maps: {answer: '{$self.output.data.answer}'}}}
      transitions:
        t2: [{to: w2}]
    - subscribes: waits
      expire: 3600
      activities:
        t3: {type: trigger}
        h3: {type: hook, telemetry: {ok: '{$self.hook.data.ok}'}}
        w3: {type: worker, topic: first}
      transitions:
        t3: [{to: h3}]
        h3: [{to: w3}]
      hooks:
        waited:
          - to: h3
            conditions: {match: [{expected: '{$job.metadata.jid}', actual: '{$self.hook.data.id}'}]}
    - subscribes: circles
      expire: 3600
      activities:
        t4: {type: trigger}
        p4: {type: hook, cycle: true, output: {maps: {n: 1}}}
        w4: {type: worker, topic: count, input: {maps: {n: '{p4.output.data.n}'}}}
        x4: {type: worker, topic: first}
        y4: {type: worker, topic: first}
        j4: {type: hook, join: all, telemetry: {n: 1}}
        c4: {type: cycle, ancestor: p4, input: {maps: {n: '{w4.output.data.n}'}}}
      transitions:
        t4: [{to: p4}]
        p4: [{to: w4}]
        w4:
          - to: c4
            conditions: {match: [{expected: true, actual: '{$self.output.data.more}'}]}
          - to: x4
            conditions: {match: [{expected: false, actual: '{$self.output.data.more}'}]}
          - to: y4
            conditions: {match: [{expected: false, actual: '{$self.output.data.more}'}]}
        x4: [{to: j4}]
        y4: [{to: j4}]
"""


class Recorded:
    """What a provider of the test's own has exported."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.spans if span.name == name]
        return found

    @property
    def names(self) -> list[str]:
        return sorted(span.name for span in self.spans)


def number(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    return f"{context.span_id:016x}"


def trace_of(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}"


def parent(span: ReadableSpan) -> str | None:
    return None if span.parent is None else f"{span.parent.span_id:016x}"


def assert_whole(spans: list[ReadableSpan], *outside: str) -> None:
    """Every span has an id of its own and a parent that was recorded, or one of those `outside`."""
    ids = [number(span) for span in spans]
    assert len(ids) == len(set(ids))
    lost = {
        span.name: parent(span)
        for span in spans
        if parent(span) is not None and parent(span) not in {*ids, *outside}
    }
    assert lost == {}


async def first(message: Any) -> Any:
    return {"done": True}


async def second(message: Any) -> Any:
    return {"answer": 42}


@asynccontextmanager
async def traced(url: str, recorded: Recorded, **more: Any) -> AsyncIterator[HotMesh]:
    workers = more.pop("workers", [Worker("first", first), Worker("second", second)])
    async with HotMesh.init(
        "traced", connection=url, tracer_provider=recorded.provider, workers=workers, **more
    ) as mesh:
        await mesh.deploy(GRAPH)
        await mesh.activate("1")
        yield mesh


PARENT = [
    "EXECUTE/traced/w1/first", "EXECUTE/traced/w2/second", "HOOK/traced/h2/1", "JOB/traced/child/1", "JOB/traced/child/2",
    "JOB/traced/parent/1", "JOB/traced/parent/2", "TRIGGER/traced/t1/1", "TRIGGER/traced/t2/1", "WORKER/traced/w1/1",
    "WORKER/traced/w1/2", "WORKER/traced/w2/1", "WORKER/traced/w2/2",
]  # fmt: skip


@pytest.mark.row(361)
async def test_one_trace_from_the_caller_to_the_child_and_back(database_url: str) -> None:
    recorded = Recorded()
    tracer = recorded.provider.get_tracer("shop")

    async def calls(message: Any) -> Any:
        with tracer.start_as_current_span("charge"):
            return {"done": True}

    workers = [Worker("first", calls), Worker("second", second)]
    async with traced(database_url, recorded, workers=workers) as mesh:
        with tracer.start_as_current_span("request") as request:
            output = await mesh.pubsub("parent", {"order": "A1"}, timeout=10)
        caller = request.get_span_context()
        assert output.data == {"answer": 42}
        assert output.metadata.trc == f"{caller.trace_id:032x}"
        await eventually(lambda: len(recorded.spans) == len(PARENT) + 2)

    assert recorded.names == sorted([*PARENT, "charge", "request"])
    assert {trace_of(span) for span in recorded.spans} == {f"{caller.trace_id:032x}"}
    assert_whole(recorded.spans)
    links = {
        "JOB/traced/parent/1": "request",
        "TRIGGER/traced/t1/1": "JOB/traced/parent/1",
        "WORKER/traced/w1/1": "TRIGGER/traced/t1/1",
        "EXECUTE/traced/w1/first": "WORKER/traced/w1/1",
        "charge": "EXECUTE/traced/w1/first",
        "WORKER/traced/w1/2": "WORKER/traced/w1/1",
        "HOOK/traced/h2/1": "WORKER/traced/w1/2",
        "JOB/traced/child/1": "HOOK/traced/h2/1",
        "TRIGGER/traced/t2/1": "JOB/traced/child/1",
        "EXECUTE/traced/w2/second": "WORKER/traced/w2/1",
        "JOB/traced/parent/2": "JOB/traced/parent/1",
    }
    for name, above in links.items():
        assert parent(recorded.named(name)) == number(recorded.named(above)), name


async def test_spans_say_what_they_are_about(database_url: str) -> None:
    recorded = Recorded()
    async with traced(database_url, recorded) as mesh:
        output = await mesh.pubsub("parent", {"order": "A1"}, timeout=10)
        job_id = output.metadata.jid
        await eventually(lambda: len(recorded.spans) == len(PARENT))

    job = recorded.named("JOB/traced/parent/1")
    assert job.kind is SpanKind.CLIENT
    assert job.instrumentation_scope is not None
    assert (job.instrumentation_scope.name, parent(job)) == ("hotmesh", None)
    attributes = dict(job.attributes or {})
    assert (attributes["app.job.jid"], attributes["app.job.tpc"], attributes["app.job.jss"]) == (
        job_id,
        "parent",
        1,
    )
    assert "app.job.trc" not in attributes
    whole = recorded.named("JOB/traced/parent/2")
    assert (whole.attributes or {})["app.job.jss"] == 0
    assert whole.start_time is not None
    assert whole.end_time is not None
    assert job.end_time is not None
    assert whole.end_time > job.end_time
    assert whole.start_time <= job.end_time

    trigger = dict(recorded.named("TRIGGER/traced/t1/1").attributes or {})
    assert trigger["app.activity.data.order"] == "A1"
    assert "app.activity.data.deep" not in trigger
    entered = dict(recorded.named("WORKER/traced/w1/1").attributes or {})
    answered = dict(recorded.named("WORKER/traced/w1/2").attributes or {})
    assert (entered["app.activity.leg"], answered["app.activity.leg"]) == (1, 2)
    assert (answered["app.activity.aid"], answered["app.activity.dad"]) == ("w1", ",0,0")
    assert (answered["app.activity.data.done"], answered["app.activity.data.order"]) == (True, "A1")
    assert "app.activity.data.order" not in entered
    executed = dict(recorded.named("EXECUTE/traced/w1/first").attributes or {})
    assert (executed["app.stream.jid"], executed["app.stream.aid"]) == (job_id, "w1")
    assert executed["app.worker.mid"] == answered["app.activity.mid"] == executed["app.stream.guid"]
    assert not {"app.stream.trc", "app.stream.spn"} & executed.keys()


async def test_in_debug_every_activity_has_its_spans(database_url: str) -> None:
    recorded = Recorded()
    async with traced(database_url, recorded, telemetry="debug") as mesh:
        await mesh.pubsub("parent", {"order": "A1"}, timeout=10)
        await eventually(lambda: "JOB/traced/parent/2" in recorded.names)

    assert {"HOOK/traced/h1/1", "AWAIT/traced/a1/1", "AWAIT/traced/a1/2", "FANIN/traced/a1/child"} <= {
        *recorded.names
    }
    assert_whole(recorded.spans)
    links = {
        "HOOK/traced/h1/1": "WORKER/traced/w1/2",
        "AWAIT/traced/a1/1": "HOOK/traced/h2/1",
        "JOB/traced/child/1": "AWAIT/traced/a1/1",
        "AWAIT/traced/a1/2": "AWAIT/traced/a1/1",
    }
    for name, above in links.items():
        assert parent(recorded.named(name)) == number(recorded.named(above)), name


async def test_a_hook_with_a_telemetry_block_has_both_legs(database_url: str) -> None:
    recorded = Recorded()
    async with traced(database_url, recorded) as mesh:
        job_id = await mesh.pub("waits", {})
        await mesh.signal("waited", {"id": job_id, "ok": "yes"})
        await eventually(lambda: "JOB/traced/waits/2" in recorded.names)

    answered = recorded.named("HOOK/traced/h3/2")
    assert (answered.attributes or {})["app.activity.data.ok"] == "yes"
    assert parent(answered) == number(recorded.named("HOOK/traced/h3/1"))
    assert parent(recorded.named("WORKER/traced/w3/1")) == number(answered)
    assert_whole(recorded.spans)


async def test_cycles_and_joins_hang_together(database_url: str) -> None:
    async def count(message: Any) -> Any:
        return {"n": message.data["n"] + 1, "more": message.data["n"] < 3}

    workers = [Worker("first", first), Worker("count", count)]
    for mode in ("info", "debug"):
        recorded = Recorded()
        async with traced(database_url, recorded, workers=workers, telemetry=mode) as mesh:
            await mesh.pub("circles", {})
            await eventually(lambda: "JOB/traced/circles/2" in recorded.names)  # noqa: B023

        assert recorded.names.count("WORKER/traced/w4/2") == 3
        assert_whole(recorded.spans)
        joined = parent(recorded.named("HOOK/traced/j4/1"))
        assert joined in {number(recorded.named(f"WORKER/traced/{name}/2")) for name in ("x4", "y4")}


async def test_an_error_marks_the_spans(database_url: str) -> None:
    recorded = Recorded()

    async def fails(message: Any) -> Any:
        if message.data["how"] == "raise":
            raise RuntimeError("the card was declined")
        return Response({"message": "no stock"}, status="error", code=409)

    workers = [Worker("second", fails)]
    async with traced(database_url, recorded, workers=workers) as mesh:
        for how, said, told in (
            ("raise", "the card was declined", "the card was declined"),
            ("answer", "Function Status Code 409", "no stock"),
        ):
            recorded.exporter.clear()
            with pytest.raises(JobError):
                await mesh.pubsub("child", {"how": how}, timeout=10)
            await eventually(lambda: "JOB/traced/child/2" in recorded.names)
            for name, text in (
                ("EXECUTE/traced/w2/second", said),
                ("WORKER/traced/w2/2", told),
                ("JOB/traced/child/2", told),
            ):
                status = recorded.named(name).status
                assert (status.status_code, status.description) == (StatusCode.ERROR, text), name
            assert recorded.named("WORKER/traced/w2/1").status.status_code is StatusCode.UNSET


async def test_a_trace_of_the_context_is_continued_and_reaches_the_callback(database_url: str) -> None:
    recorded, seen = Recorded(), []

    async def looks(message: Any) -> Any:
        seen.append((message.metadata.trc, message.metadata.spn))
        return {"done": True}

    given = {"trc": "0af7651916cd43dd8448eb211c80319c", "spn": "b7ad6b7169203331"}
    workers = [Worker("first", looks), Worker("second", second)]
    async with traced(database_url, recorded, workers=workers) as mesh:
        job_id = await mesh.pub("parent", {}, context={"metadata": given})
        await eventually(lambda: "JOB/traced/parent/2" in recorded.names)
        assert (await mesh.get_state("parent", job_id)).metadata.trc == given["trc"]

    job = recorded.named("JOB/traced/parent/1")
    assert (trace_of(job), parent(job)) == (given["trc"], given["spn"])
    assert seen == [(given["trc"], number(recorded.named("WORKER/traced/w1/1")))]
    assert_whole(recorded.spans, given["spn"])


async def test_plain_functions_have_their_span_in_their_thread(database_url: str) -> None:
    recorded = Recorded()
    seen = []

    def looks(message: Any) -> Any:
        seen.append(trace.get_current_span().get_span_context().span_id)
        return {"done": True}

    async with traced(
        database_url, recorded, workers=[Worker("first", looks), Worker("second", second)]
    ) as mesh:
        await mesh.pubsub("parent", {}, timeout=10)

    assert seen == [int(number(recorded.named("EXECUTE/traced/w1/first")), 16)]


async def test_what_is_not_sampled_is_not_recorded_anywhere(database_url: str) -> None:
    recorded = Recorded(sampler=ParentBased(ALWAYS_OFF))
    tracer = recorded.provider.get_tracer("shop")
    seen = []

    async def looks(message: Any) -> Any:
        with tracer.start_as_current_span("charge") as span:
            seen.append(f"{span.get_span_context().trace_id:032x}")
        return {"done": True}

    async with traced(
        database_url, recorded, workers=[Worker("first", looks), Worker("second", second)]
    ) as mesh:
        output = await mesh.pubsub("parent", {}, timeout=10)

    assert seen == [output.metadata.trc]
    assert recorded.spans == []


async def test_a_step_that_is_computed_again_is_recorded_once(database_url: str) -> None:
    recorded = Recorded()
    async with traced(database_url, recorded) as mesh:
        other = await HotMesh.init("traced", connection=database_url, telemetry=False)
        # Every deploy raises the epoch, so that steps on their way are refused and computed again.
        jobs = [asyncio.create_task(mesh.pubsub("parent", {"order": str(n)}, timeout=20)) for n in range(30)]
        for _ in range(3):
            await other.deploy(GRAPH)
            await other.activate("1")
        await asyncio.gather(*jobs)
        await other.stop()
        async with connected(database_url) as connection:
            await settled(connection, "traced")
        await eventually(lambda: recorded.names.count("JOB/traced/parent/2") == 30)

    for name in PARENT:
        assert recorded.names.count(name) == 30, name
    assert_whole(recorded.spans)


async def test_without_a_provider_nothing_is_imported_nor_asked(database_url: str) -> None:
    program = (
        "import asyncio, sys\n"
        "from hotmesh import HotMesh\n"
        "async def main():\n"
        f"    async with HotMesh.init('traced', connection={database_url!r}) as mesh:\n"
        "        assert mesh._member.surroundings.telemetry is None\n"
        "asyncio.run(main())\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'prometheus'))])\n"
    )
    result = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.stdout, result.stderr) == ("[]\n", "")


async def test_a_mode_that_does_not_exist_is_refused(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong: Any = "everything"
    with pytest.raises(ConfigError, match="telemetry="):
        HotMesh.init("traced", connection=database_url, telemetry=wrong)
    monkeypatch.setenv("HMSH_TELEMETRY", "everything")
    with pytest.raises(ConfigError, match="HMSH_TELEMETRY"):
        HotMesh.init("traced", connection=database_url)


WORKING = """
import asyncio, json, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from hotmesh import HotMesh, Worker

exporter = InMemorySpanExporter()
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))

async def call(message):
    with trace.get_tracer("worker").start_as_current_span("own"):
        return {"done": True, "answer": 42}

async def main():
    async with HotMesh.init("traced", connection=sys.argv[1], workers=[Worker("first", call), Worker("second", call)]):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
    for span in exporter.get_finished_spans():
        parent = span.parent and span.parent.span_id
        print(json.dumps([span.name, span.context.trace_id, span.context.span_id, parent]))

asyncio.run(main())
"""


async def test_two_processes_make_one_trace(database_url: str) -> None:
    recorded = Recorded()
    async with traced(database_url, recorded, workers=[], readonly=True) as mesh:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WORKING, database_url, env=os.environ,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        output = await mesh.pubsub("parent", {"order": "A1"}, timeout=20)
        there, _ = await process.communicate(b"\n")
    assert output.data == {"answer": 42}

    spans = [json.loads(line) for line in there.splitlines()]
    spans += [
        [span.name, int(trace_of(span), 16), int(number(span), 16), int(parent(span) or "0", 16) or None]
        for span in recorded.spans
    ]
    assert sorted(span[0] for span in spans) == sorted([*PARENT, "own", "own"])
    assert {span[1] for span in spans} == {int(output.metadata.trc, 16)}
    ids = {span[2] for span in spans}
    assert [span[0] for span in spans if span[3] not in ids] == ["JOB/traced/parent/1"]
    assert "JOB/traced/parent/1" in {span.name for span in recorded.spans}
    assert "WORKER/traced/w1/2" not in {span.name for span in recorded.spans}


async def test_a_job_of_a_transaction_belongs_to_the_trace_of_its_caller(database_url: str) -> None:
    recorded = Recorded()
    tracer = recorded.provider.get_tracer("shop")
    async with traced(database_url, recorded) as mesh, connected(database_url) as connection:
        with tracer.start_as_current_span("request") as request:
            async with connection.transaction():
                await mesh.pub("parent", {"order": "A1"}, connection=connection)
        await settled(connection, "traced")
        await eventually(lambda: len(recorded.spans) == len(PARENT) + 1)

    assert recorded.names == sorted([*PARENT, "request"])
    assert {trace_of(span) for span in recorded.spans} == {f"{request.get_span_context().trace_id:032x}"}
    assert_whole(recorded.spans)
    assert parent(recorded.named("JOB/traced/parent/1")) == number(recorded.named("request"))
