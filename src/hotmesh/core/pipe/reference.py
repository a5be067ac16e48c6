"""The reference of all functions, from their docstrings: `python -m hotmesh.core.pipe.reference > docs/functions.md`."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from hotmesh.core.pipe.environment import Environment
from hotmesh.core.pipe.function import VARIADIC, Function
from hotmesh.core.pipe.instant import of_datetime
from hotmesh.core.pipe.table import DOMAINS, FUNCTIONS
from hotmesh.core.values import UNDEFINED

FROZEN: Final = Environment(
    now=lambda: float(of_datetime(datetime(2024, 2, 29, 12, 34, 56, 789_000, UTC)).milliseconds or 0),
    random=lambda: 0.5,
)
"""The world in which the examples hold: 2024-02-29T12:34:56.789Z, UTC, and a random number of 0.5."""

SUBJECTS: Final[Mapping[str, str]] = {
    "array": "Arrays. No function changes its argument: those that add, remove or reorder return a new array.",
    "bitwise": "The 32 bits of whole numbers.",
    "conditional": "Comparing and choosing. Both branches are evaluated before.",
    "cron": "Cron expressions, in UTC.",
    "date": (
        "Dates. A date is a date value, a number of ms after 1970, or ISO text; months count from 0, weekdays from "
        "Sunday = 0. Local time is that of the process."
    ),
    "json": "JSON text.",
    "logical": "Choosing one of two operands by its truth.",
    "math": "Numbers. Operands are converted; a number out of a function's domain gives NaN, never an error.",
    "number": "Testing, parsing and writing numbers.",
    "object": "Objects, and the members of arrays and text. No function changes its argument.",
    "string": "Text, which is a sequence of UTF-16 units. Other values are refused, except by concat.",
    "symbol": "Values that cannot be written as a literal. Arguments are ignored.",
    "unary": "Negation and conversion to a number.",
}

_EXAMPLE: Final = re.compile(r"Example: \((?P<arguments>.*)\) → (?P<result>.*)")
_TOKENS: Final = re.compile(r'"(?:[^"\\]|\\.)*"|\bundefined\b')
_UNDEFINED: Final = "\x00undefined"


@dataclass(frozen=True, slots=True)
class Example:
    """A call and what it gives; a date result is its ISO text after the word `Date`."""

    arguments: list[Any]
    result: Any
    text: str


def examples(function: Function) -> list[Example]:
    """The examples of a function's docstring, in order."""
    found = _EXAMPLE.finditer(inspect.getdoc(function.call) or "")
    return [
        Example(
            _read(f"[{match['arguments']}]"),
            _result(match["result"].strip()),
            match[0].removeprefix("Example: "),
        )
        for match in found
    ]


def write_reference() -> str:
    """The whole reference as Markdown."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield "# Functions of the mapping language"
    yield ""
    yield f"There are {len(FUNCTIONS)} functions. A row calls one with the values of the row before it:"
    yield ""
    yield "```yaml"
    yield '"@pipe":'
    yield '  - ["orchid", 2]'
    yield '  - ["{@string.charAt}"]      # "c"'
    yield "```"
    yield ""
    yield (
        'An example below, such as `("orchid", 2) → "c"`, is that pipe: the arguments stand in the row before. A '
        "name in brackets may be left out, `…` stands for any number. Arguments past those listed are ignored. "
        f"Examples hold on {FROZEN_TEXT}. [The language itself](mapping.md) explains rows, paths and conversions."
    )
    yield ""
    yield " · ".join(f"[{domain}](#{domain})" for domain in DOMAINS)
    for domain, functions in DOMAINS.items():
        yield ""
        yield f"## {domain}"
        yield ""
        yield SUBJECTS[domain]
        for name in functions:
            yield from _entry(FUNCTIONS[f"{domain}.{name}"])
    yield ""


FROZEN_TEXT: Final = "2024-02-29T12:34:56.789Z in UTC"


def _entry(function: Function) -> Iterator[str]:
    yield ""
    yield f"### `{{@{function.name}}}` {_signature(function)}"
    yield ""
    document = _EXAMPLE.sub("", inspect.getdoc(function.call) or "").strip()
    yield document
    yield ""
    for example in examples(function):
        yield f"- `{example.text}`"


def _signature(function: Function) -> str:
    names: list[str] = []
    for index, parameter in enumerate(inspect.signature(function.call).parameters.values()):
        if index == 0 and function.impure:
            continue
        name = parameter.name.rstrip("_").replace("_", " ")
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            names.append(f"…{name}")
        else:
            names.append(name if parameter.default is inspect.Parameter.empty else f"[{name}]")
    return f"({', '.join(names)})" if names or function.most == VARIADIC else "()"


def _read(text: str) -> Any:
    quoted = _TOKENS.sub(lambda found: json.dumps(_UNDEFINED) if found[0] == "undefined" else found[0], text)
    return _with_undefined(json.loads(quoted))


def _with_undefined(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_undefined(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_undefined(member) for key, member in value.items()}
    return UNDEFINED if value == _UNDEFINED else value


def _result(text: str) -> Any:
    return text if text.startswith("Date ") else _read(text)


if __name__ == "__main__":
    sys.stdout.write(write_reference())
