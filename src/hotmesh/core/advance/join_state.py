"""What a graph with joins has to know: which branches are open, and which have arrived where.

Kept on the job row, as plain JSON (`Job.open`), so that a step never has to look for it:

    {"at":      {"w1": {",0,0": 1}},             open activities, by the address of their parent
     "to":      {"j1": {",0,0": 2}},             branches on their way to a join
     "waiting": {"j1": {",0": [{"a 0": [0, 0]}]}},  `all`: who has arrived (branch → address of its end), by pass
     "counted": {"j1": {",0": {"a 0": 1}}}}      `any`: how often each branch has arrived, by pass

Each group that waits holds one obligation of the job; every other obligation is an entry of `at` or `to`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hotmesh.core.plan.compile import ActivityPlan, JoinPlan
from hotmesh.core.state.job import Dimension, dimension_text

Group = dict[str, list[int]]
"""The branches that have arrived, and the address at which each ended."""


class JoinState:
    """The working copy of `Job.open`."""

    __slots__ = ("_at", "_counted", "_to", "_waiting")

    def __init__(self, stored: Mapping[str, Any]) -> None:
        self._at: dict[str, dict[str, int]] = _copy(stored.get("at"))
        self._to: dict[str, dict[str, int]] = _copy(stored.get("to"))
        self._counted: dict[str, dict[str, dict[str, int]]] = {
            name: {thread: dict(counts) for thread, counts in passes.items()}
            for name, passes in stored.get("counted", {}).items()
        }
        self._waiting: dict[str, dict[str, list[Group]]] = {
            name: {thread: [dict(group) for group in groups] for thread, groups in passes.items()}
            for name, passes in stored.get("waiting", {}).items()
        }

    def stored(self) -> dict[str, Any]:
        parts = {"at": self._at, "to": self._to, "waiting": self._waiting, "counted": self._counted}
        return {name: part for name, part in parts.items() if part}

    def size(self) -> int:
        """The obligations that are accounted for here; the job's status is the same number."""
        open_ = sum(
            count for part in (self._at, self._to) for places in part.values() for count in places.values()
        )
        return open_ + sum(len(groups) for passes in self._waiting.values() for groups in passes.values())

    # -- obligations -------------------------------------------------------------------------------------

    def opened(self, activity: ActivityPlan, parent: Dimension) -> None:
        """A transition was taken: the activity will be entered below `parent`, or a branch arrive at the join."""
        _count(self._at if activity.join is None else self._to, activity.id, dimension_text(parent), 1)

    def running(self, activity: ActivityPlan, parent: Dimension) -> None:
        """The join has gathered its branches and runs below `parent`."""
        _count(self._at, activity.id, dimension_text(parent), 1)

    def closed(self, activity_id: str, dimension: Dimension) -> None:
        """The activity at this address, or a pass of it beside this one, takes nothing any more."""
        _count(self._at, activity_id, dimension_text(dimension[:-1]), -1)

    def arrived(self, activity_id: str, parent: Dimension) -> None:
        """A branch is at the join."""
        _count(self._to, activity_id, dimension_text(parent), -1)

    # -- joins -------------------------------------------------------------------------------------------

    def join(self, join: ActivityPlan, plan: JoinPlan, branch: str, parent: Dimension) -> bool:
        """A branch arrives at a join that waits for all; whether it holds an obligation of a group of its own.

        It belongs to the oldest group that it is not yet part of: one that comes again belongs to the next pass.
        """
        groups = self._waiting.setdefault(join.id, {}).setdefault(_thread(plan, parent), [])
        for group in groups:
            if branch not in group:
                group[branch] = list(parent)
                return False
        groups.append({branch: list(parent)})
        return True

    def first(self, join: ActivityPlan, plan: JoinPlan, branch: str, parent: Dimension) -> bool:
        """A branch arrives at a join that takes any; whether it is the first of its pass."""
        counts = self._counted.setdefault(join.id, {}).setdefault(_thread(plan, parent), {})
        passes = max(counts.values(), default=0)
        counts[branch] = counts.get(branch, 0) + 1
        first = counts[branch] > passes
        done = min(counts.get(name, 0) for name in plan.branches)
        if done:
            for name in plan.branches:
                counts[name] -= done
        if not any(counts.values()):
            _remove(self._counted, join.id, _thread(plan, parent))
        return first

    def complete(self, joins: tuple[ActivityPlan, ...]) -> Iterator[tuple[ActivityPlan, Dimension]]:
        """Take out the groups for which no branch can come any more, with the address below which each runs.

        That is the latest of the addresses at which its branches ended, so that the join sees their last passes
        whatever the order in which they arrived.
        """
        self._forget(joins)
        waiting = [
            (join, join.join, thread)
            for join in joins
            if join.join is not None
            for thread in self._waiting.get(join.id, ())
        ]
        ready = [item for item in waiting if self._full(item[1], item[0].id, item[2])]
        if not ready:
            fed = [self._fed(join.id, plan, thread) for join, plan, thread in waiting]
            ready = [waiting[index] for index in self._free(waiting, fed)]
        for join, plan, thread in ready:
            groups = self._waiting[join.id][thread]
            full = [group for group in groups if len(group) == len(plan.branches)]
            for group in full or groups[:1]:
                groups.remove(group)
                yield join, tuple(max(group.values()))
            if not groups:
                _remove(self._waiting, join.id, thread)

    def _full(self, plan: JoinPlan, join_id: str, thread: str) -> bool:
        return any(len(group) == len(plan.branches) for group in self._waiting[join_id][thread])

    def _fed(self, join_id: str, plan: JoinPlan, thread: str) -> bool:
        """Whether a branch may still come to the join in this pass."""
        if any(_within(place, thread) for place in self._to.get(join_id, ())):
            return True
        return any(
            _within(place, thread)
            for name in plan.feeders
            for part in (self._at, self._to)
            for place in part.get(name, ())
        )

    def _free(self, waiting: list[tuple[ActivityPlan, JoinPlan, str]], fed: list[bool]) -> list[int]:
        """Of the joins that wait, those that nothing leads to: no open branch, and no join that will run first."""
        free = {index for index, is_fed in enumerate(fed) if not is_fed}
        behind = {
            index: {
                other
                for other, (join, _, place) in enumerate(waiting)
                if other != index
                and join.id in waiting[index][1].feeders
                and _within(place, waiting[index][2])
            }
            for index in free
        }
        changed = True
        while changed:
            later = {index for index in free if behind[index] - free}
            free -= later
            changed = bool(later)
        first = [index for index in free if not behind[index]]
        # What is left waits for itself around a cycle, and only so; the first one breaks it.
        return sorted(first) or sorted(free)[:1]

    def _forget(self, joins: tuple[ActivityPlan, ...]) -> None:
        """Of the joins that take any, forget the passes to which no branch can come any more."""
        for join in joins:
            plan = join.join
            if plan is None or join.id not in self._counted:
                continue
            for thread in list(self._counted[join.id]):
                waits = any(
                    _within(place, thread) for name in plan.feeders for place in self._waiting.get(name, ())
                )
                if not waits and not self._fed(join.id, plan, thread):
                    _remove(self._counted, join.id, thread)


def _thread(plan: JoinPlan, parent: Dimension) -> str:
    return dimension_text(parent[: plan.depth])


def _within(place: str, thread: str) -> bool:
    return place.startswith(thread) and (len(place) == len(thread) or place[len(thread)] == ",")


def _count(part: dict[str, dict[str, int]], name: str, place: str, change: int) -> None:
    places = part.setdefault(name, {})
    count = places.get(place, 0) + change
    if count > 0:
        places[place] = count
        return
    _remove(part, name, place)


def _remove(part: dict[str, dict[str, Any]], name: str, key: str) -> None:
    part[name].pop(key, None)
    if not part[name]:
        del part[name]


def _copy(part: Mapping[str, Mapping[str, int]] | None) -> dict[str, dict[str, int]]:
    return {name: dict(places) for name, places in (part or {}).items()}
