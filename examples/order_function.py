import asyncio

from hotmesh.durable import Client, Worker, activity, workflow


@activity.step
async def reserve(sku: str) -> str:
    return f"shelf of {sku}"


@activity.step
async def charge(amount: int) -> bool:
    return amount <= 500


def ship(shelf: str) -> str:  # a plain function runs in a thread
    return f"parcel from {shelf}"


@workflow.defn(task_queue="orders")
async def order(sku: str, amount: int) -> dict[str, str]:
    shelf, paid = await asyncio.gather(reserve(sku), charge(amount))  # in parallel
    if not paid:
        return {"cancelled": "over the card's limit"}
    return {"tracking": await workflow.step(ship, shelf)}


async def main() -> None:
    async with Worker(task_queue="orders", workflows=[order]):
        client = await Client.connect()
        for sku, amount in ("lamp", 59), ("sofa", 1690):
            print(await client.execute_workflow(order, sku, amount))


asyncio.run(main())
