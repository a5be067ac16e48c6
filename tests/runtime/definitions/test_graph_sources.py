"""Graph documents come from regular files of a bearable size; whatever else has the name is an error that names it."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from hotmesh.errors import CompileError
from hotmesh.runtime.definitions.graph_files import MOST_BYTES, load, read_file

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")

GRAPH = """
app:
  id: files
  version: '1'
  graphs:
    - subscribes: go
      activities:
        t:
          type: trigger
          output: {schema: {$ref: './OTHER'}}
"""


@contextmanager
def odd(kind: str, directory: Path) -> Iterator[Path]:
    path = directory / "odd.yaml"
    match kind:
        case "a named pipe":
            os.mkfifo(path)
        case "a device":
            path.symlink_to("/dev/zero")
        case "a socket":
            with closing(socket.socket(socket.AF_UNIX)) as listening:
                listening.bind(str(path))
                yield path
                return
        case "larger than 16,777,216 bytes":
            with path.open("wb") as file:
                file.truncate(MOST_BYTES + 1)
        case _:
            path.mkdir()
    yield path


KINDS = ["a named pipe", "a device", "a socket", "larger than 16,777,216 bytes", "a directory"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("referred", [False, True], ids=["path", "$ref"])
def test_what_is_no_file_to_read_is_named_and_not_read(tmp_path: Path, kind: str, *, referred: bool) -> None:
    with odd(kind, tmp_path) as path:
        graph = tmp_path / "graph.yaml"
        graph.write_text(GRAPH.replace("OTHER", path.name))
        with pytest.raises(CompileError) as caught:
            load(graph if referred else path)

    text = str(caught.value)
    assert "odd.yaml" in text
    if kind not in ("a directory", "a socket"):
        assert kind in text


def test_a_file_of_the_greatest_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "graph.yaml"
    text = GRAPH.replace("          output: {schema: {$ref: './OTHER'}}\n", "")
    path.write_text(text)
    assert load(path, read=partial(read_file, most=len(text))).app.id == "files"
    with pytest.raises(CompileError, match="larger than"):
        load(path, read=partial(read_file, most=len(text) - 1))
