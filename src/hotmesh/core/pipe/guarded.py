"""Objects and arrays that carry more than their visible members: hidden keys, fixed keys, and being closed.

Ordinary values are plain `dict` and `list`. Only the functions that define properties or freeze a value answer with
these subclasses, always on a copy; what is stored or returned to a caller is plain again.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self, final

from hotmesh.core.pipe.keys import ordered_keys
from hotmesh.core.values import UNDEFINED


class Flags(NamedTuple):
    """What may be done with one key."""

    writable: bool = True
    enumerable: bool = True
    configurable: bool = True


OPEN = Flags()


@final
class GuardedObject(dict[str, Any]):
    """An object with hidden or fixed keys. The dict itself holds the visible members."""

    __slots__ = ("extensible", "flags", "hidden", "order")

    def __init__(self, source: dict[str, Any]) -> None:
        super().__init__(source)
        before = source if isinstance(source, GuardedObject) else None
        self.extensible: bool = before.extensible if before is not None else True
        self.flags: dict[str, Flags] = dict(before.flags) if before is not None else {}
        self.hidden: dict[str, Any] = dict(before.hidden) if before is not None else {}
        self.order: dict[str, None] = dict(before.order) if before is not None else dict.fromkeys(source)

    def __missing__(self, name: str) -> Any:
        return self.hidden[name]

    def own(self, name: str) -> Any:
        """The member, hidden or not; UNDEFINED if there is none."""
        return self[name] if name in self.order else UNDEFINED

    def has(self, name: str) -> bool:
        return name in self.order

    def names(self) -> list[str]:
        """Every own key, hidden ones too, in listing order."""
        return ordered_keys(self.order)

    def flags_of(self, name: str) -> Flags:
        return self.flags.get(name, OPEN)

    def put(self, name: str, value: Any, flags: Flags) -> None:
        known = name in self.order
        self.order[name] = None
        self.flags[name] = flags
        if flags.enumerable:
            self.hidden.pop(name, None)
            moved = known and name not in self
            self[name] = value
            if moved:
                self._restore_order()
        else:
            self.pop(name, None)
            self.hidden[name] = value

    def close(self, *, configurable: bool, writable: bool) -> Self:
        """Let no key be added; with False, none be redefined, or none change."""
        self.extensible = False
        for name in self.order:
            before = self.flags_of(name)
            self.flags[name] = Flags(
                before.writable and writable, before.enumerable, before.configurable and configurable
            )
        return self

    def _restore_order(self) -> None:
        members = {name: self[name] for name in self.order if name in self}
        self.clear()
        self.update(members)


@final
class GuardedArray(list[Any]):
    """An array that is closed, fixed or frozen, or has named members next to its elements."""

    __slots__ = ("extensible", "frozen", "named", "sealed")

    def __init__(self, source: list[Any]) -> None:
        super().__init__(source)
        before = source if isinstance(source, GuardedArray) else None
        self.extensible: bool = before.extensible if before is not None else True
        self.sealed: bool = before.sealed if before is not None else False
        self.frozen: bool = before.frozen if before is not None else False
        self.named: dict[str, Any] = dict(before.named) if before is not None else {}

    def close(self, *, configurable: bool, writable: bool) -> Self:
        """As for objects."""
        self.extensible = False
        self.sealed = self.sealed or not configurable
        self.frozen = self.frozen or not writable
        return self
