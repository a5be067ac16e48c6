"""Functions on objects, and on the members of arrays and text. Changing ones answer with a changed copy."""

from __future__ import annotations

from typing import Any, Final

from hotmesh.core.pipe import property  # noqa: A004 - own members, whoever has them
from hotmesh.core.pipe.coercion import strict_equals, to_boolean, to_text
from hotmesh.core.pipe.function import BadArgumentError, Functions, kind
from hotmesh.core.pipe.guarded import Flags, GuardedArray, GuardedObject
from hotmesh.core.pipe.instant import as_date
from hotmesh.core.pipe.keys import is_index
from hotmesh.core.pipe.meter import MOST_ELEMENTS
from hotmesh.core.values import UNDEFINED


def get(target: Any = UNDEFINED, key: Any = UNDEFINED) -> Any:
    """The own member of that key, an index of an array, or `length`; undefined where there is none.

    Example: ({"a": 2}, "a") → 2
    Example: ({"a": {"b": 1}}, "a.b") → undefined
    """
    return property.read(target, to_text(key))


def set_(target: Any = UNDEFINED, key: Any = UNDEFINED, value: Any = UNDEFINED) -> Any:
    """The object or array with the member set; a false target counts as a new object.

    Example: ({"a": 1}, "c", 3) → {"a": 1, "c": 3}
    Example: (null, "k", "v") → {"k": "v"}
    Example: (["p"], 2, "r") → ["p", undefined, "r"]
    """
    return _set(_own(_container(target)), to_text(key), value)


def create(*pairs: Any) -> dict[str, Any]:
    """An object of keys and values in turn.

    Example: ("name", "Jo", "age", 30) → {"name": "Jo", "age": 30}
    Example: ("only") → {"only": undefined}
    """
    result: dict[str, Any] = {}
    for index in range(0, len(pairs), 2):
        result[to_text(pairs[index])] = pairs[index + 1] if index + 1 < len(pairs) else UNDEFINED
    return result


def keys(target: Any = UNDEFINED) -> list[str]:
    """The own visible keys: array indexes in ascending order, then the others as they were added.

    Example: ({"b": 1, "a": 2}) → ["b", "a"]
    Example: ("hi") → ["0", "1"]
    Example: (null) → []
    """
    return property.keys(target)


def values(target: Any = UNDEFINED) -> list[Any]:
    """The own visible members, in the order of `keys`.

    Example: ({"b": 1, "a": 2}) → [1, 2]
    """
    return property.values(target)


def entries(target: Any = UNDEFINED) -> list[list[Any]]:
    """Pairs of key and member, in the order of `keys`.

    Example: ({"b": 1, "a": 2}) → [["b", 1], ["a", 2]]
    """
    return [list(pair) for pair in zip(property.keys(target), property.values(target), strict=True)]


def from_entries(pairs: Any) -> dict[str, Any]:
    """An object of pairs of key and value; later ones win.

    Example: ([["x", 1], ["y", 2]]) → {"x": 1, "y": 2}
    """
    if isinstance(pairs, str):
        pairs = [*pairs]
    if not isinstance(pairs, list):
        raise BadArgumentError(f"must be an array of pairs, not {kind(pairs)}")
    result: dict[str, Any] = {}
    for pair in pairs:
        if not isinstance(pair, (list, dict)):
            raise BadArgumentError(f"must be an array of pairs, but holds {kind(pair)}")
        result[to_text(property.read(pair, "0"))] = property.read(pair, "1")
    return result


def assign(target: Any = UNDEFINED, *sources: Any) -> Any:
    """The target with the members of every source set in turn; a false target counts as a new object.

    Example: ({"a": 1}, {"b": 2}, {"a": 3}) → {"a": 3, "b": 2}
    Example: (null, {"k": 1}) → {"k": 1}
    """
    if not any(map(property.keys, sources)):
        return target if to_boolean(target) else {}
    result = _own(_container(target))
    for source in sources:
        members = zip(property.keys(source), property.values(source), strict=True)
        if type(result) is dict:
            result.update(members)
            continue
        for key, value in members:
            result = _set(result, key, value)
    return result


def get_own_property_names(target: Any = UNDEFINED) -> list[str]:
    """As `keys`, with hidden keys too, and `length` for arrays and text.

    Example: (["p", "q"]) → ["0", "1", "length"]
    """
    if isinstance(target, GuardedObject):
        return target.names()
    names = property.keys(target)
    if isinstance(target, list):
        return [*names[: len(target)], "length", *names[len(target) :]]
    return [*names, "length"] if isinstance(target, str) and target else names


def get_own_property_symbols(target: Any = UNDEFINED) -> list[Any]:
    """Always an empty array: no value here has symbols.

    Example: ({"a": 1}) → []
    """
    return []


def get_own_property_descriptor(target: Any = UNDEFINED, key: Any = UNDEFINED) -> Any:
    """The member with its flags: value, writable, enumerable, configurable; undefined where there is none.

    Example: ({"a": 2}, "a") → {"value": 2, "writable": true, "enumerable": true, "configurable": true}
    """
    name = to_text(key)
    if not to_boolean(target) or not property.has(target, name):
        return UNDEFINED
    return {"value": property.read(target, name), **_flags(target, name)._asdict()}


def define_property(target: Any, key: Any, descriptor: Any) -> Any:
    """The object with the member as its descriptor says; a new key is hidden unless `enumerable` is true.

    An existing key keeps the flags that the descriptor leaves out.

    Example: ({"a": 1}, "a", {"value": 9}) → {"a": 9}
    Example: ({"a": 1}, "h", {"value": 9}) → {"a": 1}
    """
    container = _object(target)
    if not isinstance(descriptor, (dict, list)):
        raise BadArgumentError(f"must be a descriptor object, not {kind(descriptor)}", 3)
    return _define(_own(container, guarded=True), to_text(key), descriptor, 3)


def define_properties(target: Any, descriptors: Any) -> Any:
    """The object with several members, each as its descriptor says.

    Example: ({}, {"x": {"value": 1, "enumerable": true}, "y": {"value": 2}}) → {"x": 1}
    """
    container = _object(target)
    if descriptors is None or descriptors is UNDEFINED:
        raise BadArgumentError(f"must be an object of descriptors, not {kind(descriptors)}", 2)
    names = property.keys(descriptors)
    if names:
        container = _own(container, guarded=True)
    for name in names:
        descriptor = property.read(descriptors, name)
        if not isinstance(descriptor, (dict, list)):
            raise BadArgumentError(f"holds {kind(descriptor)} as the descriptor of {name!r}", 2)
        container = _define(container, name, descriptor, 2)
    return container


def freeze(target: Any = UNDEFINED) -> Any:
    """The value, closed to every change by later rows. What is no object is returned as it is.

    Example: ({"a": 1}) → {"a": 1}
    """
    return _closed(target, configurable=False, writable=False)


def is_frozen(target: Any = UNDEFINED) -> bool:
    """Whether nothing about the value can change; true for what is no object.

    Example: ({"a": 1}) → false
    Example: (5) → true
    """
    if not isinstance(target, (dict, list)):
        return as_date(target) is None
    if isinstance(target, GuardedArray):
        return not target.extensible and (target.frozen or not target)
    if not isinstance(target, GuardedObject) or target.extensible:
        return False
    return not any(
        target.flags_of(name).configurable or target.flags_of(name).writable for name in target.order
    )


def seal(target: Any = UNDEFINED) -> Any:
    """The value, closed to new and redefined keys; its members may still change.

    Example: ({"a": 1}) → {"a": 1}
    """
    return _closed(target, configurable=False, writable=True)


def is_sealed(target: Any = UNDEFINED) -> bool:
    """Whether no key can be added or redefined; true for what is no object.

    Example: ({"a": 1}) → false
    """
    if not isinstance(target, (dict, list)):
        return as_date(target) is None
    if isinstance(target, GuardedArray):
        return not target.extensible and (target.sealed or not target)
    if not isinstance(target, GuardedObject) or target.extensible:
        return False
    return not any(target.flags_of(name).configurable for name in target.order)


def prevent_extensions(target: Any = UNDEFINED) -> Any:
    """The value, closed to new keys.

    Example: ({"a": 1}) → {"a": 1}
    """
    return _closed(target, configurable=True, writable=True)


def is_extensible(target: Any = UNDEFINED) -> bool:
    """Whether keys can be added; false for what is no object.

    Example: ({"a": 1}) → true
    Example: (5) → false
    """
    if isinstance(target, (GuardedObject, GuardedArray)):
        return target.extensible
    return isinstance(target, (dict, list)) or as_date(target) is not None


def has_own_property(target: Any, key: Any = UNDEFINED) -> bool:
    """Whether the value has that key itself; arrays and text have their indexes and `length`.

    Example: ({"a": 2}, "a") → true
    Example: ({"a": 2}, "toString") → false
    """
    return property.has(_present(target), to_text(key))


def is_prototype_of(target: Any = UNDEFINED, other: Any = UNDEFINED) -> bool:
    """Always false: no value here is made after another.

    Example: ({}, {"a": 1}) → false
    """
    return False


def property_is_enumerable(target: Any, key: Any = UNDEFINED) -> bool:
    """Whether the value has that key itself and lists it.

    Example: ({"a": 2}, "a") → true
    Example: (["p"], "length") → false
    """
    name = to_text(key)
    return property.has(_present(target), name) and _flags(target, name).enumerable


def _present(target: Any) -> Any:
    if target is None or target is UNDEFINED:
        raise BadArgumentError(f"must be a value, not {kind(target)}")
    return target


def _object(target: Any) -> Any:
    if not isinstance(target, (dict, list)):
        raise BadArgumentError(f"must be an object, not {kind(target)}")
    return target


def _container(target: Any) -> Any:
    if not to_boolean(target):
        return {}
    return _object(target)


def _flags(target: Any, name: str) -> Flags:
    if isinstance(target, GuardedObject):
        return target.flags_of(name)
    if isinstance(target, list):
        if name == "length":
            return Flags(not _is_frozen(target), enumerable=False, configurable=False)
        sealed = isinstance(target, GuardedArray) and target.sealed
        return Flags(not _is_frozen(target), enumerable=True, configurable=not sealed)
    if isinstance(target, str):
        return Flags(writable=False, enumerable=name != "length", configurable=False)
    return Flags()


def _is_frozen(target: list[Any]) -> bool:
    return isinstance(target, GuardedArray) and target.frozen


def _closed(target: Any, *, configurable: bool, writable: bool) -> Any:
    if isinstance(target, dict):
        return GuardedObject(target).close(configurable=configurable, writable=writable)
    if isinstance(target, list):
        return GuardedArray(target).close(configurable=configurable, writable=writable)
    return target


def _own(container: Any, *, guarded: bool = False) -> Any:
    """A copy, which the functions below change; an object that keeps flags of its members, if it has some or `guarded`."""
    if isinstance(container, GuardedArray):
        return GuardedArray(container)
    if isinstance(container, list):
        return container.copy()
    return container.copy() if type(container) is dict and not guarded else GuardedObject(container)


def _set(own: Any, name: str, value: Any) -> Any:
    """The container with the member set: the very same one, unless a list has to become one with named members."""
    if isinstance(own, list):
        return _set_element(own, name, value)
    if type(own) is dict:
        own[name] = value
        return own
    return _put(own, name, value)


def _put(result: GuardedObject, name: str, value: Any) -> GuardedObject:
    if not result.has(name):
        if not result.extensible:
            raise BadArgumentError(f"is closed: the key {name!r} cannot be added")
        result.put(name, value, Flags())
        return result
    if not result.flags_of(name).writable:
        raise BadArgumentError(f"is fixed: the key {name!r} cannot change")
    result.put(name, value, result.flags_of(name))
    return result


def _set_element(result: list[Any], name: str, value: Any) -> list[Any]:
    if isinstance(result, GuardedArray) and not _may_set(result, name):
        raise BadArgumentError(f"is closed: the element {name!r} cannot be set")
    if is_index(name) or name == "length":
        size = value if name == "length" else int(name) + 1
        most = max(MOST_ELEMENTS, len(result))
        if not isinstance(size, int) or not 0 <= size <= most:
            asked = f"{size:,}" if isinstance(size, int) else kind(size)
            raise BadArgumentError(
                f"would be an array of {asked} elements: it may have {MOST_ELEMENTS:,} at most", None
            )
        result.extend([UNDEFINED] * (size - len(result)))
        if name == "length":
            del result[size:]
        else:
            result[int(name)] = value
        return result
    named = result if isinstance(result, GuardedArray) else GuardedArray(result)
    named.named[name] = value
    return named


def _may_set(container: GuardedArray, name: str) -> bool:
    if container.frozen:
        return False
    return container.extensible or property.has(container, name)


def _define(container: Any, name: str, descriptor: Any, argument: int) -> Any:
    if isinstance(container, list):
        if any(property.has(descriptor, part) for part in ("get", "set")):
            raise BadArgumentError("must not have accessors", argument)
        value = (
            property.read(descriptor, "value")
            if property.has(descriptor, "value")
            else property.read(container, name)
        )
        if (
            _is_frozen(container)
            and property.has(container, name)
            and strict_equals(value, property.read(container, name))
        ):
            return container
        return _set_element(container, name, value)
    for part in ("get", "set"):
        if property.read(descriptor, part) is not UNDEFINED or property.has(descriptor, part):
            raise BadArgumentError("must not have accessors", argument)
    result: GuardedObject = container
    stated = {
        flag: to_boolean(property.read(descriptor, flag))
        for flag in Flags._fields
        if property.has(descriptor, flag)
    }
    has_value = property.has(descriptor, "value")
    value = property.read(descriptor, "value")
    if not result.has(name):
        if not result.extensible:
            raise BadArgumentError(f"is closed: the key {name!r} cannot be added")
        flags = Flags(**{"writable": False, "enumerable": False, "configurable": False, **stated})
        result.put(name, value, flags)
        return result
    before = result.flags_of(name)
    if not has_value:
        value = result.own(name)
    if not before.configurable and _forbidden(before, stated, value, result.own(name)):
        raise BadArgumentError(f"is fixed: the key {name!r} cannot be redefined")
    result.put(name, value, before._replace(**stated))
    return result


def _forbidden(before: Flags, stated: dict[str, bool], value: Any, held: Any) -> bool:
    if stated.get("configurable") or stated.get("enumerable", before.enumerable) != before.enumerable:
        return True
    if before.writable:
        return False
    unchanged = strict_equals(value, held) or (value != value and held != held)
    return stated.get("writable", False) or not unchanged


FUNCTIONS: Final[Functions] = {
    "get": get,
    "set": set_,
    "create": create,
    "keys": keys,
    "values": values,
    "entries": entries,
    "fromEntries": from_entries,
    "assign": assign,
    "getOwnPropertyNames": get_own_property_names,
    "getOwnPropertySymbols": get_own_property_symbols,
    "getOwnPropertyDescriptor": get_own_property_descriptor,
    "defineProperty": define_property,
    "defineProperties": define_properties,
    "freeze": freeze,
    "isFrozen": is_frozen,
    "seal": seal,
    "isSealed": is_sealed,
    "preventExtensions": prevent_extensions,
    "isExtensible": is_extensible,
    "hasOwnProperty": has_own_property,
    "isPrototypeOf": is_prototype_of,
    "propertyIsEnumerable": property_is_enumerable,
}
