"""`hotmesh demo durable`."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from hotmesh.cli import demo as command
from hotmesh.cli import main
from hotmesh.demo import hosts
from hotmesh.demo.orders import expected, orders


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["demo", *arguments])


def test_every_order_ends_as_the_file_says(database_url: str) -> None:
    result = run("durable", "--orders", "150", "--connection", database_url, "--json")

    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    counts = {name: found["orders"] for name, found in data["outcomes"].items()}
    assert data["accounted_for"] is True
    assert counts == data["stored"] == expected(orders(150, "any"))
    assert (data["open"], "killed" in data) == (0, False)


def test_processes_are_killed_and_the_table_adds_up(database_url: str) -> None:
    result = run("durable", "--chaos", "--orders", "120", "--connection", database_url)

    assert result.exit_code == 0, result.output
    assert "all 120 orders accounted for" in result.stdout
    assert "2 processes were killed" in result.stdout
    assert 'join "hotmesh-demo".operation' in result.stdout


def test_processes_that_cannot_serve_are_told_by_what_they_said(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "MODULE", "hotmesh.demo.nowhere")

    result = run("durable", "--chaos", "--orders", "1", "--connection", database_url)

    assert result.exit_code == 1
    assert "No module named hotmesh.demo.nowhere" in result.stderr


def test_options_that_stand_before_it_are_refused() -> None:
    result = run("--orders", "5", "durable")

    assert result.exit_code == 2
    assert "the options of durable stand behind it" in result.stderr
    assert command.demo.name == "demo"
