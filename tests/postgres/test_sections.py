"""The arguments of `commit_steps` as Python declares them, and as the SQL file does."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

import pytest

from hotmesh.core.state.job import Job
from hotmesh.core.state.step import JobChange, Step
from hotmesh.errors import MessageTooLargeError
from hotmesh.postgres import sql, steps
from hotmesh.postgres.sections import COMMIT, PARAMETERS, SECTIONS, columns
from hotmesh.postgres.steps import Batch, seconds

TEXT = sql.read("functions")["commit_steps"]

PARTS = ("reserve_work", "drop_jobs")
"""What `commit_steps` hands rows to."""

READ = re.compile(r"\b(\w)\.r ->> (\d+)(?:\)::(\w+(?: precision)?(?:\[\])?))?(?: as (\w+))?")
"""What is read of a row: the letter, the place, the type if it is not text, the name if there is one."""

NOW = datetime(2030, 1, 1, microsecond=1, tzinfo=UTC)


def test_the_file_has_the_declared_parameters_in_that_order() -> None:
    header = TEXT[TEXT.index("create or replace function mesh.commit_steps(") : TEXT.index(") language")]
    declared = re.sub(r"--.*", "", header.partition("(")[2])
    parameters = [tuple(part.split(maxsplit=1)) for part in re.split(r",\s*", declared.strip())]

    assert [pair for pair in parameters if pair[0] != "out"] == PARAMETERS


def test_every_parameter_is_used() -> None:
    body = re.sub(r"--.*", "", TEXT[TEXT.index(") language") :])

    assert [name for name, _ in PARAMETERS if not re.search(rf"\b{name}\b", body)] == []


def test_what_is_read_of_a_row_has_the_declared_place_name_and_type() -> None:
    """In `commit_steps` and what it calls. Without a name, a place has the declared type, or is text."""
    read = 0
    for text in (TEXT, *(sql.read("functions")[name] for name in PARTS)):
        for letter, place, type_, name in READ.findall(re.sub(r"--.*", "", text)):
            declared = columns(SECTIONS[letter])[int(place)]
            assert declared == (name or declared[0], type_ or "text"), (letter, place)
            read += 1
    assert read > sum(len(columns(row)) for row in SECTIONS.values())


def test_every_column_is_read() -> None:
    text = "".join(sql.read("functions")[name] for name in ("commit_steps", *PARTS))
    read = {(letter, int(place)) for letter, place, _, _ in READ.findall(re.sub(r"--.*", "", text))}

    assert [
        (letter, column)
        for letter, row in SECTIONS.items()
        for place, column in enumerate(columns(row))
        # What is reserved belongs to no step.
        if (letter, place) not in read and (letter, place) != ("k", 0)
    ] == []


def test_what_the_header_says_of_a_section_is_the_order_of_its_columns() -> None:
    header = re.sub(r"\s+", " ", re.sub(r"^ *--", "", TEXT[: TEXT.index(") language")], flags=re.MULTILINE))
    for row in {tuple(name for name, _ in columns(row)) for row in SECTIONS.values()}:
        assert re.search(rf"\b{', '.join(row)}\b", header), row


def test_values_lie_beside_the_rows_in_the_declared_order() -> None:
    body = TEXT[TEXT.index(") language") :]
    for letter, row in SECTIONS.items():
        found = re.findall(
            rf"rows from \(jsonb_array_elements\({letter}_rows::jsonb\), (.*?)\)(?: with ordinality)?\s+as {letter}\((.*?)\)\s",
            body,
        )
        values = ", ".join(f"unnest({letter}_{name})" for name in row.beside)
        names = ", ".join(("r", *row.beside))
        assert {(given, named.removesuffix(", ordinal")) for given, named in found} == (
            {(values, names)} if row.beside else set()
        )


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


def arguments_of(batch: Batch) -> dict[str, object]:
    """The arguments of its sections that are not null, by name."""
    arguments = batch.arguments("app", "me", 1, 2, 30.0, None)
    return {
        name: value
        for (name, _), value in zip(PARAMETERS, arguments, strict=True)
        if value is not None and name[0] in SECTIONS
    }


def test_a_row_fills_its_section_and_nothing_else() -> None:
    batch = Batch()
    batch.reserve("g", "a", (0, 1))

    assert arguments_of(batch) == {"k_rows": '[[-1,"g","a","{0,1}"]]'}


def test_values_lie_beside_the_rows_and_those_that_nobody_has_are_null() -> None:
    batch = Batch()
    jobs = (
        Job("app", name, "g", "1", "t", 1, 1, {}, data, NOW, NOW)
        for name, data in (("a", {}), ("b", {"x": 1}))
    )
    batch.add(
        0, Step(tuple(JobChange(job, created=True) for job in jobs)), local=(), send_delay=lambda _: 0.0
    )

    assert arguments_of(batch) == {
        "c_rows": '[[0,"a","g","1","t",1,false,null,"2030-01-01T00:00:00.000001Z",null],'
        '[0,"b","g","1","t",1,false,null,"2030-01-01T00:00:00.000001Z",null]]',
        "c_input": ("{}", "{}"),
        "c_data": (None, '{"x":1}'),
    }


class Name(str):
    __slots__ = ()


def test_a_subclass_of_text_is_written_as_text() -> None:
    batch = Batch()
    batch.reserve(Name("g"), Name("a"), (0,))

    assert arguments_of(batch) == {"k_rows": '[[-1,"g","a","{0}"]]'}


@pytest.mark.parametrize(
    ("given", "written"), [(1.5, 1.5), (0, 0), (None, None), (math.inf, "inf"), (-math.inf, "-inf")]
)
def test_a_duration_that_json_cannot_say_is_never_written_as_null(given: float, written: object) -> None:
    assert seconds(given) == written
    assert seconds(math.nan) == "nan"


def test_a_step_that_no_statement_can_hold_is_refused_before_it_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(steps, "LARGEST_STATEMENT", 99)
    batch = Batch()
    job = Job("a", "a", "g", "1", "t", 1, 1, {}, {"x": "ä" * 48}, NOW, NOW)
    batch.add(0, Step((JobChange(job, created=True),)), local=(), send_delay=lambda _: 0.0)

    with pytest.raises(MessageTooLargeError, match="a step has 106 bytes of values, more than one commit"):
        batch.arguments("app", "me", 1, 2, 30.0, None)
