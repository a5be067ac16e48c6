"""Lets a test step between a mesh and what speaks to its database."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any
from weakref import WeakKeyDictionary

import pytest

from hotmesh import HotMesh
from hotmesh.errors import ConnectionLostError
from hotmesh.postgres import commits
from hotmesh.postgres.database import Database
from hotmesh.postgres.work import WorkQueue

Call = Callable[..., Any]


def database_of(mesh: HotMesh) -> Database:
    """The handle that a mesh reaches its database by."""
    return mesh._member.database


def work_of(mesh: HotMesh) -> WorkQueue:
    """The queue that its workers take work from."""
    return mesh._member.work


_replaced: dict[Call, tuple[Call, WeakKeyDictionary[Database, Call]]] = {}
"""What stands in the place of a function → that function, and what is called for which database instead."""


def intercept(database: Database, function: Call, replacement: Call | None) -> Call:
    """From now on, `function` (such as `commits.commit`) is for this database `replacement`; None: itself again.

    A replacement gets the arguments without the database. Returns the function itself, for this database.
    """
    if function not in _replaced:
        function = _replace(function)
    honest, by_database = _replaced[function]
    if replacement is None:
        by_database.pop(database, None)
    else:
        by_database[database] = replacement
    return partial(honest, database)


def _replace(function: Call) -> Call:
    by_database: WeakKeyDictionary[Database, Call] = WeakKeyDictionary()

    @wraps(function)
    async def dispatch(database: Database, *arguments: Any, **options: Any) -> Any:
        replacement = by_database.get(database)
        if replacement is None:
            return await function(database, *arguments, **options)
        return await replacement(*arguments, **options)

    setattr(sys.modules[function.__module__], function.__name__, dispatch)
    _replaced[dispatch] = function, by_database
    return dispatch


def losing(
    honest: Callable[..., Awaitable[Any]], *, when: Callable[[Any], bool]
) -> tuple[Callable[..., Awaitable[Any]], asyncio.Event]:
    """The call, but that its first answer like this gets lost; and what is set once it was."""
    lost = asyncio.Event()

    async def answer(*arguments: Any, **options: Any) -> Any:
        found = await honest(*arguments, **options)
        if lost.is_set() or not when(found):
            return found
        lost.set()
        raise ConnectionLostError("the answer was lost")

    return answer, lost


def lose_one(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> asyncio.Event:
    """Let the first answer of a method that says something get lost, for whoever calls it; set once it was."""
    answer, lost = losing(getattr(owner, name), when=bool)
    monkeypatch.setattr(owner, name, answer)
    return lost


class Turnstile:
    """Holds back the commits of an engine, and counts them: all, and those that are on their way."""

    def __init__(self, mesh: HotMesh) -> None:
        self.all = self.waiting = self.most = 0
        self.open = asyncio.Event()
        self._honest = intercept(database_of(mesh), commits.commit, self._commit)

    async def _commit(self, *arguments: Any, **options: Any) -> Any:
        self.all += 1
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            await self.open.wait()
            return await self._honest(*arguments, **options)
        finally:
            self.waiting -= 1
