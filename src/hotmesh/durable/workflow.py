"""What workflow code uses: `from hotmesh.durable import workflow`.

`defn`, `run` and `signal` decorate; see `decorators`.
"""

from __future__ import annotations

from hotmesh.durable.decorators import workflow_defn as defn
from hotmesh.durable.decorators import workflow_run as run
from hotmesh.durable.decorators import workflow_signal as signal

__all__ = ["defn", "run", "signal"]
