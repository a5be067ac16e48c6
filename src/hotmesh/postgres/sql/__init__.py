"""The SQL of a mesh, in files that psql can read; each is read once, and bound to the schema of its namespace.

`mesh.` stands for the schema in all of them. A file has one statement or one function, bears its name, and begins with
what it reads, locks, writes and returns. What must happen together, or may race, is a function; the rest is a query.
There is no backslash in any: what it means within quotes depends on a setting, and functions are called by others, too.

    migrations/   the tables, run once and in order; 0001_initial begins with a list of them and the life of their rows
    functions/    applied again at every migration in which one has changed
        basics/         the clock, the namespace, text that Postgres would refuse
        definitions/    versions of an app: deploy, activate
        jobs/           start one in a transaction of the caller's; remove one with all that belongs to it; what it waits for
        steps/          what an engine commits, and the records that a step reads first: commit_steps is the heart
        durable/        the history of durable functions; what a process leaves that has died
        work/           the queue of the workers: claim, extend, answer, postpone, give back
        events/         the queue of the engines: lock due jobs, postpone or delay them, send a message
        signals/        waiters and signals meet; signals to many jobs
        dead_letters/   bury what nobody can handle, and bring it back
        members/        who is there, who listens to what, hints and messages between processes, rates
        upkeep/         tasks that one process at a time does; deleting what is over
        logins/         procedures for worker logins (worker_*), and who is granted what
    queries/      run by the module that names them; subjects as above, and
        doctor/         what may be wrong with a server, a namespace and an app

How a job passes through them: `start_job` or `commit_steps` → `claim_work` → (`answer_work` | the next `commit_steps`)
→ `send_calls`, timers → `lock_due_jobs` → `load_records` → `commit_steps` → … → `prune`.
"""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha256
from pathlib import Path

_SCHEMA = re.compile(r"\bmesh\.")


def bind(sql: str, schema: str) -> str:
    """Put the schema's quoted name where the files say `mesh.`; the word stands for nothing else in them."""
    quoted = quote(schema)
    return _SCHEMA.sub(lambda _: f"{quoted}.", sql)


def quote(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """For statements that take no parameters. Means the same whatever `standard_conforming_strings` is."""
    quoted = "'" + text.replace("'", "''") + "'"
    return quoted if "\\" not in text else "E" + quoted.replace("\\", "\\\\")


@cache
def read(folder: str) -> dict[str, str]:
    """Name (without .sql) → text of every file below `migrations`, `functions` or `queries`, sorted by name."""
    return collect(Path(__file__).parent / folder)


@cache
def query(name: str, schema: str) -> str:
    """The query of that name, bound to the schema."""
    return bind(read("queries")[name], schema)


def collect(folder: Path) -> dict[str, str]:
    """As `read`, of any folder. Raises ValueError if two files have one name: it would be chance which one is meant."""
    found: dict[str, str] = {}
    for file in sorted(folder.rglob("*.sql"), key=lambda file: file.stem):
        if file.stem in found:
            raise ValueError(f"two files below {folder.name} are named {file.name}")
        found[file.stem] = file.read_text(encoding="utf-8")
    return found


def checksum(*texts: str) -> str:
    return sha256("\0".join(texts).encode()).hexdigest()
