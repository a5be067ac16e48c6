"""Random programs, replayed in fresh processes with other hash seeds, on every Python there is: never a difference."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import replay_programs as programs
from hotmesh.replay import patch

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = int(os.environ.get("REPLAY_PROGRAMS", "20"))
RARE = (2123, 2583)
"""Programs in which a cancel is taken back before it has arrived; see `Task.cancel`."""
NAMED = os.environ.get("REPLAY_PYTHONS", "").split()


def pythons() -> Iterator[str]:
    """Others than this one; `REPLAY_PYTHONS` names further ones, with what hotmesh needs installed."""
    yield from NAMED
    for minor in (11, 12, 13, 14):
        found = shutil.which(f"python3.{minor}") or next(
            (str(path) for path in Path("~/.pyenv/versions").expanduser().glob(f"3.{minor}.*/bin/python")),
            None,
        )
        if found and sys.version_info[:2] != (3, minor):
            yield found


def able(python: str) -> bool:
    code = "import hotmesh"
    return (
        subprocess.run(
            [python, "-c", code], env=environment("0"), capture_output=True, check=False
        ).returncode
        == 0
    )


def environment(seed: str) -> dict[str, str]:
    return os.environ | {
        "PYTHONHASHSEED": seed,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
    }


@pytest.mark.row("PX-29", "WP-35", "WP-36", "WP-39")
def test_random_programs_are_the_same_in_every_replay() -> None:
    patch()
    lines, expected, operations = [], [], 0
    for seed in (*RARE, *range(PROGRAMS)):
        program, history, _, end = programs.live(seed)
        operations += len(history)
        given = [
            [
                one.position,
                one.kind,
                one.name,
                one.status == "failed",
                int((one.at - programs.START).total_seconds()),
                one.seq,
            ]
            for one in history
        ]
        lines.append(json.dumps({"seed": seed, "history": given, "times": 2}))
        expected.append([program.trace, end])
    assert operations > 5 * PROGRAMS

    running = [
        subprocess.Popen(
            [python, str(ROOT / "tests" / "replay_programs.py")], cwd=ROOT, env=environment(str(hash_seed)), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for hash_seed, python in enumerate(python for python in [sys.executable, sys.executable, *pythons()] if python in NAMED or able(python))
    ]  # fmt: skip
    assert len(running) > 1
    for process in running:
        out, errors = process.communicate("\n".join(lines))
        assert process.returncode == 0, errors
        for seed, (line, once) in enumerate(zip(out.splitlines(), expected, strict=True)):
            for trace, end in json.loads(line):
                assert trace == once[0], (process.args, seed)
                assert end in {once[1], ""}, (process.args, seed)
