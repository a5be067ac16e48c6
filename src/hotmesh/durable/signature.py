"""The parameters of a function, compiled once: its arguments as one payload, and back.

Arguments are stored as a JSON list; with keyword-only arguments, or gaps before named ones, as
`{"args": […], "kwargs": {…}}`. Defaults are not stored: what was left out gets the default of the function that runs.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast, get_type_hints

import msgspec

from hotmesh.core.values import Json
from hotmesh.durable.convert import Converter, Shape
from hotmesh.errors import PayloadError

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a call."""

_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder()
_list_decoder: Final = msgspec.json.Decoder(list[msgspec.Raw])

logger = logging.getLogger("hotmesh.durable")

_JSON: Final = frozenset({dict, list, str, int, float, bool, type(None), msgspec.Raw})
"""Types that are the same on their way back."""


class Signature:
    """How the arguments of a function are stored, and its result: `result` is a `Shape`."""

    __slots__ = (
        "_bare",
        "_by_name",
        "_converter",
        "_least",
        "_most",
        "_parameters",
        "_positional",
        "_signature",
        "_told",
        "_tuples",
        "bare_result",
        "name",
        "result",
    )  # fmt: skip

    def __init__(
        self, name: str, signature: inspect.Signature, hints: Mapping[str, Any], converter: Converter
    ) -> None:
        """Raises ConfigError for an annotation whose values cannot be stored."""
        self.name = name
        self._converter = converter
        self._signature = signature
        self._parameters = signature.parameters
        self._by_name = {
            found.name: converter.shape(hints.get(found.name, Any), f"argument {found.name} of {name}", found.name)
            for found in signature.parameters.values()
        }  # fmt: skip
        ordered = [found for found in signature.parameters.values() if found.kind in _POSITIONAL]
        self._positional = [found.name for found in ordered]
        self._least = sum(found.default is inspect.Parameter.empty for found in ordered)
        if any(
            found.kind is found.KEYWORD_ONLY and found.default is found.empty
            for found in signature.parameters.values()
        ):
            self._least = len(ordered) + 1  # never without names
        self._most = len(ordered)
        self._tuples: dict[int, Shape[tuple[Any, ...]]] = {}
        self._bare = [(place, name) for place, name in enumerate(self._positional) if name not in hints]
        self.bare_result = "return" not in hints
        self._told: set[str] = set()
        self.result: Shape[Any] = converter.shape(hints.get("return", Any), f"result of {name}", "result")

    @classmethod
    def untyped(cls, name: str, converter: Converter) -> Signature:
        """Of a function that is known by its name only: any arguments, as plain JSON."""

        def anything(*args: Any, **kwargs: Any) -> Any: ...

        return cls(name, inspect.signature(anything), {}, converter)

    @property
    def takes_nothing(self) -> bool:
        """Whether there are no parameters."""
        return not self._parameters

    def pack(self, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> bytes:
        """The payload of a call. Raises TypeError if the function cannot be called so, PayloadError for what cannot be stored."""
        return self.record(args, kwargs)[0]

    def record(
        self, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None
    ) -> tuple[bytes, tuple[Any, ...], dict[str, Any]]:
        """The payload of a call, and the copies of its arguments that live code goes on with."""
        if self._bare:
            for place, name in self._bare[: len(args)]:
                if place < len(args):
                    self.look(args[place], f"argument {name}", f"{name}:")
        if not kwargs and self._least <= len(args) <= self._most:
            try:
                return (*self._tuple(len(args)).record(tuple(args)), {})
            except PayloadError:
                pass  # said again below, by the name of the argument
        args, kwargs = self.bound(args, kwargs or {})
        positional = [self._at(index).record(value) for index, value in enumerate(args)]
        named = {name: self._named(name).record(value) for name, value in kwargs.items()}
        copies = tuple(copy for _, copy in positional)
        payload: Any = [msgspec.Raw(stored) for stored, _ in positional]
        if named:
            payload = {
                "args": payload,
                "kwargs": {name: msgspec.Raw(stored) for name, (stored, _) in named.items()},
            }
        return _encoder.encode(payload), copies, {name: copy for name, (_, copy) in named.items()}

    def unpack(self, payload: bytes | str) -> Arguments:
        """The arguments of a payload. Raises PayloadError if they do not fit the function as it is now."""
        if payload[:1] in (b"[", "["):
            try:
                count = self._most
                if self._least != count:
                    count = len(_list_decoder.decode(payload))
                if self._least <= count <= self._most:
                    return self._tuple(count).decode(payload), {}
            except (PayloadError, ValueError):
                pass  # said again below, by the name of the argument
        return self.from_json(cast("Json", _decoder.decode(payload)))

    def to_json(self, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> Json:
        """As `pack`, as plain JSON values."""
        return cast("Json", _decoder.decode(self.pack(args, kwargs)))

    def from_json(self, stored: Json) -> Arguments:
        """As `unpack`, of plain JSON values."""
        positional, named = _apart(stored, self.name)
        try:
            self._signature.bind(*positional, **named)
        except TypeError as error:
            raise PayloadError(f"the stored arguments do not fit {self.shown}: {error}") from None
        args = tuple(self._at(index).from_json(value) for index, value in enumerate(positional))
        return args, {name: self._named(name).from_json(value) for name, value in named.items()}

    def bound(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Arguments:
        """What is given by name is put in its place where that is possible. Raises TypeError as the call itself would."""
        try:
            found = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.shown} cannot be called so: {error}") from None
        return found.args, found.kwargs

    @property
    def shown(self) -> str:
        """The function with its parameters: `ship(order, express=False)`."""
        names = [found.replace(annotation=found.empty) for found in self._parameters.values()]
        return f"{self.name}{inspect.Signature(names)}"

    def look(self, value: Any, what: str, before: str) -> None:
        """Say so, once, if a value comes back as something else, because no annotation says what it is."""
        kind = type(value)
        if kind not in _JSON and what not in self._told:
            self._told.add(what)
            logger.warning(
                "%s of %s is a %s, and comes back as plain JSON: annotate it, as in %s %s, to have what was given",
                what,
                self.name,
                kind.__name__,
                before,
                kind.__name__,
                extra={"event": "value-without-annotation"},
            )

    def _tuple(self, count: int) -> Shape[tuple[Any, ...]]:
        """That of the first so many positional arguments together: one call of the encoder for all of them."""
        found = self._tuples.get(count)
        if found is None:
            types = tuple(self._by_name[name].annotation for name in self._positional[:count])
            annotation = tuple[types] if types else tuple[()]  # type: ignore[valid-type]
            found = self._tuples[count] = Shape(
                self._converter, annotation, f"arguments of {self.name}", "arguments"
            )
        return found

    def _at(self, index: int) -> Shape[Any]:
        if index < self._most:
            return self._by_name[self._positional[index]]
        rest = next(found for found in self._parameters.values() if found.kind is found.VAR_POSITIONAL)
        return self._by_name[rest.name]

    def _named(self, name: str) -> Shape[Any]:
        found = self._parameters.get(name)
        if found is not None and found.kind in (found.KEYWORD_ONLY, found.POSITIONAL_OR_KEYWORD):
            return self._by_name[name]
        rest = next(found for found in self._parameters.values() if found.kind is found.VAR_KEYWORD)
        return self._by_name[rest.name]


def _apart(stored: Json, name: str) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments as they are stored; also as other languages and SQL may have written them."""
    if stored is None:
        return [], {}
    if isinstance(stored, list):
        return stored, {}
    if isinstance(stored, dict) and set(stored) <= {"args", "kwargs"}:
        positional, named = stored.get("args", []), stored.get("kwargs", {})
        if isinstance(positional, list) and isinstance(named, dict):
            return positional, named
    raise PayloadError(
        f'the stored arguments of {name} are neither a JSON list nor {{"args": […], "kwargs": {{…}}}}'
    )


def hints_of(function: Callable[..., Any], local: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The annotations of a function, resolved. Raises NameError for a name that is not there (yet)."""
    return get_type_hints(function, localns=dict(local) if local else None, include_extras=True)
