"""Calls the launcher of the embedded Postgres in a process of its own, as another user if asked to.

    python launcher.py '{"call": "ensure_running", "data_dir": "/tmp/x", "uid": 65534}'

Prints one JSON object: what the call gave, or `error`. Everything is imported before the user changes, since that
user may not be able to read the interpreter's own files.
"""

from __future__ import annotations

import fcntl  # noqa: F401
import json
import os
import resource
import socket
import sys
from pathlib import Path
from typing import Any

import guard
from hotmesh.errors import LocalServerError
from hotmesh.postgres.local import ensure_running, privileges, remove, status, stop


def main() -> None:
    guard.take_part()
    order = json.loads(sys.argv[1])
    if order.get("private_root"):
        privileges.PRIVATE_ROOTS = (Path(order["private_root"]),)
    if order.get("umask") is not None:
        os.umask(order["umask"])
    if order.get("longest_file"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["longest_file"], order["longest_file"]))
    if order.get("uid") and os.geteuid() == 0:
        os.setgroups([])
        os.setgid(order["uid"])
        os.setuid(order["uid"])
    try:
        answer = perform(order["call"], Path(order["data_dir"]), sync=order.get("sync", False))
    except (LocalServerError, OSError) as error:
        answer = {"error": str(error), "kind": type(error).__name__}
    print(json.dumps(answer))


def perform(call: str, data_dir: Path, *, sync: bool) -> dict[str, Any]:
    match call:
        case "ensure_running":
            server = ensure_running(data_dir, sync=sync)
            return {
                "pid": server.pid,
                "dsn": server.dsn,
                "version": server.version,
                "bin_dir": str(server.bin_dir),
                "socket_dir": str(server.socket_dir),
                "log": str(server.log),
            }
        case "stop":
            return {"stopped": stop(data_dir)}
        case "remove":
            remove(data_dir)
            return {}
        case "status":
            return {"running": status(data_dir).running}
        case "connect":
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(data_dir))
            return {}
        case _:
            raise AssertionError(call)


if __name__ == "__main__":
    main()
