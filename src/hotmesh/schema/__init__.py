"""The JSON Schema of graph documents, as package data: editors complete and check with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def graph_schema_text() -> str:
    """The schema as it is shipped (draft-07, which every YAML editor understands)."""
    return Path(__file__).with_name("graph.schema.json").read_text(encoding="utf-8")


def graph_schema() -> dict[str, Any]:
    """The schema as data."""
    schema: dict[str, Any] = json.loads(graph_schema_text())
    return schema
