"""The instances behind workers and clients: one of each worker, which clients of the same database use, too."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hotmesh.errors import ConfigError
from hotmesh.mesh import HotMesh
from hotmesh.nearest import nearest
from hotmesh.postgres.connect.options import ConnectionLike

DEFAULT_NAMESPACE: Final = "durable"

_NAME: Final = re.compile("[A-Za-z0-9-]+")


def schema_of(namespace: str) -> str:
    """The schema of a namespace: the same text, so that no two have one. Raises ConfigError for a name that cannot be one."""
    if not isinstance(namespace, str) or not _NAME.fullmatch(namespace) or len(namespace) > 63:
        raise ConfigError(
            f"a namespace is a name of letters, digits and hyphens, up to 63 characters, not {namespace!r}"
        )
    return namespace


_TAKEN: Final = frozenset({"cls", "app_id", "connection", "namespace", "workers", "task_queue"})
"""Parameters of `HotMesh.init` that a Worker and a Client fill in by themselves."""

MESH_OPTIONS: Final = tuple(name for name in inspect.signature(HotMesh.init).parameters if name not in _TAKEN)
"""What both hand on to it: `typed.MeshKeywords`."""


def checked_options(options: Mapping[str, Any], where: str, own: Iterable[str]) -> dict[str, Any]:
    """Options for an instance. Raises TypeError for a name that there is not, before anything is done."""
    for name in options:
        if name not in MESH_OPTIONS:
            near = nearest(name, [*own, *MESH_OPTIONS])
            hint = f"; did you mean {near}?" if near else ""
            raise TypeError(
                f"{where} has no option {name}{hint} (its own: {', '.join(own)}; those of HotMesh.init: {', '.join(MESH_OPTIONS)})"
            )
    return dict(options)


@dataclass(frozen=True, slots=True)
class _Shared:
    connection: ConnectionLike
    namespace: str
    loop: asyncio.AbstractEventLoop
    mesh: HotMesh

    def fits(self, connection: ConnectionLike, namespace: str) -> bool:
        same = self.connection is connection or (
            isinstance(connection, str | dict) and self.connection == connection
        )
        return (
            same
            and self.namespace == namespace
            and self.loop is asyncio.get_running_loop()
            and not self.mesh.stopped
        )


_SHARED: Final[list[_Shared]] = []


async def start_mesh(connection: ConnectionLike, namespace: str, **options: Any) -> HotMesh:
    """A new instance. Raises ConfigError, and what `HotMesh.init` raises."""
    return await HotMesh.init(namespace, connection=connection, namespace=schema_of(namespace), **options)


def share(connection: ConnectionLike, namespace: str, mesh: HotMesh) -> None:
    """Let clients use the instance of a worker while it runs."""
    _SHARED[:] = [one for one in _SHARED if not one.mesh.stopped]
    _SHARED.append(_Shared(connection, namespace, asyncio.get_running_loop(), mesh))


def shared(connection: ConnectionLike, namespace: str) -> HotMesh | None:
    """That of a worker of this event loop with the same connection and namespace."""
    return next((one.mesh for one in _SHARED if one.fits(connection, namespace)), None)
