"""The table of all functions: from `domain.name`, as written in `{@domain.name}`, to its entry."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Final

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

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    whole = difflib.get_close_matches(name, FUNCTIONS, 1, 0.75)
    if not whole:
        by_case = [choice for choice in choices if choice.lower() == part.lower()]
        parts = by_case or difflib.get_close_matches(part, choices, 1, 0.6)
        if not parts:
            return None
        domain = name.partition(".")[0]
        whole = [f"{domain}.{parts[0]}" if choices is not DOMAINS else f"{parts[0]}.…"]
    return f"did you mean {{@{whole[0]}}}?"
