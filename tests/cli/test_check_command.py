import json
from pathlib import Path

from click.testing import CliRunner, Result

from hotmesh.cli.check import check
from hotmesh.schema import graph_schema

GRAPHS = Path(__file__).parent.parent / "graphs"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(check, arguments)


def test_a_sound_file_passes() -> None:
    result = run(str(GRAPHS / "order.yaml"))

    assert (result.exit_code, result.output) == (0, "1 file: 0 errors, 0 warnings\n")


def test_problems_are_printed_with_their_place_and_fail_the_command() -> None:
    path = str(GRAPHS / "broken_types.yaml")
    result = run(str(GRAPHS / "order.yaml"), path)

    assert result.exit_code == 1
    assert f'{path}:8:20: error V9: Unknown activity type: wroker (did you mean "worker"?)' in result.output
    assert result.output.endswith("2 files: 5 errors, 1 warning\n")


def test_warnings_alone_do_not_fail_the_command() -> None:
    result = run(str(GRAPHS / "broken_keys.yaml"))

    assert result.exit_code == 0
    assert "warning V17" in result.output


def test_problems_can_be_had_as_json() -> None:
    result = run("--json", str(GRAPHS / "broken_flow.yaml"))
    data = json.loads(result.output)

    assert result.exit_code == 1
    assert not data["ok"]
    assert data["problems"][0]["rule"] == "V6"
    assert data["problems"][0]["line"] == 14


def test_a_missing_file_is_a_problem_like_any_other() -> None:
    result = run("nowhere.yaml", str(GRAPHS / "order.yaml"))

    assert result.exit_code == 1
    assert "nowhere.yaml: error source: cannot read nowhere.yaml: No such file or directory" in result.output


def test_the_schema_is_printed() -> None:
    result = run("--schema")

    assert result.exit_code == 0
    assert json.loads(result.output) == graph_schema()


def test_without_a_file_the_command_says_what_it_needs() -> None:
    result = run()

    assert result.exit_code == 2
    assert "name at least one FILE" in result.output
