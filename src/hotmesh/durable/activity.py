"""What code of activities and steps uses: `from hotmesh.durable import activity`.

`defn` and `step` decorate; see `decorators`.
"""

from __future__ import annotations

from hotmesh.durable.decorators import activity_defn as defn
from hotmesh.durable.decorators import activity_step as step

__all__ = ["defn", "step"]
