"""JSON as it is stored and sent: strict, lossless, and the same in memory as after a round trip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from types import CoroutineType
from typing import Any

import msgspec

from hotmesh.core.values import Json
from hotmesh.errors import MessageTooLargeError, PayloadError
from hotmesh.foreign_errors import words_or_kind_of

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


def dumps(value: Json) -> bytes:
    """Encode data that came from `normalise` or a mapping."""
    return _encoder.encode(value)


def dumps_text(value: Json) -> str:
    return _encoder.encode(value).decode()


def dumps_rows(rows: Sequence[msgspec.Struct]) -> str:
    """Encode structs of texts, numbers and times. What is a subclass of these is written as what it is."""
    return _payload_encoder.encode(rows).decode()


def loads(text: str | bytes) -> Json:
    """Decode stored JSON."""
    return _decoder.decode(text)


def encode_payload(value: Any, *, limit: int, what: str) -> bytes:
    """Encode what a user handed in, or raise PayloadError saying what is wrong with it and where.

    Dataclasses, datetimes, UUIDs, tuples and msgspec structs are written as msgspec writes them; pydantic models as
    their JSON form; subclasses of str, int, float, dict and list as what they are. NaN and infinities are refused,
    because they would be stored as null without a word, and so are keys that JSON cannot tell apart, such as 1 and "1".
    `limit` is in bytes; more raises MessageTooLargeError. `what` names the payload in the message.
    """
    try:
        encoded = _payload_encoder.encode(value)
        encoded.decode()
    except Exception as error:  # noqa: BLE001 - conversions are code of users, and may raise anything
        path, problem = _looked_for(value)
        # Of our own refusal nothing is left to tell.
        cause = None if isinstance(error, _NoJsonError) and problem is not None else error
        raise PayloadError(
            f"{what} cannot be stored as JSON: {problem or words_or_kind_of(error)} at {path or '$'}"
        ) from cause
    if len(encoded) > limit:
        message = f"{what} has {len(encoded):,} bytes of JSON, more than the limit of {limit:,} (max_payload)"
        raise MessageTooLargeError(message)
    # Only a float that JSON cannot express becomes a null that was not there.
    if b"null" in encoded and not _is_surely_finite(value):
        path, problem = _looked_for(value)
        if problem is not None:
            raise PayloadError(f"{what} cannot be stored as JSON: {problem} at {path}")
    return encoded


def normalise(value: Any, *, limit: int, what: str) -> Json:
    """`value` as it will read back from the database, sharing nothing with the caller's objects."""
    encoded = encode_payload(value, limit=limit, what=what)
    try:
        found = _decoder.decode(encoded)
    except RecursionError:
        raise PayloadError(f"{what} cannot be stored as JSON: {_TOO_DEEP} at $") from None
    except ValueError as error:
        # Only a msgspec.Raw is written as it is.
        path, problem = _looked_for(value)
        raise PayloadError(
            f"{what} cannot be stored as JSON: {problem or words_or_kind_of(error)} at {path}"
        ) from error
    # A member that was written under the name of another is not there any more.
    if len(_encoder.encode(found)) != len(encoded):
        path, problem = _find_problem(value)
        if problem is not None:
            raise PayloadError(f"{what} cannot be stored as JSON: {problem} at {path}")
    # Few payloads have so many brackets at all; mappings follow every level with calls of their own.
    if encoded.count(b"{") + encoded.count(b"[") > DEEPEST and _is_deep(found):
        raise PayloadError(f"{what} cannot be stored as JSON: {_TOO_DEEP} at $")
    return found


DEEPEST = 200
"""Levels of nesting that a payload may have."""

_TOO_DEEP = f"a value nested more than {DEEPEST} levels deep, or one that contains itself,"


def _is_deep(value: Json) -> bool:
    """Whether there are more than `DEEPEST` levels; level by level, so that it needs no depth itself."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEEPEST):
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, dict | list)
        ]
        if not level:
            return False
    return True


def _to_json(value: Any) -> Any:
    """What msgspec does not know: subclasses of what JSON has, as that; and pydantic models."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    dump = getattr(value, "model_dump", None)
    if dump is not None and not isinstance(value, type):
        return dump(mode="json")
    raise _NoJsonError(f"{type(value).__name__} is not a JSON type")


class _NoJsonError(TypeError):
    """A value of a type that JSON has no form for."""


_payload_encoder = msgspec.json.Encoder(enc_hook=_to_json)


_HARMLESS = frozenset({str, int, bool, type(None)})


def _is_surely_finite(value: Any) -> bool:
    """Whether it is made of nothing but JSON, without a number that JSON cannot express. Quick; if in doubt, False."""
    kind = type(value)
    try:
        if kind is dict:
            return all(map(_is_surely_finite, value.values()))
        if kind is list:
            return all(map(_is_surely_finite, value))
    except RecursionError:
        return False
    return kind in _HARMLESS or (kind is float and math.isfinite(value))


def _looked_for(value: Any) -> tuple[str, str | None]:
    """As `_find_problem`, also where looking at the value raises something."""
    try:
        return _find_problem(value)
    except Exception as error:  # noqa: BLE001 - as above
        return "$", f"a value of type {type(value).__name__}, which raised {type(error).__name__},"


def _find_problem(value: Any, path: str = "$", depth: int = 0) -> tuple[str, str | None]:
    """The first thing in the value that JSON cannot hold: its path and what it is."""
    if depth > DEEPEST:
        return path, _TOO_DEEP
    match value:
        case None | bool():
            return path, None
        case int():
            try:
                int.__repr__(value)
            except ValueError:
                return path, "a number of thousands of digits"
            return path, None
        case float():
            return path, None if math.isfinite(value) else f"the number {float.__float__(value)}"
        case str():
            try:
                value.encode()
            except UnicodeEncodeError:
                return path, "text with half of a surrogate pair"
            return path, None
        case dict():
            return _find_in_members(value, path, depth)
        case msgspec.Raw():
            try:
                return _find_problem(_decoder.decode(value), path, depth)
            except ValueError:
                return path, "a msgspec.Raw that is not JSON"
        case list() | tuple():
            for index, item in enumerate(value):
                found = _find_problem(item, f"{path}[{index}]", depth + 1)
                if found[1] is not None:
                    return found
            return path, None
        case _:
            return _find_in_object(value, path, depth)


def _find_in_members(value: dict[Any, Any], path: str, depth: int) -> tuple[str, str | None]:
    names: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(key, str) and key.isascii():
            name: str | None = str.__str__(key)
        else:
            name = _name(key)
        if name is None:
            if isinstance(key, str):
                return path, "a key with half of a surrogate pair"
            return path, f"a key of type {type(key).__name__}"
        if name in names:
            both = f"{names[name]!r} and {key!r}"
            return path, f"the keys {both}, which are one and the same in JSON,"
        names[name] = key
        found = _find_problem(item, path + step_to(name), depth + 1)
        if found[1] is not None:
            return found
    return path, None


def _find_in_object(value: Any, path: str, depth: int) -> tuple[str, str | None]:
    """What an object is made of: a dataclass may well have a number that JSON cannot hold."""
    if isinstance(value, CoroutineType):
        value.close()  # nobody will ever await it
        return path, "a coroutine that was not awaited"
    if is_dataclass(value) and not isinstance(value, type):
        for part in fields(value):
            found = _find_problem(getattr(value, part.name, None), path + step_to(part.name), depth + 1)
            if found[1] is not None:
                return found
    try:
        parts = msgspec.to_builtins(value, enc_hook=_to_json)
    except (TypeError, ValueError, RecursionError):
        return path, f"a value of type {type(value).__name__}"
    except Exception as error:  # noqa: BLE001  # as above
        return (
            path,
            f"a value of type {type(value).__name__}, whose conversion raised {type(error).__name__},",
        )
    return _find_problem(parts, path, depth + 1)


def step_to(name: str) -> str:
    """The part of a path that leads to a member; in brackets if its name would be taken for several."""
    return f".{name}" if name.isidentifier() else f"[{dumps_text(name)}]"


def _name(key: Any) -> str | None:
    """The name of a member as JSON has it; None for a key that cannot be one."""
    try:
        ((name, _),) = _decoder.decode(_payload_encoder.encode({key: 0})).items()
    except (TypeError, ValueError):
        return None
    return str(name)
