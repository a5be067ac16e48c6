"""Rule V17: what is written has an effect. Nothing that is accepted and ignored is ignored without a word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from hotmesh.core.definition import grammar
from hotmesh.core.definition.graph import Activity, App, Graph
from hotmesh.core.definition.report import Report
from hotmesh.core.definition.yaml_document import escape
from hotmesh.core.values import UNDEFINED

_OF_ALL: Final = ("resolver", "key_name", "key_value", "scrub")
"""Keys of a signal that only one with `subtype: all` has a use for."""


def keys_have_an_effect(app: App, report: Report) -> None:
    """V17: keys that are accepted and ignored, each with what to write for it."""
    settings = report.document.at("/app/settings")
    if settings not in (None, UNDEFINED, {}):
        hint = "what is your own goes under a key that begins with x-"
        report.warning("V17", "settings has no effect", "/app/settings", name=True, suggestion=hint)
    for graph in app.graphs:
        members = _mapping(report, graph.pointer)
        for name, hint in grammar.GRAPH_WITHOUT_EFFECT.items():
            if _says_something(name, members.get(name)):
                place = f"{graph.pointer}/{name}"
                report.warning("V17", f"{name} of a graph has no effect", place, name=True, suggestion=hint)
        for activity in graph.activities.values():
            for name, where, hint in _idle(graph, members, activity, _mapping(report, activity.pointer)):
                place = f"{activity.pointer}/{escape(name)}"
                report.warning("V17", f"{name} has no effect {where}", place, name=True, suggestion=hint)
            _check_statistics(activity, report)
        _check_transitions(graph, report)
        _check_hook_rules(graph, report)


def _idle(
    graph: Graph, above: Mapping[str, Any], activity: Activity, members: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    """(key, where it has no effect, what to write) of an activity."""
    ignored = {**grammar.WITHOUT_EFFECT[""], **grammar.WITHOUT_EFFECT.get(activity.type, {})}
    for name, hint in ignored.items():
        value = members.get(name)
        # A manifest has what the graph says at each of its activities, too.
        if _says_something(name, value) and not (
            name in {"expire", "persistent"} and name in above and value == above[name]
        ):
            yield name, f"on an activity of type {activity.type}", hint
    if activity.type == "signal" and activity.subtype != "all":
        for name in _OF_ALL:
            if members.get(name) is not None and members[name] is not False:
                yield name, "on a signal to one", "write subtype: all to signal every job under a facet"
    if activity.type == "interrupt" and activity.target is None:
        for name in ("topic", "output"):
            if members.get(name) is not None:
                yield name, "on an interrupt of its own job", "name another job with target:"
    if activity.type == "hook" and activity.escalation is None and members.get("hook") is not None:
        listening = any(rule.to == activity.id for rules in graph.hooks.values() for rule in rules)
        if not listening:
            yield "hook", f"where no hook rule leads to {activity.id}", "add a rule under hooks: of the graph"


def _says_something(name: str, value: Any) -> bool:
    """Whether a key that is ignored asks for anything: neither nothing, nor what is so anyway."""
    return value is not None and value != {} and not (name == "persistent" and value is False)


def _check_statistics(activity: Activity, report: Report) -> None:
    members = _mapping(report, f"{activity.pointer}/stats")
    for name, hint in grammar.STATS_WITHOUT_EFFECT.items():
        if members.get(name) is not None:
            place = f"{activity.pointer}/stats/{name}"
            report.warning("V17", f"{name} of stats has no effect", place, name=True, suggestion=hint)


def _check_transitions(graph: Graph, report: Report) -> None:
    for edge in (edge for edges in graph.transitions.values() for edge in edges):
        members = _mapping(report, edge.pointer)
        conditions = edge.conditions if isinstance(edge.conditions, Mapping) else {}
        if members.get("code") is not None and conditions.get("code") != members["code"]:
            report.warning(
                "V17",
                "code beside to has no effect: the transition is taken whatever the code"
                if edge.conditions in (None, True)
                else "code beside to has no effect",
                f"{edge.pointer}/code",
                name=True,
                suggestion=f"write conditions: {{code: {members['code']}}}",
            )
        if conditions.get("gate") in grammar.GATES and not conditions.get("match"):
            report.warning(
                "V17",
                "gate has no effect without match",
                f"{edge.pointer}/conditions/gate",
                name=True,
                suggestion="it says whether all pairs of match must hold, or one",
            )


def _check_hook_rules(graph: Graph, report: Report) -> None:
    for rule in (rule for rules in graph.hooks.values() for rule in rules):
        conditions = _mapping(report, f"{rule.pointer}/conditions")
        for name in ("gate", "code"):
            # `gate: and` says what is so anyway.
            if conditions.get(name) not in (None, "and"):
                place = f"{rule.pointer}/conditions/{name}"
                hint = "job and signal meet by the first pair of match alone"
                report.warning(
                    "V17", f"{name} of a hook rule has no effect", place, name=True, suggestion=hint
                )


def _mapping(report: Report, pointer: str) -> Mapping[str, Any]:
    found = report.document.at(pointer)
    return found if isinstance(found, Mapping) else {}
