"""What of a running job is open: its obligations by activity and address, and what no row stands for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from hotmesh.core.plan.compile import ActivityPlan, GraphPlan
from hotmesh.core.state.job import Dimension
from hotmesh.observe.explain.model import Branch, Reason
from hotmesh.observe.explain.reasons import Reasons
from hotmesh.observe.explain.situation import OpenRecord, Situation
from hotmesh.observe.explain.text import listed
from hotmesh.observe.obligations import Obligation

_NUMBER = re.compile(r" [0-9]+\Z")


class Branches:
    """Collects reasons by activity and address, and counts the obligations that they stand for.

    `graph` is None where the job's version, or its graph, is not deployed here.
    """

    def __init__(self, situation: Situation, graph: GraphPlan | None, reasons: Reasons) -> None:
        self._situation = situation
        self._graph = graph
        self._reasons = reasons
        self._found: dict[tuple[str, Dimension], list[Reason]] = {}
        self._types: dict[str, str] = {}
        self._entering = 0
        self._gathered = 0

    def all(self) -> tuple[Branch, ...]:
        """What was found, in the order in which it was."""
        return tuple(
            Branch(activity_id, self._type(activity_id), dimension, tuple(reasons))
            for (activity_id, dimension), reasons in self._found.items()
        )

    def find(self) -> None:
        """Everything that a running job waits for."""
        for one in self._situation.obligations:
            self._add(*self._where(one), self._reasons.of(one))
            self._entering += one.kind == "message" and one.name == "enter"
        for record in self._situation.records:
            self._types[record.activity_id] = record.type
            reason = self._record(record)
            if reason is not None:
                self._add(record.activity_id, record.dimension, reason)
        self._joins()

    def held(self) -> None:
        """Steps of a durable function that run in a process, and leave no row."""
        if self._situation.holder is not None:
            self._add("", (0,), self._reasons.step())

    def pending(self) -> None:
        """The one thing that a job in pending mode waits for."""
        self._add(self._trigger(), (0,), self._reasons.pending())

    def unaccounted(self) -> int:
        """Open obligations that nothing stands for; 0 where not everything was looked at."""
        if self._situation.omitted:
            return 0
        if self._situation.queue is not None:
            return 0 if self._found else self._situation.status
        addresses = {
            address
            for address, reasons in self._found.items()
            if address[0] and any(not _counted_apart(reason) for reason in reasons)
        }
        return max(self._situation.status - len(addresses) - self._entering - self._gathered, 0)

    # -- what no row stands for --------------------------------------------------------------------------

    def _record(self, record: OpenRecord) -> Reason | None:
        """What an open record waits for that no obligation stands for."""
        activity_id, since = record.activity_id, record.started_at
        if (activity_id, record.dimension) in self._found:
            return None
        if record.state == "pending" and record.type == "worker":
            text = "further answers: the first one was pending"
            return Reason("answers", text, f"add an answer to {activity_id}", since)
        if self._situation.omitted:
            return None
        text = "nothing any more: no work, timer, signal or job stands for it"
        return Reason("lost", text, f"add an answer to {activity_id}, or interrupt the job", since)

    def _joins(self) -> None:
        """Branches that have arrived at a join and wait there for others; each group is one obligation."""
        waiting = (self._situation.open or {}).get("waiting", {})
        for join_id, passes in waiting.items():
            for groups in passes.values():
                for group in groups:
                    self._gathered += 1
                    address = max(map(tuple, group.values()))
                    self._add(join_id, address, self._join(join_id, group))

    def _join(self, join_id: str, group: Mapping[str, Any]) -> Reason:
        activity = self._activity(join_id)
        plan = None if activity is None else activity.join
        branches = () if plan is None else sorted(plan.branches - group.keys())
        arrived, missing = _sources(group), _sources(branches)
        counted = self._situation.open or {}
        ahead = {name for part in ("at", "to") for name in counted.get(part, {})}
        before = [] if plan is None else sorted(ahead & (plan.feeders | {join_id}))
        text = f"its other branches: {listed(arrived)} arrived, {listed(missing)} did not yet"
        unblock = f"progress of {listed(before)}" if before else f"the arrival of {listed(missing)}"
        return Reason("join", text, unblock, arrived=arrived, missing=missing)

    # -- parts -------------------------------------------------------------------------------------------

    def _add(self, activity_id: str, dimension: Dimension, reason: Reason) -> None:
        self._found.setdefault((activity_id, dimension), []).append(reason)

    def _where(self, one: Obligation) -> tuple[str, Dimension]:
        """What an obligation belongs to: the trigger for the start of the job, no activity for the job itself."""
        if one.kind == "message" and one.name == "start":
            return self._trigger() or "start", (0,)
        if one.kind == "message" and one.name in ("interrupt", "resume", "cancel", "pause"):
            return "", ()
        if self._situation.queue is not None:
            if not one.activity_id or one.activity_id.startswith("$"):
                return one.activity_id, (0,)
            return one.activity_id, one.dimension[:2]  # what comes behind says what of the operation it is
        return one.activity_id, one.dimension

    def _trigger(self) -> str:
        return "" if self._graph is None else self._graph.trigger.id

    def _activity(self, activity_id: str) -> ActivityPlan | None:
        return None if self._graph is None else self._graph.activities.get(activity_id)

    def _type(self, activity_id: str) -> str:
        activity = self._activity(activity_id)
        return self._types.get(activity_id, "") if activity is None else activity.type


def _counted_apart(reason: Reason) -> bool:
    """Whether the address is not that of the activity: it is still to be entered, or gathers its branches."""
    return reason.kind == "join" or (reason.kind == "message" and reason.topic == "enter")


def _sources(branches: Iterable[str]) -> tuple[str, ...]:
    """The activities that branches come from: `charge 1` is the second transition of `charge`."""
    return tuple(dict.fromkeys(_NUMBER.sub("", branch) for branch in branches))
