"""Rule V20: values that look like something that they are not. Warnings, and only where it is certain: what they mean stays."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from hotmesh.core.definition.check_values import expressions, is_expression, texts
from hotmesh.core.definition.graph import App, Graph
from hotmesh.core.definition.report import Report, did_you_mean
from hotmesh.core.definition.yaml_document import escape
from hotmesh.core.mapping import to_number

PARTS: Final[Mapping[str, frozenset[str]]] = {
    "$job": frozenset({"data", "metadata"}),
    "$hook": frozenset({"data"}),
}
"""What a path may name below a root."""

_OF_ACTIVITIES: Final = frozenset({"output", "input", "hook"})
_PIPES: Final = frozenset({"@pipe", "@reduce"})
_PATH: Final = re.compile(r"[$\w-]+(\.[$\w-]+)+")
"""What stands in the braces of a path; other texts may well have a brace at one end."""

_SUFFIX: Final = re.compile(r".+\[([^\[\]]*)\]", re.DOTALL)


def values_are_what_they_look_like(app: App, report: Report) -> None:
    """V20: paths without one of their braces or with a part that nothing has, `@` keys, slots, and what is taken literally."""
    for graph, value, pointer, roots in expressions(app):
        for text, place in texts(value, pointer):
            _check_braces(text, place, roots, report)
            _check_part(graph, text, place, report)
        _check_at_keys(value, pointer, report)
    for graph in app.graphs:
        _check_expected(graph, report)
        for activity in graph.activities.values():
            if isinstance(activity.job_maps, Mapping) and "@pipe" not in activity.job_maps:
                _check_slots(activity.job_maps, f"{activity.pointer}/job/maps", report)
            _check_sleep(activity.sleep, f"{activity.pointer}/sleep", report)


def _check_braces(text: str, pointer: str, roots: frozenset[str], report: Report) -> None:
    """A path of which one brace is missing is a text."""
    opened, closed = text.startswith("{"), text.endswith("}")
    if opened == closed:
        return
    inner = text.strip("{}")
    root = inner.partition(".")[0]
    if _PATH.fullmatch(inner) and (root in roots or root in {"$self", "$job", "$hook"}):
        what = "closing" if opened else "opening"
        report.warning(
            "V20",
            f"{text} has no {what} brace: it is a text, no path",
            pointer,
            suggestion=f"write '{{{inner}}}'",
        )


def _check_part(graph: Graph, text: str, pointer: str, report: Report) -> None:
    """The second part of a path is one of a few words; with any other it is always undefined."""
    if not is_expression(text) or text.startswith("{@"):
        return
    root, dot, rest = text[1:-1].partition(".")
    if not dot or not (root == "$self" or root in PARTS or root in graph.activities):
        return
    known = PARTS.get(root, _OF_ACTIVITIES)
    part = rest.partition(".")[0]
    if part not in known:
        hint = did_you_mean(part, known) or f"below {root} there is {', '.join(sorted(known))}"
        report.warning("V20", f"{text} is always undefined: {root} has no {part}", pointer, suggestion=hint)


def _check_at_keys(value: Any, pointer: str, report: Report) -> None:
    """Members that begin with @ are pipes; any other is data with that very name."""
    if isinstance(value, Mapping):
        for name, member in value.items():
            place = f"{pointer}/{escape(name)}"
            if name.startswith("@") and name not in _PIPES:
                hint = did_you_mean(name, _PIPES) or "there are @pipe and @reduce"
                report.warning(
                    "V20", f"{name} is taken for the name of a member", place, name=True, suggestion=hint
                )
            _check_at_keys(member, place, report)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_at_keys(item, f"{pointer}/{index}", report)


def _check_expected(graph: Graph, report: Report) -> None:
    """`expected` of a transition is a literal; that of a hook rule is not."""
    for edge in (edge for edges in graph.transitions.values() for edge in edges):
        pairs = edge.conditions.get("match") if isinstance(edge.conditions, Mapping) else None
        for index, pair in enumerate(pairs if isinstance(pairs, list) else ()):
            expected = pair.get("expected") if isinstance(pair, Mapping) else None
            if is_expression(expected):
                report.warning(
                    "V20",
                    "expected of a transition is taken literally, and not resolved",
                    f"{edge.pointer}/conditions/match/{index}/expected",
                    suggestion="compare in actual: a pipe with {@conditional.equality}, and expected: true",
                )


def _check_slots(maps: Mapping[str, Any], pointer: str, report: Report) -> None:
    """A suffix in brackets is a number, - or _; any other is part of the name."""
    for name in maps:
        found = _SUFFIX.fullmatch(name)
        if found and not (found[1] in {"-", "_"} or (found[1].isascii() and found[1].isdigit())):
            report.warning(
                "V20",
                f"[{found[1]}] is part of the name {name}",
                f"{pointer}/{escape(name)}",
                name=True,
                suggestion="slots are a number, as in name[25]; markers and search fields are [-] and [_]",
            )


def _check_sleep(value: Any, pointer: str, report: Report) -> None:
    if isinstance(value, bool) or is_expression(value) or not isinstance(value, (int, float, str)):
        return
    if to_number(value) < 0:
        report.warning(
            "V20", "a sleep below 0 does not wait at all", pointer, suggestion="write seconds above 0"
        )
