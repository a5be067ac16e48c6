"""What workflow code uses: `from hotmesh.durable import workflow`.

`defn`, `run` and `signal` decorate, see `decorators`; the rest is called in workflows, see `calls`.
"""

from __future__ import annotations

from hotmesh.durable.calls import (
    in_workflow,
    info,
    is_replaying,
    local_activity,
    logger,
    now,
    random,
    random_generator,
    step,
    uuid4,
    wait_condition,
)
from hotmesh.durable.decorators import workflow_defn as defn
from hotmesh.durable.decorators import workflow_run as run
from hotmesh.durable.decorators import workflow_signal as signal
from hotmesh.durable.strands import WorkflowInfo
from hotmesh.durable_errors import ApplicationError

__all__ = [
    "ApplicationError",
    "WorkflowInfo",
    "defn",
    "in_workflow",
    "info",
    "is_replaying",
    "local_activity",
    "logger",
    "now",
    "random",
    "random_generator",
    "run",
    "signal",
    "step",
    "uuid4",
    "wait_condition",
]
