"""The orders of the demo, and what has to become of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from hotmesh.demo.handlers import IN_STOCK, PRICES, REFUSED_FROM, REVIEW_FROM

APP_ID = "hotmesh-demo"

Order = dict[str, Any]


def flow() -> str:
    """The YAML of the flow."""
    return Path(__file__).with_name("orders.yaml").read_text(encoding="utf-8")


def orders(count: int, run: str) -> list[Order]:
    """The first `count` orders of the file, which starts again when it ends, under ids that belong to this run."""
    lines = Path(__file__).with_name("orders.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in islice(cycle(lines), count)]
    return [{"id": f"{run}-{number:04d}", "run": run, **order} for number, order in enumerate(found, start=1)]


def expected(placed: Iterable[Order]) -> Counter[str]:
    """How many orders must end how, worked out from the orders alone: neither flow nor callbacks are asked."""
    return Counter(_expected(order) for order in placed)


def outcome(data: Order) -> str:
    """How an order ended, from the data of its job."""
    found = str(data.get("outcome", "none"))
    return "shipped after review" if found == "shipped" and data.get("reviewed") else found


def _expected(order: Order) -> str:
    sku, quantity = order["sku"], order["quantity"]
    if sku not in PRICES or quantity < 1:
        return "invalid"
    if order["card"].endswith("declined"):
        return "card declined"
    if quantity > IN_STOCK.get(sku, 5):
        return "out of stock"
    total = PRICES[sku] * quantity
    if total >= REFUSED_FROM:
        return "refused in review"
    return "shipped after review" if total >= REVIEW_FROM else "shipped"
