"""`hotmesh db`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hotmesh.cli.db import db
from hotmesh.postgres import local


@pytest.fixture
def data_dir(scratch: Path) -> Path:
    return scratch / "data"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(db, [str(argument) for argument in arguments])


def test_a_server_from_start_to_stop(data_dir: Path) -> None:
    started = run("start", "--no-sync", "--data-dir", data_dir)
    dsn = f"postgresql://hotmesh@/hotmesh?host={data_dir}/socket&port=5432"
    assert (started.exit_code, started.stdout) == (0, f"{dsn}\n")
    assert run("url", "--data-dir", data_dir).stdout == f"{dsn}\n"

    status = run("status", "--json", "--data-dir", data_dir)
    fields = json.loads(status.stdout)
    server = local.status(data_dir).server
    assert server is not None
    assert (status.exit_code, fields["running"], fields["url"], fields["pid"]) == (0, True, dsn, server.pid)
    assert f"url         {dsn}" in run("status", "--data-dir", data_dir).stdout

    assert run("stop", "--data-dir", data_dir).stdout == "stopped\n"
    assert run("stop", "--data-dir", data_dir).stdout == "was not running\n"
    stopped = run("status", "--data-dir", data_dir)
    assert stopped.exit_code == 3
    assert "running     no" in stopped.stdout


def test_the_environment_names_the_data_directory(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTMESH_DATA_DIR", str(data_dir))

    assert json.loads(run("status", "--json").stdout) == {"running": False, "data_dir": str(data_dir)}


def test_what_cannot_be_done_is_said_on_stderr(data_dir: Path) -> None:
    data_dir.write_text("")

    result = run("start", "--data-dir", data_dir / "below")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert str(data_dir) in result.stderr


def test_an_unknown_option_is_an_error_of_usage(data_dir: Path) -> None:
    assert run("start", "--data-dri", data_dir).exit_code == 2


def test_psql_takes_its_own_arguments(data_dir: Path) -> None:
    server = local.ensure_running(data_dir, sync=False)
    if not (server.bin_dir / "psql").exists() and shutil.which("psql") is None:
        pytest.skip("no psql here")

    shown = subprocess.run(
        [
            sys.executable,
            "-c",
            "from hotmesh.cli.db import db; db()",
            "psql",
            "--data-dir",
            data_dir,
            "-At",
            "-c",
            "select 6*7",
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "42\n", "")


def test_no_psql(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = replace(local.ensure_running(data_dir, sync=False), bin_dir=data_dir)
    monkeypatch.setattr(local, "ensure_running", lambda _: server)
    monkeypatch.setenv("PATH", "/nonexistent")

    result = run("psql", "--data-dir", data_dir)

    assert result.exit_code == 1
    assert f"no psql, neither in {data_dir}" in result.stderr
