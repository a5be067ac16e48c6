"""The arguments of a schedule are the same at every run, whatever a run does to them."""

from __future__ import annotations

from typing import Any

import pytest

from harness import eventually
from hotmesh import Virtual

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("plain", [False, True], ids=["coroutine", "plain"])
async def test_arguments_do_not_change_from_run_to_run(database_url: str, plain: bool) -> None:
    seen: list[Any] = []

    def take(basket: dict[str, Any]) -> None:
        seen.append({**basket, "items": list(basket["items"])})
        basket["items"].append("one more")
        basket["runs"] = len(seen)

    async def take_later(basket: dict[str, Any]) -> None:
        take(basket)

    try:
        await Virtual.cron(
            "take",
            [{"items": ["first"]}],
            callback=take if plain else take_later,
            id="basket",
            interval=1,
            max_cycles=3,
            connection=database_url,
        )
        await eventually(lambda: len(seen) == 3, within=15)
    finally:
        await Virtual.shutdown()
    assert seen == [{"items": ["first"]}] * 3
