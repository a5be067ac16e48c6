"""The pure step: await, hook, signal and interrupt."""

from __future__ import annotations

import json
from typing import Any

import pytest
from model import NOW, World, one_graph

from hotmesh.core.state.job import INTERRUPTED, Event

# -- await -----------------------------------------------------------------------------------------------

PARENT = """
activities:
  t: {type: trigger}
  a:
    type: await
    topic: TOPIC
    await: '{t.output.data.wait}'
    input: {maps: {x: '{t.output.data.x}'}}
    job: {maps: {got: '{$self.output.data}'}}
  e: {type: hook, job: {maps: {handled: '{a.output.metadata.$error.code}'}}}
transitions:
  t: [{to: a}]
  a: [{to: e, conditions: {code: [500, 409]}}]
"""

CHILD = """
subscribes: child
activities:
  ct: {type: trigger, stats: {id: '{$self.input.data.id}'}, job: {maps: {r: '{$self.input.data.x}'}}}
"""

WORKING = """
subscribes: working
activities:
  wt: {type: trigger}
  ww: {type: worker, topic: work, job: {maps: {y: '{$self.output.data.y}'}}}
transitions:
  wt: [{to: ww}]
"""


def _parent(topic: str = "child") -> World:
    return World(one_graph(PARENT.replace("TOPIC", topic), CHILD, WORKING))


@pytest.mark.parametrize("wait", [None, True, "false", 0])
def test_a_child_that_only_computes_ends_in_the_step_of_its_parent(wait: Any) -> None:
    world = _parent()
    job = world.start({"x": 1, "wait": wait})
    assert (world.status(job), world.data(job), len(world.steps)) == (0, {"got": {"r": 1}}, 1)


def test_await_false_goes_on_as_soon_as_the_child_exists() -> None:
    world = _parent("working")
    job = world.start({"x": 1, "wait": False})
    [child] = [found for found in world.jobs.values() if found.topic == "working"]
    assert world.status(job) == 0
    assert world.data(job)["got"] == {
        "job_id": child.job_id,
        "jc": "20240229123456.789",
        "ju": "20240229123456.789",
    }

    world.answer("ww", {"y": 2})
    assert (world.status(child.generation), world.messages) == (0, {})


def test_a_child_that_waits_answers_its_parent_with_a_message() -> None:
    world = _parent("working")
    job = world.start({"x": 1})
    assert world.status(job) == 1
    world.answer("ww", {"y": 2})
    world.settle()
    assert (world.status(job), world.data(job)) == (0, {"got": {"y": 2}})


@pytest.mark.parametrize(("code", "handled"), [(500, True), (501, False)])
def test_the_error_of_a_child_is_the_error_of_its_await(code: int, handled: bool) -> None:
    world = _parent("working")
    job = world.start({})
    world.answer("ww", {"message": "no", "stack": "s"}, status="error", code=code)
    world.settle()
    assert world.status(job) == 0
    if handled:
        assert (world.data(job), world.error(job)) == ({"handled": code}, None)
    else:
        assert world.error(job) == {"message": "no", "code": code, "stack": "s", "is_stream_error": True}


def test_an_unknown_child_topic_is_an_error_500_of_the_await() -> None:
    world = World(one_graph(PARENT.replace("TOPIC", "'{t.output.data.topic}'")))
    job = world.start({"topic": "nowhere"})
    assert world.data(job) == {"handled": 500}
    [record] = world.passes(job, "a").values()
    assert record.error["message"] == "no subscription found for topic nowhere in app model for app version 1"


def test_a_child_id_in_other_hands_is_an_error_409_of_the_await() -> None:
    world = World(one_graph(PARENT.replace("TOPIC", "child").replace("{x:", "{id: mine, x:"), CHILD))
    world.start({"id": "mine"}, topic="child")
    job = world.start({"x": 1})
    assert world.data(job) == {"handled": 409}
    assert next(iter(world.passes(job, "a").values())).error["message"] == "Duplicate job: mine"


def test_two_awaits_of_one_step_cannot_have_the_same_child_id() -> None:
    plan = one_graph(
        """
        activities:
          t: {type: trigger}
          a: {type: await, topic: child, input: {maps: {id: same}}}
          b: {type: await, topic: child, input: {maps: {id: same}}}
        transitions:
          t: [{to: a}, {to: b}]
        """,
        CHILD,
    )
    world = World(plan)
    job = world.start({})
    assert (world.status(job), world.error(job)["code"]) == (0, 409)


def test_flows_nest_in_one_step() -> None:
    graphs = [
        f"""
        subscribes: level{level}
        activities:
          t{level}: {{type: trigger}}
          a{level}:
            type: await
            topic: level{level + 1}
            input: {{maps: {{n: {{'@pipe': [['{{t{level}.output.data.n}}', 1], ['{{@math.add}}']]}}}}}}
            job: {{maps: {{n: '{{$self.output.data.n}}'}}}}
        transitions:
          t{level}: [{{to: a{level}}}]
        """
        for level in range(5)
    ]
    last = (
        "subscribes: level5\nactivities:\n  t5: {type: trigger, job: {maps: {n: '{$self.output.data.n}'}}}\n"
    )
    world = World(one_graph("activities:\n  t: {type: trigger}\n", *graphs, last))
    job = world.start({"n": 1}, topic="level0")
    assert (world.status(job), world.data(job), len(world.steps), len(world.jobs)) == (0, {"n": 6}, 1, 6)


def test_a_child_inherits_the_trace_and_names_its_parent() -> None:
    world = _parent("working")
    job = world.start({}, trace_id="trace", span_id="span")
    [child] = [found for found in world.jobs.values() if found.topic == "working"]
    assert child.trace_id == "trace"
    assert child.parent is not None
    assert (child.parent.generation, child.parent.activity_id, child.parent.dimension) == (job, "a", (0, 0))


def test_an_emission_of_a_child_is_a_pending_answer_to_its_parent() -> None:
    plan = one_graph(
        """
        activities:
          t: {type: trigger}
          a: {type: await, topic: slow}
          i: {type: hook, job: {maps: {interim: '{a.output.data.n}'}}}
          f: {type: hook, job: {maps: {final: '{a.output.data.n}'}}}
        transitions:
          t: [{to: a}]
          a: [{to: i, conditions: {code: 202}}, {to: f, conditions: {code: 200}}]
        """,
        """
        subscribes: slow
        activities:
          st: {type: trigger, emit: true, job: {maps: {n: 1}}}
          sw: {type: worker, topic: work, job: {maps: {n: 2}}}
        transitions:
          st: [{to: sw}]
        """,
    )
    world = World(plan)
    job = world.start({})
    assert (world.status(job), world.data(job)) == (1, {"interim": 1})
    world.answer("sw")
    world.settle()
    assert (world.status(job), world.data(job)) == (0, {"interim": 1, "final": 2})


# -- hooks and signals -----------------------------------------------------------------------------------


def _hook(sleep: str = "null", more: str = "") -> World:
    return World(
        one_graph(
            f"""
            activities:
              t: {{type: trigger}}
              h:
                type: hook
                sleep: {sleep}
                output: {{maps: {{asked: '{{t.output.data.q}}'}}}}
                job:
                  maps: {{asked: '{{$self.output.data.asked}}', got: '{{$self.hook.data.v}}', at: '{{$self.hook.data.timestamp}}'}}
              a: {{type: hook, job: {{maps: {{again: {{'@pipe': [['{{$job.data.again}}', 1], ['{{@math.add}}']]}}}}}}}}
              z: {{type: hook, job: {{maps: {{closed: '{{h.hook.data.v}}'}}}}}}
              x: {{type: hook, job: {{maps: {{refused: '{{h.output.metadata.$error.message}}'}}}}}}
            transitions:
              t: [{{to: h}}]
              h: [{{to: a, conditions: {{code: 202}}}}, {{to: z, conditions: {{code: 200}}}}, {{to: x, conditions: {{code: 400}}}}]
            hooks:
              come:
                - to: h
                  conditions: {{match: [{{expected: '{{t.output.data.key}}', actual: '{{$hook.data.id}}'}}]}}
            {more}
            """
        )
    )


def test_a_signal_resumes_the_hook_that_waits_under_its_key() -> None:
    world = _hook()
    job = world.start({"key": 5, "q": "?"})
    assert world.data(job) == {"asked": "?"}
    assert not world.signal("come", {"id": 6})
    assert world.signal("come", {"id": "5", "v": 1})
    assert (world.status(job), world.data(job), world.waits) == (0, {"asked": "?", "got": 1, "closed": 1}, {})


def test_an_early_signal_is_not_lost_and_keeps_its_status() -> None:
    world = _hook()
    world.signal("come", {"id": 5, "v": 1})
    world.signal("come", {"id": 5, "v": 2}, "error", 400)
    job = world.start({"key": 5})
    world.settle()
    assert (world.status(job), world.data(job)) == (0, {"refused": "unknown"})


def test_pending_signals_run_their_branch_each_time_and_success_closes() -> None:
    world = _hook()
    job = world.start({"key": 5})
    world.signal("come", {"id": 5}, "pending", 202)
    world.signal("come", {"id": 5}, "pending", 202)
    assert (world.status(job), len(world.passes(job, "a"))) == (1, 2)
    world.signal("come", {"id": 5, "v": 9})
    assert (world.status(job), world.data(job)["closed"]) == (0, 9)
    assert not world.signal("come", {"id": 5, "v": 10})


@pytest.mark.parametrize(("code", "status"), [(400, None), (499, 499)])
def test_an_error_signal_fails_the_hook(code: int, status: int | None) -> None:
    world = _hook()
    job = world.start({"key": 5})
    world.signal("come", {"id": 5, "message": "no"}, "error", code)
    assert world.status(job) == 0
    assert (world.error(job) or {}).get("code") == status
    assert world.data(job).get("refused") == ("no" if status is None else None)
    assert "got" not in world.data(job)


@pytest.mark.parametrize("sleep", ["5", "'5'", "'{t.output.data.seconds}'"])
def test_of_signal_and_timer_the_first_wins(sleep: str) -> None:
    world = _hook(sleep)
    job = world.start({"key": 5, "seconds": 5})
    assert [timer.delay for timer in world.timers.values()] == [5.0]
    world.fire("h")
    assert (world.status(job), world.data(job)["at"]) == (0, int(NOW.timestamp() * 1000))
    assert (world.waits, world.timers) == ({}, {})

    world = _hook(sleep)
    job = world.start({"key": 5, "seconds": 5})
    world.signal("come", {"id": 5, "v": 1})
    assert (world.status(job), world.data(job)["got"], world.timers) == (0, 1, {})


def test_a_signal_and_a_timer_in_one_step_are_one_outcome() -> None:
    world = _hook("5")
    job = world.start({"key": 5})
    [place] = world.timers
    wait = next(iter(world.waits))
    assert wait == place
    signal = Event("signal", "h", (0, 0), data={"v": 1})
    world.happen(job, signal, world.timer_event(place))
    assert (world.status(job), world.data(job)) == (0, {"got": 1, "closed": 1})


@pytest.mark.parametrize("sleep", ["null", "0", "-1", "''", "soon", "true", ".inf", "'{t.output.data.no}'"])
def test_what_is_no_number_above_0_makes_no_hook_sleep(sleep: str) -> None:
    plan = (
        one_graph(
            f"activities:\n  t: {{type: trigger}}\n  h: {{type: hook, sleep: {sleep}}}\ntransitions:\n  t: [{{to: h}}]\n"
        )
        if sleep not in ("''", "soon", "true", ".inf", "-1")
        else one_graph(
            "activities:\n  t: {type: trigger}\n  h: {type: hook, sleep: '{t.output.data.sleep}'}\ntransitions:\n  t: [{to: h}]\n"
        )
    )
    world = World(plan)
    given: dict[str, Any] = {"''": "", "soon": "soon", "true": True, ".inf": "Infinity", "-1": -1}
    job = world.start({"sleep": given.get(sleep)})
    assert (world.status(job), world.timers) == (0, {})


def test_a_sleep_beyond_all_calendars_is_cut() -> None:
    world = World(
        one_graph(
            "activities:\n  t: {type: trigger}\n  h: {type: hook, sleep: 1.0e+30}\ntransitions:\n  t: [{to: h}]\n"
        )
    )
    world.start({})
    assert [timer.delay for timer in world.timers.values()] == [100 * 365 * 86_400.0]


@pytest.mark.parametrize("key", [None, "x" * 2_000, "a\0b"])
def test_a_key_that_no_signal_could_match_fails_the_hook(key: Any) -> None:
    world = _hook()
    job = world.start({"key": key})
    assert (world.status(job), world.error(job)["code"], world.data(job)) == (0, 500, {})


def test_a_flow_signals_in_the_step_in_which_it_goes_on() -> None:
    plan = one_graph(
        """
        activities:
          t: {type: trigger}
          s:
            type: signal
            topic: come
            status: '{t.output.data.status}'
            code: '{t.output.data.code}'
            output: {maps: {sent: true}}
            job: {maps: {sent: '{$self.output.data.sent}'}}
            signal: {maps: {id: '{t.output.data.key}', v: '{$job.data.sent}'}}
          n: {type: hook, job: {maps: {next: 1}}}
        transitions:
          t: [{to: s}]
          s: [{to: n}]
        """,
        """
        subscribes: waits
        activities:
          wt: {type: trigger}
          wh: {type: hook, job: {maps: {got: '{$self.hook.data}'}}}
          wp: {type: hook, job: {maps: {pending: true}}}
        transitions:
          wt: [{to: wh}]
          wh: [{to: wp, conditions: {code: 202}}]
        hooks:
          come: [{to: wh, conditions: {match: [{expected: '{$job.metadata.jid}', actual: '{$self.hook.data.id}'}]}}]
        """,
    )
    world = World(plan)
    waiting = world.start({}, topic="waits")
    key = world.jobs[waiting].job_id
    job = world.start({"key": key, "status": "pending", "code": 202})
    assert (world.status(job), world.data(job)) == (0, {"sent": True, "next": 1})
    world.settle()
    assert (world.status(waiting), world.data(waiting)["pending"]) == (1, True)
    world.start({"key": key})
    world.settle()
    assert (world.status(waiting), world.data(waiting)["got"]) == (0, {"id": key, "v": True})


@pytest.mark.parametrize(
    ("status", "code"), [("done", 200), ("success", "x"), ("success", 1e300), ("success", 2.5)]
)
def test_a_signal_with_a_wrong_status_or_code_fails_its_activity(status: str, code: Any) -> None:
    plan = one_graph(
        """
        activities:
          t: {type: trigger}
          s: {type: signal, topic: come, status: '{t.output.data.status}', code: '{t.output.data.code}', signal: {maps: {id: 1}}}
          h: {type: hook}
        transitions:
          t: [{to: s}]
        hooks:
          come: [{to: h, conditions: {match: [{expected: 1, actual: '{$self.hook.data.id}'}]}}]
        """
    )
    world = World(plan)
    job = world.start({"status": status, "code": code})
    assert (world.status(job), world.error(job)["code"], world.early) == (0, 500, {})


# -- interrupt -------------------------------------------------------------------------------------------


def _stop(options: str, sibling: str = "") -> World:
    return World(
        one_graph(
            f"""
            expire: 20
            activities:
              t: {{type: trigger}}
              i: {{type: interrupt, job: {{maps: {{last: 1}}}}, {options}}}
              s: {{type: hook, sleep: 5}}
              w: {{type: worker, topic: work}}
            transitions:
              t: [{{to: i}}{sibling}]
            """
        )
    )


def test_a_self_interrupt_as_the_only_branch_tells_its_caller_and_expires() -> None:
    world = _stop("reason: '{t.output.data.why}', code: 411")
    job = world.start({"why": "enough"}, reply_to="me")
    assert world.status(job) == INTERRUPTED
    assert world.error(job) == {"message": "enough", "code": 411, "stack": "", "job_id": "J1"}
    [notice] = world.told(job)
    assert json.loads(notice.metadata["err"])["code"] == 411
    assert (world.jobs[job].expire, world.data(job)) == (20.0, {"last": 1})


def test_a_self_interrupt_gives_up_what_the_same_step_began() -> None:
    world = _stop("throw: false", ", {to: s}, {to: w}")
    job = world.start({}, reply_to="me")
    assert world.status(job) == INTERRUPTED + 2
    step = world.steps[0]
    assert (step.work, step.timers, world.work, world.timers) == ((), (), {}, {})
    [notice] = world.told(job)
    assert ("err" in notice.metadata, notice.data) == (False, {"last": 1})


def test_interrupting_another_job_goes_on_and_needs_no_such_job() -> None:
    plan = one_graph(
        """
        activities:
          t: {type: trigger}
          i: {type: interrupt, target: '{t.output.data.job}', reason: stop, throw: '{t.output.data.throw}'}
          n: {type: hook, job: {maps: {next: 1}}}
        transitions:
          t: [{to: i}]
          i: [{to: n}]
        """,
        WORKING,
    )
    world = World(plan)
    victim = world.start({}, topic="working")
    job = world.start({"job": world.jobs[victim].job_id})
    world.settle()
    assert (world.status(job), world.data(job)) == (0, {"next": 1})
    assert (world.status(victim), world.error(victim)["message"]) == (INTERRUPTED + 1, "stop")
    assert world.work == {}

    for target in (world.jobs[victim].job_id, "nobody"):
        job = world.start({"job": target})
        world.settle()
        assert (world.status(job), world.error(job)) == (0, None)


@pytest.mark.parametrize("throw", [True, False])
def test_an_interrupted_child_answers_its_parent(throw: bool) -> None:
    world = _parent("working")
    job = world.start({})
    [child] = [found.generation for found in world.jobs.values() if found.topic == "working"]
    world.interrupt(child, throw=throw)
    world.settle()
    assert world.status(job) == 0
    if throw:
        assert world.error(job)["code"] == 410
    else:
        assert (world.error(job), world.data(job)) == (None, {"got": {}})


@pytest.mark.parametrize("descend", [True, False])
def test_an_interrupt_descends_to_awaited_children_on_request(descend: bool) -> None:
    world = _parent("working")
    job = world.start({})
    severed = world.start({"wait": False})
    world.interrupt(job, descend=descend)
    world.settle()
    children = [found for found in world.jobs.values() if found.topic == "working"]
    assert [child.interrupted for child in children] == [descend, False]
    assert world.status(severed) == 0


def test_an_interrupt_after_an_error_tells_nobody_again() -> None:
    plan = one_graph(
        """
        activities:
          t: {type: trigger}
          w: {type: worker, topic: work}
          s: {type: hook, sleep: 5}
        transitions:
          t: [{to: w}, {to: s}]
        """
    )
    world = World(plan)
    job = world.start({}, reply_to="me")
    world.answer("w", {"message": "no"}, status="error")
    world.interrupt(job)
    assert (len(world.told(job)), world.error(job)["code"], world.timers) == (1, 410, {})
