"""Where graphs come from: text, a file, or data; and the files that they refer to."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from yaml.nodes import MappingNode

from hotmesh.core.definition.build import build_app
from hotmesh.core.definition.check import check_app, check_app_id
from hotmesh.core.definition.graph import App, Document
from hotmesh.core.definition.manifest import manifest
from hotmesh.core.definition.parse import Read, parse, parse_data
from hotmesh.core.definition.yaml_document import compose
from hotmesh.errors import CompileError, Problem

MOST_BYTES: Final = 16 * 1_048_576
"""Bytes of one graph file."""

_KINDS: Final = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}

GraphSource = str | Path | Mapping[str, Any]
"""A graph document: its text, the path of a file, or the data itself."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A document that may be deployed, and what its author may want to look at nevertheless."""

    app: App
    warnings: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Inspected:
    """A document as far as it could be read. `app` is None if there is none to speak of."""

    app: App | None
    problems: tuple[Problem, ...]


def load(
    source: GraphSource,
    *,
    base_path: str | Path | None = None,
    expected_app_id: str | None = None,
    read: Read | None = None,
    write_compiled: bool = False,
) -> Loaded:
    """Read and check a graph document.

    A text is the document itself if it has a line break or is a mapping with the key `app`; else it is a path.
    References are relative to the file they stand in; those in a text or in data to `base_path`, a directory.
    `write_compiled` leaves the merged document beside the file, as `.hotmesh.<app id>.<version>.json`, if that
    directory can be written. `read` replaces the file system.

    Raises CompileError, whose `problems` are everything that is wrong, warnings included.
    """
    found = inspect(source, base_path=base_path, expected_app_id=expected_app_id, read=read)
    if found.app is None or any(problem.severity == "error" for problem in found.problems):
        raise CompileError(found.problems)
    if write_compiled:
        directory = _directory(source, base_path)
        if directory is not None:
            _write_compiled(found.app, directory)
    return Loaded(found.app, found.problems)


def inspect(
    source: GraphSource,
    *,
    base_path: str | Path | None = None,
    expected_app_id: str | None = None,
    read: Read | None = None,
) -> Inspected:
    """Like `load`, but gives the problems back instead of raising them; sorted by place."""
    document, problems = _read_document(source, base_path, read or read_file)
    app: App | None = None
    if document is not None:
        app, found = build_app(document)
        if app is not None:
            found += check_app(app)
            if expected_app_id is not None:
                found += check_app_id(app, expected_app_id)
        # What could not be read is not complained about a second time for being empty.
        unread = {problem.path for problem in problems}
        problems += (problem for problem in found if problem.path not in unread)
    return Inspected(app, tuple(sorted(problems, key=_by_place)))


def read_file(reference: str, base: str | None, *, most: int = MOST_BYTES) -> tuple[str, str]:
    """A file by a name that is relative to the file `base`. Raises OSError, or ValueError if it is no text of a bearable size."""
    path = Path(os.path.normpath(Path(base or "").parent / reference))
    try:
        return str(path), _content(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"the file is not UTF-8 text (byte {error.start})") from None


def _content(path: Path, most: int) -> bytes:
    """All of a regular file. A device may have no end, and a pipe no writer: they are opened without waiting, and not read."""
    with open(path, "rb", buffering=0, opener=_without_waiting) as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise ValueError(
                f"it is {_KINDS.get(stat.S_IFMT(mode), 'no file')}, and a graph is a regular file"
            )
        content = bytearray()
        # What it says of its size may be wrong (/proc), or change meanwhile.
        while len(content) <= most and (part := file.read(1 << 20)):
            content += part
    if len(content) > most:
        raise ValueError(f"the file is larger than {most:,} bytes, the most that a graph file may have")
    return bytes(content)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


def _read_document(
    source: Any, base_path: str | Path | None, read: Read
) -> tuple[Document | None, list[Problem]]:
    # A directory as the base of references: any name in it will do, only its parent is looked at.
    base = None if base_path is None else str(Path(base_path) / "graph")
    if isinstance(source, Mapping):
        return parse_data(source, read=read, base=base)
    if not isinstance(source, (str, os.PathLike)):
        message = f"a graph is text, a path or a dict, not {type(source).__name__}"
        return None, [Problem("source", message)]
    if isinstance(source, str) and is_document(source):
        return parse(source, read=read, base=base)
    if isinstance(source, str) and not source.strip():
        return None, [Problem("source", "the text of the graph is empty")]
    path = str(Path(base_path, source)) if base_path is not None else str(source)
    try:
        name, text = read(path, None)
    except OSError as error:
        return None, [Problem("source", f"cannot read {path}: {error.strerror or error}", file=path)]
    except ValueError as error:
        return None, [Problem("source", f"cannot read {path[:200]}: {error}", file=path)]
    return parse(text, name=name, read=read)


def is_document(text: str) -> bool:
    """Whether a text is a document rather than the path of one."""
    if "\n" in text or text.lstrip().startswith("app:"):
        return True
    # A line such as `{app: …}` is one too; a path that happens to be YAML is a scalar.
    root = compose(text, None)
    return isinstance(root, MappingNode) and any(key.value == "app" for key, _ in root.value)


def _directory(source: GraphSource, base_path: str | Path | None) -> Path | None:
    if isinstance(source, Path) or (isinstance(source, str) and not is_document(source)):
        return Path(base_path or "", source).parent
    return None if base_path is None else Path(base_path)


def _write_compiled(app: App, directory: Path) -> None:
    name = f".hotmesh.{app.id}.{app.version}.json".replace("/", "_").replace("\0", "_")
    # A convenience for editors and reviews; a directory that cannot be written is no reason to fail.
    with suppress(OSError):
        (directory / name).write_text(
            json.dumps(manifest(app), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def _by_place(problem: Problem) -> tuple[bool, str, int, int]:
    return problem.severity != "error", problem.file or "", problem.line or 0, problem.column or 0
