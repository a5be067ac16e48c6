"""`hotmesh demo`."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from click.testing import CliRunner, Result

from hotmesh.cli import demo as command
from hotmesh.cli import demo_report, main
from hotmesh.demo.orders import expected, orders, outcome


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["demo", *arguments])


def fetch(url: str, statement: str) -> list[Any]:
    async def execute() -> list[Any]:
        connection = await asyncpg.connect(url)
        try:
            return list(await connection.fetch(statement))
        finally:
            await connection.close()

    return asyncio.run(execute())


def test_every_order_ends_as_the_file_says(database_url: str) -> None:
    result = run("--orders", "150", "--connection", database_url, "--json")

    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    counts = {name: found["orders"] for name, found in data["outcomes"].items()}
    assert data["accounted_for"] is True
    assert counts == data["stored"] == expected(orders(150, "any"))
    assert set(counts) == {
        "shipped",
        "shipped after review",
        "card declined",
        "out of stock",
        "refused in review",
        "invalid",
    }
    assert data["open"] == 0


def test_it_prints_the_outcomes_and_draws_the_timeline_of_an_order(database_url: str) -> None:
    result = run("--orders", "100", "--connection", database_url)

    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    first = next(line.split() for line in lines if line.strip().startswith("shipped "))
    shipped = expected(orders(100, "any"))["shipped"]
    assert first[:3] == ["shipped", str(shipped), str(shipped)]
    assert "all 100 orders accounted for" in result.stdout
    for activity in ("validate", "reserve", "charge", "settle", "ask_for_review", "review", "ship"):
        assert any(line.strip().startswith(activity) for line in lines), activity


def test_the_printed_sql_shows_the_timeline(database_url: str) -> None:
    data = json.loads(run("--orders", "60", "--connection", database_url, "--json").stdout)

    rows = fetch(database_url, data["sql"])

    assert [row["activity_id"] for row in rows][:1] == ["validate"]
    assert Counter(row["activity_id"] for row in rows) == Counter(
        ["validate", "reserve", "charge", "settle", "ask_for_review", "review", "ship"]
    )
    assert all(row["took"] >= timedelta(0) for row in rows)


def test_earlier_runs_are_removed_unless_they_are_to_be_kept(database_url: str) -> None:
    count = "select count(*) as jobs, count(distinct job_key) as runs from hotmesh.job where app_id = 'hotmesh-demo'"
    run("--orders", "20", "--connection", database_url)
    run("--orders", "20", "--connection", database_url, "--keep")
    assert dict(fetch(database_url, count)[0]) == {"jobs": 40, "runs": 2}

    run("--orders", "20", "--connection", database_url)

    assert dict(fetch(database_url, count)[0]) == {"jobs": 20, "runs": 1}


def test_an_order_that_ends_otherwise_fails_the_command(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "expected", lambda placed: Counter({"shipped": len(list(placed))}))

    result = run("--orders", "60", "--connection", database_url)

    assert result.exit_code == 1
    assert "not all orders are accounted for" in result.stdout


def test_a_database_that_cannot_be_reached_is_one_line_on_stderr() -> None:
    result = run("--orders", "1", "--connection", "postgresql://localhost:1/none")

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: postgres-provider-connection-failed: ")
    assert result.stderr.count("\n") == 1


def test_the_file_has_every_kind_of_order_and_starts_again_when_it_ends() -> None:
    found = orders(2_001, "run")

    assert (found[0]["id"], found[2_000]["id"]) == ("run-0001", "run-2001")
    assert found[0]["sku"] == found[2_000]["sku"]
    assert expected(found[:2_000]) == {
        "shipped": 1_672,
        "shipped after review": 67,
        "card declined": 106,
        "out of stock": 106,
        "refused in review": 18,
        "invalid": 31,
    }


def test_an_order_without_an_outcome_is_not_taken_for_another() -> None:
    assert outcome({}) == "none"
    assert outcome({"outcome": "refused in review", "reviewed": False}) == "refused in review"
    assert outcome({"outcome": "shipped", "reviewed": True}) == "shipped after review"


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(number) for number in range(1, 101)]

    assert [demo_report.percentile(values, share) for share in (0.5, 0.95, 0.99)] == [50.0, 95.0, 99.0]
    assert demo_report.percentile([7.0], 0.99) == 7.0
