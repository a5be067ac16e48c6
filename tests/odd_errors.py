"""Exceptions that cannot be asked what they are as others can, and raise when they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FrozenError(Exception):
    """Nothing of it can be set, not even its traceback."""

    text: str = "frozen"


class _Text(str):
    __slots__ = ()

    def encode(self, *_: Any, **__: Any) -> bytes:
        raise SystemExit(1)

    __len__ = __str__ = __iter__ = __getitem__ = encode  # type: ignore[assignment]


class OwnTextError(Exception):
    def __str__(self) -> str:
        return _Text("own")


class _Unnamed(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise SystemExit(1)


class UnnamedError(Exception, metaclass=_Unnamed):
    pass


def odd(name: str) -> BaseException:
    return ODD_ERRORS[name]()


def _raising(name: str, base: type[BaseException] = Exception) -> type[BaseException]:
    def ask(_: object) -> Any:
        raise SystemExit(1)

    return type(f"Odd{name.strip('_').title()}Error", (base,), {name: property(ask)})


PROPERTIES = ("__traceback__", "__cause__", "__context__", "__notes__", "code", "args")


class OddGroupError(ExceptionGroup[Exception]):
    @property
    def exceptions(self) -> Any:
        raise SystemExit(1)


ODD_ERRORS: dict[str, Callable[[], BaseException]] = {
    "frozen": FrozenError,
    "a text of its own": OwnTextError,
    "no name": UnnamedError,
    "group": lambda: OddGroupError("several", [ValueError("one")]),
    **{name: _raising(name) for name in PROPERTIES},
    "5 MB": lambda: ValueError("x" * 5_000_000),
}
