import json
from pathlib import Path
from typing import Any

import pytest

from hotmesh.errors import CompileError
from hotmesh.runtime.definitions.graph_files import inspect, load

GRAPHS = Path(__file__).parents[2] / "graphs"
TEXT = "app:\n  id: demo\n  version: '1'\n  graphs:\n    - subscribes: a\n      activities:\n        t1: {type: trigger}\n"
DATA: dict[str, Any] = {
    "app": {
        "id": "demo",
        "version": "1",
        "graphs": [{"subscribes": "a", "activities": {"t1": {"type": "trigger"}}}],
    }
}
REFERRING = "app:\n  id: demo\n  version: '1'\n  graphs:\n    - $ref: greeting.yaml\n"


@pytest.mark.parametrize(
    "document",
    [
        TEXT,
        f"# a comment first\n{TEXT}",
        f"---\n{TEXT}",
        f"\n\n{TEXT}",
        f"\ufeff{TEXT}",
        json.dumps(DATA),
        "{app: {id: demo, version: '1', graphs: [{subscribes: a, activities: {t1: {type: trigger}}}]}}",
        DATA,
        GRAPHS / "order.yaml",
        str(GRAPHS / "order.yaml"),
    ],
)
def test_every_form_of_input_is_accepted(document: Any) -> None:
    loaded = load(document)

    assert loaded.app.id in {"demo", "shop"}
    assert loaded.warnings == ()


def test_a_path_is_relative_to_the_base_path() -> None:
    assert load("order.yaml", base_path=GRAPHS).app.id == "shop"


def test_references_in_text_and_data_are_relative_to_the_base_path() -> None:
    data = {"app": {"id": "demo", "version": "1", "graphs": [{"$ref": "greeting.yaml"}]}}

    assert load(REFERRING, base_path=GRAPHS / "shared").app.graphs[0].subscribes == "greet"
    assert load(data, base_path=GRAPHS / "shared").app.graphs[0].subscribes == "greet"


def test_references_in_text_without_a_base_path_are_a_clear_problem() -> None:
    with pytest.raises(CompileError) as raised:
        load(REFERRING)

    assert [str(problem) for problem in raised.value.problems] == [
        "<text>:5:7: reference: greeting.yaml: a reference to a file needs a base path"
    ]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("[" * 5_000 + "app:", "File name too long"),
        ("nowhere.yaml", "cannot read nowhere.yaml: No such file or directory"),
        (str(GRAPHS), "Is a directory"),
        ("a\0b", "cannot read a\0b: embedded null byte"),
        (" \t", "the text of the graph is empty"),
        (5, "a graph is text, a path or a dict, not int"),
        (None, "a graph is text, a path or a dict, not NoneType"),
    ],
)
def test_what_cannot_be_read_says_why(document: Any, message: str) -> None:
    with pytest.raises(CompileError) as raised:
        load(document)

    (problem,) = raised.value.problems
    assert problem.rule == "source"
    assert problem.message.endswith(message)


def test_a_file_that_is_no_utf_8_says_so(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"app: \xe9")

    with pytest.raises(CompileError, match="the file is not UTF-8 text"):
        load(tmp_path / "latin.yaml")


def test_all_problems_are_raised_together_errors_first_by_place() -> None:
    with pytest.raises(CompileError) as raised:
        load(GRAPHS / "broken_flow.yaml")

    assert [(problem.severity, problem.line) for problem in raised.value.problems] == [
        ("error", 14),
        ("error", 15),
        ("error", 18),
        ("error", 19),
        ("warning", 10),
    ]
    assert raised.value.errors[0] == {
        "path": "/app/graphs/0/transitions/t1/1/to",
        "rule": "V6",
        "message": "the transition from t1 leads to w3, which does not exist",
    }


def test_warnings_do_not_stop_a_load() -> None:
    loaded = load(GRAPHS / "broken_keys.yaml")

    assert [problem.rule for problem in loaded.warnings] == ["V17", "V17", "V17"]


def test_the_app_id_is_compared_with_the_expected_one() -> None:
    assert load(TEXT, expected_app_id="demo").app.id == "demo"
    with pytest.raises(CompileError, match="App ID mismatch: demo !== other"):
        load(TEXT, expected_app_id="other")


def test_the_merged_document_is_left_beside_the_source_when_asked(tmp_path: Path) -> None:
    (tmp_path / "graph.yaml").write_text(TEXT)
    load(tmp_path / "graph.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["graph.yaml"]

    load(tmp_path / "graph.yaml", write_compiled=True)
    assert json.loads((tmp_path / ".hotmesh.demo.1.json").read_text()) == DATA


def test_a_directory_that_cannot_be_written_does_not_fail_a_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: Any, **__: Any) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "graph.yaml").write_text(TEXT)
    monkeypatch.setattr(Path, "write_text", refuse)

    assert load(tmp_path / "graph.yaml", write_compiled=True).app.id == "demo"


def test_a_version_with_a_slash_stays_in_the_directory(tmp_path: Path) -> None:
    (tmp_path / "graph.yaml").write_text(TEXT.replace("'1'", "'../../1'"))
    load(tmp_path / "graph.yaml", write_compiled=True)

    assert sorted(path.name for path in tmp_path.iterdir()) == [".hotmesh.demo..._.._1.json", "graph.yaml"]


def test_files_can_come_from_elsewhere_than_the_file_system() -> None:
    files = {"main.yaml": REFERRING, "greeting.yaml": (GRAPHS / "order.yaml").read_text()}
    found = inspect("main.yaml", read=lambda reference, _: (reference, files[reference]))

    assert found.app is not None
    assert {problem.file for problem in found.problems} == {"greeting.yaml"}


def test_a_part_that_could_not_be_read_is_complained_about_once() -> None:
    problems = inspect(GRAPHS / "broken_missing_reference.yaml").problems

    assert [problem.rule for problem in problems] == ["reference"] * 3
