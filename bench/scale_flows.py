"""The flows whose cost must not depend on how much there is of something."""

from __future__ import annotations

from typing import Any

import yaml

APP = "scale"
STEP = "scale.step"  # served by the process that drives
OTHER = "scale.other"  # served by a second process where there is one
HOOKS = (1, 10, 100, 1_000)
LONG = 3_600  # seconds that sleepers sleep


def document() -> str:
    """The YAML of the app."""
    graphs = [
        _worker_cycle("turns", STEP),
        _worker_cycle("exchange", STEP, OTHER),
        _passthrough_cycle(),
        *(_hooks(count) for count in HOOKS),
        _spawning("spawn-worker", child="child-worker"),
        _spawning("spawn-compute", child="child-compute"),
        _spawning("spawn-severed", child="child-worker", severed=True),
        _child("child-worker", computes=False),
        _child("child-compute", computes=True),
        _sleeper(),
    ]
    return yaml.safe_dump({"app": {"id": APP, "version": "1", "graphs": graphs}}, sort_keys=False)


def hooks(count: int) -> str:
    """The topic of a flow with this many hooks in a row, each of which passes through."""
    return f"hooks-{count}"


def _worker_cycle(topic: str, *workers: str) -> dict[str, Any]:
    """Worker activities one after the other, again and again, while the count they hand on is below the limit."""
    trigger, start, again = f"{topic}_t", f"{topic}_p", f"{topic}_c"
    names = [f"{topic}_w{number}" for number in range(len(workers))]
    last = names[-1]
    activities: dict[str, Any] = {
        trigger: {"type": "trigger"},
        start: {"type": "hook", "output": {"maps": {"n": 0}}},
    }
    for name, worker in zip(names, workers, strict=True):
        activities[name] = {
            "type": "worker",
            "topic": worker,
            "input": {"maps": {"n": f"{{{start}.output.data.n}}", "long": f"{{{trigger}.output.data.long}}"}},
        }
    activities[last]["job"] = {"maps": {"n": "{$self.output.data.n}"}}
    activities[again] = {
        "type": "cycle",
        "ancestor": start,
        "input": {"maps": {"n": f"{{{last}.output.data.n}}"}},
    }
    transitions: dict[str, Any] = {
        before: [{"to": after}]
        for before, after in zip([trigger, start, *names], [start, *names], strict=False)
    }
    transitions[last] = [_while(again, f"{{{last}.output.data.n}}", trigger)]
    return _graph(topic, activities, transitions)


def _passthrough_cycle() -> dict[str, Any]:
    """A cycle in which nothing waits."""
    activities = {
        "pass_t": {"type": "trigger"},
        "pass_p": {
            "type": "hook",
            "output": {"maps": {"n": 1}},
            "job": {"maps": {"n": "{$self.output.data.n}"}},
        },
        "pass_c": {
            "type": "cycle",
            "ancestor": "pass_p",
            "input": {"maps": {"n": _one_more("{pass_p.output.data.n}")}},
        },
    }
    transitions = {
        "pass_t": [{"to": "pass_p"}],
        "pass_p": [_while("pass_c", "{pass_p.output.data.n}", "pass_t")],
    }
    return _graph("passthrough", activities, transitions)


def _hooks(count: int) -> dict[str, Any]:
    topic = hooks(count)
    names = [f"h{count}_{number}" for number in range(count)]
    trigger = f"h{count}_t"
    activities: dict[str, Any] = {trigger: {"type": "trigger"}}
    activities |= {name: {"type": "hook"} for name in names}
    activities[names[-1]] = {"type": "hook", "job": {"maps": {"done": True}}}
    transitions = {before: [{"to": after}] for before, after in zip([trigger, *names], names, strict=False)}
    return _graph(topic, activities, transitions)


def _spawning(topic: str, *, child: str, severed: bool = False) -> dict[str, Any]:
    """A parent that starts `limit` children without waiting for one before it starts the next."""
    trigger, start, ask, again = f"{topic}_t", f"{topic}_p", f"{topic}_a", f"{topic}_c"
    activities: dict[str, Any] = {
        trigger: {"type": "trigger"},
        start: {"type": "hook", "output": {"maps": {"n": 1}}},
        ask: {"type": "await", "topic": child, "input": {"maps": {"n": f"{{{start}.output.data.n}}"}}},
        again: {
            "type": "cycle",
            "ancestor": start,
            "input": {"maps": {"n": _one_more(f"{{{start}.output.data.n}}")}},
        },
    }
    if severed:
        activities[ask]["await"] = False
    transitions = {
        trigger: [{"to": start}],
        start: [{"to": ask}, _while(again, f"{{{start}.output.data.n}}", trigger)],
    }
    return _graph(topic, activities, transitions)


def _child(topic: str, *, computes: bool) -> dict[str, Any]:
    trigger, work = f"{topic}_t", f"{topic}_w"
    if computes:
        return _graph(
            topic, {trigger: {"type": "trigger", "job": {"maps": {"n": "{$self.output.data.n}"}}}}, {}
        )
    activities = {
        trigger: {"type": "trigger"},
        work: {
            "type": "worker",
            "topic": STEP,
            "input": {"maps": {"n": f"{{{trigger}.output.data.n}}"}},
            "job": {"maps": {"n": "{$self.output.data.n}"}},
        },
    }
    return _graph(topic, activities, {trigger: [{"to": work}]})


def _sleeper() -> dict[str, Any]:
    activities = {
        "sleep_t": {"type": "trigger"},
        "sleep_h": {"type": "hook", "sleep": "{sleep_t.output.data.seconds}"},
    }
    return _graph("sleep", activities, {"sleep_t": [{"to": "sleep_h"}]})


def _graph(topic: str, activities: dict[str, Any], transitions: dict[str, Any]) -> dict[str, Any]:
    graph: dict[str, Any] = {"subscribes": topic, "expire": LONG, "activities": activities}
    if transitions:
        graph["transitions"] = transitions
    return graph


def _while(to: str, count: str, trigger: str) -> dict[str, Any]:
    """A transition that is taken while the count is below the job's limit."""
    below = {"@pipe": [[count, f"{{{trigger}.output.data.limit}}"], ["{@conditional.less_than}"]]}
    return {"to": to, "conditions": {"match": [{"expected": True, "actual": below}]}}


def _one_more(count: str) -> dict[str, Any]:
    return {"@pipe": [[count, 1], ["{@math.add}"]]}
