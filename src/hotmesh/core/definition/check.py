"""The rules that a graph must keep, one function per rule; `check_app` asks them all.

Which numbers mean what is listed in `docs/graphs.md`. What a rule cannot judge because another one is already
broken (the ancestor of an unknown activity, say) it passes over, so that each mistake is reported once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from hotmesh.core.arguments import RESERVED_APP, unusable_name
from hotmesh.core.definition import grammar
from hotmesh.core.definition.check_flow import (
    conditions_can_be_met,
    hook_rules_lead_to_hooks,
    signals_have_a_listener,
    transitions_have_no_loop,
    transitions_lead_somewhere,
)
from hotmesh.core.definition.check_keys import keys_have_an_effect
from hotmesh.core.definition.check_lengths import names_fit_into_the_indexes
from hotmesh.core.definition.check_literals import values_are_what_they_look_like
from hotmesh.core.definition.check_values import (
    expressions_can_be_resolved,
    expressions_stay_in_their_graph,
    is_expression,
    literals_have_the_right_kind,
    signals_are_matched_by_what_they_carry,
    statistics_are_known,
)
from hotmesh.core.definition.graph import Activity, App, Graph
from hotmesh.core.definition.report import Report, did_you_mean, one_of
from hotmesh.core.values import UNDEFINED
from hotmesh.errors import Problem


def check_app(app: App) -> list[Problem]:
    """Everything that is wrong with the app beyond the shape of its document, warnings included."""
    report = Report(app.document)
    for rule in RULES:
        rule(app, report)
    return report.problems


def check_app_id(app: App, expected: str) -> list[Problem]:
    """V16: the document is for the app that deploys it."""
    if not app.id or app.id == expected:
        return []
    report = Report(app.document)
    report.error(
        "V16",
        f"App ID mismatch: {app.id} !== {expected}: the document is of app {app.id}, this instance of app {expected}",
        "/app/id",
    )
    return report.problems


def app_is_named(app: App, report: Report) -> None:
    """V16: the app has an id that can be used, and a version."""
    if not app.id:
        _missing(report, "V16", "app has no id", "/app", "/app/id")
    elif app.id == RESERVED_APP:
        report.error("V16", f"app.id {app.id!r} cannot be used: it is reserved", "/app/id")
    elif (why := unusable_name("app.id", app.id)) is not None:
        report.error("V16", why, "/app/id")
    if not app.version:
        _missing(report, "V16", "app has no version", "/app", "/app/version", "version: '1'")


def activity_ids_are_unique(app: App, report: Report) -> None:
    """V1, over all graphs of the app; and ids can be named in an expression."""
    seen: set[str] = set()
    for graph in app.graphs:
        for activity in graph.activities.values():
            if activity.id in seen:
                report.error("V1", f"Duplicate activity id found: {activity.id}", activity.pointer, name=True)
            seen.add(activity.id)
            if not activity.id or "." in activity.id or activity.id.startswith(("$", "@")):
                report.warning(
                    "V1", f'no expression can name the activity "{activity.id}"', activity.pointer, name=True
                )


def graphs_have_one_trigger(app: App, report: Report) -> None:
    """V5: there is a trigger. V8: there is only one, and nothing leads to it."""
    for graph in app.graphs:
        triggers = [activity for activity in graph.activities.values() if activity.type == "trigger"]
        # A graph without activities, or one whose activities could not be read, was reported as such.
        if not triggers and isinstance(report.document.at(f"{graph.pointer}/activities"), Mapping):
            report.error(
                "V5",
                "collator-trigger-activity-not-found: the graph has no trigger, by which it begins",
                f"{graph.pointer}/activities",
                name=True,
                suggestion="one activity needs type: trigger",
            )
        for extra in triggers[1:]:
            message = f"a graph has one trigger; {triggers[0].id} is already one"
            report.error("V8", message, f"{extra.pointer}/type")
        for transition in (transition for edges in graph.transitions.values() for transition in edges):
            if any(transition.to == trigger.id for trigger in triggers):
                report.error(
                    "V8", f"no transition may lead to the trigger {transition.to}", f"{transition.pointer}/to"
                )


def types_are_known(app: App, report: Report) -> None:
    """V9: the type of each activity, and the subtype of a signal."""
    for _, activity in _activities(app):
        if not activity.type:
            # A type that is no text was reported as such.
            if report.document.at(f"{activity.pointer}/type") in (None, UNDEFINED):
                report.error("V9", f"the activity {activity.id} has no type", activity.pointer, name=True)
        elif activity.type not in grammar.TYPES:
            report.error(
                "V9",
                f"Unknown activity type: {activity.type}",
                f"{activity.pointer}/type",
                suggestion=did_you_mean(activity.type, grammar.TYPES) or f"it is {one_of(grammar.TYPES)}",
            )
        elif activity.type == "signal" and activity.subtype not in {None, *grammar.SUBTYPES}:
            report.error(
                "V9", f"subtype of a signal is {one_of(grammar.SUBTYPES)}", f"{activity.pointer}/subtype"
            )


def graphs_can_be_started(app: App, report: Report) -> None:
    """V10: each graph subscribes to a topic of its own."""
    seen: dict[str, str] = {}
    for graph in app.graphs:
        place = f"{graph.pointer}/subscribes"
        if not graph.subscribes:
            _missing(report, "V10", "a graph needs the topic it subscribes to", graph.pointer, place)
        elif graph.subscribes in seen:
            first = report.document.location(seen[graph.subscribes])
            report.error("V10", f'another graph subscribes to "{graph.subscribes}" already ({first})', place)
        else:
            seen[graph.subscribes] = place


def activities_have_their_topic(app: App, report: Report) -> None:
    """V11: worker, await and signal say where to."""
    for _, activity in _activities(app):
        if activity.type in {"worker", "await", "signal"} and activity.topic in (None, ""):
            _missing(
                report,
                "V11",
                f"the {activity.type} {activity.id} has no topic",
                activity.pointer,
                f"{activity.pointer}/topic",
            )


def cycles_return_to_an_ancestor(app: App, report: Report) -> None:
    """V11: the ancestor of a cycle is before it in the same graph."""
    owners = {activity.id: graph for graph, activity in _activities(app)}
    for graph, activity in _activities(app):
        if activity.type != "cycle":
            continue
        place = f"{activity.pointer}/ancestor"
        ancestor = activity.ancestor
        if not ancestor:
            _missing(report, "V11", f"the cycle {activity.id} has no ancestor", activity.pointer, place)
        elif ancestor not in owners:
            hint = did_you_mean(ancestor, graph.activities)
            report.error("V11", f"the ancestor {ancestor} does not exist", place, suggestion=hint)
        elif ancestor not in graph.activities:
            report.error("V11", f"the ancestor {ancestor} is in another graph", place)
        elif ancestor not in _ancestors(graph, activity.id):
            message = (
                f"{ancestor} is no ancestor of {activity.id}: no transitions lead from the one to the other"
            )
            report.error("V11", message, place)


def awaited_graphs_exist(app: App, report: Report) -> None:
    """V12: an await that names its topic names a graph of this app."""
    topics = {graph.subscribes for graph in app.graphs}
    for _, activity in _activities(app):
        topic = activity.topic
        if activity.type != "await" or not isinstance(topic, str) or not topic or is_expression(topic):
            continue
        if topic not in topics:
            report.error(
                "V12",
                f'no graph of this app subscribes to "{topic}"',
                f"{activity.pointer}/topic",
                suggestion=did_you_mean(topic, topics),
            )


def worker_topics_are_their_own(app: App, report: Report) -> None:
    """V16: a worker on the topic of a graph is probably meant to be an await."""
    topics = {graph.subscribes for graph in app.graphs}
    for _, activity in _activities(app):
        if activity.type == "worker" and isinstance(activity.topic, str) and activity.topic in topics:
            report.warning(
                "V16",
                f'"{activity.topic}" is the topic of a graph; a worker does not start it',
                f"{activity.pointer}/topic",
                suggestion="type: await starts the graph",
            )


def _activities(app: App) -> Iterable[tuple[Graph, Activity]]:
    return ((graph, activity) for graph in app.graphs for activity in graph.activities.values())


def _ancestors(graph: Graph, activity_id: str) -> set[str]:
    before: dict[str, list[str]] = {}
    for source, edges in graph.transitions.items():
        for edge in edges:
            before.setdefault(edge.to, []).append(source)
    found: set[str] = set()
    queue = deque(before.get(activity_id, ()))
    while queue:
        source = queue.popleft()
        if source not in found:
            found.add(source)
            queue.extend(before.get(source, ()))
    return found


def _missing(
    report: Report, rule: str, message: str, around: str, pointer: str, suggestion: str | None = None
) -> None:
    """A key that is absent is reported at what it is absent from, one that is empty where it stands."""
    value = report.document.at(pointer)
    if value in ("", None):
        report.error(rule, message, pointer, suggestion=suggestion)
    elif value is UNDEFINED:
        report.error(rule, message, around, name=True, suggestion=suggestion)
    # Anything else has the wrong shape, which was reported as such.


RULES: Final[tuple[Callable[[App, Report], None], ...]] = (
    app_is_named,
    activity_ids_are_unique,
    expressions_can_be_resolved,
    expressions_stay_in_their_graph,
    graphs_have_one_trigger,
    types_are_known,
    graphs_can_be_started,
    activities_have_their_topic,
    cycles_return_to_an_ancestor,
    awaited_graphs_exist,
    transitions_lead_somewhere,
    transitions_have_no_loop,
    conditions_can_be_met,
    hook_rules_lead_to_hooks,
    signals_are_matched_by_what_they_carry,
    signals_have_a_listener,
    worker_topics_are_their_own,
    literals_have_the_right_kind,
    statistics_are_known,
    keys_have_an_effect,
    values_are_what_they_look_like,
    names_fit_into_the_indexes,
)
