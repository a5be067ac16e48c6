"""What the commands that use a database share: their options, and how they fail."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import click

from hotmesh.core.arguments import given_as, unusable_name
from hotmesh.errors import HotMeshError

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

connection_option = click.option(
    "--connection",
    metavar="URL",
    callback=lambda _context, _option, value: _given(value),
    help="The database, as postgresql://…; by default HOTMESH_DATABASE_URL, else the variables of libpq (PGHOST …), "
    "else the embedded Postgres.",
)
namespace_option = click.option(
    "--namespace",
    default="hotmesh",
    show_default=True,
    callback=lambda _context, _option, value: _checked(value),
    help="The Postgres schema with the tables.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def run(function: Callable[..., Coroutine[Any, Any, T]], *arguments: object) -> T:
    """Run a coroutine function to its end; what cannot be done is one message on stderr and exit code 1."""
    with reported():
        return anyio.run(function, *arguments)


def listing() -> Console:
    """Where lists are printed: as wide as the terminal, and as wide as they are where there is none, as in a pipe."""
    from rich.console import Console

    return Console() if narrow() else Console(width=WIDEST)


def narrow() -> bool:
    """Whether what is printed has to fit into the width of something."""
    return sys.stdout.isatty() or "COLUMNS" in os.environ


WIDEST: Final = 10_000
"""Characters of a line that no column is shortened for."""


@contextmanager
def reported() -> Iterator[None]:
    """Turn our errors, alone or in groups, into messages without a traceback."""
    try:
        yield
    except HotMeshError as error:
        raise click.ClickException(str(error)) from error
    except BaseExceptionGroup as group:
        ours = group.subgroup(HotMeshError)
        if ours is None:
            raise
        raise click.ClickException(str(_first(ours))) from group


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _given(url: str | None) -> str | None:
    """The URL, of which errors say that it was given as this option."""
    return None if url is None else given_as(url, "--connection")


def _checked(name: str) -> str:
    why = unusable_name("namespace", name)
    if why is not None:
        raise click.BadParameter(why)
    return name
