"""Rules on how a graph flows: transitions, their conditions, hook rules and signals."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from hotmesh.core.definition import grammar
from hotmesh.core.definition.check_values import is_expression
from hotmesh.core.definition.graph import App, Graph, Transition
from hotmesh.core.definition.report import Report, did_you_mean, one_of

_CODE: Final = re.compile("[1-9][0-9]{2}")


def transitions_lead_somewhere(app: App, report: Report) -> None:
    """V6: the target exists. V13: so does the source, in the same graph; and every activity is reached."""
    everywhere = {name for graph in app.graphs for name in graph.activities}
    for graph in app.graphs:
        for source, transition in _transitions(graph):
            if transition.to in graph.activities:
                continue
            place = f"{transition.pointer}/to"
            if transition.to in everywhere:
                report.error(
                    "V13", f"the transition leads to {transition.to}, which is in another graph", place
                )
            else:
                report.error(
                    "V6",
                    f"the transition from {source} leads to {transition.to}, which does not exist",
                    place,
                    suggestion=did_you_mean(transition.to, graph.activities),
                )
        _check_sources(graph, everywhere, report)
        _check_reached(graph, report)


def _check_sources(graph: Graph, everywhere: set[str], report: Report) -> None:
    for source, edges in graph.transitions.items():
        pointer = edges[0].pointer.rpartition("/")[0] if edges else f"{graph.pointer}/transitions"
        activity = graph.activities.get(source)
        if activity is None:
            what = "is in another graph" if source in everywhere else "does not exist"
            hint = did_you_mean(source, graph.activities)
            report.error(
                "V13", f"transitions from {source}, which {what}", pointer, name=True, suggestion=hint
            )
        elif edges and activity.type == "cycle":
            report.warning("V13", f"{source} is a cycle; its transitions are never taken", pointer, name=True)
        elif edges and activity.type == "interrupt" and activity.target is None:
            message = f"{source} interrupts its own job; its transitions are never taken"
            report.warning("V13", message, pointer, name=True)


def _check_reached(graph: Graph, report: Report) -> None:
    queue = deque(activity.id for activity in graph.activities.values() if activity.type == "trigger")
    if not queue:
        return
    reached = set(queue)
    while queue:
        for edge in graph.transitions.get(queue.popleft(), ()):
            if edge.to not in reached:
                reached.add(edge.to)
                queue.append(edge.to)
    for activity in graph.activities.values():
        if activity.id not in reached:
            report.warning("V13", f"nothing leads to the activity {activity.id}", activity.pointer, name=True)


def transitions_have_no_loop(app: App, report: Report) -> None:
    """V13: a flow returns to an earlier activity by a cycle activity only."""
    for graph in app.graphs:
        for path, closing in _loops(graph):
            report.error(
                "V13",
                f"the transitions form a loop: {' -> '.join(path)}",
                f"{closing.pointer}/to",
                suggestion="return with an activity of type cycle",
            )


def _loops(graph: Graph) -> Iterator[tuple[list[str], Transition]]:
    """Each loop once, as (its path from the first activity back to it, the transition that closes it)."""
    done: set[str] = set()
    for start in graph.transitions:
        if start in done:
            continue
        path, position = [start], {start: 0}
        branches = [iter(graph.transitions[start])]
        while branches:
            edge = next(branches[-1], None)
            if edge is None:
                branches.pop()
                done.add(path[-1])
                del position[path.pop()]
            elif edge.to in position:
                yield [*path[position[edge.to] :], edge.to], edge
            elif edge.to not in done:
                position[edge.to] = len(path)
                path.append(edge.to)
                branches.append(iter(graph.transitions.get(edge.to, ())))


def conditions_can_be_met(app: App, report: Report) -> None:
    """V14: `code`, `gate` and `match` of a condition say something that can be true."""
    for graph in app.graphs:
        for _, transition in _transitions(graph):
            conditions = transition.conditions
            if not isinstance(conditions, Mapping):
                continue
            place = f"{transition.pointer}/conditions"
            _check_code(conditions.get("code"), f"{place}/code", report)
            gate = conditions.get("gate")
            if gate is not None and gate not in grammar.GATES:
                report.error("V14", f"gate is {one_of(grammar.GATES)}", f"{place}/gate")
            match = conditions.get("match")
            for index, pair in enumerate(match if isinstance(match, list) else ()):
                _check_pair(pair, f"{place}/match/{index}", "V14", report)


def _check_code(code: Any, pointer: str, report: Report) -> None:
    if code is None:
        return
    if isinstance(code, list):
        if not code:
            report.error("V14", "an empty list of codes matches no outcome", pointer)
        for index, item in enumerate(code):
            if not is_code(item):
                report.error("V14", "a code is a whole number from 100 to 999", f"{pointer}/{index}")
    elif not is_code(code):
        report.error("V14", "code is a whole number from 100 to 999, or a list of such", pointer)


def is_code(value: Any) -> bool:
    """Whether a value is an outcome code; codes compare as text, so "422" is one."""
    if isinstance(value, str):
        return _CODE.fullmatch(value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool) and value in range(100, 1000)


def _check_pair(pair: Any, pointer: str, rule: str, report: Report) -> None:
    if isinstance(pair, Mapping):
        for side in ("expected", "actual"):
            # A hook rule with a side that is nothing can match no signal; a transition may well expect null.
            if side not in pair or (rule == "V15" and pair[side] is None):
                hint = next((hint for key in pair if (hint := did_you_mean(key, [side]))), None)
                report.error(
                    rule,
                    f"a match needs both expected and actual; {side} is missing",
                    pointer,
                    suggestion=hint,
                )


def hook_rules_lead_to_hooks(app: App, report: Report) -> None:
    """V15: the target is a hook of this graph, and both sides of the match are given."""
    for graph in app.graphs:
        targets: dict[str, str] = {}
        for topic, rules in graph.hooks.items():
            for rule in rules:
                place = f"{rule.pointer}/to"
                activity = graph.activities.get(rule.to)
                if activity is None:
                    hint = did_you_mean(rule.to, graph.activities)
                    report.error("V15", f"{rule.to} is no activity of this graph", place, suggestion=hint)
                elif activity.type != "hook":
                    report.error("V15", f"{rule.to} is no hook, but of type {activity.type}", place)
                elif rule.to in targets:
                    message = f"{rule.to} waits on {targets[rule.to]} already; only one hook rule of an activity is used"
                    report.warning("V15", message, place)
                targets.setdefault(rule.to, topic)
                _check_match(rule.pointer, report)
        for activity in graph.activities.values():
            if activity.type == "hook" and activity.escalation is not None and activity.id not in targets:
                message = f"no hook rule leads to {activity.id}, so its escalation is never written"
                report.warning("V15", message, f"{activity.pointer}/escalation", name=True)


def _check_match(pointer: str, report: Report) -> None:
    place = f"{pointer}/conditions/match"
    match = report.document.at(place)
    if not isinstance(match, list) or not match:
        report.error("V15", "a hook rule needs conditions.match with expected and actual", pointer)
        return
    _check_pair(match[0], f"{place}/0", "V15", report)
    if len(match) > 1:
        report.warning("V15", "only the first match of a hook rule is used", f"{place}/1")


def signals_have_a_listener(app: App, report: Report) -> None:
    """V15: a signal that names its topic finds a hook rule on it (another app may have one, so it may pass)."""
    topics = {topic for graph in app.graphs for topic in graph.hooks}
    for graph in app.graphs:
        for activity in graph.activities.values():
            topic = activity.topic
            if activity.type != "signal" or not isinstance(topic, str) or not topic:
                continue
            if topic not in topics and (activity.subtype == "all" or not is_expression(topic)):
                report.warning(
                    "V15",
                    f'no hook rule listens on "{topic}"',
                    f"{activity.pointer}/topic",
                    suggestion=did_you_mean(topic, topics),
                )


def _transitions(graph: Graph) -> Iterable[tuple[str, Transition]]:
    return ((source, edge) for source, edges in graph.transitions.items() for edge in edges)
