"""Random graphs, delivered in random orders, twice, and with crashes: every job ends, once, and in the same state.

Each run ends with nothing owed to anybody, and `World.check` holds after every commit: a live job waits for something,
an ended one for nothing, and the status is the number of what is open.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model import Place, World

from hotmesh.core.advance.limits import Limits
from hotmesh.core.plan.compile import compile_app
from hotmesh.core.state.job import Event
from hotmesh.runtime.definitions.graph_files import load

Graph = dict[str, Any]

KINDS = ["worker", "pass", "sleep", "signal", "await", "computed child", "detached", "worker"]


@st.composite
def graphs(draw: st.DrawFn, *, meet: bool = True) -> Graph:
    """A graph of up to 8 activities whose transitions lead from earlier to later ones, and perhaps back by cycles.

    `meet`: several transitions may lead to one activity.
    """
    size = draw(st.integers(1, 8))
    names = [f"n{number}" for number in range(size)]
    # Each of these doubles the passes of what follows.
    twice = draw(st.integers(0, 2)) if meet else 0
    activities: dict[str, Any] = {"t": {"type": "trigger"}}
    transitions: dict[str, list[dict[str, Any]]] = {}
    hooks: list[dict[str, Any]] = []
    for number, name in enumerate(names):
        kind = draw(st.sampled_from(KINDS))
        activities[name] = _activity(kind, name)
        if kind == "signal":
            match = [
                {
                    "expected": {"@pipe": [["{$job.metadata.jid}", name], ["{@string.concat}"]]},
                    "actual": "{$hook.data.id}",
                }
            ]
            hooks.append({"to": name, "conditions": {"match": match}})
        parents = draw(st.lists(st.sampled_from(["t", *names[:number]]), min_size=1, max_size=3, unique=True))
        if len(parents) > 1:
            join = draw(st.sampled_from([None, "all", "all", "any"])) if meet else None
            if join is not None:
                activities[name]["join"] = join
            elif twice:
                twice -= 1
            else:
                parents = parents[:1]
        for parent in parents:
            edge: dict[str, Any] = {"to": name}
            condition = draw(
                st.sampled_from([None, None, {"code": 200}, {"code": [200, 500]}, {"code": 404}])
            )
            if condition is not None:
                edge["conditions"] = condition
            transitions.setdefault(parent, []).append(edge)
    workers = [name for name in names if activities[name]["type"] == "worker"]
    for name in draw(st.lists(st.sampled_from(workers), max_size=2, unique=True)) if workers else []:
        ancestors = sorted(_ancestors(name, transitions))
        ancestor = draw(st.sampled_from([*ancestors, "t"]))
        # The round is counted by the data of the pass: what a worker answers must not depend on the order, either.
        rounds = f"{{{ancestor}.output.data.round}}"
        following = {"@pipe": [[rounds, 0], ["{@conditional.nullish}", 1], ["{@math.add}"]]}
        activities[name]["input"] = {"maps": {"round": rounds}}
        activities[f"c_{name}"] = {
            "type": "cycle",
            "ancestor": ancestor,
            "input": {"maps": {"round": following}},
        }
        transitions.setdefault(name, []).append({"to": f"c_{name}", "conditions": {"code": 201}})
    return {
        "subscribes": "go",
        "activities": activities,
        "transitions": transitions,
        **({"hooks": {"come": hooks}} if hooks else {}),
    }


def _ancestors(name: str, transitions: dict[str, list[dict[str, Any]]]) -> set[str]:
    """The activities through which every way to this one leads: of these alone, a pass of it surely has one before it."""
    parents = {source for source, edges in transitions.items() for edge in edges if edge["to"] == name}
    ways = [{parent, *_ancestors(parent, transitions)} - {"t"} for parent in parents]
    return set.intersection(*ways) if ways else set()


def _activity(kind: str, name: str) -> dict[str, Any]:
    promoted = {"maps": {name: "{$self.output.data.n}", f"{name}_hook": "{$self.hook.data.n}"}}
    match kind:
        case "worker":
            return {"type": "worker", "topic": "work", "job": promoted}
        case "pass":
            return {"type": "hook", "output": {"maps": {"n": name}}, "job": promoted}
        case "sleep":
            return {"type": "hook", "sleep": 5, "job": {"maps": {name: "slept"}}}
        case "signal":
            return {"type": "hook", "job": promoted}
        case "await":
            return {"type": "await", "topic": "working", "job": promoted}
        case "computed child":
            return {"type": "await", "topic": "computed", "job": promoted}
        case _:
            return {"type": "await", "topic": "computed", "await": False}


CHILDREN: list[Graph] = [
    {
        "subscribes": "computed",
        "activities": {"ct": {"type": "trigger", "job": {"maps": {"n": "computed"}}}},
    },
    {
        "subscribes": "working",
        "activities": {
            "wt": {"type": "trigger"},
            "ww": {"type": "worker", "topic": "work", "job": {"maps": {"n": "{$self.output.data.n}"}}},
        },
        "transitions": {"wt": [{"to": "ww"}]},
    },
]


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    """How each worker answers: a code, or an error, and how often it goes round its cycle first."""
    names = [f"n{number}" for number in range(8)] + ["ww"]
    return {
        name: draw(
            st.sampled_from(
                [("success", 200), ("success", 200), ("success", 404), ("error", 500), ("cycle", 2)]
            )
        )
        for name in names
    }


def world_of(graph: Graph, *, in_memory: bool, activities: int) -> World:
    data = {"app": {"id": "model", "version": "1", "graphs": [graph, *CHILDREN]}}
    return World(
        compile_app(load(data).app), in_memory=in_memory, limits=Limits(activities=activities, max_cycles=4)
    )


def _event(world: World, place: Place, chosen: dict[str, Any]) -> Event:
    status, code = chosen[place[1]]
    if status == "cycle":
        work = world.work[place].data
        status, code = "success", 201 if isinstance(work, dict) and (work.get("round") or 0) < code else 200
    data = {"message": "no"} if status == "error" else {"n": place[1]}
    return world.answer_event(place, data, status=status, code=code)


def _coming(world: World, chosen: dict[str, Any]) -> list[tuple[str, Event]]:
    """Everything that could be delivered next, as (generation, event)."""
    found = [(place[0], _event(world, place, chosen)) for place in sorted(world.work)]
    found += [(place[0], world.timer_event(place)) for place in sorted(world.timers)]
    found += [world.message_event(key) for key in world.messages]
    return found


def _send_signals(world: World) -> None:
    """A signal for each hook that waits, as a message."""
    for wait in list(world.waits.values()):
        world.send_signal(wait.topic, {"id": wait.key, "n": wait.activity_id})


def run_in_order(graph: Graph, chosen: dict[str, Any]) -> World:
    world = world_of(graph, in_memory=True, activities=1000)
    world.start({"n": "t"})
    for _ in range(10_000):
        _send_signals(world)
        coming = _coming(world, chosen)
        if not coming:
            return world
        world.happen(coming[0][0], coming[0][1])
    raise AssertionError("the flow does not end")


def run_at_random(graph: Graph, chosen: dict[str, Any], data: st.DataObject) -> World:
    world = world_of(
        graph, in_memory=data.draw(st.booleans()), activities=data.draw(st.sampled_from([1, 2, 5, 1000]))
    )
    world.start({"n": "t"})
    delivered: list[tuple[str, Event]] = []
    for _ in range(10_000):
        if data.draw(st.integers(0, 3)):
            _send_signals(world)
        coming = _coming(world, chosen)
        if not coming:
            if not world.waits:
                return world
            continue
        if data.draw(st.booleans()):
            world.forget()
        number = data.draw(st.integers(0, len(coming) - 1))
        generation, event = coming[number]
        # Several events of one job may become one step, and what was handled before may come again.
        also = [other for job, other in coming if job == generation and other is not event]
        batch = [event, *also[: data.draw(st.integers(0, 2))]]
        batch += [
            _again(old) for job, old in delivered[-3:] if job == generation and data.draw(st.booleans())
        ]
        world.happen(generation, *batch)
        # An "enter" is told apart by its row alone, which the step deletes; all others by what they left, too.
        delivered += [
            (generation, event) for event in batch if event.receipt is not None and event.kind != "enter"
        ]
    raise AssertionError("the flow does not end")


def _again(event: Event) -> Event:
    """The same event once more; the row it came from is gone by now."""
    return Event(
        event.kind, event.activity_id, event.dimension, event.status, event.code, event.data, event.message_id
    )


def _outcome(world: World) -> Any:
    """What must not depend on the order: ended jobs, their data, whether they failed, and how often what has run."""
    [job] = [job for job in world.jobs.values() if job.parent is None]
    passes: dict[str, int] = {}
    for place in world.records:
        if place[0] == job.generation:
            passes[place[1]] = passes.get(place[1], 0) + 1
    children = sorted(
        (child.topic, child.status, str(child.data)) for child in world.jobs.values() if child.parent
    )
    return job.status, job.data, job.error is not None, passes, children


def _told_once(world: World) -> bool:
    results = [
        message.message_id for step in world.steps for message in step.messages if message.kind == "result"
    ]
    return len(results) == len(set(results))


SETTINGS = settings(
    max_examples=100, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
"""The same examples each time: a run that fails says something about the change, and not about its luck."""


@SETTINGS
@given(graphs(), answers(), st.data())
def test_any_order_of_delivery_ends_in_the_same_state(
    graph: Graph, chosen: dict[str, Any], data: st.DataObject
) -> None:
    expected = run_in_order(graph, chosen)
    found = run_at_random(graph, chosen, data)
    assert _outcome(found) == _outcome(expected)
    assert all(job.status == 0 for job in found.jobs.values())
    assert _told_once(found)


@SETTINGS
@given(graphs(meet=False), answers(), st.data())
def test_addresses_do_not_depend_on_the_order(
    graph: Graph, chosen: dict[str, Any], data: st.DataObject
) -> None:
    """As long as no two branches meet, which are counted as they come."""
    expected = run_in_order(graph, chosen)
    found = run_at_random(graph, chosen, data)
    [one] = [job.generation for job in expected.jobs.values() if job.parent is None]
    assert {place[1:] for place in expected.records if place[0] == one} == {
        place[1:] for place in found.records if place[0] == one
    }
