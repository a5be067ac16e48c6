"""The order flow as durable functions: what `orders.yaml` says, as code; by the same catalogue, and with the same outcomes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from hotmesh.demo.handlers import (
    IN_STOCK,
    PRICES,
    REVIEW_FROM,
    CarrierBusyError,
    InvalidOrderError,
)
from hotmesh.durable import RetryPolicy, activity, errors, workflow

QUEUE: Final = "orders"


@dataclass
class World:
    """What the steps of this process find outside."""

    pause: float = 0.0
    """Seconds that each step waits for somebody else's answer."""


world: Final = World()


@dataclass(frozen=True, slots=True)
class Order:
    """A line of the file of orders, under its id."""

    id: str
    run: str
    order: int
    customer: str
    sku: str
    quantity: int
    card: str


@activity.step(retry=RetryPolicy(non_retryable_errors=[InvalidOrderError]))
async def validate(order: Order) -> float:
    """Price the order; raises InvalidOrderError for an unknown article or a quantity that makes no sense."""
    await asyncio.sleep(world.pause)
    if order.sku not in PRICES:
        raise InvalidOrderError(f"there is no article {order.sku}")
    if order.quantity < 1:
        raise InvalidOrderError(f"{order.quantity} pieces of {order.sku} cannot be ordered")
    return round(PRICES[order.sku] * order.quantity, 2)


@activity.step
async def reserve(order: Order) -> str | None:
    """Set stock aside; None: there is not enough."""
    await asyncio.sleep(world.pause)
    return f"r-{_short(order)}" if order.quantity <= IN_STOCK.get(order.sku, 5) else None


@activity.step
async def charge(order: Order) -> str | None:
    """Charge the card; None: it was declined."""
    await asyncio.sleep(world.pause)
    # `activity.get_context().idempotency_key` is the same whenever this step is run: it keeps a card from being charged twice.
    return None if order.card.endswith("declined") else f"p-{_short(order)}"


@activity.step(retry=RetryPolicy(initial_interval="0.01s"))
async def ship(order: Order) -> str:
    """Book the parcel; every hundredth time the carrier is busy at first."""
    await asyncio.sleep(world.pause)
    if order.id.endswith("77") and activity.get_context().attempt == 1:
        raise CarrierBusyError("the carrier is busy")
    return f"t-{_short(order)}"


@activity.step
async def refund(receipt: str) -> None:
    """Give the money back."""
    await asyncio.sleep(world.pause)


@activity.step
async def release(reservation: str) -> None:
    """Put the stock back."""
    await asyncio.sleep(world.pause)


@activity.step
async def notify(customer: str, outcome: str) -> None:
    """Tell the customer."""
    await asyncio.sleep(world.pause)


@workflow.defn(name="order.placed", task_queue=QUEUE, retention="1 day")
async def place(order: Order) -> dict[str, Any]:
    """An order, from its arrival to the parcel."""
    try:
        total = await validate(order)
    except errors.ActivityError as error:
        if error.type != InvalidOrderError.__name__:
            raise
        await notify(order.customer, "invalid")
        return {"outcome": "invalid"}

    reservation, receipt = await asyncio.gather(reserve(order), charge(order))
    refused = "card declined" if receipt is None else "out of stock" if reservation is None else None
    reviewed = refused is None and total >= REVIEW_FROM
    if reviewed and not await workflow.condition(reviewed_by(order.id), "1 hour"):
        refused = "refused in review"
    if refused is None:
        return {"outcome": "shipped", "reviewed": reviewed, "tracking": await ship(order)}

    if receipt is not None:
        await refund(receipt)
    if reservation is not None:
        await release(reservation)
    await notify(order.customer, refused)
    return {"outcome": refused, "reviewed": reviewed}


def reviewed_by(order_id: str) -> str:
    """The signal by which a person says yes or no to an order."""
    return f"review of {order_id}"


def _short(order: Order) -> str:
    return order.id.rpartition("-")[2]
