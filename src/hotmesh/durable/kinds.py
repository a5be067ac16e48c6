"""Which annotations have a form in JSON, and what to write instead of the others."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from msgspec import inspect

Reason = str
"""Why values of an annotation cannot be stored, and the way out."""

_LEAVES: Final = (str, int, float)


def json_type(annotation: Any) -> Any:
    """The annotation as msgspec takes it."""
    return type(None) if annotation is None else annotation


def unusable(annotation: Any, custom: Callable[[type], Any]) -> Reason | None:
    """Why values of this annotation cannot be stored; None if they can. `custom`: the Custom of a class, if it has one."""
    try:
        found = inspect.type_info(json_type(annotation))
    except TypeError as error:
        return _refusal(str(error))
    except (NameError, AttributeError) as error:
        return f"{error}; its annotation names something that is not there when the function is registered"
    return _unusable_in(found, custom, set())


def _refusal(words: str) -> Reason:
    """What msgspec says, in words that name the way out."""
    kind = words.rpartition("type `")[2].partition("`")[0]
    if "union" in words:
        return (
            f"the members of {kind or 'the union'} look alike in JSON, so a stored value would not tell which it is; "
            f"use one class with a field that says which, or msgspec.Struct classes with tag=True"
        )
    if "Enums must contain" in words:
        return f"{kind}: the values of an enum must all be texts, or all whole numbers"
    return f"{words[:1].lower()}{words[1:]}; use plain data, a dataclass or a model"


def _unusable_in(node: Any, custom: Callable[[type], Any], seen: set[int]) -> Reason | None:
    if id(node) in seen:
        return None
    seen.add(id(node))
    if isinstance(node, inspect.CustomType):
        return None if is_convertible(node.cls, custom) else _no_form(node.cls)
    for child in _children(node):
        found = _unusable_in(child, custom, seen)
        if found is not None:
            return found
    return None


def _children(node: Any) -> list[Any]:
    """The nodes below one of `msgspec.inspect`."""
    if isinstance(node, inspect.Field):
        return [node.type]
    found = []
    for name in getattr(node, "__struct_fields__", ()):
        value = getattr(node, name)
        if isinstance(value, inspect.Type | inspect.Field):
            found.append(value)
        elif isinstance(value, tuple):
            found += [item for item in value if isinstance(item, inspect.Type | inspect.Field)]
    return found


def is_convertible(kind: Any, custom: Callable[[type], Any]) -> bool:
    """Whether a class that msgspec does not know has a form in JSON all the same."""
    if kind is object:
        return True
    if not isinstance(kind, type):
        return False
    if custom(kind) is not None or (hasattr(kind, "model_dump") and hasattr(kind, "model_validate_json")):
        return True
    return issubclass(kind, _LEAVES) and not issubclass(kind, Enum)


def _no_form(kind: Any) -> Reason:
    name = getattr(kind, "__qualname__", str(kind))
    module = getattr(kind, "__module__", "")
    whole = name if module in ("builtins", "") else f"{module}.{name}"
    return (
        f"{whole} has no form in JSON; pass plain data, a dataclass or a model (for an object of the process: an id by "
        f"which it is found), or give the Converter a Custom for it"
    )
