"""The words of the YAML: which keys may stand where.

The one list that the parser, the JSON Schema, the reference in `docs/graphs.md` and their tests agree on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hotmesh.enums import ActivityType, Gate, Granularity, Measure, MessageStatus, SignalSubtype

DOCUMENT: Final = frozenset({"app", "$schema"})
APP: Final = frozenset({"id", "version", "settings", "graphs"})

GRAPH: Final = frozenset(
    {
        "subscribes", "publishes", "expire", "persistent", "input", "output",
        "activities", "transitions", "hooks", "inputs", "outputs",
    }
)  # fmt: skip

TYPES: Final = tuple(kind.value for kind in ActivityType)
ALIASES: Final[Mapping[str, str]] = {"activity": "hook"}

COMMON: Final = frozenset(
    {
        "type", "title", "subtype", "input", "output", "job", "emit", "persist", "statusThreshold",
        "statusThresholdType", "cycle", "join", "telemetry", "expire", "persistent", "settings",
    }
)  # fmt: skip
"""Keys of every activity."""

BY_TYPE: Final[Mapping[str, frozenset[str]]] = {
    "trigger": frozenset({"stats", "entity"}),
    "worker": frozenset({"topic", "retry", "retry_policy", "retryPolicy", "timeout"}),
    "await": frozenset({"topic", "await", "retry", "retry_policy", "retryPolicy", "eventName", "timeout"}),
    "hook": frozenset({"sleep", "hook", "escalation"}),
    "signal": frozenset({"topic", "signal", "resolver", "status", "code", "key_name", "key_value", "scrub"}),
    "cycle": frozenset({"ancestor"}),
    "interrupt": frozenset({"target", "topic", "reason", "throw", "code", "stack", "descend"}),
}
"""Keys of one type of activity, beside the common ones."""

COMPILER: Final = frozenset(
    {"ancestors", "parent", "trigger", "subscribes", "publishes", "consumes", "produces", "PRODUCES"}
)
"""Keys that older tools stored with an activity. They are accepted and ignored."""

WITHOUT_EFFECT: Final[Mapping[str, Mapping[str, str]]] = {
    "": {
        "expire": "the graph's expire counts: write it there",
        "persistent": "leave it out",
        "statusThresholdType": "statusThreshold decides alone: leave it out",
        "settings": "what is your own goes under a key that begins with x-",
    },
    "worker": {"timeout": "give it to the worker in Python: Worker(topic, callback, timeout=…)"},
    "await": {
        "retry": "take a transition with conditions.code of the error that the other job ended with",
        "retry_policy": "take a transition with conditions.code of the error that the other job ended with",
        "retryPolicy": "take a transition with conditions.code of the error that the other job ended with",
        "eventName": "leave it out",
        "timeout": "let a hook with sleep run beside it, and an interrupt after that",
    },
    "cycle": {
        "emit": "write it at the activity before",
        "persist": "write it at the activity before",
        "telemetry": "write it at the ancestor",
    },
}
"""Keys of an activity (of every type, of one type) that are accepted and ignored; and what to write for them."""

GRAPH_WITHOUT_EFFECT: Final[Mapping[str, str]] = {
    "persistent": "leave it out",
    "inputs": "the key is input",
    "outputs": "the key is output",
}

STATS_WITHOUT_EFFECT: Final[Mapping[str, str]] = {"parent": "leave it out", "adjacent": "leave it out"}

HARMLESS: Final = frozenset(
    {
        "title", "type", "telemetry", "schema", "cycle", "hook", "eventName", "timeout", "settings", "persistent",
        "statusThresholdType", "inputs", "outputs", "parent", "adjacent", "topic", "ancestor", "to", "id", "version",
        "subscribes", "activities", "graphs", "expected", "actual", "measure",
    }
)  # fmt: skip
"""Keys whose absence changes nothing, or is reported by itself: who misspells one of these needs a hint and no more."""

FLOW: Final = frozenset({"subscribes", "publishes", "expire", "activities", "transitions", "hooks", "graphs"})
"""Keys that are no longer what they were meant to be, if a part of it stands under a misspelt one beside."""

MAPS: Final[Mapping[str, frozenset[str]]] = {
    "input": frozenset({"worker", "await", "cycle"}),
    "output": frozenset({"hook", "signal", "interrupt"}),
    "job": frozenset({"trigger", "worker", "await", "hook", "signal", "interrupt"}),
}
"""The types of activity on which the maps of a block have an effect."""

BLOCK: Final = frozenset({"schema", "maps"})
"""Keys of `input`, `output`, `job`, `signal` and `resolver`; `output` and `job` also have outcome codes."""

STATS: Final = frozenset({"id", "key", "granularity", "measures", "parent", "adjacent"})
MEASURE: Final = frozenset({"measure", "target"})
MEASURES: Final = tuple(measure.value for measure in Measure)
GRANULARITIES: Final = tuple(granularity.value for granularity in Granularity)
SUBTYPES: Final = tuple(subtype.value for subtype in SignalSubtype)
"""Of a signal."""
JOINS: Final = ("all", "any")
GATES: Final = tuple(gate.value for gate in Gate)
STATUSES: Final = tuple(status.value for status in MessageStatus)

TRANSITION: Final = frozenset({"to", "conditions", "code"})
CONDITIONS: Final = frozenset({"code", "gate", "match"})
MATCH: Final = frozenset({"expected", "actual"})
HOOK_RULE: Final = frozenset({"to", "conditions"})

ESCALATION: Final = frozenset(
    {
        "role", "type", "subtype", "priority", "description", "entity", "originId", "parentId", "initiatedBy",
        "traceId", "spanId", "taskQueue", "workflowType", "expiresAt", "metadata", "envelope",
    }
)  # fmt: skip


def activity_keys(type_name: str) -> frozenset[str]:
    """All keys that have a meaning, or are knowingly ignored, on this type of activity."""
    return COMMON | BY_TYPE.get(type_name, frozenset())


ANY_ACTIVITY: Final = COMMON.union(*BY_TYPE.values())
EXTENSION: Final = "x-"
"""Keys that begin so belong to the author's own tools and are never complained about."""
