"""Who can follow whom in a graph, and how far the addresses of two activities must agree.

An address names the pass through each activity on the way from the trigger. Two activities are in the same pass of
an activity that all ways to both lead through (a common dominator) when their addresses agree up to its depth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Following = Mapping[str, Iterable[str]]
"""Activity → the activities that may come next."""


class Flow:
    """The transitions of one graph, which contain no loop; cycles return to an ancestor and are not among them."""

    def __init__(self, following: Following, start: str) -> None:
        self._order = _sorted(following, start)
        reached = set(self._order)
        self._following = {name: [to for to in following[name] if to in reached] for name in self._order}
        self._incoming: dict[str, set[str]] = {name: set() for name in self._order}
        for name, others in self._following.items():
            for to in others:
                self._incoming[to].add(name)
        self._dominators = self._chains(start)
        self._depths = self._lengths(start)

    def common_dominator(self, *names: str) -> tuple[str, int]:
        """The last activity that all ways to these lead through, and how many parts its address has.

        In one pass of it, the addresses of the others begin with its own. An activity whose depth depends on the
        way is passed over.
        """
        chains = [self._dominators[name] for name in names if name in self._dominators]
        found, depth = self._order[0], 1
        for level in zip(*chains, strict=False):
            if any(name != level[0] for name in level):
                break
            length = self._depths[level[0]]
            if length is not None:
                found, depth = level[0], length
        return found, depth

    def depth(self, name: str) -> int | None:
        """Parts of the activity's address; None where that depends on the way to it."""
        return self._depths.get(name)

    def dominated_by(self, common_dominator: str) -> set[str]:
        """The activities to which every way leads through this one."""
        return {name for name, chain in self._dominators.items() if common_dominator in chain[:-1]}

    def _chains(self, start: str) -> dict[str, list[str]]:
        """Activity → its dominators, from the trigger down to itself."""
        chains: dict[str, list[str]] = {start: [start]}
        for name in self._order[1:]:
            before = [chains[other] for other in self._incoming[name]]
            common = [level[0] for level in zip(*before, strict=False) if len(set(level)) == 1]
            chains[name] = [*common, name]
        return chains

    def _lengths(self, start: str) -> dict[str, int | None]:
        """Activity → parts of its address; None where that depends on the way."""
        lengths: dict[str, set[int]] = {name: set() for name in self._order}
        lengths[start] = {1}
        for name in self._order:
            for to in self._following[name]:
                lengths[to] |= {length + 1 for length in lengths[name]}
        return {name: next(iter(found)) if len(found) == 1 else None for name, found in lengths.items()}


def reachability(following: Following) -> dict[str, set[str]]:
    """Activity → everything that may come after it, itself included."""
    reached: dict[str, set[str]] = {}
    # Graphs are mostly written from the trigger down: from the end, what follows is mostly known already.
    for start in reversed(list(following)):
        seen = {start}
        stack = [start]
        while stack:
            current = stack.pop()
            if current != start and current in reached:
                seen |= reached[current]
                continue
            fresh = [name for name in following[current] if name not in seen]
            seen.update(fresh)
            stack.extend(fresh)
        reached[start] = seen
    return reached


def _sorted(following: Following, start: str) -> list[str]:
    """What can be reached, each activity after all that lead to it."""
    found: list[str] = []
    seen = {start}
    stack = [(start, iter(following[start]))]
    while stack:
        name, others = stack[-1]
        for to in others:
            if to not in seen:
                seen.add(to)
                stack.append((to, iter(following[to])))
                break
        else:
            found.append(name)
            stack.pop()
    return found[::-1]
