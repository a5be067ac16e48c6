"""The callbacks of the order flow: ordinary functions that know nothing of each other.

What they refuse follows from the order alone, so that the outcome of every order can be told beforehand. An answer
may carry a code (`Response`), and so may an exception (`InvalidOrderError`, `CarrierBusyError`); the transitions decide by it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from hotmesh import Response, StreamData, Worker

PRICES = {
    "bulb-e27": 4.50,
    "candle-set": 12.00,
    "mug-stone": 9.90,
    "lamp-desk": 59.00,
    "shelf-pine": 129.00,
    "chair-oak": 189.00,
    "desk-oak": 740.00,
    "sofa-linen": 1_690.00,
}
"""The catalogue: what one piece costs."""

IN_STOCK = {
    "bulb-e27": 40,
    "candle-set": 30,
    "mug-stone": 30,
    "lamp-desk": 12,
    "shelf-pine": 8,
    "desk-oak": 6,
}
"""The most that one order can have of an article; 5 of those that are not listed."""

REVIEW_FROM = 2_500.00
"""Orders of at least this total are looked at by a person…"""

REFUSED_FROM = 7_500.00
"""…who refuses the largest."""


class InvalidOrderError(Exception):
    """The order cannot be filled as it was given. `code` selects the transition."""

    code = 422


class CarrierBusyError(Exception):
    """The carrier has no time now; `ship` is tried again by its retry policy."""

    code = 503


async def validate(message: StreamData) -> dict[str, Any]:
    """Price the order; raises InvalidOrderError for an unknown article or a quantity that makes no sense."""
    sku, quantity = message.data["sku"], message.data["quantity"]
    if sku not in PRICES:
        raise InvalidOrderError(f"there is no article {sku}")
    if quantity < 1:
        raise InvalidOrderError(f"{quantity} pieces of {sku} cannot be ordered")
    total = round(PRICES[sku] * quantity, 2)
    return {"total": total, "big": total >= REVIEW_FROM}


async def reserve(message: StreamData) -> Response:
    """Set stock aside. 409: there is not enough."""
    sku, quantity = message.data["sku"], message.data["quantity"]
    if quantity > IN_STOCK.get(sku, 5):
        return Response({"reserved": False, "reason": "out of stock"}, code=409)
    return Response({"reserved": True, "reservation": f"r-{_short(message)}"})


async def charge(message: StreamData) -> Response:
    """Charge the card. 402: it was declined."""
    if message.data["card"].endswith("declined"):
        return Response({"paid": False, "reason": "card declined"}, code=402)
    # `metadata.guid` is the same whenever this request is delivered: the key that keeps a card from being charged twice.
    return Response({"paid": True, "receipt": f"p-{_short(message)}"})


async def ship(message: StreamData) -> dict[str, Any]:
    """Book the parcel; every hundredth time the carrier is busy at first."""
    if message.data["id"].endswith("77") and "try" not in message.metadata:
        raise CarrierBusyError("the carrier is busy")
    return {"tracking": f"t-{_short(message)}"}


async def refund(message: StreamData) -> dict[str, Any]:
    """Give the money back."""
    return {"refunded": message.data["receipt"]}


async def release(message: StreamData) -> dict[str, Any]:
    """Put the stock back."""
    return {"released": message.data["reservation"]}


async def notify(message: StreamData) -> dict[str, Any]:
    """Tell the customer."""
    return {"told": message.data["customer"]}


def verdict(total: float) -> dict[str, Any]:
    """What the person at the review desk says to an order of this total."""
    if total < REFUSED_FROM:
        return {"approved": True}
    return {"approved": False, "reason": "refused in review"}


def workers(review: Callable[[StreamData], Awaitable[None]]) -> list[Worker]:
    """The callbacks bound to the topics of `orders.yaml`; `review` passes an order on to the desk."""
    return [
        Worker("order.validate", validate),
        Worker("stock.reserve", reserve),
        Worker("card.charge", charge),
        Worker("order.review", review),
        Worker("order.ship", ship),
        Worker("card.refund", refund),
        Worker("stock.release", release),
        Worker("customer.notify", notify),
    ]


def _short(message: StreamData) -> str:
    return str(message.metadata["jid"]).rpartition("-")[2]
