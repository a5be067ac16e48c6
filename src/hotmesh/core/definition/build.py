"""A document to the frozen graph: translates the published keys once and reports what has the wrong shape.

Building goes on after a problem, with the offending part left out, so that one run reports everything. What a
part means for the others (does the target exist, is there a loop) is left to the checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeGuard

from hotmesh.core.definition import grammar
from hotmesh.core.definition.graph import (
    Activity,
    App,
    Document,
    Graph,
    HookRule,
    Match,
    Statistics,
    Transition,
)
from hotmesh.core.definition.report import Report, did_you_mean, kind_of, one_of
from hotmesh.core.definition.unknown_keys import undecided_keys, unknown_key
from hotmesh.core.definition.yaml_document import escape
from hotmesh.core.duration import seconds
from hotmesh.core.state.retry import RETRY_POLICY_KEYS, RetryPolicy
from hotmesh.errors import ConfigError, Problem

SHAPE: Final = "shape"
"""The rule broken by a value of the wrong kind."""


def build_app(document: Document) -> tuple[App | None, list[Problem]]:
    """The app, and what is wrong with the shape of the document; None if there is no app to speak of."""
    report = Report(document)
    root = document.data
    if not isinstance(root, Mapping) or "app" not in root:
        if root is None:
            what = "text" if document.location("").file is None else "file"
            report.error(SHAPE, f"the {what} is empty: a graph document is a mapping with the key app", "")
            return None, report.problems
        report.error(
            SHAPE, "a graph document is a mapping with the key app", "", suggestion=_misspelled_app(root)
        )
        return None, report.problems
    builder = _Builder(report)
    return builder.app(root["app"], "/app"), report.problems


def _misspelled_app(root: Any) -> str | None:
    if not isinstance(root, Mapping):
        return None
    if {"id", "graphs"} <= set(root):
        return "put id, version and graphs under app:"
    return next((hint for key in root if (hint := did_you_mean(key, ["app"]))), None)


class _Builder:
    def __init__(self, report: Report) -> None:
        self._report = report

    def app(self, node: Any, pointer: str) -> App | None:
        members = self._mapping(node, pointer, "app")
        if members is None:
            return None
        self._unknown(members, grammar.APP, pointer, "app")
        self._unknown(self._report.document.data, grammar.DOCUMENT, "", "the document")
        if members.get("graphs") is None:
            self._report.error(SHAPE, "app has no graphs", f"{pointer}/graphs", name=True)
        graphs = [
            graph
            for index, item in enumerate(self._list(members.get("graphs"), f"{pointer}/graphs", "graphs"))
            if (graph := self._graph(item, f"{pointer}/graphs/{index}")) is not None
        ]
        return App(
            id=self._name(members.get("id"), f"{pointer}/id", "app.id") or "",
            version=self._version(members.get("version"), f"{pointer}/version"),
            graphs=tuple(graphs),
            document=self._report.document,
        )

    def _version(self, value: Any, pointer: str) -> str:
        if isinstance(value, float):
            self._report.warning(
                "V16",
                f"the version was read as the number {value}",
                pointer,
                suggestion="put the version in quotes",
            )
        return self._name(value, pointer, "app.version") or ""

    def _graph(self, node: Any, pointer: str) -> Graph | None:
        members = self._mapping(node, pointer, "a graph")
        if members is None:
            return None
        self._unknown(members, grammar.GRAPH, pointer, "a graph")
        activities = {
            name: activity
            for name, item in self._members(members, "activities", pointer)
            if (activity := self._activity(name, item, f"{pointer}/activities/{escape(name)}")) is not None
        }
        if members.get("activities") is None:
            self._report.error(SHAPE, "a graph has activities", f"{pointer}/activities", name=True)
        graph = Graph(
            subscribes=self._name(members.get("subscribes"), f"{pointer}/subscribes", "subscribes") or "",
            pointer=pointer,
            publishes=self._name(members.get("publishes"), f"{pointer}/publishes", "publishes"),
            expire=members.get("expire"),
            persistent=members.get("persistent"),
            activities=activities,
            transitions=self._transitions(members, pointer),
            hooks=self._hooks(members, pointer),
        )
        self._schema(members, "input", pointer)
        self._schema(members, "output", pointer)
        return graph

    def _activity(self, name: str, node: Any, pointer: str) -> Activity | None:
        members = self._mapping(node, pointer, f"the activity {name}")
        if members is None:
            return None
        written = members.get("type")
        kind = grammar.ALIASES.get(written, written) if isinstance(written, str) else ""
        if written is not None and not isinstance(written, str):
            self._report.error("V9", f"type is the name of a type, not {kind_of(written)}", f"{pointer}/type")
        self._activity_keys(members, kind, pointer)
        block = self._blocks(members, kind, pointer)
        if members.get("hook") is not None:
            self._mapping(members["hook"], f"{pointer}/hook", "hook")
        # Nothing runs by these two, but they have their form.
        self._name(members.get("title"), f"{pointer}/title", "title")
        self._flag(members, "cycle", pointer)
        return Activity(
            id=name,
            type=kind,
            pointer=pointer,
            subtype=self._name(members.get("subtype"), f"{pointer}/subtype", "subtype"),
            topic=self._topic(members.get("topic"), f"{pointer}/topic"),
            input_maps=block.get("input"),
            output_maps=block.get("output"),
            job_maps=block.get("job"),
            emit=members.get("emit"),
            persist=members.get("persist"),
            status_threshold=members.get("statusThreshold"),
            join=self._word(members.get("join"), grammar.JOINS, f"{pointer}/join", "join"),
            telemetry=self._tree(members.get("telemetry"), f"{pointer}/telemetry", "telemetry"),
            entity=members.get("entity"),
            statistics=self._statistics(members.get("stats"), f"{pointer}/stats"),
            retry=self._retry(members.get("retry"), f"{pointer}/retry"),
            retry_policy=self._retry_policy(members, pointer),
            wait=members.get("await"),
            sleep=members.get("sleep"),
            escalation=self._escalation(members.get("escalation"), f"{pointer}/escalation"),
            signal_maps=block.get("signal"),
            resolver_maps=block.get("resolver"),
            status=members.get("status"),
            code=members.get("code"),
            key_name=members.get("key_name"),
            key_value=members.get("key_value"),
            scrub=self._flag(members, "scrub", pointer),
            ancestor=self._name(members.get("ancestor"), f"{pointer}/ancestor", "ancestor"),
            target=members.get("target"),
            reason=members.get("reason"),
            throw=members.get("throw"),
            descend=members.get("descend"),
            stack=members.get("stack"),
        )

    def _activity_keys(self, members: Mapping[str, Any], kind: str, pointer: str) -> None:
        known = grammar.activity_keys(kind)
        for name in members:
            if name in known or name.startswith(grammar.EXTENSION):
                continue
            place = f"{pointer}/{escape(name)}"
            if name in grammar.COMPILER:
                self._report.warning(
                    "V17", f"{name} is worked out from the graph; it is ignored here", place, name=True
                )
            elif name in grammar.ANY_ACTIVITY:
                # An unknown type is an error of its own; its keys cannot be judged.
                if kind in grammar.TYPES:
                    self._report.warning(
                        "V17", f"{name} has no effect on an activity of type {kind}", place, name=True
                    )
            else:
                unknown_key(self._report, members, name, known, f'unknown key "{name}"', place)

    def _blocks(self, members: Mapping[str, Any], kind: str, pointer: str) -> dict[str, Any]:
        """The `maps` of the blocks `input`, `output`, `job`, `signal` and `resolver`, where given."""
        maps: dict[str, Any] = {}
        for name in ("input", "output", "job", "signal", "resolver"):
            if members.get(name) is None:
                continue
            place = f"{pointer}/{name}"
            block = self._mapping(members[name], place, name)
            if block is None:
                continue
            codes = {key for key in block if key.isdecimal()} if name in {"output", "job"} else set()
            self._unknown(block, grammar.BLOCK | codes, place, name)
            tree = self._tree(block.get("maps"), f"{place}/maps", f"{name}.maps")
            effective = grammar.MAPS.get(name)
            if tree is not None and effective and kind in grammar.TYPES and kind not in effective:
                self._report.warning(
                    "V17",
                    f"{name}.maps has no effect on an activity of type {kind}",
                    f"{place}/maps",
                    name=True,
                )
            maps[name] = tree
        return maps

    def _statistics(self, node: Any, pointer: str) -> Statistics | None:
        if node is None:
            return None
        members = self._mapping(node, pointer, "stats")
        if members is None:
            return None
        self._unknown(members, grammar.STATS, pointer, "stats", grammar.HARMLESS - {"id"})
        measures: list[tuple[str, str]] = []
        for index, item in enumerate(self._list(members.get("measures"), f"{pointer}/measures", "measures")):
            place = f"{pointer}/measures/{index}"
            entry = self._mapping(item, place, "a measure")
            if entry is None:
                continue
            self._unknown(entry, grammar.MEASURE, place, "a measure")
            for key in ("measure", "target"):
                if not isinstance(entry.get(key), str):
                    self._report.error(SHAPE, f"a measure has the text {key}", place)
            measures.append((_text(entry.get("measure")) or "", _text(entry.get("target")) or ""))
        granularity = members.get("granularity")
        return Statistics(
            id=members.get("id"),
            key=members.get("key"),
            granularity="5m" if granularity is None else str(granularity),
            measures=tuple(measures),
        )

    def _retry(self, node: Any, pointer: str) -> Mapping[str, tuple[int, str | None]]:
        """`{'500': [3], '404': [2, 'x']}`; a bare number is taken as a list of one."""
        if node is None:
            return {}
        members = self._mapping(node, pointer, "retry") or {}
        retries: dict[str, tuple[int, str | None]] = {}
        for code, value in members.items():
            place = f"{pointer}/{escape(code)}"
            if not (code.isdecimal() and 100 <= int(code) <= 999):
                hint = did_you_mean(code, RETRY_POLICY_KEYS) and "a policy goes under retry_policy:"
                self._report.error(
                    SHAPE,
                    "retry maps outcome codes from 100 to 999 to counts",
                    place,
                    name=True,
                    suggestion=hint,
                )
                continue
            entry: list[Any] = value if isinstance(value, list) and value else [value]
            count, *backoff = entry
            if not _is_integer(count) or count < 0 or backoff not in ([], ["x"], [None]):
                self._report.error(
                    SHAPE, "write [count] or [count, 'x'], count being the number of retries", place
                )
                continue
            retries[code] = (count, backoff[0] if backoff else None)
        return retries

    def _retry_policy(self, members: Mapping[str, Any], pointer: str) -> RetryPolicy | None:
        key = "retry_policy" if "retry_policy" in members else "retryPolicy"
        if members.get(key) is None:
            return None
        place = f"{pointer}/{key}"
        entries = self._mapping(members[key], place, key)
        if entries is None:
            return None
        self._unknown(entries, frozenset(RETRY_POLICY_KEYS), place, key)
        fields: dict[str, Any] = {}
        for name, value in entries.items():
            field = RETRY_POLICY_KEYS.get(name)
            if field is None or value is None:
                continue
            where = f"{place}/{escape(name)}"
            if field == "maximum_attempts":
                if _is_integer(value) and value >= 1:
                    fields[field] = value
                else:
                    self._report.error(SHAPE, f"{name} is a whole number of at least 1", where)
            elif field == "backoff_coefficient":
                if _is_number(value) and value >= 1:
                    fields[field] = float(value)
                else:
                    self._report.error(SHAPE, f"{name} is a number of at least 1", where)
            else:
                try:
                    fields[field] = seconds(value, name=name)
                except ConfigError as error:
                    self._report.error(SHAPE, str(error), where)
        return RetryPolicy(**fields)

    def _escalation(self, node: Any, pointer: str) -> Mapping[str, Any] | None:
        if node is None:
            return None
        members = self._mapping(node, pointer, "escalation")
        if members is not None:
            self._unknown(members, grammar.ESCALATION, pointer, "escalation")
        return members

    def _transitions(self, members: Mapping[str, Any], pointer: str) -> dict[str, tuple[Transition, ...]]:
        return {
            source: tuple(
                Transition(to, rule.get("conditions"), place)
                for rule, to, place in self._rules(
                    items, f"{pointer}/transitions/{escape(source)}", "a transition", grammar.TRANSITION
                )
                if self._conditions(rule, place)
            )
            for source, items in self._members(members, "transitions", pointer)
        }

    def _hooks(self, members: Mapping[str, Any], pointer: str) -> dict[str, tuple[HookRule, ...]]:
        return {
            topic: tuple(
                HookRule(to, _first_match(rule.get("conditions")), place)
                for rule, to, place in self._rules(
                    items, f"{pointer}/hooks/{escape(topic)}", "a hook rule", grammar.HOOK_RULE
                )
                if self._conditions(rule, place)
            )
            for topic, items in self._members(members, "hooks", pointer)
        }

    def _rules(
        self, items: Any, pointer: str, what: str, known: frozenset[str]
    ) -> Iterator[tuple[Mapping[str, Any], str, str]]:
        """(rule, its `to`, its pointer) of each usable item of a list of transitions or hook rules."""
        for index, item in enumerate(self._list(items, pointer, pointer.rpartition("/")[2])):
            place = f"{pointer}/{index}"
            rule = self._mapping(item, place, what)
            if rule is None:
                continue
            undecided_keys(self._report, rule, known, place, what)
            to = self._name(rule.get("to"), f"{place}/to", "to")
            if to is not None:
                yield rule, to, place
            elif rule.get("to") is None:
                self._report.error(
                    SHAPE, f"{what} has no to", place, suggestion="name the activity: to: <id>"
                )

    def _conditions(self, rule: Mapping[str, Any], pointer: str) -> bool:
        conditions = rule.get("conditions")
        if conditions is None or isinstance(conditions, bool):
            return True
        place = f"{pointer}/conditions"
        members = self._mapping(conditions, place, "conditions")
        if members is None:
            return False
        undecided_keys(self._report, members, grammar.CONDITIONS, place, "conditions")
        for index, pair in enumerate(self._list(members.get("match"), f"{place}/match", "match")):
            entry = self._mapping(pair, f"{place}/match/{index}", "a match")
            if entry is not None:
                where = f"{place}/match/{index}"
                # A pair without one of its two sides is reported as such.
                if entry.keys() >= grammar.MATCH:
                    undecided_keys(self._report, entry, grammar.MATCH, where, "a match")
                else:
                    self._unknown(entry, grammar.MATCH, where, "a match")
        return True

    def _schema(self, members: Mapping[str, Any], name: str, pointer: str) -> None:
        """The `schema` under `input` and `output` is for the manifest and for tools; only its block has a form."""
        if members.get(name) is None:
            return
        block = self._mapping(members[name], f"{pointer}/{name}", name)
        if block is None:
            return
        codes = {key for key in block if key.isdecimal()}
        self._unknown(block, frozenset({"schema"}) | codes, f"{pointer}/{name}", f"{name} of a graph")

    # Values of one kind. Each reports a value of another kind and gives what is closest to nothing.

    def _mapping(self, node: Any, pointer: str, what: str) -> Mapping[str, Any] | None:
        if isinstance(node, Mapping):
            return node
        self._report.error(SHAPE, f"{what} is a mapping, not {kind_of(node)}", pointer)
        return None

    def _members(self, node: Mapping[str, Any], key: str, pointer: str) -> Iterable[tuple[str, Any]]:
        value = node.get(key)
        if value is None:
            return ()
        found = self._mapping(value, f"{pointer}/{key}", key)
        return () if found is None else found.items()

    def _list(self, node: Any, pointer: str, what: str) -> list[Any]:
        if node is None:
            return []
        if isinstance(node, list):
            return node
        self._report.error(SHAPE, f"{what} is a list, not {kind_of(node)}", pointer)
        return []

    def _tree(self, node: Any, pointer: str, what: str) -> Any:
        if node is None or isinstance(node, (Mapping, list)):
            return node
        if isinstance(node, str) and node.startswith("{") and node.endswith("}"):
            return node
        self._report.error(SHAPE, f"{what} is a mapping of names to values, not {kind_of(node)}", pointer)
        return None

    def _name(self, value: Any, pointer: str, what: str) -> str | None:
        """Text; a number counts as the text it was written as."""
        if value is None or isinstance(value, str):
            return value
        if _is_number(value):
            return str(value)
        self._report.error(SHAPE, f"{what} is text, not {kind_of(value)}", pointer)
        return None

    def _topic(self, value: Any, pointer: str) -> Any:
        if value is None or isinstance(value, str) or (isinstance(value, Mapping) and "@pipe" in value):
            return value
        return self._name(value, pointer, "topic")

    def _flag(self, members: Mapping[str, Any], name: str, pointer: str) -> bool:
        value = members.get(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        self._report.error(SHAPE, f"{name} is true or false, not {kind_of(value)}", f"{pointer}/{name}")
        return False

    def _word(self, value: Any, words: tuple[str, ...], pointer: str, what: str) -> str | None:
        if value is None:
            return None
        if isinstance(value, str) and value in words:
            return value
        hint = did_you_mean(value, words) if isinstance(value, str) else None
        self._report.error(SHAPE, f"{what} is {one_of(words)}", pointer, suggestion=hint)
        return None

    def _unknown(
        self,
        members: Mapping[str, Any],
        known: frozenset[str],
        pointer: str,
        what: str,
        harmless: frozenset[str] = grammar.HARMLESS,
    ) -> None:
        for name in members:
            if name not in known and not name.startswith(grammar.EXTENSION):
                message = f'unknown key "{name}" in {what}'
                unknown_key(
                    self._report, members, name, known, message, f"{pointer}/{escape(name)}", harmless
                )


def _first_match(conditions: Any) -> Match | None:
    if isinstance(conditions, Mapping):
        pairs = conditions.get("match")
        if isinstance(pairs, list) and pairs and isinstance(pairs[0], Mapping):
            return Match(pairs[0].get("expected"), pairs[0].get("actual"))
    return None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _is_integer(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
