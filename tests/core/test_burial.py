"""The step that ends a job which no engine could go on with."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from model import World, environment, one_graph

from hotmesh.core.advance.endings import bury
from hotmesh.core.advance.limits import Limits
from hotmesh.core.plan.compile import Plan
from hotmesh.core.state.step import Step

GRAPH = """
publishes: went
expire: {expire}
activities:
  t: {{type: trigger}}
  w: {{type: worker, topic: work}}
transitions:
  t: [{{to: w}}]
"""

PARENT = """
subscribes: parent
activities:
  begin: {type: trigger}
  ask: {type: await, topic: go}
transitions:
  begin: [{to: ask}]
"""

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def buried(world: World, generation: str, plan: Plan | None) -> Step:
    """The step, from what is known of the job without its records."""
    return bury(plan, world.load(generation, ()), "no way", NOW, environment(), Limits(expire=7.0))


@pytest.mark.parametrize(
    ("expire", "kept"), [("600", 600.0), ("'{t.output.data.none}'", 1.0), ("'{t.output.data.keep}'", 30.0)]
)
def test_it_ends_with_an_error_expires_as_any_other_and_drops_what_is_open(expire: str, kept: float) -> None:
    world = World(one_graph(GRAPH.format(expire=expire)))
    job = world.start({"keep": 30}, reply_to="me")

    [change] = buried(world, job, world.plan).jobs
    assert change.job.status == 1 - 1_000_000_000
    assert change.job.error == {"message": "no way", "code": 598, "is_stream_error": True}
    assert (change.ended, change.dropped, change.expected_seq) == (True, True, 1)
    assert change.job.expire == kept


def test_its_caller_and_the_subscribers_of_its_graph_are_told() -> None:
    world = World(one_graph(GRAPH.format(expire=60)))
    job = world.start({}, reply_to="me")

    [notice] = buried(world, job, world.plan).notices
    assert (notice.reply_to, notice.topic) == ("me", "went")
    assert '"code":598' in notice.metadata["err"]


def test_its_parent_is_told_unless_it_was_told_before() -> None:
    world = World(one_graph(GRAPH.format(expire=60), PARENT))
    world.start({}, topic="parent")
    [child] = [job.generation for job in world.jobs.values() if job.topic == "go"]

    [message] = buried(world, child, world.plan).messages
    assert (message.kind, message.status, message.code) == ("result", "error", 598)
    assert message.data["message"] == "no way"


def test_a_version_that_is_gone_is_not_needed() -> None:
    world = World(one_graph(GRAPH.format(expire=60)))
    job = world.start({}, reply_to="me")

    step = buried(world, job, None)
    assert step.jobs[0].ended
    assert step.jobs[0].job.expire == 7.0
    assert [notice.reply_to for notice in step.notices] == ["me"]


def test_a_job_that_has_ended_keeps_its_end() -> None:
    world = World(one_graph(GRAPH.format(expire=60)))
    job = world.start({})
    world.answer("w", {})

    step = buried(world, job, world.plan)
    [change] = step.jobs
    assert (change.job.status, change.job.error, change.ended, change.dropped) == (0, None, False, True)
    assert (step.notices, step.messages) == ((), ())
