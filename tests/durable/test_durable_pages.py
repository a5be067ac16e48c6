"""The examples of the pages on durable functions print what stands below them."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import types
from pathlib import Path

import pytest

from hotmesh import durable
from hotmesh.durable import Client, Worker, WorkflowHandle, activity, workflow
from hotmesh.durable.work_items import Escalations

DOCS = Path(__file__).parents[2] / "docs" / "durable"
PAGES = sorted(
    path
    for path in DOCS.glob("*.md")
    if "```console" not in path.read_text(encoding="utf-8")  # those are run by `test_transcripts.py`
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_example_prints_what_the_page_says(
    page: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.setenv("HOTMESH_DATABASE_URL", database_url)
    text = page.read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len(examples) == text.count("```python") > 0
    module = types.ModuleType(f"page_{page.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for source, expected in examples:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(source, f"{page.stem}.py", "exec"), module.__dict__)
        assert printed.getvalue() == expected


def test_the_reference_names_all_that_there_is() -> None:
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    names = [
        *(f"workflow.{name}" for name in workflow.__all__ if name[0].islower()),
        *(f"activity.{name}" for name in activity.__all__ if name[0].islower()),
        *(name for name in durable.__all__ if name not in ("activity", "errors", "workflow")),
        *(
            name
            for made in (Client, Worker, WorkflowHandle, Escalations)
            for name in vars(made)
            if not name.startswith("_")
        ),
    ]
    missing = [name for name in names if not re.search(rf"\b{name.rpartition('.')[2]}\b", text)]

    assert missing == [], "say in docs/durable/reference.md what they do, with an example"
