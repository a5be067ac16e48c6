"""The arguments of `commit_steps` as Python declares them, and as the SQL file does."""

from __future__ import annotations

import re

from hotmesh.postgres import sql
from hotmesh.postgres.sections import COMMIT, PARAMETERS, SECTIONS
from hotmesh.postgres.steps import Batch

TEXT = sql.read("functions")["commit_steps"]


def test_the_file_has_the_declared_parameters_in_that_order() -> None:
    header = TEXT[TEXT.index("create or replace function mesh.commit_steps(") : TEXT.index(") language")]
    declared = re.sub(r"--.*", "", header.partition("(")[2])
    parameters = [tuple(part.split(maxsplit=1)) for part in re.split(r",\s*", declared.strip())]

    assert [pair for pair in parameters if pair[0] != "out"] == PARAMETERS


def test_every_parameter_is_used() -> None:
    body = re.sub(r"--.*", "", TEXT[TEXT.index(") language") :])

    assert [name for name, _ in PARAMETERS if not re.search(rf"\b{name}\b", body)] == []


def test_an_empty_batch_has_an_argument_for_each() -> None:
    arguments = Batch().arguments("app", "me", 1, 2, 30.0, "wake")

    assert len(arguments) == len(PARAMETERS) == COMMIT.count("$")
    assert {
        name: value for (name, _), value in zip(PARAMETERS, arguments, strict=True) if value is not None
    } == {
        "p_app": "app",
        "p_member": "me",
        "p_epoch": 1,
        "p_token": 2,
        "p_lease": 30.0,
        "p_wake": "wake",
    }


def test_a_row_fills_the_columns_of_its_section_and_unused_ones_go_as_null() -> None:
    batch = Batch()
    batch.reserve("g", "a", (0, 1))

    arguments = dict(zip(PARAMETERS, batch.arguments("app", "me", 1, 2, 30.0, None), strict=True))

    assert {name: value for (name, _), value in arguments.items() if name.startswith("d_")} == {
        "d_step": (-1,),
        "d_what": ("reserve",),
        "d_generation": ("g",),
        "d_activity": ("a",),
        "d_dimension": ("{0,1}",),
    }
    assert all(
        value is None for (name, _), value in arguments.items() if name[0] in SECTIONS and name[0] != "d"
    )
