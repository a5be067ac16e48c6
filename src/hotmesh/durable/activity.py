"""What code of activities and steps uses: `from hotmesh.durable import activity`.

`defn` and `step` decorate; see `decorators`. `get_context()` says which call it is.
"""

from __future__ import annotations

from hotmesh.durable.context import ActivityContext, get_context, heartbeat, raise_complete_async
from hotmesh.durable.decorators import activity_defn as defn
from hotmesh.durable.decorators import activity_step as step

__all__ = ["ActivityContext", "defn", "get_context", "heartbeat", "raise_complete_async", "step"]
