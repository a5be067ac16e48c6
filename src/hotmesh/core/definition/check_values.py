"""Rules on the values in a graph: expressions, and literals where a certain kind is needed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from hotmesh.core.definition import grammar
from hotmesh.core.definition.graph import Activity, App, Graph
from hotmesh.core.definition.report import Report, did_you_mean, one_of, problem_at
from hotmesh.core.definition.yaml_document import escape
from hotmesh.core.duration import seconds
from hotmesh.core.mapping import check_expression, to_number
from hotmesh.errors import ConfigError

_ACTIVITY_EXPRESSIONS: Final[tuple[tuple[str, str], ...]] = (
    ("topic", "/topic"),
    ("input_maps", "/input/maps"),
    ("output_maps", "/output/maps"),
    ("job_maps", "/job/maps"),
    ("signal_maps", "/signal/maps"),
    ("resolver_maps", "/resolver/maps"),
    ("telemetry", "/telemetry"),
    ("emit", "/emit"),
    ("persist", "/persist"),
    ("status_threshold", "/statusThreshold"),
    ("entity", "/entity"),
    ("wait", "/await"),
    ("sleep", "/sleep"),
    ("escalation", "/escalation"),
    ("status", "/status"),
    ("code", "/code"),
    ("key_name", "/key_name"),
    ("key_value", "/key_value"),
    ("target", "/target"),
    ("reason", "/reason"),
    ("throw", "/throw"),
    ("descend", "/descend"),
    ("stack", "/stack"),
)
"""Fields of an activity that may hold expressions, and where they stand below it."""


def is_expression(value: Any) -> bool:
    """Whether a single value is resolved when the job runs; otherwise it is a literal."""
    if isinstance(value, str):
        return value.startswith("{") and value.endswith("}")
    return isinstance(value, Mapping) and "@pipe" in value


def expressions(app: App) -> Iterator[tuple[Graph, Any, str, frozenset[str]]]:
    """(graph, value or map tree, pointer, the activities that a path may name) wherever expressions may stand."""
    roots = frozenset(name for graph in app.graphs for name in graph.activities)
    for graph in app.graphs:
        yield graph, graph.expire, f"{graph.pointer}/expire", roots
        yield graph, graph.persistent, f"{graph.pointer}/persistent", roots
        for activity in graph.activities.values():
            for value, pointer in _expressions_of(activity):
                yield graph, value, pointer, roots
        for edges in graph.transitions.values():
            for edge in edges:
                if isinstance(edge.conditions, Mapping) and isinstance(edge.conditions.get("match"), list):
                    for index, pair in enumerate(edge.conditions["match"]):
                        if isinstance(pair, Mapping):
                            yield (
                                graph,
                                pair.get("actual"),
                                f"{edge.pointer}/conditions/match/{index}/actual",
                                roots,
                            )
        for rules in graph.hooks.values():
            for rule in rules:
                if rule.match is not None:
                    place = f"{rule.pointer}/conditions/match/0"
                    yield graph, rule.match.expected, f"{place}/expected", roots
                    yield graph, rule.match.actual, f"{place}/actual", roots | {"$hook"}


def _expressions_of(activity: Activity) -> Iterator[tuple[Any, str]]:
    for field, below in _ACTIVITY_EXPRESSIONS:
        value = getattr(activity, field)
        if value is not None and not (
            field == "topic" and activity.type == "signal" and activity.subtype == "all"
        ):
            yield value, activity.pointer + below
    if activity.statistics is not None:
        place = f"{activity.pointer}/stats"
        yield activity.statistics.id, f"{place}/id"
        yield activity.statistics.key, f"{place}/key"
        for index, (_, target) in enumerate(activity.statistics.measures):
            yield target, f"{place}/measures/{index}/target"


def expressions_can_be_resolved(app: App, report: Report) -> None:
    """V2: paths begin at something that exists. V3, V4: functions exist."""
    for _, value, pointer, roots in expressions(app):
        if value is None or isinstance(value, (bool, int, float)):
            continue
        for problem in check_expression(value, pointer, roots):
            report.problems.append(problem_at(report.document.location(problem.path), problem))


def expressions_stay_in_their_graph(app: App, report: Report) -> None:
    """V2: the activities of another graph exist, but nothing of theirs is in this job."""
    owners = {name: graph for graph in app.graphs for name in graph.activities}
    for graph, value, pointer, _ in expressions(app):
        for text, place in texts(value, pointer):
            if not is_expression(text):
                continue
            root = text[1:-1].partition(".")[0]
            owner = owners.get(root)
            if owner is not None and root not in graph.activities:
                message = (
                    f"{root} is an activity of the graph {owner.subscribes}; here {text} is always undefined"
                )
                report.warning("V2", message, place)


def signals_are_matched_by_what_they_carry(app: App, report: Report) -> None:
    """V15: the `actual` of a hook rule sees the signal only; which job it is for is what it finds out."""
    for graph in app.graphs:
        for rule in (rule for rules in graph.hooks.values() for rule in rules):
            if rule.match is None:
                continue
            hidden = {"$job", "$app", "$graph", *graph.activities} - {rule.to}
            place = f"{rule.pointer}/conditions/match/0/actual"
            for text, pointer in texts(rule.match.actual, place):
                if is_expression(text) and text[1:-1].partition(".")[0] in hidden:
                    report.error(
                        "V15",
                        f"actual is resolved on the signal alone; {text} is undefined there",
                        pointer,
                        suggestion="read the signal: {$self.hook.data.id}",
                    )


def texts(value: Any, pointer: str) -> Iterator[tuple[str, str]]:
    """Every text in a value, however deep, with the pointer to it."""
    if isinstance(value, str):
        yield value, pointer
    elif isinstance(value, Mapping):
        for name, member in value.items():
            yield from texts(member, f"{pointer}/{escape(name)}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from texts(item, f"{pointer}/{index}")


def literals_have_the_right_kind(app: App, report: Report) -> None:
    """V18: literal numbers of seconds and thresholds, codes and status words; and switches that are booleans."""
    for graph in app.graphs:
        _check_duration(graph.expire, "expire", f"{graph.pointer}/expire", report)
        _check_switch(graph.persistent, "persistent", f"{graph.pointer}/persistent", report)
        for activity in graph.activities.values():
            place = activity.pointer
            _check_duration(activity.sleep, "sleep", f"{place}/sleep", report)
            _check_number(activity.status_threshold, "statusThreshold", f"{place}/statusThreshold", report)
            for name, value in (
                ("emit", activity.emit),
                ("persist", activity.persist),
                ("await", activity.wait),
                ("throw", activity.throw),
                ("descend", activity.descend),
            ):
                _check_switch(value, name, f"{place}/{name}", report)
            if activity.type in {"signal", "interrupt"}:
                _check_number(activity.code, "code", f"{place}/code", report)
            if activity.type == "signal":
                _check_status(activity.status, f"{place}/status", report)


def _check_status(value: Any, pointer: str, report: Report) -> None:
    if value is not None and value not in grammar.STATUSES and not is_expression(value):
        report.error("V18", f"status of a signal is {one_of(grammar.STATUSES)}", pointer)


def _check_number(value: Any, name: str, pointer: str, report: Report) -> None:
    if value is None or is_expression(value) or _is_numeric(value):
        return
    report.error("V18", f"{name} is a number", pointer)


def _check_duration(value: Any, name: str, pointer: str, report: Report) -> None:
    if value is None or is_expression(value) or _is_numeric(value):
        return
    if isinstance(value, str):
        with suppress(ConfigError):
            seconds(value)
            return
    hint = "write seconds, text such as '5 minutes', or an expression"
    report.error("V18", f"{name} is a number of seconds or a duration", pointer, suggestion=hint)


def _is_numeric(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value.strip()) and math.isfinite(to_number(value))
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_switch(value: Any, name: str, pointer: str, report: Report) -> None:
    if value is None or isinstance(value, bool) or is_expression(value):
        return
    hint = f"write {value.lower()} without quotes" if _is_quoted_boolean(value) else None
    report.warning("V18", f"{name} is true or false; any other value has no effect", pointer, suggestion=hint)


def _is_quoted_boolean(value: Any) -> bool:
    return isinstance(value, str) and value.lower() in {"true", "false"}


def statistics_are_known(app: App, report: Report) -> None:
    """V18: the granularity and the measures of a trigger's statistics."""
    for graph in app.graphs:
        for activity in graph.activities.values():
            statistics = activity.statistics
            if statistics is None:
                continue
            place = f"{activity.pointer}/stats"
            if statistics.granularity not in grammar.GRANULARITIES:
                report.error("V18", f"granularity is {one_of(grammar.GRANULARITIES)}", f"{place}/granularity")
            for index, (measure, _) in enumerate(statistics.measures):
                if measure and measure not in grammar.MEASURES:
                    report.error(
                        "V18",
                        f"a measure is {one_of(grammar.MEASURES)}",
                        f"{place}/measures/{index}/measure",
                        suggestion=did_you_mean(measure, grammar.MEASURES),
                    )
