"""Where in a value the fault is, and what it is; asked only when there is one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from types import CoroutineType
from typing import Any, Final

import msgspec

from hotmesh.core.durable.retry import class_name
from hotmesh.core.wire import DEEPEST, step_to
from hotmesh.foreign_errors import kind_of, words_of
from hotmesh.interrupts import is_interrupt
from hotmesh.replay import Operation

Fault = tuple[str, str]
"""Where, and what."""

Encode = Callable[[Any], bytes]
Decode = Callable[[bytes | str], Any]

_HARMLESS: Final = frozenset({str, int, bool, type(None)})


def is_of_conversion(error: BaseException) -> bool:
    """Whether converting has failed by this, whatever it is; and not by a Ctrl-C, nor by something of ours that ends a turn."""
    if isinstance(error, Exception):
        return True
    return not is_interrupt(error) and not class_name(type(error)).startswith("hotmesh.")


class CannotConvertError(TypeError):
    """A value of a type that has no form in JSON."""


def unstorable(value: Any, path: str, encode: Encode, error: BaseException) -> Fault:
    """The innermost part that cannot be encoded. `error` is what encoding the value raised."""
    for _ in range(DEEPEST):
        inner = _first_failing(value, encode)
        if inner is None:
            return path, _why(value, error)
        step, value, error = inner
        path += step
    return path, f"a value nested more than {DEEPEST} levels deep, or one that contains itself,"


def _first_failing(value: Any, encode: Encode) -> tuple[str, Any, BaseException] | None:
    for step, child in _parts(value):
        try:
            encode(child)
        except BaseException as error:
            if not is_of_conversion(error):
                raise
            return step, child, error
    return None


def _why(value: Any, error: BaseException) -> str:
    if isinstance(value, CoroutineType):
        value.close()  # nobody will ever await it
        return "a coroutine that was not awaited"
    if isinstance(value, Operation):
        return f"the {value.command.kind} {value.command.name!r}, which was not awaited,"
    if isinstance(error, UnicodeEncodeError):
        return "text with half of a surrogate pair"
    if isinstance(error, RecursionError):
        return f"a value nested more than {DEEPEST} levels deep, or one that contains itself,"
    kind = type(value).__name__
    said = words_of(error)
    if isinstance(value, dict):
        return f"a dict whose keys JSON cannot have ({said})"
    if isinstance(error, CannotConvertError) or "unsupported" in said:
        return f"a value of type {kind}"
    return f"a value of type {kind}, of which the conversion says {kind_of(error)}: {said}"


def not_finite(value: Any, path: str, depth: int = 0) -> Fault | None:
    """The first number in the value that JSON cannot express; it would be stored as null without a word."""
    kind = type(value)
    if kind in _HARMLESS or depth > DEEPEST:
        return None
    if isinstance(value, float):
        return None if math.isfinite(value) else (path, f"the number {float.__float__(value)}")
    for step, child in _parts(value):
        found = not_finite(child, path + step, depth + 1)
        if found is not None:
            return found
    return None


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value is made of, with the steps of the path that lead there."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (step_to(key) if isinstance(key, str) else f"[{key!r:.100}]"), item
    elif isinstance(value, tuple) and (names := getattr(value, "_fields", None)):
        yield from ((f".{name}", item) for name, item in zip(names, value, strict=False))
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))
    else:
        for name in _field_names(value):
            yield step_to(name), getattr(value, name, None)


def _field_names(value: Any) -> Iterator[str]:
    kind = type(value)
    if isinstance(value, type):
        return
    if is_dataclass(value):
        yield from (field.name for field in fields(value))
    elif isinstance(value, msgspec.Struct):
        yield from value.__struct_fields__
    elif hasattr(kind, "__attrs_attrs__"):
        yield from (field.name for field in kind.__attrs_attrs__)
    elif hasattr(kind, "model_fields"):
        yield from kind.model_fields


def too_deep(payload: bytes) -> bool:
    """Whether JSON has more levels than may be stored."""
    deepest = level = 0
    for mark in _STRINGS.sub(b"", payload):
        if mark in b"[{":
            level += 1
            deepest = max(deepest, level)
        elif mark in b"]}":
            level -= 1
    return deepest > DEEPEST


_STRINGS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')


def same_keys(value: Any, path: str, encode: Encode, depth: int = 0) -> str | None:
    """The path of a dict that JSON makes smaller, because it cannot tell keys such as 1 and "1" apart."""
    if type(value) in _HARMLESS or depth > DEEPEST:
        return None
    if isinstance(value, dict) and len(msgspec.json.decode(encode(value))) != len(value):
        return path
    inner = ((path + step, child) for step, child in _parts(value))
    found = (same_keys(child, where, encode, depth + 1) for where, child in inner)
    return next((where for where in found if where is not None), None)


def lost_member(before: Any, after: Any, path: str, depth: int = 0) -> str | None:
    """The path of a member of a mapping that is not in the copy; None if all are."""
    if depth > DEEPEST:
        return None
    if isinstance(before, dict) and isinstance(after, dict):
        for name, item in before.items():
            if name not in after:
                return path + step_to(str(name))
            found = lost_member(item, after[name], path + step_to(str(name)), depth + 1)
            if found is not None:
                return found
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (item, copy) in enumerate(zip(before, after, strict=True)):
            found = lost_member(item, copy, f"{path}[{index}]", depth + 1)
            if found is not None:
                return found
    return None


_PLACE: Final = re.compile(r" - at `(?:key in )?\$?([^`]*)`\Z", re.DOTALL)
_STEPS: Final = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")


def unfit(error: BaseException, payload: bytes | str, decode: Decode, root: str) -> Fault:
    """Where a payload does not fit its annotation, and why."""
    words = words_of(error, None) or kind_of(error)
    place = _PLACE.search(words)
    if isinstance(error, RecursionError):
        return root, f"a value nested more than {DEEPEST} levels deep"
    if place is None:
        return root, " ".join(words.split())
    problem = " ".join(words[: place.start()].split())
    try:
        whole = msgspec.json.decode(payload)
        steps = list(_located(whole, place[1], decode))
    except Exception:  # noqa: BLE001 - then the place is as exact as msgspec has said it
        return root + place[1], problem
    return root + "".join(f"[{step}]" if isinstance(step, int) else step_to(step) for step in steps), problem


def _located(whole: Any, place: str, decode: Decode) -> Iterator[str | int]:
    """The steps of a place; a `[...]` stands for a key of a mapping, which is found by trying each by itself."""
    here = whole
    for step in _STEPS.finditer(place):
        if step[1] is not None:
            key: str | int = step[1]
        elif step[2] != "...":
            key = int(step[2])
        else:
            key = _failing_key(whole, here, decode)
        yield key
        here = here[key]


def _failing_key(whole: Any, mapping: dict[str, Any], decode: Decode) -> str:
    """The first member of a mapping in `whole` without which it would fit, or fail elsewhere."""
    everything = dict(mapping)
    try:
        for key, item in everything.items():
            mapping.clear()
            mapping[key] = item
            try:
                decode(msgspec.json.encode(whole))
            except Exception as error:  # noqa: BLE001 - the next of several faults may lie elsewhere
                if "[...]" in words_of(error, None):
                    return key
        raise LookupError
    finally:
        mapping.clear()
        mapping.update(everything)
