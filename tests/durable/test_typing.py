"""Types flow from a function to its callers: what is wrong is found by mypy and by pyright."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from hotmesh.durable import Client, Worker, typed
from hotmesh.durable.meshes import MESH_OPTIONS
from hotmesh.durable.options import ActivityOptions, Options, StartOptions, StepOptions, WorkflowOptions

PROGRAM = Path(__file__).parent / "typed_program.py"
ROOT = Path(__file__).parents[2]
LINES = PROGRAM.read_text(encoding="utf-8").splitlines()
WRONG = {number for number, line in enumerate(LINES, 1) if line.endswith("# error")}
REVEALED = {
    number: line.rpartition("# type ")[2] for number, line in enumerate(LINES, 1) if "  # type " in line
}


def mypy(tmp_path: Path) -> tuple[set[int], dict[int, str]]:
    done = run(
        "mypy",
        "--no-error-summary",
        "--cache-dir",
        str(tmp_path),
        "--config-file",
        str(ROOT / "pyproject.toml"),
    )
    errors, types = set(), {}
    for line in done.splitlines():
        found = re.match(r".*typed_program\.py:(\d+): (error|note): (.*)", line)
        if found is not None and found[2] == "error":
            errors.add(int(found[1]))
        elif found is not None and (kind := re.match(r'Revealed type is "(?:\w+\.)*(\w+)"', found[3])):
            types[int(found[1])] = kind[1]
    return errors, types


def pyright(_: Path) -> tuple[set[int], dict[int, str]]:
    done = json.loads(run("pyright", "--pythonpath", sys.executable, "--outputjson"))
    errors, types = set(), {}
    for found in done["generalDiagnostics"]:
        number = found["range"]["start"]["line"] + 1
        if found["severity"] == "error":
            errors.add(number)
        elif kind := re.search(r'is "(\w+)"$', found["message"]):
            types[number] = kind[1]
    return errors, types


def run(checker: str, *options: str) -> str:
    tool = Path(sys.executable).parent / checker
    if not tool.exists():
        pytest.skip(f"{checker} is not installed here")
    done = subprocess.run(
        [tool, *options, PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    return done.stdout


@pytest.mark.row("PX-19")
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_a_wrong_call_is_found_by_the_checker(checker: Any, tmp_path: Path) -> None:
    errors, types = checker(tmp_path)

    assert len(WRONG) > 8
    assert errors == WRONG
    assert types == REVEALED


@pytest.mark.parametrize(
    ("options", "keywords"),
    [
        (WorkflowOptions, typed.WorkflowKeywords),
        (StartOptions, typed.StartKeywords),
        (ActivityOptions, typed.ActivityKeywords),
        (StepOptions, typed.StepKeywords),
    ],
)
def test_checkers_know_the_options_that_there_are(options: type[Options], keywords: Any) -> None:
    assert [field.name for field in fields(options)] == list(get_type_hints(keywords))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("made", "keywords"), [(Client, typed.ClientKeywords), (Worker, typed.WorkerKeywords)]
)
def test_checkers_know_what_a_worker_and_a_client_may_be_given(made: Any, keywords: Any) -> None:
    own = [
        name for name in signature(made.__init__).parameters if name not in ("self", "connection", "options")
    ]

    assert list(get_type_hints(typed.MeshKeywords)) == list(MESH_OPTIONS)
    assert list(get_type_hints(keywords)) == [*MESH_OPTIONS, *own]


@pytest.mark.parametrize(
    "made", [Client, lambda **options: Worker(task_queue="q", workflows=[work], **options)]
)
def test_an_option_that_there_is_not_is_refused_at_once(made: Any) -> None:
    with pytest.raises(TypeError, match="has no option name_space; did you mean namespace"):
        made(name_space="shop")


async def work() -> None: ...
