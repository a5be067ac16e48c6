"""The table of all functions: from `domain.name`, as written in `{@domain.name}`, to its entry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hotmesh.core.pipe import (
    array,
    bitwise,
    conditional,
    cron,
    date,
    json,
    logical,
    math,
    number,
    object,  # noqa: A004 - named for the domain
    string,
    symbol,
    unary,
)
from hotmesh.core.pipe.function import Function, Functions, describe
from hotmesh.errors import Problem
from hotmesh.nearest import nearest

DOMAINS: Final[Mapping[str, Functions]] = {
    "array": array.FUNCTIONS,
    "bitwise": bitwise.FUNCTIONS,
    "conditional": conditional.FUNCTIONS,
    "cron": cron.FUNCTIONS,
    "date": date.FUNCTIONS,
    "json": json.FUNCTIONS,
    "logical": logical.FUNCTIONS,
    "math": math.FUNCTIONS,
    "number": number.FUNCTIONS,
    "object": object.FUNCTIONS,
    "string": string.FUNCTIONS,
    "symbol": symbol.FUNCTIONS,
    "unary": unary.FUNCTIONS,
}

FUNCTIONS: Final[Mapping[str, Function]] = {
    f"{domain}.{name}": describe(f"{domain}.{name}", call)
    for domain, functions in DOMAINS.items()
    for name, call in functions.items()
}


def find_function(cell: str, pointer: str) -> Function | Problem:
    """The function that a cell such as `{@string.trim}` names, or what is wrong with the name."""
    name = cell[2:-1]
    found = FUNCTIONS.get(name)
    if found is not None:
        return found
    domain, _, rest = name.partition(".")
    if domain not in DOMAINS:
        message = f"Unknown domain name [{cell}]: {domain}"
        return Problem("V3", message, pointer, suggestion=_closest(name, domain, DOMAINS))
    message = f"Unknown domain function [{cell}]: {domain}.{rest}"
    return Problem("V4", message, pointer, suggestion=_closest(name, rest, DOMAINS[domain]))


def _closest(name: str, part: str, choices: Mapping[str, Any]) -> str | None:
    """The function or, failing that, the domain that the author may have meant."""
    found = nearest(name, FUNCTIONS, 0.75) or next(
        (known for known in FUNCTIONS if known.rpartition(".")[2].lower() == part.lower()), None
    )
    if found is None and (close := nearest(part, choices)):
        found = f"{close}.…" if choices is DOMAINS else f"{name.partition('.')[0]}.{close}"
    return f"did you mean {{@{found}}}?" if found else None
