"""Compiles an app once per version into a `Plan`: every expression a closure, every name looked up.

What the step needs to know about a graph is worked out here, so that running a job looks nothing up by text and
interprets no rows: which activities follow, which can be entered twice, and which recorded results a step that
starts at a given activity may read (`ActivityPlan.needs`), so that loading a job never means loading its history.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hotmesh.core.definition.graph import Activity, App, Document, Graph, Statistics
from hotmesh.core.mapping import (
    Compiled,
    CompiledCondition,
    CompiledWrites,
    compile_condition,
    compile_expression,
    compile_job_maps,
)
from hotmesh.core.plan.reach import Flow, reachability


@dataclass(frozen=True, slots=True, eq=False)
class Edge:
    """An outgoing transition; `condition` None fires always, whatever the outcome."""

    to: str
    condition: CompiledCondition | None
    branch: str = ""
    """Names the transition among those that lead to the same activity; a join tells its branches apart by it."""


@dataclass(frozen=True, slots=True, eq=False)
class HookPlan:
    """A hook rule: where a signal on `topic` goes, and how both sides compute the key at which they meet."""

    topic: str
    to: str
    expected: Compiled
    actual: Compiled


@dataclass(frozen=True, slots=True, eq=False)
class JoinPlan:
    """How the branches that lead to an activity with `join` become one."""

    every: bool
    """`all`: it waits for every branch that can still come. Otherwise the first one counts (`any`)."""
    depth: int
    """So many parts of their addresses are the same for the branches of one pass."""
    branches: frozenset[str]
    feeders: frozenset[str]
    """The activities from which, in the same pass, a branch may still come."""


@dataclass(slots=True, eq=False)
class ActivityPlan:
    """One activity, ready to run. Filled by `compile_app` and never changed afterwards."""

    id: str
    type: str
    spec: Activity
    graph: GraphPlan
    edges: tuple[Edge, ...] = ()
    incoming: tuple[str, ...] = ()
    """The activities with a transition to this one."""
    reentrant: bool = False
    """Can be entered more than once under one address: a cycle's ancestor, or a target of several transitions."""
    records_entry: bool = False
    """Its entry must be on record before it answers: another entry, or an answer, is told apart by it."""
    needs: frozenset[str] = frozenset()
    """Activities whose records a step starting here may read or count."""
    downstream: frozenset[str] = frozenset()
    """Every activity that a step starting here may reach, itself included."""
    roots: tuple[str, ...] = ()
    """First segments of the paths in its expressions, without `$self` and `$job`."""
    uses_self: bool = False
    uses_job: bool = False
    shared: Mapping[str, int] = field(default_factory=dict)
    """For each root: so many parts of their addresses agree if both belong to the same pass."""
    join: JoinPlan | None = None
    metadata_of: frozenset[str] = frozenset()
    """Roots of which the metadata is read, too (building it costs more than the data)."""
    announces: bool = False
    """Has `emit`, `persist` or `statusThreshold`."""
    hook: HookPlan | None = None
    expressions: Mapping[str, Compiled] = field(default_factory=dict)
    job_maps: CompiledWrites | None = None
    maps: Mapping[str, Compiled] = field(default_factory=dict)
    escalation: Mapping[str, Compiled] | None = None
    telemetry: Compiled | None = None
    ancestor: ActivityPlan | None = None
    ancestor_depth: int | None = None
    """Cycles only: parts of the ancestor's address; None where that depends on the way."""


@dataclass(slots=True, eq=False)
class GraphPlan:
    """One graph, ready to run."""

    topic: str
    spec: Graph
    publishes: str | None
    trigger: ActivityPlan
    activities: dict[str, ActivityPlan]
    expire: Compiled | None
    statistics: StatisticsPlan
    joins: tuple[ActivityPlan, ...] = ()
    """The activities with `join`."""
    promotes: frozenset[str] = frozenset()
    """The names that some activity's `job.maps` writes at the top of the job's data."""

    @classmethod
    def lost(cls, topic: str) -> GraphPlan:
        """Stands for a graph that the version does not have (any more): it has no activities."""
        spec = Graph(topic, "")
        plan = cls(topic, spec, None, None, {}, None, _NO_STATISTICS)  # type: ignore[arg-type]  # set below
        plan.trigger = ActivityPlan("", "trigger", Activity("", "trigger", ""), plan)
        return plan


@dataclass(frozen=True, slots=True, eq=False)
class StatisticsPlan:
    """The trigger's `stats`: how job id and key are computed, and what is counted."""

    id: Compiled | None
    key: Compiled | None
    granularity: str
    measures: tuple[tuple[str, str, Compiled], ...]
    """Triples of measure, facet name (the target's path below `data.`) and target."""


@dataclass(slots=True, eq=False)
class Plan:
    """A version of an app, ready to run."""

    app_id: str
    version: str
    graphs: dict[str, GraphPlan]
    activities: dict[str, ActivityPlan]
    hooks: dict[str, tuple[HookPlan, ...]]
    """Hook topic → its rules in order; a signal uses the first one to compute its key."""

    def activity(self, activity_id: str) -> ActivityPlan | None:
        return self.activities.get(activity_id)


_SCALARS = (
    "topic", "emit", "persist", "status_threshold", "entity", "wait", "sleep", "status", "code", "key_name",
    "key_value", "target", "reason", "throw", "descend", "stack",
)  # fmt: skip
_TREES = ("input_maps", "output_maps", "signal_maps", "resolver_maps")


def compile_app(app: App) -> Plan:
    """Compile a checked app. Raises MappingError for an expression that `check_app` would have refused."""
    compiler = _Compiler(app.document)
    graphs = {graph.subscribes: compiler.graph(graph) for graph in app.graphs}
    activities = {name: activity for graph in graphs.values() for name, activity in graph.activities.items()}
    hooks: dict[str, list[HookPlan]] = {}
    for graph in graphs.values():
        for topic, rules in graph.spec.hooks.items():
            for rule in rules:
                if rule.match is None:
                    continue
                plan = HookPlan(
                    topic,
                    rule.to,
                    compiler.expression(rule.match.expected, f"{rule.pointer}/conditions/match/0/expected"),
                    compiler.expression(rule.match.actual, f"{rule.pointer}/conditions/match/0/actual"),
                )
                hooks.setdefault(topic, []).append(plan)
                target = graph.activities.get(rule.to)
                if target is not None and target.hook is None:
                    target.hook = plan
    for graph in graphs.values():
        _finish(graph)
    return Plan(
        app.id, app.version, graphs, activities, {topic: tuple(rules) for topic, rules in hooks.items()}
    )


class _Compiler:
    """Compiles expressions, and names the place of each for error messages."""

    def __init__(self, document: Document) -> None:
        self._document = document

    def expression(self, value: Any, pointer: str) -> Compiled:
        return compile_expression(value, where=self._where(pointer))

    def optional(self, value: Any, pointer: str) -> Compiled | None:
        return None if value is None else self.expression(value, pointer)

    def graph(self, graph: Graph) -> GraphPlan:
        activities: dict[str, ActivityPlan] = {}
        plan = GraphPlan(
            topic=graph.subscribes,
            spec=graph,
            publishes=graph.publishes,
            trigger=None,  # type: ignore[arg-type]  # set below, once the activities exist
            activities=activities,
            expire=self.optional(graph.expire, f"{graph.pointer}/expire"),
            statistics=_NO_STATISTICS,
        )
        for name, activity in graph.activities.items():
            activities[name] = self.activity(activity, plan)
            if activity.type == "trigger":
                plan.trigger = activities[name]
                if activity.statistics is not None:
                    plan.statistics = self._statistics(activity.statistics, f"{activity.pointer}/stats")
        for name, transitions in graph.transitions.items():
            activities[name].edges = tuple(
                Edge(
                    transition.to,
                    None
                    if transition.conditions is None
                    else compile_condition(
                        transition.conditions, where=self._where(f"{transition.pointer}/conditions")
                    ),
                    f"{name} {number}" if number else name,
                )
                for number, transition in enumerate(transitions)
            )
        return plan

    def activity(self, activity: Activity, graph: GraphPlan) -> ActivityPlan:
        pointer = activity.pointer
        expressions = {
            name: self.expression(value, f"{pointer}/{name}")
            for name in _SCALARS
            if (value := getattr(activity, name)) is not None
        }
        maps = {
            name: self.expression(value, f"{pointer}/{name.replace('_', '/')}")
            for name in _TREES
            if (value := getattr(activity, name)) is not None
        }
        return ActivityPlan(
            id=activity.id,
            type=activity.type,
            spec=activity,
            graph=graph,
            announces=not expressions.keys().isdisjoint(("emit", "persist", "status_threshold")),
            expressions=expressions,
            maps=maps,
            job_maps=None
            if activity.job_maps is None
            else compile_job_maps(activity.job_maps, where=self._where(f"{pointer}/job/maps")),
            telemetry=self.optional(activity.telemetry, f"{pointer}/telemetry"),
            escalation=None
            if activity.escalation is None
            else {
                name: self.expression(value, f"{pointer}/escalation/{name}")
                for name, value in activity.escalation.items()
            },
        )

    def _statistics(self, statistics: Statistics, pointer: str) -> StatisticsPlan:
        return StatisticsPlan(
            id=self.optional(statistics.id, f"{pointer}/id"),
            key=self.optional(statistics.key, f"{pointer}/key"),
            granularity=statistics.granularity,
            measures=tuple(
                (measure, _facet(target), self.expression(target, f"{pointer}/measures/{index}/target"))
                for index, (measure, target) in enumerate(statistics.measures)
            ),
        )

    def _where(self, pointer: str) -> str:
        place = self._document.location(pointer)
        return str(place) if place.line is not None else pointer


_NO_STATISTICS = StatisticsPlan(None, None, "5m", ())


def _facet(target: str) -> str:
    """The name under which a measure's target is counted: its path below `data.`."""
    path = target.strip("{}")
    return path.partition(".data.")[2] or path


def _finish(graph: GraphPlan) -> None:
    """Work out what depends on the whole graph: who can follow whom, and what each may read."""
    activities = graph.activities
    incoming: dict[str, list[str]] = {name: [] for name in activities}
    for name, activity in activities.items():
        for edge in activity.edges:
            incoming[edge.to].append(name)
        if activity.type == "cycle" and activity.spec.ancestor is not None:
            activity.ancestor = activities[activity.spec.ancestor]
    cycled = {activity.ancestor.id for activity in activities.values() if activity.ancestor is not None}
    for name, activity in activities.items():
        activity.incoming = tuple(incoming[name])
        activity.reentrant = len(incoming[name]) > 1 or name in cycled
        activity.records_entry = activity.reentrant
        _note_roots(activity)
    transitions = {name: [edge.to for edge in activity.edges] for name, activity in activities.items()}
    flow = Flow(transitions, graph.trigger.id)
    following: dict[str, Iterable[str]] = {
        name: [*transitions[name], *([activity.ancestor.id] if activity.ancestor is not None else [])]
        for name, activity in activities.items()
    }
    reached = reachability(following)
    read = {
        name: frozenset(
            [root for root in activity.roots if root in activities] + ([name] if activity.reentrant else [])
        )
        for name, activity in activities.items()
    }
    for name, activity in activities.items():
        activity.downstream = frozenset(reached[name])
        activity.shared = {
            root: flow.common_dominator(name, root)[1] for root in activity.roots if root in activities
        }
        activity.needs = _needs(graph, name, reached[name], read)
        if activity.ancestor is not None:
            activity.ancestor_depth = flow.depth(activity.ancestor.id)
        if activity.spec.join and activity.incoming:
            activity.join = _join(graph, activity, flow, following)
    graph.joins = tuple(activity for activity in activities.values() if activity.join is not None)
    graph.promotes = frozenset(
        key
        for activity in activities.values()
        if isinstance(activity.spec.job_maps, dict)
        for key in activity.spec.job_maps
    )


def _needs(
    graph: GraphPlan, name: str, reached: Iterable[str], read: Mapping[str, frozenset[str]]
) -> frozenset[str]:
    """The records that a step starting at the activity may read or count."""
    needs = {name}.union(*[read[other] for other in reached])
    if not graph.trigger.reentrant:
        # Its only record is the job's input.
        needs.discard(graph.trigger.id)
    return frozenset(needs)


def _join(
    graph: GraphPlan, activity: ActivityPlan, flow: Flow, following: Mapping[str, Iterable[str]]
) -> JoinPlan:
    """What comes together at an activity: the ways that part at its common_dominator, within one pass of that."""
    common_dominator, depth = flow.common_dominator(*activity.incoming)
    below = flow.dominated_by(common_dominator)
    # A cycle back to the common_dominator, or above it, leads to another pass.
    within = {name: [to for to in following[name] if to in below] for name in below}
    feeders = {name for name, found in reachability(within).items() if activity.id in found}
    branches = {
        edge.branch for other in graph.activities.values() for edge in other.edges if edge.to == activity.id
    }
    return JoinPlan(
        activity.spec.join == "all", depth, frozenset(branches), frozenset(feeders - {activity.id})
    )


def _note_roots(activity: ActivityPlan) -> None:
    """Collect which parts of the context any of the activity's expressions reads."""
    sources: list[Any] = [*activity.expressions.values(), *activity.maps.values()]
    sources += [edge.condition for edge in activity.edges if edge.condition is not None]
    for extra in (activity.job_maps, activity.telemetry):
        if extra is not None:
            sources.append(extra)
    if activity.escalation is not None:
        sources += activity.escalation.values()
    if activity.hook is not None:
        sources.append(activity.hook.expected)
    if activity.graph.expire is not None:
        sources.append(activity.graph.expire)
    roots: set[str] = set()
    metadata: set[str] = set()
    for source in sources:
        roots |= source.roots
        for path in source.paths:
            segments = path.split(".")
            if _reads_metadata(segments):
                metadata.add(segments[0])
    activity.uses_self = "$self" in roots or activity.id in roots
    activity.uses_job = "$job" in roots
    activity.roots = tuple(sorted(root for root in roots if not root.startswith("$") and root != activity.id))
    if activity.id in metadata:
        metadata.add("$self")
    activity.metadata_of = frozenset(metadata)


def _reads_metadata(segments: list[str]) -> bool:
    """Whether a path may end in metadata: `{a.output.metadata.x}`, `{$job.metadata.x}`, or a whole `{a.output}`."""
    if segments[0] == "$job":
        return len(segments) == 1 or segments[1] == "metadata"
    return len(segments) < 3 or segments[2] == "metadata"
