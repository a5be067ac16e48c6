"""The graph as its author wrote it: frozen, checked for shape, not yet compiled.

Expressions stay as they stand in the YAML (text, number, tree, `{"@pipe": …}`); `compile.py` turns them into closures.
Names are ours; `build.py` translates the published YAML keys once (`statusThreshold` → `status_threshold`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hotmesh.core.state.retry import RetryPolicy
from hotmesh.core.values import UNDEFINED

Expression = Any
"""A literal, a `{path}`, a `{@function}`, an `{"@pipe": …}` object or a map tree of these. None: not given."""


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """Where something stands: line and column from 1, in a file or in the text that was passed."""

    file: str | None = None
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        if self.line is None:
            return self.file or "<data>"
        return f"{self.file or '<text>'}:{self.line}:{self.column}"


NOWHERE = SourceLocation()


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed source with every `$ref` resolved: plain data, and the place of each node by JSON pointer.

    `keys` holds the place of a member's name where `locations` holds that of its value. It serves the checks
    and is not stored, so it is empty for a document that was read back from the database.
    """

    data: Any
    locations: Mapping[str, SourceLocation] = field(default_factory=dict)
    keys: Mapping[str, SourceLocation] = field(default_factory=dict)

    def location(self, pointer: str) -> SourceLocation:
        """The place of the node, or of the nearest node around it."""
        while pointer not in self.locations:
            if not pointer:
                return NOWHERE
            pointer = pointer.rpartition("/")[0]
        return self.locations[pointer]

    def key_location(self, pointer: str) -> SourceLocation:
        """The place of the name under which the node stands, or of the node itself if it has none."""
        return self.keys.get(pointer) or self.location(pointer)

    def at(self, pointer: str) -> Any:
        """The node; UNDEFINED if there is none."""
        node = self.data
        for part in pointer.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, Mapping) and name in node:
                node = node[name]
            elif isinstance(node, list) and name.isdecimal() and int(name) < len(node):
                node = node[int(name)]
            else:
                return UNDEFINED
        return node


@dataclass(frozen=True, slots=True)
class Match:
    """One pair of a condition: `actual` is resolved and must strictly equal `expected`."""

    expected: Expression
    actual: Expression


@dataclass(frozen=True, slots=True)
class Transition:
    """An edge. `conditions` is as written: None (always), a bool, or a mapping with code, gate and match."""

    to: str
    conditions: Any
    pointer: str


@dataclass(frozen=True, slots=True)
class HookRule:
    """Links a waiting hook activity and a signal: both sides are resolved to text and must be equal."""

    to: str
    match: Match | None
    pointer: str


@dataclass(frozen=True, slots=True)
class Statistics:
    """The trigger's `stats` block."""

    id: Expression = None
    key: Expression = None
    granularity: str = "5m"
    measures: tuple[tuple[str, str], ...] = ()
    """Pairs of measure (count, sum, avg, mdn, min, max, index) and target expression."""


@dataclass(frozen=True, slots=True)
class Activity:
    """A node. Which fields matter depends on `type`; an absent key is None."""

    id: str
    type: str
    pointer: str
    subtype: str | None = None
    topic: Expression = None
    input_maps: Expression = None
    output_maps: Expression = None
    job_maps: Expression = None
    emit: Expression = None
    persist: Expression = None
    status_threshold: Expression = None
    join: str | None = None
    """`all` or `any`: run once per pass when all (the first) of the incoming branches have arrived."""
    telemetry: Expression = None
    entity: Expression = None
    statistics: Statistics | None = None
    retry: Mapping[str, tuple[int, str | None]] = field(default_factory=dict)
    """Worker and await: error code → (retries, backoff kind)."""
    retry_policy: RetryPolicy | None = None
    wait: Expression = None
    """Await: the `await` key; only an explicit false means fire and forget."""
    sleep: Expression = None
    escalation: Mapping[str, Any] | None = None
    signal_maps: Expression = None
    resolver_maps: Expression = None
    status: Expression = None
    code: Expression = None
    key_name: Expression = None
    key_value: Expression = None
    scrub: bool = False
    ancestor: str | None = None
    target: Expression = None
    reason: Expression = None
    throw: Expression = None
    descend: Expression = None
    stack: Expression = None


@dataclass(frozen=True, slots=True)
class Graph:
    """One workflow: started on `subscribes`, results announced on `publishes`."""

    subscribes: str
    pointer: str
    publishes: str | None = None
    expire: Expression = None
    persistent: Expression = None
    activities: Mapping[str, Activity] = field(default_factory=dict)
    transitions: Mapping[str, tuple[Transition, ...]] = field(default_factory=dict)
    hooks: Mapping[str, tuple[HookRule, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class App:
    """A named, versioned set of graphs, and the document it was read from."""

    id: str
    version: str
    graphs: tuple[Graph, ...]
    document: Document
