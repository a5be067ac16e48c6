"""A job that exists before it is started is, once started, what a job is that was created and started in one."""

from __future__ import annotations

from typing import Any

from model import NOW, one_graph
from msgspec.structs import replace

from hotmesh.core.advance.advance import advance, start
from hotmesh.core.advance.beginnings import FAILED_START_KEPT
from hotmesh.core.mapping import Environment
from hotmesh.core.state.job import Event, Job, MessageReceipt, StartRequest
from hotmesh.core.state.step import Step

ENVIRONMENT = Environment(now=NOW.timestamp, random=lambda: 0.5)

GENERATION = "01890000-0000-7000-8000-000000000000"

PLAN = one_graph(
    """
    expire: 60
    activities:
      trigger:
        type: trigger
        entity: '{$self.input.data.about}'
        stats: {key: '{$self.input.data.key}', measures: [{measure: sum, target: '{$self.input.data.n}'}]}
        job: {maps: {seen: {'@pipe': [['{$self.input.data.text}'], ['{@string.trim}']]}, _sku: 7}}
      one: {type: worker, topic: t, input: {maps: {n: '{trigger.output.data.n}'}}}
      two: {type: worker, topic: t}
      both: {type: hook, join: all}
    transitions:
      trigger: [{to: one}, {to: two}]
      one: [{to: both}]
      two: [{to: both}]
    """
)


def waiting(data: Any) -> Job:
    """The row that a caller's transaction has written."""
    return Job(
        app_id="model", job_id="j", generation=GENERATION, version="0", topic="go", seq=1, status=1, input=data,
        data={}, created_at=NOW, updated_at=NOW, covered=frozenset(),
    )  # fmt: skip


def started(data: Any, **options: Any) -> Step:
    event = Event("start", data=options, receipt=MessageReceipt("start"))
    return advance(PLAN, waiting(data), [event], NOW, ENVIRONMENT)


def test_it_is_what_it_would_be_had_it_been_created_so() -> None:
    data = {"about": "order", "key": "k", "n": 3, "text": " x "}
    created = start(PLAN, StartRequest("go", data, GENERATION, "j"), NOW, ENVIRONMENT)

    step = started(data)

    change, expected = step.jobs[0], created.jobs[0]
    assert change.started
    assert not change.created
    assert change.job == replace(expected.job, seq=2)
    assert change.search == expected.search == {"_sku": 7}
    assert step.consumed[0].receipt == MessageReceipt("start")
    assert (step.work, step.records, step.measures) == (created.work, created.records, created.measures)


def test_what_the_caller_gave_comes_first() -> None:
    event = Event("start", data={})
    job = replace(waiting({"about": "order", "text": ""}), entity="given")

    assert advance(PLAN, job, [event], NOW, ENVIRONMENT).jobs[0].job.entity == "given"


def test_a_pending_one_waits() -> None:
    change = started({"text": ""}, pending=5.0).jobs[0]

    assert (change.job.status, change.job.expire) == (-1, 5.0)
    assert not change.ended


def test_maps_that_fail_end_it_with_their_error() -> None:
    step = started({"text": 5})

    job = step.jobs[0].job
    assert (job.status, step.jobs[0].ended, job.data, job.expire) == (0, True, {}, FAILED_START_KEPT)
    assert isinstance(job.error, dict)
    assert "string.trim" in job.error["message"]
    assert step.work == ()


def test_one_that_was_interrupted_before_does_not_start() -> None:
    events = [Event("interrupt", data={}), Event("start", data={}, receipt=MessageReceipt("start"))]

    step = advance(PLAN, waiting({"text": ""}), events, NOW, ENVIRONMENT)

    assert step.jobs[0].job.interrupted
    assert step.work == ()
    assert len(step.consumed) == 1
