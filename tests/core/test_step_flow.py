"""The pure step: transitions, outcomes, errors, pending answers, cycles, completion."""

from __future__ import annotations

import json
from typing import Any

import pytest
from model import World, one_graph

from hotmesh.core.advance.limits import Limits
from hotmesh.core.state.job import Event, dimension_text
from hotmesh.errors import DuplicateJobError, MappingError, TopicNotFoundError

WORK = """
activities:
  t: {type: trigger}
  w:
    type: worker
    topic: work
    input: {maps: {x: '{t.output.data.x}'}}
    job: {maps: {y: '{$self.output.data.y}'}}
transitions:
  t: [{to: w}]
"""


def test_a_graph_with_nothing_but_a_trigger_is_complete_in_the_step_that_creates_it() -> None:
    world = World(one_graph("activities:\n  t: {type: trigger, job: {maps: {a: '{$self.input.data.a}'}}}\n"))
    job = world.start({"a": 1})

    assert (world.status(job), world.data(job)) == (0, {"a": 1})
    assert world.steps[0].jobs[0].ended


def test_a_worker_is_sent_its_mapped_input_and_its_answer_completes_the_job() -> None:
    world = World(one_graph(WORK))
    job = world.start({"x": 5})

    [work] = world.work.values()
    assert (work.topic, work.data, work.dimension, work.workflow_name) == ("work", {"x": 5}, (0, 0), "go")
    assert world.status(job) == 1

    world.answer("w", {"y": 6})
    assert (world.status(job), world.data(job)) == (0, {"y": 6})


def test_an_answer_counts_once() -> None:
    world = World(one_graph(WORK))
    job = world.start({})
    event = Event("answer", "w", (0, 0), data={"y": 1})

    world.work.clear()
    world.happen(job, event, event)
    assert (world.status(job), world.data(job)) == (0, {"y": 1})


def test_what_comes_after_the_end_is_consumed_and_changes_nothing() -> None:
    world = World(one_graph(WORK))
    job = world.start({})
    world.answer("w", {"y": 1})

    step = world.add(job, "w", (0, 0), {"y": 2}, guid="late")
    assert not step.jobs[0].ended
    assert (world.status(job), world.data(job), world.messages) == (0, {"y": 1}, {})


@pytest.mark.parametrize(
    ("code", "taken"),
    [
        (200, ["ok", "either", "always"]),
        (422, ["bad", "either", "always"]),
        (404, ["listed", "always"]),
        (201, ["always"]),
    ],
)
def test_the_code_of_an_answer_selects_the_transitions(code: int, taken: list[str]) -> None:
    plan = one_graph(
        """
        activities:
          t: {type: trigger}
          w: {type: worker, topic: work}
          ok: {type: hook, job: {maps: {ok: 1}}}
          bad: {type: hook, job: {maps: {bad: 1}}}
          listed: {type: hook, job: {maps: {listed: 1}}}
          either: {type: hook, job: {maps: {either: 1}}}
          always: {type: hook, job: {maps: {always: 1}}}
        transitions:
          t: [{to: w}]
          w:
            - {to: ok, conditions: {}}
            - {to: bad, conditions: {code: '422'}}
            - {to: listed, conditions: {code: ['404', 405]}}
            - {to: either, conditions: {code: [200, 422]}}
            - {to: always}
        """
    )
    world = World(plan)
    job = world.start({})
    world.answer("w", {}, code=code)
    assert sorted(world.data(job)) == sorted(taken)
    assert (world.status(job), world.error(job)) == (0, None)


def test_gate_and_strict_comparison_of_conditions() -> None:
    plan = one_graph(
        """
        activities:
          t: {type: trigger}
          either: {type: hook, job: {maps: {either: true}}}
          both: {type: hook, job: {maps: {both: true}}}
          text: {type: hook, job: {maps: {text: true}}}
        transitions:
          t:
            - to: either
              conditions:
                gate: or
                match: [{expected: 1, actual: '{t.output.data.a}'}, {expected: 1, actual: '{t.output.data.b}'}]
            - to: both
              conditions:
                match: [{expected: 1, actual: '{t.output.data.a}'}, {expected: 1, actual: '{t.output.data.b}'}]
            - to: text
              conditions: {match: [{expected: '1', actual: '{t.output.data.a}'}]}
        """
    )
    world = World(plan)
    assert world.data(world.start({"a": 1, "b": 2})) == {"either": True}
    assert world.data(world.start({"a": 1, "b": 1})) == {"either": True, "both": True}


# -- errors ----------------------------------------------------------------------------------------------


def test_an_error_without_a_transition_fails_the_job_and_is_told_once() -> None:
    world = World(one_graph(WORK))
    job = world.start({}, reply_to="me")
    world.answer("w", {"message": "no", "stack": "at line 1", "other": 1}, status="error", code=422)

    assert world.status(job) == 0
    assert world.error(job) == {"message": "no", "code": 422, "stack": "at line 1", "is_stream_error": True}
    [notice] = world.told(job)
    assert json.loads(notice.metadata["err"]) == world.error(job)
    assert notice.metadata["js"] == 0


@pytest.mark.parametrize(
    ("data", "code", "expected"),
    [
        (None, 200, {"message": "unknown", "code": 500}),
        ({"message": "m", "code": 409}, 200, {"message": "m", "code": 409}),
        ({"message": "m", "code": "409"}, 200, {"message": "m", "code": 409}),
        ({"message": "m", "code": 409}, 404, {"message": "m", "code": 404}),
        ("text", 500, {"message": "unknown", "code": 500}),
        (
            {"message": "m", "error": {"why": 1}, "id": 3},
            500,
            {"message": "m", "code": 500, "error": {"why": 1}},
        ),
    ],
)
def test_an_error_always_has_a_message_and_a_code(data: Any, code: int, expected: dict[str, Any]) -> None:
    world = World(one_graph(WORK))
    job = world.start({})
    world.answer("w", data, status="error", code=code)
    assert world.error(job) == {**expected, "is_stream_error": True}


HANDLED = """
activities:
  t: {type: trigger}
  w: {type: worker, topic: work, job: {maps: {data: '{$self.output.data}', why: '{$self.output.metadata.$error.message}'}}}
  h: {type: hook, job: {maps: {told: '{w.output.metadata.$error.message}', code: '{w.output.metadata.$error.code}'}}}
transitions:
  t: [{to: w}]
  w: [{to: h, conditions: {code: [404, 405]}}]
"""


def test_an_error_that_a_transition_takes_is_handled_and_can_be_read() -> None:
    world = World(one_graph(HANDLED))
    job = world.start({})
    world.answer("w", {"message": "gone"}, status="error", code=404)

    assert (world.status(job), world.error(job)) == (0, None)
    assert world.data(job) == {"why": "gone", "told": "gone", "code": 404}


def test_a_success_with_a_code_of_errors_binds_its_data() -> None:
    world = World(one_graph(HANDLED))
    job = world.start({})
    world.answer("w", {"a": 1}, code=404)
    assert (world.data(job), world.error(job)) == ({"data": {"a": 1}}, None)


SIBLING = """
publishes: gone
activities:
  t: {type: trigger}
  w: {type: worker, topic: work}
  s: {type: hook, sleep: 5, emit: true, job: {maps: {slept: '{$self.hook.data.timestamp}', done: false, $error: none}}}
  e: {type: hook, emit: true}
transitions:
  t: [{to: w}, {to: s}]
  s: [{to: e}]
"""


def test_after_an_error_siblings_go_on_and_nobody_is_told_again() -> None:
    world = World(one_graph(SIBLING))
    job = world.start({}, reply_to="me")
    world.answer("w", {"message": "no"}, status="error", code=500)

    assert world.status(job) == 1
    assert len(world.told(job)) == 1
    world.fire("s")
    assert world.status(job) == 0
    assert len(world.told(job)) == 1
    assert "slept" in world.data(job)


def test_an_error_sets_done_and_error_in_data_only_where_the_graph_maps_them() -> None:
    world = World(one_graph(SIBLING))
    job = world.start({})
    world.answer("w", {"message": "no", "stack": "s"}, status="error")
    assert world.data(job) == {"done": True, "$error": {"message": "no", "stack": "s", "code": 597}}

    world = World(one_graph(WORK))
    job = world.start({})
    world.answer("w", {"message": "no"}, status="error")
    assert world.data(job) == {}


# -- mapping errors --------------------------------------------------------------------------------------

BROKEN = {"@pipe": [["{t.output.data.x}"], ["{@array.join}"]]}
"""Raises for anything but an array."""


def broken(place: str) -> str:
    expression = json.dumps(BROKEN)
    activity = {
        "worker input": f"{{type: worker, topic: w, input: {{maps: {{a: {expression}}}}}}}",
        "worker topic": f"{{type: worker, topic: {expression}}}",
        "await topic": f"{{type: await, topic: {expression}}}",
        "await input": f"{{type: await, topic: child, input: {{maps: {{a: {expression}}}}}}}",
        "sleep": f"{{type: hook, sleep: {expression}}}",
        "hook output": f"{{type: hook, output: {{maps: {{a: {expression}}}}}}}",
        "hook job": f"{{type: hook, job: {{maps: {{a: {expression}}}}}}}",
        "waiting hook job": f"{{type: hook, sleep: 5, job: {{maps: {{a: {expression}}}}}}}",
        "threshold": f"{{type: hook, statusThreshold: {expression}}}",
        "emit": f"{{type: hook, emit: {expression}}}",
        "signal topic": f"{{type: signal, topic: {expression}}}",
        "signal map": f"{{type: signal, topic: s, signal: {{maps: {{a: {expression}}}}}}}",
        "signal without a key": "{type: signal, topic: s, signal: {maps: {a: 1}}}",
        "signal on an unknown topic": "{type: signal, topic: '{t.output.data.x}'}",
        "interrupt reason": f"{{type: interrupt, reason: {expression}}}",
        "interrupt target": f"{{type: interrupt, target: {expression}}}",
        "interrupt job": f"{{type: interrupt, job: {{maps: {{a: {expression}}}}}}}",
    }[place]
    return f"""
activities:
  t: {{type: trigger}}
  a: {activity}
  l: {{type: hook}}
transitions:
  t: [{{to: a}}]
hooks:
  s: [{{to: l, conditions: {{match: [{{expected: 'x', actual: '{{$self.hook.data.id}}'}}]}}}}]
"""


CHILD = "subscribes: child\nactivities:\n  c: {type: trigger}\n"


@pytest.mark.parametrize(
    "place",
    [
        "worker input", "worker topic", "await topic", "await input", "sleep", "hook output", "hook job",
        "waiting hook job", "threshold", "emit", "signal topic", "signal map", "signal without a key",
        "signal on an unknown topic", "interrupt reason", "interrupt target", "interrupt job",
    ],
)  # fmt: skip
def test_what_cannot_be_mapped_fails_its_activity_and_with_it_the_job(place: str) -> None:
    world = World(one_graph(broken(place), CHILD))
    job = world.start({"x": "text"}, reply_to="me")

    assert world.status(job) == 0
    assert world.error(job)["code"] == (404 if "unknown" in place else 500)
    assert world.error(job)["message"]
    assert len(world.told(job)) == 1
    assert not world.waits
    assert not world.timers


@pytest.mark.parametrize("place", ["worker input", "sleep", "hook job", "signal map", "interrupt reason"])
def test_what_cannot_be_mapped_can_be_handled_by_an_error_transition(place: str) -> None:
    graph = broken(place).replace("  t: [{to: a}]", "  t: [{to: a}]\n  a: [{to: z, conditions: {code: 500}}]")
    graph = graph.replace(
        "  l: {type: hook}", "  l: {type: hook}\n  z: {type: hook, job: {maps: {handled: true}}}"
    )
    world = World(one_graph(graph, CHILD))
    job = world.start({"x": "text"})
    assert (world.status(job), world.data(job), world.error(job)) == (0, {"handled": True}, None)


ANSWERED = """
activities:
  t: {{type: trigger}}
  w: {{type: worker, topic: work, {extra}}}
  n: {{type: hook, job: {{maps: {{n: 1}}}}}}
transitions:
  t: [{{to: w}}]
  w: [{{to: n, conditions: {condition}}}]
"""


def _answered(extra: str = "", condition: str = "{code: 200}") -> str:
    return ANSWERED.format(extra=extra, condition=condition)


ON_ANSWER = json.dumps(BROKEN).replace("t.output", "$self.output")


@pytest.mark.parametrize(
    "graph",
    [
        _answered(f"job: {{maps: {{a: {ON_ANSWER}}}}}"),
        _answered(f"emit: {ON_ANSWER}"),
        _answered(condition=f"{{match: [{{expected: 1, actual: {ON_ANSWER.replace('$self', 'w')}}}]}}"),
    ],
)
def test_an_answer_that_cannot_be_mapped_fails_its_activity(graph: str) -> None:
    world = World(one_graph(graph))
    job = world.start({})
    world.answer("w", {"x": 1})
    assert (world.status(job), world.error(job)["code"]) == (0, 500)


ON_EMIT = json.dumps({"@pipe": [["{$self.output.data.x}"], ["{@math.add}"], ["{@array.join}"]]})


def test_the_writes_of_an_activity_that_fails_are_undone() -> None:
    plan = one_graph(_answered(f"job: {{maps: {{early: 1}}}}, emit: {ON_EMIT}"))
    world = World(plan)
    job = world.start({"x": ["fine"]})
    world.answer("w", {})
    assert (world.status(job), world.data(job), world.error(job)["code"]) == (0, {}, 500)


def test_an_error_of_the_trigger_is_the_callers() -> None:
    plan = one_graph(
        f"activities:\n  t: {{type: trigger, job: {{maps: {{a: {json.dumps(BROKEN)}}}}}}}\n".replace(
            "{t.", "{$self."
        )
    )
    with pytest.raises(MappingError):
        World(plan).start({"x": 1})
    with pytest.raises(
        TopicNotFoundError, match="no subscription found for topic no in app model for app version 1"
    ):
        World(plan).start({}, topic="no")


# -- ids -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "job_id"),
    [({"id": "a"}, "a"), ({"id": 5}, "5"), ({"id": None}, "J1"), ({}, "J1"), ({"id": ""}, "J1")],
)
def test_a_job_id_that_resolves_to_nothing_is_generated(payload: dict[str, Any], job_id: str) -> None:
    world = World(one_graph("activities:\n  t: {type: trigger, stats: {id: '{$self.input.data.id}'}}\n"))
    assert world.jobs[world.start(payload)].job_id == job_id


@pytest.mark.parametrize("job_id", ["x" * 513, "a\0b"])
def test_a_job_id_that_cannot_be_stored_is_refused(job_id: str) -> None:
    world = World(one_graph("activities:\n  t: {type: trigger, stats: {id: '{$self.input.data.id}'}}\n"))
    with pytest.raises(MappingError, match="job id"):
        world.start({"id": job_id})


def test_text_that_was_cut_within_a_surrogate_pair_can_be_stored() -> None:
    cut = "{'@pipe': [['{$self.input.data.name}', 0, 2], ['{@string.slice}']]}"
    world = World(
        one_graph(
            f"activities:\n  t: {{type: trigger, stats: {{id: {cut}}}, job: {{maps: {{cut: {cut}}}}}}}\n"
        )
    )
    job = world.start({"name": "a😀"})
    assert (world.jobs[job].job_id, world.data(job)) == ("a\ufffd", {"cut": "a\ufffd"})


def test_a_taken_id_is_refused() -> None:
    world = World(one_graph("activities:\n  t: {type: trigger, stats: {id: '{$self.input.data.id}'}}\n"))
    world.start({"id": "a"})
    with pytest.raises(DuplicateJobError, match="Duplicate job: a"):
        world.start({"id": "a"})


# -- pending answers -------------------------------------------------------------------------------------

PENDING = """
activities:
  t: {type: trigger}
  w: {type: worker, topic: work, job: {maps: {percent: '{$self.output.data.percent}'}}}
  p: {type: worker, topic: progress, input: {maps: {percent: '{w.output.data.percent}'}}}
  d: {type: hook, job: {maps: {done: '{w.output.data.percent}'}}}
transitions:
  t: [{to: w}]
  w: [{to: p, conditions: {code: 202}}, {to: d, conditions: {code: 200}}]
"""


@pytest.mark.parametrize("in_memory", [True, False])
def test_each_pending_answer_is_a_pass_of_its_own_and_the_last_one_closes(in_memory: bool) -> None:
    world = World(one_graph(PENDING), in_memory=in_memory)
    job = world.start({})
    world.answer("w", {"percent": 10}, status="pending")
    world.add(job, "w", (0, 0), {"percent": 50}, guid="a", status="pending", code=202)
    world.add(job, "w", (0, 0), {"percent": 50}, guid="a", status="pending", code=202)  # a duplicate

    assert world.status(job) == 3
    assert {work.dimension: work.data for work in world.work.values()} == {
        (0, 0, 0): {"percent": 10},
        (0, 1, 0): {"percent": 50},
    }
    world.add(job, "w", (0, 0), {"percent": 99}, guid="b")
    world.add(job, "w", (0, 0), {"percent": 1}, guid="c")  # too late
    assert world.status(job) == 2
    assert world.data(job) == {"percent": 99, "done": 99}
    world.answer("p")
    world.answer("p")
    assert world.status(job) == 0


def test_an_error_may_end_pending_answers() -> None:
    world = World(one_graph(PENDING))
    job = world.start({})
    world.answer("w", {"percent": 10}, status="pending")
    world.add(job, "w", (0, 0), {"message": "broken"}, guid="a", status="error", code=500)
    assert (world.status(job), world.error(job)["message"]) == (1, "broken")
    assert {record.state for record in world.passes(job, "w").values()} == {"closed"}


def test_an_added_answer_may_be_the_first_and_takes_the_work_from_the_worker() -> None:
    world = World(one_graph(WORK))
    job = world.start({})
    world.add(job, "w", (0, 0), {"y": 1}, guid="outside")
    assert (world.status(job), world.data(job), world.work) == (0, {"y": 1}, {})


def test_a_pending_answer_that_cannot_be_mapped_closes_the_activity() -> None:
    graph = _answered(
        f"job: {{maps: {{a: {json.dumps(BROKEN).replace('t.output.data.x', '$self.output.data.x')}}}}}"
    )
    world = World(one_graph(graph))
    job = world.start({})
    world.answer("w", {"x": ["fine"]}, status="pending", code=202)
    world.add(job, "w", (0, 0), {"x": 1}, guid="a", status="pending", code=202)
    world.add(job, "w", (0, 0), {"x": ["fine"]}, guid="b")
    assert (world.status(job), world.error(job)["code"]) == (0, 500)


# -- cycles ----------------------------------------------------------------------------------------------

CYCLE = """
activities:
  t: {type: trigger}
  p: {type: hook, output: {maps: {n: 0, first: true}}, job: {maps: {first: '{$self.output.data.first}'}}}
  w:
    type: worker
    topic: work
    input: {maps: {n: '{p.output.data.n}', first: '{p.output.data.first}'}}
    job: {maps: {n: '{$self.output.data.n}'}}
  c: {type: cycle, ancestor: p, input: {maps: {n: '{w.output.data.n}'}}}
transitions:
  t: [{to: p}]
  p: [{to: w}]
  w: [{to: c, conditions: {match: [{expected: true, actual: {'@pipe': [['{w.output.data.n}', 5], ['{@conditional.less_than}']]}}]}}]
"""


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_cycle_gives_its_ancestor_new_passes_with_its_input_alone(in_memory: bool) -> None:
    world = World(one_graph(CYCLE), in_memory=in_memory)
    job = world.start({})
    sent = []
    while world.work:
        [work] = world.work.values()
        sent.append((dimension_text(work.dimension), work.data))
        world.answer("w", {"n": work.data["n"] + 1})

    assert sent == [
        (",0,0,0", {"n": 0, "first": True}),
        (",0,1,0", {"n": 1}),
        (",0,2,0", {"n": 2}),
        (",0,3,0", {"n": 3}),
        (",0,4,0", {"n": 4}),
    ]
    assert (world.status(job), world.data(job)) == (0, {"first": True, "n": 5})


@pytest.mark.parametrize("in_memory", [True, False])
def test_an_endless_cycle_ends_at_its_cap(in_memory: bool) -> None:
    world = World(one_graph(CYCLE), limits=Limits(max_cycles=3), in_memory=in_memory)
    job = world.start({})
    answers = 0
    while world.work:
        world.answer("w", {"n": 0})
        answers += 1

    assert answers == 4
    assert world.status(job) == 0
    assert world.error(job)["message"].startswith("Cycle limit exceeded for job J1 (")


SPIN = """
activities:
  t: {type: trigger}
  p: {type: hook, output: {maps: {n: 0}}}
  c: {type: cycle, ancestor: p, input: {maps: {n: {'@pipe': [['{p.output.data.n}', 1], ['{@math.add}']]}}}}
  d: {type: hook, job: {maps: {n: '{p.output.data.n}'}}}
transitions:
  t: [{to: p}]
  p:
    - {to: c, conditions: {match: [{expected: true, actual: {'@pipe': [['{p.output.data.n}', LIMIT], ['{@conditional.less_than}']]}}]}}
    - {to: d, conditions: {match: [{expected: false, actual: {'@pipe': [['{p.output.data.n}', LIMIT], ['{@conditional.less_than}']]}}]}}
"""


def test_a_long_cycle_runs_in_bounded_steps() -> None:
    world = World(
        one_graph(SPIN.replace("LIMIT", "20000")), limits=Limits(max_cycles=100_000), in_memory=False
    )
    world.check = lambda: None  # type: ignore[method-assign]  # looks at every record
    job = world.start({})
    while world.messages:
        key, message = next(iter(world.messages.items()))
        # Only the pass that goes on is loaded, not the history.
        loaded = world.load(key[0], [world.message_event(key)[1]])
        assert sum(map(len, loaded.records.values())) <= 8
        world.records = dict(list(world.records.items())[-1000:])
        world.handle(key)
        assert message.kind == "enter"

    assert (world.status(job), world.data(job)) == (0, {"n": 20000})
    assert 20 <= len(world.steps) <= 21
    assert max(len(step.records) for step in world.steps) <= 2_001


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_trigger_may_be_the_ancestor(in_memory: bool) -> None:
    plan = one_graph(
        """
        activities:
          t: {type: trigger, job: {maps: {n: '{$self.output.data.n}'}}}
          w: {type: worker, topic: work, input: {maps: {n: '{t.output.data.n}'}}}
          c: {type: cycle, ancestor: t, input: {maps: {n: '{w.output.data.n}'}}}
        transitions:
          t: [{to: w}]
          w: [{to: c, conditions: {code: 201}}]
        """
    )
    world = World(plan, in_memory=in_memory)
    job = world.start({"n": 1})
    world.answer("w", {"n": 2}, code=201)
    world.answer("w", {"n": 3}, code=201)
    assert [(work.dimension, work.data) for work in world.work.values()] == [((2, 0), {"n": 3})]
    world.answer("w", {"n": 4})
    assert (world.status(job), world.data(job)) == (0, {"n": 3})


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_pass_sees_only_what_ran_in_it(in_memory: bool) -> None:
    plan = one_graph(
        """
        activities:
          t: {type: trigger}
          p: {type: hook, output: {maps: {n: 0}}}
          o: {type: hook, output: {maps: {only: first}}}
          w: {type: worker, topic: work, input: {maps: {only: '{o.output.data.only}', n: '{p.output.data.n}'}}}
          c: {type: cycle, ancestor: p, input: {maps: {n: 1}}}
        transitions:
          t: [{to: p}]
          p:
            - {to: o, conditions: {match: [{expected: 0, actual: '{p.output.data.n}'}]}}
            - {to: w, conditions: {match: [{expected: 1, actual: '{p.output.data.n}'}]}}
          o: [{to: w}]
          w: [{to: c, conditions: {code: 201}}]
        """
    )
    world = World(plan, in_memory=in_memory)
    job = world.start({})
    assert [work.data for work in world.work.values()] == [{"only": "first", "n": 0}]
    world.answer("w", {}, code=201)
    assert [work.data for work in world.work.values()] == [{"n": 1}]
    world.answer("w", {})
    assert world.status(job) == 0


# -- two parents -----------------------------------------------------------------------------------------

TWO = """
activities:
  t: {type: trigger}
  a: {type: worker, topic: a}
  b: {type: worker, topic: b}
  w: {type: worker, topic: both, job: {maps: {last: '{$self.output.data.n}'}}}
transitions:
  t: [{to: a}, {to: b}]
  a: [{to: w}]
  b: [{to: w}]
"""


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("order", [["a", "b", "w", "w"], ["a", "w", "b", "w"]])
def test_two_parents_of_one_target_are_two_passes_each_released(order: list[str], in_memory: bool) -> None:
    world = World(one_graph(TWO), in_memory=in_memory)
    job = world.start({})
    for number, name in enumerate(order):
        world.answer(name, {"n": number})
    assert world.status(job) == 0
    assert list(world.passes(job, "w")) == [(0, 0, 0), (0, 0, 1)]
    assert world.data(job) == {"last": 3}


def test_branches_left_over_from_a_full_step_go_on_each_by_itself() -> None:
    graph = """
    activities:
      t: {type: trigger}
      a: {type: hook}
      b: {type: hook}
      w: {type: hook, job: {maps: {seen: 1}}}
    transitions:
      t: [{to: a}, {to: b}]
      a: [{to: w}]
      b: [{to: w}]
    """
    for limit in range(1, 6):
        world = World(one_graph(graph), limits=Limits(activities=limit), in_memory=False)
        job = world.start({})
        world.settle()
        assert world.status(job) == 0
        assert len(world.passes(job, "w")) == 2


# -- versions --------------------------------------------------------------------------------------------


def test_a_version_that_lacks_an_activity_fails_its_jobs_clearly() -> None:
    world = World(one_graph(TWO), in_memory=False)
    job = world.start({}, reply_to="me")
    world.plan = one_graph("activities:\n  t: {type: trigger}\n")
    world.answer("a")
    world.answer("b")

    assert world.status(job) == 0
    assert world.error(job)["code"] == 598
    assert "has no activity a" in world.error(job)["message"]
    assert len(world.told(job)) == 1


def test_a_version_that_lacks_the_graph_fails_its_jobs_clearly() -> None:
    world = World(one_graph(WORK), in_memory=False)
    job = world.start({})
    world.plan = one_graph("activities:\n  x: {type: trigger}\n".replace("go", "other"))
    world.plan.graphs.clear()
    world.answer("w")
    assert (world.status(job), world.error(job)["code"]) == (0, 598)
