"""The instances behind workers and clients: one of each worker, which clients of the same database use, too."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any, Final

from hotmesh.errors import ConfigError
from hotmesh.mesh import HotMesh
from hotmesh.postgres.connect.options import ConnectionLike

DEFAULT_NAMESPACE: Final = "durable"

_NAME: Final = re.compile("[A-Za-z0-9-]+")


def schema_of(namespace: str) -> str:
    """The schema of a namespace. Raises ConfigError for a name that cannot be one."""
    if not isinstance(namespace, str) or not _NAME.fullmatch(namespace) or len(namespace) > 63:
        raise ConfigError(
            f"a namespace is a name of letters, digits and hyphens, up to 63 characters, not {namespace!r}"
        )
    return namespace.lower().replace("-", "_")


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
