"""The flows of our side. Every worker activity stores its result in the job, as every DBOS step stores its own."""

from __future__ import annotations

from typing import Any

import yaml

from protocol import WIDE

APP = "bench"
STEP = "bench.step"  # the topic that the worker serves
GO = "bench.go"  # the topic of the signals
NOBODY = "bench.nobody"  # a topic without a worker
FAN = 50

# The number of activities of each flow, and whether they follow each other or start together.
SHAPES = {
    "one": (1, "row"),
    "five": (5, "row"),
    "fan": (FAN, "fan"),
    "wide": (WIDE, "fan"),
    "kept": (1, "row"),
    "open": (1, "row"),
}


def document() -> str:
    """The YAML of the app."""
    graphs = [*(_graph(flow, *shape) for flow, shape in SHAPES.items()), _signalled()]
    return yaml.safe_dump({"app": {"id": APP, "version": "1", "graphs": graphs}}, sort_keys=False)


def topic(flow: str) -> str:
    return f"{APP}.{flow}"


def result(flow: str) -> dict[str, Any]:
    """The data of a finished job."""
    return dict.fromkeys(_activities(flow, SHAPES[flow][0]), True)


def _signalled() -> dict[str, Any]:
    """A flow that waits in a hook for a signal, and stores what it brought."""
    return {
        "subscribes": topic("signalled"),
        "activities": {
            "signalled_t1": {"type": "trigger"},
            "signalled_h1": {
                "type": "hook",
                "job": {"maps": {"ok": "{$self.hook.data.ok}"}},
            },
        },
        "transitions": {"signalled_t1": [{"to": "signalled_h1"}]},
        "hooks": {
            GO: [
                {
                    "to": "signalled_h1",
                    "conditions": {
                        "match": [{"expected": "{$job.metadata.jid}", "actual": "{$self.hook.data.id}"}]
                    },
                }
            ]
        },
    }


def _graph(flow: str, count: int, shape: str) -> dict[str, Any]:
    trigger = f"{flow}_t1"
    activities = _activities(flow, count)
    if shape == "fan":
        transitions = {trigger: [{"to": activity} for activity in activities]}
    else:
        transitions = {
            before: [{"to": after}] for before, after in zip([trigger, *activities], activities, strict=False)
        }
    graph: dict[str, Any] = {
        "subscribes": topic(flow),
        "activities": {trigger: {"type": "trigger"}}
        | {
            activity: _worker(trigger, activity, NOBODY if flow == "open" else STEP)
            for activity in activities
        },
        "transitions": transitions,
    }
    if flow == "kept":
        graph["expire"] = 0  # the finished job stays
    return graph


def _activities(flow: str, count: int) -> list[str]:
    return [f"{flow}_a{number}" for number in range(1, count + 1)]


def _worker(trigger: str, activity: str, worker_topic: str) -> dict[str, Any]:
    return {
        "type": "worker",
        "topic": worker_topic,
        "input": {"maps": {"n": f"{{{trigger}.output.data.n}}"}},
        "job": {"maps": {activity: "{$self.output.data.ok}"}},
    }
