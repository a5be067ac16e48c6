"""JSON as it is stored and sent: strict, lossless, and the same in memory as after a round trip."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from hotmesh.core.values import Json
from hotmesh.errors import MessageTooLargeError, PayloadError

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


def dumps(value: Json) -> bytes:
    """Encode data that came from `normalise` or a mapping."""
    return _encoder.encode(value)


def dumps_text(value: Json) -> str:
    return _encoder.encode(value).decode()


def loads(text: str | bytes) -> Json:
    """Decode stored JSON."""
    return _decoder.decode(text)


def encode_payload(value: Any, *, limit: int, what: str) -> bytes:
    """Encode what a user handed in, or raise PayloadError saying what is wrong with it and where.

    Dataclasses, datetimes, UUIDs, tuples and msgspec structs are written as msgspec writes them; pydantic models as
    their JSON form. NaN and infinities are refused, because they would be stored as null without a word.
    `limit` is in bytes; more raises MessageTooLargeError. `what` names the payload in the message.
    """
    try:
        encoded = _payload_encoder.encode(value)
        encoded.decode()
    except (TypeError, ValueError, UnicodeError, RecursionError, OverflowError) as error:
        path, problem = _find_problem(value)
        raise PayloadError(f"{what} cannot be stored as JSON: {problem or error} at {path or '$'}") from error
    if len(encoded) > limit:
        message = f"{what} has {len(encoded):,} bytes of JSON, more than the limit of {limit:,} (max_payload)"
        raise MessageTooLargeError(message)
    # Only a float that JSON cannot express becomes a null that was not there.
    if b"null" in encoded:
        path, problem = _find_problem(value)
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
    dump = getattr(value, "model_dump", None)
    if dump is not None and not isinstance(value, type):
        return dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not a JSON type")


_payload_encoder = msgspec.json.Encoder(enc_hook=_to_json)


def _find_problem(value: Any, path: str = "$", depth: int = 0) -> tuple[str, str | None]:
    """The first thing in the value that JSON cannot hold: its path and what it is."""
    if depth > DEEPEST:
        return path, _TOO_DEEP
    match value:
        case None | bool():
            return path, None
        case int():
            try:
                str(value)
            except ValueError:
                return path, "a number of thousands of digits"
            return path, None
        case float():
            return path, None if math.isfinite(value) else f"the number {value}"
        case str():
            try:
                value.encode()
            except UnicodeEncodeError:
                return path, "text with half of a surrogate pair"
            return path, None
        case dict():
            for key, item in value.items():
                if not (isinstance(key, str) and key.isascii()) and not _is_key(key):
                    if isinstance(key, str):
                        return path, "a key with half of a surrogate pair"
                    return path, f"a key of type {type(key).__name__}"
                found = _find_problem(item, f"{path}.{key}", depth + 1)
                if found[1] is not None:
                    return found
            return path, None
        case list() | tuple():
            for index, item in enumerate(value):
                found = _find_problem(item, f"{path}[{index}]", depth + 1)
                if found[1] is not None:
                    return found
            return path, None
        case _:
            try:
                # What it is made of: a dataclass may well have a number that JSON cannot hold.
                parts = msgspec.to_builtins(value, enc_hook=_to_json)
            except (TypeError, ValueError, RecursionError):
                return path, f"a value of type {type(value).__name__}"
            return _find_problem(parts, path, depth + 1)


def _is_key(key: Any) -> bool:
    """Whether JSON can have it as the name of a member."""
    try:
        _payload_encoder.encode({key: 0}).decode()
    except (TypeError, ValueError):
        return False
    return True
