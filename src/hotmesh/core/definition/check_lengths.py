"""V19: names that rows are found by fit into the indexes."""

from __future__ import annotations

from typing import Any

from hotmesh.core.definition.graph import App
from hotmesh.core.definition.report import Report
from hotmesh.core.lengths import LONGEST_APP, LONGEST_TOPIC, LONGEST_VERSION, excess


def names_fit_into_the_indexes(app: App, report: Report) -> None:
    """V19: app id, version, topics and activity ids are not too long, in bytes."""
    _check(report, "app.id", app.id, LONGEST_APP, "/app/id")
    _check(report, "app.version", app.version, LONGEST_VERSION, "/app/version")
    for graph in app.graphs:
        _check(report, "subscribes", graph.subscribes, LONGEST_TOPIC, f"{graph.pointer}/subscribes")
        _check(report, "publishes", graph.publishes, LONGEST_TOPIC, f"{graph.pointer}/publishes")
        for topic in graph.hooks:
            _check(
                report, "the topic of a hook rule", topic, LONGEST_TOPIC, f"{graph.pointer}/hooks", name=True
            )
        for activity in graph.activities.values():
            _check(report, "an activity id", activity.id, LONGEST_TOPIC, activity.pointer, name=True)
            _check(
                report,
                f"the topic of activity {activity.id[:40]}",
                activity.topic,
                LONGEST_TOPIC,
                f"{activity.pointer}/topic",
            )


def _check(report: Report, what: str, value: Any, most: int, pointer: str, *, name: bool = False) -> None:
    if not isinstance(value, str) or value.startswith("{"):
        return
    found = excess(value, most)
    if found:
        report.error(
            "V19", f"{what} has {found} bytes; it may have at most {most}: {value[:40]}…", pointer, name=name
        )
