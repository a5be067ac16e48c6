"""Python values to payloads and back, by the annotations of the function that takes or gives them.

    shape = DEFAULT_CONVERTER.shape(Order, "argument order of ship", "order")      # compiled once, when a function is registered
    payload, copy = shape.record(order)                                            # JSON as bytes, and what it reads back as
    assert copy == shape.decode(payload)                                           # a replay gets the same

Live code gets the copy, so that a live and a replayed value are equal: what a list was is a list, unless the annotation
says tuple. Without an annotation a value is plain JSON. What does not come back whole is refused when it is written, with
its place (`order.items[3].price`); what was written by another release is read as well as it fits.

A payload is for the codec of the runtime as JSON (`to_json`, `from_json`); nothing here knows of encryption.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from hotmesh.core.values import Json
from hotmesh.core.wire import DEEPEST
from hotmesh.durable.faults import (
    CannotConvertError,
    is_of_conversion,
    lost_member,
    not_finite,
    same_keys,
    too_deep,
    unfit,
    unstorable,
)
from hotmesh.durable.kinds import Reason, json_type, unusable
from hotmesh.errors import ConfigError, MessageTooLargeError, PayloadError

T = TypeVar("T")

MOST_PAYLOAD: Final = 16 * 1024 * 1024
"""Bytes of JSON that one payload may have."""

_plain_decoder: Final = msgspec.json.Decoder()


@dataclass(frozen=True, slots=True)
class Custom(Generic[T]):
    """How values of a class of yours, and of those below it, are stored: `encode` to plain JSON, `decode` back.

    Money = Custom(Amount, encode=str, decode=Amount.parse)
    """

    type: type[T]
    encode: Callable[[T], Any]
    decode: Callable[[Any], T]


class Converter:
    """Knows the classes that need a `Custom`; makes a `Shape` of each annotation. `limit`: bytes of one payload."""

    def __init__(self, customs: Sequence[Custom[Any]] = (), *, limit: int = MOST_PAYLOAD) -> None:
        for custom in customs:
            if not isinstance(custom, Custom):
                raise ConfigError(f"customs of a Converter are Custom(type, encode, decode), not {custom!r}")
        self.limit = limit
        self._customs: Mapping[type, Custom[Any]] = {custom.type: custom for custom in customs}
        self._shapes: dict[Any, Shape[Any]] = {}
        self.encoder: Final = msgspec.json.Encoder(enc_hook=self._to_json)

    def shape(self, annotation: Any, what: str, root: str | None = None) -> Shape[Any]:
        """The compiled form of an annotation. Raises ConfigError if values of it cannot be stored.

        `what` names the value in messages ("result of charge"), `root` begins the paths in it ("order").
        """
        key = (annotation, what, root)
        try:
            found = self._shapes.get(key)
        except TypeError:  # an annotation that cannot be hashed, such as Literal[[]]
            return Shape(self, annotation, what, root)
        if found is None:
            found = self._shapes[key] = Shape(self, annotation, what, root)
        return found

    def custom(self, kind: type) -> Custom[Any] | None:
        """The one for this class, or for the nearest of its bases."""
        if not self._customs:
            return None
        return next((self._customs[base] for base in kind.__mro__ if base in self._customs), None)

    def decoder(self, annotation: Any, what: str) -> msgspec.json.Decoder[Any]:
        """Raises ConfigError that says what in the annotation has no JSON form, and the way out."""
        reason: Reason | None = unusable(annotation, self.custom)
        if reason is not None:
            raise ConfigError(f"{what} cannot be stored as JSON: {reason}")
        return msgspec.json.Decoder(json_type(annotation), dec_hook=self._from_json)

    def _to_json(self, value: Any) -> Any:
        """What msgspec does not know: customs, pydantic models, and subclasses of what JSON has."""
        kind = type(value)
        if (custom := self.custom(kind)) is not None:
            return custom.encode(value)
        if hasattr(kind, "model_dump") and hasattr(kind, "model_validate_json"):
            return value.model_dump(mode="json", by_alias=True, round_trip=True)
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            return int.__int__(value)
        if isinstance(value, float):
            return float.__float__(value)
        raise CannotConvertError(f"{kind.__name__} has no form in JSON")

    def _from_json(self, kind: type, value: Any) -> Any:
        if kind is object:
            return value
        if (custom := self.custom(kind)) is not None:
            found = custom.decode(value)
            if not isinstance(found, kind):
                raise TypeError(f"decode of the Custom for {kind.__name__} gave {type(found).__name__}")
            return found
        if hasattr(kind, "model_validate_json"):
            return kind.model_validate_json(self.encoder.encode(value))
        for base in (str, int, float):
            if issubclass(kind, base):
                if not isinstance(value, base | int if base is float else base) or isinstance(value, bool):
                    raise TypeError(f"Expected `{base.__name__}`, got `{type(value).__name__}`")
                return cast("Any", kind)(value)
        raise CannotConvertError(f"{kind.__name__} has no form in JSON")


class Shape(Generic[T]):
    """How the values of one parameter or one result are stored."""

    __slots__ = ("_converter", "_decode", "_encode", "_is_plain", "annotation", "root", "what")

    def __init__(self, converter: Converter, annotation: Any, what: str, root: str | None) -> None:
        self.annotation = annotation
        self.what = what
        self.root = root or "result"
        self._converter = converter
        self._encode = converter.encoder.encode
        self._is_plain = annotation is Any or annotation is object
        self._decode = _plain_decoder.decode if self._is_plain else converter.decoder(annotation, what).decode

    def encode(self, value: T) -> bytes:
        """The payload. Raises PayloadError for what would not come back as it is."""
        return self.record(value)[0]

    def record(self, value: T) -> tuple[bytes, T]:
        """The payload, and the copy that live code goes on with. Raises PayloadError; so nothing unreadable is stored."""
        payload = self._encoded(value)
        if len(payload) > self._converter.limit:
            raise MessageTooLargeError(
                f"{self.what} has {len(payload):,} bytes of JSON, more than the limit of {self._converter.limit:,}; "
                f"store it elsewhere, and pass where it is"
            )
        # Only a float that JSON cannot express becomes a null that was not there.
        if b"null" in payload and (path := not_finite(value, self.root)) is not None:
            raise self._refused(*path)
        if payload.count(b"{") + payload.count(b"[") > DEEPEST and too_deep(payload):
            raise self._refused(self.root, f"a value nested more than {DEEPEST} levels deep")
        copy = self._decoded(payload, type(value))
        self._check_whole(value, payload, copy)
        return payload, copy

    def decode(self, payload: bytes | str) -> T:
        """The value of a payload. Raises PayloadError if it does not fit the annotation, and says where."""
        return self._decoded(payload)

    def to_json(self, value: T) -> Json:
        """The payload as plain JSON values, for what is stored inside of other JSON, and for the codec."""
        return cast("Json", _plain_decoder.decode(self.encode(value)))

    def from_json(self, value: Json) -> T:
        """The reverse of `to_json`."""
        return cast("T", value) if self._is_plain else self.decode(self._encode(value))

    def _encoded(self, value: T) -> bytes:
        try:
            return self._encode(value)
        except BaseException as error:
            if not is_of_conversion(error):
                raise
            path, problem = unstorable(value, self.root, self._encode, error)
            cause = None if isinstance(error, CannotConvertError) else error
            raise self._refused(path, problem) from cause

    def _decoded(self, payload: bytes | str, given: type[Any] | None = None) -> T:
        """`given`: the type of the value that the payload was made of."""
        try:
            return cast("T", self._decode(payload))
        except BaseException as error:
            if not is_of_conversion(error):
                raise
            path, problem = unfit(error, payload, self._decode, self.root)
            raise PayloadError(
                f"{self.what} does not fit its annotation {annotation_text(self.annotation)}: {problem} at {path}"
                + (f" (the whole is of type {given.__name__})" if given and path == self.root else "")
            ) from error

    def _check_whole(self, value: T, payload: bytes, copy: T) -> None:
        """Nothing of the value may be missing in the copy, as the fields of a class below the annotated one."""
        again = self._encoded(copy)
        if again == payload:
            return
        if (same := same_keys(value, self.root, self._encode)) is not None:
            raise self._refused(same, "a dict of which two keys are one and the same in JSON,")
        lost = lost_member(_plain_decoder.decode(payload), _plain_decoder.decode(again), self.root)
        if lost is not None:
            raise self._refused(
                lost,
                f"a member that is not in the annotation {annotation_text(self.annotation)}, and would be lost,",
            )

    def _refused(self, path: str, problem: str) -> PayloadError:
        return PayloadError(
            f"{self.what} cannot be stored as JSON: {problem} at {path}; pass plain data, a dataclass or a model, "
            f"or give the Converter a Custom for it"
        )


def annotation_text(annotation: Any) -> str:
    """An annotation as it is written."""
    return annotation.__name__ if isinstance(annotation, type) and not hasattr(annotation, "__args__") else str(annotation)  # fmt: skip


DEFAULT_CONVERTER: Final = Converter()
"""The one of functions whose worker or client has no other."""
