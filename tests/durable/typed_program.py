"""What type checkers see of durable functions; `test_typing.py` runs them over it.

A line that must be an error ends with `# error`; the type that is revealed stands behind `# type`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import reveal_type

from hotmesh.durable import Client, Worker, activity, workflow


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
    reveal_type(await workflow.step(charge, order_id, retry={"maximum_attempts": 3}))  # type Decimal
    reveal_type(await workflow.step(reserve, order_id))  # type str
    await workflow.step(charge, order_id, retries=3)  # error
    await workflow.step(charge, order_id, start_to_close_timeout=[])  # error
    return await reserve(order_id)


@workflow.defn
class Basket:
    @workflow.run
    async def run(self, owner: str) -> int:
        return len(owner)

    @workflow.signal(name="put")
    async def add(self, sku: str) -> None: ...


async def main(client: Client) -> None:
    reveal_type(charge("o-1"))  # type Decimal
    reveal_type(await (await client.start_workflow(order, "o-1", 2, id="a")).result())  # type str
    reveal_type(await (await client.start_workflow(order, "o-1")).result(timeout="5s"))  # type str
    reveal_type(await client.execute_workflow(order, "o-1", retention="7 days"))  # type str
    reveal_type(await client.execute_workflow(Basket, "ann"))  # type int
    reveal_type(await client.execute_workflow("far", 1, 2))  # type Any
    reveal_type(await client.get_workflow_handle("a").result())  # type Any
    reveal_type(await client.get_workflow_handle("a", result_type=Decimal).result())  # type Decimal
    reveal_type((await client.get_workflow_handle("a").describe()).parked is None)  # type bool
    reveal_type(await Basket().run("ann"))  # type int
    charge(5)  # error
    await client.start_workflow(order, 5)  # error
    await client.start_workflow(order, "o-1", idd="a")  # error
    await client.start_workflow(order, "o-1", id_conflict_policy="use")  # error
    await client.start_workflow(order, "o-1", memo="a")  # error
    await client.start_workflow(order("o-1"))  # error
    await client.execute_workflow(order, "o-1", retention=[])  # error
    await (await client.start_workflow(order, "o-1")).result(time_out=5)  # error
    await Client.connect(name_space="shop")  # error
    await Client.connect(lease="5s", log_level=None, retry={"maximum_attempts": 3})
    Client("postgresql://…", settings=5)  # error


async def serve() -> None:
    Worker(workflows=[order])  # error
    Worker(task_queue="orders", workflow=[order])  # error
    Worker(task_queue="orders", workflows=[order, Basket], max_concurency=5)  # error
    await Worker.create("postgresql://…", task_queue="orders", workflows=[order], graceful=5)  # error
    async with Worker(
        task_queue="orders", workflows=[order, Basket], activities=[charge], lease="5s"
    ) as worker:
        reveal_type(worker.task_queue)  # type str


@activity.defn(start_to_close="5s")  # error
async def misspelt() -> None: ...


@activity.step  # error
def blocking() -> None: ...


@workflow.defn  # error
def no_coroutine() -> int:
    return 1
