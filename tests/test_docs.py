"""What the documentation says is what the code does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from importlib import resources
from pathlib import Path

import click
import pytest

from hotmesh.cli import main
from hotmesh.core.pipe.table import FUNCTIONS
from hotmesh.postgres import sql
from hotmesh.runtime import settings
from hotmesh.runtime.settings import Settings

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """Every command with its whole name, groups included."""
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from commands(found, f"{name} {child}")


COMMANDS = dict(commands(main, "hotmesh"))
del COMMANDS["hotmesh"]


def test_the_program_of_the_readme_does_what_the_readme_says(database_url: str, tmp_path: Path) -> None:
    flow, program, printed = blocks(README, "yaml")[0], blocks(README, "python")[1], blocks(README, "text")[1]
    (tmp_path / "order.yaml").write_text(flow, encoding="utf-8")
    (tmp_path / "order.py").write_text(program, encoding="utf-8")

    result = subprocess.run(
        [sys.executable, tmp_path / "order.py"],
        env={**os.environ, "HOTMESH_DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == printed


def test_the_durable_function_of_the_readme_does_what_the_readme_says(
    database_url: str, tmp_path: Path
) -> None:
    result = subprocess.run(
        [sys.executable, ROOT / "examples" / "order_function.py"],
        env={**os.environ, "HOTMESH_DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (result.returncode, result.stderr, result.stdout) == (0, "", blocks(README, "text")[0])


def test_the_program_about_functions_and_schedules_does_what_its_page_says(
    database_url: str, tmp_path: Path
) -> None:
    page = (DOCS / "virtual.md").read_text(encoding="utf-8")
    (tmp_path / "virtual.py").write_text(blocks(page, "python")[0], encoding="utf-8")

    result = subprocess.run(
        [sys.executable, tmp_path / "virtual.py"],
        env={**os.environ, "HOTMESH_DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (result.returncode, result.stderr, result.stdout) == (0, "", blocks(page, "text")[0])


def test_the_program_of_the_readme_is_the_example() -> None:
    assert blocks(README, "yaml")[0] == (ROOT / "examples" / "order.yaml").read_text(encoding="utf-8")
    assert blocks(README, "python")[0] == (ROOT / "examples" / "order_function.py").read_text(
        encoding="utf-8"
    )
    assert blocks(README, "python")[1] == (ROOT / "examples" / "order.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = page if not name else page.parent / name
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), target


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_index_names_every_page() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")

    assert {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - {"index.md"} == set(
        re.findall(r"\]\(([\w/-]+\.md)\)", index)
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented_with_all_its_options(name: str) -> None:
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^##+ `([^`]+)`\n(.*?)(?=^##|\Z)", text, re.DOTALL | re.MULTILINE))
    heading = next(
        (found for found in sections if found == name or re.match(rf"{name} [A-Z\[]", found)), None
    )
    assert heading is not None, f"docs/cli.md has no section on {name}"
    command = COMMANDS[name]
    section = sections[heading] + (sections["hotmesh db"] if name.startswith("hotmesh db ") else "")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert f"`{parameter.opts[0]}" in section, f"{name} {parameter.opts[0]}"
        else:
            assert str(parameter.make_metavar(click.Context(command))).strip("[].… ") in heading


def test_no_command_is_documented_that_does_not_exist() -> None:
    headings = re.findall(
        r"^##+ `(hotmesh[ a-z-]*)", (DOCS / "cli.md").read_text(encoding="utf-8"), re.MULTILINE
    )

    assert {heading.strip() for heading in headings} == set(COMMANDS)


def test_settings_are_documented_with_default_and_variable() -> None:
    text = (DOCS / "settings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z_]+)` \| (\S+) \| (?:`([A-Z_]+)`( \([a-z]+\))?)? ?\|", text, re.MULTILINE)
    documented = {name: (default, variable, unit.strip(" ()")) for name, default, variable, unit in rows}

    units = {0.001: "milliseconds", 1: "seconds"}
    expected = {}
    for field in fields(Settings):
        variable, scale = settings.VARIABLES.get(field.name, ("", 1))
        is_duration = str(field.type).startswith("float") and field.name != "duress_alpha"
        unit = units[scale] if variable and is_duration else ""
        expected[field.name] = (str(field.default), variable, unit)
    assert documented == expected


def test_every_environment_variable_is_documented() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    named = set(re.findall(r"\b((?:HOTMESH|HMSH)_[A-Z_]*[A-Z])\b", source))
    text = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("*.md"))

    assert {name for name in named if name not in text} == set()


def test_the_glossary_names_every_table() -> None:
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    tables = {
        name
        for migration in sql.read("migrations").values()
        for name in re.findall(r"^create table mesh\.(\w+)", migration, re.MULTILINE)
    }

    assert {name for name in tables if f"`{name}`" not in text} == set()


def test_the_tour_of_the_code_names_what_is_there() -> None:
    text = (DOCS / "code-tour.md").read_text(encoding="utf-8")
    package = ROOT / "src" / "hotmesh"
    sources = [path for path in package.rglob("*") if path.suffix in (".py", ".sql")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)

    for name in re.findall(r"`([\w/.]+\.(?:py|sql))`", text):
        assert any(path.as_posix().endswith(f"/{name}") for path in sources), name
    for name in re.findall(r"`([\w/]+/)`", text):
        assert (package / name).is_dir(), name
    for name in re.findall(r"`((?:[A-Z]\w+)(?:\.\w+)?|_\w+)`", text):
        for part in name.split("."):
            assert re.search(rf"\b(?:class|def) {part}\b", code), name
    assert len(text.splitlines()) <= 100, "a tour on two screens"


def test_the_number_of_functions_is_right() -> None:
    assert f"{len(FUNCTIONS)} functions" in README


def test_the_demo_comes_with_the_package() -> None:
    names = {entry.name for entry in resources.files("hotmesh.demo").iterdir()}

    assert {"orders.yaml", "orders.jsonl"} <= names
