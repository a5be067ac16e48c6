"""The embedded Postgres: one private cluster per data directory, started on demand and shared by all its users.

What a data directory holds, and what it is after a crash at any point:

- `lock`            held by whoever starts or stops the server. The kernel releases it when that process dies.
- `alive`           locked by the server and all its children, through a descriptor they inherit, and by nobody
                    else for long. Whoever obtains this lock knows that no process of the cluster is left,
                    whatever `postmaster.pid` says and whoever uses that process id today.
- `cluster.partial` a cluster in the making. It never counts; the next start removes it.
- `cluster`         the cluster: initialized, with its database, since the rename of the one above.
- `socket`          the directory of the server's only door. Its owner alone may enter it.
- `server.json`     which binaries run the cluster: for display, and replaced at every start.
- `postgres.log`    what the server says; the part before that is `postgres.log.1`.
- `moved-to`        only where the server cannot reach the directory: the path of the one that holds the rest.

So a start takes `lock`, then `alive`, and only then touches anything; both locks end with their processes.
"""

from hotmesh.postgres.local.binaries import Binaries, find_binaries
from hotmesh.postgres.local.server import LocalServer, Status, ensure_running, remove, status, stop

__all__ = ["Binaries", "LocalServer", "Status", "ensure_running", "find_binaries", "remove", "status", "stop"]
