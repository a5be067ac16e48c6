"""What code of users does to a mesh in the hostile part of the soak: one act each time, drawn at random."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from random import Random
from typing import Any

import anyio
import anyio.from_thread

from hotmesh import HotMesh, Response

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


class Odd(Exception):
    """One of which nothing can be asked."""

    @property
    def code(self) -> int:
        raise SystemExit("code")

    def __str__(self) -> str:
        raise asyncio.CancelledError

    __repr__ = __str__


class OddBase(BaseException):
    """Likewise, and no Exception."""

    def __str__(self) -> str:
        raise KeyboardInterrupt

    __repr__ = __str__


@dataclass
class World:
    """What hostile code can reach."""

    random: Random
    loop: asyncio.AbstractEventLoop
    meshes: list[HotMesh] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)
    """Messages that were kept after their calls, the last ones."""
    did: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    quiet: bool = False
    """From now on, nothing hostile is done any more."""

    def complain(self, text: str) -> None:
        if len(self.problems) < 20:
            self.problems.append(text)

    def count(self, act: Callable[..., Any]) -> None:
        self.did[act.__name__] = self.did.get(act.__name__, 0) + 1

    def mesh(self) -> HotMesh:
        return self.random.choice(self.meshes)

    def error(self) -> BaseException:
        """Anything that can be raised."""
        return self.random.choice(ERRORS)()

    def keep(self, message: Any) -> None:
        self.kept.append(message)
        del self.kept[:-50]


def _with_cause() -> BaseException:
    error = ValueError("outer")
    error.__cause__ = Odd()
    error.__context__ = error
    return error


ERRORS: tuple[Callable[[], BaseException], ...] = (
    lambda: ValueError("half \ud800, a NUL \0, and 100 %s"),
    lambda: RuntimeError("x" * 2_000_000),
    lambda: BaseException("of all"),
    lambda: SystemExit(3),
    lambda: SystemExit(Odd()),
    KeyboardInterrupt,
    GeneratorExit,
    asyncio.CancelledError,
    StopIteration,
    StopAsyncIteration,
    RecursionError,
    MemoryError,
    TimeoutError,
    ConnectionResetError,
    Odd,
    OddBase,
    _with_cause,
    lambda: ExceptionGroup("group", [ValueError("in"), Odd()]),
    lambda: BaseExceptionGroup("group", [SystemExit(1), asyncio.CancelledError(), OddBase()]),
)


# -- what any function may do --------------------------------------------------------------------------------


def raises(world: World, message: Any) -> None:
    raise world.error()


def changes_all_it_can_reach(world: World, message: Any) -> None:
    ruin(message)


def ruin(found: Any, depth: int = 0) -> None:
    """Change whatever can be reached from an object, in place."""
    if depth > 6:
        return
    if isinstance(found, dict):
        for value in list(found.values()):
            ruin(value, depth + 1)
        for key in list(found):
            found[key] = "ruined"
        found["x"] = "ruined"
    elif isinstance(found, list):
        for value in found:
            ruin(value, depth + 1)
        found.append("ruined")
        found.reverse()
    else:
        for name in ("data", "metadata"):
            if hasattr(found, name):
                ruin(getattr(found, name), depth + 1)


def ruins_what_it_has_kept(world: World, message: Any) -> None:
    for kept in world.kept:
        ruin(kept)
    world.keep(message)


def leaves_a_tenant_set(world: World, message: Any) -> None:
    tenant.set("of another")


def calls_a_mesh_from_another_loop(world: World, message: Any) -> None:
    mesh = world.mesh()

    def call() -> None:
        with contextlib.suppress(Exception):
            asyncio.run(world.random.choice((_publishes, _subscribes, _stops))(mesh))

    threading.Thread(target=call, daemon=True).start()


async def _publishes(mesh: HotMesh) -> None:
    await mesh.pub("evil", {"x": 1})


async def _subscribes(mesh: HotMesh) -> None:
    await mesh.sub("honest.done", lambda *_: None)


async def _stops(mesh: HotMesh) -> None:
    await mesh.stop()


def logs_what_cannot_be_written(world: World, message: Any) -> None:
    logging.getLogger("hotmesh.worker").error("%s", Odd(), extra={"job_id": Odd()}, exc_info=Odd())


RESULTS: tuple[Callable[[World, Any], Any], ...] = (
    lambda world, message: {"y": "x" * 2_000_000},
    lambda world, message: {"y": "x" * 200_000},
    lambda world, message: _cyclic(),
    lambda world, message: _deep(),
    lambda world, message: {"y": float("nan")},
    lambda world, message: {1: "a", "1": "b"},
    lambda world, message: {(1, 2): 3, None: 4},
    lambda world, message: {"half \ud800": "\0"},
    lambda world, message: {"y": object()},
    lambda world, message: {"y": Model(world.error())},
    lambda world, message: Model(world.error()),
    lambda world, message: OddDict(y=1),
    lambda world, message: [1, 2],
    lambda world, message: Model,
    lambda world, message: (number for number in range(3)),
    lambda world, message: message,
    lambda world, message: {"metadata": message.metadata, "status": "no such", "data": message},
    lambda world, message: Response({"y": world}, status="error", code=2_147_483_647, stack="\ud800" * 9),
    lambda world, message: _odd_response(),
    lambda world, message: {"y": message.data},
)


class Model:
    """One whose conversion raises."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def model_dump(self, *, mode: str) -> Any:
        raise self._error

    __str__ = __repr__ = Odd.__str__


class OddDict(dict[str, Any]):
    """One that raises when it is looked at."""

    def get(self, *_: Any) -> Any:
        raise SystemExit("get")

    items = values = keys = get


def _cyclic() -> dict[str, Any]:
    found: dict[str, Any] = {}
    found["y"] = [found]
    return found


def _deep() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(50_000):
        found = {"y": found}
    return found


def _odd_response() -> Response:
    found = Response({"y": 1})
    found.code, found.status, found.stack = "no code", Odd(), Odd()  # type: ignore[assignment]
    return found


def returns_something_odd(world: World, message: Any) -> Any:
    return world.random.choice(RESULTS)(world, message)


ANYWHERE = (
    raises,
    raises,
    changes_all_it_can_reach,
    ruins_what_it_has_kept,
    leaves_a_tenant_set,
    calls_a_mesh_from_another_loop,
    logs_what_cannot_be_written,
    returns_something_odd,
    returns_something_odd,
)


# -- what a coroutine function may do ------------------------------------------------------------------------


def _current() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def cancels_itself(world: World, message: Any) -> None:
    _current().cancel()
    await asyncio.sleep(0)


async def leaves_itself_cancelled(world: World, message: Any) -> None:
    _current().cancel()


async def leaves_its_cancel_count_raised(world: World, message: Any) -> None:
    for _ in range(3):
        _current().cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)


async def uncancels_more_than_was_cancelled(world: World, message: Any) -> None:
    _current().uncancel()
    _current().uncancel()


async def leaves_a_scope_open(world: World, message: Any) -> None:
    anyio.CancelScope().__enter__().cancel()


async def awaits_what_was_cancelled(world: World, message: Any) -> None:
    future = world.loop.create_future()
    future.cancel()
    await future


async def handles_a_failed_group(world: World, message: Any) -> None:
    async def fails() -> None:
        raise ValueError("one of them")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            await asyncio.sleep(1)
    except* ValueError:
        pass


async def swallows_cancellations(world: World, message: Any) -> None:
    until = time.monotonic() + world.random.uniform(0.1, 2.5)
    while time.monotonic() < until:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.05)


async def takes_too_long(world: World, message: Any) -> None:
    try:
        await asyncio.sleep(world.random.uniform(0.2, 3))
    finally:
        await asyncio.sleep(world.random.uniform(0, 0.2))
        if world.random.random() < 0.5:
            raise world.error()


async def blocks_the_loop(world: World, message: Any) -> None:
    time.sleep(world.random.uniform(0.01, 0.25))  # noqa: ASYNC251 - that is the act


async def leaves_tasks_behind(world: World, message: Any) -> None:
    async def goes_on() -> None:
        await asyncio.sleep(world.random.uniform(0, 0.5))
        ruin(message)
        if world.random.random() < 0.5:
            raise ValueError("later")

    for _ in range(3):
        task = asyncio.ensure_future(goes_on())
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        world.keep(task)


async def leaves_a_generator_half_done(world: World, message: Any) -> None:
    async def numbers() -> Any:
        try:
            for number in range(10):
                yield number
        finally:
            ruin(message)

    async for _ in numbers():
        break


async def asks_a_mesh_for_something(world: World, message: Any) -> None:
    async with asyncio.timeout(0.5):
        await world.mesh().pubsub("child", {"x": 1}, timeout=0.3)


ON_THE_LOOP: tuple[Callable[[World, Any], Awaitable[Any]], ...] = (
    cancels_itself,
    leaves_itself_cancelled,
    leaves_its_cancel_count_raised,
    uncancels_more_than_was_cancelled,
    leaves_a_scope_open,
    awaits_what_was_cancelled,
    handles_a_failed_group,
    swallows_cancellations,
    takes_too_long,
    blocks_the_loop,
    leaves_tasks_behind,
    leaves_a_generator_half_done,
    asks_a_mesh_for_something,
)


# -- what a plain function may do ----------------------------------------------------------------------------


def sleeps(world: World, message: Any) -> None:
    time.sleep(world.random.uniform(0.01, 2))


def asks_the_loop(world: World, message: Any) -> None:
    anyio.from_thread.run(world.mesh().pub, "child", {"x": 1})


def looks_whether_it_was_cut_off(world: World, message: Any) -> None:
    for _ in range(100):
        anyio.from_thread.check_cancelled()
        time.sleep(0.02)


def starts_threads(world: World, message: Any) -> None:
    for _ in range(3):
        threading.Thread(target=ruin, args=(message,), daemon=True).start()


IN_A_THREAD = (sleeps, asks_the_loop, looks_whether_it_was_cut_off, starts_threads)


# -- who does it ---------------------------------------------------------------------------------------------


def on_the_loop(world: World) -> Callable[..., Awaitable[Any]]:
    """A coroutine function of any kind: worker, subscriber, listener to the mesh, event sink."""

    async def callback(*arguments: Any) -> Any:
        _look(world)
        if world.quiet:
            return None
        act: Any = world.random.choice((*ANYWHERE, *ON_THE_LOOP))
        world.count(act)
        found = act(world, arguments[-1])
        return await found if act in ON_THE_LOOP else found

    return callback


def in_a_thread(world: World) -> Callable[..., Any]:
    """Likewise, a plain function."""

    def callback(*arguments: Any) -> Any:
        _look(world)
        if world.quiet:
            return None
        act: Any = world.random.choice((*ANYWHERE, *IN_A_THREAD))
        world.count(act)
        return act(world, arguments[-1])

    return callback


def _look(world: World) -> None:
    if tenant.get() != "nobody":
        world.complain("a callback saw what another has set in its context")


class HostileHandler(logging.Handler):
    """Raises or blocks now and then instead of writing; and keeps the last records for the report."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self.last: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.last.append(f"{record.levelname} {record.name} {record.getMessage()[:300]}")
        del self.last[:-100]
        if self._world.quiet:
            return
        chance = self._world.random.random()
        if chance < 0.05:
            time.sleep(0.02)
        elif chance < 0.3:
            self._world.count(self.emit)
            raise self._world.error()
