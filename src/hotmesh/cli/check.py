"""`hotmesh check`: what is wrong with graph files, with the place of each problem."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from hotmesh.errors import Problem
from hotmesh.observe.explain.text import plural
from hotmesh.runtime.definitions.graph_files import inspect
from hotmesh.schema import graph_schema_text


@click.command()
@click.argument("files", nargs=-1, metavar="FILE…", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of graph files, for editors, and exit.")
@click.pass_context
def check(context: click.Context, files: tuple[Path, ...], as_json: bool, schema: bool) -> None:
    """Check graph files as a deploy would, without a database.

    Prints every problem as file:line:column. Exits with 1 if a file has errors; warnings are only shown.
    """
    if schema:
        click.echo(graph_schema_text(), nl=False)
        return
    if not files:
        raise click.UsageError("name at least one FILE, or use --schema", ctx=context)
    # A file may be referred to by several others; what is wrong with it is said once.
    problems = tuple(dict.fromkeys(problem for file in files for problem in inspect(file).problems))
    errors = sum(problem.severity == "error" for problem in problems)
    if as_json:
        click.echo(
            json.dumps({"ok": not errors, "problems": [asdict(problem) for problem in problems]}, indent=2)
        )
    else:
        for problem in problems:
            click.echo(_line(problem))
        click.echo(_summary(len(files), errors, len(problems) - errors), err=bool(errors))
    context.exit(1 if errors else 0)


def _line(problem: Problem) -> str:
    place = problem.file or "<text>"
    if problem.line is not None:
        place += f":{problem.line}:{problem.column}"
    word = click.style(problem.severity, fg="red" if problem.severity == "error" else "yellow")
    hint = click.style(f" ({problem.suggestion})", dim=True) if problem.suggestion else ""
    return f"{place}: {word} {problem.rule}: {problem.message}{hint}"


def _summary(files: int, errors: int, warnings: int) -> str:
    return f"{plural(files, 'file')}: {plural(errors, 'error')}, {plural(warnings, 'warning')}"
