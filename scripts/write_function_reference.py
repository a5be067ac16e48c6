"""Write docs/functions.md from the docstrings of the functions: `python scripts/write_function_reference.py`."""

from __future__ import annotations

from pathlib import Path

from hotmesh.core.pipe.reference import write_reference

if __name__ == "__main__":
    Path(__file__).parents[1].joinpath("docs", "functions.md").write_text(write_reference(), encoding="utf-8")
