"""Joins: several branches come together at one activity."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from model import World, one_graph

from hotmesh.core.advance.limits import Limits


def _graph(branches: dict[str, str], join: str = "all", more: str = "", conditions: str = "") -> str:
    activities = "".join(f"  {name}: {body}\n" for name, body in branches.items())
    edges = ", ".join(f"{{to: {name}}}" for name in branches)
    ends = "".join(f"  {name}: [{{to: j{conditions}}}]\n" for name in branches)
    reads = ", ".join(f"{name}: '{{{name}.output.data.n}}'" for name in branches)
    return f"""
activities:
  t: {{type: trigger}}
{activities}  j: {{type: hook, join: {join}, output: {{maps: {{{reads}}}}}, job: {{maps: {{joined: '{{$self.output.data}}'}}}}}}
{more}transitions:
  t: [{edges}]
{ends}"""


WORK = "{type: worker, topic: work}"
PASS = "{type: hook, output: {maps: {n: 1}}}"


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("order", list(permutations("abc")))
def test_a_join_runs_once_when_all_have_arrived(order: tuple[str, ...], in_memory: bool) -> None:
    world = World(one_graph(_graph(dict.fromkeys("abc", WORK))), in_memory=in_memory)
    job = world.start({})
    for name in order[:2]:
        world.answer(name, {"n": name})
        assert not world.passes(job, "j")
    world.answer(order[2], {"n": order[2]})
    assert (world.status(job), world.data(job)) == (0, {"joined": {"a": "a", "b": "b", "c": "c"}})
    assert list(world.passes(job, "j")) == [(0, 0, 0)]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 1000])
def test_a_join_of_branches_that_only_compute_runs_once_however_steps_are_cut(limit: int) -> None:
    world = World(one_graph(_graph({"a": PASS, "b": PASS})), limits=Limits(activities=limit), in_memory=False)
    job = world.start({})
    world.settle()
    assert (world.status(job), world.data(job), len(world.passes(job, "j"))) == (
        0,
        {"joined": {"a": 1, "b": 1}},
        1,
    )


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_branch_that_cannot_arrive_does_not_block(in_memory: bool) -> None:
    graph = _graph({"a": WORK, "b": WORK}, conditions=", conditions: {code: 200}")
    for order in (("a", "b"), ("b", "a")):
        world = World(one_graph(graph), in_memory=in_memory)
        job = world.start({})
        for name in order:
            world.answer(name, {"n": name}, code=200 if name == "a" else 404)
        assert (world.status(job), len(world.passes(job, "j"))) == (0, 1)
        assert world.data(job) == {"joined": {"a": "a", "b": "b"}}


def test_a_join_that_no_branch_reaches_does_not_run() -> None:
    world = World(one_graph(_graph({"a": WORK, "b": WORK}, conditions=", conditions: {code: 201}")))
    job = world.start({})
    world.answer("a")
    world.answer("b")
    assert (world.status(job), world.passes(job, "j")) == (0, {})


def test_a_branch_that_fails_does_not_block() -> None:
    world = World(one_graph(_graph({"a": WORK, "b": WORK}, conditions=", conditions: {code: 200}")))
    job = world.start({})
    world.answer("a", {"n": 1})
    world.answer("b", {"message": "no"}, status="error")
    assert (world.status(job), world.error(job)["message"]) == (0, "no")
    assert world.data(job) == {"joined": {"a": 1}}


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("order", list(permutations("abc")))
def test_a_join_of_any_runs_with_the_first(order: tuple[str, ...], in_memory: bool) -> None:
    world = World(one_graph(_graph(dict.fromkeys("abc", WORK), join="any")), in_memory=in_memory)
    job = world.start({})
    for number, name in enumerate(order):
        world.answer(name, {"n": name})
        assert len(world.passes(job, "j")) == 1
        assert world.status(job) == 2 - number
    assert world.data(job) == {"joined": {order[0]: order[0]}}
    assert world.jobs[job].open == {}


def test_the_first_of_any_that_waits_keeps_the_others_out() -> None:
    graph = _graph({"a": WORK, "b": WORK}, join="any").replace(
        "j: {type: hook", "j: {type: worker, topic: joined"
    )
    world = World(one_graph(graph), in_memory=False)
    job = world.start({})
    world.answer("a")
    assert world.status(job) == 2
    world.answer("j")
    assert world.status(job) == 1
    world.answer("b")
    assert (world.status(job), len(world.passes(job, "j"))) == (0, 1)


LOOP = """
activities:
  t: {type: trigger}
  p: {type: hook, output: {maps: {n: 0}}}
  a: {type: worker, topic: work}
  b: {type: hook, output: {maps: {n: '{p.output.data.n}'}}}
  b2: {type: worker, topic: work}
  j: {type: hook, join: JOIN, output: {maps: {n: {'@pipe': [['{b.output.data.n}', 1], ['{@math.add}']]}}}}
  c: {type: cycle, ancestor: p, input: {maps: {n: '{j.output.data.n}'}}}
  d: {type: hook, job: {maps: {n: '{j.output.data.n}'}}}
transitions:
  t: [{to: p}]
  p: [{to: a}, {to: b}]
  a: [{to: j}]
  b: [{to: b2}]
  b2: [{to: j}]
  j:
    - {to: c, conditions: {match: [{expected: true, actual: {'@pipe': [['{b.output.data.n}', 4], ['{@conditional.less_than}']]}}]}}
    - {to: d, conditions: {match: [{expected: 4, actual: '{b.output.data.n}'}]}}
"""


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("names", [["a", "b2"], ["b2", "a"]])
def test_each_pass_of_a_cycle_has_a_join_of_its_own(names: list[str], in_memory: bool) -> None:
    world = World(one_graph(LOOP.replace("JOIN", "all")), in_memory=in_memory)
    job = world.start({})
    for _ in range(5):
        for name in names:
            world.answer(name)
    assert (world.status(job), world.data(job)) == (0, {"n": 5})
    assert len(world.passes(job, "j")) == 5
    assert world.jobs[job].open == {}


def test_late_branches_of_earlier_passes_do_not_run_a_join_of_any_again() -> None:
    world = World(one_graph(LOOP.replace("JOIN", "any")), in_memory=False)
    job = world.start({})
    for turn in range(5):
        world.answer("a", dimension=(0, turn, 0))
    assert (world.status(job), world.data(job)) == (5, {"n": 5})
    for _ in range(5):
        world.answer("b2")
    assert (world.status(job), len(world.passes(job, "j")), world.jobs[job].open) == (0, 5, {})


SIDE_LOOP = """
activities:
  t: {type: trigger}
  a: {type: worker, topic: work}
  p: {type: hook, output: {maps: {n: 0}}}
  w: {type: worker, topic: work}
  c: {type: cycle, ancestor: p, input: {maps: {n: '{w.output.data.n}'}}}
  j: {type: hook, join: all, job: {maps: {n: '{w.output.data.n}', p: '{p.output.data.n}', a: '{a.output.data.n}'}}}
  z: {type: hook, sleep: 1}
  y: {type: hook, job: {maps: {later: '{w.output.data.n}'}}}
transitions:
  t: [{to: a}, {to: p}]
  a: [{to: j}]
  p: [{to: w}]
  w: [{to: c, conditions: {code: 201}}, {to: j, conditions: {code: 200}}]
  j: [{to: z}]
  z: [{to: y}]
"""


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("order", ["aw", "wa"])
def test_a_branch_may_go_round_a_cycle_before_it_arrives(order: str, in_memory: bool) -> None:
    world = World(one_graph(SIDE_LOOP), in_memory=in_memory)
    job = world.start({})
    answers: dict[str, Any] = {
        "a": lambda: world.answer("a", {"n": "a"}),
        "w": lambda: world.answer("w", {"n": 3}),
    }
    world.answer("w", {"n": 1}, code=201)
    world.answer("w", {"n": 2}, code=201)
    for name in order:
        answers[name]()
    assert world.data(job) == {"n": 3, "p": 2, "a": "a"}
    world.fire("z")
    assert (world.status(job), world.data(job)["later"], len(world.passes(job, "j"))) == (0, 3, 1)


CHAIN = """
activities:
  t: {type: trigger}
  a: {type: worker, topic: work}
  b: {type: worker, topic: work}
  c: {type: worker, topic: work}
  j1: {type: hook, join: all, job: {maps: {first: 1}}}
  j2: {type: hook, join: all, job: {maps: {second: '{$job.data.first}'}}}
transitions:
  t: [{to: a}, {to: b}, {to: c}]
  a: [{to: j1}]
  b: [{to: j1, conditions: {code: 200}}]
  j1: [{to: j2}]
  c: [{to: j2}]
"""


@pytest.mark.parametrize("code", [200, 404])
@pytest.mark.parametrize("order", list(permutations("abc")))
def test_a_join_waits_for_the_join_before_it(order: tuple[str, ...], code: int) -> None:
    world = World(one_graph(CHAIN), in_memory=False)
    job = world.start({})
    for name in order:
        world.answer(name, code=code if name == "b" else 200)
    assert (world.status(job), world.data(job)) == (0, {"first": 1, "second": 1})
    assert [len(world.passes(job, name)) for name in ("j1", "j2")] == [1, 1]


def test_branches_of_pending_answers_join_by_pass() -> None:
    plan = one_graph(
        """
        activities:
          t: {type: trigger}
          w: {type: worker, topic: work}
          a: {type: hook, output: {maps: {n: '{w.output.data.n}'}}}
          b: {type: worker, topic: slow, input: {maps: {n: '{w.output.data.n}'}}}
          j: {type: worker, topic: joined, join: all, input: {maps: {a: '{a.output.data.n}', b: '{b.output.data.n}'}}}
        transitions:
          t: [{to: w}]
          w: [{to: a, conditions: {code: [200, 202]}}, {to: b, conditions: {code: [200, 202]}}]
          a: [{to: j}]
          b: [{to: j}]
        """
    )
    world = World(plan, in_memory=False)
    job = world.start({})
    world.answer("w", {"n": 1}, status="pending")
    world.add(job, "w", (0, 0), {"n": 2}, guid="g")
    world.answer("b", {"n": 20}, dimension=(0, 1, 0))
    assert [work.data for work in world.work.values() if work.activity_id == "j"] == [{"a": 2, "b": 20}]
    world.answer("b", {"n": 10}, dimension=(0, 0, 0))
    world.answer("j")
    world.answer("j")
    assert (world.status(job), len(world.passes(job, "j"))) == (0, 2)


def test_a_join_with_a_single_branch_is_no_join() -> None:
    world = World(one_graph(_graph({"a": WORK})))
    job = world.start({})
    world.answer("a", {"n": 1})
    assert (world.status(job), world.data(job)) == (0, {"joined": {"a": 1}})


def test_two_transitions_from_one_activity_are_two_branches() -> None:
    graph = """
    activities:
      t: {type: trigger}
      a: {type: worker, topic: work}
      j: {type: hook, join: all}
    transitions:
      t: [{to: a}]
      a: [{to: j, conditions: {code: 200}}, {to: j, conditions: {code: [200, 201]}}]
    """
    for code in (200, 201):
        world = World(one_graph(graph))
        job = world.start({})
        world.answer("a", code=code)
        assert (world.status(job), len(world.passes(job, "j"))) == (0, 1)


@pytest.mark.parametrize("in_memory", [True, False])
def test_what_is_left_of_a_pass_runs_as_soon_as_nothing_more_can_come(in_memory: bool) -> None:
    """A branch that comes twice makes a second group; it need not wait until the first one has run to its end."""
    graph = f"""
activities:
  t: {{type: trigger}}
  a: {WORK}
  n: {WORK}
  x: {WORK}
  j: {{type: worker, topic: work, join: all}}
transitions:
  t: [{{to: a}}, {{to: n}}, {{to: x}}]
  a: [{{to: n}}]
  n: [{{to: j}}]
  x: [{{to: j}}]
"""
    world = World(one_graph(graph), in_memory=in_memory)
    job = world.start({})
    for name in ("a", "n", "n", "x"):
        world.answer(name, {"n": name})
    assert len([place for place in world.work if place[1] == "j"]) == 2
    for _ in range(2):
        world.answer("j", {"n": "j"})
    assert (world.status(job), len(world.passes(job, "j"))) == (0, 2)
