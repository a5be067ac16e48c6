"""What type checkers see of durable functions; `test_typing.py` runs them over it.

A line that must be an error ends with `# error`; the type that is revealed stands behind `# type`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any, Generic, TypeVar, Unpack, overload, reveal_type

from hotmesh.durable import activity, workflow
from hotmesh.durable.typed import StartKeywords, Ts, WorkflowClass

R = TypeVar("R")


class Handle(Generic[R]):
    async def result(self) -> R:
        raise NotImplementedError


@overload
def start(
    function: Callable[[Unpack[Ts]], Coroutine[Any, Any, R]],
    /,
    *args: *Ts,
    **options: Unpack[StartKeywords],
) -> Handle[R]: ...
@overload
def start(function: type[WorkflowClass[R]], /, *args: Any, **options: Unpack[StartKeywords]) -> Handle[R]: ...
@overload
def start(function: str, /, *args: Any, **options: Unpack[StartKeywords]) -> Handle[Any]: ...
def start(function: Any, /, *args: Any, **options: Any) -> Any:  # type: ignore[misc]
    raise NotImplementedError


@activity.step
async def reserve(sku: str, count: int = 1) -> str:
    return sku * count


@activity.step(start_to_close_timeout="5s", retry={"maximum_attempts": 3})
async def refund(amount: Decimal) -> bool:
    return amount > 0


@activity.defn(task_queue="payments")
def charge(order_id: str) -> Decimal:
    return Decimal(len(order_id))


@workflow.defn(task_queue="orders")
async def order(order_id: str, count: int = 1) -> str:
    reveal_type(await reserve(order_id, count))  # type str
    reveal_type(await refund(Decimal(1)))  # type bool
    await reserve(5)  # error
    await reserve("a", cnt=1)  # error
    await refund("1")  # error
    return await reserve(order_id)


@workflow.defn
class Basket:
    @workflow.run
    async def run(self, owner: str) -> int:
        return len(owner)

    @workflow.signal(name="put")
    async def add(self, sku: str) -> None: ...


async def main() -> None:
    reveal_type(charge("o-1"))  # type Decimal
    reveal_type(await start(order, "o-1", 2, id="a").result())  # type str
    reveal_type(await start(order, "o-1").result())  # type str
    reveal_type(await start(Basket, "ann").result())  # type int
    reveal_type(await start("far", 1, 2).result())  # type Any
    reveal_type(await Basket().run("ann"))  # type int
    charge(5)  # error
    start(order, 5)  # error
    start(order, "o-1", idd="a")  # error
    start(order, "o-1", id_conflict_policy="use")  # error


@activity.defn(start_to_close="5s")  # error
async def misspelt() -> None: ...


@activity.step  # error
def blocking() -> None: ...


@workflow.defn  # error
def no_coroutine() -> int:
    return 1
