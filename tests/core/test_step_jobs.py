"""The pure step: emit, persist, thresholds, expiry, pending mode, metadata."""

from __future__ import annotations

import pytest
from model import World, later, one_graph
from test_step_activities import CHILD, PARENT

from hotmesh.core.state.job import Event

# -- emit, persist, threshold ----------------------------------------------------------------------------


def test_emissions_come_in_order_with_the_status_of_their_moment() -> None:
    plan = one_graph(
        """
        publishes: told
        activities:
          t: {type: trigger, emit: true}
          h: {type: hook, emit: true}
          s: {type: hook, sleep: 1, emit: '{t.output.data.emit}'}
          e: {type: hook, emit: true}
        transitions:
          t: [{to: h}]
          h: [{to: s}]
          s: [{to: e}]
        """
    )
    for emit, expected in ((True, [1, 1, 1, 0]), (False, [1, 1, 0]), ("true", [1, 1, 0])):
        world = World(plan)
        job = world.start({"emit": emit})
        world.fire("s")
        assert [notice.metadata["js"] for notice in world.told(job)] == expected
        assert [notice.interim for notice in world.told(job)] == [js > 0 for js in expected]


def test_an_emission_sees_what_its_own_activity_has_promoted() -> None:
    plan = one_graph(
        """
        activities:
          t: {type: trigger}
          w: {type: worker, topic: work, emit: '{$job.data.ready}', job: {maps: {ready: '{$self.output.data.ready}'}}}
          s: {type: hook, sleep: 1}
        transitions:
          t: [{to: w}]
          w: [{to: s}]
        """
    )
    world = World(plan)
    job = world.start({}, reply_to="me")
    world.answer("w", {"ready": True})
    assert [notice.data for notice in world.told(job)] == [{"ready": True}]


def test_persist_answers_now_and_the_job_goes_on() -> None:
    plan = one_graph(
        PARENT.replace("TOPIC", "early"),
        """
        subscribes: early
        expire: 7
        activities:
          et: {type: trigger}
          ep: {type: hook, persist: true, job: {maps: {n: 1}}}
          es: {type: hook, sleep: 5, job: {maps: {n: 2}}}
        transitions:
          et: [{to: ep}]
          ep: [{to: es}]
        """,
    )
    world = World(plan)
    job = world.start({})
    assert (world.status(job), world.data(job)) == (0, {"got": {"n": 1}})

    alone = world.start({}, topic="early", reply_to="me")
    assert [notice.metadata["js"] for notice in world.told(alone)] == [1]
    assert not world.steps[-1].jobs[0].ended
    for _ in range(2):
        world.fire("es")
    assert [notice.metadata["js"] for notice in world.told(alone)] == [1, 0]
    assert world.messages == {}


THRESHOLD = """
activities:
  t: {type: trigger, job: {maps: {done: false}}}
  x: X
  s: {type: hook, sleep: 5}
transitions:
  t: [{to: s}, {to: x}]
"""

AT_TWO = {
    "hook": "{type: hook, statusThreshold: 2, job: {maps: {done: true}}}",
    "worker": "{type: worker, topic: w, statusThreshold: 2}",
    "await": "{type: await, topic: child, statusThreshold: '{t.output.data.two}'}",
    "cycle": "{type: cycle, ancestor: t, statusThreshold: '2'}",
    "signal": "{type: signal, topic: none, statusThreshold: 2}",
    "interrupt": "{type: interrupt, target: nobody, statusThreshold: 2}",
    "interrupt self": "{type: interrupt, statusThreshold: 2}",
}


@pytest.mark.parametrize("kind", AT_TWO)
def test_at_its_threshold_no_activity_runs_and_the_job_is_complete(kind: str) -> None:
    world = World(one_graph(THRESHOLD.replace("X", AT_TWO[kind]), CHILD))
    job = world.start({"two": 2}, reply_to="me")
    assert (world.status(job), world.data(job), world.error(job)) == (0, {"done": False}, None)
    assert (world.work, world.timers, len(world.told(job))) == ({}, {}, 1)


@pytest.mark.parametrize("kind", [kind for kind in AT_TWO if kind != "await"])
def test_below_its_threshold_no_activity_runs_and_the_others_go_on(kind: str) -> None:
    world = World(one_graph(THRESHOLD.replace("X", AT_TWO[kind].replace("2", "3")), CHILD))
    job = world.start({})
    assert (world.status(job), world.data(job)) == (1, {"done": False})
    world.fire("s")
    assert world.status(job) == 0


def test_a_job_ends_when_it_comes_down_to_the_threshold_of_an_activity_that_ran() -> None:
    world = World(one_graph(THRESHOLD.replace("X", "{type: worker, topic: w, statusThreshold: 1}")))
    job = world.start({})
    assert world.status(job) == 2
    world.answer("x")
    assert (world.status(job), world.timers) == (0, {})


def test_a_job_that_comes_down_to_nothing_is_complete_whatever_the_threshold() -> None:
    graph = (
        THRESHOLD.replace("X", "{type: worker, topic: w, statusThreshold: 1}")
        .replace("{type: hook, sleep: 5}", "{type: hook, sleep: 5}\n  s2: {type: hook, sleep: 5}")
        .replace("{to: s}", "{to: s}, {to: s2}")
    )
    world = World(one_graph(graph.replace("statusThreshold: 1", "statusThreshold: 2")))
    job = world.start({})
    world.fire("s")
    world.fire("s2")
    world.answer("x")
    assert world.status(job) == 0


# -- expiry, pending mode --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expire", "expected"),
    [
        ("2", 2.0),
        ("0", 0.0),
        ("-1", -1.0),
        ("'{$job.data.no}'", 1.0),
        ("'{$job.data.keep}'", 20.0),
        ("'{t.output.data.keep}'", 20.0),
        (None, 1.0),
    ],
)
def test_a_finished_job_is_kept_as_long_as_its_graph_says(expire: str | None, expected: float) -> None:
    graph = "activities:\n  t: {type: trigger, job: {maps: {keep: '{$self.input.data.keep}'}}}\n"
    world = World(one_graph(graph if expire is None else f"expire: {expire}\n{graph}"))
    job = world.start({"keep": 20})
    assert world.jobs[job].expire == expected


def test_expiry_may_depend_on_what_an_activity_answered() -> None:
    graph = """
    expire: '{w.output.data.keep}'
    activities:
      t: {type: trigger}
      w: {type: worker, topic: work}
      s: {type: hook, sleep: 1}
    transitions:
      t: [{to: w}]
      w: [{to: s}]
    """
    world = World(one_graph(graph), in_memory=False)
    job = world.start({})
    world.answer("w", {"keep": 30})
    world.fire("s")
    assert world.jobs[job].expire == 30.0


def test_a_pending_job_starts_its_branches_when_it_is_resumed() -> None:
    plan = one_graph(
        """
        expire: 9
        activities:
          t: {type: trigger, job: {maps: {a: 1}}}
          h: {type: hook, job: {maps: {b: '{t.output.data.b}'}}}
        transitions:
          t: [{to: h}]
        """
    )
    world = World(plan)
    world.check = lambda: None  # type: ignore[method-assign]  # nothing is owed to a pending job
    job = world.start({"b": 2}, pending=5.0, search={"_k": "v"})
    assert (world.status(job), world.jobs[job].expire, world.data(job)) == (-1, 5.0, {"a": 1})
    assert world.search[job] == {"_k": "v"}
    world.happen(job, Event("answer", "h", (0, 0)))
    assert world.status(job) == -1

    world.happen(job, Event("resume"), Event("resume"))
    assert (world.status(job), world.data(job), world.jobs[job].expire) == (0, {"a": 1, "b": 2}, 9.0)


# -- metadata, search, whole objects ---------------------------------------------------------------------


def test_names_that_begin_with_a_mark_are_search_fields_not_data() -> None:
    plan = one_graph(
        """
        activities:
          t: {type: trigger, job: {maps: {'any[_]': {_a: '{$self.input.data.a}', b: dropped}}}}
          w:
            type: worker
            topic: work
            job: {maps: {'any[-]': '{$self.output.data}', 'slots[2]': '{$self.output.data.list}'}}
        transitions:
          t: [{to: w}]
        """
    )
    world = World(plan)
    job = world.start({"a": 1}, search={"_given": "x", "-m": "y"})
    assert world.search[job] == {"_given": "x", "-m": "y", "_a": 1}
    world.answer("w", {"-m": 2, "plain": 3, "list": ["a", "b"]})
    assert world.search[job] == {"_given": "x", "-m": 2, "_a": 1}
    assert world.data(job) == {"slots": {"0": "a", "1": "b"}}


def test_a_later_activity_reads_whole_objects() -> None:
    plan = one_graph(
        """
        activities:
          t: {type: trigger}
          w: {type: worker, topic: work}
          s: {type: hook, sleep: 1}
          h: {type: hook, job: {maps: {all: '{w.output.data}', payload: '{t.output.data}'}}}
        transitions:
          t: [{to: w}]
          w: [{to: s}]
          s: [{to: h}]
        """
    )
    world = World(plan, in_memory=False)
    job = world.start({"p": [1]})
    world.answer("w", {"a": {"b": 1}, "c": None})
    world.fire("s")
    assert world.data(job) == {"all": {"a": {"b": 1}, "c": None}, "payload": {"p": [1]}}


def test_dates_and_numbers_are_promoted_as_they_read_back() -> None:
    plan = one_graph(
        """
        activities:
          t:
            type: trigger
            job:
              maps:
                date: {'@pipe': [['2024-02-29'], ['{@date.fromISOString}']]}
                nothing: {'@pipe': [['x', 2], ['{@math.multiply}']]}
                none: null
                missing: '{$self.input.data.missing}'
        """
    )
    world = World(plan)
    step_data = world.data(world.start({}))
    assert world.steps[0].jobs[0].job.data == step_data
    assert "missing" not in step_data
    assert step_data["none"] is None


def test_metadata_of_jobs_and_activities() -> None:
    plan = one_graph(
        """
        activities:
          t: {type: trigger, stats: {key: '{$self.input.data.k}', granularity: 15m}}
          w: {type: worker, topic: work}
          h: {type: hook, job: {maps: {job: '{$job.metadata}', work: '{w.output.metadata}', trigger: '{t.output.metadata.aid}'}}}
        transitions:
          t: [{to: w}]
          w: [{to: h}]
        """
    )
    world = World(plan)
    job = world.start({"k": "key"}, reply_to="engine", trace_id="trc")
    later(world, 60)
    world.answer("w")
    data = world.data(job)
    assert data["trigger"] == "t"
    assert data["job"] == {
        "jid": "J1", "gid": job, "tpc": "go", "app": "model", "vrs": "1", "aid": "t", "jc": "20240229123456.789",
        "ju": "20240229123556.789", "ts": "202402291230", "js": 1, "key": "key", "ngn": "engine", "trc": "trc", "expire": 1,
    }  # fmt: skip
    alone = world.start({})
    later(world, 60)
    world.answer("w")
    assert world.data(alone)["job"]["key"] == ""
    assert data["work"] == {
        "dad": ",0,0", "aid": "w", "atp": "worker", "stp": "work", "ac": "20240229123456.789", "au": "20240229123556.789",
    }  # fmt: skip
