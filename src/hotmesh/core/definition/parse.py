"""Text or data to a `Document`: every reference resolved, every node with its place.

A `$ref` may stand anywhere. It names a file relative to the one it stands in (`./order.yaml`), a place in such a
file (`../schemas.yaml#/input`) or in its own (`#/app/x`). Members beside it are laid over what it refers to,
as with the merge key `<<`. Nothing here opens a file: the caller passes `read`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from hotmesh.core.definition.graph import NOWHERE, Document, SourceLocation
from hotmesh.core.definition.yaml_document import (
    MAX_DEPTH,
    PLAIN,
    Budget,
    compose,
    escape,
    from_data,
    scalar,
    unescape,
    unquoted_expression,
)
from hotmesh.errors import Problem

Read = Callable[[str, str | None], tuple[str, str]]
"""(reference, name of the file it stands in) → (resolved name, text). Raises OSError or ValueError."""

_SPECIAL: Final = frozenset({"$ref", "<<"})
_ACTIVITIES: Final = re.compile(r"/app/graphs/[0-9]+/activities")


def parse(
    text: str, *, name: str | None = None, read: Read | None = None, base: str | None = None
) -> tuple[Document | None, list[Problem]]:
    """Read a graph document and all that it refers to.

    `name` is how locations call the text; `base` the name that its references are relative to, if another. Without
    `read` only references within the text can be followed. The document is None if the text is no YAML at all.
    """
    root = compose(text, name)
    if isinstance(root, Problem):
        return None, [root]
    return _document(_Source(root, name, name if base is None else base), read)


def parse_data(
    data: Mapping[str, Any], *, read: Read | None = None, base: str | None = None
) -> tuple[Document | None, list[Problem]]:
    """The same for data; what was given is copied, not kept."""
    try:
        root = from_data(data)
    except ValueError as error:
        return None, [Problem("syntax", str(error))]
    return _document(_Source(root, None, base), read)


def _document(source: _Source, read: Read | None) -> tuple[Document | None, list[Problem]]:
    writer = _Writer(source, read)
    try:
        data = writer.value(source.root, source, "", 0)
    except _TooLargeError as error:
        return None, [*writer.problems, error.problem]
    # What has no place of its own, as nothing at all, stands in the source all the same.
    writer.locations.setdefault("", SourceLocation(source.name))
    return Document(data, writer.locations, writer.keys), writer.problems


@dataclass(frozen=True, slots=True, eq=False)
class _Source:
    root: Node
    name: str | None
    base: str | None


@dataclass(frozen=True, slots=True)
class _Member:
    """A member of a mapping: where its name stands, its value, and the source both come from."""

    key: Node
    value: Node
    source: _Source


class _TooLargeError(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def _location(node: Node, source: _Source) -> SourceLocation:
    mark = node.start_mark
    if mark is None:
        return NOWHERE
    return SourceLocation(source.name, mark.line + 1, mark.column + 1)


class _Writer:
    """Writes the nodes of several sources out as one tree of plain data."""

    def __init__(self, source: _Source, read: Read | None) -> None:
        self.problems: list[Problem] = []
        self.locations: dict[str, SourceLocation] = {}
        self.keys: dict[str, SourceLocation] = {}
        self._read = read
        self._sources: dict[str, _Source] = {} if source.base is None else {source.base: source}
        self._opened: dict[tuple[str, str], _Source | str] = {}
        self._open: set[int] = set()
        self._members: dict[int, dict[str, _Member]] = {}
        self._budget = Budget()

    def value(self, node: Node, source: _Source, pointer: str, depth: int) -> Any:
        """The plain value of a node that will stand at `pointer` of the result."""
        excess = self._budget.spend(pointer)
        if excess or depth > MAX_DEPTH:
            what = excess or f"over {MAX_DEPTH} levels"
            message = f"the document has {what}, with aliases and references written out"
            problem = self._problem("syntax", message, node, source, pointer[:200])
            raise _TooLargeError(problem)
        place = _location(node, source)
        if place is not NOWHERE:
            self.locations[pointer] = place
        if isinstance(node, ScalarNode):
            try:
                return scalar(node)
            except ValueError as error:
                self._report("syntax", str(error), node, source, pointer)
                return None
        if id(node) in self._open:
            self._report("reference", "refers to itself", node, source, pointer)
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, SequenceNode):
                return [
                    self.value(item, source, f"{pointer}/{index}", depth + 1)
                    for index, item in enumerate(node.value)
                ]
            return self._mapping(node, source, pointer, depth)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: Node, source: _Source, pointer: str, depth: int) -> Any:
        reference = _reference(node) if len(node.value) == 1 else None
        if reference is not None:
            target = self._follow(node, reference, source, pointer)
            if target is None:
                return None
            if id(target[0]) in self._open:
                self._report("reference", f"{reference} refers to itself", node, source, pointer)
                return None
            return self.value(*target, pointer, depth)
        if isinstance(node, MappingNode) and (expression := unquoted_expression(node)):
            self._report(
                "syntax",
                f"{expression} without quotes is a mapping, not an expression",
                node,
                source,
                pointer,
                suggestion=f"write '{expression}'",
            )
        result: dict[str, Any] = {}
        for name, key, value, origin in self._entries(node, source, pointer):
            below = f"{pointer}/{escape(name)}"
            if (place := _location(key, origin)) is not NOWHERE:
                self.keys[below] = place
            result[name] = self.value(value, origin, below, depth + 1)
        return result

    def _entries(
        self, node: Node, source: _Source, pointer: str
    ) -> Iterable[tuple[str, Node, Node, _Source]]:
        """(name, its node, value, source of both) of each member."""
        # Nearly every mapping is plain: no reference, no merge, no duplicate. It takes the short way.
        pairs = node.value
        names = {key.value for key, _ in pairs if isinstance(key, ScalarNode)}
        if len(names) == len(pairs) and names.isdisjoint(_SPECIAL):
            return ((key.value, key, value, source) for key, value in pairs)
        members = self._members_of(node, source, pointer).items()
        return ((name, member.key, member.value, member.source) for name, member in members)

    def _members_of(self, node: Node, source: _Source, pointer: str) -> dict[str, _Member]:
        """The members, own ones before those merged in. Problems are reported the first time only."""
        known = self._members.get(id(node))
        if known is not None:
            return known
        own: dict[str, _Member] = {}
        bases: list[tuple[Node, _Source]] = []
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self._report("syntax", "a key must be text", key, source, pointer)
            elif key.tag == PLAIN and key.value == "<<":
                bases += [(base, source) for base in _merged(value)]
            elif key.value == "$ref" and _text(value) is not None:
                target = self._follow(node, value.value, source, pointer)
                bases += [] if target is None else [target]
            elif key.value in own:
                first = _location(own[key.value].key, source)
                rule, what = "syntax", f'duplicate key "{key.value}"'
                if _ACTIVITIES.fullmatch(pointer):
                    rule, what = "V1", f"Duplicate activity id found: {key.value}"
                message = (
                    what
                    if first.line is None
                    else f"{what}, first at line {first.line}, column {first.column}"
                )
                self._report(rule, message, key, source, f"{pointer}/{escape(key.value)}")
            else:
                own[key.value] = _Member(key, value, source)
        members = own if not bases else {**self._merge(bases, pointer), **own}
        self._members[id(node)] = members
        return members

    def _merge(self, bases: list[tuple[Node, _Source]], pointer: str) -> dict[str, _Member]:
        merged: dict[str, _Member] = {}
        for base, source in bases:
            if not isinstance(base, MappingNode):
                self._report("syntax", "only a mapping can be merged", base, source, pointer)
            elif id(base) in self._open and id(base) not in self._members:
                self._report("reference", "refers to itself", base, source, pointer)
            else:
                was_open = id(base) in self._open
                self._open.add(id(base))
                for name, member in self._members_of(base, source, pointer).items():
                    merged.setdefault(name, member)
                if not was_open:
                    self._open.discard(id(base))
        return merged

    def _follow(
        self, node: Node, reference: str, source: _Source, pointer: str
    ) -> tuple[Node, _Source] | None:
        """What a `$ref` names, through further references; None after reporting why there is nothing."""
        seen: set[int] = set()
        here: tuple[Node, _Source] = (node, source)
        target: str | None = reference
        while target is not None:
            if id(here[0]) in seen:
                self._report("reference", f"{reference} refers to itself", node, source, pointer)
                return None
            seen.add(id(here[0]))
            found = self._find(target, here[1], pointer)
            if isinstance(found, str):
                self._report("reference", f"{reference}: {found}", node, source, pointer)
                return None
            here = found
            target = _reference(here[0]) if len(here[0].value) == 1 else None
        return here

    def _find(self, reference: str, source: _Source, pointer: str) -> tuple[Node, _Source] | str:
        """The node that a reference names, or what is wrong with it."""
        file, _, place = reference.partition("#")
        if file:
            opened = self._open_source(file, source)
            if isinstance(opened, str):
                return opened
            source = opened
        if place and not place.startswith("/"):
            return "a place in a file is a JSON pointer and begins with #/"
        here: tuple[Node, _Source] = (source.root, source)
        for part in place.split("/")[1:]:
            further = self._step(here, unescape(part), pointer)
            if further is None:
                return f"there is no {place} in {source.name or 'the document'}"
            here = further
        return here

    def _step(self, here: tuple[Node, _Source], part: str, pointer: str) -> tuple[Node, _Source] | None:
        node, source = here
        reference = _reference(node)
        if reference is not None and len(node.value) == 1:
            if id(node) in self._open:
                return None
            self._open.add(id(node))
            target = self._follow(node, reference, source, pointer)
            self._open.discard(id(node))
            if target is None:
                return None
            node, source = target
        if isinstance(node, MappingNode):
            member = self._members_of(node, source, pointer).get(part)
            return None if member is None else (member.value, member.source)
        if isinstance(node, SequenceNode) and part.isdecimal() and int(part) < len(node.value):
            return node.value[int(part)], source
        return None

    def _open_source(self, file: str, source: _Source) -> _Source | str:
        if "://" in file:
            return "only files can be referred to"
        if self._read is None or source.base is None:
            return "a reference to a file needs a base path"
        if (source.base, file) in self._opened:
            return self._opened[source.base, file]
        opened = self._opened[source.base, file] = self._read_source(file, source.base, self._read)
        return opened

    def _read_source(self, file: str, base: str, read: Read) -> _Source | str:
        try:
            name, text = read(file, base)
        except OSError as error:
            return error.strerror or str(error)
        except ValueError as error:  # among them: the file is not UTF-8
            return str(error)
        if name in self._sources:
            return self._sources[name]
        root = compose(text, name)
        if isinstance(root, Problem):
            self.problems.append(root)
            return "the file is not YAML"
        opened = self._sources[name] = _Source(root, name, name)
        return opened

    def _report(
        self,
        rule: str,
        message: str,
        node: Node,
        source: _Source,
        pointer: str,
        suggestion: str | None = None,
    ) -> None:
        self.problems.append(self._problem(rule, message, node, source, pointer, suggestion))

    def _problem(
        self,
        rule: str,
        message: str,
        node: Node,
        source: _Source,
        pointer: str,
        suggestion: str | None = None,
    ) -> Problem:
        place = _location(node, source)
        return Problem(rule, message, pointer, place.file, place.line, place.column, suggestion)


def _reference(node: Node) -> str | None:
    """The text of the mapping's `$ref`. One that is not text is an ordinary member, as in a JSON Schema."""
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if isinstance(key, ScalarNode) and key.value == "$ref":
                return _text(value)
    return None


def _text(node: Node) -> str | None:
    return node.value if isinstance(node, ScalarNode) and isinstance(node.value, str) else None


def _merged(value: Node) -> Iterator[Node]:
    if isinstance(value, SequenceNode):
        yield from value.value
    else:
        yield value
