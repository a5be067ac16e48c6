import asyncio
from pathlib import Path

from hotmesh import HotMesh, Response, Worker


async def reserve(message):
    return {"shelf": f"shelf of {message.data['sku']}"}


async def charge(message):
    if message.data["amount"] > 500:
        return Response({"paid": False, "reason": "over the card's limit"}, code=402)
    return {"paid": True}


def ship(message):  # a plain function runs in a thread
    return {"tracking": f"parcel from {message.data['shelf']}"}


async def main():
    workers = [Worker("stock.reserve", reserve), Worker("card.charge", charge), Worker("order.ship", ship)]
    async with HotMesh.init("shop", workers=workers) as mesh:
        await mesh.deploy(Path(__file__).with_name("order.yaml"))
        await mesh.activate("1")
        for order in {"sku": "lamp", "amount": 59}, {"sku": "sofa", "amount": 1690}:
            result = await mesh.pubsub("order.placed", order, timeout=10)
            print(result.data)


asyncio.run(main())
