"""The pages that show a terminal: their programs are written to files, their commands run, and processes really killed.

Only the pauses are shorter than on the page, where a person has to type meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

DOCS = Path(__file__).parents[2] / "docs" / "durable"
PAGES = sorted(path for path in DOCS.glob("*.md") if "```console" in path.read_text(encoding="utf-8"))


def blocks(text: str) -> Iterator[tuple[str, str]]:
    yield from re.findall(r"^```(python|console)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(block: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a terminal, and the lines below it."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, *printed = part.splitlines()
        yield command, printed


def alike(line: str) -> str:
    """Without the directory, the ids, and the random part of waits, that are different each time."""
    line = re.sub(r'File "[^"]*/', 'File "', line)
    return re.sub(
        r"next in 0\.\d+ s", "next in 0.1 s", re.sub(r"\bH[\w-]{22}(?![\w-])", "H…", line.rstrip("\n"))
    )


RECORDED = {"order.py": 1, "remind.py": 2, "ask.py": 1}
"""Program → how many results it has to have recorded before it is killed; a person is slow enough by nature."""

OF_THE_DEAD = ("1 workflows handed over", "engines die one after the other", "work given back of a member")
"""Lines of the log about processes that were killed, which the pages leave out, and say so."""


class Terminal:
    """A shell that knows what the pages use: python, with or without &, kill -9 %1, and psql -c."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self.directory = directory
        self.background: list[tuple[str, subprocess.Popen[str]]] = []

    def run(self, command: str, expected: list[str]) -> list[str]:
        words = shlex.split(command)
        if words[:3] == ["kill", "-9", "%1"]:
            program, killed = self.background.pop()
            asyncio.run(self.wait_for_records(RECORDED[program]))
            killed.kill()
            assert killed.wait(30) == -signal.SIGKILL
            return killed.communicate()[0].splitlines()
        if words[0] == "psql":
            return asyncio.run(self.ask(words[2]))
        assert words[0] == "python", command
        process = self.start([word for word in words[1:] if word != "&"])
        assert process.stdout is not None
        if words[-1] == "&":
            self.background.append((words[1], process))
            return [alike(process.stdout.readline()) for _ in expected]
        try:
            output, _ = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.background.append((words[1], process))
            raise
        assert process.returncode == 0, output
        return [alike(line) for line in output.splitlines()]

    def start(self, arguments: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.directory,
            env=os.environ | {"HOTMESH_DATABASE_URL": self.url},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    async def wait_for_records(self, number: int) -> None:
        connection = await asyncpg.connect(self.url)
        statement = """
            select count(*) from durable.operation where generation =
                (select generation from durable.job order by created_at desc limit 1)
        """
        try:
            async with asyncio.timeout(30):
                while await connection.fetchval(statement) < number:  # noqa: ASYNC110 - another process writes it
                    await asyncio.sleep(0.01)
        finally:
            await connection.close()

    async def ask(self, statement: str) -> list[str]:
        connection = await asyncpg.connect(self.url)
        try:
            return ["|".join(map(str, row.values())) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    def close(self) -> None:
        for _, process in self.background:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_terminal_shows_what_the_page_says(page: Path, database_url: str, tmp_path: Path) -> None:
    terminal = Terminal(database_url, tmp_path)
    try:
        for language, block in blocks(page.read_text(encoding="utf-8")):
            if language == "python":
                name = block.partition("\n")[0].removeprefix("# ")
                shorter = re.sub(r"asyncio\.sleep\(\d+\)", "asyncio.sleep(1)", block)
                (tmp_path / name).write_text(shorter, encoding="utf-8")
                continue
            for command, expected in commands(block):
                printed = terminal.run(command, expected)
                assert [line for line in printed if not line.startswith(OF_THE_DEAD)] == expected, command
    finally:
        terminal.close()


def test_pages_that_show_a_terminal_are_there() -> None:
    assert "tutorial.md" in [page.name for page in PAGES]
