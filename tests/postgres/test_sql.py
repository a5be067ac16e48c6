"""The SQL files: found by their names, and each what its name says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hotmesh.postgres import sql


def test_files_are_found_by_name_in_whatever_folder(tmp_path: Path) -> None:
    (tmp_path / "work" / "deeper").mkdir(parents=True)
    (tmp_path / "work" / "b.sql").write_text("B")
    (tmp_path / "work" / "deeper" / "a.sql").write_text("A")
    (tmp_path / "c.sql").write_text("C")
    (tmp_path / "work" / "notes.txt").write_text("")

    assert list(sql.collect(tmp_path).items()) == [("a", "A"), ("b", "B"), ("c", "C")]


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("work", "events"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "claim.sql").write_text("")

    with pytest.raises(ValueError, match=r"are named claim\.sql"):
        sql.collect(tmp_path)


def test_each_file_of_a_function_has_that_function_and_no_other() -> None:
    for name, text in sql.read("functions").items():
        assert re.findall(r"^create or replace function mesh\.(\w+)", text, re.MULTILINE) == [name]


@pytest.mark.parametrize("folder", ["functions", "queries"])
def test_each_file_begins_with_its_name_and_what_it_does(folder: str) -> None:
    for name, text in sql.read(folder).items():
        assert text.startswith(f"-- {name}: ")


def test_the_table_of_contents_names_every_folder_and_no_other() -> None:
    root = Path(sql.__file__).parent
    folders = {path.name for path in root.rglob("*") if path.is_dir() and path.name != "__pycache__"}

    assert set(re.findall(r"^ +(\w+)/ ", sql.__doc__ or "", re.MULTILINE)) == folders
