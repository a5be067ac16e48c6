"""The end of all connections of a process."""

from __future__ import annotations

from hotmesh.core.duration import Duration
from hotmesh.postgres.connect import sharing
from hotmesh.runtime.registry import stop_all


async def disconnect_all(grace: Duration | None = None) -> None:
    """Stop every instance, as `HotMesh.stop_all` does, and close what `connect_client` has opened.

    What is open then is not of hotmesh: pools of yours stay open. A new `init` or `connect_client` afterwards works.
    """
    await stop_all(grace)
    await sharing.close_all()
