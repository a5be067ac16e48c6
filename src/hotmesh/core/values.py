"""Values that JSON has no word for."""

from __future__ import annotations

from typing import Any, Final, final

Json = Any
"""A JSON value: dict with text keys, list, str, int, float, bool or None."""


@final
class Undefined:
    """The type of `UNDEFINED`: no value at all, which is not the same as null."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNDEFINED"

    def __bool__(self) -> bool:
        return False

    def __copy__(self) -> Undefined:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Undefined:
        return self

    def __reduce__(self) -> str:
        return "UNDEFINED"


UNDEFINED: Final = Undefined()
"""What a path that leads nowhere resolves to. There is one; compare with `is`."""
