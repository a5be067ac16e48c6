"""`hotmesh eval`: try a mapping or a condition against data before it is deployed."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Final

import click

from hotmesh.core.definition.parse import parse
from hotmesh.core.mapping import to_json_value
from hotmesh.core.values import UNDEFINED
from hotmesh.errors import HotMeshError
from hotmesh.evaluate import evaluate as evaluate_expression
from hotmesh.evaluate import evaluate_condition

FAILED = 2

_MEMBER: Final = re.compile(r""":\s|["']:""")
"""What a mapping in braces has and a statement has not."""


@click.command("eval")
@click.argument("expression")
@click.option(
    "--context", "context_file", metavar="FILE", help="Data that paths read: JSON or YAML; - for stdin."
)
@click.option(
    "--condition", is_flag=True, help="EXPRESSION is the `conditions` of a transition: print true or false."
)
@click.option(
    "--code", type=int, default=200, show_default=True, help="With --condition: the code of the event."
)
@click.option("--tz", metavar="ZONE", help="The local time zone, by default that of this machine.")
def evaluate(expression: str, context_file: str | None, condition: bool, code: int, tz: str | None) -> None:
    """Evaluate a mapping EXPRESSION and print the result as JSON, or `undefined`.

    EXPRESSION is a path, a function, JSON, or YAML; - reads it from stdin, @FILE from a file.

    \b
    hotmesh eval '{t1.output.data.name}' --context data.json
    hotmesh eval '{"@pipe": [["{t1.output.data.list}"], ["{@array.length}"]]}' --context data.yaml
    hotmesh eval --condition --code 422 '{"code": 422}'
    """
    if expression == "-" and context_file == "-":
        raise click.UsageError("only one of the expression and the context can come from stdin")
    try:
        context = {} if context_file is None else _parsed(_text(context_file), context_file)
        if not isinstance(context, dict):
            raise click.UsageError(f"the context must be an object, not {type(context).__name__}")
        source = (
            _text(expression[1:])
            if expression.startswith("@")
            else _text("-")
            if expression == "-"
            else expression
        )
        value = _expression(source)
        if condition:
            click.echo(json.dumps(evaluate_condition(value, context, code, tz=tz)))
            return
        result = evaluate_expression(value, context, tz=tz)
    except HotMeshError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(FAILED)
    click.echo(
        "undefined"
        if result is UNDEFINED
        else json.dumps(to_json_value(result), indent=2, ensure_ascii=False)
    )


def _expression(source: str) -> Any:
    """A whole `{…}` statement is text, though YAML would take it for an object; all else is JSON or YAML."""
    text = source.strip()
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        if text.startswith("{") and text.endswith("}") and not _MEMBER.search(text):
            return text
    return _parsed(text, "the expression")


def _text(name: str) -> str:
    if name == "-":
        return sys.stdin.read()
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"cannot read {name}: {error}") from None


def _parsed(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        pass
    # Read as a deploy would read it.
    document, problems = parse(text)
    if document is None or problems:
        raise click.UsageError(f"{name} is neither JSON nor YAML: {problems[0]}")
    return document.data
